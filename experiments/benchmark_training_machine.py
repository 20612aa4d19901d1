"""The machine that trains the net of Zhang et al. 2021, in strips: what it takes of an FPGA, its clock, its memory, cycles, energy.

    python experiments/benchmark_training_machine.py

Placed and routed, 10 minutes; `--lanes 32` for another machine, `--mhz 110` for another clock to ask for, `--seed 1` for another placement.
"""

import argparse
from collections.abc import Iterator, Sequence

from benchmark_onchip import BATCHES, NETS
from benchmark_synthesis import path

from bayestt.algebra.formats import tt_matrix
from bayestt.ir.training import training
from bayestt.report.training_memory import FLOAT_BITS, dense_bits
from hw.energy import ADD_FLOAT_J, DRAM_J, MULTIPLY_FLOAT_J
from hw.synthesize import Report, synthesize
from hw.training.assemble import arch_for, assemble
from hw.training.cycles import cycles
from hw.training.energy import training_energy_j
from hw.training.memory import memory_bits
from hw.training.program import TrainingProgram

PUBLISHED = "896-512-16, rank 16"
ADAM_ACCESSES = 7
"""How often a step touches every dense parameter: read forward; it and two moments read, and written."""


def circuit(report: Report) -> Iterator[str]:
    """What it takes of the part, and its slowest path."""
    yield f"| {' | '.join(report.used)} | MHz | netlist |"
    yield "|" + " --- |" * (len(report.used) + 2)
    taken = [f"{amount:,} ({100 * amount / report.there[resource]:.0f} %)" for resource, amount in report.used.items()]
    yield f"| {' | '.join(taken)} | {report.clock_hz / 1e6:.1f} | {report.netlist[:12]} |"
    yield f"\nThe slowest path, {path(report)}\n"


def memory(program: TrainingProgram, sizes: Sequence[int]) -> Iterator[str]:
    """Bits by purpose."""
    bits, dense = memory_bits(program.arch), sum(dense_bits(sizes).values())
    yield "| purpose | bits |\n| --- | --- |"
    yield from (f"| {purpose} | {count:,} |" for purpose, count in bits.items())
    total = sum(bits.values())
    yield f"| all; dense in 32-bit floats with Adam / it | {total:,}; {dense / total:.0f}x |\n"


def times(program: TrainingProgram, sizes: Sequence[int], hz: float) -> Iterator[str]:
    """Cycles, milliseconds and modelled energy of an image, by batch."""
    yield "| batch | cycles an image | ms | µJ: arithmetic | memories | pixels | all | dense, µJ: arithmetic | parameters | dense / it |"
    yield "|" + " --- |" * 10
    for images in BATCHES:
        taken = cycles(program, images) / images
        energies = training_energy_j(program, images)
        whole = sum(energies.values())
        dense = dense_energy_j(sizes, images)
        columns = [*energies.values(), whole, *dense]
        micro = " | ".join(f"{1e6 * each:,.1f}" for each in columns)
        yield f"| {images} | {taken:,.0f} | {1e3 * taken / hz:.3f} | {micro} | {sum(dense) / whole:.0f}x |"


def dense_energy_j(sizes: Sequence[int], images: int) -> tuple[float, float]:
    """Joules of an image in the dense net's step, in 32-bit floats, by the same model: of products, and of parameters outside the chip.

    Three products a weight, two in the first layer, whose inputs have no gradient. Its activations are left out.
    """
    layers = [rows * cols for cols, rows in zip(sizes, sizes[1:], strict=False)]
    parameters = dense_bits(sizes)["parameters"] // FLOAT_BITS
    products = 3 * sum(layers) - layers[0]
    return products * (MULTIPLY_FLOAT_J + ADD_FLOAT_J), ADAM_ACCESSES * parameters * DRAM_J * FLOAT_BITS / 64 / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--mhz", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sizes, modes, rank, strips = NETS[PUBLISHED]
    made = training({layer: tt_matrix(form["rows"], form["cols"], rank) for layer, form in modes.items()}, strips=strips)
    program = assemble(made, arch_for(made, given.lanes))
    report = synthesize(program.arch, requested_hz=given.mhz * 1e6, seed=given.seed)
    asked = f"{report.part}, {given.mhz:g} MHz asked for, seed {given.seed}"
    print(f"{PUBLISHED}, in strips along {strips['fc1']}, {program.arch.lanes} lanes; {asked}\n")
    print(*circuit(report), *memory(program, sizes), *times(program, sizes, report.clock_hz), sep="\n")


if __name__ == "__main__":
    main()
