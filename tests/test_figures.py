"""Figures: everything that goes in is drawn, and they can be written."""

from pathlib import Path

from matplotlib.collections import PathCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from bayestt.report.figures import (
    Epoch,
    accuracy_against_parameters,
    accuracy_over_seeds,
    cycles_per_nest,
    posterior_of_ranks,
    ranks_along_depth,
    ranks_over_epochs,
    reliability_diagram,
    trainings_side_by_side,
)
from bayestt.report.published import MNIST_DENSE, PUBLISHED
from bayestt.report.table import Experiment, Model


def words(figure: Figure) -> str:
    """All that a figure says in words."""
    axes = figure.axes[0]
    legend = axes.get_legend()
    texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), *(legend.get_texts() if legend else [])]
    return " ".join(text.get_text() for text in texts)


def test_every_bond_has_its_line(tmp_path: Path) -> None:
    figure = ranks_over_epochs({"fc1.r1": [16, 9, 4], "fc2.r1": [20, 20, 7]})
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[16, 9, 4], [20, 20, 7]]
    assert "fc1.r1" in words(figure)
    figure.savefig(tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").stat().st_size > 1000


def test_every_model_has_its_dot() -> None:
    figure = accuracy_against_parameters([Model("dense", 0.9, 400_000, 1), Model("pruned", 0.88, 4_000, 1)])
    assert "dense" in words(figure) and "pruned" in words(figure)
    assert figure.axes[0].get_xscale() == "log"


def test_every_step_has_its_bar() -> None:
    figure = cycles_per_nest(["load", "fc1"], [100, 50], [0.0, 0.98])
    assert "98 %" in words(figure) and "100  (0 %)" in words(figure)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [100, 50, 0.0, 49.0]


def test_every_experiment_has_its_means_and_every_paper_its_star() -> None:
    dense = Model("dense", 0.98, 400_000, 1)
    runs = tuple((dense, Model("pruned", 0.97 + k / 100, 4000 + k, 1), Model("uniform", 0.95, 4100, 1)) for k in (-1, 0, 1))
    figure = accuracy_over_seeds([Experiment("mnist_fc", (0, 1, 2), runs, (("a",),) * 3)], PUBLISHED["mnist"])
    means = {(float(bars[0].get_xdata()[0]), round(float(bars[0].get_ydata()[0]), 6)) for bars in figure.axes[0].containers}
    assert means == {(4000, 97), (4100, 95)}
    keys = [text.get_text() for text in figure.legends[0].get_texts()]
    assert keys == ["mnist_fc", "pruned", "uniform", "published", "published, as remembered"]
    stars = {tuple(star.get_offsets()[0].tolist()): star for star in figure.axes[0].collections if isinstance(star, PathCollection)}
    for paper in PUBLISHED["mnist"]:
        shade = "white" if paper.remembered else "black"
        assert same_color(stars[paper.parameters, 100 * paper.accuracy].get_facecolor(), shade), "what is only remembered is hollow"
    assert all(paper.name in words(figure) for paper in PUBLISHED["mnist"]) and "400,000" in words(figure)


def test_published_sizes_are_the_published_factors() -> None:
    assert MNIST_DENSE == 784 * 625 + 625 + 625 * 10 + 10
    assert [round(MNIST_DENSE / paper.parameters) for paper in PUBLISHED["mnist"]] == [137, 141, 205]


def test_every_bonds_belief_is_drawn() -> None:
    figure = posterior_of_ranks({"fc1.r1": {3: 0.25, 4: 0.75}, "fc2.r1": {9: 1.0}}, {"fc1.r1": (3, 4), "fc2.r1": (9, 9)})
    drawn = [[(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches] for axes in figure.axes]
    assert drawn == [[(3, 0.25), (4, 0.75)], [(9, 1.0)]]
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["fc1.r1: 3 to 4", "fc2.r1: 9"]


def test_every_net_has_its_line_of_bins() -> None:
    figure = reliability_diagram({"dense": [(0.3, 0.0, 1), (0.5, 0.4, 20), (0.9, 0.8, 79)], "pruned": [(0.7, 0.7, 100)]})
    upper, lower = ([line.get_xydata() for line in axes.lines] for axes in figure.axes)
    drawn = [[(x, y) for x, y in line.tolist() if y == y] for line in upper]
    assert drawn == [[(0, 0), (1, 1)], [(0.5, 0.4), (0.9, 0.8)], [(0.7, 0.7)]], "a bin of one image says nothing of accuracy"
    assert [line.tolist() for line in lower] == [[[0.3, 1], [0.5, 20], [0.9, 79]], [[0.7, 100]]]
    assert {"dense", "pruned"} <= set(words(figure).split())


def test_every_bond_has_its_ranks_along_the_depth() -> None:
    first = {"r1": 20, "r2": 20}
    figure = ranks_along_depth([("a", {"r1": 3, "r2": 9}, first), ("b", {"r1": 5}, first), ("c", {"r1": 4, "r2": 2}, first)])
    found = {(line.get_label(), tuple(line.get_xdata())): line.get_ydata().tolist() for line in figure.axes[0].lines[::2]}
    assert found == {("r1", (1, 2, 3)): [3, 5, 4], ("r2", (1, 3)): [9, 2]}
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines[1::2]] == [[20, 20, 20]] * 2


def test_every_training_has_its_column() -> None:
    first = [Epoch(0.5, {"fc1.r1": 16, "fc2.r1": 8}), Epoch(0.75, {"fc1.r1": 9, "fc2.r1": 8})]
    figure = trainings_side_by_side({"floats": first, "integers": [Epoch(0.25, {"fc1.r1": 4, "fc2.r1": 2})]})
    drawn = [[line.get_ydata().tolist() for line in axes.lines] for axes in figure.axes]
    assert drawn == [[[50, 75]], [[25]], [[16, 9], [8, 8]], [[4], [2]]]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["floats", "integers"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fc1.r1", "fc2.r1"]
