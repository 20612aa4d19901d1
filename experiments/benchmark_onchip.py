"""Time of a training image on the machine that trains, by its cycles and a clock, beside torch on a core: the same step, in integers.

    python experiments/benchmark_onchip.py --mhz 100

Torch takes the step of `bayestt.nets.descend_batch`, which gives the same state bit for bit, in one thread; the dense net's step in
float32, by SGD, is another training. A step of 1 image has the end of a batch for itself, a step of 64 shares it.
"""

import argparse

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from turns import medians

from bayestt.algebra.formats import tt_matrix
from bayestt.ir.descend import Rule
from bayestt.ir.start import start
from bayestt.ir.training import training
from bayestt.nets.descend_batch import descend_batch
from bayestt.nets.fc import fc
from hw.training.assemble import arch_for, assemble
from hw.training.cycles import cycles

NETS = {
    "896-512-16, rank 16": ([896, 512, 16], [tt_matrix((4, 4, 2, 16), (7, 4, 2, 16), 16), tt_matrix((1, 16), (32, 16), 16)]),
    "784-512-10, rank 8": ([784, 512, 10], [tt_matrix((4, 2, 64), (56, 7, 2), 8), tt_matrix((1, 10), (32, 16), 8)]),
}
RULE, ROUNDS = Rule(11, 2), 31


def row(name: str, images: int, hz: float) -> str:
    """A net at a batch, as a row of Markdown: cycles and milliseconds of an image, and how many times as long others take."""
    sizes, forms = NETS[name]
    made = training(dict(zip(("fc1", "fc2"), forms, strict=True)))
    random = np.random.default_rng(0)
    pixels, labels = random.integers(-128, 128, (images, sizes[0])), random.integers(0, sizes[-1], images)
    state, net = start(made, pixels, labels, 0), fc(sizes)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    given, targets = torch.from_numpy(pixels / 128).float(), torch.from_numpy(labels)

    def dense_step() -> None:
        optimizer.zero_grad()
        cross_entropy(net(given), targets).backward()
        optimizer.step()

    ways = {"integers": lambda: descend_batch(made, state, pixels, labels, RULE), "dense": dense_step}
    torch_ms = {way: ms / images for way, ms in medians(ways, ROUNDS).items()}
    taken = cycles(assemble(made, arch_for(made)), images) / images
    ms = 1e3 * taken / hz
    ratios = " | ".join(f"{torch_ms[way]:.2f} ms, {torch_ms[way] / ms:.1f}x" for way in ways)
    return f"| {name} | {images} | {taken:,.0f} | {ms:.2f} ms | {ratios} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mhz", type=float, default=100, help="the machine's clock")
    hz = 1e6 * parser.parse_args().mhz
    torch.set_num_threads(1)
    print("| net | batch | cycles an image | the machine | torch, the same integers | torch, dense, float32 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in NETS:
        for images in (1, 64):
            print(row(name, images, hz))


if __name__ == "__main__":
    main()
