"""What the machine takes of an FPGA and how fast its clock is, by size and seed; placed and routed in its shell, and its slowest paths.

`--sizes 8x4 16x4x2` for some sizes, the last one two tiles of 16 rows, `--seeds 0 1 2` for some placements of each one's netlist, which is
made once, `--part zu3eg` for a part that is only synthesised, `--mhz 150` for a clock to ask for.
"""

import argparse
from statistics import median

from tqdm import tqdm

from hw.arch import Arch
from hw.synthesize import PARTS, Report, synthesize

MEMORIES = {"image_depth": 1024, "data_depth": 2048, "weight_depth": 2048, "init_depth": 512, "score_depth": 256, "code_depth": 64}
"""Small enough for 16 rows beside each other on the smaller part."""


def row(size: str, reports: list[Report]) -> str:
    """A size's line of the table: resources of the first seed, the slowest, the middle and the fastest clock, and that of each seed."""
    first = reports[0]
    taken = [f"{amount:,} ({100 * amount / first.there[resource]:.0f} %)" for resource, amount in first.used.items()]
    clocks = [report.clock_hz / 1e6 for report in reports if report.clock_hz]
    spread = [f"{kind(clocks):.1f}" for kind in (min, median, max)] if clocks else ["not placed"] * 3
    return f"| {' | '.join([size, *taken, *spread, ', '.join(f'{each:.1f}' for each in clocks), first.netlist[:12]])} |"


def path(report: Report) -> str:
    """The slowest path in a line: where it starts and ends, and what of it is logic and what wires."""
    wires = sum(delay.delay_s for delay in report.path if delay.what == "routing")
    total = sum(delay.delay_s for delay in report.path)
    return f"{report.path[0].where} -> {report.path[-1].where}: {1e9 * total:.2f} ns, of which {1e9 * wires:.2f} ns wires"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["4x4"], help="rows x lanes, or rows x lanes x tiles, the rows those of one tile")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--part", choices=PARTS, default="ecp5-85f")
    parser.add_argument("--mhz", type=float, default=130.0)
    given = parser.parse_args()
    reports: dict[str, list[Report]] = {size: [] for size in given.sizes}
    for size, seed in tqdm([(size, seed) for size in given.sizes for seed in given.seeds], unit="placement"):
        rows, lanes, tiles = [*map(int, size.split("x")), 1][:3]
        arch = Arch(rows=rows * tiles, lanes=lanes, tiles=tiles, **MEMORIES)
        reports[size].append(synthesize(arch, given.part, requested_hz=given.mhz * 1e6, seed=seed))
    memories = ", ".join(f"{depth} words of {memory.removesuffix('_depth')}" for memory, depth in MEMORIES.items())
    print(f"{given.part}, {given.mhz:g} MHz asked for, seeds {', '.join(map(str, given.seeds))}; {memories}\n")
    columns = ["rows x lanes (x tiles)", "LUT", "FF", "DSP", "BRAM", "least MHz", "median MHz", "most MHz", "by seed", "netlist"]
    print(f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns), sep="\n")
    print(*(row(size, found) for size, found in reports.items()), sep="\n")
    for size, found in reports.items():
        print(*(f"\n{size}, seed {report.seed}: {path(report)}" for report in found if report.path), sep="")
