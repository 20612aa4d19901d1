"""The fast twin against the definition: every number of the state, step after step."""

import numpy as np
import pytest
import torch
from learnable import as_lists, planted_images, small_chain

from bayestt.algebra.formats import tt_matrix
from bayestt.data import fashion_mnist
from bayestt.ir.descend import Rule, descend, factors_of, fractions, values_of
from bayestt.ir.start import start
from bayestt.ir.training import Training, training
from bayestt.nets.descend_batch import _added, descend_batch, scores


@pytest.mark.parametrize("strips", [True, False])
def test_three_hundred_steps_are_the_same(strips):
    training, images, labels = small_chain(strips)
    state = twin = start(training, images, labels, 0)
    random = np.random.default_rng(0)
    for step in range(300):
        images, labels = random.integers(-128, 128, (4, 16)), random.integers(0, 4, 4)
        rule = Rule(10 + step // 60, 6 if step > 100 else None, step // 20 % 8)
        state, twin = descend(training, state, images, labels, rule), descend_batch(training, twin, images, labels, rule)
        assert as_lists(state) == as_lists(twin)
    assert not all(scales.alive.all() for scales in state.scales.values())


def paper() -> tuple[Training, np.ndarray, np.ndarray]:
    """The net 896-512-16 of Zhang et al. 2021, and images."""
    forms = {"fc1": tt_matrix([4, 4, 2, 16], [7, 4, 2, 16], 16), "fc2": tt_matrix([1, 16], [32, 16], 16)}
    data = fashion_mnist.small().train
    images = np.pad((data.images[:400] * 128).astype(np.int64), ((0, 0), (0, 0), (2, 2))).reshape(400, -1)
    return training(forms, {"fc2": 2}, {"fc1": "i1"}), images, data.labels[:400]


def test_sixty_steps_of_the_papers_net_are_the_same():
    training, images, labels = paper()
    state = twin = start(training, images[:16], labels[:16], 0)
    for step in range(60):
        some = np.arange(6 * step, 6 * step + 6)
        state = descend(training, state, images[some], labels[some], Rule(10, 3, 2))
        twin = descend_batch(training, twin, images[some], labels[some], Rule(10, 3, 2))
        assert as_lists(state) == as_lists(twin)


@pytest.mark.slow
def test_a_thousand_steps_of_the_papers_net_are_the_same():
    training, images, labels = paper()
    state = twin = start(training, images[:16], labels[:16], 0)
    random = np.random.default_rng(0)
    for step in range(1000):
        some, rule = random.integers(0, 400, 32), Rule(11 + step // 300, 3)
        state = descend(training, state, images[some], labels[some], rule)
        twin = descend_batch(training, twin, images[some], labels[some], rule)
        assert as_lists(state) == as_lists(twin)


def test_scores_are_the_definitions():
    training, images, labels = planted_images(100)
    state = start(training, images[:32], labels[:32], 0)
    fracs, factors = fractions(training, state.shifts), factors_of(training, state)
    expected = np.stack([values_of(training, fracs, factors, image)["fc"].reshape(-1) for image in images])
    assert (scores(training, state, images) == expected).all()


def test_sums_saturate_one_after_the_other():
    """30000 and 30000 and -30000: what was lost at the end of the range does not come back."""
    assert _added(np.array([30000]), torch.tensor([[30000.0], [-30000.0]])).tolist() == [2767.0]
    assert _added(np.array([0]), torch.tensor([[-30000.0], [-30000.0], [30000.0]])).tolist() == [-2768.0]
    assert _added(np.array([3]), torch.tensor([[-4.0], [1000.0]])).tolist() == [999.0]
