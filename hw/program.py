"""A program: what the machine loads, as a value, as a stream of words, and as a file."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from zlib import crc32

import numpy as np
from amaranth.lib import data

from bayestt.algebra.fixed import wrap
from bayestt.artifact import read_arrays, write_arrays
from hw.arch import Arch, Target

MAGIC, VERSION = int.from_bytes(b"btt!", "little"), 4


@dataclass(frozen=True, eq=False)
class Segment:
    """What the machine holds at a time: instruction words, and the weights and initial sums they read, int64 arrays (words, lanes)."""

    code: tuple[int, ...]
    weights: np.ndarray
    inits: np.ndarray


@dataclass(frozen=True, eq=False)
class Program:
    """Segments that run one after another, each with memories of its own for constants, and where elements and scores of a batch lie.

    `image[f]` is the word address of feature f in the memory `source` ("image" or "external"), `score[s]` that of score s in the scores
    memory. Two programs are equal when their streams are.
    """

    arch: Arch
    segments: tuple[Segment, ...]
    image: np.ndarray
    score: np.ndarray
    source: str = "image"

    def __post_init__(self) -> None:
        arch = self.arch
        if not (self.segments and all(segment.code for segment in self.segments) and self.image.size and self.score.size):
            raise ValueError("a program needs instructions, features and scores and has none of some: assemble a schedule that has them")
        check_fits("the program", self.source, int(self.image.max()) + 1, arch)
        check_fits("the program", "score", int(self.score.max()) + 1, arch)
        for segment in self.segments:
            check_fits("the program", "code", len(segment.code), arch)
            check_fits("the program", "weight", len(segment.weights), arch)
            check_fits("the program", "init", len(segment.inits), arch)
            if (bits := max(segment.code).bit_length()) > arch.instruction.size:
                raise ValueError(f"there are code words of {bits} bits, expected {arch.instruction.size}: assemble them for this Arch")
            for name, words, bits in (("weights", segment.weights, arch.weight_bits), ("inits", segment.inits, arch.acc_bits)):
                if words.ndim != 2 or words.shape[1] != arch.lanes:
                    raise ValueError(f"the {name} have shape {words.shape}, expected (words, {arch.lanes}): pack them for Arch.tile")
                _check_range(f"the {name}", words, bits)

    @property
    def code(self) -> tuple[int, ...]:
        """The instruction words of all segments."""
        return tuple(word for segment in self.segments for word in segment.code)

    @property
    def instructions(self) -> tuple[data.Const, ...]:
        """The instruction words of all segments with their fields by name."""
        return tuple(map(self.arch.instruction.from_bits, self.code))

    @property
    def resident(self) -> bool:
        """Whether the machine, once loaded, serves any number of batches; else every batch needs all segments again."""
        return len(self.segments) == 1 and self.source == "image"

    @property
    def setups(self) -> tuple[data.Const, ...]:
        """What the machine must know of each segment."""
        check = [int(words.sum(dtype=np.uint32)) for words in self._memories]
        image, score = self.image, self.score
        places = {"image_first": image.min(), "image_last": image.max(), "score_first": score.min(), "score_last": score.max()}
        return tuple(
            self.arch.setup.const(
                {
                    "check": check[number],
                    "takes_image": number == 0 and self.source == "image",
                    "gives_scores": number == len(self.segments) - 1,
                    **{field: int(address) for field, address in places.items()},
                }
            )
            for number in range(len(self.segments))
        )

    @property
    def loads(self) -> tuple[np.ndarray, ...]:
        """The uint32 words that the machine must take for each segment: its memories, then the setup that makes it run."""
        return tuple(
            np.concatenate([words, *_section(Target.SETUP, _split([setup.as_bits()], self.arch.chunks(Target.SETUP)))])
            for words, setup in zip(self._memories, self.setups, strict=True)
        )

    @cached_property
    def _memories(self) -> tuple[np.ndarray, ...]:
        """The words of each segment's memories."""
        arch = self.arch
        return tuple(
            np.concatenate(
                [
                    *_section(Target.CODE, _split(segment.code, arch.chunks(Target.CODE))),
                    *_section(Target.WEIGHTS, packed(segment.weights, arch.weight_bits, arch.chunks(Target.WEIGHTS))),
                    *_section(Target.INITS, packed(segment.inits, arch.acc_bits, arch.chunks(Target.INITS))),
                ]
            )
            for segment in self.segments
        )

    def encode(self) -> np.ndarray:
        """The program as uint32 words for the machine's `load` stream, in order, and for a file.

        Before and after the segments are notes, which the machine skips, for what only software needs: magic, version, Arch and the places
        of features and scores; at the end a checksum.
        """
        places = [int(self.source == "external"), len(self.image), *self.image.tolist(), len(self.score), *self.score.tolist()]
        note = _section(Target.NOTE, _split([MAGIC, VERSION, *asdict(self.arch).values(), *places], 1))
        words = np.concatenate([*note, *self.loads, _heading(Target.NOTE, 1)])
        return np.append(words, np.uint32(crc32(words.tobytes())))

    @classmethod
    def decode(cls, words: np.ndarray, arch: Arch) -> "Program":
        """The program that `encode` wrote as these words for this Arch; all others are refused."""
        _check_words(words, arch)
        try:
            (_, note), *sections, _ = _sections(words, arch)
            external, count, *places = note[2 + len(asdict(arch)) :, 0].astype(np.int64)
            segments = tuple(
                Segment(
                    tuple(int.from_bytes(word.tobytes(), "little") for word in code),
                    unpacked(weights, arch.lanes, arch.weight_bits),
                    unpacked(inits, arch.lanes, arch.acc_bits),
                )
                for (_, code), (_, weights), (_, inits), _ in zip(*[iter(sections)] * 4, strict=True)
            )
            image, score = np.array(places[:count], np.int64), np.array(places[count + 1 :], np.int64)
            program = cls(arch, segments, image, score, "external" if external else "image")
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


def check_fits(what: str, memory: str, needed: int, arch: Arch) -> None:
    """Refuse what needs more words of a memory (image, data, weight, init, score, code or external) than there are."""
    there = getattr(arch, f"{memory}_depth")
    enough = 1 << (needed - 1).bit_length() if memory == "image" else needed
    if needed > there:
        raise ValueError(
            f"{what} needs {needed} words of {memory} memory and the Arch has {there}: raise Arch.{memory}_depth to {enough} or more"
        )


def check_images(x: np.ndarray, program: Program) -> np.ndarray:
    """Images as the program takes them, (n, features) int64; other sizes or numbers are refused."""
    x = np.asarray(x)
    flat = x.reshape(len(x), -1) if x.size else x.reshape(0, len(program.image))
    if flat.shape[1] != len(program.image):
        raise ValueError(
            f"images of shape {x.shape} have {flat.shape[1]} features, expected {len(program.image)}: "
            "give images like those for which the program was lowered"
        )
    if flat.dtype.kind not in "iu":
        raise ValueError(f"the images are {flat.dtype} numbers, expected integers: quantize them to the graph's input format")
    _check_range("the images", flat, program.arch.data_bits)
    return flat.astype(np.int64)


def in_memory_order(batch: np.ndarray, program: Program) -> np.ndarray:
    """A batch (images, features) as the data words that hold it: (words, images), zero where no feature lies."""
    places = program.image - program.image.min()
    words = np.zeros((places.max() + 1, len(batch)), np.int64)
    words[places] = batch.T
    return words


def packed(words: np.ndarray, bits: int, chunks: int) -> np.ndarray:
    """Words given as arrays of fields (words, fields), each as 32-bit chunks: a uint32 array (words, chunks)."""
    field_bits = (words[:, :, None] >> np.arange(bits)) & 1
    word_bits = np.pad(field_bits.reshape(len(words), words.shape[1] * bits), ((0, 0), (0, 32 * chunks - words.shape[1] * bits)))
    return np.packbits(word_bits.astype(np.uint8), axis=1, bitorder="little").view("<u4")


def unpacked(words: np.ndarray, fields: int, bits: int) -> np.ndarray:
    """The fields that `packed` packed (words, chunks), sign included: int64 (words, fields)."""
    word_bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")[:, : fields * bits]
    return wrap(word_bits.reshape(len(words), fields, bits).astype(np.int64) @ (1 << np.arange(bits, dtype=np.int64)), bits)


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


def _section(target: Target, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A section's heading, and its words one after another."""
    return _heading(target, len(chunks)), chunks.ravel()


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
