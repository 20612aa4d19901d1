"""A program: what the machine loads, as a value, as a stream of words, and as a file."""

from collections.abc import Iterator, Sequence
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
        if not (self.code and self.image.size and self.score.size):
            raise ValueError("a program needs instructions, features and scores and has none of some: assemble a schedule that has them")
        check_fits("code", len(self.code), arch.code_depth, "code_depth")
        check_fits("weight", len(self.weights), arch.weight_depth, "weight_depth")
        check_fits("init", len(self.inits), arch.init_depth, "init_depth")
        check_fits("data", int(self.image.max()) + 1, arch.data_depth, "data_depth")
        check_fits("score", int(self.score.max()) + 1, arch.score_depth, "score_depth")
        if (bits := max(self.code).bit_length()) > arch.instruction.size:
            raise ValueError(f"there are code words of {bits} bits, expected {arch.instruction.size}: assemble them for this Arch")
        for name, words, bits in (("weights", self.weights, arch.weight_bits), ("inits", self.inits, arch.acc_bits)):
            if words.ndim != 2 or words.shape[1] != arch.lanes:
                raise ValueError(f"the {name} have shape {words.shape}, expected (words, {arch.lanes}): pack them for Arch.tile")
            _check_range(f"the {name}", words, bits)

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
        places = [len(self.image), *self.image.tolist(), len(self.score), *self.score.tolist()]
        sections = [
            (Target.NOTE, _split([MAGIC, VERSION, *asdict(arch).values(), *places], 1)),
            (Target.CODE, _split(self.code, arch.chunks(Target.CODE))),
            (Target.WEIGHTS, _packed(self.weights, arch.weight_bits, arch.chunks(Target.WEIGHTS))),
            (Target.INITS, _packed(self.inits, arch.acc_bits, arch.chunks(Target.INITS))),
            (Target.SETUP, _split([self.setup.as_bits()], arch.chunks(Target.SETUP))),
        ]
        parts = [part for target, chunks in sections for part in (_heading(target, len(chunks)), chunks.ravel())]
        words = np.concatenate([*parts, _heading(Target.NOTE, 1)])
        return np.append(words, np.uint32(crc32(words.tobytes())))

    @classmethod
    def decode(cls, words: np.ndarray, arch: Arch) -> "Program":
        """The program that `encode` wrote as these words for this Arch; all others are refused."""
        _check_words(words, arch)
        try:
            (_, note), (_, code), (_, weights), (_, inits), *_ = _sections(words, arch)
            places = note[2 + len(asdict(arch)) :, 0].astype(np.int64)
            image, score = np.split(places, [1 + places[0]])
            program = cls(
                arch,
                tuple(int.from_bytes(word.tobytes(), "little") for word in code),
                _unpacked(weights, arch.lanes, arch.weight_bits),
                _unpacked(inits, arch.lanes, arch.acc_bits),
                image[1:],
                score[1:],
            )
            plain = np.array_equal(program.encode(), words)
        except (IndexError, OverflowError, ValueError) as fault:
            raise ValueError(f"these {len(words)} words hold no legal program ({fault}): encode it again") from fault
        if not plain:
            raise ValueError(f"these {len(words)} words hold more than a program: encode it again")
        return program

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
        raise ValueError(
            f"the program needs {needed} words of {memory} memory and the Arch has {there}: raise Arch.{field} to {needed} or more"
        )


def check_images(x: np.ndarray, program: Program) -> np.ndarray:
    """Images as the program takes them, (n, features) int64; other sizes or numbers are refused."""
    x = np.asarray(x)
    flat = x.reshape(len(x), -1) if x.size else x.reshape(0, len(program.image))
    if flat.shape[1] != len(program.image):
        raise ValueError(f"the images have {flat.shape[1]} features, expected {len(program.image)}: give what the program was made for")
    if flat.dtype.kind not in "iu":
        raise ValueError(f"the images are {flat.dtype} numbers, expected integers: quantize them to the graph's input format")
    _check_range("the images", flat, program.arch.data_bits)
    return flat.astype(np.int64)


def _check_range(what: str, numbers: np.ndarray, bits: int) -> None:
    """Refuse numbers that a field of so many bits does not hold."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if numbers.size and (numbers.min() < low or numbers.max() > high):
        raise ValueError(
            f"{what} go from {numbers.min()} to {numbers.max()}, expected {low} to {high}: quantize to {bits} bits or widen the Arch"
        )


def _check_words(words: np.ndarray, arch: Arch) -> None:
    """Refuse words that `encode` did not write, or wrote for another Arch."""
    if words.dtype != np.uint32 or words[2:3].tolist() != [MAGIC]:
        raise ValueError(f"these {len(words)} words are not a bayestt program: give what Program.encode wrote")
    if words[-1] != crc32(words[:-1].tobytes()):
        raise ValueError(f"these {len(words)} words of a program do not match their checksum: some are altered or missing, encode it again")
    if words[3] != VERSION:
        raise ValueError(f"the program is of version {words[3]}, expected {VERSION}: encode it again with this bayestt")
    expected = asdict(arch)
    found = dict(zip(expected, words[4:].tolist(), strict=False))
    odd = [field for field in expected if found.get(field) != expected[field]]
    if odd:
        others, ours = (", ".join(f"{field}={fields.get(field)}" for field in odd) for fields in (found, expected))
        raise ValueError(f"the program is for an Arch with {others}, expected {ours}: assemble it for this Arch")


def _heading(target: Target, count: int) -> np.ndarray:
    """What a section begins with: target and start address, word count."""
    return np.array([target.value, count], np.uint32)


def _sections(words: np.ndarray, arch: Arch) -> Iterator[tuple[Target, np.ndarray]]:
    """The sections of a stream, each as (target, array (words, chunks))."""
    while len(words):
        target, count = Target(int(words[0]) & 0xFF), int(words[1])
        length = count * arch.chunks(target)
        yield target, words[2 : 2 + length].reshape(count, -1)
        words = words[2 + length :]


def _split(words: Sequence[int], chunks: int) -> np.ndarray:
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
