"""The only door out of torch: from a trained network to a Graph."""

import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from bayestt.algebra.factorization import Factorization
from bayestt.ir.graph import Graph, verify
from bayestt.nets import draw
from bayestt.nets.draw import IMAGE_AXES, Pair, Sheet, Value

KNOWN = "use convolutions, linear layers, batch-norm, ReLU, pooling, sums, means, slices, padding, and changes of shape"
SAME = "a Graph computes the same for every image, decide by what is known when the net is made"
BATCH = "n"
"""Stands for the number of images where a forward asks for it: `x.view(x.size(0), -1)`."""


def trace(net: nn.Module, example: Tensor) -> Graph:
    """The float graph of a network in eval mode, for images like those of `example` (n, ...), of which only the shape is used.

    Reads whatever plain Python the forward has, by torch.fx. An operation without a counterpart is refused with its module's path.
    """
    shape = tuple(example.shape[1:])
    if len(shape) not in IMAGE_AXES:
        raise ValueError(f"example images of shape {shape}: expected 1 to 3 axes after the batch")
    whole = net if list(net.children()) else nn.Sequential(OrderedDict(layer=net))
    nodes = _steps(whole)
    _check_memory(nodes, whole)
    nodes.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    sheet = Sheet()
    axes = IMAGE_AXES[len(shape)]
    sheet.size |= zip(axes, shape, strict=True)
    image = Value(sheet.add("x", "INPUT", ("n", *axes)), shape)
    made: dict[fx.Node, Any] = {}
    for node in nodes.nodes:
        if node.op == "placeholder" and not made:
            made[node] = image
        elif node.op == "output":
            scores = made.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
            if not isinstance(scores, Value) or scores.op is not sheet.ops[-1]:
                raise ValueError("the network returns something else than its last layer's scores: return one tensor")
        else:
            made[node] = _drawn(node, whole, made, sheet)
    return verify(Graph(tuple(sheet.ops), sheet.size, sheet.consts))


class _Proxy(fx.Proxy):
    """Stands for a tensor in a forward; torch's own takes `x += y` for `x = x + y`, which leaves what x was as it is."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    """Sees every layer of torch and every tensorized layer as one piece, and says where a forward can't be seen at all."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return _factorized(module) or super().is_leaf_module(module, path)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        with _followed(self.path_of_module(m)):
            return super().call_module(m, forward, args, kwargs)

    def to_bool(self, obj: fx.Proxy) -> NoReturn:
        self._refuse("branches on", obj)

    def iter(self, obj: fx.Proxy) -> NoReturn:
        self._refuse("loops over", obj)

    def _refuse(self, does: str, obj: fx.Proxy) -> NoReturn:
        path = self.scope.module_path or "the network"
        raise ValueError(f"{path}: its forward {does} its data or their shape ({obj.node.name}): {SAME}")


@contextmanager
def _followed(path: str) -> Iterator[None]:
    """Say which module's forward does what a tracer can't see: `len(x)`, `int(x.sum())`, `x[0] = 1`, a layer made on the way."""
    try:
        yield
    except (NameError, RuntimeError, TypeError) as fault:
        raise ValueError(f"{path}: its forward can't be followed ({str(fault).split('. ')[0]}): {SAME}") from fault


def _steps(net: nn.Module) -> fx.Graph:
    """The steps of a network's forward in eval mode; the network is left in the mode in which it was."""
    training = {layer: layer.training for layer in net.modules()}
    try:
        with _followed("the network"):
            return _Tracer().trace(net.eval())
    finally:
        for layer, mode in training.items():
            layer.training = mode


def _check_memory(nodes: fx.Graph, net: nn.Module) -> None:
    """Refuse a step that changes in place what a later one reads under another name: a Graph's values stay as they are."""
    order = {node: number for number, node in enumerate(nodes.nodes)}
    memory: dict[fx.Node, fx.Node] = {}
    changed: dict[fx.Node, fx.Node] = {}
    for node in nodes.nodes:
        for read in node.all_input_nodes if node.target not in ("size", getattr) else ():
            if order[read] < order[last := changed.get(memory[read], read)]:
                path = _path(last, net)
                raise ValueError(f"{path}: changes in place what is read again later: go on with what it returns, or give inplace=False")
        changes = _changes(node, net)
        shares = node.all_input_nodes and (changes or _what(node, net) in _VIEWS or node.target is operator.getitem)
        memory[node] = memory[node.all_input_nodes[0]] if shares else node
        if changes:
            changed[memory[node]] = node


def _changes(node: fx.Node, net: nn.Module) -> bool:
    """Whether a step writes its result where its first operand was."""
    if node.op == "call_module":
        return getattr(net.get_submodule(node.target), "inplace", False)
    in_place = node.kwargs.get("inplace", node.args[1:2] == (True,) and node.target is functional.relu)
    return bool(in_place) or node.target is operator.iadd or node.op == "call_method" and node.target.endswith("_")


def _what(node: fx.Node, net: nn.Module) -> Any:
    """What a step calls: a type of layer, Factorization for a tensorized one, a function, or the name of a method."""
    if node.op != "call_module":
        return node.target
    layer = net.get_submodule(node.target)
    return Factorization if _factorized(layer) else type(layer)


def _path(node: fx.Node, net: nn.Module) -> str:
    """A step's layer, or its own name behind that of the module it is in."""
    if node.op == "call_module":
        return node.target
    return ".".join([*list(node.meta.get("nn_module_stack", {}))[-1:], node.name])


def _drawn(node: fx.Node, net: nn.Module, made: Mapping[fx.Node, Any], sheet: Sheet) -> Any:
    """The value of one step, its ops drawn; what is no tensor is computed. A layer's second use is named after it too: `fc1`, `fc1.2`."""
    layer = net.get_submodule(node.target) if node.op == "call_module" else None
    path, what = _path(node, net), _what(node, net)
    if node.op in ("placeholder", "get_attr"):
        raise ValueError(f"{path}: {node.target} is read as it is: a network reads one image, and its parameters within layers")
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), made.__getitem__)
    args = (*([kwargs["input"]] if "input" in kwargs else []), *args)
    kwargs = {key: value for key, value in kwargs.items() if key != "input"}
    if not any(isinstance(made[other], Value) for other in node.all_input_nodes):
        return what(*args, **kwargs)
    taken = {op.name for op in sheet.ops}
    name = next(name for k in count(1) if (name := path if k == 1 else f"{path}.{k}") not in taken)
    drawing = _same(_VIEWS[what]) if what in _VIEWS else (_LAYERS if layer is not None else _FUNCTIONS).get(what)
    if drawing is None:
        raise ValueError(f"{path}: {getattr(what, '__name__', what)} has no counterpart in a Graph: {KNOWN}")
    try:
        return drawing(sheet, name, *([layer] if layer is not None else []), *args, **kwargs)
    except (TypeError, ValueError) as fault:
        raise ValueError(f"{path}: {fault}") from fault


def _reshaped(x: Value, *shape: int | str | Sequence[int | str]) -> Value:
    """The same elements in another shape, whose first entry is the batch, or -1 for it."""
    flat = shape if len(shape) != 1 or isinstance(shape[0], int | str) else tuple(shape[0])
    first, rest = flat[0], [*flat[1:]]
    elements, known = prod(x.shape), prod(extent for extent in rest if extent != -1)
    if not all(isinstance(extent, int) for extent in rest) or first not in (BATCH, -1) or [first, *rest].count(-1) > 1 or elements % known:
        raise ValueError(f"turns images of shape {x.shape} into {flat}: keep the batch first, x.size(0) or -1, and all elements")
    found = tuple(elements // known if extent == -1 else extent for extent in rest)
    if prod(found) != elements:
        raise ValueError(f"turns images of shape {x.shape} into {flat}: keep all {elements} elements")
    return Value(x.op, found)


def _flattened(x: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """The same elements with dimensions from `start_dim` to `end_dim` as one."""
    shape = (BATCH, *x.shape)
    start, end = range(len(shape))[start_dim], range(len(shape))[end_dim]
    if start < 1:
        raise ValueError("flatten would mix images: give start_dim=1")
    return Value(x.op, (*x.shape[: start - 1], prod(shape[start : end + 1]), *x.shape[end:]))


def _unflattened(x: Value, dim: int, sizes: Sequence[int]) -> Value:
    """The same elements with a dimension as several."""
    at = range(len(x.shape) + 1)[dim] - 1
    return _reshaped(x, BATCH, *x.shape[:at], *_reshaped(Value(x.op, x.shape[at : at + 1]), BATCH, *sizes).shape, *x.shape[at + 1 :])


def _factorized(layer: nn.Module) -> bool:
    """Whether a layer's weight is a factorization of its `cores`."""
    return isinstance(getattr(layer, "form", None), Factorization)


def _contraction(sheet: Sheet, name: str, layer: nn.Module, x: Value) -> Value:
    """A linear layer or a convolution, dense or tensorized."""
    if _factorized(layer):
        form, cores = layer.form, layer.cores
    else:
        axes = ("i1", "j1", "kh", "kw")[: layer.weight.ndim]
        form, cores = Factorization((axes,), axes[:1], axes[1:], dict(zip(axes, layer.weight.shape, strict=True))), [layer.weight]
    if hasattr(layer, "stride"):
        return draw.convolved(sheet, name, x, form, cores, layer.bias, layer)
    return draw.linear(sheet, name, x, form, cores, layer.bias)


def _largest(
    sheet: Sheet,
    name: str,
    x: Value,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if ceil_mode or return_indices:
        raise ValueError(f"pools with ceil_mode={ceil_mode}, return_indices={return_indices}: a Graph takes False for both")
    return draw.pooled(sheet, name, x, "MAX", kernel_size, stride or kernel_size, padding, dilation)


def _average(
    sheet: Sheet,
    name: str,
    x: Value,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    if ceil_mode or divisor_override or not (count_include_pad or padding in (0, (0, 0))):
        raise ValueError(
            f"pools with ceil_mode={ceil_mode}, count_include_pad={count_include_pad}, divisor_override={divisor_override}: "
            "a Graph divides by the whole window, give False, True and None"
        )
    if draw.pair(kernel_size) == x.shape[1:] and padding in (0, (0, 0)):
        return draw.mean(sheet, name, x, (1, 2), keep=True)
    return draw.pooled(sheet, name, x, "CONTRACT", kernel_size, stride or kernel_size, padding)


def _averaged_to(sheet: Sheet, name: str, x: Value, output_size: int | Sequence[int | None]) -> Value:
    sides = (output_size, output_size) if isinstance(output_size, int) else output_size
    outs = [extent if side is None else side for side, extent in zip(sides, x.shape[1:], strict=True)]
    if any(extent % out for extent, out in zip(x.shape[1:], outs, strict=True)):
        raise ValueError(f"averages images of shape {x.shape} to {tuple(outs)}: give a size that divides theirs")
    return _average(sheet, name, x, tuple(extent // out for extent, out in zip(x.shape[1:], outs, strict=True)))


def _mean(sheet: Sheet, name: str, x: Value, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Value:
    dims = () if dim is None else (dim,) if isinstance(dim, int) else dim
    places = {range(len(x.shape) + 1)[each] - 1 for each in dims}
    if not places or -1 in places:
        raise ValueError(f"takes the mean over {dim}: give dimensions of an image, and not the batch")
    return draw.mean(sheet, name, x, places, keepdim)


def _sliced(sheet: Sheet, name: str, x: Value, index: Any) -> Value:
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, slice) for part in parts) or parts[0] != slice(None) or len(parts) > len(x.shape) + 1:
        raise ValueError(f"takes [{index}] of images of shape {x.shape}: a Graph takes slices, and all images")
    return draw.sliced(sheet, name, x, parts[1:])


def _padded(sheet: Sheet, name: str, x: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    if mode != "constant" or value:
        raise ValueError(f"pads in mode {mode!r} with {value}: a Graph pads with zeros")
    ends = [*zip(pad[::2], pad[1::2], strict=True)]
    if len(ends) > len(x.shape):
        raise ValueError(f"pads {len(ends)} dimensions of images of shape {x.shape}: the batch stays as it is")
    return draw.padded(sheet, name, x, [*[(0, 0)] * (len(x.shape) - len(ends)), *reversed(ends)])


def _added(sheet: Sheet, name: str, x: Value, other: Value, alpha: float = 1) -> Value:
    if not (isinstance(x, Value) and isinstance(other, Value)) or alpha != 1:
        raise ValueError("adds a number or a multiple: a Graph adds two results of layers as they are")
    return draw.added(sheet, name, x, other)


def _shape(sheet: Sheet, name: str, x: Value, dim: int | str | None = None) -> Any:
    shape = (BATCH, *x.shape)
    if dim not in (None, "shape") and not isinstance(dim, int):
        raise ValueError(f"asks for {dim!r}: a Graph knows the shape of its images only")
    return shape[dim] if isinstance(dim, int) else shape


def _same(change: Callable[..., Value]) -> Callable[..., Value]:
    """The drawing of a step that only changes shapes: nothing."""
    return lambda sheet, name, *args, **kwargs: change(*args, **kwargs)


_VIEWS: dict[Callable | str, Callable[..., Value]] = {
    nn.Flatten: lambda layer, x: _flattened(x, layer.start_dim, layer.end_dim),
    nn.Unflatten: lambda layer, x: _unflattened(x, layer.dim, layer.unflattened_size),
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout2d), lambda layer, x: x),
    **dict.fromkeys((torch.flatten, "flatten"), _flattened),
    **dict.fromkeys((torch.unflatten, "unflatten"), _unflattened),
    **dict.fromkeys((torch.reshape, "reshape", "view"), _reshaped),
}
"""What shows the same memory, if under another shape."""
_LAYERS: dict[type, Callable[..., Value]] = {
    **dict.fromkeys((nn.Linear, nn.Conv2d, Factorization), _contraction),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), lambda sheet, name, layer, x: draw.normalized(sheet, name, x, layer)),
    nn.ReLU: lambda sheet, name, layer, x: draw.rectified(sheet, name, x),
    nn.MaxPool2d: lambda sheet, name, layer, x: _largest(
        sheet, name, x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, layer.return_indices
    ),
    nn.AvgPool2d: lambda sheet, name, layer, x: _average(
        sheet, name, x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad, layer.divisor_override
    ),
    nn.AdaptiveAvgPool2d: lambda sheet, name, layer, x: _averaged_to(sheet, name, x, layer.output_size),
    nn.ZeroPad2d: lambda sheet, name, layer, x: _padded(sheet, name, x, layer.padding),
}
_FUNCTIONS: dict[Callable | str, Callable[..., Any]] = {
    **dict.fromkeys((torch.relu, functional.relu, "relu", "relu_"), lambda sheet, name, x, inplace=False: draw.rectified(sheet, name, x)),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _added),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), _largest),
    functional.avg_pool2d: _average,
    functional.adaptive_avg_pool2d: _averaged_to,
    **dict.fromkeys((torch.mean, "mean"), _mean),
    functional.pad: _padded,
    operator.getitem: _sliced,
    **dict.fromkeys(("size", getattr), _shape),
}
