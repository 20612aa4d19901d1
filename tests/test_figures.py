"""Figures: everything that goes in is drawn, and they can be written."""

from pathlib import Path

from matplotlib.figure import Figure

from bayestt.report.figures import accuracy_against_parameters, cycles_per_nest, ranks_over_epochs
from bayestt.report.table import Model


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
