"""TensorBoard: what is written can be read again; without the package one sentence says how to get it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from watch import tensorboard

from bayestt.algebra.formats import Form
from bayestt.bayes.posterior import Epoch
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize


def test_every_epoch_is_written(tmp_path: Path) -> None:
    net = tensorize(fc([784, 512, 10]), {"fc1": Form("tt_matrix", 3)})
    watch = tensorboard(tmp_path)
    for number in (1, 2, 3):
        watch(number, Epoch(1.0 / number, 0.5, 0.7, {"fc1.r1": 3 - number % 2, "fc1.r2": 3}), net)
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in read.Scalars("rank/fc1.r1")] == [(1, 2), (2, 3), (3, 2)]
    assert [event.value for event in read.Scalars("objective")] == pytest.approx([1, 1 / 2, 1 / 3])
    assert [event.value for event in read.Scalars("validation/nll")] == pytest.approx([0.7] * 3)
    assert set(read.Tags()["histograms"]) == {"contributions/fc1.r1", "contributions/fc1.r2", "contributions/fc1.r3"}
    last = read.Histograms("contributions/fc1.r1")[-1].histogram_value
    assert last.num == 3 and last.max == 0 and np.isfinite(last.min)


def test_without_the_package_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'bayestt\[tensorboard\]'"):
        tensorboard(tmp_path)
