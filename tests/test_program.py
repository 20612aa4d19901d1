"""Programs as streams of words and as files: what comes back is what went in, and nothing else is taken."""

from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from amaranth.lib import data
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import cases

from bayestt.ir.schedule import Schedule
from hw.arch import Arch, Target
from hw.assemble import assemble
from hw.program import Program, Segment, load, save

SIZES = {"data_depth": 8192, "code_depth": 2, "weight_depth": 4, "init_depth": 4, "external_depth": 100}
ARCH = Arch(rows=2, lanes=3, data_bits=6, weight_bits=5, acc_bits=19, loops=2, **SIZES)
CODE = (1, 1 << (ARCH.instruction.size - 1))
SEGMENT = Segment(CODE, np.array([[1, -2, 15], [-16, 0, 3]]), np.array([[-(1 << 18), 0, 5]]))
PROGRAM = Program(ARCH, (SEGMENT, replace(SEGMENT, code=CODE[:1])), np.array([3, 1, 2]), np.array([1, 0]))


@settings(max_examples=50, deadline=None)
@given(cases())
def test_decode_takes_back_what_encode_wrote(case: tuple[Arch, Schedule, np.ndarray]) -> None:
    arch, schedule, _ = case
    program = assemble(schedule, arch)
    again = Program.decode(program.encode(), arch)
    assert again == program
    assert (again.source, len(again.segments)) == (program.source, len(program.segments))
    for name in ("image", "score"):
        assert np.array_equal(getattr(again, name), getattr(program, name)), name
    for segment, expected in zip(again.segments, program.segments, strict=True):
        assert segment.code == expected.code
        assert np.array_equal(segment.weights, expected.weights)
        assert np.array_equal(segment.inits, expected.inits)


@pytest.mark.parametrize(
    "other",
    [
        {"segments": PROGRAM.segments[::-1]},
        {"segments": PROGRAM.segments[:1]},
        {"segments": (replace(SEGMENT, code=CODE[::-1]), PROGRAM.segments[1])},
        {"segments": (replace(SEGMENT, weights=-SEGMENT.weights[::-1] - 1), PROGRAM.segments[1])},
        {"image": PROGRAM.image[::-1]},
        {"score": PROGRAM.score[::-1]},
        {"source": "external"},
    ],
)
def test_programs_that_differ_are_not_equal(other: dict) -> None:
    assert replace(PROGRAM, **other) != PROGRAM


def test_a_setup_says_where_a_batch_comes_in_and_goes_out() -> None:
    found = [[value for _, value in _fields(setup)] for setup in PROGRAM.setups]
    sums = [sum(words[: -2 - ARCH.chunks(Target.SETUP)].tolist()) % 2**32 for words in PROGRAM.loads]
    #        check, takes, gives, image_first, image_last, score_first, score_last
    assert found == [[sums[0], 1, 0, 1, 3, 0, 1], [sums[1], 0, 1, 1, 3, 0, 1]]
    assert [setup.takes_image for setup in replace(PROGRAM, source="external").setups] == [0, 0]


def test_a_program_stays_loaded_that_takes_images_and_gives_scores_in_one_segment() -> None:
    alone = replace(PROGRAM, segments=(SEGMENT,))
    assert alone.resident
    assert not replace(alone, source="external").resident
    assert not PROGRAM.resident


def test_the_segments_are_all_of_the_stream_but_its_notes() -> None:
    words = PROGRAM.encode()
    note = 2 + int(words[1])
    assert np.array_equal(np.concatenate(PROGRAM.loads), words[note:-3])


@given(st.data())
def test_a_program_with_any_bit_altered_is_refused(draw: st.DataObject) -> None:
    words = PROGRAM.encode()
    words[draw.draw(st.integers(0, len(words) - 1))] ^= np.uint32(1 << draw.draw(st.integers(0, 31)))
    with pytest.raises(ValueError, match=r"not a bayestt program|do not match their checksum"):
        Program.decode(words, ARCH)


def test_a_truncated_program_is_refused() -> None:
    for length in range(len(PROGRAM.encode())):
        with pytest.raises(ValueError, match=rf"these {length} words .*(not a bayestt program|do not match their checksum)"):
            Program.decode(PROGRAM.encode()[:length], ARCH)


@pytest.mark.parametrize("words", [np.arange(99, dtype=np.uint32), PROGRAM.encode().astype(np.float64), PROGRAM.encode()[::-1]])
def test_foreign_words_are_refused(words: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not a bayestt program: give what Program.encode wrote"):
        Program.decode(words, ARCH)


def test_a_program_for_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"for an Arch with rows=2, loops=2, expected rows=4, loops=3: assemble it"):
        Program.decode(PROGRAM.encode(), replace(ARCH, rows=4, loops=3))


def test_a_program_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 7, expected 4"):
        Program.decode(_altered(3, 7), ARCH)


def test_words_with_a_valid_checksum_that_make_no_program_are_refused() -> None:
    """Whoever writes the checksum too can write anything, but it is taken only if `encode` would have written it."""
    taken = []
    for index in range(4, len(PROGRAM.encode()) - 1):
        for value in (0, 1, 0xFF, 0xFFFFFFFF):
            words = _altered(index, value)
            try:
                taken.append((words, Program.decode(words, ARCH)))
            except ValueError as refusal:
                assert str(refusal).count(": ") >= 1, refusal
    assert taken
    assert all(np.array_equal(program.encode(), words) for words, program in taken)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"code": (0, 0, 0)}, r"3 words of code memory and the Arch has 2: raise Arch.code_depth to 3"),
        ({"weights": np.zeros((5, 3), np.int64)}, r"5 words of weight memory and the Arch has 4: raise Arch.weight_depth to 5"),
        ({"inits": np.zeros((9, 3), np.int64)}, r"9 words of init memory and the Arch has 4: raise Arch.init_depth to 9"),
        ({"image": np.array([1024])}, r"1025 words of image memory and the Arch has 1024: raise Arch.image_depth to 2048"),
        ({"image": np.array([100]), "source": "external"}, r"101 words of external memory and the Arch has 100: raise Arch.external_depth"),
        ({"score": np.array([256])}, r"257 words of score memory and the Arch has 256: raise Arch.score_depth to 257"),
        ({"weights": np.full((1, 3), 16)}, r"weights go from 16 to 16, expected -16 to 15: quantize to 5 bits"),
        ({"inits": np.full((1, 3), -(1 << 18) - 1)}, r"inits go from -262145 to -262145, expected -262144 to 262143"),
        ({"weights": np.zeros((2, 2), np.int64)}, r"weights have shape \(2, 2\), expected \(words, 3\)"),
        ({"code": ()}, r"needs instructions"),
        ({"segments": ()}, r"needs instructions"),
        ({"code": (1 << ARCH.instruction.size,)}, r"code words of \d+ bits, expected \d+"),
    ],
)
def test_a_program_that_does_not_fit_is_refused(fields: dict, message: str) -> None:
    inner = {name: value for name, value in fields.items() if name in ("code", "weights", "inits")}
    with pytest.raises(ValueError, match=message):
        replace(PROGRAM, **(fields if not inner else {"segments": (SEGMENT, replace(SEGMENT, **inner))}))


def test_a_file_brings_back_program_and_machine(tmp_path: Path) -> None:
    save(PROGRAM, tmp_path / "program.btt")
    again = load(tmp_path / "program.btt")
    assert again == PROGRAM
    assert again.arch == ARCH


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    save(PROGRAM, tmp_path / "program.btt")
    content = bytearray((tmp_path / "program.btt").read_bytes())
    content[-9] ^= 1
    (tmp_path / "program.btt").write_bytes(content)
    with pytest.raises(ValueError, match="truncated or altered"):
        load(tmp_path / "program.btt")


def test_segments_end_with_their_setup_and_lie_between_notes() -> None:
    words, targets = PROGRAM.encode().tolist(), []
    while words:
        target = Target(words[0] & 0xFF)
        targets.append(target.name)
        words = words[2 + words[1] * ARCH.chunks(target) :]
    segment = ["CODE", "WEIGHTS", "INITS", "SETUP"]
    assert targets == ["NOTE", *segment, *segment, "NOTE"]


def _fields(word: data.Const) -> list[tuple[str, int]]:
    """A word's fields by name."""
    return [(name, word[name]) for name, _ in word.shape()]


def _altered(index: int, value: int) -> np.ndarray:
    """The program's words with another value at an index, and a checksum that matches."""
    words = PROGRAM.encode()
    words[index] = value
    words[-1] = crc32(words[:-1].tobytes())
    return words
