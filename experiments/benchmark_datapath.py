"""What a tensorized 784-512-10 net costs on the datapath, by rank: cycles, and the part of the multipliers' time that they multiply.

By `hw.cycles`, to which the gateware is held. Beside it the dense net on the same array, and the accelerator of Zhang et al. 2021 at its
best: all its multipliers always busy, cores absorbed from right to left as it does.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from bayestt.algebra.factorization import Factorization
from bayestt.algebra.formats import Form, tt_matrix
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, windowed
from bayestt.ir.lower import lower
from bayestt.ir.quantize import quantize
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import TensorizedLinear, tensorize
from bayestt.nets.trace import trace
from hw.arch import Arch
from hw.assemble import assemble
from hw.cost import group_cost, nest_cost
from hw.cycles import cycles, instruction_cycles

ARCHES = {"16 x 4": Arch(rows=16, lanes=4, data_depth=65536), "4 x 8": Arch(rows=4, lanes=8, data_depth=65536)}
"""Images in the rows x weights in the lanes; data memory for what rank 16 keeps between steps."""
DEEP = 1 << 17
"""Weight words with which a dense net stays on the chip."""
NETS = {
    "3 cores": {"rows": [8, 8, 8], "cols": [7, 8, 14]},
    "4 cores": {"rows": [4, 4, 8, 4], "cols": [4, 7, 4, 7]},
}
"""Modes of fc1, a TT-matrix like the last layer, whose modes are those of `LAST`."""
LAST = {"rows": [2, 5], "cols": [16, 32]}
RANKS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
RIVAL_MULTIPLIERS = 16 * 8
RIVAL = (tt_matrix([4, 4, 2, 16], [7, 4, 2, 16], 16), tt_matrix([1, 16], [32, 16], 16))
"""The published net: 896-512-16."""


def net(modes: str, rank: int) -> nn.Module:
    """The net, its weights random: no cycle depends on them."""
    return tensorize(
        fc([784, 512, 10]), {name: Form("tt_matrix", rank, **form) for name, form in {"fc1": NETS[modes], "fc2": LAST}.items()}
    )


def pruned() -> nn.Module:
    """The net with ranks that pruning left of `fashion_fc`, as `benchmark_step.py` has them; its last layer is in the CP format."""
    forms = {"fc1": Form("tt_matrix", [14, 2, 16], **NETS["4 cores"]), "fc2": Form("cp", 7, rows=[10], cols=[16, 32])}
    return tensorize(fc([784, 512, 10]), forms)


def integer(made: nn.Module, arch: Arch) -> Graph:
    """What the machine is to compute, its contractions in the order that suits it."""
    images = np.random.default_rng(0).random((8, 28, 28), np.float32)
    return quantize(fold(trace(made, torch.from_numpy(images[:1])), group_cost(arch)), images)


def macs(graph: Graph) -> int:
    """Multiplications of the graph's contractions for an image, none of a machine's padding among them."""
    axes = [{axis for arg in op.args for axis in windowed(op, graph[arg].axes)} - {"n"} for op in graph.ops if op.kind == "CONTRACT"]
    return sum(prod(graph.shape(tuple(names))) for names in axes)


def right_to_left(form: Factorization) -> int:
    """Multiplications for an image when it absorbs the last core first."""
    total, alive = 0, {*form.cols}
    for number, core in reversed([*enumerate(form.cores)]):
        total += prod(form.size[axis] for axis in alive | {*core})
        alive = (alive | {*core}) & {*form.rows}.union(*form.cores[:number])
    return total


def measured(made: nn.Module, arch: Arch) -> dict[str, float]:
    """Figures of a net for one batch among many: `run` is what instructions take alone, `all` has loading, images and scores too."""
    graph = integer(made, arch)
    program = assemble(lower(graph, arch.tile, arch.room, nest_cost(arch)), arch)
    run = sum(map(instruction_cycles, program.instructions))
    every = cycles(program, 11) - cycles(program, 10)
    busiest = arch.rows * macs(graph) / (arch.rows * arch.lanes)
    return {
        "parameters": graph.parameters,
        "macs": macs(graph),
        "segments": len(program.segments),
        "run": run,
        "all": every,
        "run_used": busiest / run,
        "all_used": busiest / every,
    }


def rival_cycles(forms: Iterable[Factorization], images: int) -> int:
    """Cycles of the rival accelerator for a batch."""
    return images * sum(map(right_to_left, forms)) // RIVAL_MULTIPLIERS


def table(array: str, nets: Mapping[str, nn.Module]) -> list[str]:
    """A row for each net on an array, as Markdown, and the dense net's at the end."""
    arch = ARCHES[array]
    heads = [
        "rank",
        "parameters",
        "MACs an image",
        "run",
        "used",
        "all",
        "used",
        "dense / run",
        "rival",
        "rival / all, equal multipliers",
        "segments",
    ]
    dense = measured(fc([784, 512, 10]), replace(arch, weight_depth=DEEP))
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for rank, made in tqdm(nets.items(), desc=array, unit="net", leave=False):
        found = measured(made, arch)
        theirs = rival_cycles([layer.form for layer in made.modules() if isinstance(layer, TensorizedLinear)], arch.rows)
        equal = theirs * RIVAL_MULTIPLIERS / (arch.rows * arch.lanes)
        ratios = f"{dense['run'] / found['run']:.2f} | {theirs:,} | {equal / found['all']:.2f}"
        lines.append(f"| {rank} | {_figures(found)} | {ratios} | {found['segments']} |")
    return [*lines, f"| dense | {_figures(dense)} | 1.00 | | | {dense['segments']} |"]


def _figures(found: dict[str, float]) -> str:
    """The columns that all nets have."""
    counts = f"{found['parameters']:,} | {found['macs']:,} | {found['run']:,}"
    used, used_of_all = (f"{100 * found[key]:.1f} %" for key in ("run_used", "all_used"))
    return f"{counts} | {used} | {found['all']:,} | {used_of_all}"


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="ranks clipped")
    print("Cycles of a batch (one image in each row of the array) of 784-512-10 by the formula of hw.cycles")
    published = rival_cycles(RIVAL, 1)
    print("run: instructions alone; all: with images, scores and loading; used: the part of it in which multipliers do the graph's work")
    print(f"rival: {RIVAL_MULTIPLIERS} multipliers; its published net of rank 16, 896-512-16, takes {published:,} cycles an image")
    print(f"last layer {LAST}; dense: with {DEEP:,} weight words, so that it need not be loaded again")
    for array in ARCHES:
        for modes, form in NETS.items():
            nets = {str(rank): net(modes, rank) for rank in RANKS} | ({"14, 2, 16; CP 7": pruned()} if modes == "4 cores" else {})
            print(f"\n{array} multipliers, fc1 {form}\n", *table(array, nets), sep="\n")
