"""The program of a training: what follows from forms alone."""

from itertools import pairwise

import pytest
from learnable import small_chain

from bayestt.algebra.formats import cp, tt_matrix, tucker
from bayestt.ir.training import training


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
    assert max(made.bound(each) for each in made.contractions) <= 1 << 31
