# SPDX-License-Identifier: Apache-2.0
"""The core: registers and memory ports around the datapath; all that software needs."""

from amaranth import Cat, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from csp_hw.addresses import TABLES
from csp_hw.axi.ports import LOCAL_OFFSET, Fault
from csp_hw.axi.reader import ReadManager
from csp_hw.axi.signature import (
    LiteSignature,
    ReadSignature,
    WriteSignature,
    connect_flat,
    flat_members,
)
from csp_hw.axi.writer import WriteManager
from csp_hw.body import BODY_MODULE, Body, BodySignature
from csp_hw.config import CspConfig
from csp_hw.map_memory import MapMemory
from csp_hw.util import flushed, join, own_reset, part

#: Beats in each reader's queue. What a queue holds bridges the latency of the memory.
FETCH_DEPTH = 32
TABLE_DEPTHS = {"params": 32, "entries": 16, "counts": 32, "weights": 64}
MAP_DEPTH = 64

#: Verilog module of the core.
CORE_MODULE = "csp_core"
REGISTERS, TABLE_PORT, MAP_PORT, RESULT_PORT = "s_axil", "m_axi_wgt", "m_axi_act", "m_axi_res"


class CoreSignature(wiring.Signature):
    """Ports of the core; :class:`Core` explains them."""

    def __init__(self, config: CspConfig):
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


class Core(wiring.Component):
    """Run descriptors from memory: whole networks, layer after layer.

    Ports have AXI's own names. ``s_axil`` is the AXI4-Lite subordinate of the registers. The AXI4
    managers, ``cols`` bytes wide: ``m_axi_wgt`` reads descriptors, parameters, tiles, counts and
    weights; ``m_axi_act`` reads input maps; ``m_axi_res`` writes results and reads residuals.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        Instantiate the body as the Verilog module ``csp_body``. See :class:`csp_hw.array.Array`.

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
        super().__init__(CoreSignature(config))

    def elaborate(self, platform):
        m = Module()
        beat = self.config.cols
        inside = None if self.hierarchical else Body(self.config)
        body = part(m, "body", BodySignature(self.config), BODY_MODULE, inside)
        local = self.config.map_bytes
        tables = ReadManager(beat, [FETCH_DEPTH, *(TABLE_DEPTHS[name] for name in TABLES)])
        maps = ReadManager(beat, [MAP_DEPTH], local_bytes=local)
        residuals = ReadManager(beat, [MAP_DEPTH], local_bytes=local)
        results = WriteManager(beat, MAP_DEPTH, local_bytes=local)
        readers = (tables, maps, residuals)
        ports = (*readers, results)

        connect_flat(m, self, REGISTERS, body.axi)
        names = ("tables", "maps", "residuals", "results")
        prefixes = (TABLE_PORT, MAP_PORT, RESULT_PORT, RESULT_PORT)
        resets = flushed(m, "flush_ports", body.flush, len(ports) + bool(local))
        for name, prefix, port, reset in zip(names, prefixes, ports, resets, strict=False):
            m.submodules[name] = own_reset(m, f"flushed_{name}", reset)(port)
            # Its reset comes a cycle late, and AXI allows no transfer during one.
            connect_flat(m, self, prefix, port.axi, held=ResetSignal() | reset)

        # The window, and the map memory behind it.
        size = body.size
        if local:
            size = Signal.like(body.size)
            m.d.sync += size.eq(Mux(body.size > LOCAL_OFFSET, LOCAL_OFFSET, body.size))
            kept = MapMemory(self.config)
            m.submodules.kept = own_reset(m, "flushed_kept", resets[-1])(kept)
            wiring.connect(m, maps.local, kept.inputs)
            wiring.connect(m, residuals.local, kept.residual)
            wiring.connect(m, results.local, kept.results)
        for port in ports:
            m.d.comb += [
                port.base.eq(body.base),
                port.size.eq(size),
                port.stop.eq(body.stop),
            ]
        m.d.comb += [
            self.irq.eq(body.irq),
            results.low.eq(body.low),
            results.high.eq(body.high),
            results.strobe.eq(body.strobe),
        ]

        # Streams.
        clients = {name: (tables, n) for n, name in enumerate(("descriptors", *TABLES))}
        clients |= {"inputs": (maps, 0), "residual": (residuals, 0)}
        for name, (port, n) in clients.items():
            wiring.connect(m, getattr(body, f"{name}_runs"), port.runs[n])
            m.d.comb += join(port.o[n], getattr(body, name))
        wiring.connect(m, body.results_runs, results.runs)
        m.d.comb += join(body.results, results.i)

        # How it goes.
        moving = [*(reader.axi.r for reader in readers), results.axi.w, results.axi.b]
        if local:
            moving += [maps.local.answers, residuals.local.answers, results.local.beats]
        moves = [port.valid & port.ready for port in moving]
        m.d.comb += [
            body.progress.eq(Cat(moves).any()),
            body.left.eq(results.left | Cat(~reader.idle for reader in readers).any()),
            body.writing.eq(~results.idle),
            body.quiet.eq(Cat(port.quiet for port in ports).all()),
            body.waiting.eq(~body.quiet),
            body.range_error.eq(Cat(port.error == Fault.RANGE for port in ports).any()),
            body.bus_error.eq(Cat(port.error == Fault.BUS for port in ports).any()),
            *(
                body.moved[name].eq(move)
                for name, move in zip(body.moved.shape().members, moves, strict=False)
            ),
        ]
        return m
