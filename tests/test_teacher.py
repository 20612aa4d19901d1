"""A teacher: its loss is Hinton's, its lesson is what it says, and a share of nothing changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bayestt.algebra.formats import Form
from bayestt.bayes import fit as fitting
from bayestt.bayes.batches import Batches
from bayestt.bayes.budget import Budget
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import categorical, model
from bayestt.bayes.posterior import Epoch
from bayestt.bayes.prior import log_uniform
from bayestt.bayes.prune import prune
from bayestt.bayes.teacher import Lesson, Teacher
from bayestt.data.planted import planted
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize

FORM = Form("tt_matrix", 4, (4, 6), (8, 6))
DATA = planted(Form("tt_matrix", 2, (4, 4), (8, 6)).factorization(16, 48), 96, seed=1)
BATCHES = Batches(DATA.train.images, DATA.train.labels, size=16, seed=5)
VALIDATION = DATA.validation.images, DATA.validation.labels


def learned(make=point, **settings) -> list[bytes]:
    """Every byte of a short training."""
    torch.manual_seed(3)
    believes = model(tensorize(fc([48, 24, 16]), {"fc1": FORM}), log_uniform(), categorical, 96)
    posterior = fit(believes, make(believes), BATCHES, VALIDATION, **{"lr": 0.01, "epochs": 4, **settings})
    return [mean.numpy().tobytes() for mean in posterior.mean.values()]


def teaching(**settings) -> Teacher:
    torch.manual_seed(9)
    return Teacher(nn.Sequential(nn.Dropout(0.5), nn.Linear(48, 16)), **settings)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_loss_is_the_labels_part_and_the_softened_divergence(temperature: float) -> None:
    torch.manual_seed(0)
    told, said, labels = torch.randn(6, 5), torch.randn(6, 5), torch.randint(5, (6,))
    p, q = (told / temperature).softmax(1), (said / temperature).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    found = Lesson(told, 0.3, temperature).loss(said, cross_entropy(said, labels))
    torch.testing.assert_close(found, 0.7 * cross_entropy(said, labels) + 0.3 * temperature**2 * divergence)
    assert Lesson(told, 1.0, temperature).loss(told, torch.tensor(9.0)).abs() < 1e-6


def test_a_lesson_is_what_the_teacher_says_of_each_image() -> None:
    teacher = teaching()
    lesson = teacher.lesson(DATA.train.images)
    assert teacher.net.training
    torch.testing.assert_close(lesson.scores, teacher.net.eval()(torch.from_numpy(DATA.train.images)))
    chosen = torch.tensor([7, 3])
    assert torch.equal(lesson.of(chosen, torch.device("cpu")).scores, lesson.scores[chosen])


def test_a_teacher_is_asked_once_until_images_or_its_weights_are_others() -> None:
    asked, images = [], DATA.train.images + 1
    one, same, other = teaching(), teaching(share=0.1), teaching()
    with torch.no_grad():
        other.net[1].bias[3] += 1
    for teacher in (one, same, other):
        teacher.net[1].register_forward_hook(lambda layer, given, made: asked.append(len(made)))
    first, again = one.lesson(images), same.lesson(images.copy())
    assert asked == [96] and torch.equal(first.scores, again.scores) and (first.share, again.share) == (0.5, 0.1)
    assert not torch.equal(other.lesson(images).scores, first.scores) and asked == [96, 96]
    other.lesson(images[:50])
    assert asked == [96, 96, 50]


@pytest.mark.parametrize("make", [point, mean_field])
def test_a_share_of_nothing_changes_nothing_and_any_other_does(make) -> None:
    assert learned(make) == learned(make, teacher=teaching(share=0.0)) != learned(make, teacher=teaching(share=0.5))


def test_the_student_agrees_with_a_teacher_that_labels_do_not_know() -> None:
    torch.manual_seed(2)
    teacher = Teacher(fc([48, 16]), share=1.0, temperature=1.0)
    believes = model(fc([48, 24, 16]), log_uniform(), categorical, 96)
    posterior = fit(believes, point(believes), BATCHES, VALIDATION, lr=0.02, epochs=60, weight=0, teacher=teacher)
    images = torch.from_numpy(DATA.train.images)
    assert (posterior.net(images).argmax(1) == teacher.net(images).argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("settings", [{"share": -0.1}, {"share": 1.1}, {"temperature": 0.0}, {"share": float("nan")}])
def test_a_teacher_that_makes_no_sense_is_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match="give a share of 0 to 1, a positive temperature"):
        teaching(**settings)


def test_a_teacher_that_says_no_number_is_refused() -> None:
    teacher = teaching()
    with torch.no_grad():
        teacher.net[1].bias[3] = float("nan")
    with pytest.raises(ValueError, match="scores of 96 images, the first number 0, are not finite: train it again"):
        learned(teacher=teacher)


@pytest.mark.parametrize("classes", [1, 10])
def test_a_teacher_of_other_classes_is_refused(classes: int) -> None:
    with pytest.raises(ValueError, match=f"the teacher scores {classes} classes and the net 16: give a teacher of the same classes"):
        learned(teacher=Teacher(nn.Linear(48, classes)))


@pytest.mark.parametrize("how", [{"teacher": teaching(share=0.7)}, {"budget": Budget(600, 1, 3)}, {"warmup": 2.5}])
def test_an_interrupted_training_ends_with_the_same_bytes(how: dict, tmp_path) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(number: int, *_) -> None:
        if number == 2:
            raise Interrupt

    whole = learned(**how)
    with pytest.raises(Interrupt):
        learned(**how, checkpoint=tmp_path / "training", watch=interrupt)
    seen = []
    assert learned(**how, checkpoint=tmp_path / "training", watch=lambda number, *_: seen.append(number)) == whole
    assert seen == [3, 4] and learned() != whole


def test_a_checkpoint_of_another_teacher_is_refused(tmp_path) -> None:
    learned(teacher=teaching(share=0.7), checkpoint=tmp_path / "training")
    with pytest.raises(ValueError, match="is a checkpoint of another training .*lesson"):
        learned(teacher=teaching(share=0.6), checkpoint=tmp_path / "training")


def test_fit_meets_a_budget_and_only_a_point_can(monkeypatch) -> None:
    torch.manual_seed(3)
    believes = model(tensorize(fc([48, 24, 16]), {"fc1": FORM}), log_uniform(), categorical, 96)
    budget = Budget(600, 1, 3)
    posterior = fit(believes, point(believes), BATCHES, VALIDATION, lr=0.01, epochs=4, budget=budget, threshold=1e-6)
    small = prune(posterior, 1e-6)
    assert sum(weight.numel() for weight in small.parameters()) <= 600 < sum(weight.numel() for weight in believes.net.parameters())
    np.testing.assert_allclose(small(torch.ones(2, 48)).detach(), posterior.net(torch.ones(2, 48)).detach(), rtol=1e-4, atol=1e-5)
    assert [sum(epoch.ranks.values()) for epoch in posterior.history] == sorted(
        (sum(epoch.ranks.values()) for epoch in posterior.history), reverse=True
    )
    monkeypatch.setattr(fitting, "step", None)
    for make, budget, message in (
        (point, Budget(9, 1, 3), "9 parameters: this network takes"),
        (point, Budget(600, 1, 50), "a budget that ends in epoch 50 of 4"),
        (mean_field, Budget(600, 1, 3), "a budget while learning needs a point guide, not MeanField: meet it first"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(believes, make(believes), BATCHES, VALIDATION, lr=0.01, epochs=4, budget=budget)


def test_fit_comes_to_a_budget_little_by_little() -> None:
    torch.manual_seed(3)
    believes = model(tensorize(fc([48, 24, 16]), {"fc1": FORM}), log_uniform(), categorical, 96)
    budget, whole, left = Budget(492, 1, 5), sum(weight.numel() for weight in believes.net.parameters()), []

    def count(number: int, epoch: Epoch, net: nn.Module) -> None:
        left.append(sum(weight.numel() for weight in prune(net, 1e-9).parameters()))

    fit(believes, point(believes), BATCHES, VALIDATION, lr=0.01, epochs=6, budget=budget, watch=count)
    allowed = [budget.after(number, whole) for number in range(1, 7)]
    index = 4 * 8 + 6 * 6  # what one takes in both cores
    assert all(most - index < found <= most for found, most in zip(left, allowed, strict=True)), (left, allowed)
    assert left[0] == whole and len({*left}) > 2


def test_a_teacher_speaks_of_images_as_they_were_changed() -> None:
    """A student that is taught by itself learns nothing, whatever becomes of the images."""
    torch.manual_seed(0)
    net = fc([48, 16])
    believes = model(net, log_uniform(), categorical, 96)
    upside_down = replace(BATCHES, augment=lambda images, chance: images.flip(1) * chance[:, :1])
    teacher = Teacher(net, share=1.0, temperature=1.0)
    posterior = fit(believes, point(believes), upside_down, VALIDATION, lr=1e-9, epochs=1, weight=0, teacher=teacher)
    assert posterior.history[0].loss == pytest.approx(0, abs=1e-6)
