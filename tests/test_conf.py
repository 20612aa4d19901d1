"""Configurations: every yaml composes and trains for three steps, every experiment and every machine down to the gateware."""

from pathlib import Path

import numpy as np
import onchip
import pipeline
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from published import digits, idx_files, publish
from test_cifar10 import batch

from bayestt.data import cifar10, fashion_mnist, mnist

CONF = Path(__file__).parent.parent / "conf"
GROUPS = {path.parent.name: sorted(choice.stem for choice in path.parent.glob("*.yaml")) for path in CONF.glob("*/*.yaml")}
ONCHIP = [path.stem for path in sorted(CONF.glob("experiment/*.yaml")) if "python experiments/onchip.py" in path.read_text()]
"""Experiments of another script than the pipeline."""
CHOICES = [(group, choice) for group, choices in sorted(GROUPS.items()) for choice in choices if group != "sweep" and choice not in ONCHIP]
"""What the pipeline runs, but for sweeps, which test_sweep.py runs."""
THREE_STEPS = ["images=384", "batch_size=128", "dense.epochs=1", "fit.epochs=1", "finetune.epochs=1"]
SMALL_CHAIN = ["quantize.calibration=20", "emulate.images=4", "simulate.images=1"]
NO_MODES = ["form.fc1.rows=null", "form.fc1.cols=null", "form.fc2.rows=null", "form.fc2.cols=null"]
SMALL_NET = ["net.sizes=[784,32,10]", *NO_MODES]
SMALL_RANKS = ["form.fc1.rank=2", "form.fc2.rank=2"]
COMPILED = ["arch=rows2_lanes2", "simulate.engine=verilator"]
"""One machine, compiled once for all experiments, whatever theirs is: every machine runs by itself."""
TWO_STEPS = ["images=64", "batch_size=32"]
RESNET, SIX_LAYERS = ["net.depth=14", *TWO_STEPS], ["net.widths=[8,8,8,256]", *TWO_STEPS]
CONVOLUTIONS = {
    **{("net", "resnet"): ["data=cifar10", *RESNET], ("net", "six_layers"): ["data=cifar10", *SIX_LAYERS]},
    **{("form", f"resnet_{format}"): ["data=cifar10", "net=resnet", *RESNET] for format in ("tucker", "tensor_train")},
    ("form", "six_layers"): ["data=cifar10", "net=six_layers", *SIX_LAYERS],
    **{("experiment", f"cifar_cnn{short}"): ["threads=1", "prune.smaller=null", *SIX_LAYERS] for short in ("", "_cpu")},
    **{
        ("experiment", f"cifar_resnet{depth}{short}"): ["threads=1", "prune.parameters=null", *RESNET]
        for depth in (20, 56, 110)
        for short in ("", "_cpu")
    },
}
"""Choices with convolutions, and what makes them small."""


def composed(*overrides: str) -> DictConfig:
    """The configuration that a command line gives."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.fixture
def published_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with all data sets, small ones that stand in for the real."""
    for module in (mnist, fashion_mnist):
        publish(monkeypatch, module, idx_files(digits(5_400, 30)), tmp_path)
    random = np.random.default_rng(0)
    monkeypatch.setattr(cifar10, "HELD_OUT", 116)
    pictures = [batch(random.integers(0, 256, (100, 3_072), np.uint8), random.integers(0, 10, 100).tolist()) for _ in range(6)]
    publish(monkeypatch, cifar10, pictures, tmp_path)
    return str(tmp_path)


@pytest.mark.filterwarnings("ignore:ranks clipped")
@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=["/".join(pair) for pair in CHOICES])
def test_every_yaml_runs(group: str, choice: str, published_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A teacher that several runs share is kept in a file, its path from here.
    monkeypatch.chdir(tmp_path)
    overrides = [f"data_root={published_data}", *THREE_STEPS]
    whole = group in ("experiment", "arch")
    if choice == "cifar10":
        overrides += ["net.sizes=[3072,32,10]", *NO_MODES]
    if group == "experiment":
        overrides += ["prune.gradual={start: 0, end: 1}"]
    if group == "arch":
        overrides += SMALL_NET
    if group == "posterior":
        overrides += ["posterior.epochs=1", "posterior.samples=2"]
    if (group, choice) in CONVOLUTIONS:
        # The others differ in numbers only, and the gateware of all is that of arch/rows4_lanes8, which runs by itself.
        stop = "emulate" if choice in ("cifar_cnn", "cifar_resnet110") else "train"
        cfg = composed(f"{group}={choice}", *overrides, *CONVOLUTIONS[group, choice], f"stop={stop}", *(SMALL_CHAIN if whole else []))
        if group == "net":
            cfg.form = {}
    else:
        stop = "simulate" if whole else "posterior" if group == "posterior" else "train"
        small = [*SMALL_CHAIN, *SMALL_RANKS] if whole else []
        cfg = composed(f"{group}={choice}", *overrides, f"stop={stop}", *small, *(COMPILED if group == "experiment" else []))
    if cfg.teacher is not None and "fit" in cfg.teacher:
        cfg.teacher.fit.epochs = 1
    pipeline.run(cfg, tmp_path)
    assert (tmp_path / f"{stop}.json").is_file()


@pytest.mark.parametrize("choice", ONCHIP)
def test_every_training_in_integers_runs(choice: str, published_data: str, tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("onchip", [f"experiment={choice}", f"data_root={published_data}", *TWO_STEPS, "rates=[11]"])
    assert cfg.name == choice
    assert onchip.run(cfg, tmp_path)["judged_on"] == "test" and (tmp_path / "onchip.json").is_file()


def test_every_folder_of_conf_is_a_group() -> None:
    assert set(GROUPS) == {"data", "net", "form", "prior", "guide", "arch", "teacher", "posterior", "sweep", "experiment", "augment"}


def test_damping_and_how_far_learning_rates_fall_are_settings() -> None:
    cfg = composed("fit.rho=0.5", "fit.lr_end=1e-3", "finetune.lr_end=1e-4", "dense.lr_end=1e-4", "dense.warmup=1", "recompute=true")
    assert cfg.fit.rho == 0.5 and cfg.finetune.lr_end == 1e-4 and cfg.recompute


def test_an_experiments_teacher_and_augment_can_be_done_without() -> None:
    assert composed("experiment=fashion_fc").teacher.share == 0.9 and composed("experiment=cifar_resnet20").augment.padding == 4
    assert composed("experiment=fashion_fc", "teacher=none").teacher is None
    assert composed("experiment=cifar_resnet20", "augment=none").augment is None


@pytest.mark.parametrize("group", ["experiment", "sweep"])
def test_each_says_how_to_run_it(group: str) -> None:
    for path in (CONF / group).glob("*.yaml"):
        assert f"{group}={path.stem}" in path.read_text()


def test_an_experiments_runs_have_its_name() -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        assert f"\nname: {path.stem}\n" in path.read_text()
