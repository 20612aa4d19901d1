"""What a program computes, in numpy: the definition that the gateware is held to."""

import numpy as np
from amaranth.lib import data
from tqdm import tqdm

from bayestt.algebra.fixed import requantize, wrap
from hw.arch import STREAMS, Arch
from hw.program import Program, check_images

IMAGES = 128
"""Images at once: enough to keep numpy busy, few enough for a cache."""


def emulate(program: Program, x: np.ndarray) -> np.ndarray:
    """Run every instruction on integer images: (n, features) -> (n, scores) int64, any n."""
    flat = check_images(x, program)
    starts = tqdm(range(0, len(flat), IMAGES), desc="emulate", unit="batch", delay=3, leave=False)
    scores = [_run(program, flat[first : first + IMAGES]) for first in starts]
    return np.concatenate(scores or [np.zeros((0, len(program.score)), np.int64)])


def walk(instruction: data.Const, arch: Arch) -> dict[str, np.ndarray]:
    """The word addresses that an instruction visits in each stream: int64 arrays (tiles, steps of a reduction)."""
    # The levels that step, in order: before and after each step of a level, all inner levels run through.
    levels = np.zeros(0, np.int64)
    reduction = 1
    for number, loop in enumerate(instruction.loops):
        levels = np.concatenate([np.tile(np.append(levels, number), loop.steps), levels])
        if number < instruction.reduce:
            reduction = len(levels) + 1
    addresses = {}
    for stream in STREAMS:
        increments = np.array([loop[stream] for loop in instruction.loops], np.int64)
        moved = np.concatenate([[0], np.cumsum(increments[levels])])
        addresses[stream] = ((instruction[stream] + moved) % (1 << arch.address_bits)).reshape(-1, reduction)
    return addresses


def _run(program: Program, x: np.ndarray) -> np.ndarray:
    """One pass over the code for all images; memories are (words, images)."""
    arch = program.arch
    elements = np.zeros((arch.data_depth, len(x)), np.int64)
    scores = np.zeros((arch.score_depth, len(x)), np.int64)
    elements[program.image] = x.T
    for instruction in program.instructions:
        lanes = np.arange(instruction.lanes)
        at = walk(instruction, arch)
        acc = program.inits[at["init"][:, :1], lanes][:, :, None]
        for x_at, w_at in zip(at["x"].T, at["w"].T, strict=True):
            acc = acc + elements[x_at, None] * program.weights[w_at[:, None], lanes][:, :, None]
        bits = arch.data_bits if instruction.saturate else arch.acc_bits
        results = requantize(wrap(acc, arch.acc_bits), instruction.shift, bits, bool(instruction.relu))
        y_at = (at["y"][:, :1] + lanes * instruction.lane_y) % (1 << arch.address_bits)
        (scores if instruction.final else elements)[y_at] = results
    return scores[program.score].T
