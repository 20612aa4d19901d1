"""The gateware as Verilog text, for any tool."""

from amaranth import ClockDomain, Module, Signal
from amaranth.back import verilog as back
from amaranth.hdl import Value
from amaranth.lib.wiring import In

from hw.arch import Arch
from hw.gateware.axi import AxiDatapath
from hw.gateware.datapath import Datapath

CLOCK = "xilinx.com:signal:clock:1.0 aclk CLK"
RESET = "xilinx.com:signal:reset:1.0 aresetn RST"
"""By these attributes of its ports Vivado knows which buses run by which clock and reset."""


def verilog(arch: Arch) -> str:
    """The module `datapath` of an Arch, with plain port names (`image_payload`): the same text every time, wherever it is made."""
    machine = Datapath(arch)
    ports = {"_".join(path): (Value.cast(port), None) for path, _, port in machine.signature.flatten(machine)}
    return back.convert(machine, name="datapath", ports=ports, emit_src=False, strip_internal_attrs=True)


def axi_verilog(arch: Arch) -> str:
    """The module `axi_datapath` of an Arch, with the port names by which tools know AXI: `aclk`, `aresetn`, `s_axi_awaddr`, ..."""
    machine = AxiDatapath(arch)
    top = Module()
    top.submodules.axi = machine
    clock = Signal(name="aclk", attrs={"X_INTERFACE_INFO": CLOCK, "X_INTERFACE_PARAMETER": _associated(machine)})
    reset = Signal(name="aresetn", attrs={"X_INTERFACE_INFO": RESET, "X_INTERFACE_PARAMETER": "POLARITY ACTIVE_LOW"})
    top.domains.sync = domain = ClockDomain()
    domain.clk = clock
    top.d.comb += domain.rst.eq(~reset)
    ports = [clock, reset]
    for (bus, channel, part), member, port in machine.signature.flatten(machine):
        fields = {name: port[name] for name, _ in member.shape} if part == "payload" else {part: port}
        for name, field in fields.items():
            pin = Signal.like(Value.cast(field), name=f"{bus}_{channel}{name}")
            top.d.comb += field.eq(pin) if member.flow == In else pin.eq(field)
            ports.append(pin)
    return back.convert(
        top, name="axi_datapath", ports={port.name: (port, None) for port in ports}, emit_src=False, strip_internal_attrs=True
    )


def _associated(machine: AxiDatapath) -> str:
    """What runs by the clock."""
    return f"ASSOCIATED_BUSIF {':'.join(machine.signature.members)}, ASSOCIATED_RESET aresetn"
