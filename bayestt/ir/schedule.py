"""A whole network as nests in order, with everything a machine has to be given to run them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from bayestt.ir.nest import Memory, Nest, replay


@dataclass(frozen=True)
class Layout:
    """Where a tensor lies in a memory (data, external or scores): element (i, j, ...) at address + i * strides[0] + j * strides[1] + ..."""

    address: int
    axes: tuple[str, ...]
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    memory: str = "data"

    @property
    def addresses(self) -> np.ndarray:
        """The address of every element: an int64 array of shape `extents`."""
        grid = np.indices(self.extents, dtype=np.int64)
        return self.address + sum((index * stride for index, stride in zip(grid, self.strides, strict=True)), np.int64(0))


@dataclass(frozen=True)
class Schedule:
    """Nests in order, the packed constants they read, and where tensors lie; its meaning is `execute`.

    `images` of a batch run at once; `layout[input]` and `layout[output]` have the batch axis `n` first. Sizes are in elements; that of the
    data memory leaves out images that lie behind it.
    """

    nests: tuple[Nest, ...]
    layout: Mapping[str, Layout]
    images: int
    input: str
    output: str
    weights: np.ndarray
    inits: np.ndarray
    data_size: int
    score_size: int
    external_size: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image, those of copies and of a tile's padding included; loads and stores multiply nothing."""
        return sum(nest.macs for nest in self.nests if not nest.moves) // self.images

    @property
    def moved(self) -> int:
        """Elements per image that come from external memory or go there."""
        return sum(nest.macs for nest in self.nests if nest.moves) // self.images


def execute(schedule: Schedule, x: np.ndarray) -> np.ndarray:
    """Run integer images through every nest by `replay`: (n, features) -> (n, scores) int64, any n."""
    source, target = schedule.layout[schedule.input], schedule.layout[schedule.output]
    sizes = {"data": schedule.data_size, "external": schedule.external_size}
    sizes[source.memory] = max(sizes[source.memory], int(source.addresses.max()) + 1)
    scores = [np.zeros((0, prod(target.extents[1:])), np.int64)]
    for batch, count in batches(x, schedule.images):
        data, scratch, external = (np.zeros(size, np.int64) for size in (sizes["data"], schedule.score_size, sizes["external"]))
        memory = Memory(data, schedule.weights, schedule.inits, scratch, external)
        getattr(memory, source.memory)[source.addresses] = batch.reshape(source.extents)
        for nest in schedule.nests:
            replay(nest, memory)
        scores.append(memory.scores[target.addresses].reshape(schedule.images, -1)[:count])
    return np.concatenate(scores)


def batches(x: np.ndarray, images: int) -> Iterator[tuple[np.ndarray, int]]:
    """Images in groups of `images`, the last filled up with zeros: (group, how many of it are real)."""
    flat = np.asarray(x).reshape(len(x), prod(np.shape(x)[1:]))
    for first in range(0, len(flat), images):
        group = flat[first : first + images]
        yield np.pad(group, ((0, images - len(group)), (0, 0))), len(group)
