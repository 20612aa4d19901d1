"""Pictures for people: each function returns a matplotlib figure, `figure.savefig(path)` writes it."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayestt.report.table import Model


def ranks_over_epochs(ranks: Mapping[str, Sequence[int]]) -> Figure:
    """How many ranks of every bond still carry something, epoch by epoch: bond -> ranks."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    shades = _shades(len(ranks))
    for (bond, values), shade in zip(ranks.items(), shades, strict=True):
        axes.step(range(1, len(values) + 1), values, where="mid", label=bond, color=shade, linewidth=2)
    axes.set(xlabel="epoch", ylabel="ranks that carry something", ylim=(0, None), title="Ranks that prune themselves")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(title="bond", frameon=False)
    return _plain(figure)


def accuracy_against_parameters(rows: Sequence[Model]) -> Figure:
    """Test accuracy of every model against its parameters (logarithmic)."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for row, shade in zip(rows, _shades(len(rows)), strict=True):
        axes.scatter(row.parameters, 100 * row.accuracy, s=60, color=shade, zorder=2)
        axes.annotate(row.name, (row.parameters, 100 * row.accuracy), xytext=(6, 6), textcoords="offset points")
    axes.set(xscale="log", xlabel="parameters, all counted", ylabel="test accuracy (%)", title="What compression costs")
    axes.margins(x=0.2, y=0.25)
    axes.grid(alpha=0.3)
    return _plain(figure)


def cycles_per_nest(names: Sequence[str], cycles: Sequence[int], busy: Sequence[float]) -> Figure:
    """Cycles that each step of a batch takes on the datapath, and the part of them in which multipliers work (0 to 1)."""
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    places = range(len(names))
    axes.barh(places, cycles, color="#c6d4e6", label="cycles")
    axes.barh(places, [total * part for total, part in zip(cycles, busy, strict=True)], color="#2b6cb0", label="of these, multiplying")
    for place, (total, part) in enumerate(zip(cycles, busy, strict=True)):
        axes.annotate(f"{total:,}  ({100 * part:.0f} %)", (total, place), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set(xlabel="cycles per batch", title="Where the datapath's time goes")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return _plain(figure)


def _shades(count: int) -> list[str]:
    """Colours that stay apart for eight lines, also in grey."""
    palette = ["#1b3a5c", "#d1495b", "#2e8b57", "#edae49", "#6b4e9b", "#3fa7d6", "#8c564b", "#7f7f7f"]
    return [palette[k % len(palette)] for k in range(count)]


def _plain(figure: Figure) -> Figure:
    """The figure without the box around its axes."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure
