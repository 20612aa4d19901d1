"""Every chain of convolutions is the convolution with the dense kernel; the choice between them is measured and remembered."""

import json
import time
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap
from torch.nn.functional import conv2d, pad

from bayestt.algebra.factorization import dense
from bayestt.algebra.formats import FORMATS, initial, tensor_train, tucker
from bayestt.nets import contract_conv
from bayestt.nets.contract_conv import Window, chains, plan_conv

PLAIN = Window((1, 1), (1, 1), (1, 1, 1, 1), "zeros")
TRAIN = tensor_train((4, 2), (3, 2), 2, (3, 3))
pytestmark = pytest.mark.usefixtures("conv_choices")


def form_of(name, rank=3, taps=(3, 3)):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FORMATS[name]((4, 2), (3, 2), rank, taps)


def cores_of(form, dtype=torch.float64, seed=0):
    return [torch.tensor(core, dtype=dtype) for core in initial(form, 0.3, seed)]


def images(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def convolved(form, window, x, cores):
    """The slow definition: the dense kernel laid on the padded image."""
    kernel = torch.from_numpy(dense(form, [core.double().numpy() for core in cores]))
    kernel = kernel.reshape(form.shape[0], 6, form.size.get("kh", 1), form.size.get("kw", 1))
    x = pad(x.double(), window.border, "constant" if window.mode == "zeros" else window.mode)
    return conv2d(x, kernel, None, window.stride, 0, window.dilation)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
windows = st.builds(
    Window, pairs, pairs, st.tuples(*[st.integers(0, 4)] * 4), st.sampled_from(["zeros", "reflect", "replicate", "circular"])
)


@settings(max_examples=80)
@given(st.sampled_from(sorted(FORMATS)), st.integers(1, 3), st.sampled_from([(3, 3), (1, 3), (2, 1), ()]), windows, st.integers(0, 2))
def test_every_chain_is_the_convolution_with_the_dense_kernel(name, rank, taps, window, batch):
    form = form_of(name, rank, taps)
    x, cores = images(batch, 6, 7, 8), cores_of(form)
    expected = convolved(form, window, x, cores)
    for way, chain in chains(form, window).items():
        torch.testing.assert_close(chain(x, cores), expected, msg=lambda text, way=way: f"{way}: {text}")


@pytest.mark.parametrize("taps", [(3, 3), ()])
@pytest.mark.parametrize("name", FORMATS)
def test_every_chain_has_the_gradients_of_the_first(name, taps):
    form = form_of(name, 2, taps)
    leaves = [tensor.requires_grad_() for tensor in (images(2, 6, 5, 4), *cores_of(form))]
    first, *others = (torch.autograd.grad(chain(leaves[0], leaves[1:]).square().sum(), leaves) for chain in chains(form, PLAIN).values())
    for slopes in others:
        torch.testing.assert_close(slopes, first)


@pytest.mark.parametrize(
    ("name", "taps", "ways"),
    [
        ("tucker", (3, 3), ["cores 0 1 2", "cores 0 1, then 2", "cores 0, then 1 2", "cores 0, then 1, then 2"]),
        ("tensor_train", (3, 3), ["cores 0 1 2 3 4", "cores 0 1 2, then 3 4", "cores 1 2, then 0 3 4", "cores 1 2, then 0, then 3 4"]),
        ("tensor_train", (), ["cores 0 1 2 3", "cores 2 3, then 0 1"]),
        ("cp", (3, 3), ["cores 0 1 2 3 4 5", "cores 0 1 4 5, then 2 3", "cores 4 5, then 0 1 2 3", "cores 4 5, then 0 1, then 2 3"]),
        ("tt_matrix", (3, 3), ["cores 0 1 2"]),
    ],
)
def test_the_ways_of_each_format(name, taps, ways):
    assert sorted(chains(form_of(name, 2, taps), PLAIN)) == sorted(ways)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_channels_last_stays_and_autocast_agrees_with_float32(name, dtype):
    form = form_of(name, 2)
    x, cores = images(4, 6, 9, 8, dtype=torch.float32).to(memory_format=torch.channels_last), cores_of(form, torch.float32)
    expected = convolved(form, PLAIN, x, cores)
    for chain in chains(form, PLAIN).values():
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            y = chain(x, cores)
        assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
        # bfloat16 rounds to 2^-9 of a number, here once for every core, image and kernel.
        assert (y.double() - expected).norm() <= (1e-6 if dtype is torch.float32 else 0.02) * expected.norm()


def test_the_quickest_is_chosen_remembered_and_made_again_without_measuring(conv_choices, monkeypatch):
    (_, rebuild), *_ = chains(TRAIN, PLAIN).items()

    def slow(x, cores):
        time.sleep(0.1)
        return rebuild(x, cores)

    window, x = Window((1, 1), (1, 1), (0, 1, 0, 1), "zeros"), images(3, 6, 5, 4, dtype=torch.float32)
    monkeypatch.setattr(contract_conv, "chains", lambda *_: {"slow": slow, "quick": rebuild, "slower": slow})
    assert plan_conv(TRAIN, window, x, "none") is rebuild
    contract_conv._chosen.cache_clear()
    monkeypatch.setattr(contract_conv, "chains", lambda *_: {"quick": slow, "slow": rebuild})
    assert plan_conv(TRAIN, window, x, "none") is slow


def test_a_choice_is_made_for_a_power_of_two_of_images_of_one_size_dtype_and_memory_format(conv_choices):
    def known():
        return len(json.loads(conv_choices.read_text())) if conv_choices.exists() else 0

    x, before = images(3, 6, 5, 6, dtype=torch.float32), known()
    for same in (x, images(4, 6, 5, 6, dtype=torch.float32)):
        plan_conv(TRAIN, PLAIN, same, "none")
        assert known() == before + 1
    others = [x.to(memory_format=torch.channels_last), images(5, 6, 5, 6, dtype=torch.float32), x[:, :, 1:], x.double()]
    for count, other in enumerate(others, start=2):
        plan_conv(TRAIN, PLAIN, other, "none")
        assert known() == before + count
    plan_conv(TRAIN, PLAIN, x, "all")
    with torch.autocast("cpu", torch.bfloat16):
        plan_conv(TRAIN, PLAIN, x, "none")
    assert known() == before + len(others) + 3


def test_the_first_call_may_come_inside_vmap_of_grad():
    form = tucker(8, 6, 3, (3, 3))
    x, particles = images(2, 6, 5, 5), [cores_of(form, seed=seed) for seed in range(3)]

    def loss(cores):
        y = plan_conv(form, PLAIN, x, "cores")(x, cores)
        return plan_conv(form, PLAIN, y[:, :6], "all")(y[:, :6], cores).square().sum()

    together = vmap(grad(loss))([torch.stack(core) for core in zip(*particles, strict=True)])
    for number, cores in enumerate(particles):
        torch.testing.assert_close([slope[number] for slope in together], grad(loss)(cores))
    for chain in chains(TRAIN, PLAIN).values():
        stacked = [torch.stack([core, 2 * core]) for core in cores_of(TRAIN)]
        torch.testing.assert_close(vmap(chain)(torch.stack([2 * x, x]), stacked)[0], chain(2 * x, cores_of(TRAIN)))
