"""The program of a training: what follows from forms alone."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from learnable import small_chain

from bayestt.algebra.einsum import einsum
from bayestt.algebra.formats import FORMATS, Form, cp, tt_matrix, tucker
from bayestt.ir.differentiate import differentiate
from bayestt.ir.interpret import gradients
from bayestt.ir.training import training
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace


def test_a_known_layer() -> None:
    made = training({"fc": tt_matrix([2, 4], [4, 4], 3)})
    assert [each.name for each in made.forward] == ["fc.partial0", "fc"]
    assert [each.name for each in made.backward] == ["fc.bias.gradient", "fc.core1.gradient", "fc.partial0.error", "fc.core0.gradient"]
    assert made.scored.frac == 3 and made.scored.bias == "fc.bias" and not made.scored.relu
    assert [parameter.rank for parameter in made.parameters.values()] == ["fc.r1", "fc.r1", ""]
    assert not made.strips


@pytest.mark.parametrize("form", [tt_matrix([2, 4], [4, 4], 3), tucker([2, 4], [4, 4], 2), cp([2, 4], [4, 4], 5)])
def test_every_value_is_made_before_it_is_read(form) -> None:
    made = training({"fc1": form, "fc2": tt_matrix([2, 2], [2, 4], 2)})
    known = {"image", *made.parameters}
    for each in made.forward:
        assert {name for name, _ in each.args} <= known
        known.add(each.name)
    known.add("error")
    for each in made.backward:
        assert {name for name, _ in each.args} | ({each.mask} - {""}) <= known
        known.add(each.name)
    assert {*made.gradients} == {*made.parameters} and {*made.gradients.values()} <= known


def test_strips_stand_before_the_axes_of_gradients_that_lack_them() -> None:
    made, _, _ = small_chain()
    axes = {each.name: each.axes for each in made.backward}
    assert made.strips == {"fc1.i1"}
    assert axes["fc1.core1.gradient"] == ("fc1.i1", *made.parameters["fc1.core1"].axes)
    assert axes["fc1.core0.gradient"] == made.parameters["fc1.core0"].axes


def test_nothing_but_gradients_sums_over_strips_within_the_layer() -> None:
    """Which is what lets a machine make the layer strip by strip."""
    made, _, _ = small_chain()
    for each in made.contractions:
        read = {axis for _, axes in each.args for axis in axes}
        assert "fc1.i1" not in read or "fc1.i1" in each.axes


PAPERS = {"fc1": tt_matrix([4, 4, 2, 16], [7, 4, 2, 16], 16), "fc2": tt_matrix([1, 16], [32, 16], 16)}
NO_STRIPS = {
    **{axis: f"layer 'fc1' has no strips along '{axis}': give that of its row axes, i1, i2, i3, i4" for axis in ("i4", "j1", "r1", "zz")},
    "i2": "contraction 'fc1.partial0.error' sums over the strip axis 'fc1.i2': make strips along another row axis",
    "i3": "contraction 'fc1.partial1.error' sums over the strip axis 'fc1.i3'",
}


@pytest.mark.parametrize(("axis", "words"), NO_STRIPS.items(), ids=NO_STRIPS)
def test_strips_that_cannot_be_are_refused(axis: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        training(PAPERS, strips={"fc1": axis})


@pytest.mark.parametrize("setting", ["ease", "strips"])
def test_settings_of_no_layer_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} names layer 'fc3', which has no form: give one of fc1, fc2"):
        training(PAPERS, **{setting: {"fc3": 1}})


def test_a_training_of_no_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="a training of no layers: give the form of at least one"):
        training({})


@pytest.mark.parametrize(("field", "most"), [("ease", 15), ("brake", 1)])
def test_an_ease_or_brake_out_of_range_is_refused(field: str, most: int) -> None:
    parameter = training(PAPERS).parameters["fc2.core1"]
    for given in (-1, most + 1, 0.5):
        with pytest.raises(ValueError, match=f"of axes fc2.r1 fc2.i2 fc2.j2 with {field} {given}: give a whole number from 0 to {most}"):
            replace(parameter, **{field: given})


@pytest.mark.parametrize("format", FORMATS)
def test_without_rounding_gradients_are_those_of_differentiate(format: str) -> None:
    """The contractions in floats, image by image, against the Graph of the same net."""
    torch.manual_seed(0)
    forms = {"fc1": Form(format, 2, rows=[3, 2, 2], cols=[4, 3, 2]), "fc2": Form(format, 2, rows=[3, 2], cols=[4, 3])}
    graph, random = trace(tensorize(fc([24, 12, 6]), forms).double(), torch.zeros(1, 24)), np.random.default_rng(0)
    x, labels = random.normal(size=(5, 24)), random.integers(0, 6, 5)
    scores, expected = gradients(differentiate(graph), x, labels)
    shapes = {"fc1": (12, 24), "fc2": (6, 12)}
    strips = {"fc1": "i1"} if format == "tt_matrix" else {}
    made = training({name: form.factorization(*shapes[name]) for name, form in forms.items()}, strips=strips)
    assert {*expected} == {*made.parameters}
    found = dict.fromkeys(expected, 0)
    for k, label in enumerate(labels):
        values = {**graph.consts, "image": x[k]}
        for each in made.contractions:
            if each is made.backward[0]:
                made_scores = values[made.scored.name].ravel()
                assert made_scores == pytest.approx(scores[k], rel=1e-10, abs=1e-12)
                values["error"] = np.exp(made_scores) / np.exp(made_scores).sum() - (np.arange(6) == label)
            args = [values[name].reshape(made.shape(axes)) for name, axes in each.args]
            value = einsum(args, [axes for _, axes in each.args], each.axes)
            if each.bias:
                value = value + values[each.bias].reshape(value.shape)
            if each.relu:
                value = value.clip(0)
            values[each.name] = value * (values[each.mask].reshape(value.shape) > 0) if each.mask else value
        found = {name: total + values[made.gradients[name]].reshape(-1, expected[name].size).sum(0) for name, total in found.items()}
    for name, gradient in expected.items():
        assert found[name] == pytest.approx(gradient.ravel(), rel=1e-10, abs=1e-12), name


def test_layers_that_do_not_follow_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="layer 'fc2' has 16 columns, expected as many as the last has rows"):
        training({"fc1": tt_matrix([2, 4], [4, 4], 3), "fc2": tt_matrix([2, 2], [4, 4], 3)})


def test_the_formats_of_the_papers_net_are_those_of_its_widths() -> None:
    made = training({"fc1": tt_matrix([4, 4, 2, 16], [7, 4, 2, 16], 16), "fc2": tt_matrix([1, 16], [32, 16], 16)})
    assert {made.bits[each.name] for each in made.forward} == {8} and {made.bits[each.name] for each in made.backward} == {16}
    assert {(p.factor.bits, p.latent.bits) for name, p in made.parameters.items() if "core" in name} == {(4, 8)}
    assert all(p.latent.frac - p.factor.frac == 4 for name, p in made.parameters.items() if "core" in name)
    fracs = [p.factor.frac for name, p in made.parameters.items() if "fc1.core" in name]
    assert sum(fracs) == 18 and all(right - left in (0, 1) for left, right in pairwise(sorted(fracs)))
    assert max(made.bound(each) for each in made.contractions) < 1 << 31
