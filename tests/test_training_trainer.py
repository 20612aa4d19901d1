"""The whole machine and its host: which pixels it takes; and when it cannot go on nothing more happens, whatever a host does."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Fragment
from amaranth.sim import Simulator, SimulatorContext
from learnable import small_chain
from test_training_layout import smallest

from bayestt.ir.descend import Rule, State
from bayestt.ir.start import start
from hw.training.arch import Kind, Part, TrainingArch
from hw.training.gateware.sequencer import UNIT_CYCLES
from hw.training.gateware.trainer import Trainer
from hw.training.program import TrainingProgram, memories_of
from hw.training.script import Batch, Order, script
from hw.training.simulate import follow

ENOUGH_CYCLES = 10_000
"""More than for an image and the end of its batch."""
Case = Callable[[], tuple[TrainingProgram, State, Batch]]


def endless() -> tuple[TrainingProgram, State, Batch]:
    """Code of which the last instruction that there is room for ends nothing."""
    made, images, labels = small_chain()
    program = smallest(made, 4)
    code = (*program.code[:-1], program.arch.instruction.const({"lanes": 1}).as_bits())
    return replace(program, code=code), start(made, images, labels, 0), (images[:1], labels[:1])


def imageless() -> tuple[TrainingProgram, State, Batch]:
    """Code of which the part for images is all that there is room for."""
    made, images, labels = small_chain()
    program = smallest(made, 4)
    arch = replace(program.arch, code_depth=len(program.image_part))
    code = program.code[: arch.code_depth]
    return replace(program, arch=arch, code=code), start(made, images, labels, 0), (images[:1], labels[:1])


def left_of_zero() -> tuple[TrainingProgram, State, Batch]:
    """Scores that are shifted by 0, and a value before them whose results are so large that its shift grows: theirs would be -1."""
    made, images, labels = small_chain()
    program, state = smallest(made, 4), start(made, images, labels, 0)
    scored, first = made.contractions.index(made.scored), made.forward[0].name
    less = {**state.shifts, first: 0}
    left = int(memories_of(program, replace(state, shifts=less)).shifts[scored])
    shifts = {**less, "fc1": state.shifts["fc1"] + left}
    state = replace(state, shifts=shifts, counts={**dict.fromkeys(state.counts, 0), first: 1})
    assert memories_of(program, state).shifts[scored] == 0
    return program, state, (images[:1], labels[:1])


@pytest.mark.parametrize("case", [endless, imageless, left_of_zero])
def test_when_something_is_wrong_no_other_instruction_begins_and_a_host_changes_nothing(case: Case) -> None:
    program, state, batch = case()
    machine, begun, answers = Trainer(program.arch), [], []
    circuit = Fragment.get(machine, platform=None)
    (sequencer,) = (part.origins[0] for part, name, _ in circuit.subfragments if name == "sequencer")
    words = script(program, state, [batch], Rule(6)).tolist()

    async def host(context: SimulatorContext) -> None:
        await follow(context, machine, words, answers)

    async def watch(context: SimulatorContext) -> None:
        for _ in range(ENOUGH_CYCLES):
            await context.tick()
            if context.get(machine.error):
                break
        begun.clear()
        context.set(machine.label.valid, 1)
        context.set(machine.host.part, Part.REGISTER)
        context.set(machine.host.en, 1)
        for cycle in range(20 * UNIT_CYCLES):
            assert context.get(machine.error) and context.get(machine.busy)
            assert not context.get(machine.label.ready) and not context.get(machine.loss.valid)
            assert not begun
            context.set(machine.host.written, cycle + 1)
            await context.tick()

    async def note(context: SimulatorContext) -> None:
        async for _, _, gives, instruction in context.tick().sample(sequencer.o.valid & sequencer.o.ready, sequencer.o.payload):
            if gives:
                begun.append(Kind(instruction.kind))

    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(host, background=True)
    simulator.add_testbench(note, background=True)
    simulator.add_testbench(watch)
    simulator.run()


@pytest.mark.parametrize(("first", "last"), [(1, 16), (5, 5), (70_000, 70_003)])
def test_pixels_are_taken_for_all_addresses_from_the_first_to_the_last(first: int, last: int) -> None:
    """A label waits for what a host wrote. Also of a machine whose addresses have more bits than half of a host's word."""
    machine, taken = Trainer(TrainingArch(lanes=1, activation_depth=1 << 17)), []

    async def bench(context: SimulatorContext) -> None:
        words = np.concatenate([[Order.WRITE, Part.IMAGE.value, number, address] for number, address in enumerate((first, last))])
        await follow(context, machine, words.tolist(), [])
        context.set(machine.label.valid, 1)
        context.set(machine.image.valid, 1)
        for _ in range(40):
            taken.append(context.get(machine.image.ready))
            await context.tick()

    simulator = Simulator(machine)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert taken == [0, 0] + [1] * (last - first + 1) + [0] * (37 - last + first)
