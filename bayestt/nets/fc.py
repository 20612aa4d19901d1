"""Fully connected networks."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def fc(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them: `fc([784, 512, 10])` has flatten, fc1, relu1, fc2; images (n, ...) -> scores (n, sizes[-1])."""
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes {list(sizes)} make no layer: give at least two, each at least 1")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for k, (cols, rows) in enumerate(pairwise(sizes), start=1):
        layers[f"fc{k}"] = nn.Linear(cols, rows)
        layers[f"relu{k}"] = nn.ReLU()
    layers.popitem()
    return nn.Sequential(layers)
