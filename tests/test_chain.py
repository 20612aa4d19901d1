"""The whole chain, from torch to the gateware: all readers give the same scores, for residual nets of every kind and whole ResNets."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from bayestt.algebra.fixed import dequantize
from bayestt.algebra.fixed import quantize as integers
from bayestt.algebra.formats import Form
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.quantize import quantize
from bayestt.nets.resnet import Block, resnet
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace
from hw.arch import Arch
from hw.assemble import assemble
from hw.cycles import cycles
from hw.emulate import emulate
from hw.program import Program
from hw.simulate import simulate

CONF = Path(__file__).parent.parent / "conf"
BLOCKS = {
    "an identity shortcut": (4, 4, None),
    "half the image, more channels": (3, 5, None),
    "Tucker kernels": (4, 6, Form("tucker", 3)),
    "tensor-train kernels": (4, 6, Form("tensor_train", 3)),
    "CP kernels": (4, 4, Form("cp", 4)),
}
"""Channels before and after a block, and the form of its kernels."""
IMAGE = (2, 5, 4)
ROOMY = Arch(rows=4, lanes=4, image_depth=64, data_depth=256, weight_depth=256, init_depth=32, score_depth=4, code_depth=64)
CRAMPED = replace(ROOMY, image_depth=1, data_depth=80, weight_depth=48, init_depth=8, code_depth=32, external_depth=256)
ARCHES = {"a roomy machine": ROOMY, "a cramped machine": CRAMPED}
RESNETS = {
    "ResNet-20": (20, None),
    "ResNet-20, Tucker": (20, "resnet_tucker"),
    "ResNet-20, tensor train": (20, "resnet_tensor_train"),
    "ResNet-110": (110, None),
    "ResNet-110, Tucker": (110, "resnet_tucker"),
}
"""Depth, and the configuration of the kernels' forms."""
EQUAL_ON = {20: 100, 110: 10}
"""Images on which the emulator is held to the graph."""
LEAST_IMAGES_S = {20: 50, 110: 10}


def normalized(net: nn.Module, images: np.ndarray) -> nn.Module:
    """The net in eval mode, its batch-norm with the statistics of these images and random scales and biases."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
            layer.momentum = None
    with torch.no_grad():
        net.train()(torch.from_numpy(images))
    return net.eval()


def drawn(count: int, seed: int, shape: tuple[int, ...] = IMAGE) -> np.ndarray:
    """Random images."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def residual(before: int, after: int, form: Form | None) -> nn.Module:
    """A stem, a block, the mean over the image, a linear layer."""
    torch.manual_seed(0)
    layers = {
        "stem": nn.Sequential(nn.Conv2d(IMAGE[0], before, 3, padding=1, bias=False), nn.BatchNorm2d(before), nn.ReLU()),
        "block": Block(before, after),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(after, 3),
    }
    net = nn.Sequential(OrderedDict(layers))
    return normalized(tensorize(net, {"block.conv?": form}) if form else net, drawn(50, 1))


def integer(net: nn.Module, calibration: np.ndarray) -> Graph:
    """What the machine is to compute."""
    return quantize(fold(trace(net, torch.from_numpy(calibration[:1]))), calibration)


def program_of(graph: Graph, arch: Arch) -> Program:
    """What the machine is given."""
    return assemble(lower(graph, arch.tile, arch.room), arch)


def with_extremes(graph: Graph, images: np.ndarray) -> np.ndarray:
    """The images in integers; in place of the last three one most negative, one most positive, and one with both everywhere."""
    low, high = graph.input.format.low, graph.input.format.high
    x = integers(images, graph.input.format)
    x[-3], x[-2], x[-1] = low, high, np.random.default_rng(0).choice([low, high], size=x.shape[1:])
    return x


@pytest.mark.parametrize("block", BLOCKS)
def test_the_integers_stand_for_what_the_net_says(block: str) -> None:
    net, x = residual(*BLOCKS[block]), drawn(200, 2)
    graph = integer(net, drawn(50, 1))
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    found = dequantize(interpret(graph, integers(x, graph.input.format)), graph.output.format)
    assert np.sqrt(np.mean(np.square(found - expected))) < 0.1 * expected.std()


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_reader_of_a_residual_net_gives_the_same_scores(block: str, machine: str) -> None:
    graph, arch = integer(residual(*BLOCKS[block]), drawn(50, 1)), ARCHES[machine]
    program = program_of(graph, arch)
    x = with_extremes(graph, drawn(arch.rows, 3))
    expected = interpret(graph, x)
    assert len(np.unique(expected, axis=0)) == arch.rows
    assert (emulate(program, x) == expected).all()
    simulation = simulate(program, x)
    assert (simulation.y == expected).all()
    assert simulation.cycles == (cycles(program),)
    copies = {name for name in ("load", "store") for instruction in program.instructions if instruction[name]}
    assert (len(program.segments) > 1, copies) == ((True, {"load", "store"}) if arch.external_depth else (False, set()))


READERS = {
    "interpret": (lambda graph, program, x: interpret(graph, x), r"at least one, of 40 numbers each \(c 2, h 5, w 4\): give images like"),
    "emulate": (lambda graph, program, x: emulate(program, x), "expected 40: give images like those for which the program was lowered"),
    "simulate": (lambda graph, program, x: simulate(program, x), "expected 40: give images like those for which the program was lowered"),
    "verilator": (lambda graph, program, x: simulate(program, x, engine="verilator"), "expected 40: give images like those for which the"),
}


@pytest.mark.parametrize("shape", [(2, 6, 6), (3, 5, 4), (2, 5)])
@pytest.mark.parametrize(("read", "words"), READERS.values(), ids=READERS)
def test_images_of_another_size_are_refused(read: object, words: str, shape: tuple[int, ...]) -> None:
    graph = integer(residual(3, 5, None), drawn(50, 1))
    with pytest.raises(ValueError, match=rf"images of shape \({', '.join(map(str, (4, *shape)))}\).*{words}"):
        read(graph, program_of(graph, CRAMPED), np.zeros((4, *shape), np.int64))


SMALL = {
    "no strip": ({"data_depth": 20}, r"op 'stem.*' needs 88 elements of data memory for its smallest strip, .* room for 80: enlarge"),
    "no part of the weights": ({"weight_depth": 35}, r"op 'block.*' needs 144 weights for its smallest part, .* room for 140: enl"),
    "no code": ({"code_depth": 1, "loops": 4}, "needs 2 words of code memory and the Arch has 1: raise Arch.code_depth to 2"),
    "no scores": ({"score_depth": 2}, "the program needs 3 words of score memory and the Arch has 2: raise Arch.score_depth to 3"),
    "little outside": ({"external_depth": 50}, r"needs 240 words of external memory and the Arch has 50: raise Arch.external_depth to 240"),
    "no image": ({"external_depth": 0}, r"needs 40 words of image memory and the Arch has 1: raise Arch.image_depth to 64"),
    "nothing outside": ({"external_depth": 0, "image_depth": 64}, r"words of data memory and the Arch has 80: raise Arch.data_depth to "),
}


@pytest.mark.parametrize(("fields", "words"), SMALL.values(), ids=SMALL)
def test_a_memory_too_small_is_named_with_what_it_must_hold(fields: dict[str, int], words: str) -> None:
    graph = integer(residual(4, 4, None), drawn(50, 1))
    with pytest.raises(ValueError, match=words):
        program_of(graph, replace(CRAMPED, **fields))


@dataclass(frozen=True)
class Deployed:
    """A ResNet as integers, its program, and images."""

    depth: int
    graph: Graph
    program: Program
    x: np.ndarray


@pytest.fixture(scope="module", params=RESNETS.values(), ids=RESNETS)
def deployed(request: pytest.FixtureRequest) -> Deployed:
    depth, form = request.param
    torch.manual_seed(0)
    net = resnet(depth)
    if form:
        net = tensorize(net, {glob: instantiate(made) for glob, made in OmegaConf.load(CONF / "form" / f"{form}.yaml").items()})
    calibration = drawn(64, 1, (3, 32, 32))
    graph = integer(normalized(net, calibration), calibration)
    program = program_of(graph, instantiate(OmegaConf.load(CONF / "arch" / "rows4_lanes8.yaml")))
    return Deployed(depth, graph, program, with_extremes(graph, drawn(EQUAL_ON[depth], 2, (3, 32, 32))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ranks clipped")
def test_a_whole_resnet_is_emulated(deployed: Deployed) -> None:
    expected = interpret(deployed.graph, deployed.x)
    assert len(np.unique(expected, axis=0)) == EQUAL_ON[deployed.depth]
    assert (emulate(deployed.program, deployed.x) == expected).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ranks clipped")
def test_a_whole_resnet_runs_on_a_chip_with_64_kb(deployed: Deployed) -> None:
    arch = deployed.program.arch
    x = deployed.x[-arch.rows :]
    simulation = simulate(deployed.program, x, engine="verilator")
    assert (simulation.y == interpret(deployed.graph, x)).all()
    assert simulation.cycles == (cycles(deployed.program),)
    assert arch.memory_bits <= 64 * 1024 * 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ranks clipped")
def test_a_whole_test_set_of_a_resnet_can_be_judged(deployed: Deployed) -> None:
    """The quickest of three runs: this machine may be busy."""
    seconds = []
    for _ in range(3):
        started = monotonic()
        interpret(deployed.graph, deployed.x)
        seconds.append(monotonic() - started)
    assert len(deployed.x) / min(seconds) >= LEAST_IMAGES_S[deployed.depth]
