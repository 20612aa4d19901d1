"""Fully connected networks: the layers one asked for, by name."""

import pytest
import torch
from torch import nn

from bayestt.nets.fc import fc


def test_layers_have_names_and_sizes() -> None:
    net = fc([784, 512, 300, 10])
    assert [name for name, _ in net.named_children()] == ["flatten", "fc1", "relu1", "fc2", "relu2", "fc3"]
    assert [(layer.in_features, layer.out_features) for layer in net if isinstance(layer, nn.Linear)] == [(784, 512), (512, 300), (300, 10)]
    assert sum(weight.numel() for weight in fc([784, 512, 10]).parameters()) == 407_050


def test_images_become_scores() -> None:
    net, images = fc([12, 5, 3]), torch.randn(7, 3, 4)
    hidden = (images.reshape(7, 12) @ net.fc1.weight.T + net.fc1.bias).relu()
    torch.testing.assert_close(net(images), hidden @ net.fc2.weight.T + net.fc2.bias)
    assert fc([4, 2])(torch.randn(1, 4)).shape == (1, 2)


@pytest.mark.parametrize("sizes", [[], [784], [784, 0, 10]])
def test_sizes_that_make_no_layer_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="make no layer: give at least two, each at least 1"):
        fc(sizes)
