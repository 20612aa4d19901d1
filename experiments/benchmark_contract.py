"""How good the choice of contraction is: forward and backward of a 784x512 TT-matrix layer, against every candidate and nn.Linear."""

from math import exp, log
from statistics import mean, median
from time import perf_counter

import torch

from bayestt.algebra.formats import initial, tt_matrix
from bayestt.nets.contract import candidates, plan

ROUNDS = 31

print(f"784x512 TT-matrix, float32, {torch.get_num_threads()} threads, torch {torch.__version__}; medians of {ROUNDS} rounds, ms")
print("| rank | batch | nn.Linear | chosen | best candidate | worst candidate | regret | chosen / nn.Linear | best |")
print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
regrets = []
for rank in (8, 16):
    form = tt_matrix([4, 4, 4, 8], [4, 7, 7, 4], rank)
    cores = [torch.tensor(core, dtype=torch.float32, requires_grad=True) for core in initial(form, 0.04, seed=0)]
    linear = torch.nn.Linear(784, 512, bias=False)
    for batch in (1, 64, 256):
        x = torch.randn(batch, 784, requires_grad=True)
        upstream = torch.randn(batch, 512)
        chosen = plan(form, batch, x.device, x.dtype)
        ways = {name: (way, cores) for name, way in candidates(form, batch).items()}
        ways |= {"chosen": (chosen, cores), "nn.Linear": (lambda x, cores, linear=linear: linear(x), [linear.weight])}
        milliseconds = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, (way, weights) in ways.items():
                start = perf_counter()
                torch.autograd.grad(way(x, weights), [x, *weights], upstream)
                milliseconds[name].append(1e3 * (perf_counter() - start))
        took = {name: median(times) for name, times in milliseconds.items()}
        measured = {name: took[name] for name in candidates(form, batch)}
        best = min(measured, key=measured.get)
        regrets.append(took["chosen"] / took[best])
        figures = (took["nn.Linear"], took["chosen"], took[best], max(measured.values()), regrets[-1], took["chosen"] / took["nn.Linear"])
        print(f"| {rank} | {batch} | {' | '.join(f'{figure:.2f}' for figure in figures)} | {best} |")
print(f"geometric mean of regrets {exp(mean(map(log, regrets))):.3f}, worst {max(regrets):.3f}")
