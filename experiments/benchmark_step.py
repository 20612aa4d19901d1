"""What Bayes costs: a training step of the 784-512-10 TT-matrix net, MAP and mean-field SVI by hand in torch, by `fit`, by Pyro; SVGD.

At the ranks that learning starts with and at ranks that pruning leaves, from which SVGD starts. `--threads 2` for two threads.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial

import pyro
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from turns import medians

from bayestt.algebra.formats import Form
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.memory import keep_freed_memory
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.prior import log_uniform
from bayestt.bayes.step import adam, step
from bayestt.bayes.svgd import particles
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize

ROUNDS, BATCH, IMAGES, PARTICLES = 101, 128, 55_000, 20
RANKS = {"at first": ([16, 20, 20], 20), "pruned": ([14, 2, 16], 7)}
"""Of both layers: `fit.rank` of experiment=fashion_fc, and a net that it found."""
SHARES = {"fc1": (("r1", (0,)), ("r2", (1,)), ("r3", (2, 3))), "fc2": (("r1", (0, 1)),)}
"""The cores that every rank's scale is shared by."""


def believed(ranks: tuple[list[int], int]) -> Model:
    """The net with these ranks, under its prior."""
    forms = {
        "fc1": Form("tt_matrix", ranks[0], rows=[4, 4, 8, 4], cols=[4, 7, 4, 7]),
        "fc2": Form("tt_matrix", ranks[1], rows=[2, 5], cols=[16, 32]),
    }
    return model(tensorize(fc([784, 512, 10]), forms), log_uniform(), categorical, IMAGES)


def penalty(of: Model, squares: Mapping[str, Tensor]) -> Tensor:
    """Minus the log-density of weights with these squares, up to a constant; the right rank's best scale in closed form."""
    total = sum(square.sum() for name, square in squares.items() if name.endswith("bias")) / of.prior.wide**2 / 2
    for name, bonds in SHARES.items():
        form = of.net.get_submodule(name).form
        for axis, cores in bonds:
            summed, count = 0, 0
            for k in cores:
                square, axes = squares[f"{name}.core{k}"], form.cores[k]
                summed = summed + square.sum([d for d, other in enumerate(axes) if other != axis])
                count += square.numel() // form.size[axis]
            best = (summed.detach() / (count + 1)).clamp(1e-12)
            total = total + (summed / best).sum() / 2 + (count + 1) / 2 * best.log().sum()
    return total


def hand_step(
    of: Model, means: Mapping[str, Tensor], log_stds: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor
) -> None:
    """One step of MAP, or of mean-field SVI where there are deviations, written for this net alone."""
    optimizer.zero_grad()
    if log_stds:
        weights = {name: torch.addcmul(mean, log_stds[name].exp(), torch.randn_like(mean)) for name, mean in means.items()}
        squares = {name: mean.square() + (2 * log_stds[name]).exp() for name, mean in means.items()}
    else:
        weights, squares = means, {name: mean.square() for name, mean in means.items()}
    entropy = sum(log_std.sum() for log_std in log_stds.values())
    loss = cross_entropy(functional_call(of.net, weights, (x,)), labels) + (penalty(of, squares) - entropy) / IMAGES
    loss.backward()
    if not loss.isfinite():
        raise FloatingPointError("the loss is no number")
    optimizer.step()
    loss.item()


def by_hand(of: Model, spread: bool) -> partial:
    """The hand-written step with parameters and an optimiser of its own."""
    means = {name: value.detach().clone().requires_grad_() for name, value in of.net.named_parameters()}
    log_stds = {name: torch.full_like(mean, -4.6).requires_grad_() for name, mean in means.items()} if spread else {}
    return partial(hand_step, of, means, log_stds, torch.optim.Adam([*means.values(), *log_stds.values()], lr=5e-3, fused=True))


def ours(of: Model, guide: torch.nn.Module) -> Callable[[Tensor, Tensor], float]:
    """The step of `fit`."""
    optimizer = adam(of, guide, lr=5e-3)
    return lambda x, labels: step(of, guide, optimizer, x, labels, 1 / IMAGES, 1.0)


def pyros(of: Model, guide: torch.nn.Module) -> Callable[[Tensor, Tensor], float]:
    """The step of Pyro's own SVI on the same model."""
    return pyro.infer.SVI(of, guide, pyro.optim.Adam({"lr": 5e-3}), pyro.infer.Trace_ELBO()).step


def steps(of: Model) -> dict[str, float]:
    """Milliseconds of every way to take a step."""
    pyro.clear_param_store()
    ways = {
        "MAP by hand": by_hand(of, spread=False),
        "MAP by fit": ours(of, point(of)),
        "MAP by Pyro": pyros(of, point(of)),
        "mean-field SVI by hand": by_hand(of, spread=True),
        "mean-field SVI by fit": ours(of, mean_field(of)),
        "mean-field SVI by Pyro": pyros(of, mean_field(of)),
        f"SVGD by fit, {PARTICLES} particles": ours(of, particles(of, PARTICLES)),
    }
    return medians(ways, ROUNDS, torch.randn(BATCH, 28, 28), torch.randint(10, (BATCH,)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    keep_freed_memory()  # as the pipeline does
    pyro.enable_validation(False)
    print(f"784-512-10 TT-matrix, batch {BATCH}, {torch.get_num_threads()} thread(s), torch {torch.__version__}; interleaved medians\n")
    print("| ranks | step | ms | / the same by hand | / MAP by fit |", "|" + " --- |" * 5, sep="\n")
    for ranks, sizes in RANKS.items():
        took = steps(believed(sizes))
        for name, each in took.items():
            hand = took.get(f"{name.split(' by ')[0]} by hand")
            print(f"| {ranks} | {name} | {each:.2f} | {f'{each / hand:.2f}' if hand else ''} | {each / took['MAP by fit']:.2f} |")
