"""Training in integers as a small chip would do it: factors of 4 bits, latents and activations of 8, gradients of 16.

    python experiments/onchip.py seed=0                                                       # experiment=fashion_onchip
    python experiments/onchip.py judged_on=validation images=10000 'rates=[11,11,12,13]'     # settings

An interrupted training goes on after its last whole epoch when the same command is given again.
"""

import json
import logging
import sys
from math import prod
from pathlib import Path

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from bayestt.algebra.fixed import Fixed, quantize
from bayestt.algebra.formats import Form
from bayestt.artifact import load_state, save_state
from bayestt.bayes.batches import Batches
from bayestt.data.dataset import Split
from bayestt.ir.compact import compact
from bayestt.ir.descend import Rule, State
from bayestt.ir.start import start
from bayestt.ir.training import ACTIVATION_BITS, IMAGE_FRAC, Training, training
from bayestt.nets.descend_batch import descend_batch, scores
from bayestt.report.training_memory import dense_bits, factor_bits, training_bits

log = logging.getLogger("onchip")
NEUTRAL = ("name", "judged_on", "data_root", "threads")
"""Settings that change no state."""


def run(cfg: DictConfig, folder: Path) -> dict:
    """Train, and return what was reached; also `onchip.json` in the folder."""
    torch.set_num_threads(cfg.threads)
    data = instantiate(cfg.data)
    images, labels = pixels(cfg, data.train)[: cfg.images], data.train.labels[: cfg.images]
    chain, sizes = built(cfg)
    batches = Batches(images, labels, cfg.batch_size, cfg.seed)
    first = next(batches.epoch(0)).numpy()
    state, history = start(chain, images[first], labels[first], cfg.seed), []
    began = training_bits(chain)
    if (folder / "state").exists():
        state, history = resumed(cfg, chain, folder / "state")
    for epoch in range(len(history), len(cfg.rates)):
        for batch in tqdm(batches.epoch(epoch), f"epoch {epoch}", len(batches), unit="step", leave=False):
            state = descend_batch(chain, state, images[batch.numpy()], labels[batch.numpy()], rule(cfg, chain, state, epoch))
        small, _ = compact(chain, state)
        reached = accuracy(chain, state, cfg, data.validation)
        ranks = {axis: int(scales.alive.sum()) for axis, scales in state.scales.items()}
        history.append({"validation": reached, "factor_bits": factor_bits(small), "ranks": ranks})
        log.info("epoch %2d  validation %.2f %%  %s", epoch, 100 * reached, " ".join(map(str, ranks.values())))
        save_state(state, folder / "state", {"identity": identity(cfg, epoch + 1), "history": history})
    small, left = compact(chain, state)
    result = {
        "seed": cfg.seed,
        "judged_on": cfg.judged_on,
        "accuracy": accuracy(small, left, cfg, getattr(data, cfg.judged_on)),
        "parameters": sum(latent.size for latent in left.latents.values()),
        "factor_bits": factor_bits(small),
        "training_bits": {"first": began, "last": training_bits(small)},
        "dense_bits": dense_bits(sizes),
        "history": history,
    }
    (folder / "onchip.json").write_text(json.dumps(result) + "\n")
    return result


def identity(cfg: DictConfig, epochs: int) -> dict:
    """The settings that so many epochs depend on: of the rates only theirs, so that a training may go on for longer."""
    settings = OmegaConf.to_container(cfg)
    return {name: value for name, value in settings.items() if name not in NEUTRAL} | {"rates": settings["rates"][:epochs]}


def resumed(cfg: DictConfig, chain: Training, path: Path) -> tuple[State, list[dict]]:
    """The state in a file and the epochs that led to it; the state of a training with other settings is refused."""
    state, record = load_state(path, chain)
    there, history = record.get("identity", {}), record.get("history", [])
    here = identity(cfg, len(history))
    differing = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if differing := [f"{name} {there.get(name)} there and {here.get(name)} here" for name in differing]:
        raise ValueError(f"{path} is of a training with other settings ({', '.join(differing)}): delete it or give another hydra.run.dir")
    return state, history


def rule(cfg: DictConfig, chain: Training, state: State, epoch: int) -> Rule:
    """An epoch's rule: with the prior while the net is larger than it may be."""
    rate = cfg.rates[epoch]
    wanted = cfg.pull is not None and epoch >= cfg.prior_from and factor_bits(compact(chain, state)[0]) > cfg.bits
    return Rule(rate, cfg.pull + cfg.rates[0] - rate if wanted else None, cfg.momentum)


def built(cfg: DictConfig) -> tuple[Training, list[int]]:
    """The training of the layers that are asked for, and the sizes of the dense net that they stand for."""
    forms = {name: Form(**form) for name, form in cfg.forms.items()}
    shapes = {name: (prod(form.rows), prod(form.cols)) for name, form in forms.items()}
    chain = training({name: form.factorization(*shapes[name]) for name, form in forms.items()}, cfg.ease, cfg.strips)
    return chain, [next(iter(shapes.values()))[1], *(rows for rows, _ in shapes.values())]


def pixels(cfg: DictConfig, split: Split) -> np.ndarray:
    """Images as integers (n, 28 * columns), zeros on both sides."""
    side = (cfg.columns - split.images.shape[-1]) // 2
    integers = quantize(split.images, Fixed(ACTIVATION_BITS, IMAGE_FRAC)).astype(np.int8)
    return np.pad(integers, ((0, 0), (0, 0), (side, side))).reshape(len(integers), -1)


def accuracy(chain: Training, state: State, cfg: DictConfig, split: Split) -> float:
    """The part of a split's images whose label has the largest score."""
    return float((scores(chain, state, pixels(cfg, split)).argmax(1) == split.labels).mean())


@hydra.main(version_base=None, config_path="../conf", config_name="onchip")
def main(cfg: DictConfig) -> None:
    try:
        result = run(cfg, Path(HydraConfig.get().runtime.output_dir))
    except (OSError, ValueError) as fault:
        sys.exit(str(fault))
    dense, first, last = (sum(bits.values()) for bits in (result["dense_bits"], *result["training_bits"].values()))
    reached = cfg.judged_on, 100 * result["accuracy"]
    log.info("%s %.2f %%, %.0fx less memory to train than dense, at the end %.0fx", *reached, dense / first, dense / last)


if __name__ == "__main__":
    main()
