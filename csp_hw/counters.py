# SPDX-License-Identifier: Apache-2.0
"""Performance counters of the engine."""

from amaranth import Module, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig

COUNTER_BITS = 32
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
#: Words moved through each port.
WORDS = ("counts_words", "weights_words", "activations_words", "results_words")
SATURATIONS = "saturations"
COUNTERS = (CYCLES, *SPENT, *WORDS, SATURATIONS)


def counters_layout() -> data.StructLayout:
    """Give one 32-bit number a counter; they wrap."""
    return data.StructLayout({name: unsigned(COUNTER_BITS) for name in COUNTERS})


class Counters(wiring.Component):
    """Add up events.

    Members
    -------
    clear : In(1)
    events : In
        1 a cycle for each counter that counts it; ``saturations`` may be more.
    counters : Out
    """

    def __init__(self, config: CspConfig):
        events = {name: unsigned(1) for name in COUNTERS}
        events[SATURATIONS] = range(config.rows * config.cols + 1)
        super().__init__(
            {
                "clear": In(1),
                "events": In(data.StructLayout(events)),
                "counters": Out(counters_layout()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for name in COUNTERS:
            with m.If(self.clear):
                m.d.sync += self.counters[name].eq(0)
            with m.Else():
                m.d.sync += self.counters[name].eq(self.counters[name] + self.events[name])
        return m
