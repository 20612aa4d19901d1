"""An interrupted training goes on to the same bytes; files that are not its own, and folders that cannot be written, are refused."""

import os
import signal
from copy import deepcopy
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fit import SHORT, VALIDATION, batches, believed, contents
from torch import nn

from bayestt.algebra.formats import tt_matrix
from bayestt.artifact import read_arrays, write_arrays
from bayestt.bayes import fit as fitting
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import categorical, model
from bayestt.bayes.posterior import Posterior
from bayestt.bayes.prior import gamma_product, half_cauchy, log_uniform
from bayestt.data.augment import CropAndFlip
from bayestt.nets.resnet import resnet
from bayestt.nets.tensorize import TensorizedLinear


@pytest.fixture
def interrupted(monkeypatch):
    """Make the step of that number of a training a real Ctrl-C."""

    def at(number: int) -> None:
        steps = iter(range(1, 10_000))
        step = fitting.step

        def stop(*given) -> float:
            if next(steps) == number:
                monkeypatch.setattr(fitting, "step", step)
                signal.raise_signal(signal.SIGINT)
            return step(*given)

        monkeypatch.setattr(fitting, "step", stop)

    return at


@pytest.mark.parametrize("make", [point, mean_field])
@pytest.mark.parametrize("prior", [log_uniform(), gamma_product()], ids=lambda prior: prior.name)
@pytest.mark.parametrize("number", [3, 7, 16, 24], ids=["first epoch", "boundary", "mid-epoch", "last step"])
def test_an_interrupted_training_ends_with_the_same_bytes(make, prior, number: int, tmp_path: Path, interrupted) -> None:
    believes = believed(prior, norm=True)
    whole = fit(believes, make(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "whole")
    interrupted(number)
    with pytest.raises(KeyboardInterrupt):
        fit(believes, make(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "twice")
    torch.manual_seed(999)
    resumed = fit(believes, make(believes), batches(), VALIDATION, **SHORT, checkpoint=str(tmp_path / "twice"))
    assert contents(resumed) == contents(whole)
    assert (tmp_path / "twice").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("make", [point, mean_field])
def test_batch_norm_changed_images_and_bfloat16_resume_too(make, tmp_path: Path, interrupted) -> None:
    random = np.random.default_rng(0)
    images, labels = random.standard_normal((48, 3, 8, 8)).astype(np.float32), random.integers(0, 4, 48)
    torch.manual_seed(0)
    believes = model(resnet(8, 3, 4), log_uniform(), categorical, 48)

    def run(name: str, padding: int = 2) -> Posterior:
        given = Batches(images, labels, size=12, augment=CropAndFlip(padding)), (images, labels)
        return fit(believes, make(believes), *given, lr=0.01, epochs=3, precision="bf16", checkpoint=tmp_path / name)

    whole = run("whole")
    interrupted(7)
    with pytest.raises(KeyboardInterrupt):
        run("twice")
    assert contents(run("twice")) == contents(whole)
    assert (tmp_path / "twice").read_bytes() == (tmp_path / "whole").read_bytes()
    assert "net.stage3.down.norm2.running_var" in read_arrays(tmp_path / "whole", "training")[1]
    with pytest.raises(ValueError, match=r"augment CropAndFlip\(padding=2\) there and CropAndFlip\(padding=1\) here"):
        run("whole", padding=1)


def test_a_checkpoint_changes_no_byte_and_a_finished_one_is_the_answer(tmp_path: Path, monkeypatch) -> None:
    believes = believed()
    kept = fit(believes, mean_field(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "kept")
    assert contents(fit(believes, mean_field(believes), batches(), VALIDATION, **SHORT)) == contents(kept)
    monkeypatch.setattr(fitting, "step", None)
    assert contents(fit(believes, mean_field(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "kept")) == contents(kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.02}, "lr 0.01 there and 0.02 here"),
        ({"epochs": 9, "weight": 2}, "epochs 4 there and 9 here, weight 1.0 there and 2 here"),
        ({"batches": batches(seed=6)}, r"batches \[16, 5\] there and \[16, 6\] here"),
        ({"validation": (VALIDATION[0] + 1, VALIDATION[1])}, "data "),
        ({"prior": half_cauchy(1.0)}, "prior log_uniform there and half_cauchy"),
        ({"prior": replace(log_uniform(), wide=1.0)}, "wide 10.0 there and 1.0 here"),
        ({"num_data": 9}, "num_data 96 there and 9 here"),
    ],
)
def test_another_trainings_checkpoint_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    def run(prior=None, num_data=96, **change) -> Posterior:
        believes = replace(believed(prior), num_data=num_data)
        given = {"model": believes, "guide": point(believes), "batches": batches(), "validation": VALIDATION, **SHORT, **change}
        return fit(**given, checkpoint=tmp_path / "kept")

    run()
    with pytest.raises(ValueError, match=f"kept is a checkpoint of another training .*{message}.*delete it or give another path"):
        run(**change)


@pytest.mark.parametrize("change", ["relu1", "form"])
def test_another_nets_checkpoint_is_refused(change: str, tmp_path: Path, monkeypatch) -> None:
    believes = believed()
    fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "kept")
    other = deepcopy(believes.net)
    if change == "relu1":
        other.relu1 = nn.Sequential(nn.Tanh(), nn.Dropout(0.2))
    else:
        # The same bytes in the same order, but other modes.
        other.fc1 = TensorizedLinear(tt_matrix((8, 3), (4, 12), 4))
        shapes = other.fc1.form.shapes
        cores = torch.cat([core.detach().flatten() for core in believes.net.fc1.cores]).split([prod(shape) for shape in shapes])
        other.fc1.load_state_dict(
            {f"core{k}": core.view(shape) for k, (core, shape) in enumerate(zip(cores, shapes, strict=True))}
            | {"bias": believes.net.fc1.bias.detach()}
        )
    believes = model(other, log_uniform(), categorical, 96)
    monkeypatch.setattr(fitting, "step", None)
    with pytest.raises(ValueError, match=r"kept is a checkpoint of another training \(net [0-9a-f]+ there and [0-9a-f]+ here\)"):
        fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "kept")


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    believes, path = believed(), tmp_path / "kept"
    fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=path)
    header, arrays = read_arrays(path, "training")
    assert {"guide.theta", "guide.log_lam", "optimizer.0.exp_avg"} <= arrays.keys() and header["identity"]["prior"] == "log_uniform"
    for content in (path.read_bytes()[:-9], b"something else"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="write it again|give one that bayestt wrote"):
            fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=path)
    write_arrays(path, "graph", header, arrays)
    with pytest.raises(ValueError, match="is a graph file of version 1, expected a training file"):
        fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=path)


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(fitting, "step", None)
    believes = believed()
    with pytest.raises(OSError, match="cannot write .*choose a folder with room that you may write to"):
        fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "file" / "kept")
    if os.getuid():
        tmp_path.chmod(0o500)
        with pytest.raises(OSError, match="cannot write"):
            fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "kept")
