"""Convolutional networks: their shapes, their size, and what makes none."""

import pytest
import torch

from bayestt.nets.cnn import cnn


@pytest.mark.parametrize(("channels", "side"), [((32, 64), 28), ((3,), 5), ((2, 2, 2), 8)])
def test_images_become_scores(channels: tuple[int, ...], side: int) -> None:
    assert cnn(channels, 16, 10, side)(torch.randn(4, side, side)).shape == (4, 10)


def test_the_parameters_of_a_known_net() -> None:
    parameters = sum(weight.numel() for weight in cnn((32, 64), 128, 10).parameters())
    assert parameters == 32 * 9 + 2 * 32 + 64 * 32 * 9 + 2 * 64 + 64 * 7 * 7 * 128 + 128 + 128 * 10 + 10


@pytest.mark.parametrize("wrong", [{"channels": ()}, {"channels": (4, 0)}, {"hidden": 0}, {"channels": (2, 2, 2), "side": 7}])
def test_what_makes_no_net_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="give at least one channel everywhere, and no more convolutions"):
        cnn(**{"channels": (4, 4), "hidden": 8, "classes": 10, **wrong})
