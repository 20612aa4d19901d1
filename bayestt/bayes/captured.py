"""Forward and backward pass as one CUDA graph: on a GPU the thousands of kernels of a deep net take longer to launch than to run."""

from dataclasses import replace

import torch
from torch import Tensor

from bayestt.bayes.model import Model
from bayestt.bayes.step import Guide, differentiate
from bayestt.bayes.teacher import Lesson

EAGER = 3
"""Passes before a capture: in them contractions are measured and libraries choose their kernels."""


class Captured:
    """`differentiate` for one training without a prior, or with one, whose batches are all of one shape: soon its kernels are replayed.

    A net that makes its GPU wait, as one does that reads numbers back or sends constants, cannot be captured, and is computed as ever.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.waits = False
        self.stream = torch.cuda.Stream()
        self.graph: _Graph | None = None

    def __call__(
        self, model: Model, guide: Guide, x: Tensor, labels: Tensor, weight: float, rho: float, lesson: Lesson | None, precision: str
    ) -> Tensor:
        self.passes += 1
        if self.passes < EAGER or self.waits:
            return self._eager(model, guide, x, labels, weight, rho, lesson, precision)
        if self.passes == EAGER:
            return self._watched(model, guide, x, labels, weight, rho, lesson, precision)
        if not self.graph:
            self.graph = _Graph(self.stream, model, guide, x, labels, weight, rho, lesson, precision)
        return self.graph.replay(x, labels, weight, lesson)

    def _eager(self, *given) -> Tensor:
        """One pass on the stream that will be captured: autograd remembers where a gradient was first summed."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            loss = differentiate(*given)
        torch.cuda.current_stream().wait_stream(self.stream)
        return loss

    def _watched(self, model: Model, guide: Guide, *given) -> Tensor:
        """One pass, taken again as ever where it turns out to wait for the GPU."""
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return self._eager(model, guide, *given)
        except RuntimeError as fault:
            if "synchronizing" not in str(fault):
                raise
            self.waits = True
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        for part in guide.parameters():
            part.grad = None
        return self._eager(model, guide, *given)


class _Graph:
    """One pass, captured: the tensors that it reads and writes, and its kernels."""

    def __init__(
        self,
        stream: torch.cuda.Stream,
        model: Model,
        guide: Guide,
        x: Tensor,
        labels: Tensor,
        weight: float,
        rho: float,
        lesson: Lesson | None,
        precision: str,
    ) -> None:
        self.x, self.labels, self.weight = x.clone(), labels.clone(), torch.full((), weight, dtype=x.dtype, device=x.device)
        self.lesson = lesson and replace(lesson, scores=lesson.scores.clone())
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.loss = differentiate(model, guide, self.x, self.labels, self.weight if weight > 0 else 0.0, rho, self.lesson, precision)
        self.slopes = {part: part.grad for part in guide.parameters()}

    def replay(self, x: Tensor, labels: Tensor, weight: float, lesson: Lesson | None) -> Tensor:
        """The same pass with other numbers."""
        self.x.copy_(x)
        self.labels.copy_(labels)
        self.weight.fill_(weight)
        if lesson:
            self.lesson.scores.copy_(lesson.scores)
        self.graph.replay()
        for part, slope in self.slopes.items():
            part.grad = slope
        return self.loss
