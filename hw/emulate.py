"""What a program computes, in numpy: the definition that the gateware is held to."""

from math import prod

import numpy as np
from amaranth.lib import data
from tqdm import tqdm

from bayestt.algebra.fixed import requantize, wrap
from hw.arch import STREAMS, Arch
from hw.program import Program, Segment, check_images

IMAGES = 128
"""Images at once: enough to keep numpy busy, few enough for a cache."""
BLOCK = 2**20
"""Elements read at once, for the same two reasons."""


def emulate(program: Program, x: np.ndarray) -> np.ndarray:
    """Run every instruction on integer images: (n, features) -> (n, scores) int64, any n."""
    flat = check_images(x, program)
    starts = range(0, len(flat), IMAGES)
    with tqdm(total=len(starts) * len(program.code), desc="emulate", unit="instruction", delay=3, leave=False) as bar:
        scores = [_run(program, flat[first : first + IMAGES], bar) for first in starts]
    return np.concatenate(scores or [np.zeros((0, len(program.score)), np.int64)])


def walk(instruction: data.Const, arch: Arch) -> dict[str, np.ndarray]:
    """The word addresses that an instruction visits in each stream: int64 arrays (tiles, steps of a reduction)."""
    tiles, reduction = shape(instruction)
    addresses = steps_at(instruction, arch, np.arange(tiles * reduction))
    return {stream: found.reshape(tiles, reduction) for stream, found in addresses.items()}


def shape(instruction: data.Const) -> tuple[int, int]:
    """How many tiles an instruction computes, and how many steps the reduction of each has."""
    extents = [loop.steps + 1 for loop in instruction.loops]
    return prod(extents[instruction.reduce :]), prod(extents[: instruction.reduce])


def copies(instruction: data.Const) -> bool:
    """Whether an instruction moves words from or to external memory."""
    return bool(instruction.load or instruction.store)


def steps_at(instruction: data.Const, arch: Arch, steps: np.ndarray) -> dict[str, np.ndarray]:
    """The word addresses of some steps of an instruction, by their numbers, in each stream."""
    addresses = {stream: np.full(len(steps), instruction[stream]) for stream in STREAMS}
    inner, moved = 1, dict.fromkeys(STREAMS, 0)
    for loop in instruction.loops:
        index = steps // inner % (loop.steps + 1)
        for stream in STREAMS:
            # A step takes back what the inner loops have moved.
            stride = loop[stream] + moved[stream]
            addresses[stream] += index * stride
            moved[stream] += loop.steps * stride
        inner *= loop.steps + 1
    return {stream: found % (1 << arch.address_bits) for stream, found in addresses.items()}


def _run(program: Program, x: np.ndarray, bar: tqdm) -> np.ndarray:
    """One pass over the code for all images; memories are (words, images), of float64, which holds their integers and multiplies fast."""
    arch = program.arch
    elements, external = (np.zeros((depth, len(x))) for depth in (arch.image_address + arch.image_depth, arch.external_depth))
    scores = np.zeros((arch.score_depth, len(x)), np.int64)
    if program.source == "external":
        external[program.image] = x.T
    else:
        elements[arch.image_address + program.image] = x.T
    for segment in program.segments:
        for instruction in map(arch.instruction.from_bits, segment.code):
            at = walk(instruction, arch)
            if instruction.load:
                elements[at["y"]] = external[at["x"]]
            elif instruction.store:
                external[at["y"]] = elements[at["x"]]
            else:
                _compute(instruction, segment, arch, at, elements, scores if instruction.final else elements)
            bar.update()
    return scores[program.score].T


def _compute(
    instruction: data.Const, segment: Segment, arch: Arch, at: dict[str, np.ndarray], elements: np.ndarray, target: np.ndarray
) -> None:
    """Run an instruction that multiplies: from the elements at its addresses to results in the target."""
    lanes = np.arange(instruction.lanes)
    bits = arch.data_bits if instruction.saturate else arch.acc_bits
    y_at = (at["y"][:, :1] + lanes * instruction.lane_y) % (1 << arch.address_bits)
    tiles, steps = at["x"].shape
    at_once = max(1, BLOCK // (steps * elements.shape[1]))
    for some in (slice(first, first + at_once) for first in range(0, tiles, at_once)):
        x, w = elements[at["x"][some]], segment.weights[at["w"][some], : instruction.lanes]
        init = segment.inits[at["init"][some, 0], : instruction.lanes]
        acc = wrap(_reduced(x, w, init, bool(instruction.maximum), arch), arch.acc_bits)
        target[y_at[some]] = requantize(acc, instruction.shift, bits, bool(instruction.relu))


def _reduced(x: np.ndarray, w: np.ndarray, init: np.ndarray, maximum: bool, arch: Arch) -> np.ndarray:
    """From x (tiles, steps, images), w (tiles, steps, lanes), init (tiles, lanes) to sums or largest products (tiles, lanes, images)."""
    if maximum:
        return np.maximum((x * w).max(axis=1), init)[:, None].astype(np.int64)
    # float64 sums exactly to 2**53; int64 drops what lies above its 64 bits, as every accumulator does.
    exact = x.shape[1] << (arch.data_bits + arch.weight_bits - 2) <= 1 << 53
    number = np.float64 if exact else np.int64
    return init[:, :, None] + (w.swapaxes(1, 2).astype(number) @ x.astype(number, copy=False)).astype(np.int64)
