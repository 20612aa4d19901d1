"""What the units of the training machine are given at every step, and how a host reaches what they hold."""

from amaranth import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bayestt.ir.training import GRADIENT_BITS
from hw.training.arch import TrainingArch


def unit_step(arch: TrainingArch) -> data.StructLayout:
    """A step with its operands: the element at `x`, the sum of gradients there; addresses, its mode, and its contraction's control word."""
    operands = {"x": signed(GRADIENT_BITS), "total": signed(GRADIENT_BITS)}
    addresses = {name: arch.address_bits for name in ("w", "init", "y")}
    return data.StructLayout({**operands, **addresses, "complete": 1, "mode": arch.mode, "control": arch.control})


def peak(arch: TrainingArch) -> data.StructLayout:
    """The magnitude of a result, of a contraction that is known by its number."""
    return data.StructLayout({"number": range(arch.contractions), "magnitude": GRADIENT_BITS})


def host_port(arch: TrainingArch, word: data.Layout | int) -> wiring.Signature:
    """Words by address, for a host: `written` where `en`, and `word` as it was at `address` two cycles ago."""
    return wiring.Signature({"address": Out(arch.address_bits), "en": Out(1), "written": Out(word), "word": In(word)})
