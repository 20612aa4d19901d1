"""Waves of the gateware: what its streams and components say in the cycles of a batch or of a nest, for GTKWave."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from amaranth.hdl import Cat, Const, Value, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.sim import SimulatorContext
from vcd import VCDWriter
from vcd.gtkw import GTKWSave

from bayestt.ir.schedule import Schedule, batches
from hw.arch import Arch
from hw.assemble import assemble, instructions
from hw.emulate import shape
from hw.program import Program, check_images
from hw.simulate import run

GROUPS = {
    "streams": "datapath",
    "instructions": "walker.i",
    "steps: addresses, marks, mode": "walker.o",
    "operands": "tile_0.mac.i",
    "sums": "tile_0.mac.o",
    "results, and where they are written": "tile_0.requantize.o",
    "external memory": "external",
}
"""What signals mean, and the port, or the component, that they belong to; of an `Arch` without external memory the last one is empty."""


@dataclass(frozen=True)
class _Moment:
    """The cycle in which `event` happens for the `count`th time."""

    event: Value
    count: int


def waves(schedule: Schedule, arch: Arch, x: np.ndarray, path: str | Path, image: int | None = None, nest: str | None = None) -> range:
    """Simulate a schedule on integer images (n, features) and write `path`.vcd, and `path`.gtkw, which groups its signals by meaning.

    They hold the cycles that are returned, counted from the first one of the machine, each of which is a microsecond: of everything; or of
    the batch with an `image`, which is run alone, from its first word that comes in to its last score; or of a `nest` of that batch (of
    the first one if no image is named), from where its first instruction is taken to its last result, all its parts if it was cut. The
    string `nest` names the nest of the latest instruction that was taken. Of several tiles the first one is shown.
    """
    program, owners = assemble(schedule, arch), _owners(schedule, arch)
    images = check_images(x, program)
    if not 0 <= (image or 0) < len(images):
        raise ValueError(
            f"there is no image {image or 0}, expected one of the {len(images)} that were given, counted from 0: name or give one"
        )
    if nest not in (None, *owners):
        raise ValueError(f"there is no nest {nest!r}, expected one of {', '.join(dict.fromkeys(owners))}: name one of these")
    groups = [batch for batch, _ in batches(images, arch.rows)]
    if image is not None or nest is not None:
        groups = [groups[(image or 0) // arch.rows]]
    shown: list[int] = []

    async def watch(context: SimulatorContext, parts: Mapping[str, wiring.Component]) -> None:
        machine, taken = parts["datapath"], _passes(parts["walker"].i)
        opens, closes = _Moment(Const(1), 1), _Moment(_passes(machine.score) & machine.last, len(groups))
        if nest is not None:
            opens, closes = _Moment(taken, owners.index(nest) + 1), _Moment(_written(parts, arch), _words(program, owners, nest))
        elif image is not None:
            opens = _Moment(_passes(machine.image if program.resident else machine.load), 1)
        signals = dict(_signals(parts))
        with open(f"{path}.vcd", "w") as file:
            async for cycle, begun, values in _window(context, opens, closes, taken, tuple(signals.values())):
                if not shown:
                    writer = VCDWriter(file, "1 us", date="", init_timestamp=cycle)
                    label = writer.register_var("program", "nest", "string")
                    traces = [writer.register_var(*name.rpartition(".")[::2], "wire", len(signal)) for name, signal in signals.items()]
                writer.change(label, cycle, owners[(begun - 1) % len(owners)].replace(" ", "_") if begun else "")
                for trace, value in zip(traces, values, strict=True):
                    writer.change(trace, cycle, value)
                shown.append(cycle)
            writer.close(cycle + 1)
        _save(path, signals)

    run(program, groups, (0,), watch)
    return range(shown[0], shown[-1] + 1)


def _owners(schedule: Schedule, arch: Arch) -> list[str]:
    """The name of the nest of every instruction."""
    return [nest.name for nest in schedule.nests for _ in instructions(replace(nest, w=0, init=0), arch)]


def _words(program: Program, owners: list[str], nest: str) -> int:
    """How many words a batch has written when the last instruction of a nest is done."""
    last = len(owners) - owners[::-1].index(nest)
    return sum(shape(instruction)[0] * instruction.lanes for instruction in program.instructions[:last])


def _passes(port: stream.Interface) -> Value:
    """Whether a word passes a stream."""
    return port.valid & port.ready


def _written(parts: Mapping[str, wiring.Component], arch: Arch) -> Value:
    """Whether an instruction's word is written, in the last tile: a result, or one that is copied from or to external memory."""
    machine, results = parts["datapath"], parts[f"tile_{arch.tiles - 1}.requantize"].o
    copied = [_passes(machine.answer), _passes(machine.write)] if "external" in parts else []
    return Cat(_passes(results), *copied).any()


def _signals(parts: Mapping[str, wiring.Component]) -> Iterator[tuple[str, Value]]:
    """All that is shown, by name, in the order of the groups."""
    for place in GROUPS.values():
        part, port = place.rsplit(".", 1) if "." in place else (place, "")
        for path, _, value in parts[part].signature.flatten(parts[part]) if part in parts else ():
            if port in ("", path[0]):
                yield from _fields(".".join((part, *path)), value)


def _fields(name: str, value: ValueLike) -> Iterator[tuple[str, Value]]:
    """A signal, or each of its fields; none that never changes."""
    if isinstance(value, data.View):
        for key, _ in value.shape():
            yield from _fields(f"{name}_{key}" if isinstance(key, int) else f"{name}.{key}", value[key])
    elif not isinstance(value, Const):
        yield name, Value.cast(value)


async def _window(
    context: SimulatorContext, opens: _Moment, closes: _Moment, taken: Value, signals: Sequence[Value]
) -> AsyncIterator[tuple[int, int, list[int]]]:
    """The cycles from one moment to another, how many instructions were taken so far, and the values of signals."""
    cycle = opened = closed = begun = 0
    while closed < closes.count:
        _, _, *now, took = await context.tick().sample(*signals, opens.event, closes.event, taken)
        opened, closed, begun = opened + now[-2], closed + now[-1], begun + took
        if opened >= opens.count:
            yield cycle, begun, now[:-2]
        cycle += 1


def _save(path: str | Path, signals: Mapping[str, Value]) -> None:
    """Write how GTKWave shows the signals."""
    with open(f"{path}.gtkw", "w") as file:
        save = GTKWSave(file)
        save.dumpfile(f"{path}.vcd")
        save.trace("program.nest", datafmt="ascii")
        for title, place in GROUPS.items():
            with save.group(title):
                for name, signal in signals.items():
                    if f"{name}.".startswith(f"{place}."):
                        bits = f"[{len(signal) - 1}:0]" if len(signal) > 1 else ""
                        save.trace(name + bits, datafmt="signed" if signal.shape().signed else "hex")
