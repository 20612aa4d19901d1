"""Residual networks: sizes from the literature, names that globs can tell apart, and a forward that can be traced."""

from fnmatch import fnmatchcase

import pytest
import torch
from torch import fx, nn

from bayestt.nets.resnet import Block, resnet

TENSORIZED = ("stage2.block*.conv?", "stage2.down.conv2", "stage3.*.conv?")
"""The globs that the docstring of `resnet` gives."""


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)])
def test_it_has_the_literatures_size(depth: int, parameters: int) -> None:
    assert sum(weight.numel() for weight in resnet(depth).parameters()) == parameters


@pytest.mark.parametrize(("channels", "side", "classes"), [(3, 32, 10), (1, 28, 4), (5, 9, 100)])
def test_images_become_scores(channels: int, side: int, classes: int) -> None:
    assert resnet(8, channels, classes)(torch.randn(2, channels, side, side)).shape == (2, classes)


@pytest.mark.parametrize(("depth", "chosen"), [(14, 7), (20, 11), (56, 35), (110, 71)])
def test_globs_pick_the_convolutions_of_32_or_more_input_channels(depth: int, chosen: int) -> None:
    convs = {name: layer for name, layer in resnet(depth).named_modules() if isinstance(layer, nn.Conv2d)}
    matched = {name for name in convs if any(fnmatchcase(name, glob) for glob in TENSORIZED)}
    assert matched == {name for name, conv in convs.items() if conv.in_channels >= 32} and len(matched) == chosen
    assert len(convs) == depth - 1 and all(glob in " ".join(resnet.__doc__.split()) for glob in TENSORIZED)


def test_shortcuts_take_every_other_pixel_and_zeros() -> None:
    x = torch.randn(2, 3, 5, 4).abs()
    for block in (Block(3, 3), Block(3, 8)):
        for conv in (block.conv1, block.conv2):
            nn.init.zeros_(conv.weight)
        y = block.eval()(x)
        if block.more:
            assert y.shape == (2, 8, 3, 2) and torch.equal(y[:, :3], x[:, :, ::2, ::2]) and not y[:, 3:].any()
        else:
            assert torch.equal(y, x)


def test_convolutions_start_as_he_draws_them() -> None:
    torch.manual_seed(0)
    for layer in resnet(20).modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels >= 16:
            assert layer.weight.std().item() == pytest.approx((2 / (9 * layer.in_channels)) ** 0.5, rel=0.05)


def test_its_forward_is_traced() -> None:
    net, x = resnet(14, channels=2).eval(), torch.randn(3, 2, 16, 16)
    assert torch.equal(fx.symbolic_trace(net)(x), net(x))


@pytest.mark.parametrize("wrong", [{"depth": 21}, {"depth": 2}, {"depth": 20, "channels": 0}, {"depth": 20, "classes": 0}])
def test_what_makes_no_net_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="give 20, 32, 44, 56, 110|give at least one of each"):
        resnet(**wrong)
