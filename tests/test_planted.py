"""Planted problems: a teacher of known ranks, labels that follow it, the same ones for the same seed."""

import numpy as np
import pytest

from bayestt.algebra.factorization import contributions, dense
from bayestt.algebra.formats import cp, tensor_train, tt_matrix, tucker
from bayestt.data.planted import _teacher, planted

FORMS = [
    tt_matrix((4, 2, 2), (4, 4, 3), (2, 3)),
    tucker((12,), (8, 6), (3, 3, 2)),
    tensor_train((4, 3), (6, 5), (2, 4, 3)),
    cp((4, 3), (6, 5), 3),
]


@pytest.mark.parametrize("form", FORMS, ids=["tt_matrix", "tucker", "tensor_train", "cp"])
def test_the_teacher_has_exactly_the_planted_ranks(form) -> None:
    cores = _teacher(form, np.random.default_rng(3))
    weight = dense(form, cores)
    np.testing.assert_allclose(weight.reshape([form.size[axis] for axis in form.rows + form.cols]).sum(axis=0), 0, atol=1e-12)
    for carried in contributions(form, cores).values():
        assert carried.min() > 0.9 * carried.max()
    if form.ranks == ("r1", "r2"):
        grid = weight.reshape(4, 4, 4, 12).swapaxes(1, 2)
        assert np.linalg.matrix_rank(grid.reshape(16, 48)) == 2


@pytest.mark.parametrize("gain", [1.0, 10.0])
def test_labels_follow_the_softmax_of_the_teachers_scores(gain: float) -> None:
    form = FORMS[0]
    dataset = planted(form, 40_000, gain, seed=5)
    weight = dense(form, _teacher(form, np.random.default_rng(5)))
    scores = dataset.train.images @ (weight * gain / np.sqrt(np.mean(weight**2) * 48)).T
    assert np.std(scores) == pytest.approx(gain, rel=0.05)
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    right = probabilities[np.arange(40_000), dataset.train.labels].mean()
    assert right == pytest.approx((probabilities**2).sum(axis=1).mean(), abs=0.01)


def test_the_splits_are_sized_checked_and_reproducible() -> None:
    one, again, other = planted(FORMS[1], 100), planted(FORMS[1], 100), planted(FORMS[1], 100, seed=1)
    assert [len(split.images) for split in (one.train, one.validation, one.test)] == [100, 25, 25]
    assert one.train.images.shape == (100, 48) and one.classes == tuple(map(str, range(12)))
    assert (one.train.images == again.train.images).all() and (one.train.labels == again.train.labels).all()
    assert not (one.train.images == other.train.images).any() and not (one.train.images[:25] == one.test.images).any()
