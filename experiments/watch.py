"""Watching a training while it runs, in TensorBoard: `tensorboard --logdir runs`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from bayestt.algebra.factorization import contributions
from bayestt.bayes.posterior import Epoch
from bayestt.nets.tensorize import tensorized

SMALLEST = 1e-12
"""Parts of the largest contribution below this are shown as this."""


def tensorboard(folder: Path) -> Callable[[int, Epoch, nn.Module], None]:
    """A watcher for `fit`: objective, validation accuracy and NLL, the rank of every bond, and a histogram of what its ranks carry.

    That is log10 of each contribution as a part of the largest in its bond; pruning keeps what is right of log10 of its threshold.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("tensorboard=true needs a package that is not installed: pip install 'bayestt[tensorboard]'") from None
    writer = SummaryWriter(folder)

    def watch(number: int, epoch: Epoch, net: nn.Module) -> None:
        for name, value in {"objective": epoch.loss, "validation/accuracy": epoch.accuracy, "validation/nll": epoch.nll}.items():
            writer.add_scalar(name, value, number)
        for bond, rank in epoch.ranks.items():
            writer.add_scalar(f"rank/{bond}", rank, number)
        for name, layer in tensorized(net).items():
            for axis, carried in contributions(layer.form, [core.detach().cpu().numpy() for core in layer.cores]).items():
                parts = carried / max(carried.max(), SMALLEST)
                writer.add_histogram(f"contributions/{name}.{axis}", np.log10(parts.clip(SMALLEST)), number)
        writer.flush()

    return watch
