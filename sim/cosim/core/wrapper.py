# SPDX-License-Identifier: Apache-2.0
"""The Verilog around the core: the reference memory at its managers, a driver at its registers.

Nothing that happens in a cycle waits for Python, which is called at the end of an order only. The
ports are taken from the core's Verilog: signals that AXI makes optional may be missing.

Variables besides ``clk`` and ``rst``, all vectors of fields (see :mod:`sim.cosim.core.protocol`)
    settings : written, taken over during reset
    orders : written
    answer : read, changes when an order was carried out
    files : written
    status : read
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from csp_algo.errors import CspError
from sim.cosim.core.protocol import (
    PORT_SETTINGS,
    PORT_STATUS,
    Fields,
    file_fields,
    order_fields,
    settings_fields,
    status_fields,
)
from sim.cosim.wrapper import waveform

#: Name of the module.
BENCH = "csp_core_bench"
MANAGER, SUBORDINATE = "m_axi", "s_axil"
#: The manager that reads maps: the memory counts how often it reads each beat.
MAPS = "act"
OTHER_BITS = 16

#: Signals of the channels that a manager drives, as widths; None: a beat's data, a beat's bytes.
ADDRESS = {"addr": 64, "len": 8, "size": 3, "burst": 2}
#: Others that belong to an address; the memory only watches that they do not change.
OTHERS = ("id", "lock", "cache", "prot", "qos", "region", "user")
#: Signals of the registers with their widths: from the driver, and from the core.
ASKED = {
    **dict.fromkeys(("awaddr", "araddr"), 12),
    "wdata": 32,
    "wstrb": 4,
    **dict.fromkeys(("awvalid", "wvalid", "bready", "arvalid", "rready"), 1),
}
ANSWERED = {
    **dict.fromkeys(("bresp", "rresp"), 2),
    "rdata": 32,
    **dict.fromkeys(("awready", "wready", "bvalid", "arready", "rvalid"), 1),
}


@dataclasses.dataclass(frozen=True)
class Port:
    """A port of a module."""

    direction: Literal["input", "output"]
    width: int


def module_ports(verilog: str, module: str) -> dict[str, Port]:
    """Give the ports of a module in the order of its list.

    Parameters
    ----------
    verilog : str
        With the directions in the module's body or in its list of ports, widths as numbers.
    module : str

    Raises
    ------
    CspError
        There is no such module, or a port without direction.
    """
    found = re.search(
        rf"^\s*module\s+{re.escape(module)}\s*\((.*?)\)\s*;(.*?)^\s*endmodule",
        verilog,
        re.DOTALL | re.MULTILINE,
    )
    if not found:
        raise CspError(f"the Verilog has no module {module} with a list of ports")
    listed, body = found.groups()
    declared = {
        name: Port("input" if direction == "input" else "output", int(high or 0) + 1)
        for direction, high, name in re.findall(
            r"\b(input|output)\s+(?:wire\s+|reg\s+)*(?:\[(\d+):0\]\s*)?(\w+)",
            listed if re.search(r"\b(?:input|output)\b", listed) else body,
        )
    }
    names = [text.split()[-1] for text in listed.split(",") if text.strip()]
    for name in names:
        if name not in declared:
            raise CspError(f"{module}: port {name} has no direction that can be read")
    return {name: declared[name] for name in names}


def managers(ports: Mapping[str, Port]) -> tuple[str, ...]:
    """Give the names of the AXI4 managers among the ports of a core, in their order."""
    found = (re.fullmatch(rf"{MANAGER}_(\w+)_a[rw]valid", name) for name in ports)
    return tuple(dict.fromkeys(match[1] for match in found if match))


def bench_verilog(top: str, ports: Mapping[str, Port], beat_bytes: int, memory_bytes: int) -> str:
    """Give the text of the module ``csp_core_bench``.

    Parameters
    ----------
    top : str
        Module of the core.
    ports : mapping of str to Port
        Of the core.
    beat_bytes : int
        Of a beat of the managers.
    memory_bytes : int
        Size of the memory at most; a multiple of ``beat_bytes``.

    Raises
    ------
    CspError
        A port is not what the memory or the driver expects, or nothing is known of it.
    """
    return "\n".join(_Lines(top, ports, beat_bytes, memory_bytes).lines()) + "\n"


class _Lines:
    """The text, and what was connected so far."""

    def __init__(
        self, top: str, ports: Mapping[str, Port], beat_bytes: int, memory_bytes: int
    ) -> None:
        self.top, self.ports = top, dict(ports)
        self.beat_bytes, self.memory_bytes = beat_bytes, memory_bytes
        self.managers = managers(ports)
        self.connections: dict[str, str] = {}
        if not self.managers:
            raise CspError(f"{top} has no AXI4 manager {MANAGER}_…")
        if memory_bytes % beat_bytes:
            raise CspError(f"memory_bytes {memory_bytes} is no multiple of {beat_bytes}")

    def lines(self) -> Iterator[str]:
        count = len(self.managers)
        settings, status = settings_fields(self.managers), status_fields(self.managers)
        public = "/* verilator public_flat_rw */"
        yield "// Generated: the core between the reference memory and a driver of its registers."
        yield "`timescale 1ns / 1ps"
        yield f"module {BENCH};"
        # Public variables rather than ports, which Verilator would copy at every call.
        yield f"  reg clk {public} = 0;"
        yield f"  reg rst {public} = 1;"
        for name, fields in (
            ("settings", settings),
            ("orders", order_fields()),
            ("files", file_fields()),
        ):
            yield f"  reg [{_width(fields) - 1}:0] {name} {public} = 0;"
        yield f"  wire [{_width(status) - 1}:0] status /* verilator public_flat_rd */;"
        yield "  wire answer /* verilator public_flat_rd */;"
        yield ""
        # As registers both are looked at once a cycle, and not whenever something was written.
        yield "  reg reset = 0;"
        yield f"  reg [{_width(settings) - 1}:0] set = 0;"
        yield "  always @(posedge clk) begin"
        yield "    reset <= rst;"
        yield "    if (rst) set <= settings;"
        yield "  end"
        yield from _slices("set", settings, self.managers, PORT_SETTINGS)
        yield from _slices("orders", order_fields())
        yield from _slices("files", file_fields())
        yield ""
        yield from self._status(status)
        yield ""
        yield from self._channels()
        yield ""
        yield f"  csp_memory #(.PORTS({count}), .BYTES({self.beat_bytes}),"
        yield f"      .WORDS({self.memory_bytes // self.beat_bytes}),"
        counted = self.managers.index(MAPS) if MAPS in self.managers else 0
        yield f"      .COUNTED({counted})) memory ("
        memory = [
            *(name for name in settings_fields(()) if name not in ("driver_stall", "halt")),
            *PORT_SETTINGS,
            *file_fields(),
            "failed",
            *("cycle", "quiet"),
            *PORT_STATUS,
            *(f"{channel}{signal}" for channel, signal, _, _ in self._signals()),
        ]
        yield from _connected(memory)
        yield "  csp_driver driver ("
        driver = [name for name in order_fields() if name != "order"]
        driver += ["answer", "result", "response", "started", "finished", "cycle", "irq", "seed"]
        yield "      .order(order), .stall(driver_stall), .faults(answer_faults),"
        yield "      .halt(halt & (|faults | |answer_faults)),"
        for name in (*ASKED, *ANSWERED):
            yield f"      .{name}(lite_{name}),"
        yield from _connected(driver)
        yield from self._core()
        yield from waveform(BENCH)
        yield "endmodule"

    def _signals(self) -> Iterator[tuple[str, str, int, bool]]:
        """Give the memory's channels: channel, signal, bits of a port, whether the core drives."""
        data, strobe = 8 * self.beat_bytes, self.beat_bytes
        for channel in ("ar", "aw"):
            for signal, width in ADDRESS.items():
                yield channel, signal, width, True
            yield channel, "other", OTHER_BITS, True
            yield channel, "valid", 1, True
            yield channel, "ready", 1, False
        for signal, width in (("data", data), ("strb", strobe), ("last", 1), ("valid", 1)):
            yield "w", signal, width, True
        yield "w", "ready", 1, False
        for channel, answers in (("r", {"data": data, "resp": 2, "last": 1}), ("b", {"resp": 2})):
            for signal, width in (*answers.items(), ("valid", 1)):
                yield channel, signal, width, False
            yield channel, "ready", 1, True

    def _status(self, fields: Fields) -> Iterator[str]:
        count = len(self.managers)
        yield "  wire irq, failed;"
        yield "  wire [2:0] response;"
        yield f"  wire [{fields['answer_faults'][1] - 1}:0] answer_faults;"
        yield "  wire [31:0] result, cycle, quiet, started, finished;"
        for name, width in PORT_STATUS.items():
            yield f"  wire [{count * width - 1}:0] {name};"
        of_ports = {f"{port}_{name}" for port in self.managers for name in PORT_STATUS}
        names = [
            re.sub(r"^(\w+)_(valid|ready)$", r"\1\2", name)
            for name in fields
            if name not in of_ports
        ]
        yield f"  assign status = {{{', '.join(reversed([*names, *PORT_STATUS]))}}};"

    def _channels(self) -> Iterator[str]:
        """Declare the memory's channels, one vector for all ports, and the driver's."""
        for channel, signal, width, driven in self._signals():
            vector = f"{channel}{signal}"
            yield f"  wire [{len(self.managers) * width - 1}:0] {vector};"
            for index, manager in enumerate(self.managers):
                part = f"{vector}[{index * width} +: {width}]"
                prefix = f"{MANAGER}_{manager}_{channel}"
                if signal == "other":
                    yield from self._others(prefix, part)
                elif f"{prefix}{signal}" in self.ports:
                    self._connect(f"{prefix}{signal}", part, width, driven)
                elif driven:
                    yield f"  assign {part} = {self._absent(prefix, signal, width)};"
        for name, width in (ASKED | ANSWERED).items():
            yield f"  wire [{width - 1}:0] lite_{name};"
            self._connect(f"{SUBORDINATE}_{name}", f"lite_{name}", width, name in ANSWERED)

    def _absent(self, prefix: str, signal: str, width: int) -> str:
        """Give what a signal is that the core does not have."""
        present = f"{prefix}valid" in self.ports
        if present and signal in ("addr", "data", "valid", "ready"):
            raise CspError(f"{self.top} has {prefix}valid but no {prefix}{signal}")
        value = {
            "size": self.beat_bytes.bit_length() - 1,
            "burst": 1,
            "last": 1,
            "strb": (1 << width) - 1,
        }
        return f"{width}'h{value.get(signal, 0):x}"

    def _others(self, prefix: str, part: str) -> Iterator[str]:
        """Bundle the signals that the memory only watches."""
        pieces, bits = [], 0
        for name in (f"{prefix}{signal}" for signal in OTHERS):
            if name in self.ports:
                width = self.ports[name].width
                yield f"  wire [{width - 1}:0] {name};"
                self._connect(name, name, width, driven=True)
                pieces.append(name)
                bits += width
        if bits > OTHER_BITS:
            raise CspError(f"{self.top}: {', '.join(pieces)} have more than {OTHER_BITS} bits")
        if bits < OTHER_BITS:
            pieces.append(f"{OTHER_BITS - bits}'d0")
        yield f"  assign {part} = {{{', '.join(pieces)}}};"

    def _connect(self, name: str, wire: str, width: int, driven: bool) -> None:
        """Connect a port of the core."""
        port = self.ports.get(name)
        wanted = Port("output" if driven else "input", width)
        if port != wanted:
            has = f"is {port.direction} [{port.width}]" if port else "is missing"
            raise CspError(f"{self.top}: {name} {has}, not {wanted.direction} [{wanted.width}]")
        self.connections[name] = wire

    def _core(self) -> Iterator[str]:
        """Connect the rest of the core's ports and place it."""
        rest = {"clk": "clk", "rst": "reset"}
        answers = [
            f"{MANAGER}_{manager}_{channel}{signal}"
            for manager in self.managers
            for channel in ("r", "b")
            for signal in ("id", "user")
        ]
        zeros = [*answers, *(f"{SUBORDINATE}_{channel}prot" for channel in ("aw", "ar"))]
        self._connect("irq", "irq", 1, driven=True)
        for name, port in self.ports.items():
            if name in self.connections:
                continue
            if name in rest:
                self.connections[name] = rest[name]
            elif name in zeros and port.direction == "input":
                self.connections[name] = f"{port.width}'d0"
            elif port.direction == "input":
                raise CspError(f"{self.top}: nothing is known of the input {name}")
        yield f"  {self.top} core ("
        yield ",\n".join(f"      .{name}({wire})" for name, wire in self.connections.items())
        yield "  );"


def _width(fields: Fields) -> int:
    return sum(width for _, width in fields.values())


def _slices(
    vector: str,
    fields: Fields,
    ports: tuple[str, ...] = (),
    each: Mapping[str, int] | None = None,
) -> Iterator[str]:
    """Declare a wire for each field; those of the ports are one for all ports."""
    of_ports = {f"{port}_{name}": name for name in each or {} for port in ports}
    for field, (offset, width) in fields.items():
        name = of_ports.get(field, field)
        if field in of_ports:
            if not field.startswith(f"{ports[0]}_"):
                continue
            width *= len(ports)
        yield f"  wire [{width - 1}:0] {name} = {vector}[{offset} +: {width}];"


def _connected(names: list[str]) -> Iterator[str]:
    """Connect ports to wires of their names, and clock and reset."""
    yield "      .clk(clk), .rst(reset),"
    yield ",\n".join(f"      .{name}({name})" for name in names)
    yield "  );"
