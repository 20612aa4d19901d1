"""Integer training as an experiment: it runs, goes on where it was to the same result, and keeps its budget."""

import json
from pathlib import Path
from statistics import mean, stdev

import onchip
from hydra import compose, initialize_config_dir

from bayestt.artifact import load_state

CONF = str(Path(__file__).parent.parent / "conf")
QUICK = ["data=fashion_mnist_small", "images=640", "judged_on=validation", "prior_from=0", "pull=6", "forms.fc1.rank=4", "forms.fc2.rank=4"]


def trained(folder: Path, *overrides: str) -> dict:
    folder.mkdir(exist_ok=True)
    with initialize_config_dir(CONF, version_base="1.3"):
        return onchip.run(compose("onchip", [*QUICK, *overrides]), folder)


def test_an_interrupted_training_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "rates=[11,12]", "bits=7000")
    assert whole["factor_bits"] == whole["history"][-1]["factor_bits"] and whole["accuracy"] > 0.3
    trained(tmp_path / "parts", "rates=[11]", "bits=7000")
    again = trained(tmp_path / "parts", "rates=[11,12]", "bits=7000")
    assert again == whole == json.loads((tmp_path / "parts" / "onchip.json").read_text())
    ended = [load_state(tmp_path / name / "state") for name in ("whole", "parts")]
    assert ended[0].register == ended[1].register
    assert all((ended[0].latents[name] == latent).all() for name, latent in ended[1].latents.items())


def test_without_a_prior_no_rank_goes(tmp_path: Path) -> None:
    result = trained(tmp_path / "free", "rates=[11]", "pull=null")
    assert set(result["history"][-1]["ranks"].values()) == {4}
    assert result["training_bits"]["first"] == result["training_bits"]["last"]


def test_the_page_shows_what_is_on_record() -> None:
    """Accuracy and its spread, parameters, bits, and the memory that training takes."""
    root = Path(__file__).parent.parent / "experiments"
    runs = [json.loads(line) for line in (root / "results" / "fashion_onchip.json").read_text().splitlines()]
    page = (root / "README.md").read_text()
    accuracies = [100 * run["accuracy"] for run in runs]
    assert {run["judged_on"] for run in runs} == {"test"}
    bits = mean(32 * 467_472 / run["factor_bits"] for run in runs)
    parameters = mean(run["parameters"] for run in runs)
    assert f"| {mean(accuracies):.2f} ± {stdev(accuracies):.2f} % | {parameters:,.0f} | {bits:.0f}x |" in page
    dense, first, last = (sum(bits.values()) for bits in (runs[0]["dense_bits"], *runs[0]["training_bits"].values()))
    assert f"| all | {dense:,} | {first:,} | {last:,} |" in page
    assert f"| dense / it | 1 | {dense / first:.0f}x | {dense / last:.0f}x |" in page
