"""What `fit` costs: a training step of a residual net for CIFAR-10, by hand in torch and by `fit` without a prior, by MAP, by SVI.

`--depth 110 --batch 16` for another net, `--rank 8` for tensor trains where Hawkins & Zhang 2021 have them, `--threads 2` for two threads,
`--device cuda` for a GPU, where `fit` replays a step's kernels as a graph and does not launch them one by one.
"""

import argparse
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.functional import cross_entropy
from turns import medians

from bayestt.bayes.captured import Captured
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.memory import keep_freed_memory
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.prior import log_uniform
from bayestt.bayes.statistics import learning
from bayestt.bayes.step import PRECISIONS, Slope, adam, differentiate, step
from bayestt.nets.resnet import resnet
from bayestt.nets.tensorize import tensorize

ROUNDS, IMAGES = 21, 45_000
FORMS = Path(__file__).parent.parent / "conf" / "form" / "resnet_tensor_train.yaml"


def built(depth: int, rank: int | None) -> torch.nn.Module:
    """The net, dense or with kernels as tensor trains of that rank."""
    forms = instantiate(OmegaConf.load(FORMS), _convert_="all") if rank else {}
    with warnings.catch_warnings():
        # Modes of 4 allow no more than rank 4.
        warnings.simplefilter("ignore")
        return tensorize(resnet(depth), {glob: replace(form, rank=rank) for glob, form in forms.items()})


def by_hand(net: torch.nn.Module, precision: str) -> Callable[[Tensor, Tensor], None]:
    """The step that one would write for this net alone."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def take(x: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            scores = net(x)
        loss = cross_entropy(scores.float(), labels)
        loss.backward()
        optimizer.step()
        loss.item()

    return take


def ours(of: Model, guide: torch.nn.Module, weight: float, precision: str, slope: Slope) -> Callable[[Tensor, Tensor], float]:
    """The step of `fit`."""
    optimizer = adam(of, guide, lr=1e-3)
    return lambda x, labels: step(of, guide, optimizer, x, labels, weight, 1.0, None, precision, slope)


def steps(depth: int, rank: int | None, batch: int, precision: str, device: str) -> dict[str, float]:
    """Milliseconds of every way to take a step."""
    nets = [model(built(depth, rank).to(device), log_uniform(), categorical, IMAGES) for _ in range(4)]
    slope = Captured if device == "cuda" else lambda: differentiate
    ways = {
        "by hand": by_hand(built(depth, rank).to(device), precision),
        "by fit, no prior": ours(nets[0], point(nets[0]), 0, precision, slope()),
        "MAP by fit": ours(nets[1], point(nets[1]), 1 / IMAGES, precision, slope()),
        "mean-field SVI by fit": ours(nets[2], mean_field(nets[2]), 1 / IMAGES, precision, slope()),
    }
    if device == "cuda":
        ways["MAP by fit, kernels one by one"] = ours(nets[3], point(nets[3]), 1 / IMAGES, precision, differentiate)
    x = torch.randn(batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    with ExitStack() as stack:
        for net in nets:
            stack.enter_context(learning(net.net))
        return medians(ways, ROUNDS, x, torch.randint(10, (batch,), device=device))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    keep_freed_memory()  # as the pipeline does
    kernels = f"tensor trains of rank {given.rank}" if given.rank else "dense kernels"
    where = torch.cuda.get_device_name() if given.device == "cuda" else f"{given.threads} thread(s)"
    print(f"ResNet-{given.depth}, {kernels}, batch {given.batch}, {where}, torch {torch.__version__}; medians in turn\n")
    print("| precision | step | ms | images a second | / by hand |", "|" + " --- |" * 5, sep="\n")
    for precision in PRECISIONS:
        took = steps(given.depth, given.rank, given.batch, precision, given.device)
        for name, each in took.items():
            print(f"| {precision} | {name} | {each:.1f} | {1e3 * given.batch / each:.0f} | {each / took['by hand']:.3f} |")
