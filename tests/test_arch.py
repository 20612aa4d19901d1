"""A machine's sizes: what it does at once, how wide its addresses are, and what no machine can be."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bayestt.ir.nest import Loop
from hw.arch import Arch, Target


def test_the_tile_is_images_times_lanes() -> None:
    tile = Arch(rows=3, lanes=2, data_bits=6, acc_bits=20).tile
    assert tile.lane == (Loop("n", 3, x=1, w=0, init=0, y=1), Loop("lane", 2, x=0, w=1, init=1, y=None))
    assert (tile.outer, tile.reduce, tile.bits, tile.acc_bits) == ((), (), 6, 20)


@pytest.mark.parametrize(("depth", "bits"), [(1, 1), (2, 1), (256, 8), (257, 9)])
def test_addresses_reach_the_end_of_the_deepest_memory(depth: int, bits: int) -> None:
    assert Arch(image_depth=1, data_depth=1, weight_depth=1, init_depth=1, score_depth=depth, code_depth=1).address_bits == max(bits, 2)


@pytest.mark.parametrize(("image", "data", "address"), [(1, 1, 2), (8, 100, 128), (128, 100, 128), (256, 128, 256), (1, 129, 256)])
def test_the_image_memory_lies_behind_the_data_memory_where_one_bit_tells_them_apart(image: int, data: int, address: int) -> None:
    arch = Arch(rows=3, image_depth=image, data_depth=data)
    assert arch.image_address == address
    assert arch.room.image == range(3 * address, 3 * (address + image))


def test_addresses_reach_the_end_of_the_external_memory() -> None:
    assert Arch(data_depth=256, external_depth=1 << 20).address_bits == 20


def test_memory_on_the_chip_by_hand() -> None:
    depths = {"image_depth": 64, "data_depth": 100, "weight_depth": 50, "init_depth": 30, "score_depth": 20, "code_depth": 10}
    arch = Arch(rows=2, lanes=3, data_bits=6, weight_bits=5, acc_bits=20, **depths)
    assert arch.memory_bits == (100 + 2 * 64) * 2 * 6 + 50 * 3 * 5 + 30 * 3 * 20 + 20 * 2 * 20 + 10 * arch.instruction.size
    # External memory costs wider addresses, no more.
    wide = replace(arch, external_depth=1000)
    assert wide.memory_bits - arch.memory_bits == 10 * (wide.instruction.size - arch.instruction.size)


def test_words_come_in_chunks_of_32_bits() -> None:
    arch = Arch(lanes=4, weight_bits=8, acc_bits=32)
    assert [arch.chunks(target) for target in (Target.NOTE, Target.WEIGHTS, Target.INITS)] == [1, 1, 4]
    assert arch.chunks(Target.CODE) == -(-arch.instruction.size // 32)
    assert Arch(lanes=5, weight_bits=7).chunks(Target.WEIGHTS) == 2


DEPTHS = ("image_depth", "data_depth", "weight_depth", "init_depth", "score_depth", "code_depth")


@pytest.mark.parametrize("field", ["rows", "lanes", "tiles", "loops", *DEPTHS])
def test_a_machine_has_at_least_one_of_everything(field: str) -> None:
    with pytest.raises(ValueError, match=rf"Arch\.{field} is 0, expected at least 1"):
        Arch(**{field: 0})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 6, "tiles": 4}, "tiles is 4, expected to divide the 6 rows"),
        ({"rows": 6, "tiles": 2, "external_depth": 8}, "tiles is 2, expected 1 with an external memory"),
        ({"data_bits": 1}, r"data_bits is 1, expected 2 to 32"),
        ({"weight_bits": 33}, r"weight_bits is 33, expected 2 to 32"),
        ({"acc_bits": 7}, r"acc_bits is 7, expected 8 to 32"),
        ({"acc_bits": 33}, r"acc_bits is 33, expected 8 to 32"),
        ({"extent_bits": 0}, r"extent_bits is 0, expected 1 to 24"),
        ({"external_depth": -1}, r"external_depth is -1, expected 0 to 16777216"),
        ({"data_depth": (1 << 23) + 1}, r"address_bits is 25, expected 1 to 24"),
        ({"image_depth": 784}, r"image_depth is 784, expected a power of two"),
    ],
)
def test_widths_out_of_range_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arch(**fields)


def test_the_machine_for_residual_nets_has_at_most_64_kb_on_the_chip() -> None:
    fields = yaml.safe_load((Path(__file__).parent.parent / "conf" / "arch" / "rows4_lanes8.yaml").read_text())
    del fields["_target_"]
    assert Arch(**fields).memory_bits <= 64 * 1024 * 8
