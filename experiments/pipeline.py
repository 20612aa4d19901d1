"""The whole chain, from images to the chip: named steps in order, each leaving its result in the run folder.

    python experiments/pipeline.py experiment=demo
    python experiments/pipeline.py experiment=demo start=simulate simulate.images=100     # again from a step, in the same folder

An interrupted training goes on where it was when the same command is given again.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig

import hw.program
from bayestt.algebra.fixed import quantize as to_integers
from bayestt.artifact import load, save
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.model import categorical, model
from bayestt.bayes.predict import predict, score
from bayestt.bayes.prune import prune, ranks
from bayestt.data.dataset import Dataset
from bayestt.ir.fold import fold
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.quantize import quantize
from bayestt.nets import weights
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace
from bayestt.report.figures import accuracy_against_parameters, cycles_per_nest, ranks_over_epochs
from bayestt.report.table import Model, models, table
from hw.assemble import assemble, instructions
from hw.cycles import instruction_cycles
from hw.emulate import emulate
from hw.simulate import simulate
from hw.verilog import verilog

log = logging.getLogger("pipeline")
Result = Mapping[str, Any]


def train(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Learn the dense net that everything is measured against, and the tensorized one under its prior."""
    torch.manual_seed(cfg.seed)
    dense = instantiate(cfg.net)
    tensorized = tensorize(dense, instantiate(cfg.form, _convert_="all"))
    result = {}
    for name, net, settings in (("dense", dense, cfg.dense), ("tensorized", tensorized, cfg.fit)):
        learned = _fit(cfg, data, folder / f"{name}.training", net, settings)
        weights.save(learned.net, folder / f"{name}.weights")
        result[name] = _judged(name, learned.net, data) | {"history": [asdict(epoch) for epoch in learned.history]}
    for name in result:
        (folder / f"{name}.training").unlink()
    return result


def shrink(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Cut the ranks that carry next to nothing, and learn on without the prior in those that were found."""
    tensorized = weights.load(tensorize(instantiate(cfg.net), instantiate(cfg.form, _convert_="all")), folder / "tensorized.weights")
    pruned = prune(tensorized, cfg.prune.threshold)
    learned = _fit(cfg, data, folder / "pruned.training", pruned, cfg.finetune)
    weights.save(learned.net, folder / "pruned.weights")
    (folder / "pruned.training").unlink()
    return _judged("pruned", learned.net, data) | {"ranks": ranks(learned.net), "history": [asdict(epoch) for epoch in learned.history]}


def to_integer(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Trace the pruned net, and turn it into the integer model."""
    pruned = weights.load(tensorize(instantiate(cfg.net), instantiate(cfg.form, _convert_="all")), folder / "pruned.weights")
    graph = fold(trace(pruned, torch.from_numpy(data.test.images[:1])))
    integer = quantize(graph, data.train.images[: cfg.quantize.calibration], cfg.quantize.weight_bits, cfg.quantize.activation_bits)
    save(graph, folder / "float.graph")
    save(integer, folder / "integer.graph")
    scores = interpret(integer, to_integers(data.test.images, integer.input.format))
    accuracy = float((scores.argmax(axis=1) == data.test.labels).mean())
    return asdict(Model("integer", accuracy, integer.parameters, integer.parameter_bits)) | {"images": len(scores)}


def to_program(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Lower the integer model to nests, and assemble them into the datapath's program."""
    arch = instantiate(cfg.arch)
    schedule = lower(load(folder / "integer.graph"), arch.tile)
    program = assemble(schedule, arch)
    hw.program.save(program, folder / "program")
    steps: dict[str, dict[str, int]] = {}
    for nest in schedule.nests:
        step = steps.setdefault(nest.name.removesuffix(".round"), {"cycles": 0, "macs": 0})
        step["cycles"] += sum(instruction_cycles(arch.instruction.from_bits(word)) for word in instructions(nest, arch))
        step["macs"] += nest.macs
    return {"instructions": len(program.code), "macs": schedule.macs, "multipliers": arch.rows * arch.lanes, "steps": steps}


def run_emulator(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Run the program in the emulator, and hold it to the integer model."""
    graph, program = load(folder / "integer.graph"), hw.program.load(folder / "program")
    x = to_integers(data.test.images[: cfg.emulate.images], graph.input.format)
    return {"images": len(x), "equal": _equal("emulator", emulate(program, x), "integer model", interpret(graph, x))}


def run_gateware(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Run the program on the simulated gateware, clock by clock, and hold it to the integer model and the emulator."""
    graph, program = load(folder / "integer.graph"), hw.program.load(folder / "program")
    x = to_integers(data.test.images[: cfg.simulate.images], graph.input.format)
    found = simulate(program, x)
    _equal("gateware", found.y, "emulator", emulate(program, x))
    return {"images": len(x), "equal": _equal("gateware", found.y, "integer model", interpret(graph, x)), "cycles": found.cycles}


def to_verilog(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Write the datapath for other tools."""
    text = verilog(instantiate(cfg.arch))
    (folder / "datapath.v").write_text(text)
    return {"lines": len(text.splitlines())}


def report(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Put everything into one page with pictures."""
    found = {step: json.loads((folder / f"{step}.json").read_text()) for step in list(STEPS)[:-1]}
    rows = [_row(found["train"]["dense"]), _row(found["train"]["tensorized"]), _row(found["prune"]), _row(found["quantize"])]
    program, gateware = found["lower"], found["simulate"]
    cycles, multipliers = sum(gateware["cycles"]), program["multipliers"]
    facts = {
        "ranks per bond": ", ".join(f"{bond} {rank}" for bond, rank in found["prune"]["ranks"].items()),
        "cycles per image": f"{cycles / gateware['images']:,.0f}",
        "multiplier utilisation": f"{100 * program['macs'] * gateware['images'] / (cycles * multipliers):.1f} % of {multipliers}",
        "gateware == integer model on": f"{gateware['images']} images",
        "emulator == integer model on": f"{found['emulate']['images']:,} images",
    }
    epochs = found["train"]["tensorized"]["history"]
    pictures = {
        "ranks": ranks_over_epochs({bond: [epoch["ranks"][bond] for epoch in epochs] for bond in found["prune"]["ranks"]}),
        "accuracy": accuracy_against_parameters(rows),
        "cycles": cycles_per_nest(
            list(program["steps"]),
            [step["cycles"] for step in program["steps"].values()],
            [step["macs"] / (step["cycles"] * multipliers) for step in program["steps"].values()],
        ),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    page = f"{models(rows)}\n\n{table(('', ''), list(facts.items()))}\n"
    (folder / "report.md").write_text(f"# {cfg.name}\n\n{page}\n" + "".join(f"![{name}]({name}.png)\n" for name in pictures))
    print(f"\n{page}\nreport: {folder / 'report.md'}")
    return {"models": [asdict(row) for row in rows], "facts": facts}


STEPS: dict[str, Callable[[DictConfig, Dataset, Path], Result]] = {
    "train": train,
    "prune": shrink,
    "quantize": to_integer,
    "lower": to_program,
    "emulate": run_emulator,
    "simulate": run_gateware,
    "verilog": to_verilog,
    "report": report,
}


def run(cfg: DictConfig, folder: Path) -> None:
    """Run the steps from `cfg.start` to `cfg.stop`; each one's result is `<step>.json` in the folder."""
    names = list(STEPS)
    for key in ("start", "stop"):
        if cfg[key] not in names:
            raise ValueError(f"{key}={cfg[key]}: expected one of {', '.join(names)}")
    torch.set_num_threads(cfg.threads)
    data = instantiate(cfg.data)
    for name in names[names.index(cfg.start) : names.index(cfg.stop) + 1]:
        begin = perf_counter()
        result = STEPS[name](cfg, data, folder)
        (folder / f"{name}.json").write_text(json.dumps(result | {"seconds": round(perf_counter() - begin, 1)}))
        log.info("%-8s %6.1f s", name, perf_counter() - begin)


def _fit(cfg: DictConfig, data: Dataset, checkpoint: Path, net: torch.nn.Module, settings: DictConfig) -> Any:
    """One training by the configuration's prior and guide."""
    images, labels = data.train.images[: cfg.images], data.train.labels[: cfg.images]
    believed = model(net, instantiate(cfg.prior), categorical, len(images))
    return fit(
        believed,
        instantiate(cfg.guide)(believed),
        Batches(images, labels, cfg.batch_size, cfg.seed),
        (data.validation.images, data.validation.labels),
        threshold=cfg.prune.threshold,
        checkpoint=checkpoint,
        **settings,
    )


def _judged(name: str, net: torch.nn.Module, data: Dataset) -> dict[str, Any]:
    """A float net's row in the results, by its test accuracy."""
    parameters = sum(weight.numel() for weight in net.parameters())
    accuracy = score(predict(net, data.test.images), data.test.labels).accuracy
    return asdict(Model(name, accuracy, parameters, 32 * parameters))


def _row(result: Mapping[str, Any]) -> Model:
    return Model(**{field: result[field] for field in ("name", "accuracy", "parameters", "bits")})


def _equal(name: str, scores: np.ndarray, reference: str, expected: np.ndarray) -> bool:
    """True, or an error that names the first image on which two machines differ."""
    if differing := np.flatnonzero((scores != expected).any(axis=1)).tolist():
        others = len(differing) - 1
        raise ArithmeticError(f"{name} and {reference} differ on image {differing[0]} and {others} others: this is a bug in bayestt")
    return True


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    try:
        run(cfg, Path(HydraConfig.get().runtime.output_dir))
    except (ArithmeticError, OSError, ValueError) as fault:
        sys.exit(str(fault))
    except HydraException as fault:
        sys.exit(str(fault.__cause__ or fault))
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from the last whole epoch")


if __name__ == "__main__":
    main()
