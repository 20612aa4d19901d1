"""Results for the record: runs become lines in experiments/results, and those lines the tables and figures of the READMEs.

    python experiments/pipeline.py -m experiment=fashion_fc seed=0,1,2,3,4
    python experiments/collect.py runs/fashion_fc_sweep     # add these runs, in the place of earlier ones with their seeds
    python experiments/collect.py                           # only draw tables and figures again

A line is one run: its experiment, seed, commit, and overrides on the command line; what it says of every net; the ranks that were found;
and the seconds of every step. A table stands in a README between `<!-- results -->`, `<!-- differences -->` or `<!-- commands -->` and
`<!-- end -->`; names behind the first word choose experiments. A figure holds all experiments on the data set that their names begin with.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from page import LEARNED, nets_of, row_of

from bayestt.report.figures import accuracy_over_seeds
from bayestt.report.published import PUBLISHED
from bayestt.report.table import NOTHING, Experiment, Model, differences, experiments, table

ROOT = Path(__file__).parent.parent
NEUTRAL = ("experiment", "seed", "data_root", "threads", "start", "stop", "hydra", "tensorboard")
"""Overrides that change no result, or that a line names by itself."""

Line = dict[str, Any]


def collect(folders: Sequence[Path], root: Path = ROOT) -> None:
    """Add the runs in these folders, at any depth, to the results under a root; then write its tables and figures anew."""
    for folder in folders:
        runs = sorted(path.parent for path in folder.rglob("train.json"))
        if not runs:
            raise ValueError(f"no run in {folder} has trained a net, expected train.json: give the folder of a run or of a sweep")
        for run in runs:
            _add(_line(run), root / "experiments" / "results")
    lines = recorded(root)
    for readme in (root / "README.md", root / "experiments" / "README.md"):
        readme.write_text(filled(readme.read_text(), lines))
    for data in sorted({name.split("_")[0] for name in lines}):
        ours = [_experiment(name, runs) for name, runs in lines.items() if name.split("_")[0] == data]
        accuracy_over_seeds(ours, PUBLISHED.get(data, ())).savefig(root / "experiments" / "figures" / f"{data}.png", dpi=100)


def recorded(root: Path = ROOT) -> dict[str, list[Line]]:
    """The pipeline's runs on record, by experiment; a line of another script names none."""
    paths = sorted((root / "experiments" / "results").glob("*.jsonl"))
    lines = {path.stem: [json.loads(text) for text in path.read_text().splitlines()] for path in paths}
    return {name: runs for name, runs in lines.items() if all("experiment" in run for run in runs)}


def filled(text: str, lines: dict[str, list[Line]]) -> str:
    """A README with its tables made anew."""

    def anew(mark: re.Match[str]) -> str:
        kind, *names = mark[1].split()
        if unknown := [name for name in names if name not in lines]:
            raise ValueError(f"<!-- {mark[1]} --> names {', '.join(unknown)}, expected some of {', '.join(lines)}: correct the mark")
        return f"<!-- {mark[1]} -->\n\n{TABLES[kind]({name: lines[name] for name in names or lines})}\n\n<!-- end -->"

    return re.sub(rf"<!-- ((?:{'|'.join(TABLES)})\b.*?) -->.*?<!-- end -->", anew, text, flags=re.DOTALL)


def _line(run: Path) -> Line:
    """What a run folder leaves for the record."""
    steps = {path.stem: json.loads(path.read_text()) for path in run.glob("*.json")}
    learned = [steps[step]["made_with"] for step in LEARNED if step in steps]
    name = learned[0]["experiment"]
    if not (ROOT / "conf" / "experiment" / f"{name}.yaml").exists():
        raise ValueError(f"{run} is a run of {name}, and there is no conf/experiment/{name}.yaml: write it, so that others can repeat it")
    if any(made_with["judged_on"] != "test" for made_with in learned):
        raise ValueError(f"{run} was judged on validation, expected test: run it with judged_on=test")
    overrides = {word for made_with in learned for word in made_with["overrides"] if re.split("[.=]", word)[0] not in NEUTRAL}
    nets = nets_of(run)
    return {
        "experiment": name,
        "seed": learned[0]["seed"],
        "commit": " ".join(sorted({str(made_with["commit"]) for made_with in learned})),
        "overrides": sorted(overrides),
        **{net: {figure: value for figure, value in vars(row_of(result)).items() if figure != "name"} for net, result in nets.items()},
        "ranks": nets.get("pruned", {}).get("ranks", {}),
        "seconds": {step: result["seconds"] for step, result in steps.items()},
    }


def _add(line: Line, results: Path) -> None:
    """Write a line into its experiment's file; a run with other settings than those already there is refused."""
    path = results / f"{line['experiment']}.jsonl"
    others = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    others = [other for other in others if other["seed"] != line["seed"]]
    if odd := [other for other in others if other.get("overrides", []) != line["overrides"]]:
        raise ValueError(
            f"{path.stem} has runs with overrides {odd[0].get('overrides', [])} and this one has {line['overrides']}: "
            f"write them into an experiment of its own, or delete {path}"
        )
    path.write_text("".join(json.dumps(each) + "\n" for each in sorted([*others, line], key=lambda each: each["seed"])))


def _results(lines: dict[str, list[Line]]) -> str:
    return experiments([_experiment(name, runs) for name, runs in lines.items()])


def _differences(lines: dict[str, list[Line]]) -> str:
    return differences([_experiment(name, runs) for name, runs in lines.items()], "pruned")


def _commands(lines: dict[str, list[Line]]) -> str:
    rows, whole = [], 0.0
    for name, runs in lines.items():
        overrides = "".join(f" {word}" for word in runs[0].get("overrides", []))
        command = f"`python experiments/pipeline.py -m experiment={name}{overrides} seed={','.join(str(run['seed']) for run in runs)}`"
        minutes = [sum(run["seconds"].values()) / 60 for run in runs]
        rows.append((name, command, f"{mean(minutes):.1f}", f"{sum(minutes):.0f}"))
        whole += sum(minutes)
    rows.append(("all", "", "", f"{whole:.0f}"))
    return table(("experiment", "command", "minutes a run", "in all"), rows)


TABLES: dict[str, Callable[[dict[str, list[Line]]], str]] = {"results": _results, "differences": _differences, "commands": _commands}


def _experiment(name: str, runs: Sequence[Line]) -> Experiment:
    nets = [{net: row for net, row in run.items() if isinstance(row, dict) and "bits" in row} for run in runs]
    return Experiment(
        name,
        tuple(run["seed"] for run in runs),
        tuple(tuple(Model(net, **row) for net, row in rows.items()) for rows in nets),
        tuple(tuple(run.get("commit", NOTHING).split()) for run in runs),
    )


if __name__ == "__main__":
    try:
        collect([Path(argument) for argument in sys.argv[1:]])
    except (OSError, ValueError) as fault:
        sys.exit(str(fault))
