"""The whole chain on the command line: it runs, starts again from any step, survives an interrupt, and says what is wrong."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pipeline
import pytest
from hydra import compose, initialize_config_dir
from pipeline import STEPS

import hw.program
from bayestt.artifact import read_arrays
from hw.energy import SOURCE, energy_j

ROOT = Path(__file__).parent.parent
CONF = str(ROOT / "conf")
QUICK = ["batch_size=64", "dense.epochs=1", "fit.epochs=2", "finetune.epochs=1", "images=640", "quantize.calibration=50"]
SMALL = ["form.fc1.rank=3", "form.fc2.rank=3", "prune.threshold=0.9", "emulate.images=20", "simulate.images=3", "arch.rows=2"]


def command(folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "experiments" / "pipeline.py"), f"hydra.run.dir={folder}", *overrides]


def ran(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The pipeline, run as a person would, from somewhere else."""
    return subprocess.run(command(folder, *overrides), cwd=folder.parent, capture_output=True, text=True, check=False)


def run_here(folder: Path, *overrides: str) -> None:
    """The same without a process of its own."""
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("config", [*QUICK, *SMALL, *overrides])
    pipeline.run(cfg, folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "chain"
    done = ran(folder, *QUICK, *SMALL)
    assert done.returncode == 0, done.stderr
    return folder


def test_it_leaves_every_steps_result(finished: Path) -> None:
    found = {step: json.loads((finished / f"{step}.json").read_text()) for step in STEPS}
    assert found["simulate"]["equal"] and found["simulate"]["images"] == 3
    assert found["emulate"]["equal"] and found["emulate"]["images"] == 20
    assert [row["name"] for row in found["report"]["models"]] == ["dense", "tensorized", "pruned", "integer"]
    pictures = {"ranks.png", "accuracy.png", "reliability.png", "cycles.png"}
    assert {"report.md", "datapath.v", "program", *pictures} <= {path.name for path in finished.iterdir()}
    assert not list(finished.glob("*.training"))
    parameters = [row["parameters"] for row in found["report"]["models"]]
    assert parameters[0] == 407_050 and parameters[1] > parameters[2] == parameters[3]
    facts, program = found["report"]["facts"], hw.program.load(finished / "program")
    assert re.fullmatch(r"\d+ of 32 bits, in fc\d\S*", facts["accumulators need, for any image"])
    assert found["lower"]["energy_j"] == energy_j(program)
    energy = facts["energy per image of a full batch"]
    assert energy == f"{1e6 * energy_j(program):.3g} µJ, {SOURCE}" and energy in (finished / "report.md").read_text()


def test_every_result_says_what_it_was_made_with(finished: Path) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    for step in STEPS:
        made_with = json.loads((finished / f"{step}.json").read_text())["made_with"]
        assert (made_with["experiment"], made_with["seed"], made_with["judged_on"]) == ("chain", 0, "test")
        assert made_with["overrides"] == [*QUICK, *SMALL]
        assert (made_with["commit"] or "").removesuffix("-dirty") == commit


def test_an_integer_nets_probabilities_are_nearly_the_float_ones(finished: Path) -> None:
    pruned, integer = (json.loads((finished / f"{step}.json").read_text()) for step in ("prune", "quantize"))
    assert integer["nll"] == pytest.approx(pruned["nll"], abs=0.02) and integer["nll"] != pruned["nll"]
    assert integer["ece"] == pytest.approx(pruned["ece"], abs=0.02)


def test_weights_of_few_bits_learn_on(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "pruned.weights").write_bytes((finished / "pruned.weights").read_bytes())
    reached = []
    for finetune in ("null", "{epochs: 10, lr: 5e-3}"):
        run_here(tmp_path, "start=quantize", "stop=quantize", "quantize.weight_bits=2", f"quantize.finetune={finetune}")
        reached.append(json.loads((tmp_path / "quantize.json").read_text()))
    assert reached[1]["accuracy"] > reached[0]["accuracy"] + 0.02 and reached[1]["bits"] == reached[0]["bits"]


def test_a_page_needs_no_machine(finished: Path, tmp_path: Path) -> None:
    for step in ("train", "prune"):
        (tmp_path / f"{step}.json").write_bytes((finished / f"{step}.json").read_bytes())
    run_here(tmp_path, "start=report")
    page = (tmp_path / "report.md").read_text()
    assert "pruned" in page and "![reliability]" in page and "cycles" not in page


@pytest.mark.parametrize("step", list(STEPS)[1:])
def test_it_starts_again_from_any_step(finished: Path, step: str) -> None:
    """A step and all behind it, from what earlier steps left; with the same outcome where it is the same computation."""
    before = {path.name: path.read_bytes() for path in finished.glob("*.graph")}
    run_here(finished, f"start={step}", f"stop={step}")
    assert before == {path.name: path.read_bytes() for path in finished.glob("*.graph")}


def test_an_interrupted_training_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chain"
    settings = [*QUICK, *SMALL, "stop=train", "fit.epochs=20"]
    process = subprocess.Popen(command(folder, *settings), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (folder / "tensorized.training").is_file() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 1 and "the same command goes on" in said
    resumed, uninterrupted = ran(folder, *settings), ran(tmp_path / "whole", *settings)
    assert (resumed.returncode, uninterrupted.returncode) == (0, 0), resumed.stderr + uninterrupted.stderr
    for name in ("dense.weights", "tensorized.weights"):
        ours, theirs = (read_arrays(place / name, "weights")[1] for place in (folder, tmp_path / "whole"))
        assert {key: array.tobytes() for key, array in ours.items()} == {key: array.tobytes() for key, array in theirs.items()}


def together(folder: Path, *overrides: str) -> list[str]:
    """The command that has two processes learn."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return [*torchrun, *command(folder, *overrides)[1:]]


def test_two_processes_learn_and_one_goes_on(tmp_path: Path) -> None:
    teacher = ["teacher=cnn", f"teacher.folder={tmp_path}/teachers", "teacher.fit.epochs=1"]
    settings = [*QUICK, *SMALL, *teacher, "fit.epochs=1", "stop=quantize"]
    done = subprocess.run(together(tmp_path / "chain", *settings), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "chain" / "pipeline.log").read_text()
    assert all(told.count(f"{step:9}") == 1 for step in ("train", "prune", "posterior", "quantize"))
    assert json.loads((tmp_path / "chain" / "quantize.json").read_text())["images"] == 2000
    assert len(list((tmp_path / "teachers").glob("*.weights"))) == 1


@pytest.mark.slow
def test_two_interrupted_processes_end_with_the_same_bytes(tmp_path: Path) -> None:
    settings = [*QUICK, *SMALL, "stop=train", "fit.epochs=20"]
    process = subprocess.Popen(together(tmp_path / "chain", *settings), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "chain" / "tensorized.training").is_file() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode and (tmp_path / "chain" / "tensorized.training").is_file()
    refused = ran(tmp_path / "chain", *settings)
    assert refused.returncode == 1 and "processes 2 there and 1 here" in refused.stderr
    for name in ("chain", "whole"):
        subprocess.run(together(tmp_path / name, *settings), cwd=tmp_path, capture_output=True, check=True)
    for name in ("dense.weights", "tensorized.weights"):
        ours, theirs = (read_arrays(tmp_path / place / name, "weights")[1] for place in ("chain", "whole"))
        assert {key: array.tobytes() for key, array in ours.items()} == {key: array.tobytes() for key, array in theirs.items()}


MISTAKES = {
    "unknown step": (["start=trian"], "start=trian: expected one of train, prune"),
    "unknown baseline": (["baselines=[unifrom]"], "baselines=unifrom: expected one of uniform, decomposed"),
    "unknown objective": (["objectives=[accuracy,size]"], "objectives=size: expected one of accuracy, nll, parameters"),
    "unknown split": (["judged_on=train"], "judged_on=train: expected one of test, validation"),
    "unknown precision": (["precision=4/8/8"], "precision=4/8/8: expected one of fp32, bf16, 4/8/16"),
    "a dense layer in few bits": (["precision=4/8/16", "~form.fc2"], r"layer 'fc2' \(Linear\) has no arithmetic of 4/8/16 bits"),
    "recomputing in few bits": (["precision=4/8/16", "recompute=true"], r"layer 'fc1' .* has no arithmetic .* without recompute"),
    "a layer that is not there": (["+form.fc9={_target_: bayestt.algebra.formats.Form, format: cp, rank: 2}"], "fc9.*nearest"),
    "modes of another size": (["form.fc1.rows=[4,4]"], r"4 \* 4 = 16 and the weight has 512"),
    "no rank": (["form.fc1.rank=0"], "every rank is at least 1"),
    "bits out of range": (["quantize.weight_bits=9", "start=quantize"], "9 weight bits: choose 2 to 8"),
    "a program too large": (["arch.data_depth=64", "start=lower"], "words of data memory and the Arch has 64: raise Arch.data_depth"),
}


@pytest.mark.parametrize(("overrides", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused(overrides: list[str], words: str, finished: Path) -> None:
    with pytest.raises(ValueError, match=words):
        run_here(finished, *overrides)


def test_few_bits_are_one_processs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "count", lambda: 2)
    with pytest.raises(ValueError, match="precision=4/8/16: scales would differ from process to process, give one process"):
        run_here(tmp_path, "precision=4/8/16")


SAID = {
    "unknown format": (["form.fc1.format=tt_matirx"], "unknown format 'tt_matirx': did you mean tt_matrix"),
    "no data": (["data=mnist", "data_root=/nowhere"], r"train-images-idx3-ubyte .* is in none of /nowhere/MNIST/raw"),
    "a step that was not run": (["start=simulate"], "is not there"),
}


@pytest.mark.parametrize(("overrides", "words"), SAID.values(), ids=SAID)
def test_a_mistake_is_said_in_a_sentence(overrides: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = ran(tmp_path / "chain", *QUICK, *SMALL, *overrides)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(words, done.stderr.strip().splitlines()[-1]), done.stderr


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(command(tmp_path / "file" / "chain"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "file/chain" in done.stderr
