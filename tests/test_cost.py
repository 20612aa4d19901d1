"""The cost of lowering is the machine's cycles, and what is folded for a machine computes the same in fewer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from graphs import extremes, images
from hypothesis import given, settings
from schedules import graph_cases

from bayestt.algebra.formats import Form
from bayestt.ir.bind import turns
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.quantize import quantize
from bayestt.ir.schedule import Schedule
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace
from hw.arch import Arch
from hw.assemble import assemble
from hw.cost import group_cost, nest_cost
from hw.cycles import instruction_cycles, nest_cycles
from hw.emulate import emulate

SIXTEEN = Arch(rows=16, lanes=4, data_depth=65536)
"""The array of 64 multipliers, with room for what lies between steps at high ranks."""


@pytest.mark.parametrize("loops", [8, 3])
@settings(max_examples=25, deadline=None)
@given(case=graph_cases())
def test_the_cost_of_a_nest_is_its_cycles(loops: int, case: tuple[Graph, Arch, np.ndarray]) -> None:
    graph, arch, _ = case
    priced, machine = nest_cost(replace(arch, loops=loops, extent_bits=5)), replace(arch, loops=loops, extent_bits=5)
    for nest in lower(graph, arch.tile, arch.room).nests:
        try:
            expected = nest_cycles(nest, machine)
        except ValueError:
            expected = float("inf")
        assert priced(nest) == expected


@settings(max_examples=25, deadline=None)
@given(case=graph_cases())
def test_what_is_lowered_by_cycles_takes_no_more_of_them(case: tuple[Graph, Arch, np.ndarray]) -> None:
    graph, arch, x = case
    judged, plain = (lower(graph, arch.tile, arch.room, by) for by in (nest_cost(arch), turns))
    assert sum(map(nest_cost(arch), judged.nests)) <= sum(map(nest_cost(arch), plain.nests))
    assert (emulate(assemble(judged, arch), x) == interpret(graph, x)).all()


def integer(modes: tuple[list[int], list[int]], rank: int, arch: Arch | None) -> Graph:
    """A small net of two TT-matrices, folded for a machine, or by multiplications."""
    torch.manual_seed(0)
    net = fc([4 * 3 * 6, 24, 10])
    if rank:
        net = tensorize(net, {"fc1": Form("tt_matrix", rank, *modes), "fc2": Form("tt_matrix", rank, [2, 5], [4, 6])})
    traced = trace(net, torch.zeros(1, 12, 6))
    return quantize(fold(traced, group_cost(arch) if arch else None), np.random.default_rng(0).random((20, 12, 6)))


def worth(schedule: Schedule) -> int:
    """Cycles of a batch's instructions, and for each word of weights one cycle an image."""
    return sum(map(nest_cost(SIXTEEN), schedule.nests)) + SIXTEEN.rows * len(schedule.weights) // SIXTEEN.lanes


def run_cycles(graph: Graph, arch: Arch) -> int:
    """Cycles of a batch's instructions."""
    return sum(map(instruction_cycles, assemble(lower(graph, arch.tile, arch.room, nest_cost(arch)), arch).instructions))


MODES = {"3 cores": ([4, 2, 3], [4, 3, 6]), "4 cores": ([2, 2, 2, 3], [2, 2, 3, 6])}


@pytest.mark.filterwarnings("ignore:ranks clipped")
@pytest.mark.parametrize("rank", [1, 2, 3, 5])
@pytest.mark.parametrize("modes", MODES.values(), ids=MODES)
def test_a_net_folded_for_a_machine_is_equal_and_worth_more(modes: tuple[list[int], list[int]], rank: int) -> None:
    graph = integer(modes, rank, SIXTEEN)
    x = images(extremes(graph, 0), 20, 0, extreme=True)
    schedule = lower(graph, SIXTEEN.tile, SIXTEEN.room, nest_cost(SIXTEEN))
    assert (emulate(assemble(schedule, SIXTEEN), x) == interpret(graph, x)).all()
    other = lower(integer(modes, rank, None), SIXTEEN.tile, SIXTEEN.room, nest_cost(SIXTEEN))
    assert worth(schedule) <= worth(other)


USED = 0.97
"""The least part of its time that the array multiplies while instructions run."""


@pytest.mark.filterwarnings("ignore:ranks clipped")
@pytest.mark.parametrize("rank", [2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("modes", [([8, 8, 8], [7, 8, 14]), ([4, 4, 8, 4], [4, 7, 4, 7])], ids=["3 cores", "4 cores"])
def test_a_whole_net_keeps_the_multipliers_busy_and_is_no_slower_than_dense(modes: tuple[list[int], list[int]], rank: int) -> None:
    """784-512-10; up to rank 8 quicker than the dense net with all weights on the chip."""
    net = tensorize(fc([784, 512, 10]), {"fc1": Form("tt_matrix", rank, *modes), "fc2": Form("tt_matrix", rank, [2, 5], [16, 32])})
    graph = quantize(fold(trace(net, torch.zeros(1, 28, 28)), group_cost(SIXTEEN)), np.random.default_rng(0).random((4, 28, 28)))
    axes = [{axis for arg in op.args for axis in graph[arg].axes} - {"n"} for op in graph.ops if op.kind == "CONTRACT"]
    useful = sum(int(np.prod(graph.shape(tuple(names)))) for names in axes)
    run = run_cycles(graph, SIXTEEN)
    assert useful * SIXTEEN.rows >= USED * run * SIXTEEN.rows * SIXTEEN.lanes
    dense = 784 * 512 // SIXTEEN.lanes + 3 * 512
    assert rank > 8 or run < dense


def test_weights_of_four_bits_take_half_the_memory_and_as_many_cycles() -> None:
    torch.manual_seed(0)
    forms = {"fc1": Form("tt_matrix", 4, [4, 4, 8, 4], [4, 7, 4, 7]), "fc2": Form("tt_matrix", 4, [2, 5], [16, 32])}
    traced = trace(tensorize(fc([784, 512, 10]), forms), torch.zeros(1, 28, 28))
    memory_bits, run = [], []
    for bits in (8, 4):
        arch = replace(SIXTEEN, weight_bits=bits)
        graph = quantize(fold(traced, group_cost(arch)), np.random.default_rng(0).random((4, 28, 28)), bits)
        program = assemble(lower(graph, arch.tile, arch.room, nest_cost(arch)), arch)
        x = images(extremes(graph, 0), 20, 0, extreme=True)
        assert (emulate(program, x) == interpret(graph, x)).all()
        memory_bits.append(sum(segment.weights.size * bits for segment in program.segments))
        run.append(sum(map(instruction_cycles, program.instructions)))
    assert memory_bits[0] == 2 * memory_bits[1]
    assert run[0] == run[1]
