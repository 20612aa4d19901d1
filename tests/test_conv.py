"""Tensorized convolutions equal dense ones, start like them, and are found, believed, pruned and loaded as linear layers are."""

import io
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from bayestt.algebra.factorization import dense
from bayestt.algebra.formats import FORMATS, Form, cp, tensor_train, tucker
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import point
from bayestt.bayes.layout import layout
from bayestt.bayes.model import categorical, model
from bayestt.bayes.prior import Prior, gamma_product, log_uniform
from bayestt.bayes.prune import prune, ranks
from bayestt.data.planted import planted
from bayestt.nets.conv import TensorizedConv2d
from bayestt.nets.tensorize import TensorizedLinear, tensorize, tensorized

FORM = tensor_train((4, 2), (3, 2), 2, (3, 3))
pairs = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))
pytestmark = pytest.mark.usefixtures("conv_choices")


def whole(name: str, taps: tuple[int, int]):
    """A form that holds any kernel of 6 to 8 channels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FORMATS[name]((4, 2), (3, 2), 999, taps if max(taps) > 1 else ())


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    """With 6 channels in, 8 out."""
    kernel_size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.one_of(st.sampled_from(["same", "valid"]), st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3))))
    stride = 1 if padding == "same" else draw(pairs)
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    return nn.Conv2d(6, 8, kernel_size, stride, padding, draw(pairs), bias=draw(st.booleans()), padding_mode=mode)


@settings(max_examples=15)
@example(nn.Conv2d(6, 8, (2, 3), padding="same", dilation=(3, 1)), "tucker")
@example(nn.Conv2d(6, 8, (3, 2), padding="same", padding_mode="reflect"), "tensor_train")
@given(convolutions(), st.sampled_from(["tensor_train", "tucker", "tt_matrix"]))
def test_at_full_ranks_it_is_the_convolution_it_came_from(conv: nn.Conv2d, name: str) -> None:
    x = torch.randn(2, 6, 8, 9)
    layer = TensorizedConv2d.from_conv(conv, whole(name, conv.kernel_size))
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer.dense(), conv.weight, rtol=1e-3, atol=1e-4)
    assert (layer.bias is None) == (conv.bias is None)
    for option in ("stride", "padding", "dilation", "padding_mode", "kernel_size", "in_channels", "out_channels"):
        assert getattr(layer, option) == getattr(conv, option)


def test_nothing_is_shared_with_the_convolution_it_came_from() -> None:
    conv = nn.Conv2d(6, 8, 3).double()
    layer = TensorizedConv2d.from_conv(conv, whole("tucker", (3, 3)))
    before = conv.weight.clone(), conv.bias.clone()
    with torch.no_grad():
        for parameter in layer.parameters():
            assert parameter.dtype == torch.float64
            parameter.zero_()
    assert torch.equal(conv.weight, before[0]) and torch.equal(conv.bias, before[1])


def test_one_image_and_a_strange_one() -> None:
    layer, x = TensorizedConv2d(FORM), torch.randn(6, 5, 5)
    torch.testing.assert_close(layer(x), layer(x[None])[0])
    for shape in ((2, 5, 5, 5), (5, 5), (2, 6, 2, 3), (2, 6, 3, 2)):
        with pytest.raises(ValueError, match=r"this convolution takes \(n, 6, height, width\) of at least 3 x 3 pixels, give such or"):
            layer(torch.zeros(shape))


@settings(max_examples=30)
@given(convolutions(), st.integers(1, 5), st.integers(1, 5))
def test_images_too_small_for_a_kernel_are_those_that_torch_refuses(conv: nn.Conv2d, height: int, width: int) -> None:
    conv = nn.Conv2d(6, 8, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    layer, x = TensorizedConv2d.from_conv(conv, whole("tucker", conv.kernel_size)), torch.zeros(1, 6, height, width)
    try:
        conv(x)
    except RuntimeError:
        with pytest.raises(ValueError, match=r"images of shape .* of at least \d x \d pixels"):
            layer(x)
    else:
        layer(x)


def test_autocast_and_channels_last_go_through_as_in_torchs_own() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, padding=1)
    layer, x = TensorizedConv2d.from_conv(conv, whole("tensor_train", (3, 3))), torch.randn(8, 6, 9, 7)
    expected = conv(x)
    for batch in (x, x.to(memory_format=torch.channels_last)):
        ours, theirs = (each(batch).is_contiguous(memory_format=torch.channels_last) for each in (layer, conv))
        assert ours == theirs == (batch is not x)
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(batch)
        assert y.dtype == torch.bfloat16 and (y - expected).norm() < 0.02 * expected.norm()
        (slope,) = torch.autograd.grad(y.square().sum(), layer.core0)
        (exact,) = torch.autograd.grad(layer(batch).square().sum(), layer.core0)
        assert slope.dtype == torch.float32 and (slope - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("form", [tensor_train((8, 8), (8, 4), 4, (3, 3)), tucker(64, 32, 8, (3, 3)), cp(64, 32, 8, (3, 3))])
def test_a_fresh_kernel_varies_like_the_one_it_replaces_or_else_like_torchs(form) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(32, 64, 3))
    assert TensorizedConv2d(form).dense().std().item() == pytest.approx(net[0].weight.std().item(), rel=0.1)
    assert TensorizedConv2d(form).bias.abs().max() <= 1 / np.sqrt(288)
    nn.init.kaiming_normal_(net[0].weight, mode="fan_out")
    assert tensorize(net, {"0": form})[0].dense().std().item() == pytest.approx(np.sqrt(2 / 576), rel=0.1)
    nn.init.zeros_(net[0].weight)
    assert tensorize(net, {"0": form})[0].dense().std().item() == pytest.approx(1 / np.sqrt(3 * 288), rel=0.1)


def small() -> nn.Sequential:
    """Of every kind a convolution."""
    layers = {
        "stem": nn.Conv2d(3, 6, 3, bias=False),
        "deep": nn.Sequential(OrderedDict(conv1=nn.Conv2d(6, 8, 3, stride=2, padding=1), point=nn.Conv2d(8, 8, 1))),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(8, 4),
    }
    return nn.Sequential(OrderedDict(layers)).double()


def test_globs_pick_convolutions_and_all_else_stays() -> None:
    torch.manual_seed(0)
    net = small()
    forms = {"deep.conv*": Form("tensor_train", 2, (4, 2), (3, 2)), "deep.point": Form("tucker", 2, (8,), (8,)), "fc": Form("cp", 1)}
    smaller = tensorize(net, forms, recompute=True)
    layers = tensorized(smaller)
    assert {name: type(layer) for name, layer in layers.items()} == {
        "deep.conv1": TensorizedConv2d,
        "deep.point": TensorizedConv2d,
        "fc": TensorizedLinear,
    }
    assert layers["deep.conv1"].form == FORM and layers["deep.conv1"].stride == (2, 2) and layers["deep.conv1"].recompute
    assert layers["deep.point"].form == tucker((8,), (8,), 2) and layers["deep.point"].kernel_size == (1, 1)
    assert isinstance(smaller.stem, nn.Conv2d) and smaller.stem.weight is not net.stem.weight
    assert tensorize(net, {"stem": Form("cp", 2)}).stem.bias is None
    assert "6, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)" in repr(smaller)
    assert "padding_mode=zeros, ranks r1=2 r2=2 r3=2 r4=2, bias=True" in repr(smaller)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert smaller(x).shape == (2, 4) and smaller(x).dtype == torch.float64


@pytest.mark.parametrize(
    ("layer", "form", "message"),
    [
        (nn.Conv2d(6, 8, 3, groups=2), FORM, "layer '0' has 2 groups: only convolutions with one group are tensorized, leave this one out"),
        (nn.Conv2d(6, 8, 5), FORM, r"a kernel of \(5, 5\) and the form .* a kernel of \(3, 3\): give modes"),
        (nn.Conv2d(6, 9, 3), FORM, "layer '0' has 9 out channels, 6 in channels .* and the form 8 out channels, 6 in channels"),
        (nn.Conv2d(6, 8, 3), Form("tensor_train", 2, (4, 3), (6,)), r"out channel modes 4 \* 3 = 12 and the weight has 8 out channels"),
        (nn.Conv2d(6, 8, 3), Form("cp", 2, (8,), (2, 2)), r"in channel modes 2 \* 2 = 4 and the weight has 6 in channels: give modes"),
        (nn.ConvTranspose2d(6, 8, 3), FORM, "is a ConvTranspose2d, expected a Linear or a Conv2d"),
        (nn.Conv1d(6, 8, 3), FORM, "is a Conv1d, expected a Linear or a Conv2d"),
        (nn.Linear(54, 9), FORM, "has 9 rows and 54 columns"),
    ],
)
def test_what_does_not_fit_is_refused(layer: nn.Module, form, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensorize(nn.Sequential(layer), {"0": form})


def test_options_that_torch_refuses_and_columns_that_are_no_kernels() -> None:
    with pytest.raises(ValueError, match="padding='same' is not supported for strided convolutions"):
        TensorizedConv2d(FORM, stride=2, padding="same")
    with pytest.raises(ValueError, match="padding_mode must be one of"):
        TensorizedConv2d(FORM, padding_mode="mirror")
    strange = type(FORM)(FORM.cores, FORM.rows, ("kh", "kw", "j1", "j2"), FORM.size)
    with pytest.raises(ValueError, match="columns kh kw j1 j2 are no kernel's: give in channels, then kh and kw"):
        TensorizedConv2d(strange)


@pytest.mark.parametrize("bf16", [False, True])
def test_recomputing_keeps_x_alone_and_trains_the_same(bf16: bool) -> None:
    torch.manual_seed(0)
    layer, again = TensorizedConv2d(FORM, padding=1), TensorizedConv2d(FORM, padding=1, recompute=True)
    again.load_state_dict(layer.state_dict())
    x = torch.randn(4, 6, 5, 5, requires_grad=True)
    slopes = []
    for each in (layer, again):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = each(x)
        slopes.append(torch.autograd.grad(y.square().sum(), (x, *each.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(*slopes, strict=True))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.data_ptr()) or tensor, lambda tensor: tensor):
        again(x)
    assert set(kept) == {tensor.data_ptr() for tensor in (x, *again.cores)}


def test_smaller_ranks_load_and_other_modes_do_not() -> None:
    net, x = tensorize(small(), {"deep.conv1": Form("cp", 5)}), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    less = tensorize(small(), {"deep.conv1": Form("cp", 2)})
    file = io.BytesIO()
    torch.save(less.state_dict(), file)
    file.seek(0)
    net.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(net(x), less(x))
    assert net.deep.conv1.form == less.deep.conv1.form
    with pytest.raises(RuntimeError, match="size mismatch for deep.conv1.core2"):
        net.load_state_dict(tensorize(small(), {"deep.conv1": Form("cp", 2, (4, 2), (3, 2))}).state_dict(), strict=False)


@pytest.mark.parametrize("name", FORMATS)
def test_dead_ranks_go_without_a_trace(name: str) -> None:
    torch.manual_seed(0)
    net, x = tensorize(small(), {"deep.conv1": Form(name, 2, (4, 2), (3, 2))}), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    layer = net.deep.conv1
    axis = layer.form.ranks[-1]
    with torch.no_grad():
        k = next(k for k, axes in enumerate(layer.form.cores) if axis in axes)
        layer.cores[k].select(layer.form.cores[k].index(axis), 1).zero_()
    less = prune(net, 1e-6)
    assert ranks(less) == {**ranks(net), f"deep.conv1.{axis}": 1}
    torch.testing.assert_close(less(x), net(x))
    assert less.deep.conv1.form.parameters == sum(core.numel() for core in less.deep.conv1.cores) < layer.form.parameters
    kernel = dense(less.deep.conv1.form, [core.detach().numpy() for core in less.deep.conv1.cores])
    np.testing.assert_allclose(layer.dense().detach().flatten(1), kernel, atol=1e-12)


@pytest.mark.parametrize("prior", [log_uniform(), log_uniform(product=True)], ids=lambda prior: prior.name)
@pytest.mark.parametrize("name", FORMATS)
def test_its_scales_are_those_of_a_linear_layer_of_the_same_form(name: str, prior: Prior) -> None:
    form = FORMATS[name]((4, 2), (3, 2), 2, (3, 3))
    conv, linear = (layout(nn.Sequential(layer), prior) for layer in (TensorizedConv2d(form), TensorizedLinear(form)))
    assert conv.shapes == linear.shapes and conv.ranks == linear.ranks
    assert torch.equal(conv.scales, linear.scales) and torch.equal(conv.count, linear.count)


@pytest.mark.parametrize(
    ("teacher", "form", "prior"),
    [
        (tensor_train((4, 3), (6,), (2, 3, 2), (3, 3)), Form("tensor_train", (5, 5, 3), (4, 3), (6,)), log_uniform()),
        (tucker(12, 6, (2, 3), (3, 3)), Form("tucker", 5), gamma_product()),
    ],
    ids=["tensor_train", "tucker"],
)
def test_planted_ranks_of_a_kernel_are_found_exactly(teacher, form: Form, prior: Prior) -> None:
    data = planted(teacher, 4000, seed=0)
    torch.manual_seed(0)
    net = nn.Sequential(OrderedDict(image=nn.Unflatten(1, (6, 3, 3)), conv=nn.Conv2d(6, 12, 3), flatten=nn.Flatten()))
    believed = model(tensorize(net, {"conv": form}), prior, categorical, num_data=4000)
    training = Batches(data.train.images, data.train.labels, size=200)
    judged = data.validation.images, data.validation.labels
    learned = fit(believed, point(believed), training, judged, lr=0.03, epochs=40, weight=20, ramp=10)
    assert ranks(prune(learned, 0.1)) == {f"conv.{axis}": teacher.size[axis] for axis in teacher.ranks}
    assert learned.history[-1].accuracy > 0.8
