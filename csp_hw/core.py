# SPDX-License-Identifier: Apache-2.0
"""The core: registers and memory ports around the datapath; all that software needs."""

from amaranth import (
    Cat,
    ClockDomain,
    ClockSignal,
    DomainRenamer,
    Module,
    Mux,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from csp_hw.addresses import TABLES, PassAddresses
from csp_hw.axi.ports import Fault
from csp_hw.axi.reader import ReadManager
from csp_hw.axi.signature import (
    LiteSignature,
    ReadSignature,
    WriteSignature,
    connect_flat,
    flat_members,
)
from csp_hw.axi.writer import WriteManager
from csp_hw.config import CspConfig
from csp_hw.control import Control
from csp_hw.datapath import READS, Datapath
from csp_hw.descriptor import DESCRIPTOR_BYTES
from csp_hw.registers import RegisterFile

#: Beats in each reader's queue. What a queue holds bridges the latency of the memory.
FETCH_DEPTH = 32
TABLE_DEPTHS = {"params": 32, "entries": 16, "counts": 32, "weights": 64}
MAP_DEPTH = 64

REGISTERS, TABLE_PORT, MAP_PORT, RESULT_PORT = "s_axil", "m_axi_wgt", "m_axi_act", "m_axi_res"


class Core(wiring.Component):
    """Run descriptors from memory: whole networks, layer after layer.

    Ports have AXI's own names. ``s_axil`` is the AXI4-Lite subordinate of the registers. The AXI4
    managers, ``cols`` bytes wide: ``m_axi_wgt`` reads descriptors, parameters, tiles, counts and
    weights; ``m_axi_act`` reads input maps; ``m_axi_res`` writes results and reads residuals.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        See :class:`csp_hw.array.Array`.

    Members
    -------
    irq : Out(1)
        All descriptors are done, or one failed, and the interrupt is enabled.
    s_axil_*, m_axi_wgt_*, m_axi_act_*, m_axi_res_*
        See above.

    Raises
    ------
    ConfigError
        The configuration is none of a core (:meth:`csp_hw.config.CspConfig.check_core`).
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        config.check_core()
        self.config = config
        self.hierarchical = hierarchical
        beat = config.cols
        super().__init__(
            {
                "irq": Out(1),
                **flat_members(REGISTERS, LiteSignature().flip()),
                **flat_members(TABLE_PORT, ReadSignature(beat)),
                **flat_members(MAP_PORT, ReadSignature(beat)),
                **flat_members(RESULT_PORT, ReadSignature(beat)),
                **flat_members(RESULT_PORT, WriteSignature(beat)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        beat = config.cols
        m.submodules.registers = registers = RegisterFile(config)
        m.submodules.control = control = Control(config)

        # All that a failure resets: a clock domain of its own, since the modules that the datapath
        # instantiates take their reset from a domain.
        m.domains.flushed = ClockDomain(local=True)
        m.d.comb += [
            ClockSignal("flushed").eq(ClockSignal()),
            ResetSignal("flushed").eq(ResetSignal() | control.flush),
        ]
        flush = DomainRenamer("flushed")
        datapath = Datapath(config, hierarchical=self.hierarchical)
        addresses = PassAddresses(config)
        tables = ReadManager(beat, [FETCH_DEPTH, *(TABLE_DEPTHS[name] for name in TABLES)])
        maps = ReadManager(beat, [MAP_DEPTH])
        residuals = ReadManager(beat, [MAP_DEPTH])
        results = WriteManager(beat, MAP_DEPTH)
        m.submodules.datapath = flush(datapath)
        m.submodules.addresses = flush(addresses)
        m.submodules.tables = flush(tables)
        m.submodules.maps = flush(maps)
        m.submodules.residuals = flush(residuals)
        m.submodules.results = flush(results)
        readers = (tables, maps, residuals)

        connect_flat(m, self, REGISTERS, registers.axi)
        connect_flat(m, self, TABLE_PORT, tables.axi)
        connect_flat(m, self, MAP_PORT, maps.axi)
        connect_flat(m, self, RESULT_PORT, residuals.axi)
        connect_flat(m, self, RESULT_PORT, results.axi)

        # Control.
        software, hardware = registers.software, registers.hardware
        descriptor = control.descriptor
        m.d.comb += [
            self.irq.eq(registers.irq),
            control.start.eq(software.control.start),
            control.abort.eq(software.control.abort),
            control.descriptors.eq(
                Cat(Value.cast(0)[:8].replicate(8), software.descriptors.offset)
            ),
            control.count.eq(software.count.descriptors),
            control.timeout.eq(software.timeout.cycles),
            tables.runs[0].valid.eq(control.fetch.valid),
            tables.runs[0].payload.offset.eq(control.fetch.payload),
            tables.runs[0].payload.beats.eq(DESCRIPTOR_BYTES // beat),
            control.fetch.ready.eq(tables.runs[0].ready),
            datapath.descriptor.eq(descriptor),
            datapath.start.eq(control.launch),
            addresses.descriptor.eq(descriptor),
            addresses.start.eq(control.launch),
        ]

        # The window.
        base = Cat(
            Value.cast(0).replicate(12), software.base_low.address, software.base_high.address
        )
        size = Cat(software.size_low.bytes, software.size_high.bytes)
        for port in (*readers, results):
            m.d.comb += [port.base.eq(base), port.size.eq(size), port.stop.eq(control.stop)]
        m.d.comb += [
            results.low.eq(descriptor.output_low),
            results.high.eq(descriptor.output_high),
            results.strobe.eq(Cat(descriptor.strobe_low, descriptor.strobe_high)),
        ]

        # Streams.
        sources = {name: tables.o[1 + n] for n, name in enumerate(TABLES)}
        sources |= {"inputs": maps.o[0], "residual": residuals.o[0]}
        runs = {name: tables.runs[1 + n] for n, name in enumerate(TABLES)}
        runs |= {"inputs": maps.runs[0], "residual": residuals.runs[0], "results": results.runs}
        for name, run in runs.items():
            wiring.connect(m, getattr(addresses, name), run)
        pairs = [(sources[name], getattr(datapath, name)) for name in READS]
        pairs += [(tables.o[0], control.i), (datapath.results, results.i)]
        for source, sink in pairs:
            m.d.comb += [
                Value.cast(sink.payload).eq(Value.cast(source.payload)),
                sink.valid.eq(source.valid),
                source.ready.eq(sink.ready),
            ]

        # How the pass goes.
        transfers = [*sources.values(), datapath.results]
        transfers += [*(reader.axi.r for reader in readers), results.axi.w, results.axi.b]
        left = [source.valid for source in (*sources.values(), datapath.results)]
        left += [~reader.idle for reader in readers]
        left += [addresses.reading, datapath.left, results.left]
        m.d.sync += [
            control.working.eq(datapath.busy),
            control.writing.eq(addresses.writing | ~results.idle),
            control.left.eq(Cat(left).any()),
            control.progress.eq(
                Cat(port.valid & port.ready for port in transfers).any() | datapath.moves
            ),
        ]
        m.d.comb += [
            control.wrong_tiles.eq(datapath.error),
            control.wrong_counts.eq(datapath.wrong_counts),
            control.quiet.eq(Cat(port.quiet for port in (*readers, results)).all()),
        ]
        errors = [port.error for port in (*readers, results)]
        m.d.comb += [
            control.range_error.eq(Cat(error == Fault.RANGE for error in errors).any()),
            control.bus_error.eq(Cat(error == Fault.BUS for error in errors).any()),
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
        self._count(m, control, datapath, (tables, maps, residuals, results), hardware)
        return m

    def _count(self, m, control, datapath, ports, hardware) -> None:
        """Count cycles and beats since the start; hand on the engine's counters."""
        tables, maps, residuals, results = ports
        beats = {
            "weight_port_beats": tables.axi.r,
            "activation_beats": maps.axi.r,
            "residual_beats": residuals.axi.r,
            "result_beats": results.axi.w,
        }
        counted = {name: port.valid & port.ready for name, port in beats.items()}
        counted["layer_count"] = control.finished
        for name, event in counted.items():
            count = Signal(32, name=name)
            m.d.comb += hardware[name].value.eq(count)
            m.d.sync += count.eq(Mux(control.begin, 0, count + event))
        cycles = Signal(64, name="core_cycles")
        m.d.sync += cycles.eq(Mux(control.begin, 0, cycles + control.busy))
        m.d.comb += Cat(hardware.core_cycles_low.value, hardware.core_cycles_high.value).eq(cycles)
        for name, layout in datapath.counters.shape():
            counter = datapath.counters[name]
            if name in hardware.shape().members:
                m.d.comb += hardware[name].value.eq(counter)
            else:
                low, high = hardware[f"{name}_low"].value, hardware[f"{name}_high"].value
                m.d.comb += Cat(low, high).eq(counter)
            del layout
