"""Every contraction multiplies by the dense weight; the choice is measured once, remembered, and the same for every process."""

import json
import time
import warnings
from itertools import count

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, vmap

from bayestt.algebra.factorization import Factorization, dense
from bayestt.algebra.formats import FORMATS, initial, tt_matrix
from bayestt.nets import contract, multiply
from bayestt.nets.contract import candidates, needed, plan, recomputed

FORM = tt_matrix((3, 4), (5, 2), 3)
FLOAT = torch.device("cpu"), torch.float32
BLOCKS = (1, 40, contract.BLOCK)
"""One row or strip at a time, a few with fewer last, all at once."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def choices(tmp_path, monkeypatch):
    """The file of choices, in a cache folder of the test's own; nothing is remembered in memory, and no product too small for oneDNN."""
    monkeypatch.setattr(multiply, "FEWEST", 1)
    monkeypatch.setattr(contract.pooch, "os_cache", lambda name: tmp_path / name)
    contract._chosen.cache_clear()
    yield tmp_path / "bayestt" / "contract.json"
    contract._chosen.cache_clear()


def form_of(name, rank):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FORMATS[name]((4, 3), (2, 5), rank)


def tensors(form, batch, dtype=torch.float32, seed=0):
    cores = [torch.tensor(core, dtype=dtype) for core in initial(form, 1.0, seed)]
    return torch.tensor(np.random.default_rng(seed).standard_normal((batch, form.shape[1])), dtype=dtype), cores


def product(form, x, cores):
    return x.numpy() @ dense(form, [core.numpy() for core in cores]).T


def unmeasured(*_):
    raise AssertionError("measured again")


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("name", FORMATS)
def test_every_contraction_multiplies_by_the_dense_weight(name, rank, dtype):
    form = form_of(name, rank)
    for block in BLOCKS:
        found = candidates(form, 8, block, halvings=1000)
        assert len(found) >= 3
        for batch in (0, 1, 3, 8):
            x, cores = tensors(form, batch, dtype, seed=batch)
            for way, contraction in found.items():
                y = contraction(x, cores)
                assert y.dtype == dtype
                np.testing.assert_allclose(y, product(form, x, cores), atol=TOLERANCE[dtype], err_msg=f"{way}, block {block}")


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_contraction_has_the_gradients_of_the_dense_weight(name, block):
    form = form_of(name, 2)
    x, cores = tensors(form, 3, torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (x, *cores)]
    letter = {axis: chr(ord("a") + k) for k, axis in enumerate(form.size)}
    spell = ",".join("".join(letter[axis] for axis in core) for core in form.cores)
    weight = torch.einsum(f"{spell}->{''.join(letter[axis] for axis in form.rows + form.cols)}", *cores).reshape(form.shape)
    expected = torch.autograd.grad((x @ weight.T).square().sum(), leaves)
    for contraction in candidates(form, 3, block).values():
        found = torch.autograd.grad(contraction(x, cores).square().sum(), leaves)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def kept_bytes(contraction, x, cores):
    """What the backward pass finds in memory, beside x and the cores."""
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = contraction(x, cores)
    kept = sum(size for place, size in storages.items() if place not in {t.untyped_storage().data_ptr() for t in (x, *cores)})
    return kept, torch.autograd.grad(y.square().sum(), [x, *cores])


@pytest.mark.parametrize("block", BLOCKS)
def test_recomputing_keeps_nothing_and_gives_the_same_bytes(block):
    x, cores = tensors(FORM, 6)
    for tensor in (x, *cores):
        tensor.requires_grad_()
    for contraction in candidates(FORM, 6, block).values():
        kept, slopes = kept_bytes(contraction, x, cores)
        none, again = kept_bytes(recomputed(contraction), x, cores)
        assert kept > 0 == none
        assert all(torch.equal(one, other) for one, other in zip(slopes, again, strict=True))


@pytest.mark.parametrize("library", contract.PRODUCTS)
def test_a_blocks_intermediate_is_as_small_as_asked(library):
    form = tt_matrix((4, 4), (4, 4), 4)
    x, cores = tensors(form, 32)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            made = operation(*args, **(kwargs or {}))
            if operation in (torch.ops.aten.mm.default, torch.ops.mkldnn._linear_pointwise.default):
                sizes.append(made.numel())
            return made

    halved = candidates(form, 32, 256, [library])[f"cores 0 then 1, {library}"]
    with Watch():
        halved(x, cores)
    assert sizes == [256, 64] * 8


@pytest.mark.parametrize(
    ("x_learns", "cores_learn", "mode", "gradients"),
    [
        (True, True, torch.enable_grad, "all"),
        (True, False, torch.enable_grad, "all"),
        (False, True, torch.enable_grad, "cores"),
        (False, False, torch.enable_grad, "none"),
        (True, True, torch.no_grad, "none"),
        (True, True, torch.inference_mode, "none"),
    ],
)
def test_what_autograd_will_ask_for(x_learns, cores_learn, mode, gradients):
    x, cores = torch.ones(2, requires_grad=x_learns), [torch.ones(2), torch.ones(2, requires_grad=cores_learn)]
    with mode():
        assert needed(x, cores) == gradients


def test_inside_transforms_the_same_gradients_are_asked_for():
    asked = []

    def loss(core, x):
        asked.append(needed(x, [core]))
        return (core * x).sum()

    vmap(grad(loss), in_dims=(0, None))(torch.ones(3, 2), torch.ones(2))
    vmap(grad(loss, argnums=(0, 1)), in_dims=(0, None))(torch.ones(3, 2), torch.ones(2))
    assert asked == ["cores", "all"]


@pytest.mark.parametrize(("gradients", "quickest"), [("none", "slow for cores"), ("cores", "slow for x"), ("all", "slow for all")])
def test_the_measurement_goes_back_for_these_gradients_only(gradients, quickest, monkeypatch):
    (_, rebuild), *_ = candidates(FORM, 4).items()

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            return tensor.clone()

        @staticmethod
        def backward(ctx, upstream):
            time.sleep(0.01)
            return upstream

    def slow_forwards(seconds):
        return lambda x, cores: (time.sleep(seconds), rebuild(x, cores))[1]

    ways = {
        "slow for cores": lambda x, cores: rebuild(x, [Slow.apply(core) for core in cores]),
        "slow for x": lambda x, cores: slow_forwards(0.002)(Slow.apply(x), cores),
        "slow for all": slow_forwards(0.004),
    }
    monkeypatch.setattr(contract, "candidates", lambda *_: ways)
    assert plan(FORM, 4, *FLOAT, gradients) is ways[quickest]


def test_cores_that_share_an_axis_of_the_weight_are_only_rebuilt():
    form = Factorization((("i1", "j1", "r1"), ("i1", "r1")), ("i1",), ("j1",), {"i1": 3, "j1": 4, "r1": 2})
    x, cores = tensors(form, 5)
    assert list(candidates(form, 5, libraries=["BLAS"])) == ["rebuild, BLAS"]
    np.testing.assert_allclose(plan(form, 5, *FLOAT)(x, cores), product(form, x, cores), atol=1e-4)


def test_a_strided_batch_gives_the_same():
    x, cores = tensors(FORM, 10)
    for contraction in candidates(FORM, 10).values():
        torch.testing.assert_close(contraction(x.T.contiguous().T, cores), contraction(x, cores))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_first_call_may_come_in_any_grad_mode(mode):
    x, cores = tensors(FORM, 1)
    with mode():
        y = plan(FORM, 1, *FLOAT)(x, cores)
    np.testing.assert_allclose(y, product(FORM, x, cores), atol=1e-4)


def test_the_first_call_may_come_inside_vmap_of_grad(choices):
    x, _ = tensors(FORM, 6)
    particles = [tensors(FORM, 1, seed=seed)[1] for seed in range(3)]

    def loss(cores):
        return plan(FORM, len(x), x.device, x.dtype)(x, cores).square().sum()

    together = vmap(grad(loss))([torch.stack(core) for core in zip(*particles, strict=True)])
    assert choices.exists()
    for number, cores in enumerate(particles):
        for one, other in zip(together, grad(loss)(cores), strict=True):
            torch.testing.assert_close(one[number], other, rtol=1e-4, atol=1e-4)


def test_a_layer_of_one_line_works_under_functional_call():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cores = torch.nn.ParameterList(tensors(FORM, 1)[1])

        def forward(self, x):
            return plan(FORM, len(x), x.device, x.dtype)(x, list(self.cores))

    layer = Layer()
    x, others = tensors(FORM, 4, seed=7)
    y = functional_call(layer, {f"cores.{k}": core for k, core in enumerate(others)}, (x,))
    np.testing.assert_allclose(y, product(FORM, x, others), atol=1e-4)


def test_measuring_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    plan(FORM, 4, *FLOAT)
    assert torch.equal(before, torch.get_rng_state())


def test_the_quickest_is_chosen(monkeypatch):
    (_, rebuild), *_ = candidates(FORM, 4).items()

    def slow(x, cores):
        time.sleep(0.005)
        return rebuild(x, cores)

    monkeypatch.setattr(contract, "candidates", lambda *_: {"slow": slow, "quick": rebuild, "slower": slow})
    assert plan(FORM, 4, *FLOAT) is rebuild


def test_a_slow_first_run_is_forgiven_for_libraries_compile_in_it(monkeypatch):
    (_, rebuild), *_ = candidates(FORM, 4).items()
    runs = count()

    def compiled(x, cores):
        time.sleep(0.1 if next(runs) == 0 else 0)
        return rebuild(x, cores)

    def slow(x, cores):
        time.sleep(0.005)
        return rebuild(x, cores)

    monkeypatch.setattr(contract, "candidates", lambda *_: {"compiled": compiled, "slow": slow})
    assert plan(FORM, 4, *FLOAT) is compiled


def test_a_measurement_serves_a_power_of_two_of_rows_one_dtype_one_number_of_threads_and_one_kind_of_gradients(choices):
    for batch in (5, 6, 8):
        plan(FORM, batch, *FLOAT)
    assert len(json.loads(choices.read_text())) == 1
    plan(FORM, 9, *FLOAT)
    plan(FORM, 8, torch.device("cpu"), torch.float64)
    plan(FORM, 8, *FLOAT, "none")
    plan(FORM, 8, *FLOAT, "cores")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        plan(FORM, 8, *FLOAT)
    finally:
        torch.set_num_threads(threads)
    assert len(json.loads(choices.read_text())) == 6


def test_a_later_process_makes_the_same_choice_without_measuring(choices, monkeypatch):
    plan(FORM, 8, *FLOAT)
    (key,) = json.loads(choices.read_text())
    monkeypatch.setattr(contract, "_quickest", unmeasured)
    monkeypatch.setattr(contract, "candidates", lambda *given: {name: name for name in candidates(*given)})
    for name in candidates(FORM, 8):
        choices.write_text(json.dumps({key: name}))
        contract._chosen.cache_clear()
        assert plan(FORM, 8, *FLOAT) == name


def test_a_process_that_measured_second_takes_the_first_ones_choice(choices, monkeypatch):
    plan(FORM, 8, *FLOAT)
    (key,) = json.loads(choices.read_text())
    choices.unlink()
    contract._chosen.cache_clear()

    def overtaken(form, contractions, *_):
        choices.write_text(json.dumps({key: "theirs", "another": "stays"}))
        return "mine"

    monkeypatch.setattr(contract, "_quickest", overtaken)
    monkeypatch.setattr(contract, "candidates", lambda *_: {"mine": "mine", "theirs": "theirs"})
    assert plan(FORM, 8, *FLOAT) == "theirs"
    assert json.loads(choices.read_text()) == {key: "theirs", "another": "stays"}


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"KEY": []}', '{"KEY": "no such contraction"}', "\ud800"])
def test_a_broken_file_of_choices_is_measured_again_and_mended(choices, text):
    plan(FORM, 8, *FLOAT)
    (key,) = json.loads(choices.read_text())
    choices.write_bytes(text.replace("KEY", key).encode(errors="surrogatepass"))
    contract._chosen.cache_clear()
    x, cores = tensors(FORM, 8)
    np.testing.assert_allclose(plan(FORM, 8, *FLOAT)(x, cores), product(FORM, x, cores), atol=1e-4)
    assert json.loads(choices.read_text())[key] in candidates(FORM, 8)


def test_an_unwritable_folder_is_no_error_and_the_choice_holds(choices, monkeypatch):
    choices.parent.write_text("a file where the folder would be")
    chosen = plan(FORM, 8, *FLOAT)
    monkeypatch.setattr(contract, "_quickest", unmeasured)
    assert plan(FORM, 8, *FLOAT) is chosen
