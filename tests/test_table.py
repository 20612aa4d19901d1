"""Tables: ratios divide the first row, figures over seeds are means and deviations, columns line up."""

from math import sqrt
from statistics import mean, stdev

from bayestt.report.table import Experiment, Model, differences, experiments, models, table


def test_compression_divides_the_first_row() -> None:
    text = models([Model("dense", 0.9, 1000, 32_000), Model("integer", 0.8812, 40, 320)])
    assert "| integer |       88.12 % |" in text
    assert "25.0x" in text and "100.0x" in text


def test_what_was_not_recorded_is_not_made_up() -> None:
    text = models([Model("dense", 0.9, 1000, 32_000), Model("pruned", 0.88, 40, 1280, nll=0.31234, ece=0.012)])
    dense, pruned = ([cell.strip() for cell in line.split("|")] for line in text.splitlines()[2:])
    assert dense[3:5] == ["–", "–"] and pruned[3:5] == ["0.312", "1.20 %"]


def test_a_row_over_seeds_is_a_mean_and_a_deviation() -> None:
    reached, nll = [0.881, 0.885, 0.892], [0.31, 0.33, 0.35]
    dense = Model("dense", 0.9, 4000, 128_000, 0.3, 0.02)
    runs = tuple((dense, Model("pruned", reached[k], 38 + 2 * k, 640, nll[k], 0.01)) for k in range(3))
    text = experiments([Experiment("demo", (2, 0, 1), runs, (("def5678", "abc1234"), ("abc1234",), ("abc1234",)))])
    pruned = [cell.strip() for cell in text.splitlines()[3].split("|")][1:-1]
    accuracy = f"{100 * mean(reached):.2f} ± {100 * stdev(reached):.2f} %"
    assert pruned == ["demo", "pruned", accuracy, "0.330 ± 0.020", "1.00 ± 0.00 %", "40", "100.0x", "200.0x", "0-2", "abc1234, def5678"]


def test_a_net_that_some_runs_lack_has_no_row() -> None:
    dense = Model("dense", 0.9, 4000, 128_000)
    text = experiments([Experiment("demo", (0, 3), ((dense, Model("pruned", 0.8, 40, 640)), (dense,)), (("a",), ("a",)))])
    assert "dense" in text and "pruned" not in text and "0, 3" in text


def test_differences_are_taken_seed_by_seed() -> None:
    pruned, uniform = [0.890, 0.884, 0.887], [0.885, 0.880, 0.881]
    runs = tuple(
        (Model("dense", 0.9, 9, 288), Model("pruned", own, 4, 128, 0.31 + k, 0.01), Model("uniform", other, 4, 128, 0.32 + k, 0.01))
        for k, (own, other) in enumerate(zip(pruned, uniform, strict=True))
    )
    text = differences([Experiment("demo", (0, 1, 2), runs, (("a",),) * 3)], "pruned")
    rows = [[cell.strip() for cell in line.split("|")][1:-1] for line in text.splitlines()[2:]]
    gaps = [100 * (other - own) for own, other in zip(pruned, uniform, strict=True)]
    assert [row[:2] for row in rows] == [["demo", "dense"], ["demo", "uniform"]] and rows[0][3] == "–"
    assert rows[1][2:] == [f"{mean(gaps):+.2f} ± {stdev(gaps) / sqrt(3):.2f}", "+0.0100 ± 0.0000", "0-2"]


def test_columns_line_up() -> None:
    lines = table(("name", "n"), [("a", "1"), ("longer", "1,000")]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| ------ | ----: |"
