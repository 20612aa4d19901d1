"""The steps above the waist: learn, prune, and train what the pruned net is measured against."""

import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from page import Result
from torch import nn
from watch import tensorboard

from bayestt.algebra.formats import Form
from bayestt.bayes.batches import Batches
from bayestt.bayes.budget import Budget
from bayestt.bayes.checkpoint import digest
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import point
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.posterior import Posterior
from bayestt.bayes.predict import predict, score
from bayestt.bayes.processes import decided, first, wait
from bayestt.bayes.prune import check_room, prune, ranks
from bayestt.bayes.rank_posterior import rank_posterior
from bayestt.bayes.reliability import reliability
from bayestt.bayes.teacher import Teacher
from bayestt.data.dataset import Dataset
from bayestt.ir.graph import Graph
from bayestt.nets import weights
from bayestt.nets.conv import TensorizedConv2d
from bayestt.nets.fake_quantized import PRECISION, FakeQuantized
from bayestt.nets.rounded import Rounded
from bayestt.nets.tensorize import TensorizedLinear, tensorize, tensorized
from bayestt.report import table
from bayestt.report.training_memory import FLOAT_BITS, factor_bits

SILENT = 1e-30
"""Of the largest contribution in a bond: less is that of a rank which a budget has set to zero."""


def train(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Learn the dense net that everything is measured against, and the tensorized one under its prior."""
    torch.manual_seed(cfg.seed)
    dense = instantiate(cfg.net)
    fresh, guide = _tensorized(cfg, dense), instantiate(cfg.guide)
    fitted, budget = dict(cfg.fit), _budget(cfg)
    # A budget that cannot be met is refused now, not after the dense net's training.
    if budget is not None:
        check_room(fresh, budget)
    if budget is not None and cfg.prune.gradual is not None:
        fitted["budget"] = Budget(budget, **cfg.prune.gradual)
        fitted["budget"].check(fresh, guide(_believed(cfg, data, fresh)), cfg.fit.epochs)
    result = {}
    for name, net, settings, around in (("dense", dense, cfg.dense, point), ("tensorized", fresh, fitted, guide)):
        learned = _fit(cfg, data, folder, name, net, settings, around)
        _keep(learned.net, folder / f"{name}.weights")
        left = prune(learned, SILENT) if "budget" in settings else learned.net
        result[name] = _judged(cfg, data, name, left) | _history(learned) | {"first_ranks": ranks(net)}
    return result


def shrink(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Cut the ranks that carry next to nothing, or that the budget has no room for, and learn on without the prior in the others."""
    pruned = _cut(cfg, loaded(cfg, folder, "tensorized"))
    learned = _fit(cfg, data, folder, "pruned", pruned, cfg.finetune)
    _keep(learned.net, folder / "pruned.weights")
    return _judged(cfg, data, "pruned", learned.net) | {"ranks": ranks(learned.net)} | _history(learned)


def baselines(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Train each rival that is asked for without a prior, as long as the pruned net in all, at its best learning rate on validation."""
    dense, pruned = loaded(cfg, folder, "dense"), loaded(cfg, folder, "pruned")
    result = {}
    for name in cfg.baselines:
        torch.manual_seed(cfg.seed)
        net = RIVALS[name](cfg, dense, pruned)
        runs = {}
        for lr in cfg.baseline_lrs:
            settings = {"epochs": cfg.fit.epochs + cfg.finetune.epochs, "lr": lr, "weight": 0}
            runs[lr] = _fit(cfg, data, folder, f"{name}_{lr}", net, settings)
        reached = {lr: learned.history[-1].accuracy for lr, learned in runs.items()}
        lr = max(reached, key=reached.get)
        row = _judged(cfg, data, name, runs[lr].net) | {"ranks": ranks(runs[lr].net)} | _history(runs[lr])
        result[name] = row | {"lr": lr, "validation": reached}
    return result


def _uniform(cfg: DictConfig, dense: nn.Module, pruned: nn.Module) -> nn.Module:
    """A fresh net in the same formats with one rank everywhere: of all such nets the one nearest to the pruned net's size."""
    size, nets = _parameters(pruned), []
    while not nets or _parameters(nets[-1]) < size:
        with warnings.catch_warnings():
            # A bond whose modes do not allow this rank has the largest that they do.
            warnings.simplefilter("ignore")
            nets.append(_tensorized(cfg, dense, rank=len(nets) + 1))
    return min(nets, key=lambda net: abs(_parameters(net) - size))


def _decomposed(cfg: DictConfig, dense: nn.Module, pruned: nn.Module) -> nn.Module:
    """The trained dense net, its weights decomposed at the ranks that were found."""
    net = deepcopy(dense)
    for name, layer in tensorized(pruned).items():
        trained = dense.get_submodule(name)
        nearest = TensorizedConv2d.from_conv if isinstance(trained, nn.Conv2d) else TensorizedLinear.from_linear
        net.set_submodule(name, nearest(trained, layer.form))
        net.get_submodule(name).recompute = cfg.recompute
    return net


RIVALS: Mapping[str, Callable[[DictConfig, nn.Module, nn.Module], nn.Module]] = {"uniform": _uniform, "decomposed": _decomposed}
"""What the pruned net is measured against, at its size: from the configuration, the trained dense net and the pruned one."""


def believe(cfg: DictConfig, data: Dataset, folder: Path) -> Result:
    """Learn a posterior around the pruned net where one is asked for, and what it says of classes and of ranks."""
    if cfg.posterior is None:
        return {}
    pruned = loaded(cfg, folder, "pruned")
    settings = {name: value for name, value in cfg.posterior.items() if name not in ("guide", "samples", "threshold")}
    learned = _fit(cfg, data, folder, "posterior", pruned, settings, instantiate(cfg.posterior.guide))
    beliefs = rank_posterior(learned, cfg.posterior.threshold, cfg.posterior.samples, cfg.seed)
    row = _judged(cfg, data, "posterior", learned, cfg.posterior.samples) | _history(learned)
    return {"posterior": row | {"beliefs": {bond: asdict(belief) for bond, belief in beliefs.items()}}}


def learned_rounded(cfg: DictConfig, data: Dataset, folder: Path, integer: Graph, graph: Graph) -> Graph:
    """The integer graph of a float graph, its constants learned on where every number is rounded as the machine will."""
    rounded = Rounded(integer, graph.consts)
    # bfloat16 would round once more: it holds the integers to 2**8 only.
    return _fit(cfg, data, folder, "integer", rounded, {**cfg.quantize.finetune, "weight": 0, "precision": "fp32"}).net.graph()


def forms(cfg: DictConfig) -> dict[str, Form]:
    """The forms that layers take, by globs of their names."""
    return instantiate(cfg.form, _convert_="all")


def loaded(cfg: DictConfig, folder: Path, name: str) -> nn.Module:
    """A net that an earlier step has learned."""
    dense = instantiate(cfg.net)
    return weights.load(dense if name == "dense" else _tensorized(cfg, dense), folder / f"{name}.weights")


def _tensorized(cfg: DictConfig, dense: nn.Module, **changes: int) -> nn.Module:
    """A fresh net in the forms that are asked for, with these changes, and in the arithmetic of few bits where that is."""
    net = tensorize(dense, {glob: replace(form, **changes) for glob, form in forms(cfg).items()}, cfg.recompute)
    return FakeQuantized(net) if cfg.precision == PRECISION else net


def _precision(cfg: DictConfig) -> str:
    """What layers multiply in while they learn, those aside that compute in few bits by themselves."""
    return "fp32" if cfg.precision == PRECISION else cfg.precision


def _cut(cfg: DictConfig, net: nn.Module) -> nn.Module:
    """The net pruned by threshold and by budget."""
    return prune(net, cfg.prune.threshold, _budget(cfg))


def _budget(cfg: DictConfig) -> int | None:
    """The most parameters that pruning may leave: the tighter of the two budgets that can be given."""
    budgets = [cfg.prune.parameters]
    if cfg.prune.smaller is not None:
        if not cfg.prune.smaller >= 1:
            raise ValueError(f"prune.smaller={cfg.prune.smaller}: give how many times fewer parameters than the dense net, at least 1")
        budgets.append(int(_parameters(instantiate(cfg.net)) / cfg.prune.smaller))
    return min((budget for budget in budgets if budget is not None), default=None)


def _fit(cfg: DictConfig, data: Dataset, folder: Path, name: str, net: nn.Module, settings: Mapping, guide: Callable = point) -> Posterior:
    """One training, by default of one best value for every weight; all but the dense net are taught where a teacher is asked for."""
    images, labels = _images(cfg, data)
    believed = _believed(cfg, data, net)
    return fit(
        believed,
        guide(believed),
        Batches(images, labels, cfg.batch_size, 0 if name == "teacher" else cfg.seed, instantiate(cfg.augment)),
        (data.validation.images, data.validation.labels),
        threshold=cfg.prune.threshold,
        teacher=_teacher(cfg, data, folder) if name not in ("dense", "teacher") else None,
        checkpoint=folder / f"{name}.training",
        watch=tensorboard(folder / "tensorboard" / name) if cfg.tensorboard and first() else None,
        **{"precision": _precision(cfg), **settings},
    )


def _images(cfg: DictConfig, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The training images that are asked for, and their labels."""
    return data.train.images[: cfg.images], data.train.labels[: cfg.images]


def _believed(cfg: DictConfig, data: Dataset, net: nn.Module) -> Model:
    """The Bayesian model of a net, on the device."""
    return model(net.to(cfg.device), instantiate(cfg.prior), categorical, len(_images(cfg, data)[0]))


def _teacher(cfg: DictConfig, data: Dataset, folder: Path) -> Teacher | None:
    """Who teaches where one is asked for: the dense net of this run, or a net of its own, learned once for all runs.

    Its file's name tells what it learned from; runs that want the same at the same time wait for the first of them.
    """
    if cfg.teacher is None:
        return None
    if "net" not in cfg.teacher:
        return Teacher(loaded(cfg, folder, "dense").to(cfg.device), cfg.teacher.share, cfg.teacher.temperature)
    settings = [OmegaConf.to_container(part, resolve=True) for part in (cfg.teacher.net, cfg.teacher.fit)]
    made_with = json.dumps([*settings, cfg.batch_size, _precision(cfg), repr(instantiate(cfg.augment))])
    file = Path(cfg.teacher.folder) / f"{digest(made_with, *_images(cfg, data))}.weights"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")) if first() else nullcontext():
        if not decided(file.exists()):
            torch.manual_seed(0)
            _keep(_fit(cfg, data, folder, "teacher", instantiate(cfg.teacher.net), {**cfg.teacher.fit, "weight": 0}).net, file)
    return Teacher(weights.load(instantiate(cfg.teacher.net), file).to(cfg.device), cfg.teacher.share, cfg.teacher.temperature)


def _keep(net: nn.Module, file: Path) -> None:
    """Write a net's weights where every process finds them afterwards."""
    if first():
        weights.save(net, file)
    wait()


def _judged(cfg: DictConfig, data: Dataset, name: str, learned: Posterior | nn.Module, samples: int = 1) -> Result:
    """A net's row in the results, and its calibration, on the split that the configuration names."""
    split = getattr(data, cfg.judged_on)
    probabilities = predict(learned, split.images, samples)
    reached = score(probabilities, split.labels)
    parameters = learned.parameters if isinstance(learned, Posterior) else _parameters(learned)
    bits = factor_bits(learned.chain) if isinstance(learned, FakeQuantized) else FLOAT_BITS * parameters
    row = table.Model(name, reached.accuracy, parameters, bits, reached.nll, reached.ece)
    return asdict(row) | {"bins": reliability(probabilities, split.labels)}


def _history(learned: Posterior) -> Result:
    return {"history": [asdict(epoch) for epoch in learned.history]}


def _parameters(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())
