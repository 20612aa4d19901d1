"""Two processes on a CPU: the steps of one with whole batches, the same bytes in both and after a resume, refusals in both."""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing import spawn

from bayestt.algebra.formats import Form
from bayestt.bayes import budget as budgets
from bayestt.bayes import fit as fitting
from bayestt.bayes.batches import Batches
from bayestt.bayes.budget import Budget
from bayestt.bayes.checkpoint import digest
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.posterior import Posterior
from bayestt.bayes.prior import log_uniform
from bayestt.bayes.processes import agreed, average, count, decided, first, follow, part, together, wait
from bayestt.bayes.svgd import particles
from bayestt.bayes.teacher import Teacher
from bayestt.data.augment import CropAndFlip
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize

RANDOM = np.random.default_rng(0)
IMAGES, LABELS = RANDOM.standard_normal((48, 8, 6)), RANDOM.integers(0, 16, 48)
BATCHES = Batches(IMAGES, LABELS, size=12, seed=3, augment=CropAndFlip(1))
MAKE: dict[str, Callable] = {"point": point, "mean_field": mean_field, "particles": lambda believes: particles(believes, 3)}


def believed(norm: bool = False) -> Model:
    """A small net in double precision, in which sums in another order differ too little to be told from the same trajectory."""
    torch.manual_seed(0)
    net = fc([48, 24, 16])
    if norm:
        net.relu1 = nn.Sequential(nn.BatchNorm1d(24), nn.ReLU())
    return model(tensorize(net, {"fc1": Form("tt_matrix", 4, (4, 6), (8, 6))}).double(), log_uniform(), categorical, 48)


def learned(make: str, norm: bool = False, **settings) -> Posterior:
    torch.manual_seed(9)
    believes, teacher = believed(norm), Teacher(fc([48, 16]).double())
    given = {"batches": BATCHES, "validation": (IMAGES, LABELS), "lr": 0.01, "epochs": 4, "teacher": teacher, **settings}
    return fit(believes, MAKE[make](believes), **given)


def numbers(posterior: Posterior) -> np.ndarray:
    """All weights' means, then all scales."""
    return torch.cat([tensor.flatten() for tensor in (*posterior.mean.values(), *posterior.scales.values())]).numpy()


def contents(posterior: Posterior) -> str:
    """A mark of every byte that decides what the net says, batch-norm's statistics included."""
    return digest(*(tensor.numpy() for tensor in posterior.net.state_dict().values()))


def both(rank: int, port: int, folder: Path) -> None:
    """What each of the two processes does; it leaves its findings in a file."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with together():
        found = {name: numbers(learned(name)).tolist() for name in MAKE}
        found["pieces"] = pieces(rank)
        budget = {"budget": Budget(600, 1, 3), "norm": True}
        whole = learned("point", checkpoint=folder / "whole", **budget)
        found["whole"], found["ranks"] = contents(whole), dict(whole.history[-1].ranks)
        budgets.survivors, survivors = (lambda *_, **__: {}) if rank else budgets.survivors, budgets.survivors
        found["undecided"] = contents(learned("point", **budget))
        budgets.survivors = survivors
        interrupt_at(7)
        found["interrupt"] = refused(lambda: learned("point", checkpoint=folder / "twice", **budget))
        found["resumed"] = contents(learned("point", checkpoint=folder / "twice", **budget))
        found["odd size"] = refused(lambda: learned("point", batches=replace(BATCHES, size=11)))
        found["other settings"] = refused(lambda: learned("point", lr=0.01 * (1 + rank)))
        found["alone's checkpoint"] = refused(lambda: learned("point", checkpoint=folder / "alone"))
        images = IMAGES.copy()
        images[[*BATCHES.epoch(1)][1][11]] = np.nan
        found["no number"] = refused(lambda: learned("point", batches=replace(BATCHES, images=images), teacher=None))
    (folder / f"{rank}.json").write_text(json.dumps(found))


def pieces(rank: int) -> list:
    """The verbs by themselves."""
    tensors = [torch.tensor(float(rank)), torch.full((2, 2), 1.0 + rank)]
    average(tensors)
    wait()
    agreed(16 * "f")
    means = [tensor.tolist() for tensor in tensors]
    own = torch.full((2,), rank)
    follow(own)
    return [count(), first(), part(torch.arange(6)).tolist(), means, decided(rank == 0), decided(rank == 1), own.tolist()]


def refused(work: Callable[[], object]) -> str:
    try:
        work()
    except (ValueError, FloatingPointError, KeyboardInterrupt) as fault:
        return str(fault)
    return "not refused"


def interrupt_at(number: int) -> None:
    """Let that step of this process be interrupted, once."""
    step, steps = fitting.step, iter(range(1, 99))

    def stop(*given) -> float:
        if next(steps) == number:
            fitting.step = step
            raise KeyboardInterrupt("stopped")
        return step(*given)

    fitting.step = stop


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("both")
    learned("point", checkpoint=folder / "alone")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawn(both, (port, folder), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) | {"folder": folder} for rank in (0, 1)]


def test_alone_there_is_nothing_to_share() -> None:
    with together():
        tensor = torch.ones(3)
        average([tensor])
        follow(tensor)
        wait()
        agreed("anything")
        assert count() == 1 and first() and part(tensor) is tensor and tensor.tolist() == [1, 1, 1]
        assert decided(True) and not decided(False)


def test_two_share_what_they_have(findings: list[dict]) -> None:
    mean = [0.5, [[1.5, 1.5], [1.5, 1.5]]]
    assert findings[0]["pieces"] == [2, True, [0, 1, 2], mean, True, False, [0, 0]]
    assert findings[1]["pieces"] == [2, False, [3, 4, 5], mean, True, False, [0, 0]]


@pytest.mark.parametrize("make", MAKE)
def test_two_take_the_steps_of_one_with_whole_batches(make: str, findings: list[dict]) -> None:
    """Not to the bit: a mean of two halves' means is rounded elsewhere. 16 steps of Adam, in double precision."""
    alone = numbers(learned(make))
    assert findings[0][make] == findings[1][make]
    np.testing.assert_allclose(findings[0][make], alone, rtol=1e-6, atol=1e-9)
    assert np.abs(alone - numbers(learned(make, epochs=1))).max() > 1e-2


def test_the_first_decides_for_two_what_a_budget_cuts(findings: list[dict]) -> None:
    """The second would cut nothing."""
    for found in findings:
        assert found["undecided"] == found["whole"] and found["ranks"]["fc1.r1"] < 4


def test_two_resume_to_the_same_bytes(findings: list[dict]) -> None:
    one, other = findings
    assert one["interrupt"] == other["interrupt"] == "stopped"
    assert one["resumed"] == other["resumed"] == one["whole"] == other["whole"]
    assert (one["folder"] / "twice").read_bytes() == (one["folder"] / "whole").read_bytes()


def test_what_does_not_fit_is_refused_by_both(findings: list[dict]) -> None:
    for found in findings:
        assert "a batch of 11 images cannot be cut into 2 equal parts: give a size that 2 divides" in found["odd size"]
        assert "process 1 was given another net, data or settings than process 0" in found["other settings"]
        assert "processes 1 there and 2 here" in found["alone's checkpoint"]
        assert "training ended in epoch 1, batch 2 of 4: the objective is nan" in found["no number"]
