"""Layers whose weight is a factorization, and their place in a network."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import sqrt

import torch
from torch import Tensor, nn

from bayestt.algebra.einsum import numbered, sizes
from bayestt.algebra.factorization import Factorization
from bayestt.algebra.formats import Form, decompose, initial
from bayestt.nets import contract


def tensorize(net: nn.Module, forms: Mapping[str, Form | Factorization], recompute: bool = False) -> nn.Module:
    """A copy of a network whose matching linear layers are tensorized and freshly initialised: `tensorize(net, {"fc*": Form("cp", 8)})`.

    Layers are matched by their dotted names; where two globs match one layer, the first decides. `recompute` as in TensorizedLinear.
    """
    names = [name for name, _ in net.named_modules() if name]
    chosen: dict[str, Form | Factorization] = {}
    for glob, form in forms.items():
        matched = [name for name in names if fnmatchcase(name, glob)]
        if not matched:
            near = get_close_matches(glob, names, n=3, cutoff=0)
            raise ValueError(f"no layer matches {glob!r}: the nearest names are {', '.join(near) or 'none, for the network has no layers'}")
        chosen = {name: form for name in matched} | chosen
    smaller = deepcopy(net)
    for name, form in chosen.items():
        linear = smaller.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"layer {name!r} is a {type(linear).__name__}, expected a Linear: give globs that match linear layers only")
        if isinstance(form, Form):
            form = form.factorization(linear.out_features, linear.in_features)
        _check_size(name, form, linear)
        smaller.set_submodule(name, TensorizedLinear(form, bias=linear.bias is not None, recompute=recompute).to(linear.weight))
    return smaller


class TensorizedLinear(nn.Module):
    """A linear layer whose weight is the product of the parameters `core0`, `core1`, ...: (n, cols) -> (n, rows).

    Its dense weight starts with the standard deviation of nn.Linear's, 1 / sqrt(3 * cols), its bias as nn.Linear's.
    With `recompute` a training step keeps nothing but x between its forward and its backward pass, which multiplies the cores again: less
    memory, more time, the same numbers.
    """

    def __init__(self, form: Factorization, bias: bool = True, recompute: bool = False) -> None:
        super().__init__()
        self.form, self.recompute = form, recompute
        rows, cols = form.shape
        seed = int(torch.randint(2**31, ()))
        for k, core in enumerate(initial(form, 1 / sqrt(3 * cols), seed)):
            self.register_parameter(f"core{k}", nn.Parameter(torch.tensor(core, dtype=torch.get_default_dtype())))
        self.bias = nn.Parameter(torch.empty(rows).uniform_(-1 / sqrt(cols), 1 / sqrt(cols))) if bias else None

    @property
    def cores(self) -> tuple[Tensor, ...]:
        """The factors of the weight, in the order of `form.cores`."""
        return tuple(getattr(self, f"core{k}") for k in range(len(self.form.cores)))

    def forward(self, x: Tensor) -> Tensor:
        cores = self.cores
        gradients = contract.needed(x, cores)
        product = contract.plan(self.form, len(x), x.device, x.dtype, gradients)
        if self.recompute and gradients != "none":
            product = contract.recomputed(product)
        y = product(x, cores)
        return y if self.bias is None else y + self.bias

    def dense(self) -> Tensor:
        """The weight (rows, cols) that the cores stand for."""
        return torch.einsum(*numbered(self.cores, self.form.cores, self.form.rows + self.form.cols)).reshape(self.form.shape)

    def extra_repr(self) -> str:
        ranks = " ".join(f"{axis}={self.form.size[axis]}" for axis in self.form.ranks)
        return f"in_features={self.form.shape[1]}, out_features={self.form.shape[0]}, ranks {ranks}, bias={self.bias is not None}"

    @classmethod
    def from_linear(cls, linear: nn.Linear, form: Factorization) -> "TensorizedLinear":
        """The layer of a given form that comes nearest to a dense one; they share no memory."""
        _check_size("the given one", form, linear)
        layer = cls(form, bias=linear.bias is not None).to(linear.weight)
        with torch.no_grad():
            for core, values in zip(layer.cores, decompose(linear.weight.detach().cpu().numpy(), form), strict=True):
                core.copy_(torch.from_numpy(values))
            if layer.bias is not None:
                layer.bias.copy_(linear.bias)
        return layer

    def _load_from_state_dict(self, state_dict: dict, prefix: str, metadata: dict, strict: bool, *found: list) -> None:
        """Take the ranks of the cores in the file first, so that a pruned network loads into one that was not pruned."""
        keys = [f"{prefix}core{k}" for k in range(len(self.form.cores))]
        if all(key in state_dict for key in keys):
            form = self._form_of([state_dict[key].shape for key in keys])
            if form is not None and form != self.form:
                for k, core in enumerate(self.cores):
                    setattr(self, f"core{k}", nn.Parameter(core.new_empty(form.shapes[k]), core.requires_grad))
                self.form = form
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *found)

    def _form_of(self, shapes: list[torch.Size]) -> Factorization | None:
        """This layer's form at the ranks of cores of these shapes; None where they are no cores of this layer."""
        try:
            size = sizes(self.form.cores, shapes)
        except ValueError:
            return None
        fits = all(size[axis] == extent for axis, extent in self.form.size.items() if axis not in self.form.ranks)
        return replace(self.form, size=size) if fits else None


def _check_size(name: str, form: Factorization, linear: nn.Linear) -> None:
    if form.shape != (linear.out_features, linear.in_features):
        rows, cols = ("*".join(str(form.size[axis]) for axis in axes) for axes in (form.rows, form.cols))
        raise ValueError(
            f"layer {name!r} has {linear.out_features} rows and {linear.in_features} columns and the form {rows} = {form.shape[0]} rows "
            f"and {cols} = {form.shape[1]} columns: give modes that multiply to the layer's"
        )
