"""What Bayes costs: a training step of the 784-512-10 TT-matrix net by hand in torch, by `fit`, and by Pyro's own SVI."""

from statistics import median
from time import perf_counter

import pyro
import torch
from torch.nn.functional import cross_entropy

from bayestt.algebra.formats import Form
from bayestt.bayes.guide import point
from bayestt.bayes.model import categorical, model
from bayestt.bayes.prior import log_uniform
from bayestt.bayes.step import adam, step
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize

ROUNDS, BATCH, IMAGES = 201, 128, 55_000
FORMS = {
    "fc1": Form("tt_matrix", [16, 20, 20], rows=[4, 4, 8, 4], cols=[4, 7, 4, 7]),
    "fc2": Form("tt_matrix", 20, rows=[2, 5], cols=[16, 32]),
}

torch.set_num_threads(1)
torch.manual_seed(0)
net = tensorize(fc([784, 512, 10]), FORMS)
x, labels = torch.randn(BATCH, 28, 28), torch.randint(10, (BATCH,))
believed = model(net, log_uniform(), categorical, IMAGES)

# By hand: the same objective, core by core, with the right rank's best scale in closed form.
by_hand = tensorize(fc([784, 512, 10]), FORMS)
optimizer = torch.optim.Adam(by_hand.parameters(), lr=5e-3, fused=True)
shares = {"fc1": (("r1", (0,)), ("r2", (1,)), ("r3", (2, 3))), "fc2": (("r1", (0, 1)),)}


def hand_step() -> None:
    """One step of MAP under the log-uniform prior, written for this net alone."""
    optimizer.zero_grad()
    penalty = torch.zeros(())
    for name, bonds in shares.items():
        layer = by_hand.get_submodule(name)
        for axis, cores in bonds:
            squares, count = 0, 0
            for k in cores:
                core, axes = layer.cores[k], layer.form.cores[k]
                squares = squares + core.square().sum([d for d, other in enumerate(axes) if other != axis])
                count += core.numel() // core.shape[axes.index(axis)]
            best = (squares.detach() / (count + 1)).clamp(1e-12)
            penalty = penalty + (squares / best).sum() / 2 + (count + 1) / 2 * best.log().sum()
    loss = cross_entropy(by_hand(x), labels) + penalty / IMAGES
    loss.backward()
    if not loss.isfinite():
        raise FloatingPointError("the loss is no number")
    optimizer.step()
    loss.item()


guide = point(believed)
ours = adam(believed, guide, lr=5e-3)
pyro.enable_validation(False)
svi = pyro.infer.SVI(believed, point(believed), pyro.optim.Adam({"lr": 5e-3}), pyro.infer.Trace_ELBO())
ways = {
    "by hand, in torch": hand_step,
    "fit": lambda: step(believed, guide, ours, x, labels, 1 / IMAGES, 1.0),
    "Pyro's SVI on the same model": lambda: svi.step(x, labels),
}
milliseconds = {name: [] for name in ways}
for _ in range(ROUNDS):
    for name, way in ways.items():
        start = perf_counter()
        way()
        milliseconds[name].append(1e3 * (perf_counter() - start))
print(f"784-512-10 TT-matrix, batch {BATCH}, 1 thread, torch {torch.__version__}; medians of {ROUNDS} interleaved rounds")
first = median(milliseconds["by hand, in torch"])
for name, times in milliseconds.items():
    print(f"{name:30} {median(times):6.2f} ms  {median(times) / first:5.2f}x")
