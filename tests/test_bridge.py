"""The bridge against its words: whatever is asked, in whatever rhythm, every request has one answer, that of a plain model."""

from functools import partial
from itertools import cycle

import numpy as np
from amaranth import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.gateware.bridge import ANSWER, CHECK, REQUEST, Bridge, Fault, Kind
from hw.gateware.registers import Register, Registers
from hw.simulate import put, take

PATIENCE = 40
KINDS = st.sampled_from([*range(8), *[Kind.LOAD.value, Kind.IMAGE.value] * 3, *[Kind.WRITE.value, Kind.READ.value] * 2])
REQUESTS = st.lists(st.tuples(KINDS, st.sampled_from([0, 1, 2, 3, 4, 4, 5, 31]), st.integers(0, 2**32 - 1), st.booleans()), max_size=20)


@settings(max_examples=30, deadline=None)
@given(REQUESTS, st.lists(st.integers(0, 9), min_size=1, max_size=9), st.sampled_from([1000, 3]))
def test_every_request_has_the_answer_of_the_model(requests: list[tuple[int, int, int, bool]], pauses: list[int], room: int) -> None:
    """A stream takes `room` words, and then no more; scores count from 5, every third the last of its packet."""
    module = Module()
    module.submodules.bridge = bridge = Bridge(PATIENCE)
    module.submodules.registers = registers = Registers(0x1234, 0x5678)
    wiring.connect(module, bridge.axi, registers.axi)
    module.d.comb += registers.cycles.eq(77)
    packets = [packet(*request) for request in requests]
    answers, taken = [], {"load": [], "image": []}

    async def asks(context: SimulatorContext) -> None:
        await put(context, bridge.i, packets, cycle(pauses))

    async def hears(context: SimulatorContext) -> None:
        answers.extend(await take(context, bridge.o, len(packets), cycle(pauses)))

    async def gives(context: SimulatorContext) -> None:
        for number in range(room):
            context.set(bridge.score.t.payload, {"data": 5 + number, "last": number % 3 == 2})
            context.set(bridge.score.t.valid, 1)
            while not (await context.tick().sample(bridge.score.t.ready))[2]:
                pass
        context.set(bridge.score.t.valid, 0)

    async def takes(context: SimulatorContext, name: str) -> None:
        port = getattr(bridge, name).t
        for number in range(room):
            for _ in range(pauses[number % len(pauses)]):
                await context.tick()
            context.set(port.ready, 1)
            valid = False
            while not valid:
                _, _, valid, payload = await context.tick().sample(port.valid, port.payload)
            taken[name].append(payload.data)
            context.set(port.ready, 0)

    simulator = Simulator(module)
    simulator.add_clock(1e-6)
    simulator.add_testbench(asks)
    simulator.add_testbench(hears)
    for bench in (gives, partial(takes, name="load"), partial(takes, name="image")):
        simulator.add_testbench(bench, background=True)
    simulator.run()

    expected, words = model(requests, room)
    assert [answer & (1 << ANSWER.size) - 1 for answer in answers] == expected
    assert all(answer >> ANSWER.size == CHECK.compute([answer & (1 << ANSWER.size) - 1]) for answer in answers)
    assert taken == {name: found[:room] for name, found in words.items()}


def packet(kind: int, register: int, word: int, altered: bool) -> int:
    """A request with its check, or with a wrong bit."""
    request = kind | register << 3 | word << 8
    return (request | CHECK.compute([request]) << REQUEST.size) ^ (altered << word % 48)


def model(requests: list[tuple[int, int, int, bool]], room: int) -> tuple[list[int], dict[str, list[int]]]:
    """The answers, and the words that were accepted for each stream: a plain reading of what Bridge says."""
    lasting, control, given = Fault.NONE, 0, 0
    words: dict[str, list[int]] = {"load": [], "image": []}
    answers = []
    for kind, register, word, altered in requests:
        bits = packet(kind, register, word, altered)
        kind, register, word = bits & 7, bits >> 3 & 31, bits >> 8 & 0xFFFFFFFF
        fault, answer, last = Fault.NONE, 0, 0
        held = dict(zip(Register, (0x1234, 0x5678, 0, 77, control), strict=True))
        if altered:
            fault = lasting = Fault.ALTERED
        elif kind == Kind.READ.value:
            known = 4 * register in held
            fault, answer = (Fault.NONE, held[4 * register]) if known else (Fault.UNKNOWN, 0)
        elif kind == Kind.WRITE.value:
            if 4 * register == Register.CONTROL:
                control, lasting = word & 1, Fault.NONE
            else:
                fault = Fault.UNKNOWN
        elif kind in (Kind.LOAD.value, Kind.IMAGE.value, Kind.SCORE.value):
            name = {Kind.LOAD.value: "load", Kind.IMAGE.value: "image"}.get(kind)
            if lasting != Fault.NONE:
                fault = lasting
            elif (given == room) if name is None else (len(words[name]) == room + 1):  # one more waits at the bridge
                fault = lasting = Fault.LATE
            elif name is None:
                answer, last, given = 5 + given, given % 3 == 2, given + 1
            else:
                words[name].append(word)
        else:
            fault = Fault.UNKNOWN
        answers.append(kind | fault.value << 3 | last << 5 | answer << 8)
    return answers, words


def test_the_check_is_that_of_rfc_3095_of_the_bytes_in_the_order_in_which_they_are_sent() -> None:
    """The known answer of its catalogue, of the digits 1 to 9, is 0xD0; of five of them what its definition says, bit by bit."""
    assert CHECK.algorithm(data_width=8).compute(b"123456789") == 0xD0
    remainder = 0xFF
    for bit in np.unpackbits(np.frombuffer(b"12345", np.uint8), bitorder="little").tolist():
        remainder = remainder >> 1 ^ 0xE0 * ((remainder ^ bit) & 1)
    assert CHECK.compute([int.from_bytes(b"12345", "little")]) == remainder
