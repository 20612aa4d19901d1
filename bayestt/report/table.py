"""Tables for people: aligned text that is also Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import mean, stdev

NOTHING = "–"
"""Stands for a figure that was not recorded."""


@dataclass(frozen=True)
class Model:
    """One row of the results: a network by name, its test accuracy (0 to 1), all its parameters, and the bits they take.

    Its negative log-likelihood (nats) and expected calibration error (0 to 1) on test are None where they were not recorded.
    """

    name: str
    accuracy: float
    parameters: int
    bits: int
    nll: float | None = None
    ece: float | None = None


@dataclass(frozen=True)
class Experiment:
    """Runs of one configuration that differ in their seeds alone: for every seed the run's models, the dense one first, and its commits."""

    name: str
    seeds: tuple[int, ...]
    runs: tuple[tuple[Model, ...], ...]
    commits: tuple[tuple[str, ...], ...]

    @property
    def nets(self) -> dict[str, tuple[Model, ...]]:
        """By name the models that every run has, one of each run."""
        by_name = [{model.name: model for model in run} for run in self.runs]
        return {name: tuple(run[name] for run in by_name) for name in by_name[0] if all(name in run for run in by_name)}


def models(rows: Sequence[Model]) -> str:
    """The results of one run; compression divides the first row's parameters, and its bits, by each row's."""
    first = rows[0]
    cells = [
        (
            row.name,
            percent([row.accuracy]),
            spread([row.nll]),
            percent([row.ece]),
            f"{row.parameters:,}",
            f"{row.bits:,}",
            f"{first.parameters / row.parameters:.1f}x",
            f"{first.bits / row.bits:.1f}x",
        )
        for row in rows
    ]
    return table(("model", "test accuracy", "NLL", "ECE", "parameters", "bits", "fewer parameters", "fewer bits"), cells)


def experiments(found: Sequence[Experiment]) -> str:
    """The results over seeds, a row for every net of every experiment: mean ± standard deviation; compression divides means."""
    cells = []
    for experiment in found:
        dense, *_ = experiment.nets.values()
        for name, nets in experiment.nets.items():
            parameters, bits = mean(net.parameters for net in nets), mean(net.bits for net in nets)
            cells.append(
                (
                    experiment.name,
                    name,
                    percent([net.accuracy for net in nets]),
                    spread([net.nll for net in nets]),
                    percent([net.ece for net in nets]),
                    f"{parameters:,.0f}",
                    f"{mean(net.parameters for net in dense) / parameters:.1f}x",
                    f"{mean(net.bits for net in dense) / bits:.1f}x",
                    _span(experiment.seeds),
                    ", ".join(sorted({commit for commits in experiment.commits for commit in commits})),
                )
            )
    head = ("experiment", "net", "test accuracy", "NLL", "ECE", "parameters", "fewer parameters", "fewer bits", "seeds", "commit")
    return table(head, cells)


def differences(found: Sequence[Experiment], against: str) -> str:
    """What every other net has over the one named `against`, seed by seed: mean ± standard error over seeds, of accuracy and of NLL."""
    cells = []
    for experiment in found:
        nets = dict(experiment.nets)
        base = nets.pop(against)
        for name, others in nets.items():
            pairs = list(zip(others, base, strict=True))
            accuracy = [100 * (other.accuracy - own.accuracy) for other, own in pairs]
            nll = [None if None in (other.nll, own.nll) else other.nll - own.nll for other, own in pairs]
            cells.append((experiment.name, name, _error(accuracy, 2), _error(nll, 4), _span(experiment.seeds)))
    return table(("experiment", f"net, less {against}", "test accuracy, points", "NLL", "seeds"), cells)


def percent(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation of parts (0 to 1), in percent."""
    return NOTHING if None in values else f"{spread([100 * value for value in values], 2)} %"


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Mean ± standard deviation; of a single value only itself."""
    if None in values:
        return NOTHING
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def _error(values: Sequence[float | None], digits: int) -> str:
    """Mean ± standard error, signed; of a single value only itself."""
    if None in values:
        return NOTHING
    return f"{mean(values):+.{digits}f}" + (f" ± {stdev(values) / sqrt(len(values)):.{digits}f}" if len(values) > 1 else "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])], *rows]
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]) + " |"
        for line in lines
    )


def _span(seeds: Sequence[int]) -> str:
    """`0-4` for seeds without a gap, else all of them."""
    ordered = sorted(seeds)
    whole = len(ordered) > 1 and all(after - before == 1 for before, after in pairwise(ordered))
    return f"{ordered[0]}-{ordered[-1]}" if whole else ", ".join(map(str, ordered))
