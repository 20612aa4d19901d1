"""A program: what the machine loads, as a value, as a stream of words, and as a file."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from amaranth.lib import data

from bayestt.algebra.fixed import wrap
from bayestt.artifact import read_arrays, write_arrays
from hw.arch import Arch, Target

MAGIC, VERSION = int.from_bytes(b"btt!", "little"), 1


@dataclass(frozen=True, eq=False)
class Program:
    """Instructions, weights and initial accumulators in memory words, and where the elements and scores of a batch lie.

    `code` holds instruction words; `weights` and `inits` are int64 arrays (words, lanes); `image[f]` is the word address of feature f in
    the data memory, `score[s]` that of score s in the scores memory. Two programs are equal when their streams are.
    """

    arch: Arch
    code: tuple[int, ...]
    weights: np.ndarray
    inits: np.ndarray
    image: np.ndarray
    score: np.ndarray

    def __post_init__(self) -> None:
        arch = self.arch
        check_fits("code", len(self.code), arch.code_depth, "code_depth")
        check_fits("weight", len(self.weights), arch.weight_depth, "weight_depth")
        check_fits("init", len(self.inits), arch.init_depth, "init_depth")
        check_fits("data", int(self.image.max()) + 1, arch.data_depth, "data_depth")
        check_fits("score", int(self.score.max()) + 1, arch.score_depth, "score_depth")
        for name, words, bits in (("weights", self.weights, arch.weight_bits), ("inits", self.inits, arch.acc_bits)):
            low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
            if words.ndim != 2 or words.shape[1] != arch.lanes:
                raise ValueError(f"the {name} have shape {words.shape}, expected (words, {arch.lanes}): pack them for Arch.tile")
            if words.size and (words.min() < low or words.max() > high):
                raise ValueError(
                    f"the {name} go from {words.min()} to {words.max()}, expected {low} to {high}: quantize to {bits} bits, or use a wider Arch"
                )

    @property
    def instructions(self) -> tuple[data.Const, ...]:
        """The instruction words with their fields by name."""
        return tuple(map(self.arch.instruction.from_bits, self.code))

    @property
    def setup(self) -> data.Const:
        """What the machine must know of a batch and of the program."""
        image, score = self.image, self.score
        return self.arch.setup.const(
            {
                "image_first": int(image.min()),
                "image_last": int(image.max()),
                "score_first": int(score.min()),
                "score_last": int(score.max()),
                "code_last": len(self.code) - 1,
            }
        )

    def encode(self) -> np.ndarray:
        """The uint32 words that the machine's `load` stream takes, in order.

        Sections for the loader: the memories, then the setup that makes the program valid. Two notes around them, which the machine skips,
        say what only software needs: magic, version, Arch and the places of features and scores; at the end a checksum.
        """
        arch = self.arch
        places = [len(self.image), *self.image, len(self.score), *self.score]
        sections = {
            Target.CODE: _split(self.code, arch.chunks(Target.CODE)),
            Target.WEIGHTS: _packed(self.weights, arch.weight_bits, arch.chunks(Target.WEIGHTS)),
            Target.INITS: _packed(self.inits, arch.acc_bits, arch.chunks(Target.INITS)),
            Target.SETUP: _split([self.setup.as_bits()], arch.chunks(Target.SETUP)),
        }
        note = _section(Target.NOTE, np.array([[word] for word in [MAGIC, VERSION, *asdict(arch).values(), *places]], np.uint32))
        words = np.concatenate([note, *(_section(target, chunks) for target, chunks in sections.items())])
        return np.concatenate([words, _section(Target.NOTE, np.array([[crc32(words.tobytes())]], np.uint32))])

    @classmethod
    def decode(cls, words: np.ndarray, arch: Arch) -> "Program":
        """The program that `encode` wrote as these words for this Arch; all others are refused."""
        words = np.asarray(words, np.uint32)
        if words[2:3].tolist() != [MAGIC]:
            raise ValueError(f"these {len(words)} words are not a bayestt program: give what Program.encode wrote")
        if words[-1] != crc32(words[:-3].tobytes()):
            raise ValueError(f"these {len(words)} words of a program do not match their checksum: they are altered or incomplete, encode it again")
        if words[3] != VERSION:
            raise ValueError(f"the program is of version {words[3]}, expected {VERSION}: encode it again with this bayestt")
        expected = asdict(arch)
        found = dict(zip(expected, words[4:].tolist(), strict=False))
        if odd := [f"{field}={found[field]}" for field in expected if found[field] != expected[field]]:
            wanted = ", ".join(f"{field}={expected[field]}" for field in expected if found[field] != expected[field])
            raise ValueError(f"the program is for an Arch with {', '.join(odd)}, expected {wanted}: assemble it for this Arch")
        (_, note), (_, code), (_, weights), (_, inits), *_ = _sections(words, arch)
        image, score = np.split(note[2 + len(expected) :, 0].astype(np.int64), [1 + int(note[2 + len(expected), 0])])
        return cls(
            arch,
            tuple(int.from_bytes(word.tobytes(), "little") for word in code),
            _unpacked(weights, arch.lanes, arch.weight_bits),
            _unpacked(inits, arch.lanes, arch.acc_bits),
            image[1:],
            score[1:],
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and np.array_equal(self.encode(), other.encode())


def save(program: Program, path: str | Path) -> None:
    """Write a program to one file; what was there before stays until the new file is complete."""
    write_arrays(path, "program", asdict(program.arch), {"words": program.encode()})


def load(path: str | Path) -> Program:
    """The program that a file holds; a file that is altered, foreign or of another version is refused."""
    fields, arrays = read_arrays(path, "program")
    return Program.decode(arrays["words"], Arch(**fields))


def check_fits(memory: str, needed: int, there: int, field: str) -> None:
    """Refuse what a memory has no room for."""
    if needed > there:
        raise ValueError(f"the program needs {needed} words of {memory} memory and the Arch has {there}: raise Arch.{field} to {needed} or more")


def _section(target: Target, chunks: np.ndarray) -> np.ndarray:
    """A section of the stream: target and start address, word count, chunks."""
    return np.concatenate([np.array([target.value, len(chunks)], np.uint32), chunks.ravel()])


def _sections(words: np.ndarray, arch: Arch) -> Iterator[tuple[Target, np.ndarray]]:
    """The sections of a stream, each as (target, array (words, chunks))."""
    while len(words):
        target, count = Target(int(words[0]) & 0xFF), int(words[1])
        length = count * arch.chunks(target)
        yield target, words[2 : 2 + length].reshape(count, -1)
        words = words[2 + length :]


def _split(words: tuple[int, ...] | list[int], chunks: int) -> np.ndarray:
    """Words given as integers, each as 32-bit chunks, the least significant first."""
    return np.frombuffer(b"".join(word.to_bytes(4 * chunks, "little") for word in words), "<u4").reshape(-1, chunks)


def _packed(words: np.ndarray, bits: int, chunks: int) -> np.ndarray:
    """Words given as arrays of fields, each as 32-bit chunks."""
    field_bits = (words[:, :, None] >> np.arange(bits)) & 1
    word_bits = np.pad(field_bits.reshape(len(words), -1), ((0, 0), (0, 32 * chunks - words.shape[1] * bits)))
    return np.packbits(word_bits.astype(np.uint8), axis=1, bitorder="little").view("<u4")


def _unpacked(words: np.ndarray, fields: int, bits: int) -> np.ndarray:
    """The fields that `_packed` packed, sign included."""
    word_bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")[:, : fields * bits]
    return wrap(word_bits.reshape(len(words), fields, bits).astype(np.int64) @ (1 << np.arange(bits, dtype=np.int64)), bits)
