"""What a host does with the machine that trains, as words that simulators of it follow, and what comes of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from itertools import pairwise

import numpy as np

from bayestt.algebra.fixed import wrap
from bayestt.ir.descend import IMPATIENT_STEPS, Rule, State, check
from bayestt.ir.training import GRADIENT_BITS
from hw.training.arch import Part
from hw.training.program import Memories, TrainingProgram, check_words, memories_of, state_of

Batch = tuple[np.ndarray, np.ndarray]
"""Images (n, pixels), integers of 8 bits, and their labels (n,)."""


class Order(IntEnum):
    """What words of a script tell a host to do, each with the words behind it; all but IMAGE when the machine is not busy.

    WRITE part, address, word; READ part, address; IMAGE label, last, count, pixels; CYCLES. Every one but WRITE is answered by a word: the
    one read, the image's loss, the cycles so far.
    """

    WRITE = 0
    READ = 1
    IMAGE = 2
    CYCLES = 3


@dataclass(frozen=True, eq=False)
class Trained:
    """The state after all steps, and of each step the losses of its images, int64, and the cycles that it took from its first label on.

    A loss is the error at the label: its chance less 1, 14 bits after the point.
    """

    state: State
    losses: tuple[np.ndarray, ...]
    cycles: tuple[int, ...]


def script(program: TrainingProgram, state: State, batches: Sequence[Batch], rule: Rule) -> np.ndarray:
    """Load a program and a state, take a step on every batch, and read the state: uint32 words; what the machine cannot take is refused."""
    for images, labels in batches:
        check(program.training, images, labels)
    memories = memories_of(program, state)
    check_words(memories)
    words = [*_loads(program), *_writes(program, memories), [Order.CYCLES]]
    for steps, (images, labels) in enumerate(batches, state.steps):
        words.append([Order.WRITE, Part.RULE.value, 0, _rule(program, rule, steps)])
        pixels = in_memory_order(program, images)
        ends = np.arange(1, len(images) + 1) == len(images)
        words += [[Order.IMAGE, int(label), end, len(row), *row] for label, end, row in zip(labels, ends, pixels, strict=True)]
        words.append([Order.CYCLES])
    words += [[Order.READ, part.value, address] for part, addresses in _held(program).items() for address in addresses]
    return (np.concatenate([np.array(order, np.int64) for order in words]) & 0xFFFFFFFF).astype(np.uint32)


def trained(program: TrainingProgram, state: State, batches: Sequence[Batch], answers: np.ndarray) -> Trained:
    """What the words mean with which such a script was answered."""
    first, *counts = np.split(answers, np.cumsum([1, *(len(labels) + 1 for _, labels in batches)]))
    *steps, held = counts
    losses = tuple(wrap(step[:-1].astype(np.int64), GRADIENT_BITS) for step in steps)
    ends = [int(first[0]), *(int(step[-1]) for step in steps)]
    taken = tuple((after - before) % (1 << 32) for before, after in pairwise(ends))
    parts = dict(zip(_held(program), np.split(held, np.cumsum([len(at) for at in _held(program).values()])[:-1]), strict=True))
    memories = _memories(program, memories_of(program, state), parts)
    return Trained(state_of(program, replace(memories, steps=state.steps + len(batches))), losses, taken)


def in_memory_order(program: TrainingProgram, images: np.ndarray) -> np.ndarray:
    """Images as the pixels that the machine takes (n, count): those at all addresses from the first to the last."""
    places = pixels(program)
    rows = np.zeros((len(images), places.max() - places.min() + 1), np.int64)
    rows[:, places - places.min()] = images.reshape(len(images), -1)
    return rows


def pixels(program: TrainingProgram) -> np.ndarray:
    """The addresses of an image's pixels."""
    return program.layout.addresses("image", program.training.image).ravel()


def _loads(program: TrainingProgram) -> Iterator[list[int]]:
    """Code, a chunk at a time, and where pixels lie."""
    arch, places = program.arch, pixels(program)
    for number, word in enumerate(program.code):
        for chunk in range(arch.chunks):
            yield [Order.WRITE, Part.CODE.value, number, word >> 32 * chunk & 0xFFFFFFFF]
    for number, address in enumerate((places.min(), places.max())):
        yield [Order.WRITE, Part.IMAGE.value, number, int(address)]


def _rule(program: TrainingProgram, rule: Rule, steps: int) -> int:
    prior = {"pull": rule.pull or 0, "pulls": rule.pull is not None}
    fields = {"rate": rule.rate, "momentum": rule.momentum, **prior, "patient": steps >= IMPATIENT_STEPS}
    return program.arch.rule.const(fields).as_bits()


def _held(program: TrainingProgram) -> dict[Part, range]:
    """The addresses of all that a state is in."""
    training, made = program.training, program.layout
    latents = 1 + max(int(made.addresses(name, parameter.axes).max()) for name, parameter in training.parameters.items())
    indices = max(first + training.size[axis] for axis, first in made.indices.items()) if made.indices else 1
    return {
        Part.REGISTER: range(1),
        Part.LATENT: range(latents),
        Part.CONTROL: range(len(training.contractions)),
        Part.SCALE: range(indices),
    }


def _writes(program: TrainingProgram, memories: Memories) -> Iterator[list[int]]:
    """All that a state is in."""
    arch = program.arch
    for part, addresses in _held(program).items():
        for address in addresses:
            match part:
                case Part.REGISTER:
                    word = memories.register
                case Part.LATENT:
                    fields = {"latent": memories.latents, "velocity": memories.velocities}
                    word = arch.entry.const({name: int(words[address]) for name, words in fields.items()}).as_bits()
                case Part.CONTROL:
                    fields = {"shift": memories.shifts, "bias_shift": memories.bias_shifts, "count": memories.counts}
                    word = arch.control.const({name: int(words[address]) for name, words in fields.items()}).as_bits()
                case Part.SCALE:
                    word = arch.scale.const({"square": int(memories.squares[address]), "alive": int(memories.alive[address])}).as_bits()
            yield [Order.WRITE, part.value, address, word]


def _memories(program: TrainingProgram, memories: Memories, parts: dict[Part, np.ndarray]) -> Memories:
    """Memories with the words that were read of them."""
    arch = program.arch
    held = _held(program)
    arrays = {field.name: getattr(memories, field.name) for field in fields(Memories)}
    arrays = {name: array.copy() for name, array in arrays.items() if isinstance(array, np.ndarray)}
    latents, velocities, shifts, bias_shifts, counts, squares, alive = arrays.values()
    for address, word in zip(held[Part.LATENT], parts[Part.LATENT].tolist(), strict=True):
        entry = arch.entry.from_bits(word)
        latents[address], velocities[address] = entry.latent, entry.velocity
    for address, word in zip(held[Part.CONTROL], parts[Part.CONTROL].tolist(), strict=True):
        control = arch.control.from_bits(word)
        shifts[address], bias_shifts[address], counts[address] = control.shift, control.bias_shift, control["count"]
    for address, word in zip(held[Part.SCALE], parts[Part.SCALE].tolist(), strict=True):
        scale = arch.scale.from_bits(word)
        squares[address], alive[address] = scale.square, scale.alive
    return Memories(**arrays, register=int(parts[Part.REGISTER][0]), steps=memories.steps)
