"""Where tensors lie in the data memory: strides that suit writer and reader, addresses by lifetime."""

from collections.abc import Iterable, Mapping, Sequence

from bayestt.algebra.einsum import Axes

Strides = dict[str, int]


def arrange(axes: Axes, size: Mapping[str, int], wanted: Mapping[str, int]) -> Strides | None:
    """Strides of a tensor: `wanted` ones as they are, the other axes row-major outside them; None where elements would collide."""
    strides, filled = {}, 1
    for axis, stride in sorted(wanted.items(), key=lambda item: item[1]):
        if stride < filled and size[axis] > 1:
            return None
        strides[axis] = stride
        filled = max(filled, stride * size[axis])
    for axis in reversed([axis for axis in axes if axis not in wanted]):
        strides[axis] = filled
        filled *= size[axis]
    return {axis: strides[axis] for axis in axes}


def length(strides: Strides, size: Mapping[str, int]) -> int:
    """Elements from a tensor's first to its last."""
    return 1 + sum((size[axis] - 1) * stride for axis, stride in strides.items())


def allocate(lengths: Mapping[str, int], lives: Mapping[str, tuple[int, int]]) -> tuple[dict[str, int], int]:
    """Addresses of tensors, and the size of a memory that holds them: first fit, largest first, sharing where lives do not meet.

    `lives` are first and last step of each tensor; a step's results must not overlap what it reads, so lives that touch do meet.
    """
    addresses: dict[str, int] = {}
    for name in sorted(lengths, key=lambda name: (-lengths[name], lives[name])):
        first, last = lives[name]
        busy = sorted((addresses[other], lengths[other]) for other in addresses if lives[other][0] <= last and first <= lives[other][1])
        addresses[name] = _gap(busy, lengths[name])
    return addresses, max((addresses[name] + lengths[name] for name in lengths), default=0)


def squeeze(lengths: Mapping[str, int], busy: Iterable[tuple[int, int]], size: int) -> dict[str, int] | None:
    """Addresses of tensors between the busy (address, length) pairs of a memory of a size, largest first; None where they do not fit."""
    addresses: dict[str, int] = {}
    taken = sorted(busy)
    for name in sorted(lengths, key=lambda name: -lengths[name]):
        addresses[name] = _gap(taken, lengths[name])
        if addresses[name] + lengths[name] > size:
            return None
        taken = sorted([*taken, (addresses[name], lengths[name])])
    return addresses


def _gap(busy: Sequence[tuple[int, int]], length: int) -> int:
    """The lowest address with that much room between (address, length) pairs in order."""
    address = 0
    for start, taken in busy:
        if address + length <= start:
            break
        address = max(address, start + taken)
    return address
