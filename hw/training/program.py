"""What the machine that trains loads: its instructions, and the state of a training as the words of its memories."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from amaranth.lib import data
from amaranth.utils import bits_for

from bayestt.algebra.lfsr import PERIOD
from bayestt.ir.descend import PATIENT, State, accumulator_frac, fractions
from bayestt.ir.rank_scale import SCALE_BITS, Scales
from bayestt.ir.training import GRADIENT_BITS, LATENT_BITS, Training
from hw.training.arch import SIGNED_SHIFT_BITS, TrainingArch
from hw.training.layout import Layout, check_fits


@dataclass(frozen=True, eq=False)
class TrainingProgram:
    """Instruction words: those for every image, of which the last one ends them, then those for a batch; and where everything lies."""

    arch: TrainingArch
    training: Training
    code: tuple[int, ...]
    layout: Layout

    def __post_init__(self) -> None:
        check_fits(self.needed, self.arch)

    @property
    def image_part(self) -> tuple[data.Const, ...]:
        """The instructions for every image."""
        return self._instructions[: self._ends]

    @property
    def batch_part(self) -> tuple[data.Const, ...]:
        """The instructions at the end of a batch."""
        return self._instructions[self._ends :]

    @property
    def needed(self) -> dict[str, int]:
        """How much the training needs of what an arch limits, by its field."""
        return {**self.layout.words, "code_depth": len(self.code)}

    @property
    def loops(self) -> int:
        """The loops of the instruction that has most."""
        return max(level for instruction in self._instructions for level, loop in enumerate(instruction.loops, 1) if loop.steps)

    @property
    def extent_bits(self) -> int:
        """The bits that the steps of its longest loop take."""
        return bits_for(max(loop.steps for instruction in self._instructions for loop in instruction.loops))

    @cached_property
    def _instructions(self) -> tuple[data.Const, ...]:
        return tuple(map(self.arch.instruction.from_bits, self.code))

    @cached_property
    def _ends(self) -> int:
        return next(k for k, instruction in enumerate(self._instructions) if instruction.end) + 1


@dataclass(frozen=True, eq=False)
class Memories:
    """What the machine holds between steps, int64: latents and velocities by element address.

    Shifts, shifts of biases and counts by contraction; squares of scales and whether they are there, by index; the shift register; the
    steps done.
    """

    latents: np.ndarray
    velocities: np.ndarray
    shifts: np.ndarray
    bias_shifts: np.ndarray
    counts: np.ndarray
    squares: np.ndarray
    alive: np.ndarray
    register: int
    steps: int


def memories_of(program: TrainingProgram, state: State) -> Memories:
    """A state as the machine holds it; one whose scores would be shifted to the left is refused."""
    arch, training, made = program.arch, program.training, program.layout
    latents, velocities = np.zeros((2, arch.latent_depth * arch.lanes), np.int64)
    for name, parameter in training.parameters.items():
        addresses = made.addresses(name, parameter.axes)
        latents[addresses], velocities[addresses] = state.latents[name], state.velocities[name]
    fracs = fractions(training, state.shifts)
    shifts, bias_shifts, counts = np.zeros((3, arch.contractions), np.int64)
    for number, each in enumerate(training.contractions):
        frac = accumulator_frac(each, fracs)
        shifts[number] = state.shifts[each.name] if each.frac is None else frac - each.frac
        bias_shifts[number] = fracs[each.bias] - frac if each.bias else 0
        counts[number] = state.counts.get(each.name, 0)
        if not 0 <= shifts[number] <= 31:
            raise ValueError(f"contraction {each.name!r} is shifted by {shifts[number]}, expected 0 to 31: start again from other images")
    squares, alive = np.zeros(arch.ranks, np.int64), np.ones(arch.ranks, bool)
    for axis, first in made.indices.items():
        there = slice(first, first + training.size[axis])
        squares[there], alive[there] = state.scales[axis].squares, state.scales[axis].alive
    return Memories(latents, velocities, shifts, bias_shifts, counts, squares, alive, state.register, state.steps)


def state_of(program: TrainingProgram, memories: Memories) -> State:
    """The state that the machine holds."""
    training, made = program.training, program.layout
    addresses = {name: made.addresses(name, parameter.axes) for name, parameter in training.parameters.items()}
    latents, velocities = ({name: held[at] for name, at in addresses.items()} for held in (memories.latents, memories.velocities))
    adapted: Mapping[str, int] = {each.name: number for number, each in enumerate(training.contractions) if each.frac is None}
    shifts, counts = ({name: int(words[number]) for name, number in adapted.items()} for words in (memories.shifts, memories.counts))
    scales = {}
    for axis, first in made.indices.items():
        there = slice(first, first + training.size[axis])
        scales[axis] = Scales(memories.squares[there].copy(), memories.alive[there].copy())
    return State(latents, velocities, shifts, counts, scales, memories.register, memories.steps)


def check_words(memories: Memories) -> None:
    """Refuse what no step leads to, and what the words in which a host writes it cannot hold."""
    signed = {bits: (-1 << (bits - 1), (1 << (bits - 1)) - 1) for bits in (LATENT_BITS, GRADIENT_BITS, SIGNED_SHIFT_BITS)}
    expected = {
        "latents go": (memories.latents, *signed[LATENT_BITS]),
        "velocities go": (memories.velocities, *signed[GRADIENT_BITS]),
        "shifts of biases go": (memories.bias_shifts, *signed[SIGNED_SHIFT_BITS]),
        "counts go": (memories.counts, -PATIENT - 1, PATIENT + 1),
        "squares of scales go": (memories.squares, 0, (1 << SCALE_BITS) - 1),
        "the shift register goes": (np.array(memories.register), 1, PERIOD),
    }
    for what, (words, low, high) in expected.items():
        if words.min() < low or words.max() > high:
            raise ValueError(f"{what} from {words.min()} to {words.max()}, expected {low} to {high}: give a state that steps have led to")
