"""Time of a training image on the machine that trains, by its cycles and a clock, beside one core: compiled, and by torch.

    python experiments/benchmark_onchip.py --mhz 100

Compiled, `hw.training.native`, and torch in integers, `bayestt.nets.descend_batch`, whose ends of batches are numpy's, give the machine's
state bit for bit. The others are other trainings, by SGD in float32: of the same tensorized net, fake-quantised
(`bayestt.nets.fake_quantized`) and as it is, and of the dense one. A step of 1 image has the end of a batch for itself, a step of 64
shares it.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from turns import medians

from bayestt.algebra.formats import Form, tt_matrix
from bayestt.ir.descend import Rule
from bayestt.ir.start import start
from bayestt.ir.training import Training, training
from bayestt.nets.descend_batch import descend_batch
from bayestt.nets.fake_quantized import FakeQuantized
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize
from hw.training.assemble import arch_for, assemble
from hw.training.cycles import cycles
from hw.training.native import descend_natively

PUBLISHED = {"fc1": {"rows": (4, 4, 2, 16), "cols": (7, 4, 2, 16)}, "fc2": {"rows": (1, 16), "cols": (32, 16)}}
OURS = {"fc1": {"rows": (4, 2, 64), "cols": (56, 7, 2)}, "fc2": {"rows": (1, 10), "cols": (32, 16)}}
NETS = {
    "896-512-16, rank 16": ([896, 512, 16], PUBLISHED, 16, {"fc1": "i1"}),
    "784-512-10, rank 8": ([784, 512, 10], OURS, 8, {}),
}
"""Sizes, modes, rank, and the strips in which the machine takes less memory, if any."""
BATCHES, LANES = (1, 64), (16, 32)
RULE, ROUNDS = Rule(11, 2), 31
STEPS = 16
"""Steps that are compiled are taken so many at a call."""


def machine_ms(made: Training, lanes: int, images: int, hz: float) -> float:
    """Milliseconds of an image in a batch of so many."""
    return 1e3 * cycles(assemble(made, arch_for(made, lanes)), images) / images / hz


def float_step(net: nn.Module, pixels: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """A step of SGD in float32."""
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    given, targets = torch.from_numpy(pixels / 128).float(), torch.from_numpy(labels)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(net(given), targets).backward()
        optimizer.step()

    return step


def rivals_ms(name: str, images: int) -> dict[str, float]:
    """Milliseconds of an image on one core, by way."""
    sizes, modes, rank, _ = NETS[name]
    made = training({layer: tt_matrix(form["rows"], form["cols"], rank) for layer, form in modes.items()})
    random = np.random.default_rng(0)
    pixels, labels = random.integers(-128, 128, (images, sizes[0])), random.integers(0, sizes[-1], images)
    state, dense = start(made, pixels, labels, 0), fc(sizes)
    small = tensorize(dense, {layer: Form("tt_matrix", rank, **form) for layer, form in modes.items()})
    ways = {
        "compiled": lambda: descend_natively(made, state, [(pixels, labels)] * STEPS, RULE),
        "torch, the same integers": lambda: descend_batch(made, state, pixels, labels, RULE),
        "torch, fake-quantised": float_step(FakeQuantized(small), pixels, labels),
        "torch, tensorized, float32": float_step(small, pixels, labels),
        "torch, dense, float32": float_step(dense, pixels, labels),
    }
    return {way: ms / images / (STEPS if way == "compiled" else 1) for way, ms in medians(ways, ROUNDS).items()}


def rows(name: str, hz: float) -> list[str]:
    """A net as rows of Markdown: milliseconds of an image, and how many times as long as the machine that is."""
    _, modes, rank, strips = NETS[name]
    forms = {layer: tt_matrix(form["rows"], form["cols"], rank) for layer, form in modes.items()}
    ways = {"": training(forms)} | ({", in strips": training(forms, strips=strips)} if strips else {})
    lines = []
    for images in BATCHES:
        found = {}
        for how, made in ways.items():
            found |= {f"the machine of {lanes} lanes{how}": machine_ms(made, lanes, images, hz) for lanes in LANES}
        machine = next(iter(found.values()))
        found |= rivals_ms(name, images)
        lines += [f"| {name} | {images} | {way} | {ms:.3f} | {ms / machine:.2f} |" for way, ms in found.items()]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mhz", type=float, default=100, help="the machine's clock")
    hz = 1e6 * parser.parse_args().mhz
    torch.set_num_threads(1)
    print(f"Milliseconds of a training image, random images; the machine at {hz / 1e6:g} MHz, all else on one core", end="\n\n")
    print(f"| net | batch | way | ms an image | / the machine of {LANES[0]} lanes |")
    print("| --- | --- | --- | --- | --- |")
    for name in tqdm(NETS, desc="nets", unit="net", leave=False):
        print(*rows(name, hz), sep="\n")


if __name__ == "__main__":
    main()
