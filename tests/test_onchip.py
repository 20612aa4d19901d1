"""Integer training as an experiment: it runs, goes on where it was to the same result, and keeps its budget."""

import json
import os
import signal
import subprocess
import sys
from math import prod
from pathlib import Path
from statistics import mean, stdev

import onchip
import pytest
from hydra import compose, initialize_config_dir

from bayestt.artifact import read_arrays

CONF = str(Path(__file__).parent.parent / "conf")
QUICK = ["data=fashion_mnist_small", "images=640", "judged_on=validation", "prior_from=0", "pull=6", "forms.fc1.rank=4", "forms.fc2.rank=4"]
TWO_EPOCHS = ["rates=[11,12]", "bits=7000"]


def trained(folder: Path, *overrides: str) -> dict:
    with initialize_config_dir(CONF, version_base="1.3"):
        return onchip.run(compose("onchip", [*QUICK, *overrides]), folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, bytes]:
    """What two epochs reach, and their state, byte by byte."""
    folder = tmp_path_factory.mktemp("whole")
    result = trained(folder, *TWO_EPOCHS)
    assert result["factor_bits"] == result["history"][-1]["factor_bits"] and result["accuracy"] > 0.3
    return result, (folder / "state").read_bytes()


def test_a_training_may_go_on_for_longer(whole: tuple[dict, bytes], tmp_path: Path) -> None:
    trained(tmp_path, "rates=[11]", "bits=7000", "judged_on=test")
    again = trained(tmp_path, *TWO_EPOCHS)
    assert (again, (tmp_path / "state").read_bytes()) == whole
    assert again == json.loads((tmp_path / "onchip.json").read_text())
    with pytest.raises(ValueError, match=r"of a training with other settings \(rates \[11, 12\] there and \[11\] here\): delete it"):
        trained(tmp_path, "rates=[11]", "bits=7000")
    with pytest.raises(ValueError, match=r"\(seed 0 there and 1 here, batch_size 32 there and 64 here, pull 6 there and None here\)"):
        trained(tmp_path, *TWO_EPOCHS, "seed=1", "batch_size=64", "pull=null")


KILLED = """
import os, pathlib, signal, test_onchip
replace, states = os.replace, []
def counted(temporary, path):
    states.append(path)
    if len(states) == {state} and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(temporary, path)
    if len(states) == {state}:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = counted
test_onchip.trained(pathlib.Path(), *test_onchip.TWO_EPOCHS)
"""
"""Two epochs, until a state's file is written, and not in place or just so."""


@pytest.mark.parametrize(("state", "before", "epochs"), [(1, False, 1), (2, True, 1), (2, False, 2)])
def test_a_killed_training_ends_in_the_same_bytes(state: int, before: bool, epochs: int, whole: tuple[dict, bytes], tmp_path: Path) -> None:
    program = KILLED.format(state=state, before=before)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(read_arrays(tmp_path / "state", "state")[0]["record"]["history"]) == epochs
    assert (trained(tmp_path, *TWO_EPOCHS), (tmp_path / "state").read_bytes()) == whole


def test_a_state_that_was_cut_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, "rates=[11]")
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-9])
    with pytest.raises(ValueError, match="state does not match its checksum, so it is truncated or altered"):
        trained(tmp_path, "rates=[11]")


def test_without_a_prior_no_rank_goes(tmp_path: Path) -> None:
    result = trained(tmp_path, "rates=[11]", "pull=null")
    assert set(result["history"][-1]["ranks"].values()) == {4}
    assert result["training_bits"]["first"] == result["training_bits"]["last"]


def test_the_page_shows_what_is_on_record() -> None:
    """Accuracy and its spread, parameters, bits, and the memory that training takes."""
    root = Path(__file__).parent.parent / "experiments"
    runs = [json.loads(line) for line in (root / "results" / "fashion_onchip.jsonl").read_text().splitlines()]
    page = (root / "README.md").read_text()
    accuracies = [100 * run["accuracy"] for run in runs]
    assert {run["judged_on"] for run in runs} == {"test"}
    bits = mean(32 * 467_472 / run["factor_bits"] for run in runs)
    parameters = mean(run["parameters"] for run in runs)
    assert f"| {mean(accuracies):.2f} ± {stdev(accuracies):.2f} % | {parameters:,.0f} | {bits:.0f}x |" in page
    dense, first, last = (sum(bits.values()) for bits in (runs[0]["dense_bits"], *runs[0]["training_bits"].values()))
    assert f"| all | {dense:,} | {first:,} | {last:,} |" in page
    assert f"| dense / it | 1 | {dense / first:.0f}x | {dense / last:.0f}x |" in page
    assert f"over all five seeds {mean(dense / sum(run['training_bits']['last'].values()) for run in runs):.1f}x" in page
    for run in runs:
        ranks = ", ".join(str(rank) for rank in run["history"][-1]["ranks"].values())
        assert f"| {run['seed']} | {100 * run['accuracy']:.2f} % | {100 * run['history'][-1]['validation']:.2f} % | {ranks} |" in page


def test_the_page_shows_the_multiplications_of_an_image() -> None:
    """Of all contractions; with the first layer's forward pass twice; of dense layers, forward and for all gradients but the image's."""
    with initialize_config_dir(CONF, version_base="1.3"):
        chain, sizes = onchip.built(compose("onchip"))
    pairs = {each.name: {axis for _, axes in each.args for axis in axes} for each in chain.contractions if len(each.args) == 2}
    taken = {name: prod(chain.size[axis] for axis in axes) for name, axes in pairs.items()}
    once = sum(taken.values())
    twice = once + sum(taken[each.name] for each in chain.forward if each.name.startswith("fc1"))
    dense = 2 * sizes[0] * sizes[1] + 3 * sizes[1] * sizes[2]
    page = (Path(CONF).parent / "experiments" / "README.md").read_text()
    assert f"| multiplications of an image | {dense:,} | {once:,}; {twice:,} in strips |" in page
    assert f"{once / dense:.1f} and {twice / dense:.1f} times" in page
