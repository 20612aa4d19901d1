"""The whole chain, from images to the chip: named steps in order, each leaving its result in the run folder.

    python experiments/pipeline.py experiment=demo
    python experiments/pipeline.py experiment=demo start=simulate simulate.images=100     # again from a step, in the same folder
    python experiments/pipeline.py -m experiment=demo seed=0,1,2                           # three runs
    torchrun --nproc-per-node=2 experiments/pipeline.py experiment=demo                    # learned by two processes together

An interrupted training goes on where it was when the same command is given again.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import deploy
import hydra
import learn
import page
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from page import Result

from bayestt.bayes.memory import keep_freed_memory
from bayestt.bayes.processes import count, first, together
from bayestt.bayes.step import PRECISIONS
from bayestt.data.dataset import Dataset
from bayestt.nets.fake_quantized import PRECISION

log = logging.getLogger("pipeline")
ROOT = Path(__file__).parent.parent
LEARNING: dict[str, Callable[[DictConfig, Dataset, Path], Result]] = {
    "train": learn.train,
    "prune": learn.shrink,
    "baselines": learn.baselines,
    "posterior": learn.believe,
}
"""The steps that several processes take together; all others are the first one's."""
STEPS: dict[str, Callable[[DictConfig, Dataset, Path], Result]] = LEARNING | {
    "quantize": deploy.to_integer,
    "lower": deploy.to_program,
    "emulate": deploy.run_emulator,
    "simulate": deploy.run_gateware,
    "verilog": deploy.to_verilog,
    "report": page.report,
}
OBJECTIVES = ("accuracy", "nll", "parameters")
"""What a sweep can ask of a run."""


def run(cfg: DictConfig, folder: Path, overrides: Sequence[str] = ()) -> dict[str, Result]:
    """Run the steps from `cfg.start` to `cfg.stop` and return their results; each is also `<step>.json` in the folder.

    There it says what it was made with: the experiment, its seed, the `overrides` on the command line, and the commit of the code.
    """
    names = list(STEPS)
    _check(cfg)
    torch.set_num_threads(cfg.threads)
    keep_freed_memory()
    made_with = {"experiment": cfg.name, "seed": cfg.seed, "judged_on": cfg.judged_on, "overrides": list(overrides), "commit": _commit()}
    data = instantiate(cfg.data)
    results = {}
    for name in names[names.index(cfg.start) : names.index(cfg.stop) + 1]:
        if not (first() or name in LEARNING):
            break
        begin = perf_counter()
        results[name] = STEPS[name](cfg, data, folder)
        seconds = round(perf_counter() - begin, 1)
        if not first():
            continue
        (folder / f"{name}.json").write_text(json.dumps(results[name] | {"seconds": seconds, "made_with": made_with}))
        for checkpoint in folder.glob("*.training"):
            checkpoint.unlink()
        log.info("%-9s %6.1f s", name, seconds)
    return results


def objectives(cfg: DictConfig, results: Mapping[str, Result]) -> float | tuple[float, ...] | None:
    """What a sweep sees of a run: figures of the last net that was trained, on validation, never on test."""
    last = results.get("prune") or results.get("train", {}).get("tensorized")
    if last is None:
        return None
    figures = {**last["history"][-1], "parameters": last["parameters"]}
    values = tuple(float(figures[name]) for name in cfg.objectives)
    return values[0] if len(values) == 1 else values


def _check(cfg: DictConfig) -> None:
    """Refuse words that mean nothing, before anything is trained."""
    rules = {"start": STEPS, "stop": STEPS, "judged_on": ("test", "validation"), "baselines": learn.RIVALS, "objectives": OBJECTIVES}
    rules |= {"precision": (*PRECISIONS, PRECISION)}
    for key, known in rules.items():
        for word in [cfg[key]] if isinstance(cfg[key], str) else cfg[key]:
            if word not in known:
                raise ValueError(f"{key}={word}: expected one of {', '.join(known)}")
    if cfg.precision == PRECISION and count() > 1:
        raise ValueError(f"precision={PRECISION}: scales would differ from process to process, give one process or another precision")


def _commit() -> str | None:
    """The commit of the code, marked where code or configurations differ from it; None outside a git checkout."""
    try:
        commit = _git("rev-parse", "--short=7", "HEAD")
        return commit + ("-dirty" if _git("status", "--porcelain", "--", "bayestt", "hw", "conf", "experiments/*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | tuple[float, ...] | None:
    try:
        with together():
            results = run(cfg, Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().overrides.task)
        return objectives(cfg, results)
    except FloatingPointError as fault:
        # In a sweep it is a failed run among others.
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit(str(fault))
    except (ArithmeticError, OSError, ValueError) as fault:
        sys.exit(str(fault))
    except HydraException as fault:
        sys.exit(str(fault.__cause__ or fault))
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from the last whole epoch")


if __name__ == "__main__":
    main()
