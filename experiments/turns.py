"""The clock of benchmarks: rivals take turns, so that a noisy machine is as noisy for all."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter


def medians(ways: Mapping[str, Callable[..., object]], rounds: int, *given: object) -> dict[str, float]:
    """Milliseconds that each way takes with what is given; the first round does not count."""
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = perf_counter()
            way(*given)
            milliseconds[name].append(1e3 * (perf_counter() - start))
    return {name: median(times[1:]) for name, times in milliseconds.items()}
