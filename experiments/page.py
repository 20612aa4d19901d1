"""The last step: one page with pictures from what the others left."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bayestt.data.dataset import Dataset
from bayestt.report.figures import accuracy_against_parameters, cycles_per_nest, posterior_of_ranks, ranks_over_epochs, reliability_diagram
from bayestt.report.table import Model, models, table

Result = dict[str, Any]
"""What a step leaves, in JSON's types."""
LEARNED = ("train", "prune", "baselines", "posterior", "quantize")
"""The steps that leave nets with their results."""


def report(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Put everything that earlier steps have left into one page with pictures."""
    nets = nets_of(folder)
    rows = [row_of(net) for net in nets.values()]
    facts = {"ranks per bond": ", ".join(f"{bond} {rank}" for bond, rank in nets["pruned"]["ranks"].items())}
    epochs = nets["tensorized"]["history"]
    pictures = {
        "ranks": ranks_over_epochs({bond: [epoch["ranks"][bond] for epoch in epochs] for bond in nets["pruned"]["ranks"]}),
        "accuracy": accuracy_against_parameters(rows),
        "reliability": reliability_diagram({name: net["bins"] for name, net in nets.items() if name in ("dense", "pruned", "posterior")}),
    }
    if "posterior" in nets:
        beliefs = nets["posterior"]["beliefs"]
        # JSON knows no numbers as keys.
        chances = {bond: {int(rank): chance for rank, chance in belief["probabilities"].items()} for bond, belief in beliefs.items()}
        pictures["beliefs"] = posterior_of_ranks(chances, {bond: belief["interval"] for bond, belief in beliefs.items()})
    if (folder / "simulate.json").exists():
        program, emulated, gateware = (_left(folder, step) for step in ("lower", "emulate", "simulate"))
        cycles, multipliers = sum(gateware["cycles"]), program["multipliers"]
        facts |= {
            "cycles per image": f"{cycles / gateware['images']:,.0f}",
            "multiplier utilisation": f"{100 * program['macs'] * gateware['images'] / (cycles * multipliers):.1f} % of {multipliers}",
            "gateware == integer model on": f"{gateware['images']} images",
            "emulator == integer model on": f"{emulated['images']:,} images",
        }
        steps = program["steps"]
        busy = [step["macs"] / (step["cycles"] * multipliers) for step in steps.values()]
        pictures["cycles"] = cycles_per_nest(list(steps), [step["cycles"] for step in steps.values()], busy)
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    page = f"{models(rows)}\n\n{table(('', ''), list(facts.items()))}\n"
    (folder / "report.md").write_text(f"# {cfg.name}\n\n{page}\n" + "".join(f"![{name}]({name}.png)\n" for name in pictures))
    print(f"\n{page}\nreport: {folder / 'report.md'}")
    return {"models": [asdict(row) for row in rows], "facts": facts}


def nets_of(folder: Path) -> dict[str, Result]:
    """What a run folder says of every net, by name, in the order of the chain."""
    found = [_left(folder, step) for step in LEARNED if (folder / f"{step}.json").exists()]
    return {net["name"]: net for result in found for net in (result, *result.values()) if isinstance(net, dict) and "bits" in net}


def row_of(net: Result) -> Model:
    """A net's row in the results."""
    return Model(**{field.name: net[field.name] for field in fields(Model)})


def _left(folder: Path, step: str) -> Result:
    return json.loads((folder / f"{step}.json").read_text())
