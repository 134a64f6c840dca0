# SPDX-License-Identifier: Apache-2.0
"""From runs of any length to the bursts that AXI4 allows."""

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from csp_hw.axi.ports import (
    LENGTH_BITS,
    LOCAL_OFFSET,
    OFFSET_BITS,
    PAGE_BYTES,
    RUN_BITS,
    SIZE_BITS,
    burst_layout,
    is_local,
    run_layout,
)


class BurstPlanner(wiring.Component):
    """Check runs against a window, join them where they touch, and cut them into bursts.

    A run that begins where the one before it ends makes one longer run of both, if it comes before
    the last burst is cut. A burst is as long as the run, the page and ``burst`` allow, and is
    cut when the beats that it needs are free: room to read into, or data to write.

    A burst is on offer five cycles after its run's transfer at the earliest, three after its last
    beat got free; then one every two cycles. A run a cycle is taken while runs touch.

    Parameters
    ----------
    data_bytes : int
        Bytes of a beat; a power of two.
    burst : int
        Longest burst in beats; a power of two, at most 256 beats and a page.
    depth : int
        Most beats that are free at any time, at least ``burst``.
    free : int
        Beats that are free after reset.
    limited : bool
        Has the ports ``low`` and ``high``.
    local_bytes : int
        Bytes of a memory on the chip: runs may also lie there, all of a run. The window must then
        end at :data:`csp_hw.axi.ports.LOCAL_OFFSET` or before.

    Members
    -------
    runs : In(stream)
    size : In(33)
        Bytes of the window in which every run lies; constant while there are runs, as are
    low, high : In
        which, if there, say that every run lies in bytes low … high − 1.
    more : In(1)
        A further beat is free, from the next cycle on.
    o : Out(stream)
        Bursts, :func:`csp_hw.axi.ports.burst_layout`.
    outside : Out(1)
        A run is outside or not aligned to beats; neither it nor what follows is taken any further.
    busy : Out(1)
        A run was taken and not all of its bursts have left.
    """

    def __init__(
        self,
        data_bytes: int,
        burst: int,
        depth: int,
        *,
        free: int = 0,
        limited: bool = False,
        local_bytes: int = 0,
    ):
        most = min(1 << LENGTH_BITS, PAGE_BYTES // data_bytes, depth)
        if not 1 <= burst <= most or burst & (burst - 1):
            raise ValueError(f"burst must be a power of two up to {most}, not {burst}")
        self.data_bytes = data_bytes
        self.burst = burst
        self.depth = depth
        self.free = free
        self.limited = limited
        self.local_bytes = local_bytes
        limits = {"low": In(OFFSET_BITS), "high": In(SIZE_BITS)} if limited else {}
        super().__init__(
            {
                "runs": In(stream.Signature(run_layout())),
                "size": In(SIZE_BITS),
                **limits,
                "more": In(1),
                "o": Out(stream.Signature(burst_layout(data_bytes))),
                "outside": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        shift = exact_log2(self.data_bytes)
        at_bits = OFFSET_BITS - shift
        take = Signal()

        # Two steps, each with an adder or comparators of 33 bits: where a run ends; whether
        # that is in the window, and whether the run joins the one before.
        ended = Signal(
            data.StructLayout(
                {
                    "at": unsigned(at_bits),
                    "beats": unsigned(RUN_BITS),
                    "end": unsigned(at_bits + 1),
                    "crooked": unsigned(1),
                }
            ),
            reset_less=True,
        )
        checked = Signal(
            data.StructLayout(
                {"at": unsigned(at_bits), "beats": unsigned(RUN_BITS), "joins": unsigned(1)}
            ),
            reset_less=True,
        )
        is_ended, is_checked = Signal(), Signal()
        to_checked = Signal()
        run = self.runs.payload
        at = run.offset[shift:]
        m.d.comb += [
            to_checked.eq(~self.outside & (~is_checked | take)),
            self.runs.ready.eq(~is_ended | to_checked),
        ]
        with m.If(self.runs.ready):
            m.d.sync += [
                # A run of 0 beats goes no further.
                is_ended.eq(self.runs.valid & run.beats.any()),
                ended.at.eq(at),
                ended.beats.eq(run.beats),
                ended.end.eq(at + run.beats),
                ended.crooked.eq(run.offset[:shift].any()),
            ]
        # Where the newest run ended. The first run joins at 0 if it begins there: so it should.
        latest = Signal(at_bits + 1)
        begin, end = (Cat(Const(0, shift), place) for place in (ended.at, ended.end))
        bad = Signal()
        beyond = end > self.size
        if self.local_bytes:
            beyond = Mux(is_local(ended.at), end > LOCAL_OFFSET + self.local_bytes, beyond)
        m.d.comb += bad.eq(ended.crooked | beyond)
        if self.limited:
            with m.If((begin < self.low) | (end > self.high)):
                m.d.comb += bad.eq(1)
        with m.If(to_checked):
            m.d.sync += [
                is_checked.eq(is_ended & ~bad),
                self.outside.eq(is_ended & bad),
                checked.at.eq(ended.at),
                checked.beats.eq(ended.beats),
                checked.joins.eq(ended.at == latest),
            ]
            with m.If(is_ended):
                m.d.sync += latest.eq(ended.end)

        # What is left of the joined run. It takes no more runs once it has 2^24 beats.
        first = Signal(at_bits)
        left = Signal(RUN_BITS + 1)
        is_left = Signal()
        cut = Signal()
        joining = Signal()
        opening = Signal()

        # The burst that could be cut, in registers and so a cycle late. Until it is cut, more beats
        # may get free, which does no harm, and a run may join, which may make it longer. Limits are
        # powers of two, so that only few bits are compared.
        bits = exact_log2(self.burst)
        page_bits = exact_log2(PAGE_BYTES) - shift
        many = left[bits + 1 :].any() | (left[bits] & left[:bits].any())  # more than a burst
        few = left[: bits + 1]
        near = first[bits:page_bits].all()  # the page's end is less than a burst away, or just that
        past = first[:bits]  # then it is burst - past beats away
        fits = Signal()
        enough = Signal()
        free = Signal(range(self.depth + 1), init=self.free)
        is_planned = Signal()
        planned_beats = Signal(bits + 1, reset_less=True)
        planned_fits = Signal(reset_less=True)
        burst = Signal(burst_layout(self.data_bytes), reset_less=True)
        m.d.comb += [
            self.o.payload.eq(burst),
            fits.eq(~many & (~near | (few + past <= self.burst))),
            enough.eq(Mux(near, free + past >= self.burst, free >= self.burst)),
        ]
        with m.If(fits):
            m.d.comb += enough.eq(free >= few)
        m.d.sync += [
            is_planned.eq(is_left & ~cut & ~(fits & joining) & enough),
            planned_beats.eq(Mux(fits, few, Mux(near, self.burst - past, self.burst))),
            planned_fits.eq(fits),
        ]

        closing = cut & planned_fits  # nothing is left
        m.d.comb += [
            joining.eq(is_checked & checked.joins & ~left[-1]),
            cut.eq(is_planned & (~self.o.valid | self.o.ready) & ~(planned_fits & joining)),
            opening.eq(is_checked & ~checked.joins & (~is_left | closing)),
            take.eq(joining | opening),
            self.busy.eq(is_ended | is_checked | is_left | self.o.valid),
        ]
        with m.If(take):
            m.d.sync += is_left.eq(1)
        with m.Elif(closing):
            m.d.sync += is_left.eq(0)
        # Sums first, choices last: whether to cut is known late.
        m.d.sync += [
            free.eq(Mux(cut, free - planned_beats + self.more, free + self.more)),
            left.eq(
                Mux(
                    cut,
                    Mux(joining, left - planned_beats + checked.beats, left - planned_beats),
                    Mux(joining, left + checked.beats, left),
                )
            ),
        ]
        with m.If(cut):
            m.d.sync += first.eq(first + planned_beats)
        with m.If(opening):
            m.d.sync += [first.eq(checked.at), left.eq(checked.beats)]
        with m.If(cut):
            m.d.sync += [
                self.o.valid.eq(1),
                burst.at.eq(first),
                burst.length.eq(planned_beats - 1),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
