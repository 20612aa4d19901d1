"""What a step of training would take in silicon: the model of hw/energy.py, for the machine that trains."""

from collections.abc import Callable

from amaranth.lib import data

from bayestt.ir.training import ACTIVATION_BITS, GRADIENT_BITS, LATENT_BITS
from hw.emulate import shape
from hw.energy import DRAM_J, access_j, multiply_add_j
from hw.training.arch import Bank, Kind, TrainingArch
from hw.training.memory import RANK_BITS
from hw.training.program import TrainingProgram
from hw.training.script import pixels

BITS = {Bank.ACTIVATION: ACTIVATION_BITS, Bank.ERROR: GRADIENT_BITS, Bank.LATENT: LATENT_BITS, Bank.GRADIENT: GRADIENT_BITS}
UNIT_PRODUCTS = 2
"""Products, of 16 bits by 16, that a step of a unit counts for: as many as that which has most, a MOVE with its pull and its square."""


def training_energy_j(program: TrainingProgram, images: int) -> dict[str, float]:
    """Joules for an image in a step on so many, by a model of 45 nm silicon at 0.9 V: of arithmetic, of memories, of what comes in.

    What `hw.energy.energy_j` counts and leaves out. A bank is read a word at a time, and written an element at a time; all lanes multiply,
    those that an instruction does not need too; pixels come from outside.
    """
    places = pixels(program)
    filled = int(places.max() - places.min()) + 1
    pixel = DRAM_J * ACTIVATION_BITS / 64 + _written_j(Bank.ACTIVATION, program.arch)

    def of_all(each: Callable[[data.Const, TrainingArch], float]) -> float:
        image, batch = (sum(each(instruction, program.arch) for instruction in part) for part in (program.image_part, program.batch_part))
        return image + batch / images

    return {"arithmetic": of_all(_arithmetic_j), "memories": of_all(_memories_j), "pixels": filled * pixel}


def _arithmetic_j(instruction: data.Const, arch: TrainingArch) -> float:
    """Products and sums."""
    reductions, steps = shape(instruction)
    if instruction.kind == Kind.MULTIPLY:
        return reductions * steps * arch.lanes * multiply_add_j(arch.data_bits, arch.weight_bits, arch.acc_bits)
    return reductions * UNIT_PRODUCTS * multiply_add_j(GRADIENT_BITS, GRADIENT_BITS, arch.acc_bits)


def _memories_j(instruction: data.Const, arch: TrainingArch) -> float:
    """The instruction's word, operands and results; a contraction's own words count as a rank index's, which are longer."""
    reductions, steps = shape(instruction)
    begins, rank = (arch.acc_bits * arch.lanes, arch.init_depth), 2 * access_j(RANK_BITS, arch.ranks)
    match Kind(instruction.kind):
        case Kind.MULTIPLY:
            target = Bank(instruction.target)
            result = _written_j(target, arch) + (target is Bank.GRADIENT) * _read_j(target, arch)
            operands = sum(_read_j(Bank(bank), arch) for bank in (instruction.x_from, instruction.w_from))
            each = access_j(*begins) + steps * operands + int(instruction.lanes) * result
        case Kind.BIAS:
            each = _read_j(Bank.LATENT, arch) + access_j(arch.acc_bits, arch.init_depth, begins[0])
        case Kind.PEAK | Kind.ODDS:
            each = _read_j(Bank.ACTIVATION, arch)
        case Kind.CHANCE:
            each = _written_j(Bank.ERROR, arch)
        case Kind.MASK:
            each = _read_j(Bank.ACTIVATION, arch) + _read_j(Bank.ERROR, arch) + _written_j(Bank.ERROR, arch)
        case Kind.MOVE:
            each = rank + sum(_read_j(bank, arch) + _written_j(bank, arch) for bank in (Bank.LATENT, Bank.GRADIENT))
        case _:
            each = rank
    return access_j(arch.instruction.size, arch.code_depth) + reductions * each


def _read_j(bank: Bank, arch: TrainingArch) -> float:
    """A word of a bank."""
    return access_j(BITS[bank] * arch.lanes, _depth(bank, arch))


def _written_j(bank: Bank, arch: TrainingArch) -> float:
    """An element of a bank's word."""
    return access_j(BITS[bank], _depth(bank, arch), BITS[bank] * arch.lanes)


def _depth(bank: Bank, arch: TrainingArch) -> int:
    return {Bank.ACTIVATION: arch.activation_depth, Bank.ERROR: arch.error_depth}.get(bank, arch.latent_depth)
