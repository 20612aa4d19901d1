"""Labelled images in three splits, scaled so that the net, the integer model and the chip receive the very same values."""

from dataclasses import dataclass

import numpy as np

HELD_OUT = 5_000  # the last training images of a full data set are its validation split


@dataclass(frozen=True)
class Split:
    """Images, float32 (n, 28, 28) or (n, 3, 32, 32), and their labels, int64 (n,). Its `Dataset` checks it, and knows its name."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Three splits of images of one shape; label k means `classes[k]`. Whatever is wrong with a split is a ValueError."""

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            split = getattr(self, name)
            _check_arrays(name, split)
            _check_values(name, split, len(self.classes))
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise ValueError(
                    f"the {name} split's images have shape {split.images.shape[1:]}, the train split's {self.train.images.shape[1:]}: "
                    "give all splits images of one shape"
                )


def split(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    held_out: int,
    classes: tuple[str, ...],
) -> Dataset:
    """The Dataset in published arrays (uint8 pixels, integer labels): the validation split is the last `held_out` training images."""
    kept = len(train_images) - held_out
    if not 0 < kept < len(train_images):
        raise ValueError(
            f"{held_out} of {len(train_images)} training images cannot be held out for validation: "
            "hold out at least one, and leave at least one to train on"
        )
    images, labels = scale(train_images), train_labels.astype(np.int64)
    return Dataset(
        train=Split(images[:kept], labels[:kept]),
        validation=Split(images[kept:], labels[kept:]),
        test=Split(scale(test_images), test_labels.astype(np.int64)),
        classes=classes,
    )


def scale(pixels: np.ndarray) -> np.ndarray:
    """Bytes to contiguous float32 numbers from -1 to 127/128: (p - 128) / 128.

    So a pixel is exactly the fixed-point number of 8 bits, 7 of them after the point, whose integer is p - 128: nothing is rounded
    on the way from the image to the integer model and the chip. A mean and a standard deviation, of each channel too, would lose that; nets
    learn as well, for batch-norm behind a first layer takes out what they would.
    """
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels of type {pixels.dtype} cannot be scaled, expected uint8: give the bytes of the images")
    centred = np.subtract(pixels, 128, dtype=np.float32, order="C")
    return np.divide(centred, 128, out=centred)


def _check_arrays(name: str, split: Split) -> None:
    """Refuse arrays that are no images with one label each."""
    images, labels = split.images, split.labels
    if not len(images):
        raise ValueError(f"the {name} split is empty: give it at least one image")
    if labels.shape != (len(images),):
        raise ValueError(f"the {name} split has {len(images)} images and labels of shape {labels.shape}: give each image one label")
    if images.dtype != np.float32 or labels.dtype != np.int64:
        raise ValueError(
            f"the {name} split has {images.dtype} images and {labels.dtype} labels, expected float32 and int64: "
            "convert them first (bayestt.data.dataset.scale turns bytes into float32)"
        )


def _check_values(name: str, split: Split, classes: int) -> None:
    """Refuse the first pixel that is no number and the first label that names no class."""
    odd = np.flatnonzero(~np.isfinite(split.images).reshape(len(split.images), -1).all(axis=1))
    if odd.size:
        raise ValueError(f"the {name} split's image {odd[0]} holds NaN or infinity, expected finite pixels: repair it or leave it out")
    foreign = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if foreign.size:
        raise ValueError(
            f"the {name} split's image {foreign[0]} has label {split.labels[foreign[0]]}, expected 0 to {classes - 1}: "
            f"relabel it, or list more than {classes} classes"
        )
