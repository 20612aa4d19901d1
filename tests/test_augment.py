"""Crop and flip: every result is a window of the padded image or its mirror, as its three numbers say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bayestt.data.augment import CropAndFlip


def by_hand(image: np.ndarray, padding: int, chance: list[float]) -> np.ndarray:
    """One image (channels, h, w)."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    above, left = (int(number * (2 * padding + 1)) for number in chance[:2])
    window = padded[:, above : above + height, left : left + width]
    return window[:, :, ::-1] if chance[2] < 0.5 else window


@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 9))
def test_it_is_a_window_or_its_mirror(padding: int, channels: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, chance = (torch.rand(*shape, generator=generator) for shape in ((6, channels, height, width), (6, 3)))
    found = CropAndFlip(padding)(images, chance)
    for image, one, made in zip(images.numpy(), chance.double().tolist(), found.numpy(), strict=True):
        assert (made == by_hand(image, padding, one)).all()


def test_grey_images_have_no_channels() -> None:
    images, chance = torch.rand(5, 7, 6), torch.rand(5, 3)
    assert torch.equal(CropAndFlip(2)(images, chance), CropAndFlip(2)(images[:, None], chance)[:, 0])


def test_all_shifts_and_both_sides_are_as_likely() -> None:
    images = torch.zeros(20_000, 1, 3, 4)
    images[:, 0, 1, 1] = 1
    spots = CropAndFlip(1)(images, torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))).mean(0)[0]
    plain = torch.tensor([[1.0, 1, 1, 0]] * 3) / 9
    torch.testing.assert_close(spots, (plain + plain.flip(1)) / 2, atol=0.01, rtol=0)


def test_colour_images_come_with_channels_last_in_memory() -> None:
    made: Tensor = CropAndFlip()(torch.rand(4, 3, 8, 8), torch.rand(4, 3))
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"images of shape \(48,\) cannot be cropped"):
        CropAndFlip()(torch.rand(2, 48), torch.rand(2, 3))
    with pytest.raises(ValueError, match="a padding of -1 pixels: give 0 or more"):
        CropAndFlip(-1)
