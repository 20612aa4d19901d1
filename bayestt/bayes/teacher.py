"""A teacher: a trained net whose probabilities say more of an image than its label (Hinton, Vinyals & Dean 2015)."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div
from tqdm import tqdm

from bayestt.bayes.checkpoint import digest
from bayestt.bayes.processes import first


@dataclass(frozen=True, eq=False)
class Lesson:
    """A teacher's scores (n, classes) of images, the share of the loss that they decide, and the temperature that softens them."""

    scores: Tensor
    share: float
    temperature: float

    def of(self, chosen: Tensor, device: torch.device) -> "Lesson":
        """The lesson for these images only."""
        return replace(self, scores=self.scores[chosen].to(device))

    def loss(self, scores: Tensor, label_loss: Tensor) -> Tensor:
        """(1 - share) label_loss + share t^2 KL(softmax(teacher / t) || softmax(scores / t)), a mean over images, in nats."""
        told, said = (self.scores / self.temperature).softmax(1), (scores / self.temperature).log_softmax(1)
        return (1 - self.share) * label_loss + self.share * self.temperature**2 * kl_div(said, told, reduction="batchmean")


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained net, the share of the loss that it decides (0 to 1; labels decide the rest), and the temperature of its probabilities."""

    net: nn.Module
    share: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or not self.temperature > 0:
            raise ValueError(f"teacher: share {self.share}, temperature {self.temperature}: give a share of 0 to 1, a positive temperature")

    def lesson(self, images: np.ndarray) -> Lesson:
        """What it says of images (n, ...), once and for all; one training after another hears it without asking again."""
        weights = self.net.state_dict()
        mark = digest(repr(self.net), *weights, *(weight.cpu().numpy() for weight in weights.values()), images)
        scores = _scores(_Question(mark, self, images))
        if odd := (~scores.isfinite()).any(1).nonzero().flatten().tolist():
            raise ValueError(f"the teacher's scores of {len(odd)} images, the first number {odd[0]}, are not finite: train it again")
        return Lesson(scores, self.share, self.temperature)

    @torch.no_grad()
    def of(self, x: Tensor) -> Lesson:
        """What it says of a batch (n, ...) on its device."""
        training = self.net.training
        self.net.eval()
        scores = self.net(x)
        self.net.train(training)
        return Lesson(scores, self.share, self.temperature)


@dataclass(frozen=True)
class _Question:
    """Images and who is asked about them; `mark` tells both by their contents."""

    mark: str
    teacher: Teacher = field(compare=False)
    images: np.ndarray = field(compare=False)


@lru_cache(maxsize=1)
def _scores(question: _Question) -> Tensor:
    """The answers (n, classes), on the CPU."""
    device = next(question.teacher.net.parameters()).device
    parts = tqdm(torch.from_numpy(question.images).split(1000), "lesson", unit="k", leave=False, delay=3, disable=None if first() else True)
    return torch.cat([question.teacher.of(part.to(device)).scores.cpu() for part in parts])
