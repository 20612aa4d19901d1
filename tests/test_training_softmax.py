"""The circuit of softmax less label against its definition: every class, scores at the ends of their range, sums where reciprocals turn."""

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from bayestt.algebra.reciprocal import INDEX_BITS
from bayestt.ir.descend import ERROR_FRAC, EXPONENTIAL, error
from hw.training.arch import SPACING, Kind, TrainingArch
from hw.training.gateware.softmax import CLASSES, Softmax

ARCH = TrainingArch()
Image = tuple[list[int], int]
"""Scores and a label."""


def _every_label() -> list[Image]:
    """Ten random scores, near to each other and far, with every label."""
    random = np.random.default_rng(0)
    return [(random.integers(-spread, spread, 10).tolist(), label) for spread in (4, 30, 128) for label in range(10)]


def _ends() -> list[Image]:
    """Ties, the ends of the range, and odds at the end of their table."""
    scores = [[-128, 127], [127, 127, -128], [-128] * 3, [0, -127, -128, -126], [127, 0, -1, -2], [5, 5, -20, 5], [-128, -8, -1, -8], [-77]]
    return [(each, label) for each in scores for label in range(len(each))]


def _turning_points() -> list[Image]:
    """Sums at powers of two and at the next number of another reciprocal, and one below each."""
    below = {int(odds): place for place, odds in enumerate(EXPONENTIAL)}
    images = []
    for power in (1 << bits for bits in range(ERROR_FRAC, ERROR_FRAC + 4)):
        for total in (power, power + (power >> INDEX_BITS)):
            for left in (max(total - 1, 1 << ERROR_FRAC), total):
                scores = []
                while left:
                    odds = max(odds for odds in below if odds <= left)
                    scores.append(40 - below[odds])
                    left -= odds
                images.append((scores, len(scores) - 1))
    return images


def _many() -> list[Image]:
    """As many scores as there is room for: all the same, and random ones."""
    return [([-5] * CLASSES, CLASSES - 1), (np.random.default_rng(1).integers(-128, 128, CLASSES).tolist(), CLASSES // 2)]


@pytest.mark.parametrize("images", [_every_label(), _ends(), _turning_points(), _many()], ids=["labels", "ends", "turns", "many"])
def test_errors_are_softmax_less_label(images: list[Image]) -> None:
    """One image behind the other, steps as near as they come; what ports hold between them, and other units' steps, change nothing."""
    circuit, steps = Softmax(ARCH), _steps(images)
    found, losses = [], []

    async def bench(context: SimulatorContext) -> None:
        for cycle in range(len(steps) * SPACING):
            number, since = divmod(cycle, SPACING)
            if since < 2:
                label, step = steps[number]
                between = {**step, "x": 99, "init": step["init"] ^ 1, "y": step["y"] ^ 5, "complete": 1}
                context.set(circuit.label, label)
                context.set(circuit.i.payload, between if since else step)
                context.set(circuit.i.valid, not since)
            if since == 1:
                losses.append(context.get(circuit.loss))
            if context.get(circuit.o.valid):
                made = context.get(circuit.o.payload)
                found.append((cycle - circuit.latency, made.y, made.number))
            await context.tick()

    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    errors = iter([made for scores, label in images for made in error(np.array(scores), label).tolist()])
    expected, loss = [], 0
    for number, (label, step) in enumerate(steps):
        assert losses[number] == loss
        if step["mode"]["kind"] is Kind.CHANCE:
            expected.append((number * SPACING, step["y"], next(errors)))
            loss = expected[-1][-1] if step["init"] == label else loss
    assert found == expected


def _steps(images: list[Image]) -> list[tuple[int, dict]]:
    """The walks over images' scores, with the label at each step, and steps of another unit between them."""
    random, steps = np.random.default_rng(2), []
    for scores, label in images:
        for kind in (Kind.PEAK, Kind.ODDS, Kind.CHANCE, Kind.MOVE):
            walked = [127] if kind is Kind.MOVE else scores
            for place, score in enumerate(walked):
                fields = {"y": int(random.integers(1 << ARCH.address_bits)), "complete": place == len(walked) - 1, "mode": {"kind": kind}}
                steps.append((label, {"x": score, "init": place, **fields}))
    return steps
