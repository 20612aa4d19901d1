"""A group, and how a machine's loops run over its axes."""

from collections.abc import Mapping
from dataclasses import dataclass

from bayestt.ir.group import Group
from bayestt.ir.pack import Bound
from bayestt.ir.place import Strides


@dataclass(frozen=True)
class Step:
    """A group, and the axes that the tile's lane and reduce loops run over in it."""

    group: Group
    lane: Bound
    reduce: Bound

    @property
    def inner_axes(self) -> frozenset[str]:
        """The axes inside of others that the same loop runs over: they can't be cut, or the loop's steps would not be equal."""
        return frozenset(axis for _, axes in [*self.lane, *self.reduce] for axis in axes[1:])

    def wants(self, stream: str, size: Mapping[str, int]) -> Strides:
        """The strides that the tile's loops need in the tensor x or y: where one runs over several axes, they lie row-major."""
        bound = [*self.lane, *(self.reduce if stream == "x" else ())]
        under = {window.out: window for window in self.group.window if stream == "x"}
        wants: Strides = {}
        for loop, axes in sorted(bound, key=lambda pair: getattr(pair[0], stream) is None):
            stride = getattr(loop, stream)
            if stride is None and len(axes) > 1:
                stride = max((size[axis] * outside for axis, outside in wants.items()), default=1)
            for axis in reversed(axes) if stride else ():
                window = under.get(axis)
                wants |= {window.axis: stride // window.stride} if window else {axis: stride}
                stride *= size[axis]
        return wants
