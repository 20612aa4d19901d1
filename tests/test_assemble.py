"""Assembling: every nest becomes instructions that walk as it does, and what does not fit is said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from schedules import cases, steps

from bayestt.ir.nest import Loop, Nest
from bayestt.ir.schedule import Layout, Schedule
from hw.arch import STREAMS, Arch
from hw.assemble import assemble, instructions
from hw.emulate import walk

ARCH = Arch(rows=2, lanes=2, loops=3)
IMAGE = ARCH.room.image.start
IMAGES = Loop("n", 2, x=1, y=1)
LANE = Loop("i", 2, w=1, init=1, y=2)
NEST = Nest(
    (Loop("a", 3, x=8, y=12), Loop("b", 3, x=24, y=4)), (Loop("j", 4, x=2, w=2),), (IMAGES, LANE), 0, 0, 0, 0, 3, True, name="first"
)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_instructions_walk_as_their_nest_does(case: tuple[Arch, Schedule, np.ndarray]) -> None:
    arch, schedule, _ = case
    for nest in schedule.nests:
        walks = [walk(arch.instruction.from_bits(word), arch) for word in instructions(nest, arch)]
        walked = [np.stack([addresses[stream].ravel() for stream in STREAMS], axis=1) for addresses in walks]
        assert np.concatenate(walked).tolist() == [list(step[:4]) for step in steps(nest, arch)]
        assert {addresses["x"].shape[1] for addresses in walks} == {np.prod([loop.extent for loop in nest.reduce])}


def test_the_fields_of_an_instruction() -> None:
    (word,) = instructions(NEST, ARCH)
    instruction = ARCH.instruction.from_bits(word)
    expected = {"x": 0, "w": 0, "init": 0, "y": 0, "reduce": 1, "lanes": 2, "lane_y": 1}
    expected |= {"shift": 3, "relu": 1, "saturate": 1, "maximum": 0, "final": 0, "wait": 0, "end": 0}
    assert {name: instruction[name] for name in expected} == expected
    back = 1 << ARCH.address_bits
    levels = [{name: loop[name] for name in ("steps", *STREAMS)} for loop in instruction.loops]
    # j steps to the next element; b takes back the three steps of j; a takes back those of j and the two of b.
    assert levels == [
        {"steps": 3, "x": 1, "w": 1, "init": 0, "y": 0},
        {"steps": 2, "x": 12 - 3, "w": back - 3, "init": 0, "y": 2},
        {"steps": 2, "x": back + 4 - 24 - 3, "w": back - 3, "init": 0, "y": 6 - 4},
    ]


def test_loops_that_go_on_where_the_inner_one_ends_are_one() -> None:
    loops = (Loop("a", 3, x=8, y=16), Loop("once", 1, x=6), Loop("b", 4, x=2, y=4))
    merged = replace(NEST, outer=loops, reduce=())
    instruction = ARCH.instruction.from_bits(*instructions(merged, ARCH))
    assert [loop.steps for loop in instruction.loops] == [11, 0, 0]
    assert instruction.reduce == 0


def test_loops_that_find_no_level_are_unrolled() -> None:
    loops = tuple(Loop(f"o{k}", 2, x=2 * 3**k, y=4 * 2**k) for k in range(4))
    nest = replace(NEST, outer=loops)
    assert len(instructions(nest, ARCH)) == 4
    assert len(instructions(nest, replace(ARCH, loops=1))) == 16
    assert len(instructions(nest, replace(ARCH, loops=5))) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data_depth": 41}, "the program needs 42 words of data memory and the Arch has 41: raise Arch.data_depth to 42"),
        ({"weight_depth": 3}, "nest 'first' needs 4 words of weight memory and the Arch has 3: raise Arch.weight_depth to 4"),
        ({"score_depth": 17}, "18 words of score memory and the Arch has 17: raise Arch.score_depth to 18"),
        ({"weight_bits": 4}, "weights go from -9 to -9, expected -8 to 7"),
        ({"acc_bits": 31}, "nest 'first' has accumulator bits 32, expected 31"),
        ({"data_bits": 7}, "nest 'first' has result bits 8, expected 7: quantize activations to so many or change"),
        ({"rows": 4}, "runs 2 images at once, expected 4: lower the graph with Arch.tile"),
        ({"lanes": 1}, "nest 'first' has lanes 2, expected 1"),
        ({"lanes": 3}, "8 weights do not fill words of 3: lower the graph with Arch.tile"),
        ({"extent_bits": 1}, "nest 'first' loops 3 times over 'a', expected at most 2: raise Arch.extent_bits"),
    ],
)
def test_a_machine_that_a_schedule_was_not_made_for_is_refused(fields: dict, message: str) -> None:
    assemble(_schedule(), ARCH)
    with pytest.raises(ValueError, match=message):
        assemble(_schedule(), replace(ARCH, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reduce": tuple(Loop(f"j{k}", 2, x=2 * k) for k in range(4))}, "sums over 4 loops, expected at most 3: raise Arch.loops"),
        ({"lane": (Loop("n", 2, x=2, y=1), LANE)}, r"strides of images \(2, 0, 0, 1\), expected \(1, 0, 0, 1\)"),
        ({"lane": (IMAGES, Loop("i", 2, w=2, init=1, y=2))}, r"strides of lanes \(0, 2, 1\), expected \(0, 1, 1\)"),
        ({"lane": (IMAGES, LANE, LANE)}, "more lane loops"),
        ({"lane": (LANE,)}, "strides of images"),
        ({"bits": 32}, "result bits 32, expected 8"),
        ({"maximum": True}, "nest 'first' has lanes 2, expected 1"),
        ({"shift": 32}, "shifts by 32, expected 0 to 31"),
        ({"shift": -1}, "shifts by -1, expected 0 to 31"),
        ({"x": 1}, "moves x by 1, not by words of 2"),
        ({"reduce": (Loop("j", 2, w=1),)}, "moves w by 1, not by words of 2"),
        ({"x": IMAGE}, rf"moves x from {IMAGE} to {IMAGE + 71}, expected 0 to {IMAGE + 35}: its schedule is not legal"),
        ({"x": -2}, "moves x from -2 to 69"),
        ({"w": -2}, "moves w from -2 to 5, expected 0 to 7"),
        ({"init": 4}, "moves init from 4 to 5, expected 0 to 3"),
        ({"y": 50}, "moves y from 50 to 85, expected 0 to 83"),
    ],
)
def test_a_nest_that_the_machine_cannot_run_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assemble(_schedule(replace(NEST, **fields)), ARCH)


def test_products_too_wide_to_compare_are_refused() -> None:
    arch = replace(ARCH, acc_bits=15)
    nest = replace(NEST, maximum=True, lane=(IMAGES,), acc_bits=15)
    with pytest.raises(ValueError, match="nest 'first' compares products of 16 bits, expected at most 15: raise Arch.acc_bits"):
        instructions(nest, arch)


@pytest.mark.parametrize(
    ("nest", "message"),
    [
        ({"outer": (Loop("a", 2, init=2), Loop("b", 3, y=4, w=0))}, "nest 'first' needs 2 words of init memory and the Arch has 1: raise"),
        (
            {"outer": tuple(Loop(f"o{k}", 2, x=[2, 10, 6, 22][k], y=4 * 2**k) for k in range(4))},
            "nest 'first' needs 4 words of code memory and",
        ),
    ],
)
def test_a_nest_that_does_not_fit_alone_is_refused(nest: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assemble(_schedule(replace(NEST, **nest)), replace(ARCH, init_depth=1, code_depth=2, data_depth=100))


@pytest.mark.parametrize("field", ["weight_depth", "init_depth", "code_depth"])
def test_segments_are_as_long_as_every_memory_allows(field: str) -> None:
    """Four nests, each with two words of weights and one of inits; the third shares those of the second."""
    nests = [_taking(weights, inits) for weights, inits in ((0, 0), (4, 2), (4, 2), (10, 6))]
    program = assemble(_many(nests), replace(ARCH, **{field: {"weight_depth": 4, "init_depth": 2, "code_depth": 3}[field]}))
    assert [len(segment.code) for segment in program.segments] == [3, 1]
    first, second = program.segments
    # Words 3 and 4 of the weights, and word 2 of the inits, belong to no nest.
    assert first.weights.ravel().tolist() == list(range(8))
    assert second.weights.ravel().tolist() == [10, 11, 12, 13]
    assert (first.inits.ravel().tolist(), second.inits.ravel().tolist()) == ([0, 1, 2, 3], [6, 7])
    starts = [[(c.w, c.init) for c in map(ARCH.instruction.from_bits, segment.code)] for segment in program.segments]
    assert starts == [[(0, 0), (2, 1), (2, 1)], [(0, 0)]]


def test_a_program_that_fits_is_one_segment_and_its_last_instruction_ends_it() -> None:
    program = assemble(_many([_taking(4, 2), _taking(0, 0)]), ARCH)
    (segment,) = program.segments
    assert [instruction.end for instruction in program.instructions] == [0, 1]
    assert segment.weights.ravel().tolist() == list(range(8))
    assert [(c.w, c.init) for c in program.instructions] == [(2, 1), (0, 0)]


def test_a_copy_needs_no_constants() -> None:
    program = assemble(_copied(), replace(ARCH, external_depth=20))
    (segment,) = program.segments
    assert [(c.load, c.store, c.w, c.init, c.x, c.y) for c in program.instructions] == [(0, 1, 0, 0, 0, 2), (1, 0, 0, 0, 2, 30), (0,) * 6]
    assert (len(segment.weights), program.source) == (4, "image")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shift": 1}, "nest 'copy' has shift 1, expected 0: what moves from or to external memory is copied only"),
        ({"relu": True}, "has relu True"),
        ({"maximum": True}, "has maximum True"),
        ({"reduce": (Loop("j", 1),)}, "has reduce loops 1"),
        ({"lane": (IMAGES, LANE)}, "has lanes 4, expected 2"),
        ({"w": 0}, r"has weights \[-9\], expected \[1\]"),
        ({"outer": (Loop("f", 4, x=2, y=2, w=2),), "w": 2}, r"has weights \[-9, .*\], expected \[1\]"),
        ({"init": 2}, r"has inits \[5\], expected \[0\]"),
        ({"source": "external"}, "has source 'external', expected 'data'|has source external, expected data"),
        ({"source": "external", "target": "scores"}, "has target scores, expected data"),
        ({"y": 34}, "moves y from 34 to 41, expected 0 to 39"),
    ],
)
def test_a_nest_that_does_more_than_copy_to_external_memory_is_refused(fields: dict, message: str) -> None:
    schedule = _copied()
    nests = (replace(schedule.nests[0], **fields), *schedule.nests[1:])
    with pytest.raises(ValueError, match=message):
        assemble(replace(schedule, nests=nests), replace(ARCH, external_depth=20))


def test_images_without_a_place_of_their_own_are_refused() -> None:
    schedule = _schedule()
    among = {**schedule.layout, "x": replace(schedule.layout["x"], address=0)}
    with pytest.raises(ValueError, match="the images lie among the activations: lower the graph with Arch.room"):
        assemble(replace(schedule, layout=among), ARCH)
    outside = {**schedule.layout, "x": replace(schedule.layout["x"], address=0, memory="external")}
    with pytest.raises(ValueError, match="the program needs 18 words of image memory and the Arch has 16: raise Arch.image_depth to 32"):
        assemble(replace(schedule, layout=outside), replace(ARCH, image_depth=16))


def test_a_machine_without_external_memory_refuses_a_schedule_that_needs_some() -> None:
    with pytest.raises(
        ValueError, match="the program needs 20 words of external memory and the Arch has 0: raise Arch.external_depth to 20"
    ):
        assemble(_copied(), ARCH)


def test_a_tensor_that_does_not_lie_with_its_images_in_a_word_is_refused() -> None:
    schedule = _schedule()
    other = replace(schedule, layout={**schedule.layout, "x": Layout(IMAGE, ("n", "f"), (2, 3), (3, 1))})
    with pytest.raises(ValueError, match="tensor 'x' does not lie with 2 images in a word"):
        assemble(other, ARCH)


def _taking(w: int, init: int) -> Nest:
    """A nest that reads four weights and two inits."""
    return replace(NEST, outer=(), reduce=(Loop("j", 2, x=2, w=2),), w=w, init=init, bits=32, target="scores")


def _many(nests: list[Nest]) -> Schedule:
    """A schedule of nests, its constants numbered."""
    return replace(_schedule(), nests=tuple(nests), weights=np.arange(14), inits=np.arange(8))


def _copied() -> Schedule:
    """A schedule with a nest that copies to external memory, one that copies back, and one that computes."""
    images, walk = (IMAGES,), (Loop("f", 4, x=2, y=2),)
    out = Nest(walk, (), images, 0, 8, 0, 4, target="external", name="copy")
    back = replace(out, x=4, y=60, source="external", target="data")
    schedule = _schedule()
    nests = (out, back, schedule.nests[1])
    weights, inits = np.append(schedule.weights, [1, 0]), np.array([0, 0, 5, 0])
    return replace(schedule, nests=nests, weights=weights, inits=inits, external_size=40)


def _schedule(nest: Nest = NEST) -> Schedule:
    """A schedule of a nest, and one that writes scores, just large enough for both."""
    layout = {"x": Layout(IMAGE, ("n", "f"), (2, 18), (1, 2)), "y": Layout(0, ("n", "s"), (2, 18), (1, 2))}
    last = replace(NEST, bits=32, target="scores", name="last")
    return Schedule((nest, last), layout, 2, "x", "y", np.full(8, -9), np.zeros(4, np.int64), 84, 36)
