"""The embedded part of Fashion-MNIST: what it holds, how it was made, and that no wrong byte of it is believed."""

import lzma
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from published import digits, idx_files, publish

from bayestt.data import fashion_mnist
from bayestt.data.dataset import Dataset, scale

TRAIN_COUNTS = [942, 1027, 1016, 1019, 974, 989, 1021, 1022, 990, 1000]
TEST_COUNTS = [200, 203, 214, 190, 219, 195, 197, 200, 194, 188]


@pytest.fixture(scope="module")
def small() -> Dataset:
    return fashion_mnist.small()


def test_the_embedded_part_has_its_sizes(small: Dataset) -> None:
    assert small.train.images.shape == (9_000, 28, 28)
    assert small.validation.images.shape == (1_000, 28, 28)
    assert small.test.images.shape == (2_000, 28, 28)
    assert small.train.images.flags.c_contiguous
    assert fashion_mnist.EMBEDDED.stat().st_size <= 6_000_000


def test_the_embedded_part_has_its_classes(small: Dataset) -> None:
    train = np.concatenate([small.train.labels, small.validation.labels])
    assert np.bincount(train).tolist() == TRAIN_COUNTS
    assert np.bincount(small.test.labels).tolist() == TEST_COUNTS
    assert [small.classes[label] for label in train[:3]] == ["Ankle boot", "T-shirt/top", "T-shirt/top"]


def test_the_embedded_pixels_are_bytes_over_128_upright(small: Dataset) -> None:
    pixels = small.train.images * 128 + 128
    assert (pixels == pixels.round()).all() and pixels.min() == 0 and pixels.max() == 255
    boot = pixels[0] > 128  # the first image: a boot whose toe, at the left, is low, and whose shaft, at the right, is high
    assert not boot[:16, :8].any() and boot[5:9, 16].all() and boot[20:22, 1:11].all()


def test_its_licence_lies_beside_it() -> None:
    licence = (resources.files("bayestt.data") / "FASHION_MNIST_LICENSE.txt").read_text("utf-8")
    assert licence.startswith("The MIT License (MIT) Copyright © 2017 Zalando SE")


def test_what_is_embedded_is_the_first_images_of_the_full_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels, test_images, test_labels = arrays = digits(103, 23)
    publish(monkeypatch, fashion_mnist, idx_files(arrays), tmp_path)
    monkeypatch.setattr(fashion_mnist, "EMBEDDED_TRAIN", 100)
    monkeypatch.setattr(fashion_mnist, "EMBEDDED_TEST", 20)
    monkeypatch.setattr(fashion_mnist, "EMBEDDED_HELD_OUT", 10)
    monkeypatch.setattr(fashion_mnist, "EMBEDDED", tmp_path / "small.xz")
    monkeypatch.setattr(fashion_mnist, "EMBEDDED_SHA256", fashion_mnist.embed(str(tmp_path), tmp_path / "small.xz"))
    small = fashion_mnist.small()
    assert (small.train.images == scale(images[:90])).all() and (small.train.labels == labels[:90]).all()
    assert (small.validation.images == scale(images[90:100])).all() and (small.validation.labels == labels[90:100]).all()
    assert (small.test.images == scale(test_images[:20])).all() and (small.test.labels == test_labels[:20]).all()


def altered(content: bytes) -> bytes:
    """The same images but one pixel, compressed as before."""
    rows = bytearray(lzma.decompress(content))
    rows[-1] ^= 1
    return lzma.compress(bytes(rows), preset=0)


@pytest.mark.parametrize("change", [lambda whole: whole[:-5], lambda whole: whole[:9_000] + b"?" + whole[9_001:], altered])
def test_a_broken_embedded_file_is_refused(change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "small.xz"
    broken.write_bytes(change(fashion_mnist.EMBEDDED.read_bytes()))
    monkeypatch.setattr(fashion_mnist, "EMBEDDED", broken)
    with pytest.raises(ValueError, match=f"{broken} is truncated or altered: .*expected"):
        fashion_mnist.small()
