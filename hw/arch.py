"""The machine as one frozen value: its sizes, and the layouts that software and gateware share."""

from dataclasses import dataclass
from sys import maxsize

from amaranth import Shape, signed
from amaranth.lib import data, enum
from amaranth.utils import bits_for

from bayestt.algebra.fixed import MAX_BITS
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.room import Room

STREAMS = ("x", "w", "init", "y")
"""The streams of a nest, in the order in which an instruction has them."""


class Target(enum.Enum, shape=8):
    """What a section of the program stream is for: a memory, the batch settings, or a note that the machine skips."""

    NOTE = 0
    CODE = 1
    WEIGHTS = 2
    INITS = 3
    SETUP = 4


@dataclass(frozen=True)
class Arch:
    """An output-stationary array of `rows` x `lanes` multipliers and its memories; a batch of `rows` images runs at once.

    The rows lie in `tiles` equal parts, each a cycle behind the one before it: the more rows, the more tiles let the clock stay as fast.
    A data word is `rows` elements (the same element of every image), a weight word `lanes` weights, an init word `lanes` accumulators,
    a score word `rows` accumulators, a code word one instruction; depths are in words. `loops` is how deep an instruction's nest may be.
    The image memory, of data words, a power of two, is there twice: one batch comes in while another is computed. The external memory, of
    data words, is not on the chip: `external_depth` is how far the machine's addresses reach in it, 0 for none.
    """

    rows: int = 16
    lanes: int = 4
    tiles: int = 1
    data_bits: int = 8
    weight_bits: int = 8
    acc_bits: int = 32
    loops: int = 8
    extent_bits: int = 16
    image_depth: int = 1024
    data_depth: int = 8192
    weight_depth: int = 8192
    init_depth: int = 1024
    score_depth: int = 256
    code_depth: int = 128
    external_depth: int = 0

    def __post_init__(self) -> None:
        depths = ("image_depth", "data_depth", "weight_depth", "init_depth", "score_depth", "code_depth")
        for field in ("rows", "lanes", "tiles", "loops", *depths):
            if getattr(self, field) < 1:
                raise ValueError(f"Arch.{field} is {getattr(self, field)}, expected at least 1: give the machine some")
        for field, low, high in (
            ("data_bits", 2, MAX_BITS),
            ("weight_bits", 2, MAX_BITS),
            ("acc_bits", self.data_bits, MAX_BITS),
            ("extent_bits", 1, 24),
            ("external_depth", 0, 1 << 24),
            ("address_bits", 1, 24),
        ):
            if not low <= getattr(self, field) <= high:
                raise ValueError(f"Arch.{field} is {getattr(self, field)}, expected {low} to {high}: choose a width in that range")
        if self.rows % self.tiles:
            raise ValueError(f"Arch.tiles is {self.tiles}, expected to divide the {self.rows} rows: choose a divisor")
        if self.tiles > 1 and self.external_depth:
            raise ValueError(
                f"Arch.tiles is {self.tiles}, expected 1 with an external memory, whose words are of all rows: choose one tile"
            )
        if self.image_depth & (self.image_depth - 1):
            raise ValueError(f"Arch.image_depth is {self.image_depth}, expected a power of two: choose the next larger one")

    @property
    def tile(self) -> Nest:
        """What the machine does at once: one element of `rows` images times `lanes` weights, each sum with its own accumulator."""
        images = Loop("n", self.rows, x=1, y=1)
        lanes = Loop("lane", self.lanes, w=1, init=1, y=None)
        return Nest((), (), (images, lanes), 0, 0, 0, 0, bits=self.data_bits, acc_bits=self.acc_bits)

    @property
    def room(self) -> Room:
        """What of a network is on the chip at once: without an external memory, all its activations."""
        data = self.data_depth * self.rows if self.external_depth else maxsize
        image = range(self.image_address * self.rows, (self.image_address + self.image_depth) * self.rows)
        return Room(data, self.weight_depth * self.lanes, self.init_depth * self.lanes, image)

    @property
    def image_address(self) -> int:
        """Where the image memory begins for those that read it: behind the data memory, at a power of two."""
        return 1 << bits_for(max(self.data_depth, self.image_depth) - 1)

    @property
    def address_bits(self) -> int:
        """Width of every address: enough for the deepest memory."""
        on_chip = (self.image_address + self.image_depth, self.weight_depth, self.init_depth, self.score_depth, self.code_depth)
        return bits_for(max(*on_chip, self.external_depth) - 1)

    @property
    def wait_bits(self) -> int:
        """Width of an instruction's `wait`: enough for as long as the lanes of a tile take from their last step to their memory."""
        return bits_for(self.lanes) + 3

    @property
    def memory_bits(self) -> int:
        """All memory on the chip, in bits."""
        loaded = sum(depth * Shape.cast(self.words[target]).width for target, depth in self.depths.items() if target != Target.SETUP)
        words = self.data_depth + 2 * self.image_depth
        return loaded + self.rows * (words * self.data_bits + self.score_depth * self.acc_bits)

    @property
    def instruction(self) -> data.StructLayout:
        """One nest of loops, ready to walk; hw/README.md says what each field means."""
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
    def mode(self) -> data.StructLayout:
        """What of an instruction goes with every step of its walk: what is done with the operands and with their sums."""
        return data.StructLayout(
            {
                "lanes": bits_for(self.lanes),
                "lane_y": self.address_bits,
                "shift": 5,
                "relu": 1,
                "saturate": 1,
                "maximum": 1,
                "final": 1,
                "load": 1,
                "store": 1,
                "end": 1,
            }
        )

    @property
    def setup(self) -> data.StructLayout:
        """What a segment does: does a batch come in before it and go out after it, and from where to where; and the sum of its words."""
        addresses = ("image_first", "image_last", "score_first", "score_last")
        return data.StructLayout({"check": 32, "takes_image": 1, "gives_scores": 1, **{field: self.address_bits for field in addresses}})

    @property
    def words(self) -> dict[Target, data.Layout]:
        """The layout of one word of everything that a program loads."""
        return {
            Target.CODE: self.instruction,
            Target.WEIGHTS: data.ArrayLayout(signed(self.weight_bits), self.lanes),
            Target.INITS: data.ArrayLayout(signed(self.acc_bits), self.lanes),
            Target.SETUP: self.setup,
        }

    @property
    def depths(self) -> dict[Target, int]:
        """How many words of everything that a program loads there is room for."""
        return {Target.CODE: self.code_depth, Target.WEIGHTS: self.weight_depth, Target.INITS: self.init_depth, Target.SETUP: 1}

    def chunks(self, target: Target) -> int:
        """How many 32-bit words of the program stream make one word of a target."""
        return -(-Shape.cast(self.words.get(target, 32)).width // 32)
