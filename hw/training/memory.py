"""What the memories of the machine that trains hold, in bits, by purpose."""

from math import prod

from bayestt.algebra.reciprocal import INDEX_BITS, MANTISSA_BITS, TABLE
from bayestt.ir.descend import EXPONENTIAL
from bayestt.ir.rank_scale import SCALE_BITS, STRENGTH_BITS
from bayestt.ir.training import ACTIVATION_BITS, ERROR_FRAC, GRADIENT_BITS, LATENT_BITS
from hw.training.arch import CLASSES, TrainingArch
from hw.training.gateware.nearer import ENERGY_BITS, ENTRIES_BITS

RECIPROCALS = 3
"""Units that find one, each with a table of its own: of the odds' sum, of squares, of entries."""
RANK_BITS = SCALE_BITS + 1 + 1 + STRENGTH_BITS + ENERGY_BITS + ENTRIES_BITS
"""Bits of an index of a rank: its square and twice whether it is there, its strength, and the sums of its entries."""


def memory_bits(arch: TrainingArch) -> dict[str, int]:
    """Bits of all memories, tables and program included; registers are none."""
    words = {
        "latents, whose upper halves are factors": (LATENT_BITS, arch.lanes, arch.latent_depth),
        "gradients, and velocities between steps": (GRADIENT_BITS, arch.lanes, arch.latent_depth),
        "activations": (ACTIVATION_BITS, arch.lanes, arch.activation_depth),
        "errors": (GRADIENT_BITS, arch.lanes, arch.error_depth),
        "biases, as sums begin with them": (arch.acc_bits, arch.lanes, arch.init_depth),
        "scales and strengths of ranks": (RANK_BITS, arch.ranks),
        "shifts and peaks of contractions": (arch.control.size + GRADIENT_BITS, arch.contractions),
        "program": (arch.instruction.size, arch.code_depth),
        "exponentials, odds": (ERROR_FRAC + 1, len(EXPONENTIAL) + CLASSES),
        "reciprocals": (MANTISSA_BITS - INDEX_BITS + 1, len(TABLE), RECIPROCALS),
    }
    return {purpose: prod(counts) for purpose, counts in words.items()}
