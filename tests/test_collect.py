"""Results on record: a line for every run, tables and figures from the lines, and no row that mixes settings."""

import json
from pathlib import Path
from statistics import mean, stdev

import pytest
from collect import collect, filled, recorded

NET = {"parameters": 1000, "bits": 32_000, "nll": 0.3, "ece": 0.02, "history": [], "bins": []}


def run(folder: Path, seed: int, accuracy: float, overrides: tuple[str, ...] = (), **made_with: str) -> Path:
    """A run folder as the pipeline leaves one."""
    folder.mkdir(parents=True)
    made = {"experiment": "demo", "judged_on": "test", "commit": "abc1234"} | made_with
    made |= {"seed": seed, "overrides": [f"seed={seed}", *overrides]}
    dense, pruned = NET | {"name": "dense", "accuracy": 0.9}, NET | {"name": "pruned", "accuracy": accuracy, "parameters": 10, "bits": 320}
    steps = {"train": {"dense": dense}, "prune": pruned | {"ranks": {"fc1.r1": 3}}, "baselines": {}}
    for step, result in steps.items():
        (folder / f"{step}.json").write_text(json.dumps(result | {"seconds": 30.0, "made_with": made}))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "experiments" / "results").mkdir(parents=True)
    (tmp_path / "experiments" / "figures").mkdir()
    (tmp_path / "README.md").write_text("before\n<!-- results demo -->\nold\n<!-- end -->\nafter\n")
    (tmp_path / "experiments" / "README.md").write_text("<!-- results -->\n<!-- end -->\nbetween\n<!-- commands -->\n<!-- end -->\n")
    return tmp_path


def test_runs_become_lines_tables_and_figures(root: Path) -> None:
    for seed, accuracy in ((0, 0.85), (1, 0.86), (2, 0.84)):
        run(root / "sweep" / str(seed), seed, accuracy, ("fit.lr=0.01", "data_root=/data"))
    collect([root / "sweep"], root)
    lines = recorded(root)["demo"]
    assert [line["pruned"]["accuracy"] for line in lines] == [0.85, 0.86, 0.84]
    assert lines[0]["commit"] == "abc1234" and lines[0]["ranks"] == {"fc1.r1": 3} and lines[0]["overrides"] == ["fit.lr=0.01"]
    readme, page = (root / "README.md").read_text(), (root / "experiments" / "README.md").read_text()
    (row,) = [line for line in readme.splitlines() if "| pruned |" in " ".join(line.split())]
    expected = f"{100 * mean([0.85, 0.86, 0.84]):.2f} ± {100 * stdev([0.85, 0.86, 0.84]):.2f} %"
    assert expected in row and "100.0x" in row and "0-2" in row and "abc1234" in row and "0.300" in row
    assert readme.startswith("before\n") and readme.endswith("after\n") and "old" not in readme
    assert "`python experiments/pipeline.py -m experiment=demo fit.lr=0.01 seed=0,1,2`" in page and "1.5" in page and "between" in page
    assert (root / "experiments" / "figures" / "demo.png").stat().st_size > 1000


def test_a_seed_counts_once(root: Path) -> None:
    collect([run(root / "old", 0, 0.5), run(root / "other", 1, 0.6)], root)
    collect([run(root / "new", 0, 0.7)], root)
    assert [line["pruned"]["accuracy"] for line in recorded(root)["demo"]] == [0.7, 0.6]


def test_drawing_again_changes_nothing(root: Path) -> None:
    collect([run(root / "run", 0, 0.5)], root)
    before = {path: path.read_text() for path in root.rglob("*.md")}
    collect([], root)
    assert before == {path: path.read_text() for path in root.rglob("*.md")}


def test_what_does_not_belong_is_refused(root: Path) -> None:
    collect([run(root / "run", 0, 0.5)], root)
    refused = {
        "write them into an experiment of its own": run(root / "hot", 1, 0.5, ("fit.weight=2",)),
        "judged on validation, expected test": run(root / "tuned", 1, 0.5, judged_on="validation"),
        "there is no conf/experiment/nowhere.yaml": run(root / "unnamed", 1, 0.5, experiment="nowhere"),
        "no run in .* has trained a net": root / "experiments",
    }
    for words, folder in refused.items():
        with pytest.raises(ValueError, match=words):
            collect([folder], root)
    assert len(recorded(root)["demo"]) == 1


def test_a_mark_of_no_experiment_is_refused() -> None:
    with pytest.raises(ValueError, match="names mnist, expected some of demo"):
        filled("<!-- results mnist --><!-- end -->", {"demo": []})
