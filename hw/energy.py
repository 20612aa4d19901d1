"""What a program's arithmetic and memory traffic would take in silicon: a model of published energies, not a measurement of any chip."""

from itertools import repeat
from math import sqrt

from amaranth import Shape
from amaranth.hdl import ShapeLike

from hw.arch import Arch, Target
from hw.emulate import shape
from hw.program import Program, Segment

SOURCE = "a model of 45 nm silicon at 0.9 V (Horowitz, ISSCC 2014), no measurement"
"""What is to be said with every energy of this model."""
# M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure 1.1.9: 45 nm, 0.9 V, in joules.
# Products, sums and 8 KB as others quote them, the rest as remembered.
MULTIPLY_8_J = 0.2e-12
ADD_32_J = 0.1e-12
MULTIPLY_FLOAT_J = 3.7e-12
ADD_FLOAT_J = 0.9e-12
"""Of 32 bits."""
READ_8_KBYTE_J = 10e-12
"""64 bits from a memory of 8 KB; the same source has 20 pJ for 32 KB and 100 pJ for 1 MB: nearly the square root of the size."""
DRAM_J = 1.95e-9
"""64 bits from outside the chip: the middle of 1.3 to 2.6 nJ."""


def energy_j(program: Program) -> float:
    """Joules for an image of a full batch, by a model of 45 nm silicon at 0.9 V: what every step multiplies, adds, reads and writes.

    A product costs as the bits of both its factors, a sum as its bits, an access to a memory as its bits and the square root of its size, a
    write as much as a read. What comes in anew for every batch, comes from outside. All lanes count, those a tile does not need too.
    Registers, wires, clock, control and leakage are left out, and so is the energy of an FPGA, which spends several times as much on the
    same work.
    """
    arch = program.arch
    words = arch.words
    data, score = arch.rows * arch.data_bits, arch.rows * arch.acc_bits
    image, element = access_j(data, 2 * arch.image_depth), access_j(data, arch.data_depth)
    step = arch.rows * arch.lanes * multiply_add_j(arch.data_bits, arch.weight_bits, arch.acc_bits) + access_j(
        _width(words[Target.WEIGHTS]), arch.weight_depth
    )
    init = access_j(_width(words[Target.INITS]), arch.init_depth)
    outside = DRAM_J * data / 64
    total = (len(program.image) if program.source == "image" else 0) * image
    total += len(program.score) * access_j(score, arch.score_depth)
    if not program.resident:
        total += sum(map(len, program.loads)) * DRAM_J * 32 / 64 + sum(map(_written, program.segments, repeat(arch)))
    for instruction in program.instructions:
        tiles, steps = shape(instruction)
        total += access_j(_width(words[Target.CODE]), arch.code_depth)
        if instruction.load or instruction.store:
            total += tiles * (outside + element)
            continue
        operand = image if instruction.x >= arch.image_address else element
        result = access_j(score, arch.score_depth) if instruction.final else element
        total += tiles * (steps * (step + operand) + init + int(instruction.lanes) * result)
    return total / arch.rows


def _written(segment: Segment, arch: Arch) -> float:
    """The words of a segment as they come into their memories."""
    words = {Target.CODE: segment.code, Target.WEIGHTS: segment.weights, Target.INITS: segment.inits}
    return sum(len(each) * access_j(_width(arch.words[target]), arch.depths[target]) for target, each in words.items())


def multiply_add_j(x_bits: int, w_bits: int, sum_bits: int) -> float:
    """Joules of one product and one sum."""
    return MULTIPLY_8_J * x_bits * w_bits / 64 + ADD_32_J * sum_bits / 32


def access_j(bits: int, depth: int, of: int | None = None) -> float:
    """Joules of one read or write of so many bits, all or some `of` a word's, in a memory of so many words."""
    return READ_8_KBYTE_J * bits / 64 * sqrt((of or bits) * depth / 8 / 8192)


def _width(layout: ShapeLike) -> int:
    """Bits of a word."""
    return Shape.cast(layout).width
