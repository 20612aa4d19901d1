"""The machine that trains, as one frozen value: its sizes, and the layouts that software and gateware share."""

from dataclasses import dataclass

from amaranth import signed
from amaranth.lib import data, enum
from amaranth.utils import bits_for

from bayestt.ir.descend import MOST_MOMENTUM
from bayestt.ir.rank_scale import SCALE_BITS
from bayestt.ir.training import ACCUMULATOR_BITS, GRADIENT_BITS, LATENT_BITS
from hw.arch import STREAMS

RATE_BITS, MOMENTUM_BITS, PULL_BITS, EASE_BITS = 4, bits_for(MOST_MOMENTUM), 6, 4
"""Widths of a rule's rate, momentum and, signed, pull, and of how much less the pull is for a rank that several cores share."""
SHIFT_BITS, SIGNED_SHIFT_BITS, COUNT_BITS = 5, 8, 4
"""Widths of a contraction's shift, of a bias's, which may be negative, and of the count of steps that asked for another shift."""
CLASSES = 256
"""Most scores of an image: the odds of so many fit in one block of a chip's memory, and a reciprocal is found of their sum's 23 bits."""
SPACING = 8
"""Cycles from one step to the next of PEAK, ODDS, CHANCE, STRENGTH, SCALE, SURVIVE and CONTROL: their innermost loop is so long and moves
nothing."""
LANE_LOOPS = 2
"""Loops around the innermost one in which the results of the lanes leave."""


class Kind(enum.Enum, shape=4):
    """What an instruction does with every step, or at the first one of each reduction; hw/training/README.md says what its streams mean."""

    MULTIPLY = 0
    BIAS = 1
    PEAK = 2
    ODDS = 3
    CHANCE = 4
    MASK = 5
    STRENGTH = 6
    MOVE = 7
    SCALE = 8
    SURVIVE = 9
    CLEAN = 10
    CONTROL = 11


class Bank(enum.Enum, shape=2):
    """A memory of words of `lanes` elements; of gradients one is read and written at a time."""

    ACTIVATION = 0
    ERROR = 1
    LATENT = 2
    GRADIENT = 3


class Part(enum.Enum, shape=3):
    """What a host writes and reads between steps, in words of 32 bits; code has more, the lowest 32 first, and is only written."""

    CODE = 0
    IMAGE = 1
    RULE = 2
    REGISTER = 3
    LATENT = 4
    CONTROL = 5
    SCALE = 6


@dataclass(frozen=True)
class TrainingArch:
    """A row of `lanes` multipliers of 16 x 16 bits, the memories around it, and the units that move latents, scales and shifts.

    Depths are in words of `lanes` elements; gradients lie where their latents do. `ranks` indices of rank axes have a scale, of which the
    first is of none and never goes; `contractions` have a shift. The images of a batch are taken one after the other.
    """

    lanes: int = 16
    loops: int = 8
    extent_bits: int = 12
    activation_depth: int = 512
    error_depth: int = 512
    latent_depth: int = 1024
    init_depth: int = 64
    code_depth: int = 128
    ranks: int = 128
    contractions: int = 32

    def __post_init__(self) -> None:
        for field in ("lanes", "loops", "extent_bits", "activation_depth", "error_depth", "latent_depth", "init_depth", "code_depth"):
            if getattr(self, field) < 1:
                raise ValueError(f"TrainingArch.{field} is {getattr(self, field)}, expected at least 1: give the machine some")
        for field in ("ranks", "contractions"):
            if getattr(self, field) < 2:
                raise ValueError(f"TrainingArch.{field} is {getattr(self, field)}, expected at least 2: give the machine some")
        if self.lanes & (self.lanes - 1):
            raise ValueError(f"TrainingArch.lanes is {self.lanes}, expected a power of two: choose the next larger one")

    @property
    def rows(self) -> int:
        """One image at a time."""
        return 1

    @property
    def data_bits(self) -> int:
        """What a lane multiplies may be a gradient."""
        return GRADIENT_BITS

    @property
    def weight_bits(self) -> int:
        """And so may what it multiplies that by."""
        return GRADIENT_BITS

    @property
    def acc_bits(self) -> int:
        """Width of every sum."""
        return ACCUMULATOR_BITS

    @property
    def address_bits(self) -> int:
        """Width of every address: enough for the elements of the largest memory, and for all that a host reaches by one."""
        words = max(self.activation_depth, self.error_depth, self.latent_depth, self.init_depth)
        return bits_for(max(words * self.lanes, self.code_depth, self.ranks, self.contractions) - 1)

    @property
    def wait_bits(self) -> int:
        """Width of an instruction's `wait`: none waits, each follows when all before it is done."""
        return 1

    @property
    def instruction(self) -> data.StructLayout:
        """One nest of loops, ready to walk."""
        streams = {stream: self.address_bits for stream in STREAMS}
        loop = data.StructLayout({"steps": self.extent_bits, **streams})
        return data.StructLayout(
            {
                **streams,
                "loops": data.ArrayLayout(loop, self.loops),
                "reduce": bits_for(self.loops),
                "wait": self.wait_bits,
                **self.mode.members,
            }
        )

    @property
    def chunks(self) -> int:
        """How many words of 32 bits an instruction takes."""
        return -(-self.instruction.size // 32)

    @property
    def mode(self) -> data.StructLayout:
        """What of an instruction goes with every step of its walk; hw/training/README.md says what each field means."""
        return data.StructLayout(
            {
                "kind": Kind,
                "x_from": Bank,
                "w_from": Bank,
                "target": Bank,
                "lanes": bits_for(self.lanes),
                "lane_y": self.address_bits,
                "turns": data.ArrayLayout(bits_for(self.lanes), LANE_LOOPS),
                "jumps": data.ArrayLayout(self.address_bits, LANE_LOOPS),
                "number": bits_for(self.contractions - 1),
                "shift": SHIFT_BITS,
                "relu": 1,
                "saturate": 1,
                "maximum": 1,
                "tracked": 1,
                "wide": 1,
                "forward": 1,
                "given": 1,
                "pulled": 1,
                "ease": EASE_BITS,
                "brake": 1,
                "end": 1,
            }
        )

    @property
    def rule(self) -> data.StructLayout:
        """What a `bayestt.ir.descend.Rule` says: rate, momentum, the pull where it `pulls`; and whether shifts are `patient` by now."""
        return data.StructLayout({"rate": RATE_BITS, "momentum": MOMENTUM_BITS, "pull": signed(PULL_BITS), "pulls": 1, "patient": 1})

    @property
    def entry(self) -> data.StructLayout:
        """What is kept of an entry of a parameter between steps."""
        return data.StructLayout({"latent": signed(LATENT_BITS), "velocity": signed(GRADIENT_BITS)})

    @property
    def control(self) -> data.StructLayout:
        """What is kept of a contraction: by how much it is shifted, and its bias, and how many steps in a row asked for another shift."""
        shifts = {"shift": SHIFT_BITS, "bias_shift": signed(SIGNED_SHIFT_BITS), "count": signed(COUNT_BITS)}
        return data.StructLayout(shifts)

    @property
    def scale(self) -> data.StructLayout:
        """What is kept of an index of a rank axis between steps: the square of its scale, and whether it is there."""
        return data.StructLayout({"square": SCALE_BITS, "alive": 1})
