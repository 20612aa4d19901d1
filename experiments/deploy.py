"""The steps below the waist: the pruned net as integers, as a program, and on the machines that must agree about it."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from learn import learned_rounded, loaded
from omegaconf import DictConfig
from page import Result

import hw.program
from bayestt.algebra.fixed import dequantize
from bayestt.algebra.fixed import quantize as to_integers
from bayestt.artifact import load, save
from bayestt.bayes.predict import score
from bayestt.data.dataset import Dataset
from bayestt.ir.fold import fold
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.overflow import overflow
from bayestt.ir.quantize import quantize
from bayestt.nets.fake_quantized import FakeQuantized
from bayestt.nets.trace import trace
from bayestt.report.layers import layer_of, layers
from bayestt.report.table import Model
from hw.assemble import assemble
from hw.cost import group_cost, nest_cost
from hw.cycles import nest_cycles
from hw.emulate import emulate
from hw.energy import energy_j
from hw.simulate import simulate
from hw.verilog import verilog


def to_integer(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Trace the pruned net, and turn it into the integer model, its contractions in the order that suits the machine."""
    pruned = loaded(cfg, folder, "pruned")
    traced = trace(pruned.plain() if isinstance(pruned, FakeQuantized) else pruned, torch.from_numpy(data.test.images[:1]))
    graph = fold(traced, group_cost(instantiate(cfg.arch)))
    integer = quantize(graph, data.train.images[: cfg.quantize.calibration], cfg.quantize.weight_bits, cfg.quantize.activation_bits)
    if cfg.quantize.finetune is not None:
        integer = learned_rounded(cfg, data, folder, integer, graph)
    save(graph, folder / "float.graph")
    save(integer, folder / "integer.graph")
    split = getattr(data, cfg.judged_on)
    scores = dequantize(interpret(integer, to_integers(split.images, integer.input.format)), integer.output.format)
    reached = score(_softmax(scores), split.labels)
    row = Model("integer", reached.accuracy, integer.parameters, integer.parameter_bits, reached.nll, reached.ece)
    widest = max(overflow(integer), key=lambda each: each.needed_bits)
    return asdict(row) | {"images": len(scores), "layers": [asdict(layer) for layer in layers(traced)], "widest_sum": asdict(widest)}


def to_program(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Lower the integer model to nests, and assemble them into the datapath's program."""
    arch = instantiate(cfg.arch)
    graph = load(folder / "integer.graph")
    schedule = lower(graph, arch.tile, arch.room, nest_cost(arch))
    program = assemble(schedule, arch)
    hw.program.save(program, folder / "program")
    known = [layer["name"] for layer in json.loads((folder / "quantize.json").read_text())["layers"]]
    steps: dict[str, dict] = {}
    for nest in schedule.nests:
        first = {"layer": layer_of(graph, nest.name, known), "cycles": 0, "macs": 0, "moved": 0}
        step = steps.setdefault(nest.name.removesuffix(".round"), first)
        step["cycles"] += nest_cycles(nest, arch)
        step["moved" if nest.moves else "macs"] += nest.macs
    return {
        "instructions": len(program.code),
        "words": sum(map(len, program.loads)),
        "macs": schedule.macs,
        "images": schedule.images,
        "multipliers": arch.rows * arch.lanes,
        "data_bits": arch.data_bits,
        "energy_j": energy_j(program),
        "steps": steps,
    }


def run_emulator(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Run the program in the emulator, and hold it to the integer model."""
    graph, program = load(folder / "integer.graph"), hw.program.load(folder / "program")
    x = to_integers(data.test.images[: cfg.emulate.images], graph.input.format)
    return {"images": len(x), "equal": _equal("emulator", emulate(program, x), "integer model", interpret(graph, x))}


def run_gateware(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Run the program on the simulated gateware, clock by clock, and hold it to the integer model and the emulator."""
    graph, program = load(folder / "integer.graph"), hw.program.load(folder / "program")
    x = to_integers(data.test.images[: cfg.simulate.images], graph.input.format)
    found = simulate(program, x, engine=cfg.simulate.engine)
    _equal("gateware", found.y, "emulator", emulate(program, x))
    return {"images": len(x), "equal": _equal("gateware", found.y, "integer model", interpret(graph, x)), "cycles": found.cycles}


def to_verilog(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Write the datapath for other tools."""
    text = verilog(instantiate(cfg.arch))
    (folder / "datapath.v").write_text(text)
    return {"lines": len(text.splitlines())}


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) from scores."""
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _equal(name: str, scores: np.ndarray, reference: str, expected: np.ndarray) -> bool:
    """True, or an error that names the first image on which two machines differ."""
    if differing := np.flatnonzero((scores != expected).any(axis=1)).tolist():
        others = len(differing) - 1
        raise ArithmeticError(f"{name} and {reference} differ on image {differing[0]} and {others} others: this is a bug in bayestt")
    return True
