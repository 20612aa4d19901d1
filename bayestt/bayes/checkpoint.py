"""The state of a training in one file, from which it goes on as if it had never stopped."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bayestt.artifact import read_arrays, write_arrays
from bayestt.bayes.posterior import Epoch

KIND = "training"


def save(
    path: Path, identity: Mapping[str, Any], guide: nn.Module, net: nn.Module, optimizer: torch.optim.Optimizer, history: Sequence[Epoch]
) -> None:
    """Write the guide, the net's buffers, the optimiser's state and the epochs so far; the old file stays until the new one is whole.

    `identity` tells this training from others, in JSON's types.
    """
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in _tensors(guide, net, optimizer).items()}
    write_arrays(path, KIND, {"identity": dict(identity), "history": [asdict(epoch) for epoch in history]}, arrays)


def resume(path: Path, identity: Mapping[str, Any], guide: nn.Module, net: nn.Module, optimizer: torch.optim.Optimizer) -> list[Epoch]:
    """Put everything back as `save` found it and return the epochs so far; the file of another training is refused."""
    header, arrays = read_arrays(path, KIND)
    there = header["identity"]
    if differing := [f"{name} {there.get(name)} there and {here} here" for name, here in identity.items() if there.get(name) != here]:
        raise ValueError(f"{path} is a checkpoint of another training ({', '.join(differing)}): delete it or give another path")
    optimizer.load_state_dict(optimizer.state_dict() | {"state": _optimizer_state(arrays)})
    for name, tensor in _tensors(guide, net, optimizer).items():
        if not name.startswith("optimizer."):
            tensor.data.copy_(torch.from_numpy(arrays[name]))
    return [Epoch(**epoch) for epoch in header["history"]]


def digest(*contents: np.ndarray | str) -> str:
    """A short mark of arrays and words."""
    mark = hashlib.sha256()
    for content in contents:
        mark.update(content.encode() if isinstance(content, str) else np.ascontiguousarray(content))
    return mark.hexdigest()[:16]


def _tensors(guide: nn.Module, net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that training changes, by name."""
    state = optimizer.state_dict()["state"]
    return {
        **{f"guide.{name}": tensor for name, tensor in guide.named_parameters()},
        **{f"net.{name}": tensor for name, tensor in net.named_buffers()},
        **{f"optimizer.{number}.{name}": tensor for number, entry in state.items() for name, tensor in entry.items()},
    }


def _optimizer_state(arrays: Mapping[str, np.ndarray]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        if name.startswith("optimizer."):
            _, number, entry = name.split(".")
            state.setdefault(int(number), {})[entry] = torch.from_numpy(array)
    return state
