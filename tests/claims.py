"""What the proofs of gateware share: the rule of streams, ports that keep still, components with one mistake."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from amaranth import Module, Signal, Value
from amaranth.hdl import Assume
from amaranth.lib import stream

Rule = Callable[[Value], object]
"""`Assert` or `Assume`."""


def waits(m: Module, rule: Rule, port: stream.Interface) -> None:
    """A word that waits stays as it is until it is taken."""
    waited = Signal(name="waited")
    word = Value.cast(port.payload)
    before = Signal.like(word, name="waiting_word")
    m.d.sync += [waited.eq(port.valid & ~port.ready), before.eq(word)]
    m.d.comb += rule(~waited | (port.valid & (word == before)))


def steady(m: Module, value: Value) -> None:
    """Take for granted that a value never changes."""
    begun = Signal(name="begun")
    before = Signal.like(Value.cast(value), name="steady")
    m.d.sync += [begun.eq(1), before.eq(value)]
    m.d.comb += Assume(~begun | (Value.cast(value) == before))


def mistaken(module: ModuleType, right: str, wrong: str) -> ModuleType:
    """The module with one mistake in its text."""
    text = Path(module.__file__).read_text()
    if text.count(right) != 1:
        raise ValueError(f"{module.__name__} has {right!r} {text.count(right)} times, expected once: name a place to go wrong in")
    made = ModuleType(module.__name__)
    made.__file__ = module.__file__
    exec(compile(text.replace(right, wrong), module.__file__, "exec"), made.__dict__)
    return made
