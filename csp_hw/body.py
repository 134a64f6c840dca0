# SPDX-License-Identifier: Apache-2.0
"""All of a core but its ports for data: registers, control, addresses, datapath."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.addresses import PassAddresses
from csp_hw.axi.ports import SIZE_BITS, run_layout
from csp_hw.axi.signature import ADDRESS_BITS, LiteSignature
from csp_hw.config import CspConfig
from csp_hw.control import Control
from csp_hw.datapath import READS, Datapath
from csp_hw.descriptor import OFFSET_BITS
from csp_hw.ports import results_layout
from csp_hw.registers import RegisterFile
from csp_hw.util import flushed, join, own_reset

#: Verilog module of the body.
BODY_MODULE = "csp_body"
#: What is read, in the order in which a pass begins with it.
SOURCES = ("descriptors", *READS)
#: Bits of the low half of a base address that are 0.
PAGE_BITS = 12


def moved_layout() -> data.StructLayout:
    """Give the beats that move in a cycle, by the counter that counts them."""
    return data.StructLayout(
        {
            "weight_port_beats": range(len(SOURCES)),
            "activation_beats": 1,
            "residual_beats": 1,
            "result_beats": 1,
        }
    )


class BodySignature(wiring.Signature):
    """Ports of the body; :class:`Body` explains them."""

    def __init__(self, config: CspConfig):
        runs = stream.Signature(run_layout())
        beats = stream.Signature(results_layout(config))
        super().__init__(
            {
                "axi": In(LiteSignature()),
                "irq": Out(1),
                "base": Out(ADDRESS_BITS),
                "size": Out(SIZE_BITS),
                "low": Out(OFFSET_BITS),
                "high": Out(OFFSET_BITS),
                "strobe": Out(config.cols),
                **{f"{name}_runs": Out(runs) for name in (*SOURCES, "results")},
                **{name: In(beats) for name in SOURCES},
                "results": Out(beats),
                "moved": In(moved_layout()),
                "progress": In(1),
                "writing": In(1),
                "left": In(1),
                "begin": Out(1),
                "range_error": In(1),
                "bus_error": In(1),
                "short": In(1),
                "long": In(1),
                "waiting": In(1),
                "stop": Out(1),
                "quiet": In(1),
                "flush": Out(1),
            }
        )


class Body(wiring.Component):
    """Run descriptors; what brings the beats and takes them away is around it.

    Parameters
    ----------
    config : CspConfig
        That of a core.
    hierarchical : bool
        See :class:`csp_hw.datapath.Datapath`.

    Members
    -------
    axi : In(LiteSignature)
        The registers.
    irq : Out(1)
    base, size : Out
        The window.
    low, high, strobe : Out
        Of the pass at work: results go to bytes low … high - 1, and these bytes of a beat mean
        something.
    descriptors_runs, params_runs, … results_runs : Out(stream)
        What is to be read or written, in this order.
    descriptors, params, … residual : In(stream)
        Beats of those runs.
    results : Out(stream)
        Beats to be written.
    moved : In
        :func:`moved_layout`, for the counters.
    progress : In(1)
        A beat moved outside.
    writing : In(1)
        A run of results was taken, and not all of it is written.
    left : In(1)
        A run that is read was taken, and not all of it has come.
    begin, range_error, bus_error, short, long, waiting, stop, quiet, flush
        See :class:`csp_hw.control.Control`.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        config.check_core()
        self.config = config
        self.hierarchical = hierarchical
        super().__init__(BodySignature(config))

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.registers = registers = RegisterFile(config)
        m.submodules.control = control = Control(config)
        flush = own_reset(m, "flushed_body", flushed(m, "flush_body", control.flush))
        addresses = PassAddresses(config)
        m.submodules.addresses = flush(addresses)
        datapath = Datapath(config, hierarchical=self.hierarchical)
        m.submodules.datapath = flush(datapath)

        # Control. What has loads all over the core leaves from a register.
        launch = Signal()
        m.d.sync += [launch.eq(control.launch), self.stop.eq(control.stop)]
        software, hardware = registers.software, registers.hardware
        descriptor = control.descriptor
        wiring.connect(m, wiring.flipped(self.axi), registers.axi)
        m.d.comb += [
            self.irq.eq(registers.irq),
            control.start.eq(software.control.start),
            control.abort.eq(software.control.abort),
            control.descriptors.eq(Cat(Const(0, 8), software.descriptors.offset)),
            control.count.eq(software.count.descriptors),
            control.timeout.eq(software.timeout.cycles),
            self.low.eq(descriptor.output_low),
            self.high.eq(descriptor.output_high),
            self.strobe.eq(Cat(descriptor.strobe_low, descriptor.strobe_high)),
            datapath.descriptor.eq(descriptor),
            datapath.start.eq(launch),
            addresses.descriptor.eq(descriptor),
            addresses.start.eq(launch),
            self.base.eq(
                Cat(Const(0, PAGE_BITS), software.base_low.address, software.base_high.address)
            ),
            self.size.eq(Cat(software.size_low.bytes, software.size_high.bytes)),
        ]
        for name in ("begin", "flush"):
            m.d.comb += getattr(self, name).eq(getattr(control, name))
        # They come from all over the core.
        for name in ("quiet", "range_error", "bus_error", "short", "long"):
            m.d.sync += getattr(control, name).eq(getattr(self, name))
        # No port is seen at rest before what it moved last is.
        waiting = Signal()
        m.d.sync += [waiting.eq(self.waiting), control.waiting.eq(waiting)]

        # Streams.
        wiring.connect(m, control.fetch, wiring.flipped(self.descriptors_runs))
        m.d.comb += join(wiring.flipped(self.descriptors), control.i)
        for name in READS:
            m.d.comb += join(wiring.flipped(getattr(self, name)), getattr(datapath, name))
        for name in (*READS, "results"):
            runs = wiring.flipped(getattr(self, f"{name}_runs"))
            wiring.connect(m, getattr(addresses, name), runs)
        m.d.comb += join(datapath.results, wiring.flipped(self.results))

        # How the pass goes.
        transfers = [*(getattr(self, name) for name in READS), datapath.results]
        moving = [*(port.valid & port.ready for port in transfers), self.progress, datapath.moves]
        moves = Signal(len(moving))
        left = [port.valid for port in transfers]
        left += [addresses.reading, self.left]
        is_left = Signal()
        m.d.comb += control.left.eq(is_left | datapath.left)
        m.d.sync += [
            control.working.eq(datapath.busy),
            control.writing.eq(addresses.writing | self.writing),
            is_left.eq(Cat(left).any()),
            moves.eq(Cat(moving)),
            control.progress.eq(moves.any()),
            control.wrong_tiles.eq(datapath.error),
            control.wrong_counts.eq(datapath.wrong_counts),
        ]

        # What software sees.
        m.d.comb += [
            hardware.status.busy.eq(control.busy),
            hardware.status.done.eq(control.done),
            hardware.status.error.eq(control.failed),
            hardware.status.code.eq(control.code),
            hardware.error_layer.index.eq(control.layer),
            hardware.error_detail.detail.eq(control.detail),
            hardware.layer.index.eq(control.layer),
        ]
        self._count(m, control, hardware)
        for name, _ in datapath.counters.shape():
            counter = datapath.counters[name]
            if name in hardware.shape().members:
                m.d.comb += hardware[name].value.eq(counter)
            else:
                low, high = hardware[f"{name}_low"].value, hardware[f"{name}_high"].value
                m.d.comb += Cat(low, high).eq(counter)
        return m

    def _count(self, m: Module, control: Control, hardware) -> None:
        """Count cycles and beats since the start, a cycle late."""
        counted = {name: self.moved[name] for name in moved_layout().members}
        counted["layer_count"] = control.finished
        counted["core_cycles"] = control.busy
        clear = Signal(init=1)  # so a reset clears, too
        m.d.sync += clear.eq(control.begin)
        for name, now in counted.items():
            event = Signal(Value.cast(now).shape(), name=f"{name}_event", reset_less=True)
            count = Signal(64 if name == "core_cycles" else 32, name=name, reset_less=True)
            m.d.sync += [event.eq(now), count.eq(Mux(clear, 0, count + event))]
            if name == "core_cycles":
                low, high = hardware[f"{name}_low"].value, hardware[f"{name}_high"].value
                m.d.comb += Cat(low, high).eq(count)
            else:
                m.d.comb += hardware[name].value.eq(count)
