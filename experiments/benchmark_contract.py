"""How good the choice of contraction is: a training step of TT-matrix layers, against three times as many halvings as `plan` looks at.

All take turns in an order that changes, for what one leaves in the caches and the heap is the next one's burden.
"""

from math import exp, log
from random import Random
from statistics import mean, median
from time import perf_counter

import torch
from tqdm import tqdm

from bayestt.algebra.formats import initial, tt_matrix
from bayestt.bayes.memory import keep_freed_memory
from bayestt.nets.contract import HALVINGS, candidates, plan

MODES = {"784x512": ([4, 4, 8, 4], [4, 7, 4, 7]), "1024x1024": ([4, 8, 8, 4], [4, 8, 8, 4]), "4096x4096": ([8, 8, 8, 8], [8, 8, 8, 8])}
SECONDS, FEWEST, MOST = 0.5, 3, 31
"""Time for a cell; fewest and most rounds in it."""


def cell(size: str, rank: int, batch: int) -> tuple[float, str]:
    """Regret: the chosen contraction's median time over that of the quickest of all; and a row of the table."""
    rows, cols = MODES[size]
    form = tt_matrix(rows, cols, rank)
    x, upstream = torch.randn(batch, form.shape[1], requires_grad=True), torch.randn(batch, form.shape[0])
    cores = [torch.tensor(core, dtype=torch.float32, requires_grad=True) for core in initial(form, 0.04, seed=0)]
    ways = {"chosen": plan(form, batch, x.device, x.dtype), **candidates(form, batch, halvings=3 * HALVINGS)}
    milliseconds = {name: [] for name in ways}
    end, rounds, shuffled = perf_counter() + SECONDS, 0, Random(0)
    while rounds <= FEWEST or rounds <= MOST and perf_counter() < end:
        for name in shuffled.sample(list(milliseconds), len(milliseconds)):
            start = perf_counter()
            torch.autograd.grad(ways[name](x, cores), [x, *cores], upstream)
            milliseconds[name].append(1e3 * (perf_counter() - start))
        rounds += 1
        if rounds == 1:  # what is hopeless had its turn; the first round does not count
            quick = 3 * min(times[0] for times in milliseconds.values())
            milliseconds = {name: [] for name, times in milliseconds.items() if times[0] <= quick or name == "chosen"}
    took = {name: median(times) for name, times in milliseconds.items()}
    best = min((name for name in took if name != "chosen"), key=took.get)
    regret = took["chosen"] / took[best]
    return regret, f"| {size} | {rank} | {batch} | {took['chosen']:.2f} | {took[best]:.2f} | {regret:.2f} | {best} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()  # for all alike
    cells = [(size, rank, batch) for size in MODES for rank in (4, 8, 16, 32) for batch in (1, 64, 1024)]
    measured = [cell(*each) for each in tqdm(cells, unit="cell")]
    print(f"TT-matrix layers, float32, 1 thread, torch {torch.__version__}; medians of interleaved training steps, ms")
    print("| size | rank | batch | chosen | best | regret | best order |", "| --- | --- | --- | --- | --- | --- | --- |", sep="\n")
    print(*(row for _, row in measured), sep="\n")
    regrets = [regret for regret, _ in measured]
    average, above = exp(mean(map(log, regrets))), sum(regret > 1.05 for regret in regrets)
    print(f"geometric mean of regrets {average:.3f}, worst {max(regrets):.3f}; above 1.05 in {above} of {len(regrets)} cells")
