"""oneDNN's products and gradients are those of BLAS, for any strides and under torch's transforms; what it cannot do better torch does."""

from functools import partial

import pytest
import torch
from torch.func import grad, vmap

from bayestt.nets.multiply import FEWEST, multiply

LAYOUTS = {
    "rows": lambda matrix: matrix.contiguous(),
    "columns": lambda matrix: matrix.T.contiguous().T,
    "slice": lambda matrix: torch.cat([matrix, matrix], 1)[:, : matrix.shape[1]],
    "strides": lambda matrix: matrix.repeat_interleave(2, 1)[:, ::2],
    "repeated": lambda matrix: matrix[:1].expand(*matrix.shape),
}
M, K, N = 160, 200, 150
assert M * K * N > FEWEST


def matrices(*leading, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*leading, *shape, generator=generator, dtype=dtype) for shape in ((M, K), (K, N))]


def loss(product, a, b):
    return (product(a, b) / 100).sin().sum()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.detach().abs().max().item())


@pytest.mark.parametrize("of_b", LAYOUTS)
@pytest.mark.parametrize("of_a", LAYOUTS)
def test_products_and_gradients_are_those_of_blas(of_a, of_b):
    a, b = matrices()
    a, b = LAYOUTS[of_a](a).detach().requires_grad_(), LAYOUTS[of_b](b).detach().requires_grad_()
    assert "Product" in type(multiply(a, b).grad_fn).__name__
    close(multiply(a, b), a @ b)
    for one, other in zip(*(torch.autograd.grad(loss(product, a, b), (a, b)) for product in (multiply, torch.matmul)), strict=True):
        close(one, other)
    for one, other in zip(*(torch.autograd.grad(product(a, b).sum(), (a, b)) for product in (multiply, torch.matmul)), strict=True):
        close(one, other)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("learns", [0, 1])
def test_one_gradient_alone(learns, wide):
    a, b = matrices()
    a, b = (b.T, a.T) if wide else (a, b)
    leaf = (a, b)[learns].requires_grad_()
    (one,), (other,) = (torch.autograd.grad(loss(product, a, b), leaf) for product in (multiply, torch.matmul))
    close(one, other)


def test_gradients_have_gradients():
    a, b = (matrix.requires_grad_() for matrix in matrices())

    def curvature(product):
        first = torch.autograd.grad(loss(product, a, b), (a, b), create_graph=True)
        return torch.autograd.grad(sum((slope / 100).square().sum() for slope in first), (a, b))

    for one, other in zip(curvature(multiply), curvature(torch.matmul), strict=True):
        close(one, other)


@pytest.mark.parametrize("in_dims", [(0, 0), (None, 0), (0, None), (1, 2)])
def test_many_at_once(in_dims):
    given = zip(matrices(), in_dims, strict=True)
    stacks = [matrix if dim is None else torch.stack([matrix, 2 * matrix, -matrix], dim) for matrix, dim in given]
    close(vmap(multiply, in_dims)(*stacks), vmap(torch.matmul, in_dims)(*stacks))
    slopes = (vmap(grad(partial(loss, product), argnums=(0, 1)), in_dims)(*stacks) for product in (multiply, torch.matmul))
    for one, other in zip(*slopes, strict=True):
        close(one, other)


@pytest.mark.parametrize(("dtype", "rows"), [(torch.float64, M), (torch.bfloat16, M), (torch.float32, 3), (torch.float32, 0)])
def test_other_numbers_and_small_products_are_left_to_torch(dtype, rows):
    a, b = matrices(dtype=dtype)
    assert torch.equal(multiply(a[:rows], b), a[:rows] @ b)
    assert "Product" not in type(multiply(a[:rows].requires_grad_(), b).grad_fn).__name__


def test_autocast_has_its_way():
    a, b = matrices()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(multiply(a, b), a @ b)
        assert multiply(a, b).dtype == torch.bfloat16
