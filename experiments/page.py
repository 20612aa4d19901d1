"""The last step: one page with pictures from what the others left."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from omegaconf import DictConfig

from bayestt.data.dataset import Dataset
from bayestt.ir.overflow import Sum
from bayestt.report.figures import (
    accuracy_against_parameters,
    cycles_per_nest,
    posterior_of_ranks,
    ranks_along_depth,
    ranks_over_epochs,
    reliability_diagram,
)
from bayestt.report.layers import Cost, Layer, layer_table
from bayestt.report.table import Model, models, table
from hw.energy import SOURCE

Result = dict[str, Any]
"""What a step leaves, in JSON's types."""
LEARNED = ("train", "prune", "baselines", "posterior", "quantize")
"""The steps that leave nets with their results."""
FEW = 12
"""Bonds, or steps of a program, of which a picture shows each."""


def report(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Put everything that earlier steps have left into one page with pictures."""
    nets = nets_of(folder)
    rows = [row_of(net) for net in nets.values()]
    ranks = nets["pruned"]["ranks"]
    facts = {"ranks per bond": ", ".join(f"{bond} {rank}" for bond, rank in ranks.items())} if len(ranks) <= FEW else {}
    pictures = {
        "ranks": _ranks(nets),
        "accuracy": accuracy_against_parameters(rows),
        "reliability": reliability_diagram({name: net["bins"] for name, net in nets.items() if name in ("dense", "pruned", "posterior")}),
    }
    if "posterior" in nets:
        beliefs = nets["posterior"]["beliefs"]
        # JSON knows no numbers as keys.
        chances = {bond: {int(rank): chance for rank, chance in belief["probabilities"].items()} for bond, belief in beliefs.items()}
        pictures["beliefs"] = posterior_of_ranks(chances, {bond: belief["interval"] for bond, belief in beliefs.items()})
    if "integer" in nets:
        facts["accumulators need, for any image"] = str(Sum(**nets["integer"]["widest_sum"]))
    tables = [models(rows)]
    if (folder / "simulate.json").exists():
        program, emulated, gateware = (_left(folder, step) for step in ("lower", "emulate", "simulate"))
        cycles, multipliers = sum(gateware["cycles"]), program["multipliers"]
        facts |= {
            "cycles per image": f"{cycles / gateware['images']:,.0f}",
            "multiplier utilisation": f"{100 * program['macs'] * gateware['images'] / (cycles * multipliers):.1f} % of {multipliers}",
            "energy per image of a full batch": f"{1e6 * program['energy_j']:.3g} µJ, {SOURCE}",
            "gateware == integer model on": f"{gateware['images']} images",
            "emulator == integer model on": f"{emulated['images']:,} images",
        }
        layers, steps = [Layer(**layer) for layer in nets["integer"]["layers"]], program["steps"]
        costs = {layer.name: _cost([step for step in steps.values() if step["layer"] == layer.name], program) for layer in layers}
        tables.append(layer_table(layers, costs))
        steps = {name: _cost([step], program) for name, step in steps.items()}
        parts = steps if len(steps) <= FEW else costs
        pictures["cycles"] = cycles_per_nest(list(parts), [part.cycles for part in parts.values()], [part.busy for part in parts.values()])
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    page = "\n\n".join([*tables, table(("", ""), list(facts.items()))])
    (folder / "report.md").write_text(f"# {cfg.name}\n\n{page}\n\n" + "".join(f"![{name}]({name}.png)\n" for name in pictures))
    print(f"\n{page}\n\nreport: {folder / 'report.md'}")
    return {"models": [asdict(row) for row in rows], "facts": facts}


def _ranks(nets: dict[str, Result]) -> Figure:
    """The ranks of few bonds over epochs, of many along the depth of the net."""
    pruned, epochs = nets["pruned"]["ranks"], nets["tensorized"]["history"]
    if len(pruned) <= FEW:
        return ranks_over_epochs({bond: [epoch["ranks"][bond] for epoch in epochs] for bond in pruned})
    by_layer: dict[str, tuple[dict[str, int], dict[str, int]]] = {}
    for bond, rank in pruned.items():
        layer, _, axis = bond.rpartition(".")
        found, first = by_layer.setdefault(layer, ({}, {}))
        found[axis], first[axis] = rank, nets["tensorized"]["first_ranks"][bond]
    return ranks_along_depth([(layer, found, first) for layer, (found, first) in by_layer.items()])


def _cost(steps: Sequence[Result], program: Result) -> Cost:
    """What some steps of the machine's program take together."""
    macs, cycles, moved = (sum(step[what] for step in steps) for what in ("macs", "cycles", "moved"))
    return Cost(macs // program["images"], cycles, macs / (cycles * program["multipliers"]), moved * program["data_bits"] // 8)


def nets_of(folder: Path) -> dict[str, Result]:
    """What a run folder says of every net, by name, in the order of the chain."""
    found = [_left(folder, step) for step in LEARNED if (folder / f"{step}.json").exists()]
    return {net["name"]: net for result in found for net in (result, *result.values()) if isinstance(net, dict) and "bits" in net}


def row_of(net: Result) -> Model:
    """A net's row in the results."""
    return Model(**{field.name: net[field.name] for field in fields(Model)})


def _left(folder: Path, step: str) -> Result:
    return json.loads((folder / f"{step}.json").read_text())
