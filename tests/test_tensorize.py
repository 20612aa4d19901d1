"""Tensorized layers multiply by their dense weight, start like dense ones, and live in any network, file and transform."""

import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from bayestt.algebra.factorization import dense, shrink
from bayestt.algebra.formats import FORMATS, Form, tt_matrix
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import TensorizedLinear, tensorize

FORM = tt_matrix((4, 3), (2, 5), 3)


def form_of(name: str, rank: int = 3):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FORMATS[name]((4, 3), (2, 5), rank)


@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_multiplies_by_its_dense_weight(name: str) -> None:
    layer, x = TensorizedLinear(form_of(name)), torch.randn(7, 10)
    weight = dense(layer.form, [core.detach().numpy() for core in layer.cores])
    np.testing.assert_allclose(layer.dense().detach(), weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(layer(x), x @ torch.tensor(weight, dtype=torch.float32).T + layer.bias)


def test_sites_have_names() -> None:
    net = tensorize(fc([10, 12, 3]), {"fc1": FORM})
    assert list(net.state_dict()) == ["fc1.core0", "fc1.core1", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert "in_features=10, out_features=12, ranks r1=3, bias=True" in repr(net)


def test_without_a_bias_there_is_none() -> None:
    layer = TensorizedLinear(FORM, bias=False)
    assert layer.bias is None and "bias" not in layer.state_dict()
    torch.testing.assert_close(layer(torch.eye(10)).T, layer.dense())


@pytest.mark.parametrize("name", FORMATS)
def test_a_fresh_layer_varies_like_a_dense_one(name: str) -> None:
    torch.manual_seed(0)
    layer, linear = TensorizedLinear(FORMATS[name]((8, 8), (16, 16), 4)), nn.Linear(256, 64)
    assert layer.dense().detach().std().item() == pytest.approx(linear.weight.detach().std().item(), rel=0.1)
    assert layer.bias.abs().max() <= 1 / 16


def test_torchs_seed_decides_the_first_cores() -> None:
    layers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        layers.append(TensorizedLinear(FORM))
    assert torch.equal(layers[0].core0, layers[1].core0) and not torch.equal(layers[0].core0, layers[2].core0)


def test_the_nearest_layer_of_a_dense_one() -> None:
    linear = nn.Linear(10, 12)
    with torch.no_grad():
        linear.weight.copy_(TensorizedLinear(FORM).dense())
    layer = TensorizedLinear.from_linear(linear, FORM)
    torch.testing.assert_close(layer.dense(), linear.weight, atol=1e-5, rtol=1e-4)
    assert torch.equal(layer.bias, linear.bias) and layer.bias.data_ptr() != linear.bias.data_ptr()
    with pytest.raises(ValueError, match=r"12 rows and 10 columns and the form 4\*3 = 12 rows and 2\*4 = 8 columns: give modes"):
        TensorizedLinear.from_linear(linear, tt_matrix((4, 3), (2, 4), 3))


@pytest.mark.parametrize("recompute", [False, True])
def test_torchs_transforms_go_through(recompute: bool) -> None:
    layer, x = TensorizedLinear(FORM, recompute=recompute), torch.randn(5, 10)
    weights = {name: torch.stack([value.detach(), 2 * value.detach()]) for name, value in layer.named_parameters()}

    def loss(given: dict, x: torch.Tensor) -> torch.Tensor:
        return functional_call(layer, given, (x,)).square().sum()

    slopes = vmap(grad(loss), in_dims=(0, None))(weights, x)
    for k in range(2):
        alone = grad(loss)({name: value[k] for name, value in weights.items()}, x)
        for name, slope in alone.items():
            torch.testing.assert_close(slopes[name][k], slope, rtol=1e-4, atol=1e-4)


def test_recomputing_keeps_x_alone_and_trains_the_same() -> None:
    torch.manual_seed(0)
    net = tensorize(fc([10, 12, 3]), {"fc1": FORM})
    again = tensorize(fc([10, 12, 3]), {"fc1": FORM}, recompute=True)
    again.load_state_dict(net.state_dict())
    x = torch.randn(4, 10)
    slopes = [torch.autograd.grad(each(x).square().sum(), tuple(each.parameters())) for each in (net, again)]
    assert all(torch.equal(one, other) for one, other in zip(*slopes, strict=True))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.data_ptr()) or tensor, lambda tensor: tensor):
        again.fc1(x)
    assert set(kept) == {tensor.data_ptr() for tensor in (x, *again.fc1.cores)}


def test_the_network_given_stays_as_it_was() -> None:
    net = fc([10, 12, 3])
    smaller = tensorize(net, {"fc1": FORM})
    assert isinstance(net.fc1, nn.Linear) and isinstance(smaller.fc1, TensorizedLinear)
    assert torch.equal(smaller.fc2.weight, net.fc2.weight) and smaller.fc2.weight is not net.fc2.weight


def test_globs_reach_nested_layers_and_the_first_decides() -> None:
    net = nn.Sequential()
    net.add_module("head", fc([12, 12]))
    net.add_module("tail", fc([12, 12, 12]))
    smaller = tensorize(net, {"tail.fc2": Form("cp", 2, (12,), (12,)), "*.fc?": Form("tt_matrix", 2, (4, 3), (4, 3))})
    formats = {name: len(layer.form.cores[0]) for name, layer in smaller.named_modules() if isinstance(layer, TensorizedLinear)}
    assert formats == {"head.fc1": 3, "tail.fc1": 3, "tail.fc2": 2}


def test_a_layers_type_is_kept() -> None:
    assert tensorize(fc([10, 12]).double(), {"fc1": FORM}).fc1.core0.dtype == torch.float64
    assert tensorize(nn.Sequential(nn.Linear(10, 12, bias=False)), {"0": FORM})[0].bias is None


@pytest.mark.parametrize(
    ("glob", "form", "message"),
    [
        ("conv*", FORM, "no layer matches 'conv.': the nearest names are"),
        ("fc3", FORM, "no layer matches 'fc3': the nearest names are fc[12], fc[12], "),
        ("relu1", FORM, "layer 'relu1' is a ReLU, expected a Linear or a Conv2d: give globs that match such"),
        ("fc2", FORM, r"layer 'fc2' has 3 rows and 12 columns and the form 4\*3 = 12 rows and 2\*5 = 10 columns: give modes"),
        ("fc1", Form("tt_matrix", 2, (4, 4), (2, 5)), r"row modes 4 \* 4 = 16 and the weight has 12 rows"),
    ],
)
def test_what_does_not_fit_is_refused(glob: str, form, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensorize(fc([10, 12, 3]), {glob: form})


def saved(net: nn.Module) -> dict:
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_smaller_ranks_load_and_train_on() -> None:
    net = tensorize(fc([10, 12, 3]), {"fc1": FORM})
    small = tensorize(fc([10, 12, 3]), {"fc1": tt_matrix((4, 3), (2, 5), 2)})
    net.load_state_dict(saved(small))
    x = torch.randn(4, 10)
    torch.testing.assert_close(net(x), small(x))
    assert net.fc1.form == small.fc1.form and all(torch.equal(a, b) for a, b in zip(net.parameters(), small.parameters(), strict=True))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001)
    before = net(x).square().sum()
    before.backward()
    optimizer.step()
    assert net(x).square().sum() < before


def test_equal_ranks_load_into_the_same_parameters() -> None:
    net, other = (tensorize(fc([10, 12]), {"fc1": FORM}) for _ in range(2))
    parameter = net.fc1.core0
    net.load_state_dict(saved(other))
    assert net.fc1.core0 is parameter and torch.equal(parameter, other.fc1.core0)


@pytest.mark.parametrize("form", [tt_matrix((3, 4), (2, 5), 3), tt_matrix((4, 3), (5, 2), 2)])
def test_other_modes_do_not_load(form) -> None:
    with pytest.raises(RuntimeError, match="size mismatch for fc1.core0"):
        tensorize(fc([10, 12]), {"fc1": FORM}).load_state_dict(tensorize(fc([10, 12]), {"fc1": form}).state_dict())


def test_cores_that_disagree_do_not_load() -> None:
    net = tensorize(fc([10, 12]), {"fc1": FORM})
    _, cores = shrink(FORM, [core.detach().numpy() for core in net.fc1.cores], {"r1": [0, 2]})
    with pytest.raises(RuntimeError, match="size mismatch for fc1.core1"):
        net.load_state_dict(net.state_dict() | {"fc1.core1": torch.from_numpy(cores[1])})
