"""Values that wait for others in a pipeline."""

from amaranth import Module, Signal
from amaranth.hdl import ValueLike


def delayed(m: Module, value: ValueLike, cycles: int = 1) -> ValueLike:
    """A value so many cycles later."""
    return _delayed(m, value, cycles, reset_less=False)


def registered(m: Module, word: ValueLike) -> ValueLike:
    """A memory's word a cycle later, in a register that is never reset: many chips have such ones in their memories."""
    return _delayed(m, word, 1, reset_less=True)


def _delayed(m: Module, value: ValueLike, cycles: int, reset_less: bool) -> ValueLike:
    for _ in range(cycles):
        later = Signal.like(value, reset_less=reset_less)
        m.d.sync += later.eq(value)
        value = later
    return value
