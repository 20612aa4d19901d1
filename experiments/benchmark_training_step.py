"""What a training step of a tensorized net takes: multiplications of an image, beside the dense net and Zhang et al. 2021.

Counted on all sides: forward, the gradient of every layer's input but the image's, and the gradients of cores and weights. The rival
absorbs cores from right to left, and back again for the gradient of an input; for the gradients of cores it sums the outer product of input
and output gradient, as large as the dense weight, over a batch, and once a batch contracts that with all cores but one, for each core; in
the order that multiplies least, which is more than is known of it. `with images' gradient` is the count by its published code, which also
makes the gradient of the images, of no use. Memory is in values; bits are those of a training in integers, which takes its contractions in
another order: `bayestt.report.training_memory.training_bits`.
"""

import warnings
from collections.abc import Sequence

import torch
from benchmark_datapath import RIVAL, right_to_left
from tqdm import tqdm

from bayestt.algebra.einsum import macs, order
from bayestt.algebra.factorization import Factorization
from bayestt.algebra.formats import Form
from bayestt.ir.differentiate import differentiate
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import TensorizedLinear, tensorize
from bayestt.nets.trace import trace
from bayestt.report.training_step import memory, multiplications

PUBLISHED = {"fc1": {"rows": [4, 4, 2, 16], "cols": [7, 4, 2, 16]}, "fc2": {"rows": [1, 16], "cols": [32, 16]}}
OURS = {"fc1": {"rows": [4, 4, 8, 4], "cols": [4, 7, 4, 7]}, "fc2": {"rows": [2, 5], "cols": [16, 32]}}
NETS = {
    "896-512-16, rank 16 (published)": ([896, 512, 16], PUBLISHED, 16),
    "896-512-16, rank 8": ([896, 512, 16], PUBLISHED, 8),
    "784-512-10, rank 8": ([784, 512, 10], OURS, 8),
    "784-512-10, rank 4": ([784, 512, 10], OURS, 4),
}
BATCHES = (1, 16, 64, 100)
"""64: the rival's simulator; 100: its accelerator, which trains image by image and updates after so many."""


def rival(forms: Sequence[Factorization], images: int, first_input: bool) -> float:
    """Multiplications of an image, of a batch of so many, by the rival's order; with the gradient of the first layer's input or without."""
    each = 0.0
    for number, form in enumerate(forms):
        full = (*form.rows, *form.cols)
        others = [[full, *(core for core in form.cores if core != mine)] for mine in form.cores]
        cores = sum(macs(axes, order(axes, mine, form.size), form.size) for axes, mine in zip(others, form.cores, strict=True))
        each += right_to_left(form) * (2 if number or first_input else 1) + form.shape[0] * form.shape[1] + cores / images
    return each


def rows(name: str) -> list[str]:
    """A row for each batch, as Markdown."""
    sizes, modes, rank = NETS[name]
    plain = fc(sizes)
    made = tensorize(plain, {layer: Form("tt_matrix", rank, **form) for layer, form in modes.items()})
    forms = [layer.form for layer in made.modules() if isinstance(layer, TensorizedLinear)]
    example = torch.zeros(1, sizes[0])
    traced, dense = trace(made, example), trace(plain, example)
    lines = []
    for images in BATCHES:
        step, dense_step = differentiate(traced, images), differentiate(dense, images)
        ours, theirs = multiplications(step, images) / images, multiplications(dense_step, images) / images
        found = memory(step, images)
        against = [rival(forms, images, first_input) for first_input in (False, True)]
        figures = [
            *(f"{ours:,.0f}", f"{theirs:,.0f}", *(f"{other:,.0f}" for other in against)),
            *(f"{ours / theirs:.2f}", *(f"{ours / other:.2f}" for other in against)),
            *(f"{found.parameters:,}", f"{found.kept:,}", f"{found.most:,}"),
        ]
        lines.append(f"| {name} | {images} | {' | '.join(figures)} |")
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="ranks clipped")
    assert {form.shape for form in RIVAL} == {(512, 896), (16, 512)}
    heads = ["net", "batch", "MACs an image", "dense", "rival", "rival with images' gradient", "/ dense", "/ rival", "/ rival with"]
    heads += ["parameters", "kept for the way back", "most values at once"]
    print("Multiplications of a training step per image, and memory; ours: steps of the tree that multiplies least, none dense", end="\n\n")
    print(f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", sep="\n")
    for name in tqdm(NETS, desc="nets", unit="net", leave=False):
        print(*rows(name), sep="\n")
