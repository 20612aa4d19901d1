"""Values that wait for others in a pipeline."""

from amaranth import Module, Signal
from amaranth.hdl import ValueLike


def delayed(m: Module, value: ValueLike, cycles: int = 1) -> ValueLike:
    """A value so many cycles later."""
    for _ in range(cycles):
        later = Signal.like(value)
        m.d.sync += later.eq(value)
        value = later
    return value
