"""How to multiply by a factorized weight: the quickest of a few contractions, measured once and remembered on disk."""

import json
import os
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import combinations
from math import prod
from pathlib import Path
from statistics import median
from time import perf_counter

import pooch
import torch
from filelock import FileLock
from torch import Tensor

from bayestt.algebra.einsum import Axes, order
from bayestt.algebra.factorization import Factorization

Contraction = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""From x (n, cols) and the cores of a form to (n, rows): equal to `x @ dense(form, cores).T`."""

Cores = tuple[int, ...]
"""Numbers of some of a form's cores, from 0."""

HALVINGS = 3
"""How many of the halvings with the least estimated work are measured."""
WARM_UPS, FEWEST, MOST, BUDGET_S = 2, 3, 9, 0.5
"""Rounds of a measurement that do not count; fewest and most that do; no new one starts after so long."""


def plan(form: Factorization, batch: int, device: torch.device, dtype: torch.dtype) -> Contraction:
    """The quickest way, forward and backward, to multiply `batch` rows by weights of this form: `plan(form, n, device, dtype)(x, cores)`.

    Measured at the first call for a form, device, dtype, number of threads and power of two of rows. The choice is kept in the user's cache
    folder: every process on the machine makes the same, and a resumed training computes the same bytes as one never interrupted.
    """
    return _chosen(form, 1 << max(batch - 1, 0).bit_length(), torch.device(device), dtype, torch.get_num_threads())


def candidates(form: Factorization, batch: int) -> dict[str, Contraction]:
    """The contractions worth measuring: the weight rebuilt from its cores, and the halvings with the least estimated work."""
    halvings = sorted(_halvings(form), key=lambda halves: _work(form, *halves, batch))[:HALVINGS]
    return {"rebuild": _rebuild(form), **{_named(*halves): _halved(form, *halves) for halves in halvings}}


@cache
def _chosen(form: Factorization, batch: int, device: torch.device, dtype: torch.dtype, threads: int) -> Contraction:
    contractions = candidates(form, batch)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    cores = " ".join("*".join(f"{axis}={form.size[axis]}" for axis in axes) for axes in form.cores)
    weight = f"{' '.join(form.rows)} x {' '.join(form.cols)}"
    key = f"{cores} -> {weight}, batch {batch}, {dtype}, {threads} threads, {device.type} {machine}, torch {torch.__version__}"
    name = _remembered().get(key)
    if name not in contractions:
        # A thread of its own has none of the caller's torch.func transforms, grad mode or autocast.
        with ThreadPoolExecutor(1) as thread:
            name = thread.submit(_quickest, form, contractions, batch, device, dtype).result()
        name = _remember(key, name, contractions)
    return contractions[name]


def _rebuild(form: Factorization) -> Contraction:
    """Merge all cores to the weight, then multiply by it."""
    merge = _merge(form, tuple(range(len(form.cores))), form.rows + form.cols)
    return lambda x, cores: torch.nn.functional.linear(x, merge(cores).reshape(form.shape))


def _halved(form: Factorization, first: Cores, second: Cores) -> Contraction:
    """Merge some cores to one half and the others to another, multiply by the first, then by the second."""
    size = form.size
    (cols1, rows1, _), (cols2, rows2, bond) = _half_axes(form, first, second), _half_axes(form, second, first)
    merge1, merge2 = _merge(form, first, cols1 + rows1 + bond), _merge(form, second, bond + cols2 + rows2)
    to_cols1 = _permutation(("n", *form.cols), ("n", *cols2, *cols1))
    to_cols2 = _permutation(("n", *cols2, *rows1, *bond), ("n", *rows1, *bond, *cols2))
    to_rows = _permutation(("n", *rows1, *rows2), ("n", *form.rows))
    cols, between, rows = ([size[axis] for axis in axes] for axes in (form.cols, cols2 + rows1 + bond, rows1 + rows2))
    sum1, sum2 = prod(size[axis] for axis in cols1), prod(size[axis] for axis in bond + cols2)
    kept1, kept2 = prod(size[axis] for axis in rows1 + bond), prod(size[axis] for axis in rows2)

    def contraction(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
        n = len(x)
        x = x.reshape(n, *cols).permute(to_cols1).reshape(n * prod(cols) // sum1, sum1)
        x = x @ merge1(cores).reshape(sum1, kept1)
        x = x.reshape(n, *between).permute(to_cols2).reshape(n * prod(rows) // kept2, sum2)
        x = x @ merge2(cores).reshape(sum2, kept2)
        return x.reshape(n, *rows).permute(to_rows).reshape(n, prod(rows))

    return contraction


def _merge(form: Factorization, chosen: Cores, out: Axes) -> Callable[[Sequence[Tensor]], Tensor]:
    """The function from all cores to the chosen ones' product, by the cheapest steps."""
    letter = {axis: chr(ord("A") + k) for k, axis in enumerate(form.size)}
    axes = [form.cores[core] for core in chosen]
    steps = order(axes, out, form.size)
    axes += [kept for _, _, kept in steps]
    letters = ["".join(letter[axis] for axis in names) for names in axes]
    whole = "".join(letter[axis] for axis in out)
    spelled = [(pair, f"{letters[pair[0]]},{letters[pair[1]]}->{letters[len(chosen) + at]}") for at, (*pair, _) in enumerate(steps)]
    spelled = spelled or [((0,), f"{letters[0]}->{whole}")]

    def merge(cores: Sequence[Tensor]) -> Tensor:
        known = [cores[core] for core in chosen]
        for operands, equation in spelled:
            known.append(torch.einsum(equation, *(known[operand] for operand in operands)))
        return known[-1]

    return merge


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


def _named(first: Cores, second: Cores) -> str:
    return f"cores {' '.join(map(str, first))} then {' '.join(map(str, second))}"


def _permutation(axes: Axes, wanted: Axes) -> tuple[int, ...]:
    return tuple(axes.index(axis) for axis in wanted)


def _quickest(form: Factorization, contractions: dict[str, Contraction], batch: int, device: torch.device, dtype: torch.dtype) -> str:
    """The contraction with the least median time, forward and backward, on tensors of its own; all take turns."""
    x = torch.ones(batch, form.shape[1], device=device, dtype=dtype, requires_grad=True)
    cores = [torch.full(shape, 0.1, device=device, dtype=dtype, requires_grad=True) for shape in form.shapes]
    upstream = torch.ones(batch, form.shape[0], device=device, dtype=dtype)
    rounds: list[dict[str, float]] = []
    end = perf_counter() + BUDGET_S
    while len(rounds) < WARM_UPS + FEWEST or len(rounds) < WARM_UPS + MOST and perf_counter() < end:
        rounds.append({})
        for name, contraction in contractions.items():
            start = perf_counter()
            torch.autograd.grad(contraction(x, cores), [x, *cores], upstream)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            rounds[-1][name] = perf_counter() - start
    return min(contractions, key=lambda name: median(seconds[name] for seconds in rounds[WARM_UPS:]))


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
