"""What others reached on the nets of our experiments: the points that ours are drawn beside."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MNIST_DENSE = 496_885
"""Parameters of the dense 784-625-10 net, biases included, which the compression factors divide."""


@dataclass(frozen=True)
class Published:
    """A published result: its method, all parameters of the net, its test accuracy (0 to 1), and where it is from.

    `remembered` where the accuracy was not read there again: no more than a hint.
    """

    name: str
    parameters: int
    accuracy: float
    source: str
    remembered: bool = False


PUBLISHED: Mapping[str, tuple[Published, ...]] = MappingProxyType(
    {
        "mnist": (
            Published("LR-BTNN", round(MNIST_DENSE / 137), 0.978, "Hawkins & Zhang 2021, arXiv 1905.10478", remembered=True),
            Published("MARS, soft", round(MNIST_DENSE / 141), 0.9814, "Kodryan et al. 2020, arXiv 2006.10859: mean in their notebook"),
            Published("MARS, hard", round(MNIST_DENSE / 205), 0.9788, "Kodryan et al. 2020, arXiv 2006.10859: mean in their notebook"),
        ),
        "cifar": (
            Published("TRP, ResNet-20", 80_000, 0.9062, "Xu et al. 2020, arXiv 2004.14566: their README"),
            Published("LR-BTNN, ResNet-110", 236_000, 0.904, "Hawkins & Zhang 2021, arXiv 1905.10478", remembered=True),
            Published("NORTON, ResNet-56", 210_000, 0.9381, "Pham, Zniyed & Nguyen 2024: their README"),
            Published("NORTON, ResNet-110", 300_000, 0.9277, "Pham, Zniyed & Nguyen 2024: their README"),
            Published("NORTON, ResNet-110", 590_000, 0.9411, "Pham, Zniyed & Nguyen 2024: their README"),
        ),
    }
)
"""By data set: on MNIST of 784-625-10, on CIFAR-10 of the residual nets that are named."""
