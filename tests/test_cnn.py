"""Convolutional networks: their shapes, their size, and what makes none."""

import pytest
import torch
from torch import fx

from bayestt.nets.cnn import cnn, six_layers


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


def test_six_layers_leave_1024_features() -> None:
    net, sides = six_layers(), []
    for name in ("conv1", "conv2", "pool2", "conv3", "conv4", "pool4", "flatten"):
        net.get_submodule(name).register_forward_hook(lambda layer, given, made: sides.append(tuple(made.shape[1:])))
    x = torch.randn(2, 3, 32, 32)
    assert net(x).shape == (2, 10)
    assert sides == [(128, 32, 32), (256, 30, 30), (256, 14, 14), (256, 12, 12), (256, 10, 10), (256, 2, 2), (1024,)]
    assert torch.equal(fx.symbolic_trace(net.eval())(x), net(x))


def test_the_dense_twin_of_six_layers_has_the_published_size() -> None:
    """1,569,418, in which Keras counts the running means and variances."""
    twin = six_layers((128, 128, 256, 256))
    statistics = [values for name, values in twin.named_buffers() if "running" in name]
    assert sum(values.numel() for values in (*twin.parameters(), *statistics)) == 1_569_418
    assert sum(weight.numel() for weight in six_layers().parameters()) == 2_010_634


@pytest.mark.parametrize("wrong", [{"widths": (4, 4, 4)}, {"widths": (4, 4, 0, 4)}, {"classes": 0}])
def test_what_makes_no_six_layers_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="give four numbers of channels"):
        six_layers(**wrong)
