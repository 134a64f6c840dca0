# SPDX-License-Identifier: Apache-2.0
"""What a pass reads and writes: from a descriptor to runs of addresses."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.loops import LoopAddress
from csp_hw.axi.ports import OFFSET_BITS, RUN_BITS, run_layout
from csp_hw.config import CspConfig
from csp_hw.datapath import ENTRY_BYTES, PARAM_BYTES
from csp_hw.descriptor import Kind, descriptor_layout
from csp_hw.ports import TILE_BITS
from csp_hw.slice import RegisterSlice

#: What comes through the port of the weights, in this order of clients; the first is the control's.
TABLES = ("params", "entries", "counts", "weights")
#: What has a shape in memory: maps, by the names of their fields in a descriptor.
MAPS = {"inputs": "input", "residual": "add", "results": "output"}


class Repeater(wiring.Component):
    """Send one run again and again.

    Members
    -------
    start : In(1)
        Begin; only while ``busy`` is low.
    offset, beats, times : In
        The run, stable while ``busy``; nothing is sent of no beats or no times.
    o : Out(stream)
    busy : Out(1)
    """

    start: In(1)
    offset: In(OFFSET_BITS)
    beats: In(RUN_BITS)
    times: In(TILE_BITS)
    o: Out(stream.Signature(run_layout()))
    busy: Out(1)

    def elaborate(self, platform):
        m = Module()
        # Runs that follow this one, less one: the sign marks the last one.
        left = Signal(signed(TILE_BITS + 1), reset_less=True)
        m.d.comb += [
            self.o.valid.eq(self.busy),
            self.o.payload.offset.eq(self.offset),
            self.o.payload.beats.eq(self.beats),
            self.o.payload.last.eq(left[-1]),
        ]
        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(self.beats.any() & self.times.any()),
                left.eq(self.times - 2),
            ]
        with m.Elif(self.busy & self.o.ready):
            m.d.sync += [self.busy.eq(~left[-1]), left.eq(left - 1)]
        return m


class PassAddresses(wiring.Component):
    """Name all runs of a pass.

    Members
    -------
    descriptor : In
        Stable from two cycles before ``start`` until the last run was taken.
    start : In(1)
    params, entries, counts, weights : Out(stream)
        Runs of the tables; counts and weights once a tile if they are not resident.
    inputs, residual, results : Out(stream)
        Runs of the maps.
    reading, writing : Out(1)
        A run that is to be read, or to be written, was not taken.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        runs = stream.Signature(run_layout())
        super().__init__(
            {
                "descriptor": In(descriptor_layout()),
                "start": In(1),
                **{name: Out(runs) for name in (*TABLES, *MAPS)},
                "reading": Out(1),
                "writing": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        d, cols = self.descriptor, self.config.cols
        convolve = Signal()
        m.d.comb += convolve.eq(d.kind == Kind.CONVOLVE)

        def hand_on(name, runs):
            """Connect runs to a port through a register; give whether one waits in it."""
            m.submodules[f"{name}_slice"] = out = RegisterSlice(run_layout())
            wiring.connect(m, runs, out.i)
            wiring.connect(m, out.o, wiring.flipped(getattr(self, name)))
            return out.o.valid

        # Tables. All their beats are whole: K · cols filters, a list padded to a beat.
        entry_bits = max(0, (cols // ENTRY_BYTES - 1).bit_length())
        # What is computed is so from the first beats of the descriptor on, long before the start.
        entry_beats = Signal(TILE_BITS, reset_less=True)
        counts_times, weights_times = (
            Signal(TILE_BITS, name=f"{name}_times", reset_less=True)
            for name in ("counts", "weights")
        )
        m.d.sync += [
            entry_beats.eq((d.tiles + ((1 << entry_bits) - 1)) >> entry_bits),
            counts_times.eq(Mux(d.counts_resident, 1, d.tiles)),
            weights_times.eq(Mux(d.weights_resident, 1, d.tiles)),
        ]
        tables = {
            "params": (d.params_offset, d.chunks * PARAM_BYTES, 1),
            "entries": (d.tiles_offset, entry_beats, 1),
            "counts": (d.counts_offset, d.count_beats, counts_times),
            "weights": (d.weights_offset, d.weight_words, weights_times),
        }
        reading = []
        for name, (offset, beats, times) in tables.items():
            m.submodules[name] = repeater = Repeater()
            waits = hand_on(name, repeater.o)
            m.d.comb += [
                repeater.start.eq(self.start & convolve),
                repeater.offset.eq(offset),
                repeater.beats.eq(beats),
                repeater.times.eq(times),
            ]
            reading.append(repeater.busy | waits)

        # Maps.
        asked = {"inputs": 1, "residual": d.residual, "results": 1}
        for name, fields in MAPS.items():
            m.submodules[name] = loop = LoopAddress(steady=True)
            waits = hand_on(name, loop.o)
            pending = Signal(name=f"{name}_pending")
            m.d.comb += loop.i.valid.eq(pending)
            for field in loop.i.payload.shape().members:
                m.d.comb += loop.i.payload[field].eq(d[f"{fields}_{field}"])
            with m.If(self.start):
                m.d.sync += pending.eq(asked[name])
            with m.Elif(loop.i.ready):
                m.d.sync += pending.eq(0)
            busy = pending | loop.o.valid | waits
            if name == "results":
                m.d.comb += self.writing.eq(busy)
            else:
                reading.append(busy)
        m.d.comb += self.reading.eq(Cat(reading).any())
        return m
