"""Layers whose weight is a factorization, and their place in a network."""

from collections.abc import Mapping
from copy import deepcopy
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import sqrt

from torch import Tensor, nn

from bayestt.algebra.factorization import Factorization
from bayestt.algebra.formats import Form
from bayestt.nets import contract
from bayestt.nets.conv import TensorizedConv2d, fresh_conv
from bayestt.nets.cores import add_parameters, come_near, cores_of, multiplied, ranks_of, take_ranks


def tensorize(net: nn.Module, forms: Mapping[str, Form | Factorization], recompute: bool = False) -> nn.Module:
    """A copy of a network whose matching layers are tensorized and freshly initialised: `tensorize(net, {"fc*": Form("cp", 8)})`.

    Linear layers and convolutions are matched by their dotted names; where two globs match one layer, the first decides. A new
    kernel varies as the one it replaces does; a 1x1 kernel is a matrix. `recompute` as in TensorizedLinear.
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
        smaller.set_submodule(name, _fresh(name, smaller.get_submodule(name), form, recompute))
    return smaller


class TensorizedLinear(nn.Module):
    """A linear layer whose weight is the product of the parameters `core0`, `core1`, ...: (n, cols) -> (n, rows).

    Its dense weight starts with the standard deviation of nn.Linear's, 1 / sqrt(3 * cols), its bias as nn.Linear's.
    With `recompute` a training step keeps nothing but x between its forward and its backward pass, which multiplies the cores again: less
    memory, more time, the same numbers.
    """

    def __init__(self, form: Factorization, bias: bool = True, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        add_parameters(self, form, 1 / sqrt(3 * form.shape[1]), bias)

    @property
    def cores(self) -> tuple[Tensor, ...]:
        """The factors of the weight, in the order of `form.cores`."""
        return cores_of(self)

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
        return multiplied(self.form, self.cores)

    def extra_repr(self) -> str:
        rows, cols = self.form.shape
        return f"in_features={cols}, out_features={rows}, {ranks_of(self.form)}, bias={self.bias is not None}"

    @classmethod
    def from_linear(cls, linear: nn.Linear, form: Factorization) -> "TensorizedLinear":
        """The layer of a given form that comes nearest to a dense one; they share no memory."""
        _check_size("the given one", form, linear)
        layer = cls(form, bias=linear.bias is not None).to(linear.weight)
        come_near(layer, linear.weight, linear.bias)
        return layer

    def _load_from_state_dict(self, state_dict: dict, prefix: str, metadata: dict, strict: bool, *found: list) -> None:
        take_ranks(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *found)


Tensorized = TensorizedLinear | TensorizedConv2d


def tensorized(net: nn.Module) -> dict[str, Tensorized]:
    """By name all layers of a network whose weight is a factorization: they have a `form` and `cores`."""
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, Tensorized)}


def _fresh(name: str, layer: nn.Module, form: Form | Factorization, recompute: bool) -> Tensorized:
    """A freshly initialised layer of that form in the place of a dense one."""
    if isinstance(layer, nn.Conv2d):
        return fresh_conv(name, layer, form, recompute)
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"layer {name!r} is a {type(layer).__name__}, expected a Linear or a Conv2d: give globs that match such layers")
    if isinstance(form, Form):
        form = form.factorization(layer.out_features, layer.in_features)
    _check_size(name, form, layer)
    return TensorizedLinear(form, bias=layer.bias is not None, recompute=recompute).to(layer.weight)


def _check_size(name: str, form: Factorization, linear: nn.Linear) -> None:
    if form.shape != (linear.out_features, linear.in_features):
        rows, cols = ("*".join(str(form.size[axis]) for axis in axes) for axes in (form.rows, form.cols))
        raise ValueError(
            f"layer {name!r} has {linear.out_features} rows and {linear.in_features} columns and the form {rows} = {form.shape[0]} rows "
            f"and {cols} = {form.shape[1]} columns: give modes that multiply to the layer's"
        )
