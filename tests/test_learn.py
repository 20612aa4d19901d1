"""The learning steps: budgets, rivals of the same size, a teacher, a posterior, and that test stays unseen where validation judges."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import learn
import pipeline
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from bayestt.artifact import read_arrays
from bayestt.bayes.predict import predict, score
from bayestt.bayes.prune import ranks
from bayestt.bayes.teacher import Teacher
from bayestt.nets.fake_quantized import FakeQuantized
from bayestt.nets.tensorize import tensorize

CONF = str(Path(__file__).parent.parent / "conf")
QUICK = ["batch_size=64", "dense.epochs=1", "fit.epochs=1", "finetune.epochs=1", "images=640", "form.fc1.rank=5", "form.fc2.rank=5"]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", [*QUICK, *overrides])


def ran(folder: Path, *overrides: str) -> dict[str, learn.Result]:
    folder.mkdir(exist_ok=True)
    return pipeline.run(composed(*overrides), folder)


def parameters(net: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    ran(folder, "stop=prune")
    return folder


@pytest.mark.parametrize("budget", ["prune.parameters=2000", "prune.smaller=200", "{parameters: 3000, smaller: 200}"])
def test_a_budget_is_kept(budget: str, finished: Path) -> None:
    overrides = [budget] if "=" in budget else [f"prune={budget}"]
    pruned = ran(finished, "start=prune", "stop=prune", "prune.threshold=0", *overrides)["prune"]
    assert pruned["parameters"] <= {"prune.parameters=2000": 2000}.get(budget, 407_050 // 200)


def test_a_budget_that_cannot_be_kept_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="700 parameters: this network takes 818"):
        ran(tmp_path, "prune.parameters=700", "stop=prune")
    with pytest.raises(ValueError, match="prune.smaller=0: give how many times"):
        ran(tmp_path, "prune.smaller=0", "stop=prune")
    with pytest.raises(ValueError, match="a budget while learning needs a point guide, not MeanField"):
        ran(tmp_path, "guide=mean_field", "prune.smaller=100", "prune.gradual={start: 0, end: 1}")
    with pytest.raises(ValueError, match="a budget that ends in epoch 9 of 1: give an earlier end"):
        ran(tmp_path, "prune.smaller=100", "prune.gradual={start: 0, end: 9}")
    assert not list(tmp_path.iterdir())


def test_what_a_budget_has_silenced_while_learning_is_not_counted(tmp_path: Path) -> None:
    gradual = ["prune.smaller=200", "prune.gradual={start: 0, end: 1}", "prune.threshold=0"]
    found = ran(tmp_path, *gradual, "stop=prune")
    kept = learn.loaded(composed(), tmp_path, "tensorized")
    row = found["train"]["tensorized"]
    assert found["prune"]["parameters"] == row["parameters"] <= 407_050 // 200 < parameters(kept) and row["bits"] == 32 * row["parameters"]
    data = instantiate(composed().data)
    assert row["accuracy"] == pytest.approx(score(predict(kept, data.test.images), data.test.labels).accuracy, abs=1e-3)


def test_recomputing_is_everywhere_and_changes_no_weight(finished: Path, tmp_path: Path) -> None:
    cfg = composed("recompute=true")
    ran(tmp_path, "recompute=true", "stop=train")
    ours, theirs = (read_arrays(folder / "tensorized.weights", "weights")[1] for folder in (tmp_path, finished))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    dense, pruned = (learn.loaded(cfg, finished, name) for name in ("dense", "pruned"))
    for net in (pruned, *(rival(cfg, dense, pruned) for rival in learn.RIVALS.values())):
        assert net.fc1.recompute and net.fc2.recompute
    assert not learn.loaded(composed(), finished, "pruned").fc1.recompute


def test_in_few_bits_tensorized_nets_learn_and_count_them_and_the_chain_goes_on(finished: Path, tmp_path: Path) -> None:
    few = ["precision=4/8/16", "quantize.weight_bits=4", "quantize.calibration=20", "emulate.images=4", "baselines=[uniform]"]
    found = ran(tmp_path, *few, "baseline_lrs=[1e-2]", "posterior=mean_field", "posterior.epochs=1", "stop=emulate")
    pruned = learn.loaded(composed(*few), tmp_path, "pruned")
    biases = 512 + 10
    for row in (found["train"]["tensorized"], found["prune"], found["baselines"]["uniform"]):
        assert row["bits"] == 4 * (row["parameters"] - biases) + 8 * biases
    assert isinstance(pruned, FakeQuantized) and int(pruned.steps) == 20
    ours, theirs = (read_arrays(folder / "dense.weights", "weights")[1] for folder in (tmp_path, finished))
    assert all((ours[name] == theirs[name]).all() for name in theirs) and found["train"]["dense"]["bits"] == 32 * 407_050


@pytest.mark.filterwarnings("ignore:ranks clipped")
@pytest.mark.parametrize("form", ["tt_matrix", "tensor_train", "tucker", "cp"])
@pytest.mark.parametrize("rank", [1, 4, 7])
def test_the_uniform_rival_is_the_nearest_in_size(form: str, rank: int) -> None:
    cfg = composed(f"form={form}", f"form.fc1.rank={rank}", "form.fc2.rank=3")
    dense = instantiate(cfg.net)
    pruned = tensorize(dense, learn.forms(cfg))
    rival = learn.RIVALS["uniform"](cfg, dense, pruned)
    assert len(set(ranks(rival).values())) == 1
    off = abs(parameters(rival) - parameters(pruned))
    for other in range(1, 12):
        uniform = tensorize(dense, {glob: replace(form, rank=other) for glob, form in learn.forms(cfg).items()})
        assert off <= abs(parameters(uniform) - parameters(pruned))


def test_the_decomposed_rival_has_the_pruned_ranks_and_at_full_ranks_the_dense_weights() -> None:
    cfg = composed("form.fc1.rank=500", "form.fc2.rank=500")
    torch.manual_seed(0)
    dense = instantiate(cfg.net)
    with pytest.warns(UserWarning, match="ranks clipped"):
        whole = tensorize(dense, learn.forms(cfg))
    rival = learn.RIVALS["decomposed"](cfg, dense, whole)
    x = torch.randn(9, 28, 28)
    torch.testing.assert_close(rival(x), dense(x), rtol=1e-3, atol=1e-4)
    small = tensorize(dense, learn.forms(composed()))
    assert ranks(learn.RIVALS["decomposed"](cfg, dense, small)) == ranks(small)


def test_a_rival_takes_its_best_learning_rate_on_validation(finished: Path) -> None:
    result = ran(finished, "start=baselines", "stop=baselines", "baselines=[uniform,decomposed]", "baseline_lrs=[1e-2,1e-5]")["baselines"]
    pruned = json.loads((finished / "prune.json").read_text())
    for rival in (result["uniform"], result["decomposed"]):
        assert rival["lr"] == 1e-2 and rival["validation"][1e-2] > rival["validation"][1e-5]
        assert rival["history"][-1]["accuracy"] == rival["validation"][1e-2] and len(rival["history"]) == 2
    assert result["decomposed"]["ranks"] == pruned["ranks"] and result["decomposed"]["parameters"] == pruned["parameters"]


def test_a_teacher_teaches_all_but_itself(finished: Path, tmp_path: Path) -> None:
    taught = ran(tmp_path, "stop=prune", "teacher=dense", "teacher.share=0.9")
    plain = {step: json.loads((finished / f"{step}.json").read_text()) for step in ("train", "prune")}
    ours, theirs = (read_arrays(folder / "dense.weights", "weights")[1] for folder in (tmp_path, finished))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert taught["train"]["tensorized"]["nll"] != plain["train"]["tensorized"]["nll"]
    assert taught["prune"]["history"][0]["loss"] != plain["prune"]["history"][0]["loss"]


TAUGHT = ["teacher=cnn", "teacher.net.channels=[2,4]", "teacher.net.hidden=8", "teacher.fit.epochs=1"]


def weights_of(teacher: Teacher) -> list[bytes]:
    return [weight.numpy().tobytes() for weight in teacher.net.state_dict().values()]


def test_a_teacher_of_its_own_is_the_same_whichever_seed_comes_first(tmp_path: Path) -> None:
    data, found = instantiate(composed().data), []
    for seed in (3, 0):
        cfg = composed(*TAUGHT, f"seed={seed}", f"teacher.folder={tmp_path}/{seed}")
        torch.manual_seed(seed)
        found.append(weights_of(learn._teacher(cfg, data, tmp_path)))
        (tmp_path / "teacher.training").unlink()
    assert found[0] == found[1]


def test_a_teacher_of_other_data_or_settings_is_another(tmp_path: Path) -> None:
    data = instantiate(composed().data)
    for change in ("seed=1", "teacher.share=0.5", "images=320", "teacher.fit.epochs=2", "teacher.net.hidden=9"):
        learn._teacher(composed(*TAUGHT, f"teacher.folder={tmp_path}/teachers", change), data, tmp_path)
        (tmp_path / "teacher.training").unlink(missing_ok=True)
    assert len(list((tmp_path / "teachers").glob("*.weights"))) == 4


def test_runs_that_want_a_teacher_at_the_same_time_have_it_learned_once(tmp_path: Path) -> None:
    cfg, folders = composed(*TAUGHT, f"teacher.folder={tmp_path}/teachers"), [tmp_path / name for name in ("one", "other")]
    data = instantiate(cfg.data)
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor() as threads:
        one, other = threads.map(lambda folder: learn._teacher(cfg, data, folder), folders)
    assert sum((folder / "teacher.training").exists() for folder in folders) == 1
    assert weights_of(one) == weights_of(other)


def test_a_posterior_counts_all_numbers_that_it_holds(finished: Path) -> None:
    assert ran(finished, "start=posterior", "stop=posterior")["posterior"] == {}
    pruned = json.loads((finished / "prune.json").read_text())
    for choice, times in (("mean_field", 2), ("particles", 20)):
        found = ran(finished, "start=posterior", "stop=posterior", f"posterior={choice}", "posterior.epochs=1")["posterior"]["posterior"]
        assert found["parameters"] == times * pruned["parameters"] and found["bits"] == 32 * found["parameters"]
        assert found["nll"] != pruned["nll"]


@pytest.mark.parametrize(("split", "images"), [("test", 2000), ("validation", 1000)])
def test_a_split_judges(split: str, images: int, finished: Path) -> None:
    found = ran(finished, "start=prune", "stop=prune", f"judged_on={split}")["prune"]
    assert sum(part.images for part in found["bins"]) == images
    if split == "validation":
        assert found["accuracy"] == found["history"][-1]["accuracy"] and found["nll"] == pytest.approx(found["history"][-1]["nll"])


def test_a_sweep_sees_validation_alone(finished: Path) -> None:
    cfg = composed("start=prune", "stop=prune", "objectives=[accuracy,nll,parameters]")
    found = pipeline.run(cfg, finished)
    last = found["prune"]["history"][-1]
    assert pipeline.objectives(cfg, found) == (last["accuracy"], last["nll"], found["prune"]["parameters"])
    assert pipeline.objectives(composed(), found) == last["accuracy"]
    assert pipeline.objectives(composed(), {}) is None
