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


def six_layers(widths: Sequence[int] = (128, 256, 256, 256), classes: int = 10) -> nn.Sequential:
    """The CNN of Hawkins & Zhang (2021): images (n, 3, 32, 32) -> scores (n, classes).

    Four 3x3 convolutions, each with batch-norm and ReLU, then two linear layers with ReLU between them. `conv1` keeps the image's side, 32;
    `conv2` has no border, 30, and is followed by 3x3 max pooling of stride 2, 14; `conv3` and `conv4` have none, 12 and 10, and average
    pooling by 5 leaves 2 x 2. The authors tensorize all but `conv1` and `fc2`; their dense twin has `widths` 128, 128, 256, 256.
    """
    if len(widths) != 4 or min(*widths, classes) < 1:
        raise ValueError(f"widths {list(widths)}, {classes} classes: give four numbers of channels, and at least one everywhere")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for k, (before, after) in enumerate(zip((3, *widths), widths, strict=False), start=1):
        layers[f"conv{k}"] = nn.Conv2d(before, after, 3, padding=1 if k == 1 else 0)
        layers[f"norm{k}"] = nn.BatchNorm2d(after)
        layers[f"relu{k}"] = nn.ReLU()
        if k == 2:
            layers["pool2"] = nn.MaxPool2d(3, stride=2)
    layers["pool4"] = nn.AvgPool2d(5)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(4 * widths[3], 512)
    layers["relu"] = nn.ReLU()
    layers["fc2"] = nn.Linear(512, classes)
    return nn.Sequential(layers)
