"""The transport of a driver over a serial port, to the machine behind `SerialDatapath`."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from amaranth.lib import data
from tqdm import tqdm

from hw.gateware.bridge import ANSWER, CHECK, PACKET_BITS, REQUEST, Fault, Kind
from hw.gateware.serial import WINDOW

PACKET_BYTES = PACKET_BITS // 8
BROKEN = {
    Fault.LATE: (TimeoutError, "did not take or give a word of {0} in time: load a program, and give whole batches"),
    Fault.ALTERED: (ConnectionError, "got something else than was sent to {0}: call load, which resets it, and run again"),
    Fault.UNKNOWN: (ValueError, "has no {0} to read or write, expected one of hw/README.md: take its address"),
}
"""What the machine says that it did not do."""


class Port(Protocol):
    """A serial port, as pyserial has them."""

    def write(self, sent: bytes) -> object:
        """Send bytes, all of them."""

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer if no more come in a time that must be longer than the machine's patience."""


class Serial:
    """The transport over a port. What goes wrong on the line is one error; by then the line is silent, and the next call begins anew."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._hush()

    def write_stream(self, name: str, words: np.ndarray) -> None:
        """Send uint32 words, and return when the machine has taken them."""
        self._asked(Kind[name.upper()], f"the stream {name}", words.tolist())

    def read_stream(self, name: str, count: int) -> np.ndarray:
        """So many words, or fewer where their packet ends before: a uint32 array; waits for them, and drops what follows it."""
        return np.array(self._asked(Kind[name.upper()], f"the stream {name}", [0] * count), np.uint32)

    def read_register(self, address: int) -> int:
        """What a register holds."""
        return self._asked(Kind.READ, f"register at {address:#04x}", [0], address)[0]

    def write_register(self, address: int, value: int) -> None:
        """Write a register."""
        self._asked(Kind.WRITE, f"register at {address:#04x}", [value], address)

    def _asked(self, kind: Kind, what: str, words: Sequence[int], address: int = 0) -> list[int]:
        """The words that answer requests with these words, up to the end of a packet of scores."""
        if address >> 2 >= 1 << REQUEST["register"].width:
            raise _broken(Fault.UNKNOWN, what)
        found: list[int] = []
        with tqdm(total=len(words), desc=what, unit="word", delay=3, leave=False) as bar:
            for first in range(0, len(words), WINDOW):
                some = words[first : first + WINDOW]
                self._port.write(b"".join(_packet(kind, address, word) for word in some))
                ended = False
                for _ in some:
                    answer = self._answer(kind, what, ended)
                    found += [] if ended else [answer.word]
                    ended |= bool(answer.last)
                    bar.update()
                if ended:
                    break
        return found

    def _answer(self, kind: Kind, what: str, ended: bool) -> data.Const:
        """The next answer, after its packet has ended a refusal too."""
        packet = self._port.read(PACKET_BYTES)
        if len(packet) < PACKET_BYTES:
            raise TimeoutError(
                f"the machine has not answered about {what}, a byte was lost, or there is none: "
                "look at port and baud rate, then call load, which resets it, and run again"
            )
        answer = ANSWER.from_bits(int.from_bytes(packet[:-1], "little"))
        whole = packet[-1] == CHECK.compute([answer.as_bits()])
        if whole and answer.fault != Fault.NONE and not ended:
            self._hush()
            raise _broken(answer.fault, what)
        if not whole or answer.as_bits() & 0b111 != kind.value:
            self._hush()
            raise ConnectionError(f"an answer about {what} came altered or lacks a byte: call load, which resets the machine, then run")
        return answer

    def _hush(self) -> None:
        """Wait until the machine has nothing more to say, and has forgotten what it was half told."""
        while self._port.read(PACKET_BYTES * WINDOW):
            pass


def _broken(fault: Fault, what: str) -> Exception:
    """The error that a fault is."""
    error, text = BROKEN[fault]
    return error(f"the machine {text.format(what)}")


def _packet(kind: Kind, address: int, word: int) -> bytes:
    """A request with its check."""
    request = REQUEST.const({"kind": kind, "register": address >> 2, "word": word}).as_bits()
    return request.to_bytes(PACKET_BYTES - 1, "little") + bytes([CHECK.compute([request])])
