"""The only door out of torch: from a trained network to a Graph."""

from collections.abc import Callable

import torch
from torch import fx, nn

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
    drawing = _Drawing(dict(zip(IMAGE_AXES[len(shape)], shape, strict=True)))
    traced = _Tracer().trace(net)
    for node in traced.nodes:
        drawing.take(node, net)
    return verify(Graph(tuple(drawing.ops), drawing.size, drawing.consts))


class _Tracer(fx.Tracer):
    """Sees every layer of torch and every tensorized layer as one piece."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return isinstance(module, TensorizedLinear) or super().is_leaf_module(module, path)


class _Drawing:
    """A graph while it is being drawn, node by node."""

    def __init__(self, size: dict[str, int]) -> None:
        self.ops = [Op("x", "INPUT", ("n", *size))]
        self.size = size
        self.consts: dict = {}
        self._made: dict[fx.Node, Op] = {}

    def take(self, node: fx.Node, net: nn.Module) -> None:
        """Draw one node of the traced forward."""
        match node.op:
            case "placeholder" if not self._made:
                self._made[node] = self.ops[0]
            case "call_module":
                layer = net.get_submodule(node.target)
                self._made[node] = self._draw(type(layer), node.target, layer, self._made[node.args[0]])
            case "call_function" | "call_method":
                self._made[node] = self._draw(node.target, node.name, node, self._made[node.args[0]])
            case "output":
                if self._made.get(node.args[0]) is not self.ops[-1]:
                    raise ValueError("the network returns something else than its last layer's scores: return one tensor")
            case _:
                raise ValueError(f"{node.op} {node.target!r} cannot be traced: pass the images as the only argument")

    def _draw(self, what: object, path: str, layer: object, x: Op) -> Op:
        """The op that a layer or a function makes of x."""
        if what in _SHAPE_ONLY:
            return x
        if what in _RECTIFIERS:
            return self._add(Op(path, "RELU", x.axes, (x.name,)))
        if what in _WEIGHTS:
            return self._linear(path, layer, x, *_WEIGHTS[what](layer))
        raise ValueError(f"{path}: {getattr(what, '__name__', what)} has no counterpart in a Graph: use linear layers, ReLU and flatten")

    def _linear(self, path: str, layer: nn.Module, x: Op, cores: list[torch.Tensor], axes: list[Axes], rows: Axes, cols: Axes) -> Op:
        """A layer as a view of x under the column axes, the contraction with all cores, and the bias."""

        def own(names: Axes) -> Axes:
            return tuple(f"{path}.{name}" for name in names)

        for core, names in zip(cores, axes, strict=True):
            self.size |= dict(zip(own(names), core.shape, strict=True))
        view = self._add(Op(f"{path}.x", "VIEW", ("n", *own(cols)), (x.name,)))
        constants = [self._constant(f"{path}.core{k}", own(names), core) for k, (core, names) in enumerate(zip(cores, axes, strict=True))]
        made = self._add(Op(f"{path}.product" if layer.bias is not None else path, "CONTRACT", ("n", *own(rows)), (view.name, *constants)))
        if layer.bias is None:
            return made
        bias = self._constant(f"{path}.bias", own(rows), layer.bias.reshape([self.size[axis] for axis in own(rows)]))
        return self._add(Op(path, "ADD", made.axes, (made.name, bias)))

    def _constant(self, name: str, axes: Axes, array: torch.Tensor) -> str:
        self.consts[name] = array.detach().cpu().double().numpy()
        return self._add(Op(name, "CONST", axes)).name

    def _add(self, op: Op) -> Op:
        self.ops.append(op)
        return op


_SHAPE_ONLY = (nn.Flatten, nn.Identity, nn.Dropout, torch.flatten, "flatten")
_RECTIFIERS = (nn.ReLU, torch.relu, nn.functional.relu, "relu")
_WEIGHTS: dict[object, Callable] = {
    nn.Linear: lambda layer: ([layer.weight], [("i1", "j1")], ("i1",), ("j1",)),
    TensorizedLinear: lambda layer: (list(layer.cores), list(layer.form.cores), layer.form.rows, layer.form.cols),
}
