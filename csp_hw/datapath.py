# SPDX-License-Identifier: Apache-2.0
"""The datapath of the core: beats of memory in, beats of results out, one pass at a time."""

from amaranth import Cat, Module, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.array import Array
from csp_hw.config import CspConfig
from csp_hw.counters import counters_layout
from csp_hw.descriptor import FIELDS, Kind, descriptor_layout
from csp_hw.engine import ENGINE_MODULE, Engine, EngineSignature
from csp_hw.feeder import Feeder
from csp_hw.pool.pooler import Pooler
from csp_hw.ports import (
    counts_layout,
    position_layout,
    results_layout,
    weights_layout,
)
from csp_hw.slice import RegisterSlice
from csp_hw.store import ReplayStore
from csp_hw.util import join, own_resets, part
from csp_hw.width import WidthConverter, WidthGather

#: A filter's parameters in memory: bias, mult, shift and a byte of zero.
PARAM_BYTES = 8
#: An entry of the list of tiles in memory.
ENTRY_BYTES = 4
#: Engine, feeder and pooler, whose resets outlast the datapath's.
PARTS = 3
#: Cycles until all in them have left, too.
RESET_STAGES = PARTS + Array.RESET_STAGES
#: The streams of beats that a pass reads, in the order of the ports.
READS = ("params", "entries", "counts", "weights", "inputs", "residual")


class Datapath(wiring.Component):
    """Compute one pass: a convolution, with pooling behind it if asked, or a pooling alone.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        Instantiate the engine as the Verilog module ``csp_engine``, and let feeder and pooler
        instantiate what they have many times. See :class:`csp_hw.array.Array`.

    Members
    -------
    descriptor : In
        The pass; stable from ``start`` until it is done.
    start : In(1)
        Begin; only while ``busy`` is low.
    params, entries, counts, weights : In(stream)
        Beats of the parameters (8 bytes a filter), of the list of tiles (4 bytes a tile), of the
        counts and of the weight words; the last two once, or once a tile if they are not resident.
    inputs : In(stream)
        Beats of the input map, each once: image by image, line by line, pixel by pixel.
    residual : In(stream)
        Beats of the map that is added, in the order of the results.
    results : Out(stream)
    busy : Out(1)
        The pass is at work. Its last results may still be on offer when it falls.
    left : Out(1)
        Words are here that the pass has not used. When ``busy`` is low, at most two cycles later:
        some are left over.
    moves : Out(1)
        Something went on in the cycle before. All that may take long without a transfer on a port
        is: counts that are scanned, products, lanes and padding that are walked over.
    error : Out(1)
        The feeder found the list of tiles wrong and stopped; stays until reset, as does
    wrong_counts : Out(1)
        A count is larger than the number of chunks.
    counters : Out
        See :mod:`csp_hw.counters`; of the pass.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self.config = config
        self.hierarchical = hierarchical
        beats = stream.Signature(results_layout(config))
        super().__init__(
            {
                "descriptor": In(descriptor_layout()),
                "start": In(1),
                **{name: In(beats) for name in READS},
                "results": Out(beats),
                "busy": Out(1),
                "left": Out(1),
                "moves": Out(1),
                "error": Out(1),
                "wrong_counts": Out(1),
                "counters": Out(counters_layout()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, descriptor = self.config, self.descriptor
        cols, lanes = config.cols, config.lookahead
        # What has loads all over the datapath leaves from registers; the kind is known long before.
        convolve, begin, start = Signal(), Signal(), Signal()
        m.d.sync += [
            convolve.eq(descriptor.kind == Kind.CONVOLVE),
            begin.eq(self.start),
            start.eq(self.start & convolve),
        ]
        for_engine, for_feeder, for_pooler = own_resets(m, "part", PARTS)
        inside = None if self.hierarchical else Engine(config)
        engine = part(m, "engine", EngineSignature(config), ENGINE_MODULE, inside, for_engine)
        feeder = Feeder(config, hierarchical=self.hierarchical)
        pooler = Pooler(config, hierarchical=self.hierarchical)
        m.submodules.feeder = for_feeder(feeder)
        m.submodules.pooler = for_pooler(pooler)
        regroup = WidthConverter if cols >= PARAM_BYTES else WidthGather
        m.submodules.params = params = regroup(8 * cols, 8 * PARAM_BYTES)
        entries = WidthConverter(8 * cols, 8 * ENTRY_BYTES)
        # The last beat of the list may be padded.
        m.submodules.entries = ResetInserter(begin)(entries)
        m.submodules.counts = counts = WidthConverter(8 * cols, 8 * lanes)
        m.submodules.count_store = count_store = ReplayStore(
            counts_layout(config), config.count_words
        )
        m.submodules.weight_store = weight_store = ReplayStore(
            weights_layout(config), config.weight_words
        )

        # What each block is told of the pass. Fields of one name mean the same.
        for told, prefix in ((feeder.feed, ""), (engine.layer.payload, ""), (pooler.pool, "pool_")):
            for name in told.shape().members:
                if prefix + name in FIELDS:
                    m.d.comb += told[name].eq(descriptor[prefix + name])
        m.d.comb += [
            engine.layer.payload.residual.enabled.eq(descriptor.residual),
            engine.layer.payload.residual.signed.eq(descriptor.residual_signed),
            engine.layer.payload.residual.mult.eq(descriptor.residual_mult),
            engine.layer.payload.residual.shift.eq(descriptor.residual_shift),
            feeder.tile_count.eq(descriptor.tiles),
            feeder.chunks.eq(descriptor.chunks),
            feeder.period.eq(descriptor.period),
            pooler.pool.kind.eq(descriptor.pool),
            pooler.pool.images.eq(descriptor.images),
            *(mult.eq(descriptor[f"pool_mult_{n}"]) for n, mult in enumerate(pooler.pool.mults)),
        ]

        # The engine takes its command when nothing is left of the pass before.
        pending = Signal()
        m.d.comb += engine.layer.valid.eq(pending)
        with m.If(start):
            m.d.sync += pending.eq(1)
        with m.Elif(engine.layer.ready):
            m.d.sync += pending.eq(0)
        m.d.comb += [feeder.start.eq(start), pooler.start.eq(begin)]

        # Counts and weights: kept, or read again for each tile.
        word_bits = (cols // lanes).bit_length() - 1
        for store, words, resident in (
            (count_store, descriptor.count_beats << word_bits, descriptor.counts_resident),
            (weight_store, descriptor.weight_words, descriptor.weights_resident),
        ):
            m.d.comb += [
                store.start.eq(start),
                store.words.eq(words),
                store.replays.eq(descriptor.tiles),
                store.resident.eq(resident),
            ]

        # Where a word's `ready` comes from far away it is cut by a register.
        m.submodules.positions = positions = RegisterSlice(position_layout(config))
        m.submodules.inputs = inputs = RegisterSlice(results_layout(config))
        m.submodules.values = values = RegisterSlice(results_layout(config))

        # Streams in. What differs is the view of the bits, not the bits.
        for source, sink in (
            (wiring.flipped(self.params), params.i),
            (params.o, engine.params),
            (wiring.flipped(self.entries), entries.i),
            (entries.o, feeder.entries),
            (wiring.flipped(self.counts), counts.i),
            (counts.o, count_store.i),
            (count_store.o, engine.counts),
            (wiring.flipped(self.weights), weight_store.i),
            (weight_store.o, engine.weights),
            (wiring.flipped(self.residual), engine.residual),
            (engine.positions, positions.i),
            (positions.o, feeder.positions),
            (feeder.tiles, engine.tiles),
            (feeder.activations, engine.activations),
            (inputs.o, feeder.i),
            (values.o, pooler.i),
            (pooler.o, wiring.flipped(self.results)),
        ):
            m.d.comb += join(source, sink)

        # A map goes to the feeder; one that is only pooled, and results, go to the pooler.
        m.d.comb += [
            inputs.i.payload.eq(self.inputs.payload),
            inputs.i.valid.eq(self.inputs.valid & convolve),
        ]
        with m.If(convolve):
            m.d.comb += [self.inputs.ready.eq(inputs.i.ready), *join(engine.results, values.i)]
        with m.Else():
            m.d.comb += [
                self.inputs.ready.eq(values.i.ready),
                values.i.payload.eq(self.inputs.payload),
                values.i.valid.eq(self.inputs.valid),
            ]

        # Sums of a chunk that the layer does not have would overwrite those of another one.
        with m.If(
            count_store.o.valid
            & Cat(count > descriptor.chunks for count in count_store.o.payload).any()
        ):
            m.d.sync += self.wrong_counts.eq(1)

        issued = Signal()
        ports = (engine.counts, engine.weights, engine.activations, engine.results)
        moved = Cat(port.valid & port.ready for port in ports).any()
        m.d.sync += [
            issued.eq(engine.counters.issued[0]),
            self.moves.eq(
                moved | (issued != engine.counters.issued[0]) | feeder.moves | pooler.moves
            ),
        ]
        m.d.sync += self.left.eq(
            engine.kept | count_store.busy | weight_store.busy | inputs.o.valid | values.o.valid
        )
        m.d.comb += [
            self.busy.eq(pending | ~engine.idle | feeder.busy | pooler.busy),
            self.error.eq(feeder.error),
            self.counters.eq(engine.counters),
        ]
        return m
