"""Convolutional networks."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn


def cnn(channels: Sequence[int], hidden: int, classes: int, side: int = 28) -> nn.Sequential:
    """3x3 convolutions, each with batch-norm, ReLU and 2x2 max pooling, then two linear layers: images (n, side, side) -> (n, classes)."""
    if not channels or min(*channels, hidden, classes) < 1 or side >> len(channels) < 1:
        raise ValueError(
            f"channels {list(channels)}, hidden {hidden}, classes {classes}, side {side}: give at least one channel everywhere, and no "
            "more convolutions than times that the side can be halved"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict(channel=nn.Unflatten(1, (1, side)))
    for k, (before, after) in enumerate(zip((1, *channels), channels, strict=False), start=1):
        layers[f"conv{k}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers[f"norm{k}"] = nn.BatchNorm2d(after)
        layers[f"relu{k}"] = nn.ReLU()
        layers[f"pool{k}"] = nn.MaxPool2d(2)
    left = side >> len(channels)
    layers["flatten"] = nn.Flatten()
    layers["dropout1"] = nn.Dropout(0.3)
    layers["fc1"] = nn.Linear(channels[-1] * left * left, hidden)
    layers["relu"] = nn.ReLU()
    layers["dropout2"] = nn.Dropout(0.3)
    layers["fc2"] = nn.Linear(hidden, classes)
    return nn.Sequential(layers)
