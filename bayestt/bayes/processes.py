"""Processes that train one net together, as torchrun starts them: each takes its part of every batch, all take the same step."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that torchrun started beside this one, each with a GPU of its own where there are GPUs; alone, nothing happens."""
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def first() -> bool:
    """Whether this is the one that writes files and shows progress."""
    return count() == 1 or dist.get_rank() == 0


def part(batch: Tensor) -> Tensor:
    """This process's part of what all processes have, cut along its first axis into as many equal ones."""
    return batch if count() == 1 else batch.chunk(count())[dist.get_rank()]


def average(tensors: Sequence[Tensor]) -> None:
    """Put in the place of every tensor its mean over all processes; all have the same bytes then."""
    if count() > 1:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= count()
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def agreed(mark: str) -> None:
    """Refuse processes that were given different things to do: `mark`, 16 hexadecimal digits, says what this one was given."""
    if count() > 1:
        own = torch.tensor([int(half, 16) for half in (mark[:8], mark[8:])])
        marks = [torch.empty_like(own) for _ in range(count())]
        dist.all_gather(marks, own)
        if odd := [rank for rank, other in enumerate(marks) if not torch.equal(other, marks[0])]:
            raise ValueError(f"process {odd[0]} was given another net, data or settings than process 0: start all by one command")


def decided(truth: bool) -> bool:
    """What the first process holds true."""
    said = torch.tensor(truth)
    follow(said)
    return bool(said)


def follow(tensor: Tensor) -> None:
    """Put in the place of a tensor the first process's."""
    if count() > 1:
        dist.broadcast(tensor, 0)


def wait() -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        dist.all_reduce(torch.zeros(1))
