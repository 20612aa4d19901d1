"""How to multiply by a factorized weight: the quickest of a few contractions, measured once and remembered on disk."""

import json
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import combinations
from math import prod
from pathlib import Path
from statistics import median
from sys import maxsize
from time import perf_counter
from typing import Any, Literal

import pooch
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from bayestt.algebra.einsum import Axes, order
from bayestt.algebra.factorization import Factorization
from bayestt.nets.multiply import multiply

Contraction = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""From x (n, cols) and the cores of a form to (n, rows): equal to `x @ dense(form, cores).T`."""

Cores = tuple[int, ...]
"""Numbers of some of a form's cores, from 0."""

Gradients = Literal["none", "cores", "all"]
"""What a backward pass will ask for: nothing (inference), the cores' gradients (a first layer), or the cores' and x's."""

Product = Callable[[Tensor, Tensor], Tensor]
"""From two matrices to their product."""

PRODUCTS: dict[str, Product] = {"BLAS": torch.matmul} | ({"oneDNN": multiply} if torch.backends.mkldnn.is_available() else {})
"""By the library that computes them."""
HALVINGS = 2
"""How many of the halvings with the least estimated work are measured."""
BLOCK = 2**20
"""Elements of a result between two products that stay in a processor's cache: 4 MiB of float32."""
FEWEST, MOST, BUDGET_S = 3, 31, 1.0
"""Rounds of a measurement that count, at least and at most; no new one starts after so long."""
HOPELESS = 1.5
"""A contraction whose better of two first runs takes so many times as long as another's has no third; libraries compile in the first."""


def plan(form: Factorization, batch: int, device: torch.device, dtype: torch.dtype, gradients: Gradients = "all") -> Contraction:
    """The quickest way to multiply `batch` rows by weights of this form and to go back for these gradients, as a function of x and cores.

    Measured at the first call for a form, device, dtype, number of threads and power of two of rows. The choice is kept in the user's cache
    folder: every process on the machine makes the same, and a resumed training computes the same bytes as one never interrupted.
    """
    return _chosen(form, 1 << max(batch - 1, 0).bit_length(), torch.device(device), dtype, gradients, torch.get_num_threads())


def needed(x: Tensor, cores: Sequence[Tensor]) -> Gradients:
    """The gradients that a product of x and cores will be asked for, as far as autograd knows now."""
    if not torch.is_grad_enabled():
        return "none"
    if x.requires_grad:
        return "all"
    return "cores" if any(core.requires_grad for core in cores) else "none"


def precision(x: Tensor) -> torch.dtype:
    """The dtype in which products of x are computed: its own, or what autocast casts to."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def recomputed(contraction: Contraction) -> Contraction:
    """The same product, but only x and the cores are kept for the backward pass, which computes all else again."""
    return lambda x, cores: _Recomputed.apply(contraction, x, *cores)


def candidates(
    form: Factorization, batch: int, block: int = BLOCK, libraries: Iterable[str] = tuple(PRODUCTS), halvings: int = HALVINGS
) -> dict[str, Contraction]:
    """The contractions worth measuring: by every library the weight rebuilt from its cores, and the halvings with the least estimated work.

    They compute about `block` elements of what is between two products at a time.
    """
    every = _halvings(form)
    rebuilt = min(every, key=lambda halves: _rebuild_work(form, *halves), default=None)
    halved = sorted(every, key=lambda halves: _work(form, *halves, batch))[:halvings]
    ways: dict[str, Contraction] = {}
    for library in libraries:
        product = PRODUCTS[library]
        ways[f"rebuild, {library}"] = _rebuilt(form, *rebuilt, block, product) if rebuilt else _merged(form, product)
        ways |= {f"{_named(*halves)}, {library}": _halved(form, *halves, block, product) for halves in halved}
    return ways


def choose(
    form: Factorization,
    contractions: Mapping[str, Contraction],
    what: str,
    shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    gradients: Gradients,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Contraction:
    """The quickest of these contractions on x of this shape: remembered for the form, `what` they compute and the machine, or measured."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    cores = " ".join("*".join(f"{axis}={form.size[axis]}" for axis in axes) for axes in form.cores)
    weight = f"{' '.join(form.rows)} x {' '.join(form.cols)}"
    work = f"{what}, {dtype}, gradients {gradients}, {torch.get_num_threads()} threads"
    key = f"{cores} -> {weight}, {work}, {device.type} {machine}, torch {torch.__version__}"
    name = _remembered().get(key)
    if name not in contractions:
        # A thread of its own has none of the caller's torch.func transforms, grad mode or autocast.
        with ThreadPoolExecutor(1) as thread:
            name = thread.submit(_quickest, form, contractions, shape, device, dtype, gradients, memory_format).result()
        name = _remember(key, name, contractions)
    return contractions[name]


@cache
def _chosen(form: Factorization, batch: int, device: torch.device, dtype: torch.dtype, gradients: Gradients, threads: int) -> Contraction:
    block = BLOCK if device.type == "cpu" else maxsize  # a GPU wants large products
    libraries = PRODUCTS if device.type == "cpu" and dtype == torch.float32 else ("BLAS",)
    contractions = candidates(form, batch, block, libraries)
    return choose(form, contractions, f"batch {batch}", (batch, form.shape[1]), device, dtype, gradients)


def _merged(form: Factorization, product: Product) -> Contraction:
    """Merge all cores to the weight and multiply by it."""
    merge = merging(form, tuple(range(len(form.cores))), form.rows + form.cols, product)
    return lambda x, cores: product(x, merge(cores).reshape(form.shape).T)


def _rebuilt(form: Factorization, first: Cores, second: Cores, block: int, product: Product) -> Contraction:
    """Merge some cores to one half and the others to another, both to the weight, about `block` elements at a time, and multiply by it."""
    (cols1, rows1, bond), (cols2, rows2, _) = _half_axes(form, first, second), _half_axes(form, second, first)
    merge1, merge2 = merging(form, first, rows1 + cols1 + bond, product), merging(form, second, bond + rows2 + cols2, product)
    c1, r1, c2, r2, shared = (prod(form.size[axis] for axis in axes) for axes in (cols1, rows1, cols2, rows2, bond))
    grid = rows1 + rows2 + cols1 + cols2
    sizes, to_weight = [form.size[axis] for axis in grid], _permutation(grid, form.rows + form.cols)
    at_once = max(1, block // (c1 * r2 * c2))

    def contraction(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
        half = merge2(cores).reshape(shared, r2 * c2)
        parts = merge1(cores).reshape(r1, c1 * shared).split(at_once)
        strips = [product(part.reshape(-1, shared), half).reshape(len(part), c1, r2, c2).transpose(1, 2) for part in parts]
        return product(x, torch.cat(strips).reshape(sizes).permute(to_weight).reshape(form.shape).T)

    return contraction


def _halved(form: Factorization, first: Cores, second: Cores, block: int, product: Product) -> Contraction:
    """Merge some cores to one half and the others to another; multiply by the first, then by the second, some rows of x at a time.

    Both are products of two whole matrices, and so are their gradients: for the copy between them a stack of small ones costs more.
    """
    (cols1, rows1, bond), (cols2, rows2, _) = _half_axes(form, first, second), _half_axes(form, second, first)
    c1, r1, c2, r2, shared = (prod(form.size[axis] for axis in axes) for axes in (cols1, rows1, cols2, rows2, bond))
    merge1, merge2 = merging(form, first, rows1 + bond + cols1, product), merging(form, second, bond + cols2 + rows2, product)
    to_grid = _permutation(("n", *form.cols), (*cols1, "n", *cols2))
    to_rows = _permutation(("n", *rows1, *rows2), ("n", *form.rows))
    col_sizes, row_sizes = ([form.size[axis] for axis in axes] for axes in (form.cols, rows1 + rows2))
    at_once = max(1, block // (c2 * shared * r1))

    def some_rows(x: Tensor, half1: Tensor, half2: Tensor) -> Tensor:
        n = len(x)
        x = product(half1, x.reshape(n, *col_sizes).permute(to_grid).reshape(c1, n * c2))
        x = product(x.reshape(r1 * shared, n, c2).transpose(0, 1).reshape(n * r1, shared * c2), half2)
        return x.reshape(n, *row_sizes).permute(to_rows).reshape(n, form.shape[0])

    def contraction(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
        half1, half2 = merge1(cores).reshape(r1 * shared, c1), merge2(cores).reshape(shared * c2, r2)
        if len(x) <= at_once:
            return some_rows(x, half1, half2)
        return torch.cat([some_rows(part, half1, half2) for part in x.split(at_once)])

    return contraction


class _Recomputed(torch.autograd.Function):
    """A contraction that keeps its operands alone; torch's own checkpoint does not go through torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(contraction: Contraction, x: Tensor, *cores: Tensor) -> Tensor:
        return contraction(x, cores)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.contraction, *operands = inputs
        ctx.save_for_backward(*operands)
        device = output.device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple:
        with torch.autocast(*ctx.autocast):
            _, pull = torch.func.vjp(lambda x, *cores: ctx.contraction(x, cores), *ctx.saved_tensors)
        return None, *pull(upstream)


def merging(form: Factorization, chosen: Cores, out: Axes, product: Product) -> Callable[[Sequence[Tensor]], Tensor]:
    """The function from all cores to the chosen ones' product, by the cheapest steps."""
    axes = [form.cores[core] for core in chosen]
    if len(chosen) == 1:
        alone = _einsum(form.size, axes, out)
        return lambda cores: alone(cores[chosen[0]])
    steps = order(axes, out, form.size)
    axes += [kept for _, _, kept in steps]
    joins = [(left, right, _join(form.size, axes[left], axes[right], kept, product)) for left, right, kept in steps]

    def merge(cores: Sequence[Tensor]) -> Tensor:
        known = [cores[core] for core in chosen]
        for left, right, join in joins:
            known.append(join(known[left], known[right]))
        return known[-1]

    return merge


def _join(size: Mapping[str, int], left: Axes, right: Axes, out: Axes, product: Product) -> Callable[[Tensor, Tensor], Tensor]:
    """The product of two tensors of named axes: one of matrices, or where it is none, einsum's."""
    if {*left} ^ {*right} != {*out}:
        return _einsum(size, (left, right), out)
    rows, cols = (tuple(axis for axis in axes if axis in out) for axes in (left, right))
    summed = tuple(axis for axis in left if axis in right)
    to_left, to_right, to_out = _permutation(left, rows + summed), _permutation(right, summed + cols), _permutation(rows + cols, out)
    sizes, inner = [size[axis] for axis in rows + cols], prod(size[axis] for axis in summed)

    def join(a: Tensor, b: Tensor) -> Tensor:
        matrix = product(a.permute(to_left).reshape(-1, inner), b.permute(to_right).reshape(inner, -1))
        return matrix.reshape(sizes).permute(to_out)

    return join


def _einsum(size: Mapping[str, int], axes: Sequence[Axes], out: Axes) -> Callable[..., Tensor]:
    letter = {axis: chr(ord("A") + k) for k, axis in enumerate(size)}
    *operands, whole = ("".join(letter[axis] for axis in names) for names in (*axes, out))
    return partial(torch.einsum, f"{','.join(operands)}->{whole}")


def _halvings(form: Factorization) -> list[tuple[Cores, Cores]]:
    """Every way to part the cores in two, in both orders, such that no axis of the weight is in both."""
    every = range(len(form.cores))
    firsts = [first for count in every[1:] for first in combinations(every, count)]
    halvings = [(first, tuple(core for core in every if core not in first)) for first in firsts]
    return [halves for halves in halvings if set(_half_axes(form, *halves)[2]) <= set(form.ranks)]


def _half_axes(form: Factorization, half: Cores, other: Cores) -> tuple[Axes, Axes, Axes]:
    """Columns and rows in a half, and what it shares with the other."""
    mine, others = ({axis for core in part for axis in form.cores[core]} for part in (half, other))
    cols, rows = (tuple(axis for axis in axes if axis in mine) for axes in (form.cols, form.rows))
    return cols, rows, tuple(axis for axis in form.size if axis in mine & others)


def _work(form: Factorization, first: Cores, second: Cores, batch: int) -> int:
    """Multiplications of both products, and about those of both merges: the last step of a merge sums over one rank."""
    (cols1, rows1, bond), (cols2, rows2, _) = _half_axes(form, first, second), _half_axes(form, second, first)
    c1, c2, r1, r2, shared = (prod(form.size[axis] for axis in axes) for axes in (cols1, cols2, rows1, rows2, bond))
    rank = max((form.size[axis] for axis in form.ranks), default=1)
    return shared * (batch * c2 * r1 * (c1 + r2) + rank * (c1 * r1 + c2 * r2))


def _rebuild_work(form: Factorization, first: Cores, second: Cores) -> int:
    """Multiplications to merge both halves to the weight, and about those of both merges."""
    shared = prod(form.size[axis] for axis in _half_axes(form, first, second)[2])
    return shared * prod(form.shape) + _work(form, first, second, 0)


def _named(first: Cores, second: Cores) -> str:
    return f"cores {' '.join(map(str, first))} then {' '.join(map(str, second))}"


def _permutation(axes: Axes, wanted: Axes) -> tuple[int, ...]:
    return tuple(axes.index(axis) for axis in wanted)


def _quickest(
    form: Factorization,
    contractions: Mapping[str, Contraction],
    shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    gradients: Gradients,
    memory_format: torch.memory_format,
) -> str:
    """The contraction with the least median time on tensors of its own. All take turns, after two runs of each that do not count."""
    x = torch.ones(*shape, device=device, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_(gradients == "all")
    cores = [torch.full(shape, 0.1, device=device, dtype=dtype, requires_grad=gradients != "none") for shape in form.shapes]
    leaves = [tensor for tensor in (x, *cores) if tensor.requires_grad]
    upstream = torch.ones_like(next(iter(contractions.values()))(x, cores))

    def seconds(contraction: Contraction) -> float:
        start = perf_counter()
        y = contraction(x, cores)
        if leaves:
            torch.autograd.grad(y, leaves, upstream)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        bar.update()
        return perf_counter() - start

    with tqdm(desc="measure contractions", unit="run", delay=3, leave=False) as bar:
        first = {name: min(seconds(contraction), seconds(contraction)) for name, contraction in contractions.items()}
        took: dict[str, list[float]] = {name: [] for name in first if first[name] <= HOPELESS * min(first.values())}
        end, rounds = perf_counter() + BUDGET_S, 0
        while rounds < FEWEST or rounds < MOST and perf_counter() < end:
            for name, times in took.items():
                times.append(seconds(contractions[name]))
            rounds += 1
    return min(took, key=lambda name: median(took[name]))


def _remembered() -> dict[str, str]:
    """The choices on disk; none where the file is missing or broken."""
    try:
        choices = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return {key: name for key, name in choices.items() if isinstance(name, str)} if isinstance(choices, dict) else {}


def _remember(key: str, name: str, known: Container[str]) -> str:
    """Write a choice down, unless another process was first: then its choice counts. Where nothing can be written, it holds in memory."""
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=10):
            choices = _remembered()
            name = choices[key] = choices[key] if choices.get(key) in known else name
            path.with_suffix(".draft").write_text(json.dumps(choices, indent=1, sort_keys=True))
            os.replace(path.with_suffix(".draft"), path)
    except OSError:
        pass
    return name


def _file() -> Path:
    return Path(pooch.os_cache("bayestt")) / "contract.json"
