"""Data sets check themselves, scale exactly, and hold out the last training images."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayestt.algebra.fixed import Fixed, dequantize, quantize
from bayestt.data.dataset import Dataset, Split, scale, split

BYTES = np.arange(256, dtype=np.uint8)


def test_a_scaled_pixel_is_exactly_an_8_bit_fixed_point_number() -> None:
    scaled = scale(BYTES)
    assert scaled.dtype == np.float32 and scaled.min() == -1 and scaled.max() == 127 / 128
    assert (quantize(scaled, Fixed(8, 7)) == BYTES.astype(int) - 128).all()
    assert (dequantize(quantize(scaled, Fixed(8, 7)), Fixed(8, 7)) == scaled).all()


def test_only_bytes_are_scaled() -> None:
    with pytest.raises(ValueError, match="float64 cannot be scaled, expected uint8: give the bytes"):
        scale(BYTES / 255)


@given(train=st.integers(2, 30), test=st.integers(1, 5), data=st.data())
def test_the_last_training_images_are_held_out(train: int, test: int, data: st.DataObject) -> None:
    held_out = data.draw(st.integers(1, train - 1))
    pixels = np.arange(train + test, dtype=np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
    labels = np.arange(train + test) % 3
    dataset = split(pixels[:train], labels[:train], pixels[train:], labels[train:], held_out, ("a", "b", "c"))
    assert len(dataset.train.images) == train - held_out and len(dataset.validation.images) == held_out
    joined = [dataset.train, dataset.validation, dataset.test]
    assert (np.concatenate([part.images for part in joined]) == scale(pixels)).all()
    assert (np.concatenate([part.labels for part in joined]) == labels).all()


@pytest.mark.parametrize("held_out", [-1, 0, 4, 5])
def test_both_splits_of_the_training_images_need_one(held_out: int) -> None:
    pixels, labels = np.zeros((4, 28, 28), np.uint8), np.zeros(4, int)
    with pytest.raises(ValueError, match=f"{held_out} of 4 training images cannot be held out"):
        split(pixels, labels, pixels, labels, held_out, ("a",))


def good(images: int = 6) -> Split:
    return Split(np.zeros((images, 3, 4, 4), np.float32), np.arange(images) % 3)


def changed(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    copy = array.copy()
    copy[index] = value
    return copy


@pytest.mark.parametrize("name", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (good(0), "split is empty: give it at least one image"),
        (replace(good(), labels=np.zeros(5, int)), r"split has 6 images and labels of shape \(5,\): give each image one label"),
        (replace(good(), labels=np.zeros((6, 1), int)), r"split has 6 images and labels of shape \(6, 1\)"),
        (replace(good(), images=np.zeros((6, 3, 4, 4))), "split has float64 images and int64 labels, expected float32 and int64"),
        (replace(good(), labels=np.zeros(6, np.uint8)), "split has float32 images and uint8 labels, expected float32 and int64"),
        (replace(good(), images=changed(good().images, (4, 2, 0, 1), np.nan)), "split's image 4 holds NaN or infinity, expected finite"),
        (replace(good(), images=changed(good().images, (2, 0, 0, 0), -np.inf)), "split's image 2 holds NaN or infinity, expected finite"),
        (replace(good(), labels=changed(good().labels, (3,), 3)), "split's image 3 has label 3, expected 0 to 2: relabel it"),
        (replace(good(), labels=changed(good().labels, (5,), -1)), "split's image 5 has label -1, expected 0 to 2: relabel it"),
    ],
)
def test_what_is_wrong_is_named(name: str, bad: Split, message: str) -> None:
    splits = {"train": good(), "validation": good(), "test": good()} | {name: bad}
    with pytest.raises(ValueError, match=f"^the {name} {message}"):
        Dataset(**splits, classes=("a", "b", "c"))


@pytest.mark.parametrize("name", ["validation", "test"])
def test_splits_of_two_image_shapes_are_refused(name: str) -> None:
    splits = {"train": good(), "validation": good(), "test": good()} | {name: replace(good(), images=np.zeros((6, 5, 5), np.float32))}
    with pytest.raises(ValueError, match=rf"the {name} split's images have shape \(5, 5\), the train split's \(3, 4, 4\): give all"):
        Dataset(**splits, classes=("a", "b", "c"))


def test_a_dataset_does_not_change() -> None:
    dataset = Dataset(good(), good(), good(), ("a", "b", "c"))
    with pytest.raises(FrozenInstanceError):
        dataset.train = good()
