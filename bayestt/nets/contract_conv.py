"""How to convolve with a factorized kernel: the quickest of a few chains of convolutions, measured once and remembered on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from bayestt.algebra.factorization import Factorization
from bayestt.nets.contract import Contraction, Cores, Gradients, choose, merging

TAPS = ("kh", "kw")
"""Axes of a kernel's height and width."""


@dataclass(frozen=True)
class Window:
    """Where a kernel is laid: `stride` and `dilation` (down, across), `border` (left, right, top, bottom) in pixels, filled by `mode`."""

    stride: tuple[int, int]
    dilation: tuple[int, int]
    border: tuple[int, int, int, int]
    mode: str


def plan_conv(form: Factorization, window: Window, x: Tensor, gradients: Gradients) -> Contraction:
    """The quickest way from images like x (n, in channels, h, w) and the cores of a kernel to the convolution (n, out channels, h', w').

    As `contract.plan`, also for each height, width and memory format; under autocast measured in the dtype that it casts to.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    memory_format = torch.channels_last if x.stride(1) == 1 and not x.is_contiguous() else torch.contiguous_format
    shape = 1 << max(len(x) - 1, 0).bit_length(), *x.shape[1:]
    return _chosen(form, window, shape, memory_format, x.device, dtype, gradients, torch.get_num_threads())


def chains(form: Factorization, window: Window) -> dict[str, Contraction]:
    """The kernel rebuilt from its cores; where channels in or out have cores of their own, also one convolution each and one between."""
    every = range(len(form.cores))
    carried = [{axis for axis in core if axis not in form.ranks} for core in form.cores]
    own: list[list[Cores]] = []
    for channels in ({axis for axis in form.cols if axis not in TAPS}, {*form.rows}):
        part = tuple(k for k in every if carried[k] & channels)
        own.append([(), part] if all(carried[k] <= channels for k in part) else [()])
    ways: dict[str, Contraction] = {}
    for first, last in product(*own):
        if middle := tuple(k for k in every if k not in first + last):
            name = f"cores {', then '.join(' '.join(map(str, part)) for part in (first, middle, last) if part)}"
            if name not in ways:  # two convolutions without taps: the first one takes the strides
                ways[name] = _chain(form, window, first, middle, last)
    return ways


@cache
def _chosen(
    form: Factorization,
    window: Window,
    shape: tuple[int, int, int, int],
    memory_format: torch.memory_format,
    device: torch.device,
    dtype: torch.dtype,
    gradients: Gradients,
    threads: int,
) -> Contraction:
    what = f"images {' x '.join(map(str, shape))}, {memory_format}, {window}"
    return choose(form, chains(form, window), what, shape, device, dtype, gradients, memory_format)


def _chain(form: Factorization, window: Window, first: Cores, middle: Cores, last: Cores) -> Contraction:
    """Merge the cores of each part to a kernel and convolve with one after the other: channels in, taps, channels out.

    A rank that the first and the last part share counts groups of channels, which the middle part leaves apart.
    """
    before, between, after = ({axis for k in part for axis in form.cores[k]} for part in (first, middle, last))
    groups, into, out = (
        tuple(axis for axis in form.ranks if axis in axes) for axes in (before & after, before & between - after, between & after - before)
    )
    channels = tuple(axis for axis in form.cols if axis not in TAPS)
    into, out = into if first else channels, out if last else form.rows
    taps, kept = tuple(axis for axis in form.cols if axis in TAPS), tuple(axis for axis in groups if axis in between)
    n_groups, n_into, n_out, n_channels = (prod(form.size[axis] for axis in axes) for axes in (groups, into, out, channels))
    kernel_size = form.size.get("kh", 1), form.size.get("kw", 1)
    merge_first = merging(form, first, groups + into + channels, torch.matmul) if first else None
    merge_middle = merging(form, middle, kept + out + into + taps, torch.matmul)
    merge_last = merging(form, last, form.rows + groups + out, torch.matmul) if last else None
    grouped = [form.size[axis] if axis in kept else 1 for axis in groups]

    def contraction(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
        if merge_first:
            x = conv2d(x, merge_first(cores).reshape(n_groups * n_into, n_channels, 1, 1))
        kernel = merge_middle(cores).reshape(*grouped, n_out, n_into, *kernel_size)
        kernel = kernel.expand(*(form.size[axis] for axis in groups), -1, -1, -1, -1)
        x = _slide(x, kernel.reshape(n_groups * n_out, n_into, *kernel_size), window, n_groups)
        return conv2d(x, merge_last(cores).reshape(-1, n_groups * n_out, 1, 1)) if merge_last else x

    return contraction


def _slide(x: Tensor, kernel: Tensor, window: Window, groups: int) -> Tensor:
    left, right, top, bottom = window.border
    even = window.mode == "zeros" and left == right and top == bottom
    if not even:
        x = pad(x, window.border, "constant" if window.mode == "zeros" else window.mode)
    return conv2d(x, kernel, None, window.stride, (top, left) if even else 0, window.dilation, groups)
