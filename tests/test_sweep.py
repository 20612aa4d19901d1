"""Sweeps as people give them: several runs of one command, and a search by Optuna whose trials run side by side."""

import subprocess
import sys
from pathlib import Path

import yaml
from omegaconf import OmegaConf

ROOT = Path(__file__).parent.parent
QUICK = ["images=640", "dense.epochs=1", "fit.epochs=1", "finetune.epochs=1", "stop=prune"]


def swept(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "experiments" / "pipeline.py"), "-m", f"hydra.sweep.dir={folder}", *QUICK, *overrides]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)


def test_runs_of_a_sweep_have_a_folder_each_and_one_that_diverges_is_one_failed_run(tmp_path: Path) -> None:
    done = swept(tmp_path / "sweep", "experiment=demo", "data_root=/nowhere", "fit.lr=1e12,1e-3")
    assert "the objective is" in done.stderr + done.stdout
    begun, trained = ([path.parent for path in tmp_path.rglob(name)] for name in ("pipeline.log", "prune.json"))
    assert sorted(path.name.split("fit.lr=")[1].split(",")[0] for path in begun) == ["0.001", "1000000000000.0"]
    assert [path.name.split("fit.lr=")[1].split(",")[0] for path in trained] == ["0.001"]
    assert not [path for path in begun if "nowhere" in path.name]


def test_optuna_searches_weight_and_learning_rate(tmp_path: Path) -> None:
    done = swept(tmp_path / "sweep", "sweep=prior", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    accuracy, parameters = found["solutions"][0]["values"]
    assert 0 < accuracy <= 1 and parameters <= 26_938
    tried = [OmegaConf.load(path) for path in tmp_path.rglob(".hydra/config.yaml")]
    assert len({(run.fit.weight, run.fit.lr) for run in tried}) == 2
    assert all(0.2 <= run.fit.weight <= 5 and 1e-3 <= run.fit.lr <= 2e-2 and run.judged_on == "validation" for run in tried)
    assert found["solutions"][0]["params"] in [{"fit.weight": run.fit.weight, "fit.lr": run.fit.lr} for run in tried]
