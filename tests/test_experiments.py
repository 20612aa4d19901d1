"""Experiments: every script runs or has its own tests, and the tables in the READMEs are the recorded results."""

import json
import runpy
from pathlib import Path
from statistics import mean

import pytest

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
BENCHMARKS = sorted(EXPERIMENTS.glob("benchmark_*.py"))
RESULTS = sorted((EXPERIMENTS / "results").glob("*.jsonl"))


def test_no_script_is_forgotten() -> None:
    """The pipeline has tests/test_pipeline.py and tests/test_conf.py; all others run here."""
    assert {path.name for path in EXPERIMENTS.glob("*.py")} == {"pipeline.py", *(path.name for path in BENCHMARKS)}


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_prints_its_table(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 4


@pytest.mark.parametrize("readme", [EXPERIMENTS / "README.md", EXPERIMENTS.parent / "README.md"], ids=["experiments", "project"])
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_table_shows_the_recorded_results(path: Path, readme: Path) -> None:
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    table = [line for line in readme.read_text().splitlines() if line.startswith(f"| {path.stem} ")]
    for net in ("dense", "tensorized", "pruned", "integer"):
        (row,) = [line for line in table if f"| {net} |" in line]
        assert f"{100 * mean(run[net]['accuracy'] for run in runs):.2f}" in row
        assert f"{mean(run[net]['parameters'] for run in runs):,.0f}" in row
        assert f"| {len(runs)} |" in row
