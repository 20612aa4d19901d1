"""What the machine that trains computes, in numpy: the definition that its gateware is held to."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from amaranth.lib import data

from bayestt.algebra.fixed import MAX_BITS, requantize, rescale, saturate
from bayestt.algebra.lfsr import DRAW_BITS, draws
from bayestt.algebra.reciprocal import reciprocal
from bayestt.ir.descend import EXPONENTIAL, IMPATIENT, IMPATIENT_STEPS, PATIENT, Rule, State, check
from bayestt.ir.rank_scale import DAMPING, SCALE_FRAC, STRENGTH_BITS, THRESHOLD
from bayestt.ir.training import ACTIVATION_BITS, BIAS_BITS, ERROR_FRAC, FACTOR_BITS, GRADIENT_BITS, LATENT_BITS
from hw.emulate import walk
from hw.training.arch import Bank, Kind, TrainingArch
from hw.training.program import Memories, TrainingProgram, memories_of, state_of

Addresses = Mapping[str, np.ndarray]


def emulate(program: TrainingProgram, state: State, images: np.ndarray, labels: np.ndarray, rule: Rule) -> State:
    """The state after one step on images (n, pixels), integers of 8 bits, and their labels (n,): what `bayestt.ir.descend.descend` says."""
    check(program.training, images, labels)
    machine = _Machine(program.arch, memories_of(program, state), rule)
    pixels = program.layout.addresses("image", program.training.image).ravel()
    for image, label in zip(images.reshape(len(images), -1), labels, strict=True):
        machine.banks[Bank.ACTIVATION][pixels] = image
        machine.label = int(label)
        machine.run(program.image_part)
    machine.run(program.batch_part)
    return state_of(program, replace(machine.memories, steps=machine.memories.steps + 1))


def lane_offsets(mode: data.Const) -> np.ndarray:
    """How far from a reduction's `y` the result of each lane of an instruction goes."""
    inner, outer = (turns + 1 for turns in mode.turns)
    lanes = np.arange(mode.lanes)
    turned = lanes // inner
    often = turned // outer
    return lanes * mode.lane_y + (turned - often) * mode.jumps[0] + often * mode.jumps[1]


class _Machine:
    """The memories of the machine and the registers of its units, which instructions change."""

    def __init__(self, arch: TrainingArch, memories: Memories, rule: Rule) -> None:
        self.arch, self.memories, self.rule = arch, memories, rule
        sizes = {Bank.ACTIVATION: arch.activation_depth, Bank.ERROR: arch.error_depth}
        self.banks = {bank: np.zeros(depth * arch.lanes, np.int64) for bank, depth in sizes.items()}
        self.banks |= {Bank.LATENT: memories.latents, Bank.GRADIENT: memories.velocities}
        self.banks[Bank.ACTIVATION][0] = 1
        self.inits = np.zeros(arch.init_depth * arch.lanes, np.int64)
        self.strengths, self.energy, self.entries = np.zeros((3, arch.ranks), np.int64)
        self.peaks = np.zeros(arch.contractions, np.int64)
        self.label = self.largest = self.drift = self.first = 0
        self.odds = np.zeros(0, np.int64)

    def run(self, code: tuple[data.Const, ...]) -> None:
        """Instructions one after the other; of all kinds but one, a reduction is one step."""
        for instruction in code:
            kind, at = Kind(instruction.kind), walk(instruction, self.arch)
            _KINDS[kind](self, instruction, at if kind is Kind.MULTIPLY else {stream: where[:, 0] for stream, where in at.items()})

    def multiply(self, instruction: data.Const, at: Addresses) -> None:
        """Sums of products of x and the lanes' words, rounded by the contraction's shift; gradients are added up."""
        x = self.read(Bank(instruction.x_from), at["x"])
        lanes = np.arange(instruction.lanes)
        w = self.read(Bank(instruction.w_from), at["w"][..., None] * self.arch.lanes + lanes)
        acc = np.einsum("ts,tsl->tl", x, w) + self.inits[at["init"][:, :1] * self.arch.lanes + lanes]
        target = Bank(instruction.target)
        bits = ACTIVATION_BITS if target is Bank.ACTIVATION else GRADIENT_BITS
        made = requantize(acc, int(self.memories.shifts[instruction.number]), bits, bool(instruction.relu))
        y = (at["y"][:, :1] + lane_offsets(instruction)) % (1 << self.arch.address_bits)
        if target is Bank.GRADIENT:
            made = saturate(self.banks[target][y] + made, GRADIENT_BITS)
        self.banks[target][y] = made
        if instruction.tracked:
            self.track(instruction.number, made)

    def read(self, bank: Bank, at: np.ndarray) -> np.ndarray:
        """Elements of a bank; of latents the factors, their upper bits."""
        found = self.banks[bank][at]
        return requantize(found, LATENT_BITS - FACTOR_BITS, FACTOR_BITS) if bank is Bank.LATENT else found

    def track(self, number: int, values: np.ndarray) -> None:
        """Remember the largest magnitude of a contraction's results."""
        self.peaks[number] = max(self.peaks[number], int(np.abs(values).max()))

    def bias(self, instruction: data.Const, at: Addresses) -> None:
        """Biases to where sums begin, in the fraction of those."""
        biases = self.banks[Bank.LATENT][at["x"]]
        self.inits[at["y"]] = rescale(biases, int(self.memories.bias_shifts[instruction.number]), BIAS_BITS)

    def peak(self, instruction: data.Const, at: Addresses) -> None:
        """The largest score."""
        self.largest = int(self.banks[Bank.ACTIVATION][at["x"]].max())

    def find_odds(self, instruction: data.Const, at: Addresses) -> None:
        """The exponentials of scores less the largest."""
        below = self.largest - self.banks[Bank.ACTIVATION][at["x"]]
        self.odds = np.where(below < len(EXPONENTIAL), EXPONENTIAL[np.minimum(below, len(EXPONENTIAL) - 1)], 0)

    def chance(self, instruction: data.Const, at: Addresses) -> None:
        """The error: odds by their sum, less one at the label."""
        mantissa, exponent = reciprocal(self.odds.sum())
        chances = requantize(self.odds * mantissa, int(exponent) - ERROR_FRAC, GRADIENT_BITS)
        self.banks[Bank.ERROR][at["y"]] = chances - ((at["init"] == self.label) << ERROR_FRAC)

    def mask(self, instruction: data.Const, at: Addresses) -> None:
        """Errors are zero where the activation is."""
        errors = self.banks[Bank.ERROR]
        errors[at["y"]] = np.where(self.banks[Bank.ACTIVATION][at["x"]] == 0, 0, errors[at["y"]])
        self.track(instruction.number, errors[at["y"]])

    def strength(self, instruction: data.Const, at: Addresses) -> None:
        """What latents are multiplied by to be pulled: 2**pull / square."""
        if self.rule.pull is None:
            self.strengths[at["w"]] = 0
            return
        mantissa, exponent = reciprocal(np.maximum(self.memories.squares[at["w"]], 1))
        shifts = exponent - SCALE_FRAC - (self.rule.pull + DRAW_BITS - instruction.ease)
        self.strengths[at["w"]] = [rescale(m, int(shift), STRENGTH_BITS) for m, shift in zip(mantissa, shifts, strict=True)]

    def move(self, instruction: data.Const, at: Addresses) -> None:
        """Latents by the sums of their gradients and their rank's pull; a draw for each that is there. Of the sums velocities are left."""
        there = self.there(at)
        latents, totals = self.banks[Bank.LATENT][at["x"]], self.banks[Bank.GRADIENT][at["x"]]
        self.track(instruction.number, totals)
        moves = totals << (DRAW_BITS - self.rule.rate - instruction.brake)
        if instruction.pulled:
            moves = moves + latents * self.strengths[at["w"]]
        drawn = np.zeros(len(there), np.int64)
        drawn[there] = draws(self.memories.register, np.count_nonzero(there))
        moved = np.where(there, saturate(latents - (moves + drawn >> DRAW_BITS), LATENT_BITS), 0)
        self.memories = replace(self.memories, register=int(drawn[there][-1]))
        self.banks[Bank.LATENT][at["y"]] = moved
        self.banks[Bank.GRADIENT][at["y"]] = np.where(there, totals - requantize(totals, self.rule.momentum, GRADIENT_BITS), 0)
        np.add.at(self.energy, at["w"], np.square(moved))
        np.add.at(self.entries, at["w"], there)

    def there(self, at: Addresses) -> np.ndarray:
        """Whether both ranks of entries are."""
        return self.memories.alive[at["w"]] & self.memories.alive[at["init"]]

    def scale(self, instruction: data.Const, at: Addresses) -> None:
        """Squares of scales come nearer to their best."""
        index, squares = at["w"], self.memories.squares
        mantissa, exponent = reciprocal(self.entries[index] + 1)
        energy = self.energy[index]
        best = np.array([requantize(e * m, int(x) - SCALE_FRAC, MAX_BITS) for e, m, x in zip(energy, mantissa, exponent, strict=True)])
        nearer = squares[index] + requantize(best - squares[index], DAMPING, MAX_BITS)
        squares[index] = np.where(self.memories.alive[index], nearer, 0)
        self.energy[index] = self.entries[index] = 0
        self.first = int(squares[index].argmax())

    def survive(self, instruction: data.Const, at: Addresses) -> None:
        """Indices whose square is small are gone, but the largest."""
        index, squares, alive = at["w"], self.memories.squares, self.memories.alive
        alive[index] &= (squares[index] >= THRESHOLD << SCALE_FRAC) | (np.arange(len(index)) == self.first)
        squares[index] = np.where(alive[index], squares[index], 0)

    def clean(self, instruction: data.Const, at: Addresses) -> None:
        """Latents and velocities of ranks that are gone are zero."""
        gone = at["y"][~self.there(at)]
        self.banks[Bank.LATENT][gone] = self.banks[Bank.GRADIENT][gone] = 0

    def control(self, instruction: data.Const, at: Addresses) -> None:
        """The shift of a contraction whose results leave their range too little or too much; what stands behind it follows."""
        number, memories = instruction.number, self.memories
        memories.bias_shifts[number] += self.drift
        if instruction.given:
            memories.shifts[number] -= self.drift
            return
        end = 1 << ((GRADIENT_BITS if instruction.wide else ACTIVATION_BITS) - 1)
        peak, self.peaks[number] = int(self.peaks[number]), 0
        asked = (8 * peak > 7 * end) - (16 * peak < 5 * end)
        count = asked + (memories.counts[number] if asked * memories.counts[number] > 0 else 0)
        patience = IMPATIENT if memories.steps < IMPATIENT_STEPS else PATIENT
        moves = asked if abs(count) > patience and 0 <= memories.shifts[number] + asked < MAX_BITS else 0
        memories.shifts[number] += moves
        memories.counts[number] = 0 if moves else max(-PATIENT - 1, min(count, PATIENT + 1))
        self.drift += moves * instruction.forward


_KINDS: Mapping[Kind, Callable[[_Machine, data.Const, Addresses], None]] = {
    Kind.MULTIPLY: _Machine.multiply,
    Kind.BIAS: _Machine.bias,
    Kind.PEAK: _Machine.peak,
    Kind.ODDS: _Machine.find_odds,
    Kind.CHANCE: _Machine.chance,
    Kind.MASK: _Machine.mask,
    Kind.STRENGTH: _Machine.strength,
    Kind.MOVE: _Machine.move,
    Kind.SCALE: _Machine.scale,
    Kind.SURVIVE: _Machine.survive,
    Kind.CLEAN: _Machine.clean,
    Kind.CONTROL: _Machine.control,
}
