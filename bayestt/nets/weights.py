"""A network's weights in one file, without pickle; a pruned network's too."""

from pathlib import Path
from textwrap import shorten

import torch
from torch import nn

from bayestt.artifact import read_arrays, write_arrays

KIND = "weights"


def save(net: nn.Module, path: str | Path) -> None:
    """Write all parameters and buffers by name; what was there before stays until the new file is complete."""
    write_arrays(path, KIND, {}, {name: tensor.cpu().numpy() for name, tensor in net.state_dict().items()})


def load(net: nn.Module, path: str | Path) -> nn.Module:
    """The same network with the weights of a file; tensorized layers take the file's ranks. A file of another network is refused."""
    _, arrays = read_arrays(path, KIND)
    try:
        net.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    except RuntimeError as fault:
        why = shorten(str(fault), 300, placeholder=" ...")
        raise ValueError(f"{path} holds the weights of another network ({why}): build the network that it was saved from") from fault
    return net
