"""A picture of trainings side by side: validation accuracy and ranks, epoch by epoch.

    python experiments/side_by_side.py 'floats=runs/fashion_few_bits_float' 'few bits=runs/fashion_few_bits' \\
        'integers=runs/fashion_onchip' trainings.png

Each is a run folder of `pipeline.py` or of `onchip.py` with a name for it; of the first kind also the epochs after pruning are shown.
"""

import json
import sys
from pathlib import Path

from bayestt.report.figures import Epoch, trainings_side_by_side

HISTORIES = {"onchip.json": ("history",), "train.json": ("tensorized", "history"), "prune.json": ("history",)}
"""Where the files of a run folder have their epochs."""


def epochs(folder: Path) -> list[Epoch]:
    """A run's epochs: accuracy on validation, and the ranks that were there."""
    found = []
    for name, keys in HISTORIES.items():
        if (path := folder / name).exists():
            history = json.loads(path.read_text())
            for key in keys:
                history = history[key]
            found += [Epoch(each["validation"] if "validation" in each else each["accuracy"], each["ranks"]) for each in history]
    if not found:
        raise ValueError(f"{folder} has none of {', '.join(HISTORIES)}: give the folder of a run of pipeline.py or onchip.py")
    return found


def main(words: list[str]) -> None:
    *runs, target = words
    named = [word.partition("=") for word in runs]
    trainings_side_by_side({name: epochs(Path(folder)) for name, _, folder in named}).savefig(target, dpi=100)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as fault:
        sys.exit(str(fault))
