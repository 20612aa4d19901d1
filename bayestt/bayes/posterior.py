"""What a training leaves behind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Epoch:
    """One epoch: the mean objective, validation accuracy (0 to 1) and NLL (nats), and by bond the ranks that carry something."""

    loss: float
    accuracy: float
    nll: float
    ranks: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Posterior:
    """A trained net in eval mode, the mean and deviation of its weights by name, the scales of its ranks by name, and the epochs.

    `draws` takes a number and a seed and gives so many samples of all weights by name; `statistics` gives, for weights by name, those of
    batch-norm that belong to them. The net's weights are at their mean, its statistics are theirs. `parameters` counts the numbers that
    stand for the weights: of a point the net's own, of a mean field as many deviations too, of particles those of every net.
    """

    net: nn.Module
    mean: Mapping[str, Tensor]
    std: Mapping[str, Tensor]
    scales: Mapping[str, Tensor]
    history: tuple[Epoch, ...]
    draws: Callable[[int, int], Sequence[Mapping[str, Tensor]]]
    statistics: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    parameters: int
