# SPDX-License-Identifier: Apache-2.0
"""Performance counters of the engine."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.issue import product_layout

COUNTER_BITS = 32
#: Of products one by one: a large network has some 10^10.
MAC_BITS = 48
#: Cycles in which a layer was at work, and what each was spent on: the others add up to the first.
CYCLES = "cycles"
SPENT = (
    "issued",  # a product in every PE
    "stalled_tiles",  # no tile command
    "stalled_counts",  # no block of surviving taps ready, start-up included
    "stalled_activations",
    "stalled_weights",
    "stalled_bank",  # the accumulation buffer still holds an older tile
    "stalled_drain",  # all tiles are computed, their results are leaving
)
REST = SPENT[-1]
#: Words moved through each port.
WORDS = ("counts_words", "weights_words", "activations_words", "results_words")
SATURATIONS = "saturations"
#: Products on a live row and a real filter, and those of them whose activation is 0.
MACS = ("useful_macs", "gated_macs")
COUNTERS = (CYCLES, *SPENT, *WORDS, SATURATIONS, *MACS)


def counters_layout() -> data.StructLayout:
    """Give one number a counter, of 32 bits or, for ``MACS``, of 48; they wrap."""
    return data.StructLayout(
        {name: unsigned(MAC_BITS if name in MACS else COUNTER_BITS) for name in COUNTERS}
    )


def _sum(values):
    """Add up values in a tree."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return _sum(values[:half]) + _sum(values[half:])


class MacEvents(wiring.Component):
    """Tell how many useful products each cycle's issue makes, and how many with a zero activation.

    They come ``LATENCY`` cycles after the product, one a cycle.

    Members
    -------
    last_filters : In
        Real filters of chunk K − 1, constant during a layer; all others have ``cols``.
    product : In
        As the hazard unit gets it.
    zeros : In
        Of each row: the activation of the product of the cycle before is 0.
    useful, gated : Out
    """

    LATENCY = 4

    def __init__(self, config: CspConfig):
        self.config = config
        most = range(config.rows * config.cols + 1)
        super().__init__(
            {
                "last_filters": In(range(config.cols + 1)),
                "product": In(product_layout(config)),
                "zeros": In(config.rows),
                "useful": Out(most),
                "gated": Out(most),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows, cols = self.config.rows, self.config.cols
        product = self.product
        counted = range(rows + 1)

        # A register after each of: which rows, how many, times the filters.
        live, useful, gated = (
            Signal(rows, name=name, reset_less=True) for name in ("live", "useful", "gated")
        )
        useful_rows, gated_rows = (
            Signal(counted, name=f"{name}_rows", reset_less=True) for name in ("useful", "gated")
        )
        filters = [Signal(range(cols + 1), name=f"filters_{n}", reset_less=True) for n in range(3)]
        m.d.sync += [
            live.eq(Mux(product.valid, product.live, 0)),
            filters[0].eq(Mux(product.last_chunk, self.last_filters, cols)),
            useful.eq(live),
            gated.eq(live & self.zeros),
            filters[1].eq(filters[0]),
            useful_rows.eq(_sum([*useful])),
            gated_rows.eq(_sum([*gated])),
            filters[2].eq(filters[1]),
        ]
        # Shifts and adders: the multipliers of an FPGA are the array's.
        for total, count in ((self.useful, useful_rows), (self.gated, gated_rows)):
            parts = [Mux(bit, count, 0).shift_left(n) for n, bit in enumerate(filters[2])]
            m.d.sync += total.eq(_sum(parts))
        return m


class Counters(wiring.Component):
    """Add up events.

    Members
    -------
    clear : In(1)
    events : In
        1 a cycle for each counter that counts it; ``saturations`` and ``MACS`` may be more. They
        are counted a cycle later, as is ``clear``, since what stalls an engine is known late. What
        the drain stalls are the cycles that nothing else counts, so it is no event.
    counters : Out
    """

    def __init__(self, config: CspConfig):
        events = {name: unsigned(1) for name in COUNTERS if name != REST}
        events |= dict.fromkeys((SATURATIONS, *MACS), range(config.rows * config.cols + 1))
        super().__init__(
            {
                "clear": In(1),
                "events": In(data.StructLayout(events)),
                "counters": Out(counters_layout()),
            }
        )
        # They are cleared by one net.
        self.counts = {
            name: Signal(field.shape, name=name, reset_less=True)
            for name, field in counters_layout()
        }

    def elaborate(self, platform):
        m = Module()
        events = Signal.like(self.events, reset_less=True)
        clear = Signal(init=1)  # so a reset clears, too
        m.d.sync += [events.eq(self.events), clear.eq(self.clear)]
        spent = Cat(events[name] for name in SPENT if name != REST)
        for name, count in self.counts.items():
            event = events[CYCLES] & ~spent.any() if name == REST else events[name]
            m.d.comb += self.counters[name].eq(count)
            m.d.sync += count.eq(Mux(clear, 0, count + event))
        return m
