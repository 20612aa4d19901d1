"""The gateware as Verilog text, for any tool."""

from amaranth.back import verilog as back
from amaranth.hdl import Value

from hw.arch import Arch
from hw.gateware.datapath import Datapath


def verilog(arch: Arch) -> str:
    """The module `datapath` of an Arch, with plain port names (`image_payload`): the same text every time, wherever it is made."""
    machine = Datapath(arch)
    ports = {"_".join(path): (Value.cast(port), None) for path, _, port in machine.signature.flatten(machine)}
    return back.convert(machine, name="datapath", ports=ports, emit_src=False, strip_internal_attrs=True)
