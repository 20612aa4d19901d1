"""Pictures for people: each function returns a matplotlib figure, `figure.savefig(path)` writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter

from bayestt.report.published import Published
from bayestt.report.table import Experiment, Model

MARKERS = {"pruned": "o", "uniform": "s", "decomposed": "^"}
"""The nets that are compared over seeds, and their markers; others have the size of one of these, or of the dense net."""
FEW = 20
"""Images in a bin of which no accuracy is shown."""


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


@dataclass(frozen=True)
class Epoch:
    """What a training had reached after an epoch: accuracy (0 to 1), and how many ranks of every bond were left."""

    accuracy: float
    ranks: Mapping[str, int]


def trainings_side_by_side(trainings: Mapping[str, Sequence[Epoch]]) -> Figure:
    """Accuracy and ranks of several trainings over epochs, a column for each: name -> its epochs."""
    figure = Figure(figsize=(3 * len(trainings), 5), layout="constrained")
    upper, lower = figure.subplots(2, len(trainings), sharex=True, sharey="row", squeeze=False)
    bonds = list(dict.fromkeys(bond for epochs in trainings.values() for bond in epochs[0].ranks))
    for reached, left, (name, epochs) in zip(upper, lower, trainings.items(), strict=True):
        places = range(1, len(epochs) + 1)
        reached.plot(places, [100 * epoch.accuracy for epoch in epochs], color="black", marker="o", markersize=4, linewidth=2)
        for bond, shade in zip(bonds, _shades(len(bonds)), strict=True):
            ranks = [epoch.ranks.get(bond, np.nan) for epoch in epochs]
            left.step(places, ranks, where="mid", color=shade, linewidth=2, label=bond)
        reached.set_title(name)
        left.set(xlabel="epoch", ylim=(0, None))
        for axes in (reached, left):
            axes.grid(alpha=0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    upper[0].set_ylabel("validation accuracy (%)")
    lower[0].set_ylabel("ranks left")
    figure.legend(*lower[0].get_legend_handles_labels(), title="bond", frameon=False, loc="outside right center")
    return _plain(figure)


def accuracy_against_parameters(rows: Sequence[Model]) -> Figure:
    """Test accuracy of every model against its parameters (logarithmic)."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for row, shade in zip(rows, _shades(len(rows)), strict=True):
        axes.scatter(row.parameters, 100 * row.accuracy, s=60, color=shade, zorder=2, label=row.name)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xscale="log", xlabel="parameters, all counted", ylabel="test accuracy (%)", title="What compression costs")
    axes.margins(x=0.2, y=0.25)
    axes.grid(alpha=0.3)
    return _plain(figure)


def accuracy_over_seeds(ours: Sequence[Experiment], papers: Sequence[Published] = ()) -> Figure:
    """Test accuracy of small nets against their parameters (logarithmic), mean and standard deviation of both, beside published points.

    Those that are only remembered are hollow.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for experiment, shade in zip(ours, _shades(len(ours)), strict=True):
        for name, nets in experiment.nets.items():
            if name in MARKERS:
                sizes, reached = [net.parameters for net in nets], [100 * net.accuracy for net in nets]
                spreads = {"xerr": stdev(sizes), "yerr": stdev(reached)} if len(nets) > 1 else {}
                axes.errorbar(mean(sizes), mean(reached), **spreads, fmt=MARKERS[name], color=shade, markersize=8, elinewidth=1, capsize=3)
    stars = {False: ("published", "black"), True: ("published, as remembered", "white")}
    for number, paper in enumerate(papers):
        _, shade = stars[paper.remembered]
        axes.scatter(paper.parameters, 100 * paper.accuracy, marker="*", s=150, color=shade, edgecolor="black", zorder=3)
        aside = (8, -12 if number % 2 else 4)
        axes.annotate(paper.name, (paper.parameters, 100 * paper.accuracy), xytext=aside, textcoords="offset points")
    dense = [net for experiment in ours for net in experiment.nets["dense"]]
    for size in sorted({net.parameters for net in dense}):
        reached = 100 * mean(net.accuracy for net in dense if net.parameters == size)
        axes.axhline(reached, color="grey", linestyle="--", linewidth=1, zorder=0)
        place = {"xycoords": axes.get_yaxis_transform(), "va": "bottom", "color": "grey"}
        axes.annotate(f"dense, {size:,} parameters", (0.01, reached), **place)
    axes.set(xscale="log", xlabel="parameters, all counted", ylabel="test accuracy (%)", title="What compression costs, over seeds")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axes.xaxis.set_minor_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(axis="x", which="both", labelrotation=30)
    axes.margins(x=0.2, y=0.15)
    axes.grid(alpha=0.3, which="both")
    kinds = [name for name in MARKERS if any(name in experiment.nets for experiment in ours)]
    keys = [Line2D([], [], color=shade, linewidth=5, label=each.name) for each, shade in zip(ours, _shades(len(ours)), strict=True)]
    keys += [Line2D([], [], color="grey", linestyle="", marker=MARKERS[name], label=name) for name in kinds]
    for remembered, (label, shade) in stars.items():
        if any(paper.remembered == remembered for paper in papers):
            keys.append(Line2D([], [], color=shade, linestyle="", marker="*", markersize=12, markeredgecolor="black", label=label))
    figure.legend(handles=keys, frameon=False, loc="outside right upper")
    return _plain(figure)


def posterior_of_ranks(beliefs: Mapping[str, Mapping[int, float]], intervals: Mapping[str, tuple[int, int]]) -> Figure:
    """What is believed of every bond's rank: bond -> rank -> probability, and bond -> the ends of a credible interval, drawn below it."""
    figure = Figure(figsize=(7, 1 + 1.1 * len(beliefs)), layout="constrained")
    panels = figure.subplots(len(beliefs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (bond, belief), shade in zip(panels, beliefs.items(), _shades(len(beliefs)), strict=True):
        axes.bar(list(belief), list(belief.values()), color=shade, width=0.8)
        low, high = intervals[bond]
        axes.plot([low - 0.4, high + 0.4], [-0.12, -0.12], color=shade, linewidth=3, solid_capstyle="butt")
        label = f"{bond}: {low} to {high}" if low < high else f"{bond}: {low}"
        axes.annotate(label, (1.02, 0.5), xycoords="axes fraction", va="center")
        axes.set(ylim=(-0.2, 1.05), yticks=(0, 1))
    panels[0].set_title("What is believed of the ranks")
    panels[-1].set_xlabel("rank; the line below is its credible interval")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supylabel("probability", fontsize="medium")
    return _plain(figure)


def reliability_diagram(bins: Mapping[str, Sequence[tuple[float, float, int]]]) -> Figure:
    """How often each net is right when it is so sure: net -> for every bin of images (mean confidence, accuracy, number of images).

    Bins of fewer than FEW images have no point in the upper panel, for chance would have placed it.
    """
    figure = Figure(figsize=(6, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    upper.annotate("too sure", (0.9, 0.1), color="grey", ha="center")
    upper.annotate("not sure enough", (0.25, 0.9), color="grey", ha="center")
    for (name, parts), shade in zip(bins.items(), _shades(len(bins)), strict=True):
        confidence, accuracy, images = (np.array(values) for values in zip(*parts, strict=True))
        upper.plot(confidence, np.where(images < FEW, np.nan, accuracy), color=shade, marker="o", markersize=4, linewidth=2, label=name)
        lower.plot(confidence, images, color=shade, marker="o", markersize=4, linewidth=2)
    upper.set(ylabel="part that is right", xlim=(0, 1.02), ylim=(0, 1.02), title="How far to trust it")
    upper.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 0.85))
    lower.set(xlabel="confidence", ylabel="images", yscale="log")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return _plain(figure)


def ranks_along_depth(layers: Sequence[tuple[str, Mapping[str, int], Mapping[str, int]]]) -> Figure:
    """The ranks that were found, layer by layer, and those that learning began with: (layer, ranks, first ranks) from first to last."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    bonds = list(dict.fromkeys(bond for _, ranks, _ in layers for bond in ranks))
    for bond, shade in zip(bonds, _shades(len(bonds)), strict=True):
        found = [(place, ranks[bond]) for place, (_, ranks, _) in enumerate(layers, start=1) if bond in ranks]
        axes.plot(*zip(*found, strict=True), color=shade, marker="o", markersize=4, linewidth=1.5, label=bond)
        first = [(place, first[bond]) for place, (_, _, first) in enumerate(layers, start=1) if bond in first]
        axes.plot(*zip(*first, strict=True), color=shade, linestyle=":", linewidth=1)
    axes.set(xlabel="tensorized layer, first to last", ylabel="rank (dotted: at the start)", ylim=(0, None), title="Ranks along the depth")
    for which in (axes.xaxis, axes.yaxis):
        which.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(title="bond", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
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
