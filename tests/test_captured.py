"""A step reads nothing back, so that a GPU can keep its kernels as a graph; replayed, they train as the same kernels one by one."""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fit import VALIDATION, batches, believed
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bayestt.algebra.formats import Form
from bayestt.bayes import fit as fitting
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import MeanField, Point, mean_field, point
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.prior import Prior, gamma, gamma_product, half_cauchy, inverse_gamma, log_uniform
from bayestt.bayes.statistics import learning
from bayestt.bayes.step import differentiate
from bayestt.bayes.svgd import particles
from bayestt.bayes.teacher import Lesson, Teacher
from bayestt.data.augment import CropAndFlip
from bayestt.nets import contract
from bayestt.nets.fc import fc
from bayestt.nets.resnet import resnet
from bayestt.nets.tensorize import tensorize

aten = torch.ops.aten
PRIORS = [log_uniform(), log_uniform(product=True), half_cauchy(1.0), inverse_gamma(1.0, 5.0), gamma(), gamma_product()]
GUIDES = {"point": point, "mean_field": mean_field, "particles": lambda believes: particles(believes, 3)}
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


class Waiting(TorchDispatchMode):
    """Refuses what a GPU would have to wait for: values given to Python, and tensors sent from the processor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not aten._local_scalar_dense.default, "a number was read back"
        made = func(*args, **(kwargs or {}))
        if func in (aten._to_copy.default, aten.copy_.default):
            devices = {each.device.type for each in tree_leaves((args, made)) if isinstance(each, Tensor)}
            assert len(devices) == 1, "a tensor was sent"
        return made


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
@pytest.mark.parametrize("make", ["point", "mean_field"])
def test_a_pass_makes_no_gpu_wait(prior: Prior, make: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's meta device: it holds no numbers to read, and whatever is sent to it is seen."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none on this device
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(contract, "choose", lambda form, contractions, *_: next(iter(contractions.values())))
    contract._chosen.cache_clear()
    believes = believed(prior, norm=True)
    parts = [part.detach().to("meta") for part in GUIDES[make](believes).parameters()]
    guide = (Point if make == "point" else MeanField)(*parts)
    laid = replace(believes.layout, scales=believes.layout.scales.to("meta"), count=believes.layout.count.to("meta"))
    with torch.device("meta"):
        x, labels, scores, weight = torch.zeros(8, 48), torch.zeros(8, dtype=torch.int64), torch.zeros(8, 16), torch.zeros(())
        believes = replace(believes, layout=laid, scale=prior.scale(len(laid.count)))
    with learning(believes.net), Waiting():
        differentiate(believes, guide, x, labels, weight, 0.5, Lesson(scores, 0.5, 2.0), "fp32")
    assert next(guide.parameters()).grad.is_meta
    contract._chosen.cache_clear()


class Branching(nn.Module):
    """Twice as much where a mean is above zero: a branch on data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(48, 8), nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.first(x))
        return self.last(2 * y if float(y.mean()) > 0 else y)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one with every graph that is replayed."""
    done: list[None] = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (done.append(None), replay(graph)))
    return done


def on_gpu(believes: Model) -> Model:
    return model(believes.net.cuda(), believes.prior, believes.likelihood, believes.num_data)


@gpu
@pytest.mark.parametrize("make", GUIDES)
def test_replayed_kernels_train_as_the_same_one_by_one(make: str, replays: list[None], monkeypatch: pytest.MonkeyPatch) -> None:
    believes = on_gpu(believed())
    given = {"lr": 1e-3, "epochs": 3, "ramp": 2, "rho": 0.5, "teacher": Teacher(fc([48, 16]).cuda())}
    captured = fit(believes, GUIDES[make](believes), batches(), VALIDATION, **given)
    assert len(replays) == 3 * len(batches()) - 4  # the first step, without a prior, and three passes before the capture
    monkeypatch.setattr(fitting, "Captured", lambda: differentiate)
    eager = fit(believes, GUIDES[make](believes), batches(), VALIDATION, **given)
    assert [epoch.loss for epoch in captured.history] == pytest.approx([epoch.loss for epoch in eager.history], rel=1e-4)
    for name, weight in eager.mean.items():
        assert torch.allclose(captured.mean[name], weight, rtol=1e-2, atol=1e-4), name


@gpu
def test_a_net_that_waits_is_trained_without_a_graph(replays: list[None]) -> None:
    torch.manual_seed(0)
    believes = model(Branching().cuda(), log_uniform(), categorical, 96)
    learned = fit(believes, point(believes), batches(), VALIDATION, lr=1e-3, epochs=3)
    assert learned.history[-1].loss < learned.history[0].loss and not replays


@gpu
def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    believes = on_gpu(believed())
    given = {"lr": 1e-3, "epochs": 4, "ramp": 2}
    whole = fit(believes, point(believes), batches(), VALIDATION, **given)

    def stop(number: int, *_) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(believes, point(believes), batches(), VALIDATION, **given, checkpoint=tmp_path / "state", watch=stop)
    resumed = fit(believes, point(believes), batches(), VALIDATION, **given, checkpoint=tmp_path / "state")
    assert [epoch.loss for epoch in resumed.history] == pytest.approx([epoch.loss for epoch in whole.history], rel=1e-4)


def slope(believes: Model, device: str, precision: str) -> tuple[float, Tensor]:
    """Objective and gradient of a batch of images."""
    believes = model(deepcopy(believes.net).to(device), believes.prior, categorical, 1000)
    guide = point(believes)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 32, 32, generator=generator).to(device, memory_format=torch.channels_last)
    labels = torch.randint(10, (64,), generator=generator).to(device)
    with learning(believes.net):
        loss = differentiate(believes, guide, x, labels, 1e-3, 1.0, None, precision)
    return loss.item(), guide.theta.grad.cpu()


@gpu
@pytest.mark.parametrize(
    "format", [{"format": "tucker", "rank": 8}, {"format": "tensor_train", "rank": 4}, {"format": "cp", "rank": 16}], ids=str
)
def test_a_gpu_agrees_with_the_processor(format: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 to a thousandth; in bfloat16 the objective to a hundredth, the direction of its gradient to a cosine of 0.97."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    believes = model(tensorize(resnet(14), {"stage3.*.conv?": Form(**format)}), log_uniform(), categorical, 1000)
    (here, slope_here), (there, slope_there), (rough, slope_rough) = (
        slope(believes, *where) for where in (("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "bf16"))
    )
    assert there == pytest.approx(here, rel=1e-3) and rough == pytest.approx(here, rel=1e-2)
    assert torch.linalg.norm(slope_there - slope_here) < 1e-3 * torch.linalg.norm(slope_here)
    assert torch.cosine_similarity(slope_rough, slope_here, 0) > 0.97


@gpu
def test_a_residual_net_learns_in_bfloat16_by_a_graph(replays: list[None]) -> None:
    torch.manual_seed(0)
    images, labels = np.random.default_rng(0).standard_normal((512, 3, 32, 32), np.float32), np.arange(512) % 10
    images[np.arange(512), 0, labels] += 3.0  # a row of each class's own is bright
    net = tensorize(resnet(20), {"stage3.*.conv?": Form("tucker", 16)})
    believes = model(net.cuda(), log_uniform(), categorical, 512)
    taught = Batches(images, labels, 64, augment=CropAndFlip(padding=0))
    learned = fit(
        believes, point(believes), taught, (images, labels), lr=3e-3, epochs=8, precision="bf16", teacher=Teacher(resnet(8).cuda(), 0.1)
    )
    assert len(replays) == 8 * 8 - 3 and learned.history[-1].accuracy > 0.9
