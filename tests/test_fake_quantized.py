"""The arithmetic of integer training in floats, held to the definition: scores, errors, gradients, shifts; and that nets learn in it."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fit import contents
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bayestt.algebra.factorization import Factorization
from bayestt.algebra.formats import Form, tt_matrix
from bayestt.bayes import fit as fitting
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.posterior import Posterior
from bayestt.bayes.prior import log_uniform
from bayestt.bayes.prune import prune, ranks
from bayestt.bayes.svgd import particles
from bayestt.data import fashion_mnist
from bayestt.ir.descend import State, Values, accumulated, accumulator_frac, contracted, controlled, error, factors_of, fractions, values_of
from bayestt.ir.start import start
from bayestt.ir.training import ERROR_FRAC, GRADIENT_BITS, SCORE_FRAC, Contraction, Training, training
from bayestt.nets import weights
from bayestt.nets.fake_quantized import ERROR, PRECISION, FakeQuantized
from bayestt.nets.fc import fc
from bayestt.nets.resnet import resnet
from bayestt.nets.rounded import nearest
from bayestt.nets.tensorize import tensorize

pytestmark = pytest.mark.filterwarnings("ignore:ranks clipped")


@dataclass
class Case:
    """A small training in integers with its state and images, and the net that imitates it."""

    training: Training
    state: State
    images: np.ndarray
    labels: np.ndarray
    net: FakeQuantized

    @property
    def x(self) -> Tensor:
        return torch.from_numpy(self.images / 128.0).float()

    def values(self, image: np.ndarray, label: int | None = None, given: np.ndarray | None = None) -> Values:
        """All values of an image by the definition, from its label or from a given error."""
        fracs = fractions(self.training, self.state.shifts)
        values = values_of(self.training, fracs, factors_of(self.training, self.state), image, label)
        if given is not None:
            values["error"] = given
            for each in self.training.backward:
                values[each.name] = contracted(self.training, each, values, fracs)
        return values

    def gradient(self, name: str) -> np.ndarray:
        """The gradient that the net gives a weight, as its integer sum over images."""
        frac = fractions(self.training, self.state.shifts)[self.training.gradients[name]]
        grad = dict(self.net.named_parameters())[name].grad.double().numpy() * len(self.images) * 2.0**frac
        return grad.reshape(self.training.shape(self.training.parameters[name].axes))


def case(forms: Mapping[str, Factorization], seed: int, images: int) -> Case:
    random = np.random.default_rng(seed)
    chain, sizes = training(forms), [form.shape for form in forms.values()]
    given, labels = random.integers(-128, 128, (images, sizes[0][1])), random.integers(0, sizes[-1][0], images)
    state = start(chain, given, labels, seed)
    drawn = {name: random.integers(-128, 128, latent.shape) for name, latent in state.latents.items() if name.endswith("bias")}
    state = replace(state, latents={**state.latents, **drawn}, steps=1)
    net = FakeQuantized(tensorize(fc([sizes[0][1], *(rows for rows, _ in sizes)]), forms))
    put(net, state)
    return Case(chain, state, given, labels, net)


@torch.no_grad()
def put(net: FakeQuantized, state: State) -> None:
    """Give a net the latents and shifts of a state."""
    for name, weight in net.named_parameters():
        latent = state.latents[name] * 2.0 ** -net.chain.parameters[name].latent.frac
        weight.copy_(torch.from_numpy(latent.reshape(weight.shape)))
    for buffer, numbers in ((net.shifts, state.shifts), (net.counts, state.counts)):
        buffer.copy_(torch.tensor(list(numbers.values())))
    net.steps.fill_(state.steps)


@st.composite
def cases(draw, images: st.SearchStrategy[int]) -> Case:
    """One to three layers in any format."""
    modes = st.lists(st.integers(1, 4), min_size=(cores := draw(st.integers(1, 3))), max_size=cores)
    grids = [draw(modes) for _ in range(draw(st.integers(2, 4)))]
    format = draw(st.sampled_from(["tt_matrix", "tensor_train", "cp", "tucker"]))
    forms = {
        f"fc{k}": Form(format, draw(st.integers(1, 4)), rows, cols).factorization(prod(rows), prod(cols))
        for k, (cols, rows) in enumerate(pairwise(grids), start=1)
    }
    return case(forms, draw(st.integers(0, 99)), draw(images))


@settings(max_examples=60, deadline=None)
@given(case=cases(st.integers(1, 4)))
def test_scores_are_the_definitions(case: Case) -> None:
    scores = case.training.scored.name
    expected = np.stack([case.values(image)[scores].reshape(-1) for image in case.images])
    assert (case.net(case.x).detach().numpy() == expected * 2.0**-SCORE_FRAC).all()
    assert (case.net.eval()(case.x).detach().numpy() == expected * 2.0**-SCORE_FRAC).all()


@settings(max_examples=60, deadline=None)
@given(case=cases(st.integers(1, 4)), seed=st.integers(0, 99))
def test_with_the_same_errors_an_images_gradients_are_the_definitions_and_a_batchs_within_half_a_step_each(case: Case, seed: int) -> None:
    scores, n = case.net(case.x), len(case.images)
    given = np.random.default_rng(seed).integers(-(1 << ERROR_FRAC), 1 << ERROR_FRAC, scores.shape)
    scores.backward(torch.from_numpy(given * 2.0**-ERROR_FRAC / n).float())
    several = [case.values(image, given=one) for image, one in zip(case.images, given, strict=True)]
    for name, gradient in case.training.gradients.items():
        parts = np.stack([values[gradient] for values in several])
        each = next(each for each in case.training.backward if each.name == gradient)
        allowed = added(case, each, several) + ((n + 1) / 2 if n > 1 or added(case, each, several) else 0)
        held = np.abs(parts).sum(0) < (1 << (GRADIENT_BITS - 1)) - 1
        assert (np.abs(case.gradient(name) - parts.sum(0))[held] <= allowed + 1e-3).all(), name
    if n == 1:
        largest = {name: int(np.abs(several[0][name]).max()) for name in case.state.shifts}
        shifts, counts = controlled(case.training, case.state.shifts, case.state.counts, case.state.steps, largest)
        assert case.net.shifts.tolist() == list(shifts.values()) and case.net.counts.tolist() == list(counts.values())
        assert int(case.net.steps) == 2


def added(case: Case, each: Contraction, several: list[Values]) -> float:
    """What float32 may lose of the sums of a gradient, in steps: terms * 2**-24 of the sum of their magnitudes (Higham 2002, 4.2)."""
    fracs = fractions(case.training, case.state.shifts)
    size = sum(accumulated(case.training, each, {name: np.abs(value) for name, value in values.items()}, fracs).max() for values in several)
    terms = len(several) * prod(case.training.size[axis] for axis in {axis for _, axes in each.args for axis in axes} - {*each.axes})
    return 0 if size < 1 << 23 else terms * 2.0**-24 * size / 2 ** (accumulator_frac(each, fracs) - fracs[each.name])


@settings(max_examples=60)
@given(scores=st.lists(st.integers(-128, 127), min_size=2, max_size=16), data=st.data())
def test_an_exact_softmax_is_the_definitions_within_an_80th_of_a_chance_and_two_steps(scores: list[int], data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(scores) - 1))
    chances = torch.tensor(scores).double().mul(2.0**-SCORE_FRAC).softmax(0)
    exact = nearest(chances - torch.eye(len(scores), dtype=torch.float64)[label], ERROR).numpy()
    assert (np.abs(exact - error(np.array(scores), label)) <= apart(chances.numpy())).all()


def apart(chances: np.ndarray) -> np.ndarray:
    """How far an error may be from the definition's, in steps."""
    return chances * 2**ERROR_FRAC / 80 + 2


@settings(max_examples=40, deadline=None)
@given(case=cases(st.integers(1, 4)))
def test_of_labels_gradients_differ_by_what_the_softmax_does_carried_on(case: Case) -> None:
    """Every contraction multiplies a deviation by the magnitudes of what it reads, and adds a step at most."""
    scores = case.net(case.x)
    cross_entropy(scores, torch.from_numpy(case.labels)).backward()
    chain, fracs, sums = case.training, fractions(case.training, case.state.shifts), {}
    several = [case.values(*pair) for pair in zip(case.images, case.labels, strict=True)]
    for values, chances in zip(several, scores.detach().double().softmax(1).numpy(), strict=True):
        off = {name: np.abs(value) for name, value in values.items()} | {"error": apart(chances)}
        for each in chain.backward:
            carried = accumulated(chain, each, {**off}, fracs) / 2 ** (accumulator_frac(each, fracs) - fracs[each.name])
            if each.name in chain.gradients.values():
                sums[each.name] = sums.get(each.name, 0) + carried + 1
            else:
                off[each.name] = carried + 2
    for name, gradient in chain.gradients.items():
        parts = np.stack([values[gradient] for values in several])
        held = np.abs(parts).sum(0) < (1 << (GRADIENT_BITS - 1)) - 1
        assert (np.abs(case.gradient(name) - parts.sum(0))[held] <= (sums[gradient] + 1)[held]).all(), name


def paper() -> Case:
    """The net 896-512-16 of Zhang et al. 2021, and images of clothes."""
    made = case({"fc1": tt_matrix([4, 4, 2, 16], [7, 4, 2, 16], 16), "fc2": tt_matrix([1, 16], [32, 16], 16)}, 0, 8)
    data = fashion_mnist.small().train
    images = np.pad((data.images[:8] * 127).astype(np.int64), ((0, 0), (0, 0), (2, 2))).reshape(8, -1)
    made = replace(made, images=images, labels=data.labels[:8], state=start(made.training, images, data.labels[:8], 0))
    put(made.net, made.state)
    return made


def test_the_papers_net_starts_with_the_definitions_shifts_and_its_gradients_within_a_hundredth() -> None:
    case = paper()
    case.net.shifts.zero_()
    cross_entropy(case.net(case.x), torch.from_numpy(case.labels)).backward()
    assert case.net.shifts.tolist() == list(case.state.shifts.values()) and int(case.net.steps) == 1
    several = [case.values(*pair) for pair in zip(case.images, case.labels, strict=True)]
    for name, gradient in case.training.gradients.items():
        total = sum(values[gradient] for values in several)
        assert np.linalg.norm(case.gradient(name) - total) < 0.01 * np.linalg.norm(total), name


def test_a_weight_beyond_its_latents_range_is_driven_back_only() -> None:
    for sign in (1, -1):
        given = case({"fc1": tt_matrix([2, 2], [2, 2], 2)}, 0, 4)
        core = given.net.fc1.core0
        latent = given.training.parameters["fc1.core0"].latent
        inside = torch.from_numpy(given.state.latents["fc1.core0"] * 2.0**-latent.frac).float()
        found = []
        for start_at in (inside, sign * (latent.high + 2) * 2.0**-latent.frac * torch.ones_like(inside)):
            core.data, core.grad = start_at, None
            given.net(given.x)[:, 0].mean().backward()
            found.append(core.grad)
        assert (found[0] != 0).any() and (found[1] * sign >= 0).all()
        assert (found[1] == 0).any() and (found[1] != 0).any()


def small(images: int = 1000, rank: int = 8) -> tuple[FakeQuantized, np.ndarray, np.ndarray]:
    """A net of the embedded clothes' size, and some of them."""
    torch.manual_seed(0)
    data = fashion_mnist.small().train
    forms = {"fc1": Form("tt_matrix", rank, [4, 4, 4], [7, 8, 14]), "fc2": Form("tt_matrix", rank, [2, 5], [8, 8])}
    return FakeQuantized(tensorize(fc([784, 64, 10]), forms)), data.images[:images], data.labels[:images]


def believed(images: int = 1000) -> tuple[Model, Batches, tuple[np.ndarray, np.ndarray]]:
    net, x, labels = small(images)
    return model(net, log_uniform(), categorical, images), Batches(x, labels, 50), (x, labels)


@pytest.fixture(scope="module")
def learned() -> Posterior:
    believes, batches, validation = believed()
    return fit(believes, point(believes), batches, validation, lr=1e-2, epochs=8, weight=0.6, ramp=4, threshold=0.05)


def test_a_map_run_learns_and_finds_its_ranks(learned: Posterior) -> None:
    first, last = learned.history[0], learned.history[-1]
    assert last.nll < 0.8 * first.nll and last.accuracy > 0.7
    assert sum(last.ranks.values()) < sum(ranks(learned.net).values())
    pruned = prune(learned, 0.05)
    assert sum(w.numel() for w in pruned.parameters()) < sum(w.numel() for w in learned.net.parameters())
    assert ranks(pruned) == last.ranks and pruned.chain.size != learned.net.chain.size


def test_ranks_of_zeros_leave_no_trace_when_they_are_cut(learned: Posterior) -> None:
    net = small()[0]
    net.load_state_dict(learned.net.state_dict())
    with torch.no_grad():
        net.fc1.core0[..., 2:5] = 0
        net.fc2.core1[3] = 0
    cut, x = prune(net, 1e-9), torch.from_numpy(small(100)[1])
    assert ranks(cut)["fc1.r1"] == 5 and ranks(cut)["fc2.r1"] == 7
    for each in (cut, net):
        cross_entropy(each(x), torch.zeros(100, dtype=torch.int64)).backward()
    assert torch.equal(cut.fc1.bias.grad, net.fc1.bias.grad) and torch.equal(cut.fc2.bias.grad, net.fc2.bias.grad)
    assert torch.equal(prune(net, 1e-9)(x), net(x))


def test_the_plain_net_has_the_factors_for_weights(learned: Posterior) -> None:
    plain, x = learned.net.plain(), torch.from_numpy(small(100)[1])
    assert type(plain) is nn.Sequential and plain(x).shape == (100, 10)
    for name, weight in plain.named_parameters():
        factor = learned.net.chain.parameters[name].factor
        integers = weight.detach() * 2.0**factor.frac
        assert (integers == integers.round()).all() and integers.min() >= factor.low and integers.max() <= factor.high
    again = FakeQuantized(plain)
    for buffer in ("shifts", "counts", "steps"):
        getattr(again, buffer).copy_(getattr(learned.net, buffer))
    assert torch.equal(again(x), learned.net(x))


def test_shifts_are_saved_with_the_weights_and_predictions_leave_them_alone(learned: Posterior, tmp_path: Path) -> None:
    x, before = torch.from_numpy(small(100)[1]), learned.net.shifts.tolist()
    weights.save(learned.net, tmp_path / "net")
    again = weights.load(small()[0], tmp_path / "net").eval()
    assert torch.equal(again(x), learned.net(x)) and again.shifts.tolist() == learned.net.shifts.tolist() == before
    weights.save(prune(learned, 0.05), tmp_path / "pruned")
    assert torch.equal(weights.load(small()[0], tmp_path / "pruned")(x), prune(learned, 0.05)(x))


@pytest.mark.parametrize("make", [point, mean_field])
def test_an_interrupted_training_ends_with_the_same_bytes(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    believes, batches, validation = believed(200)

    def run(name: str) -> Posterior:
        return fit(believes, make(believes), batches, validation, lr=1e-2, epochs=3, ramp=1, checkpoint=tmp_path / name)

    whole = run("whole")
    steps, step = iter(range(100)), fitting.step

    def stop(*given) -> float:
        if next(steps) == 6:
            monkeypatch.setattr(fitting, "step", step)
            signal.raise_signal(signal.SIGINT)
        return step(*given)

    monkeypatch.setattr(fitting, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        run("twice")
    resumed = run("twice")
    assert contents(resumed) == contents(whole)
    assert (tmp_path / "twice").read_bytes() == (tmp_path / "whole").read_bytes()
    assert resumed.net.shifts.tolist() == whole.net.shifts.tolist() and int(whole.net.steps) == 12
    assert int(believes.net.steps) == 0


def test_particles_bfloat16_and_images_that_are_no_numbers_are_refused() -> None:
    believes, batches, validation = believed(100)
    with pytest.raises(ValueError, match="one set of weights at a time, and particles are many: give another guide"):
        fit(believes, particles(believes, 2), batches, validation, lr=1e-2, epochs=1)
    with pytest.raises(ValueError, match="4/8/16 bits computes in float32, and autocast rounds once more: give fit precision fp32"):
        fit(believes, point(believes), batches, validation, lr=1e-2, epochs=1, precision="bf16")
    odd = replace(batches, images=np.full_like(batches.images, np.nan))
    with pytest.raises(FloatingPointError, match="the images hold one that is not finite"):
        fit(believes, point(believes), odd, validation, lr=1e-2, epochs=1)


LAYER = {"fc*": Form("tt_matrix", 2, [2, 2], [2, 2])}


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (tensorize(fc([4, 4, 4]), {"fc1": LAYER["fc*"]}), "layer 'fc2' .Linear"),
        (tensorize(fc([4, 4]), LAYER).append(nn.ReLU()), "layer '2' .ReLU"),
        (tensorize(fc([4, 4]), LAYER).append(nn.Tanh()).append(nn.Linear(4, 4)), "layer '2' .Tanh"),
        (tensorize(fc([4, 4]), LAYER, recompute=True), "layer 'fc1' .TensorizedLinear"),
        (tensorize(nn.Sequential(nn.Linear(4, 4, bias=False)), {"0": LAYER["fc*"]}), "layer '0' .TensorizedLinear"),
        (tensorize(nn.Sequential(nn.Conv2d(4, 4, 3)), {"0": Form("tucker", 2)}), "layer '0' .TensorizedConv2d"),
        (resnet(8, 4, 10), "layer 'stem' .Sequential"),
        (nn.Linear(4, 4), "the network .Linear"),
    ],
)
def test_what_has_no_such_arithmetic_is_refused_by_name(net: nn.Module, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}. has no arithmetic of {PRECISION} bits: give a chain of tensorized linear layers"):
        FakeQuantized(net)
