"""What all layers have whose weight is a factorization: its form, the parameters `core0`, `core1`, ..., and a bias or None."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor, nn

from bayestt.algebra.einsum import numbered, sizes
from bayestt.algebra.factorization import Factorization
from bayestt.algebra.formats import decompose, initial


def add_parameters(layer: nn.Module, form: Factorization, std: float, bias: bool) -> None:
    """Give a layer a form, cores whose weight varies by `std`, and a bias as torch's layers start theirs, all by torch's seed."""
    layer.form = form
    rows, cols = form.shape
    for k, core in enumerate(initial(form, std, int(torch.randint(2**31, ())))):
        layer.register_parameter(f"core{k}", nn.Parameter(torch.tensor(core, dtype=torch.get_default_dtype())))
    layer.bias = nn.Parameter(torch.empty(rows).uniform_(-1 / sqrt(cols), 1 / sqrt(cols))) if bias else None


@torch.no_grad()
def come_near(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Write into a layer's parameters the cores that come nearest to a weight (rows, cols), and a bias."""
    for k, values in enumerate(decompose(weight.detach().cpu().numpy(), layer.form)):
        getattr(layer, f"core{k}").copy_(torch.from_numpy(values))
    if bias is not None:
        layer.bias.copy_(bias)


def cores_of(layer: nn.Module) -> tuple[Tensor, ...]:
    """The factors of a layer's weight, in the order of `form.cores`."""
    return tuple(getattr(layer, f"core{k}") for k in range(len(layer.form.cores)))


def multiplied(form: Factorization, cores: Sequence[Tensor]) -> Tensor:
    """The weight (rows, cols) that cores stand for."""
    return torch.einsum(*numbered(cores, form.cores, form.rows + form.cols)).reshape(form.shape)


def ranks_of(form: Factorization) -> str:
    """The ranks, as a layer's description has them: `ranks r1=3 r2=4`."""
    return "ranks " + " ".join(f"{axis}={form.size[axis]}" for axis in form.ranks)


def take_ranks(layer: nn.Module, state_dict: Mapping[str, Tensor], prefix: str) -> None:
    """Give a layer the ranks of its cores in a file, so that a pruned network loads into one that was not pruned."""
    keys = [f"{prefix}core{k}" for k in range(len(layer.form.cores))]
    if all(key in state_dict for key in keys):
        form = _at_ranks(layer.form, [state_dict[key].shape for key in keys])
        if form is not None and form != layer.form:
            for k, core in enumerate(cores_of(layer)):
                setattr(layer, f"core{k}", nn.Parameter(core.new_empty(form.shapes[k]), core.requires_grad))
            layer.form = form


def _at_ranks(form: Factorization, shapes: Sequence[torch.Size]) -> Factorization | None:
    """A form at the ranks of cores of these shapes; None where they are no cores of this form."""
    try:
        size = sizes(form.cores, shapes)
    except ValueError:
        return None
    fits = all(size[axis] == extent for axis, extent in form.size.items() if axis not in form.ranks)
    return replace(form, size=size) if fits else None
