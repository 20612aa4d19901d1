"""Matrix products by oneDNN, which torch calls for narrower numbers than float32 only.

On one core of AMD's Zen 5 it computes 249 GFLOP/s where MKL, torch's BLAS, computes 115. Where MKL knows the processor it gains nothing.
"""

from typing import Any

import torch
from torch import Tensor

FEWEST = 2**22
"""Multiplications in a product for which oneDNN's longer start, about 20 us forth and back, is worth it."""


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a (m, k) @ b (k, n), by oneDNN where both are float32 on a CPU, no autocast wants less, and the product is large."""
    if a.dtype != torch.float32 or a.device.type != "cpu" or torch.is_autocast_enabled("cpu") or a.numel() * b.shape[1] < FEWEST:
        return a @ b
    return _Product.apply(a, b)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        # The operation that torch.compile's own code calls: nothing public reaches oneDNN without copies.
        dense = b if b.is_contiguous() or b.T.is_contiguous() else b.contiguous()
        return torch.ops.mkldnn._linear_pointwise(a, dense.T, None, "none", [], "")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple:
        (a, b), (of_a, of_b) = ctx.saved_tensors, ctx.needs_input_grad
        to_a = multiply(upstream, b.T) if of_a else None
        if not of_b:
            return to_a, None
        # A transposed first factor is copied: the smaller one.
        return to_a, multiply(a.T, upstream) if a.numel() < upstream.numel() else multiply(upstream.T, a).T

    @staticmethod
    def vmap(info: Any, in_dims: tuple, a: Tensor, b: Tensor) -> tuple[Tensor, int]:
        stacks = (info.batch_size * [matrix] if dim is None else matrix.unbind(dim) for matrix, dim in zip((a, b), in_dims, strict=True))
        return torch.stack([multiply(*pair) for pair in zip(*stacks, strict=True)]), 0
