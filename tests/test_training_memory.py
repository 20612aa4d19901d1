"""Bits of memory, counted by hand."""

from learnable import small_chain

from bayestt.algebra.formats import tt_matrix
from bayestt.ir.training import training
from bayestt.report.training_memory import dense_bits, factor_bits, training_bits

PAPER = {"fc1": tt_matrix([4, 4, 2, 16], [7, 4, 2, 16], 16), "fc2": tt_matrix([1, 16], [32, 16], 16)}


def test_a_small_training_counted_by_hand():
    """Layers 16-8-4: cores of 24 and 48, 8 and 16 entries, 12 biases; of fc1, whose i1 is 2, its partial's 24 elements come in strips.

    The most errors that live at once are those of the hidden 8 and of a strip. Of 13 contractions the one that makes scores has no shift.
    """
    made, _, _ = small_chain()
    entries = 24 + 48 + 8 + 16 + 12
    assert factor_bits(made) == 4 * (entries - 12) + 8 * 12
    assert training_bits(made) == {
        "latents": 8 * entries,
        "gradients": 16 * entries,
        "activations": 8 * (16 + 24 // 2 + 8 + 8),
        "errors": 16 * (8 + 24 // 2),
        "scales": 25 * 5,
        "control": 9 * 12 + 16,
    }


def test_the_papers_net():
    """14,272 entries and 528 biases: 244 times fewer bits than 467,472 floats (Zhang et al. 2021: 243x before ranks are cut)."""
    made = training(PAPER)
    assert factor_bits(made) == 4 * 14_272 + 8 * 528
    assert dense_bits([896, 512, 16])["parameters"] == 32 * 467_472
    assert round(32 * 467_472 / factor_bits(made)) == 244
    whole = sum(dense_bits([896, 512, 16]).values())
    assert round(whole / sum(training_bits(made).values())) == 72
    assert round(whole / sum(training_bits(training(PAPER, strips={"fc1": "i1"})).values())) == 124
