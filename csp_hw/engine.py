# SPDX-License-Identifier: Apache-2.0
"""The engine: everything between streams of words and streams of results."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.array import Array
from csp_hw.config import CspConfig
from csp_hw.counters import Counters, MacEvents, counters_layout
from csp_hw.drain import Drain
from csp_hw.hazard import HazardUnit
from csp_hw.issue import Issuer
from csp_hw.output import OutputStage
from csp_hw.ports import (
    activations_layout,
    counts_layout,
    filter_layout,
    layer_layout,
    position_layout,
    results_layout,
    tile_counts_layout,
    tile_layout,
    weights_layout,
)
from csp_hw.replay import ReplayBuffer
from csp_hw.sequence import LayerSequencer
from csp_hw.skip import SkipController
from csp_hw.slice import RegisterSlice

#: Verilog module of the engine.
ENGINE_MODULE = "csp_engine"


class EngineSignature(wiring.Signature):
    """Ports of the engine; :class:`Engine` explains them."""

    def __init__(self, config: CspConfig):
        super().__init__(
            {
                "layer": In(stream.Signature(layer_layout(config))),
                "params": In(stream.Signature(filter_layout())),
                "residual": In(stream.Signature(results_layout(config))),
                "tiles": In(stream.Signature(tile_layout(config))),
                "counts": In(stream.Signature(counts_layout(config))),
                "weights": In(stream.Signature(weights_layout(config))),
                "activations": In(stream.Signature(activations_layout(config))),
                "positions": Out(stream.Signature(position_layout(config))),
                "results": Out(stream.Signature(results_layout(config))),
                "counters": Out(counters_layout()),
                "idle": Out(1),
                "kept": Out(1),
            }
        )


class Engine(wiring.Component):
    """Compute one layer after the other, tile after tile.

    A layer is one group of one convolution. Its command is taken when the layer before is done;
    the other streams flow each at its own pace and may run ahead. Counts, weights and activations
    are consumed in the order that :mod:`csp_hw.issue` gives, once a tile.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        See :class:`csp_hw.array.Array`.

    Members
    -------
    layer : In(stream)
        One command a layer; clears the counters. ``tiles`` tells how many tiles it has.
    params : In(stream)
        K · cols beats a layer: bias, multiplier and shift of each filter, zero for padding.
    residual : In(stream)
        If the layer adds a residual, one word for each result word, in the order of ``results``.
    tiles : In(stream)
        One command a tile.
    counts : In(stream)
        ceil(J / L) words a tile, the last one padded with zeros.
    weights : In(stream)
        Σ n words a tile: for each block, for each chunk, for each tap of the run.
    activations : In(stream)
        I words a surviving tap: for each block, for each pixel i, for each tap. Dead lanes may
        hold anything.
    positions : Out(stream)
        Where each surviving tap lies, once a tile, see :func:`csp_hw.ports.position_layout`: what
        a feeder of ``activations`` must know. No tap is computed before its position was taken;
        who needs none ties ``ready`` to 1.
    results : Out(stream)
        For each pixel i, for each row with a live pixel, for each chunk: one word, or four of
        int32.
    counters : Out
        See :mod:`csp_hw.counters`.
    idle : Out
        No layer is at work: all tiles of the last one are computed and their results taken.
    kept : Out
        Weights, activations or a residual were taken that no tile has used yet; a cycle late.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self.config = config
        self.hierarchical = hierarchical
        super().__init__(EngineSignature(config))

    def elaborate(self, platform):
        m = Module()
        config = self.config
        row_words, run_words = config.row_words, config.run_words
        m.submodules.sequencer = sequencer = LayerSequencer(config)
        # The scanner knows late whether it takes a word.
        m.submodules.counts = counts = RegisterSlice(tile_counts_layout(config))
        m.submodules.skip = skip = SkipController(config)
        m.submodules.row_buffer = row_buffer = ReplayBuffer(activations_layout(config), row_words)
        m.submodules.run_buffer = run_buffer = ReplayBuffer(weights_layout(config), run_words)
        m.submodules.issuer = issuer = Issuer(config, row_words, run_words)
        m.submodules.hazard = hazard = HazardUnit(config)
        m.submodules.array = array = Array(config, hierarchical=self.hierarchical)
        m.submodules.drain = drain = Drain(config)
        m.submodules.output = output = OutputStage(config, hierarchical=self.hierarchical)
        m.submodules.macs = macs = MacEvents(config)
        m.submodules.counters = counters = Counters(config)

        # The layer.
        layer = sequencer.current
        output_busy = Signal()
        wiring.connect(m, wiring.flipped(self.layer), sequencer.layer)
        m.d.comb += [
            sequencer.working.eq(issuer.given | issuer.open | drain.busy | output_busy),
            self.idle.eq(sequencer.idle),
            skip.period.eq(layer.period),
            skip.position_words.eq(layer.position_words),
            skip.kernel_w.eq(layer.kernel_w),
            issuer.chunks.eq(layer.chunks),
            array.acc_shift.eq(layer.acc_shift),
            drain.chunks.eq(layer.chunks),
            output.layer.eq(layer),
        ]
        # The output stage is far away.
        m.d.sync += [output.clear.eq(sequencer.taken), output_busy.eq(output.busy)]

        kept = [run_buffer.available.any(), row_buffer.available.any(), output.given]
        m.d.sync += self.kept.eq(Cat(kept).any())

        # Streams in.
        wiring.connect(m, wiring.flipped(self.tiles), sequencer.tiles)
        wiring.connect(m, sequencer.layer_tiles, issuer.tiles)
        wiring.connect(m, wiring.flipped(self.counts), sequencer.counts)
        wiring.connect(m, sequencer.layer_counts, counts.i)
        wiring.connect(m, counts.o, skip.i)
        wiring.connect(m, wiring.flipped(self.weights), run_buffer.i)
        wiring.connect(m, wiring.flipped(self.activations), row_buffer.i)
        wiring.connect(m, wiring.flipped(self.params), output.params)
        wiring.connect(m, skip.o, issuer.blocks)
        wiring.connect(m, skip.positions, wiring.flipped(self.positions))
        m.d.comb += [
            issuer.activations_available.eq(row_buffer.available),
            row_buffer.offset.eq(issuer.activations_offset),
            row_buffer.release.eq(issuer.activations_release),
            issuer.weights_available.eq(run_buffer.available),
            run_buffer.offset.eq(issuer.weights_offset),
            run_buffer.release.eq(issuer.weights_release),
        ]

        # Products. A dead lane multiplies by zero.
        m.d.comb += [
            hazard.product.eq(issuer.product),
            array.control.eq(hazard.control),
            array.weights.eq(run_buffer.data),
        ]
        for row in range(config.rows):
            byte = row_buffer.data[row]
            activation = Mux(layer.signed, byte.as_signed(), byte)
            with m.If(issuer.product.live[row]):
                m.d.comb += array.activations[row].eq(activation)

        # Sums and results.
        m.d.comb += [
            drain.finished.eq(issuer.finished),
            drain.finished_valid.eq(issuer.finished_valid),
            issuer.drained.eq(drain.drained),
            array.drain.eq(drain.request),
            drain.sums.eq(array.sums),
        ]
        wiring.connect(m, drain.o, output.i)
        wiring.connect(m, wiring.flipped(self.residual), output.residual)
        wiring.connect(m, output.o, wiring.flipped(self.results))

        # Counters. They are far from what they count, so they hear of it a cycle late, but for what
        # comes late anyway.
        events = counters.events
        moved = {"counts": self.counts, "weights": self.weights}
        moved |= {"activations": self.activations, "results": self.results}
        m.d.sync += [
            counters.clear.eq(sequencer.taken),
            events.cycles.eq(~self.idle),
            events.issued.eq(issuer.issued),
            events.stalled_tiles.eq(
                sequencer.due & ~self.tiles.valid & ~issuer.given & ~issuer.open
            ),
            events.stalled_counts.eq(issuer.stalled_counts),
            events.stalled_activations.eq(issuer.stalled_activations),
            events.stalled_weights.eq(issuer.stalled_weights),
            events.stalled_bank.eq(issuer.stalled_bank),
            *(events[f"{name}_words"].eq(port.valid & port.ready) for name, port in moved.items()),
        ]
        m.d.comb += [
            events.saturations.eq(array.saturations),
            macs.last_filters.eq(layer.last_filters),
            macs.product.eq(issuer.product),
            macs.zeros.eq(array.zeros),
            events.useful_macs.eq(macs.useful),
            events.gated_macs.eq(macs.gated),
            self.counters.eq(counters.counters),
        ]
        return m
