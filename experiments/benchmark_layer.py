"""What a TT-matrix layer costs: time of a training step and of inference, memory kept between the two passes.

Against nn.Linear and TensorLy-Torch's FactorizedLinear with the same cores, factorized and reconstructed. All take turns; figures are
medians. `--threads 2` for two threads, `--sizes 784x512` for one size only.
"""

import argparse
from collections.abc import Callable
from functools import partial
from math import exp, log
from random import Random
from statistics import mean, median
from time import perf_counter

import tensorly
import torch
from tltorch import FactorizedLinear
from torch import Tensor, nn
from tqdm import tqdm

from bayestt.algebra.formats import tt_matrix
from bayestt.bayes.memory import keep_freed_memory
from bayestt.nets.tensorize import TensorizedLinear

MODES = {"784x512": ([4, 4, 8, 4], [4, 7, 4, 7]), "1024x1024": ([4, 8, 8, 4], [4, 8, 8, 4]), "4096x4096": ([8, 8, 8, 8], [8, 8, 8, 8])}
RANKS, BATCHES = (4, 8, 16, 32), (1, 64, 1024)
SECONDS, FEWEST, MOST = 1.0, 3, 101
"""Time for a cell; fewest and most rounds in it."""
RIVALS = ("factorized", "reconstructed")


def layers(size: str, rank: int) -> dict[str, nn.Module]:
    """The layer dense, ours, and TensorLy-Torch's two, all tensorized ones with the same cores."""
    rows, cols = MODES[size]
    ours = TensorizedLinear(tt_matrix(rows, cols, rank))
    found: dict[str, nn.Module] = {"nn.Linear": nn.Linear(*reversed(ours.form.shape)), "bayestt": ours}
    again = TensorizedLinear(ours.form, recompute=True)
    again.load_state_dict(ours.state_dict())
    found["recomputed"] = again
    ranks = (1, *(ours.form.size[axis] for axis in ours.form.ranks), 1)
    for way in RIVALS:
        theirs = FactorizedLinear(tuple(cols), tuple(rows), factorization="blocktt", rank=ranks, implementation=way)
        with torch.no_grad():
            for factor, core in zip(theirs.weight.factors, ours.cores, strict=True):
                factor.copy_(core.reshape(factor.shape))
            theirs.bias.copy_(ours.bias)
        found[way] = theirs
    return found


def step(layer: nn.Module, x: Tensor, upstream: Tensor) -> None:
    """Forward and backward: the gradients of x and of all parameters."""
    torch.autograd.grad(layer(x), [x, *layer.parameters()], upstream)


@torch.no_grad()
def infer(layer: nn.Module, x: Tensor, upstream: Tensor) -> None:
    """Forward alone."""
    layer(x)


def medians(ways: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Milliseconds; all ways take turns in an order that changes, and the first round does not count.

    What a way leaves in the caches and the heap is the next one's burden. Ways ten times slower than the quickest have the fewest rounds.
    """
    took: dict[str, list[float]] = {name: [] for name in ways}
    names, end, shuffled = list(ways), perf_counter() + SECONDS, Random(0)
    for rounds in range(MOST + 1):
        if rounds > FEWEST:
            quickest = min(median(times[1:]) for times in took.values())
            names = [name for name in ways if median(took[name][1:]) < 10 * quickest]
            if perf_counter() > end:
                break
        for name in shuffled.sample(names, len(names)):
            start = perf_counter()
            ways[name]()
            took[name].append(1e3 * (perf_counter() - start))
    return {name: median(times[1:]) for name, times in took.items()}


def kept_bytes(layer: nn.Module, x: Tensor) -> int:
    """What a forward pass keeps for the backward pass, beside x and the parameters, which are there anyway."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    there = {tensor.untyped_storage().data_ptr() for tensor in (x, *layer.parameters())}
    return sum(size for place, size in storages.items() if place not in there)


def measured(size: str, rank: int, batch: int) -> list[dict]:
    """Two rows: a training step, and inference."""
    made = layers(size, rank)
    cols = made["nn.Linear"].in_features
    x, upstream = torch.randn(batch, cols, requires_grad=True), torch.randn(batch, made["nn.Linear"].out_features)
    torch.testing.assert_close(made["bayestt"](x), made["reconstructed"](x), rtol=1e-3, atol=1e-3)
    rows = []
    for work in ("step", "inference"):
        infers = work == "inference"
        pass_through = infer if infers else step
        ways = {name: partial(pass_through, layer, x, upstream) for name, layer in made.items() if not (infers and name == "recomputed")}
        row = {"work": work, "size": size, "rank": rank, "batch": batch, "threads": torch.get_num_threads(), "ms": medians(ways)}
        rows.append(row if infers else row | {"kept_bytes": {name: kept_bytes(layer, x) for name, layer in made.items()}})
    return rows


def table(rows: list[dict]) -> list[str]:
    """One work's rows as Markdown: milliseconds, two ratios, and megabytes kept."""
    kept = "kept_bytes" in rows[0]
    names = list(rows[0]["ms"])
    heads = ["size", "rank", "batch", *(f"{name} ms" for name in names), "/ nn.Linear", "better rival /"]
    heads += [f"{name} kept MB" for name in names if name != "nn.Linear"] if kept else []
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for row in rows:
        figures = [f"{row['ms'][name]:.2f}" for name in names] + [f"{against_dense(row):.2f}", f"{gain(row):.2f}"]
        figures += [f"{row['kept_bytes'][name] / 1e6:.2f}" for name in names if name != "nn.Linear"] if kept else []
        lines.append(f"| {row['size']} | {row['rank']} | {row['batch']} | {' | '.join(figures)} |")
    return lines


def gain(row: dict) -> float:
    """How many times faster than the better mode of TensorLy-Torch."""
    return min(row["ms"][way] for way in RIVALS) / row["ms"]["bayestt"]


def against_dense(row: dict) -> float:
    """Time over that of nn.Linear."""
    return row["ms"]["bayestt"] / row["ms"]["nn.Linear"]


def summary(rows: list[dict]) -> str:
    """Geometric mean and worst cell of one work."""
    worst = min(rows, key=gain)
    average, slower = exp(mean(log(gain(row)) for row in rows)), sum(gain(row) < 1 for row in rows)
    where = f"{worst['size']}, rank {worst['rank']}, batch {worst['batch']}"
    return (
        f"{average:.2f} times faster than TensorLy-Torch's better mode (geometric mean), {gain(worst):.2f} times in the worst cell "
        f"({where}); slower in {slower} of {len(rows)} cells"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", choices=MODES, default=list(MODES))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()  # for all alike
    torch.manual_seed(0)
    cells = [(size, rank, batch) for size in chosen.sizes for rank in RANKS for batch in BATCHES]
    with tensorly.backend_context("pytorch"):
        rows = [row for cell in tqdm(cells, unit="cell") for row in measured(*cell)]
    tensorly.set_backend("numpy")  # TensorLy-Torch changed it for the whole process
    print(f"TT-matrix layer with bias, float32, {chosen.threads} thread(s), torch {torch.__version__}")
    for work in ("step", "inference"):
        of_work = [row for row in rows if row["work"] == work]
        print(f"\n{work}: {summary(of_work)}\n", *table(of_work), sep="\n")
