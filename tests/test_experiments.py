"""Experiments: every script runs or has its own tests, and the tables in the READMEs are the recorded results."""

import json
import re
import runpy
from pathlib import Path
from statistics import mean

import pytest
from collect import filled, recorded
from side_by_side import epochs, main

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
BENCHMARKS = sorted(EXPERIMENTS.glob("benchmark_*.py"))
RESULTS = [path for path in sorted((EXPERIMENTS / "results").glob("*.jsonl")) if path.stem != "fashion_onchip"]
"""Of the pipeline; test_onchip.py has the other."""


def test_no_script_is_forgotten() -> None:
    """The pipeline's files and collect.py have tests of their own; the benchmarks, and with them their clock, run here."""
    chain = {f"{name}.py" for name in ("pipeline", "learn", "deploy", "page", "watch", "collect", "turns", "onchip", "side_by_side")}
    assert {path.name for path in EXPERIMENTS.glob("*.py")} == {*chain, *(path.name for path in BENCHMARKS)}


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_prints_its_table(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 4


@pytest.mark.parametrize("readme", [EXPERIMENTS / "README.md", EXPERIMENTS.parent / "README.md"], ids=["experiments", "project"])
def test_tables_are_made_from_the_records(readme: Path) -> None:
    assert filled(readme.read_text(), recorded()) == readme.read_text(), "run python experiments/collect.py"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_table_shows_the_recorded_results(path: Path) -> None:
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    _, shown = (EXPERIMENTS / "README.md").read_text().split("<!-- results -->")
    table = [" ".join(line.split()) for line in shown.split("<!-- end -->")[0].splitlines() if line.startswith(f"| {path.stem} ")]
    for net in ("dense", "tensorized", "pruned", "integer"):
        (row,) = [line for line in table if f"| {net} |" in line]
        assert f"{mean(100 * run[net]['accuracy'] for run in runs):.2f}" in row
        assert f"| {mean(run[net]['parameters'] for run in runs):,.0f} |" in row


def test_every_picture_of_the_page_is_there_and_small() -> None:
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (EXPERIMENTS / "README.md").read_text())
    kept = {str(path.relative_to(EXPERIMENTS)) for path in EXPERIMENTS.glob("figures/*")}
    assert shown and set(shown) == kept
    assert max((EXPERIMENTS / name).stat().st_size for name in shown) < 100_000


def test_trainings_of_both_scripts_stand_side_by_side(tmp_path: Path) -> None:
    """Epochs after pruning follow those before; the pipeline calls accuracy on validation accuracy."""
    first, then = ([{"accuracy": reached, "ranks": {"fc1.r1": rank}}] for reached, rank in ((0.5, 3), (0.75, 2)))
    left = {"float/train": {"tensorized": {"history": first}}, "float/prune": {"history": then}}
    left["chip/onchip"] = {"history": [{"validation": 0.25, "ranks": {"fc1.r1": 4}}]}
    for name, result in left.items():
        (path := tmp_path / f"{name}.json").parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result))
    assert [(epoch.accuracy, epoch.ranks) for epoch in epochs(tmp_path / "float")] == [(0.5, {"fc1.r1": 3}), (0.75, {"fc1.r1": 2})]
    assert [(epoch.accuracy, epoch.ranks) for epoch in epochs(tmp_path / "chip")] == [(0.25, {"fc1.r1": 4})]
    main([f"a={tmp_path / 'float'}", f"b={tmp_path / 'chip'}", str(tmp_path / "both.png")])
    assert (tmp_path / "both.png").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"has none of onchip.json, train.json, prune.json: give the folder of a run"):
        epochs(tmp_path)
