"""The only door out of torch: from a trained network to a Graph."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch
from torch import Tensor, fx, nn

from bayestt.algebra.einsum import Axes
from bayestt.ir.graph import Graph, Op, verify
from bayestt.nets.tensorize import TensorizedLinear

IMAGE_AXES: dict[int, Axes] = {1: ("x",), 2: ("h", "w"), 3: ("c", "h", "w")}


def trace(net: nn.Module, example: torch.Tensor) -> Graph:
    """The float graph of a network in eval mode, for images like those of `example` (n, ...), of which only the shape is used.

    Reads whatever plain Python the forward has, by torch.fx. An operation without a counterpart is refused with its module's path.
    """
    shape = tuple(example.shape[1:])
    if len(shape) not in IMAGE_AXES:
        raise ValueError(f"example images of shape {shape}: expected 1 to 3 axes after the batch")
    whole = net if list(net.children()) else nn.Sequential(OrderedDict(layer=net))
    nodes = _Tracer().trace(whole)
    nodes.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    ops = [Op("x", "INPUT", ("n", *IMAGE_AXES[len(shape)]))]
    size, consts = dict(zip(ops[0].axes[1:], shape, strict=True)), {}
    made: dict[fx.Node, Op] = {}
    for node in nodes.nodes:
        if node.op == "placeholder" and not made:
            made[node] = ops[0]
        elif node.op == "output":
            if made.get(node.args[0]) is not ops[-1]:
                raise ValueError("the network returns something else than its last layer's scores: return one tensor")
        else:
            drawn = _drawn(node, whole, made, {op.name for op in ops})
            ops += drawn.ops
            size |= drawn.size
            consts |= drawn.consts
            made[node] = drawn.ops[-1] if drawn.ops else made[node.all_input_nodes[0]]
    return verify(Graph(tuple(ops), size, consts))


@dataclass(frozen=True)
class _Drawn:
    """What one step of a forward adds to a graph; nothing where only the shape of images changes."""

    ops: tuple[Op, ...] = ()
    size: Mapping[str, int] = field(default_factory=dict)
    consts: Mapping[str, np.ndarray] = field(default_factory=dict)


class _Tracer(fx.Tracer):
    """Sees every layer of torch and every tensorized layer as one piece."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return isinstance(module, TensorizedLinear) or super().is_leaf_module(module, path)


def _drawn(node: fx.Node, net: nn.Module, made: Mapping[fx.Node, Op], taken: set[str]) -> _Drawn:
    """The ops of one step; a layer's second use is named after it too (`fc1`, `fc1.2`)."""
    layer = net.get_submodule(node.target) if node.op == "call_module" else None
    what = type(layer) if layer is not None else node.target
    path = node.target if layer is not None else ".".join([*list(node.meta.get("nn_module_stack", {}))[-1:], node.name])
    inputs = [made[other] for other in node.all_input_nodes if other in made]
    name = next(name for k in count(1) if (name := path if k == 1 else f"{path}.{k}") not in taken)
    if len(inputs) == len(node.all_input_nodes) == 1:
        if what in _SAME_ELEMENTS and _keeps_images_apart(node, layer):
            return _Drawn()
        if what in _RECTIFIERS:
            return _Drawn((Op(name, "RELU", inputs[0].axes, (inputs[0].name,)),))
        if what is nn.Linear:
            return _linear(name, inputs[0], [layer.weight], (("i1", "j1"),), ("i1",), ("j1",), layer.bias)
        if what is TensorizedLinear:
            return _linear(name, inputs[0], layer.cores, layer.form.cores, layer.form.rows, layer.form.cols, layer.bias)
    raise ValueError(f"{path}: {getattr(what, '__name__', what)} has no counterpart in a Graph: use linear layers, ReLU and flatten")


def _linear(name: str, x: Op, cores: Sequence[Tensor], axes: Sequence[Axes], rows: Axes, cols: Axes, bias: Tensor | None) -> _Drawn:
    """A layer as a view of x under the column axes, the contraction with all cores, and the bias."""

    def own(names: Axes) -> Axes:
        return tuple(f"{name}.{axis}" for axis in names)

    constants = {f"{name}.core{k}": (own(names), core) for k, (core, names) in enumerate(zip(cores, axes, strict=True))}
    size = {axis: extent for names, core in constants.values() for axis, extent in zip(names, core.shape, strict=True)}
    product = name if bias is None else f"{name}.product"
    ops = [
        Op(f"{name}.x", "VIEW", ("n", *own(cols)), (x.name,)),
        *(Op(constant, "CONST", names) for constant, (names, _) in constants.items()),
        Op(product, "CONTRACT", ("n", *own(rows)), (f"{name}.x", *constants)),
    ]
    if bias is not None:
        constants[f"{name}.bias"] = own(rows), bias.reshape([size[axis] for axis in own(rows)])
        ops += [Op(f"{name}.bias", "CONST", own(rows)), Op(name, "ADD", ("n", *own(rows)), (product, f"{name}.bias"))]
    return _Drawn(tuple(ops), size, {constant: array.detach().cpu().double().numpy() for constant, (_, array) in constants.items()})


def _keeps_images_apart(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a step that only changes shapes leaves the batch axis alone."""
    if isinstance(layer, nn.Flatten):
        return layer.start_dim == 1
    flattens = node.target in (torch.flatten, "flatten")
    return not flattens or (node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)) == 1


_SAME_ELEMENTS = (nn.Flatten, nn.Identity, nn.Dropout, torch.flatten, "flatten")
_RECTIFIERS = (nn.ReLU, torch.relu, nn.functional.relu, "relu")
