"""The gateware that trains against the definition of a step: latents, shifts, scales and all, and against the formula of its cycles."""

import gc
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from learnable import PLANTED_RANK, as_lists, planted_images, small_chain
from test_training_trainer import endless, left_of_zero

from bayestt.algebra.fixed import quantize
from bayestt.algebra.formats import tt_matrix
from bayestt.data.fashion_mnist import small
from bayestt.ir.descend import IMAGE, Rule, State, descend, error, factors_of, fractions, values_of
from bayestt.ir.start import start
from bayestt.ir.training import Training, training
from hw.training.assemble import arch_for, assemble
from hw.training.cycles import cycles
from hw.training.program import TrainingProgram
from hw.training.script import Batch
from hw.training.simulate import simulate, training_verilog


@pytest.mark.parametrize(("lanes", "strips"), [(1, False), (4, True), (16, True)])
def test_steps_are_those_of_the_definition(lanes: int, strips: bool) -> None:
    made, images, labels = small_chain(strips)
    batches = [(images[:3], labels[:3]), (images[3:5], labels[3:5])]
    _hold_to_the_definition(made, start(made, images, labels, 0), batches, Rule(6, 4, 3), lanes)


def test_extreme_images_and_a_training_without_a_prior() -> None:
    made, _, labels = small_chain()
    images = np.where(np.random.default_rng(3).random((8, 16)) < 0.5, -128, 127)
    state = start(made, images, labels, 0)
    _hold_to_the_definition(made, replace(state, steps=9), [(images[:2], labels[:2])] * 2, Rule(1, None), 2)


def test_hundreds_of_steps_of_the_compiled_gateware_are_those_of_the_definition() -> None:
    made, images, labels = small_chain()
    random = np.random.default_rng(0)
    chosen = [random.choice(8, 4, replace=False) for _ in range(300)]
    state = start(made, images, labels, 0)
    left = _hold_to_the_definition(made, state, [(images[at], labels[at]) for at in chosen], Rule(6, 13, 3), 4, "verilator")
    assert any(not scales.alive.all() for scales in left.scales.values()), "no rank went: the test would not see how"


@pytest.mark.slow
def test_a_net_of_the_paper_s_size_trains_on_the_compiled_gateware() -> None:
    forms = {"fc0": tt_matrix((4, 4, 2, 16), (7, 4, 2, 16), (13, 7, 5)), "fc1": tt_matrix((1, 16), (32, 16), 16)}
    made, random = training(forms, strips={"fc0": "i1"}), np.random.default_rng(0)
    images, labels = random.integers(0, 128, (6, 896)), random.integers(0, 10, 6)
    _hold_to_the_definition(
        made, start(made, images, labels, 0), [(images[:3], labels[:3]), (images[3:], labels[3:])], Rule(3, 6, 3), 16, "verilator"
    )


@pytest.mark.slow
def test_planted_ranks_are_found_on_the_compiled_gateware() -> None:
    made, images, labels = planted_images()
    rows = np.random.default_rng(0).integers(0, len(images), (400, 16))
    left = _hold_to_the_definition(
        made, start(made, images, labels, 0), [(images[at], labels[at]) for at in rows], Rule(9, 7), 16, "verilator"
    )
    assert left.scales["fc.r1"].alive.sum() == PLANTED_RANK


@pytest.mark.slow
def test_most_of_an_epoch_of_fashion_mnist_on_the_compiled_gateware() -> None:
    made = training({"fc0": tt_matrix((4, 2, 64), (56, 7, 2), 8), "fc1": tt_matrix((1, 10), (32, 16), 8)})
    data = small().train
    images, labels = quantize(data.images.reshape(len(data.images), -1), IMAGE), data.labels
    batches = [(images[first : first + 64], labels[first : first + 64]) for first in range(0, len(images), 64)]
    left = _hold_to_the_definition(made, start(made, *batches[0], 0), batches, Rule(11, 2), 16, "verilator")
    test = small().test
    pixels = quantize(test.images.reshape(len(test.images), -1), IMAGE)
    assert np.mean([_scores(made, left, image).argmax() == label for image, label in zip(pixels, test.labels, strict=True)]) > 0.7


@pytest.mark.parametrize("engine", ["amaranth", "verilator"])
@pytest.mark.parametrize("why", [endless, left_of_zero])
def test_a_machine_that_stops_is_told_of(why: Callable[[], tuple[TrainingProgram, State, Batch]], engine: str) -> None:
    program, state, batch = why()
    with pytest.raises(RuntimeError, match="the machine has stopped"):
        simulate(program, state, [batch], Rule(6), engine)


@pytest.mark.parametrize("stops", [False, True])
def test_nothing_is_left_behind_of_a_simulation(stops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python complains of who still waits when it is collected, if that cannot be."""
    program, state, batch = endless()
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with pytest.raises(RuntimeError) if stops else nullcontext():
        simulate(program, state, [batch] if stops else [], Rule(6))
    gc.collect()
    assert not complaints


def test_the_verilog_is_the_same_every_time() -> None:
    arch = arch_for(small_chain()[0], 4)
    text = training_verilog(arch)
    assert text == training_verilog(arch) and "module trainer(" in text


def test_an_engine_that_is_not_there_is_named() -> None:
    made, images, labels = small_chain()
    program = assemble(made, arch_for(made, 4))
    with pytest.raises(ValueError, match="no engine 'icarus', expected one of amaranth, verilator"):
        simulate(program, start(made, images, labels, 0), [(images, labels)], Rule(6), "icarus")


def _hold_to_the_definition(made: Training, state: State, batches: list[Batch], rule: Rule, lanes: int, engine: str = "amaranth") -> State:
    """Assert that the gateware takes the steps of `descend`, with its losses, in the cycles of the formula; the state after them."""
    program = assemble(made, arch_for(made, lanes))
    found = simulate(program, state, batches, rule, engine)
    losses = []
    for images, labels in batches:
        losses.append([_loss(made, state, image, label) for image, label in zip(images, labels, strict=True)])
        state = descend(made, state, images, labels, rule)
    assert [made.tolist() for made in found.losses] == losses
    assert found.cycles == tuple(cycles(program, len(labels)) for _, labels in batches)
    assert as_lists(found.state) == as_lists(state)
    return state


def _loss(made: Training, state: State, image: np.ndarray, label: int) -> int:
    return int(error(_scores(made, state, image), label)[label])


def _scores(made: Training, state: State, image: np.ndarray) -> np.ndarray:
    return values_of(made, fractions(made, state.shifts), factors_of(made, state), image)[made.scored.name].ravel()
