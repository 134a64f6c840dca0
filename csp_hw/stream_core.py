# SPDX-License-Identifier: Apache-2.0
"""The core for those who have their own DMA: streams where the other one has memory ports."""

from amaranth import Cat, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from csp_hw.addresses import TABLES
from csp_hw.axi.packet_reader import PacketReader
from csp_hw.axi.packet_writer import PacketWriter
from csp_hw.axi.signature import LiteSignature, PacketSignature, connect_flat, flat_members
from csp_hw.body import BODY_MODULE, SOURCES, Body, BodySignature
from csp_hw.config import CspConfig
from csp_hw.core import REGISTERS
from csp_hw.util import flushed, join, own_reset, part

#: Verilog module of this core.
STREAM_MODULE = "csp_stream"
#: Ports of what is read, by the names of the body, and of the results.
STREAMS = {
    name: f"s_axis_{ {'entries': 'tiles', 'inputs': 'input'}.get(name, name) }" for name in SOURCES
}
RESULTS = "m_axis_results"
#: What is read again for each tile if it is not resident: a packet each time.
AGAIN = ("counts", "weights")


class StreamCoreSignature(wiring.Signature):
    """Ports of the core with streams; :class:`StreamCore` explains them."""

    def __init__(self, config: CspConfig):
        beat = config.cols
        members = {"irq": Out(1), **flat_members(REGISTERS, LiteSignature().flip())}
        for prefix in STREAMS.values():
            members |= flat_members(prefix, PacketSignature(beat).flip())
        members |= flat_members(RESULTS, PacketSignature(beat, strobes=True))
        super().__init__(members)


class StreamCore(wiring.Component):
    """Run descriptors from a stream; what a pass reads and writes are streams, too.

    Ports have AXI's own names. ``s_axil`` is the AXI4-Lite subordinate of the registers, those of
    :class:`csp_hw.core.Core`; the window and the place of the descriptors do not matter. All else
    is AXI4-Stream, ``cols`` bytes wide. The beats are those that the memory ports would move, in
    the same order, and a packet is what a pass reads or writes. Of counts and weights that are not
    resident it is what a tile reads; the descriptors of a start are one packet.

    An error ends a packet of results that has begun with a beat without bytes. From then until the
    next start all beats that come are taken and forgotten.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        Instantiate the body as the Verilog module ``csp_body``. See :class:`csp_hw.array.Array`.

    Members
    -------
    irq : Out(1)
        All descriptors are done, or one failed, and the interrupt is enabled.
    s_axil_*
    s_axis_descriptors_*, s_axis_params_*, s_axis_tiles_*, s_axis_counts_*, s_axis_weights_*
    s_axis_input_*, s_axis_residual_*
    m_axis_results_*

    Raises
    ------
    ConfigError
        The configuration is none of a core (:meth:`csp_hw.config.CspConfig.check_core`).
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        config.check_core()
        self.config = config
        self.hierarchical = hierarchical
        super().__init__(StreamCoreSignature(config))

    def elaborate(self, platform):
        m = Module()
        beat = self.config.cols
        inside = None if self.hierarchical else Body(self.config)
        body = part(m, "body", BodySignature(self.config), BODY_MODULE, inside)
        reset = flushed(m, "flush_ports", body.flush)
        flush, held = own_reset(m, "flushed_ports", reset), ResetSignal() | reset
        results = PacketWriter(beat)
        m.submodules.results = flush(results)
        connect_flat(m, self, REGISTERS, body.axi)
        connect_flat(m, self, RESULTS, results.axi, held=held)

        # What comes after an error and before the next start belongs to what has failed.
        drop = Signal()
        with m.If(body.stop):
            m.d.sync += drop.eq(1)
        with m.Elif(body.begin):
            m.d.sync += drop.eq(0)

        # Streams.
        readers, taken = {}, {}
        for name, prefix in STREAMS.items():
            readers[name] = reader = PacketReader(beat, each=name in AGAIN)
            m.submodules[name] = flush(reader)
            connect_flat(m, self, prefix, reader.axi, held=held)
            wiring.connect(m, getattr(body, f"{name}_runs"), reader.runs)
            m.d.comb += [*join(reader.o, getattr(body, name)), reader.drop.eq(drop)]
            taken[name] = reader.o.valid & reader.o.ready
        wiring.connect(m, body.results_runs, results.runs)
        sent = results.axi.t.valid & results.axi.t.ready
        m.d.comb += [
            *join(body.results, results.i),
            results.strobe.eq(body.strobe),
            results.stop.eq(body.stop),
        ]

        # How it goes.
        tables = sum(taken[name] for name in ("descriptors", *TABLES))
        m.d.comb += [
            self.irq.eq(body.irq),
            body.progress.eq(Cat(*taken.values(), sent).any()),
            body.left.eq(Cat(reader.due for reader in readers.values()).any()),
            body.writing.eq(~results.idle),
            body.quiet.eq(results.quiet),
            body.waiting.eq(
                Cat(*(reader.waiting for reader in readers.values()), results.waiting).any()
            ),
            body.short.eq(Cat(reader.short for reader in readers.values()).any()),
            body.long.eq(Cat(reader.long for reader in readers.values()).any()),
            body.moved.weight_port_beats.eq(tables),
            body.moved.activation_beats.eq(taken["inputs"]),
            body.moved.residual_beats.eq(taken["residual"]),
            body.moved.result_beats.eq(sent & results.axi.t.payload.keep.any()),
        ]
        return m
