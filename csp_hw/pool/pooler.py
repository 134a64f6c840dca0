# SPDX-License-Identifier: Apache-2.0
"""Max and average pooling of result words, as they stream by."""

import itertools

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.buffer import ResultBuffer
from csp_hw.config import ACTIVATION_BITS, MULT_BITS, CspConfig
from csp_hw.pool import reduce
from csp_hw.pool.column import COLUMN_LATENCY, PoolColumn, PoolColumnSignature
from csp_hw.pool.lane import ReducerLane
from csp_hw.pool.reduce import Reducer
from csp_hw.pool.walk import Walker
from csp_hw.ports import POOL_COVER, PoolKind, pool_layout, results_layout
from csp_hw.requantise import factor, factor_layout
from csp_hw.util import delayed, part

#: Verilog modules of a column and of its lanes, instantiated cols times.
COLUMN_MODULE = "csp_pool_column"
LANE_X_MODULE, LANE_Y_MODULE = "csp_pool_lane_x", "csp_pool_lane_y"
#: Windows have up to 63 × 63 values of at most 255 in magnitude: 14 bits and a sign for those of a
#: line, 20 bits and a sign for all. Overlapping windows have up to three values along that axis:
#: a value has 8 bits and a sign, the sum of up to four of a line 10 bits and a sign.
LINE_BITS, SUM_BITS = 15, 21
KEPT_LINE_BITS = 11
#: Bits of the lanes along x, where values are activations, and along y.
LANE_X = {"value_bits": ACTIVATION_BITS, "sum_bits": LINE_BITS, "kept_bits": ACTIVATION_BITS}
LANE_X["inverts"] = True
LANE_Y = {"value_bits": LINE_BITS, "sum_bits": SUM_BITS, "kept_bits": KEPT_LINE_BITS}
#: Words that may be inside at once, two rows of LUT RAM on an ECP5: enough for the latency.
CREDITS = 32
#: Words that may have begun since the places were counted.
MARGIN = 4
#: Cycles from a step to the reduced line, to the reduced window, and to the result.
REDUCED_X = reduce.LATENCY
REDUCED = REDUCED_X - reduce.VALUE_DELAY + reduce.LATENCY
RESULT = REDUCED + COLUMN_LATENCY
#: Cycles from the acceptance of a window's last word to its result's first cycle on offer.
LATENCY = 1 + RESULT + 2


def parts() -> dict[str, wiring.Component]:
    """Give the Verilog modules that a hierarchical pooler instantiates, by name."""
    return {
        LANE_X_MODULE: ReducerLane(**LANE_X),
        LANE_Y_MODULE: ReducerLane(**LANE_Y),
        COLUMN_MODULE: PoolColumn(SUM_BITS),
    }


class Pooler(wiring.Component):
    """Pool maps whose words come in the order image, y, x, word; results leave in the same order.

    A map is reduced first along x, where what is kept of a window are values of each word of a
    pixel, then along y, where they are values of each word of a line of windows.

    - MAX: the largest value; padding never wins.
    - AVERAGE: rhu(Σ · pmult, pshift), saturated to the type; pmult depends on how many lines
      and columns of the window lie inside the map.
    - NONE: words pass as they are, and what else ``pool`` says does not matter.

    Throughput: one word a cycle; words of the padding take as long as those of the map. Latency
    from the cycle in which a window's last word transfers on ``i`` to the first one with
    ``o.valid``: ``LATENCY`` cycles. Limits: see :func:`csp_hw.ports.pool_layout`.

    Parameters
    ----------
    config : CspConfig
        ``pool_words`` words of ``cols`` values are kept along each axis.
    hierarchical : bool
        Instantiate columns and lanes as the Verilog modules that :func:`parts` gives.

    Ports
    -----
    start
        A layer begins: as many words as ``pool`` says are taken. Only while ``busy`` is low.
        Without effect for NONE, where words are always taken.
    pool
        Stable from ``start`` on until ``busy`` is low; for NONE while it is at work.
    i, o
        Words of the map and of the pooled map.
    busy
        Not all words of the map were taken, or not all results have left.
    moves
        A word of the map or of the padding went through in the cycle before.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self.config = config
        self.hierarchical = hierarchical
        super().__init__(
            {
                "start": In(1),
                "pool": In(pool_layout(config)),
                "i": In(stream.Signature(results_layout(config))),
                "o": Out(stream.Signature(results_layout(config))),
                "busy": Out(1),
                "moves": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, pool = self.config, self.pool
        lanes, entries = config.cols, config.pool_words
        m.submodules.walker = walker = Walker(config)
        module_x, module_y = (LANE_X_MODULE, LANE_Y_MODULE) if self.hierarchical else (None, None)
        m.submodules.along_x = along_x = Reducer(
            lanes=lanes, entries=entries, **LANE_X, module=module_x
        )
        m.submodules.along_y = along_y = Reducer(
            lanes=lanes, entries=entries, **LANE_Y, module=module_y
        )
        m.submodules.buffer = buffer = ResultBuffer(results_layout(config), CREDITS)

        # Maxima are those of unsigned bytes: int8 is shifted by 128 for them, so that 0 is the
        # smallest value, the padding's, as it adds nothing to a sum. Reducers take them inverted.
        none, average, shifted = Signal(), Signal(), Signal()
        m.d.sync += [
            none.eq(pool.kind == PoolKind.NONE),
            average.eq(pool.kind == PoolKind.AVERAGE),
            shifted.eq(pool.signed & (pool.kind != PoolKind.AVERAGE)),
        ]

        # Words that leave have a place in the buffer before they begin.
        free = Signal(range(CREDITS + 1), init=CREDITS)
        room = Signal()
        leaves = Signal()
        step = walker.step
        m.d.comb += [
            leaves.eq(step.valid & step.x_ends & step.y_ends),
            self.busy.eq(walker.busy | step.valid | (free != CREDITS)),
            self.moves.eq(step.valid),
        ]
        m.d.sync += [
            free.eq(free - leaves + (self.o.valid & self.o.ready)),
            room.eq(free >= MARGIN),
        ]

        wiring.connect(m, wiring.flipped(self.i), walker.i)
        wiring.connect(m, buffer.o, wiring.flipped(self.o))
        m.d.comb += [walker.start.eq(self.start), walker.pool.eq(pool), walker.room.eq(room)]

        # Along x.
        values = Signal(data.ArrayLayout(signed(ACTIVATION_BITS), lanes), reset_less=True)
        for lane in range(lanes):
            byte = step.bytes[lane]
            with m.If(~step.inside):
                m.d.sync += values[lane].eq(Mux(average, 0, -1))
            with m.Elif(average):
                m.d.sync += values[lane].eq(Mux(pool.signed, byte.as_signed(), byte))
            with m.Else():
                m.d.sync += values[lane].eq(~Cat(byte ^ (shifted << 7), 0))
        m.d.comb += [
            along_x.values.eq(
                delayed(m, Cat(values), reduce.VALUE_DELAY - 1, "values_x", reset_less=True)
            ),
            along_x.valid.eq(step.valid),
            along_x.begins.eq(step.x_begins),
            along_x.entry.eq(step.x_entry),
        ]

        # Along y, a step for each window of a line.
        ahead = REDUCED_X - reduce.VALUE_DELAY
        m.d.comb += [
            along_y.values.eq(Cat(along_x.results)),
            along_y.valid.eq(delayed(m, step.valid & step.x_ends, ahead, "valid_y")),
            along_y.begins.eq(delayed(m, step.y_begins, ahead, "begins_y", reset_less=True)),
            along_y.entry.eq(delayed(m, step.y_entry, ahead, "entry_y", reset_less=True)),
        ]
        for reducer, kernel, stride in (
            (along_x, pool.kernel_w, pool.stride_w),
            (along_y, pool.kernel_h, pool.stride_h),
        ):
            m.d.comb += reducer.maximum.eq(~average)
            m.d.sync += [
                reducer.overlaps.eq((kernel > stride) & (pool.kind != PoolKind.NONE)),
                reducer.three.eq(kernel == 3),
            ]

        # Requantise; a maximum is multiplied by 1.
        cover = delayed(m, Cat(step.x_cover, step.y_cover), REDUCED - 1, "cover", reset_less=True)
        mult = Signal(MULT_BITS, reset_less=True)
        shift = Signal.like(pool.shift, reset_less=True)
        m.d.sync += shift.eq(Mux(average, pool.shift, 0))
        with m.Switch(cover):
            for y, x in itertools.product(range(POOL_COVER), repeat=2):
                with m.Case(y << len(step.x_cover) | x):
                    m.d.sync += mult.eq(pool.mults[y * POOL_COVER + x])
        with m.If(~average):
            m.d.sync += mult.eq(1)
        scaled = Signal(factor_layout(), reset_less=True)
        m.d.sync += [scaled[name].eq(value) for name, value in factor(mult, shift).items()]
        signature = PoolColumnSignature(SUM_BITS)
        for lane in range(lanes):
            inside = None if self.hierarchical else PoolColumn(SUM_BITS)
            stage = part(m, f"column_{lane}", signature, COLUMN_MODULE, inside)
            m.d.comb += [
                stage.value.eq(along_y.results[lane]),
                stage.factor.eq(scaled),
                stage.is_signed.eq(average & pool.signed),
                stage.invert.eq(shifted),
                buffer.data[lane].eq(stage.result),
            ]
        m.d.comb += buffer.write.eq(delayed(m, leaves, RESULT, "leaves"))
        return m
