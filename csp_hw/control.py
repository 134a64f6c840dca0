# SPDX-License-Identifier: Apache-2.0
"""Control of the core: descriptor after descriptor, and what to do when one goes wrong."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.ports import run_layout
from csp_hw.check import CHECKS, DescriptorCheck
from csp_hw.config import CspConfig
from csp_hw.datapath import RESET_STAGES
from csp_hw.descriptor import DESCRIPTOR_BYTES, OFFSET_BITS, descriptor_layout
from csp_hw.descriptor_buffer import DescriptorBuffer
from csp_hw.ports import results_layout
from csp_hw.register_map import ErrorCode
from csp_hw.util import FLUSHED

#: Descriptors of one start.
COUNT_BITS = 24
#: Cycles, at least, after which a pass in which nothing moves, on the bus neither, never goes on.
DEAD_CYCLES = 4096
#: Cycles that the ports have to come to an end after an error before it is told nevertheless.
STOP_CYCLES = 1 << 14
#: Cycles until what was on its way inside the core stands where it is seen.
SETTLE_CYCLES = 6
#: Cycles from a descriptor's last beat until its check has an answer.
CHECK_CYCLES = 6
#: Cycles from ``launch`` until ``working`` and ``writing`` have risen.
LAUNCH_CYCLES = 3
#: Cycles until a port has heard ``stop`` and what it began before that shows in ``quiet``.
STOP_REACHES = 3
#: Cycles from ``flush`` until all that it resets has left its reset.
LEAVE_CYCLES = FLUSHED + RESET_STAGES + 2
TIMEOUT_BITS = 32


def dead_cycles(config: CspConfig) -> int:
    """Give the cycles after which a pass in which nothing moves never goes on.

    Draining two tiles without a live lane takes 2 · rows · depth, and shows nowhere.
    """
    return max(DEAD_CYCLES, 4 * config.rows * config.depth)


class Control(wiring.Component):
    """Fetch, check and run one descriptor after the other.

    After an error the ports first bring to an end what is on the bus (``stop`` until ``quiet``),
    then everything but the registers is reset (``flush``), so that the next start finds a clean
    core. Abort goes the same way. If a port is still owed answers after ``STOP_CYCLES``, the error
    is told, but ``busy`` stays high until they have come.

    A pass is over when all its results are written and the datapath is at rest; what is left then
    is too much (``STREAM_LONG``). If nothing moves for :func:`dead_cycles` and no port waits for
    somebody outside, nothing ever will: words are missing (``STREAM_SHORT``) or, if all results are
    written, nobody wants those that wait.

    Members
    -------
    start, abort : In(1)
        From the registers.
    descriptors : In(32)
        Offset of the first descriptor.
    count : In(24)
        How many; 0 is done at once.
    timeout : In(32)
        Cycles without any progress after which a pass is given up; 0: never.
    begin : Out(1)
        A start is heeded: ``start`` while not ``busy``.
    busy : Out(1)
    finished, done, failed : Out(1)
        High for a cycle: a descriptor is done; all are; one failed.
    code, detail, layer : Out
        Of the failure, kept until the next start. ``layer`` is the number of the descriptor at
        work, or of the one that failed.
    fetch : Out(stream)
        The run of a descriptor to be read; ``last`` with the last one of the start.
    i : In(stream)
        Its beats.
    descriptor : Out
        The pass at work.
    launch : Out(1)
        Begin it.
    working, writing : In(1)
        It is not done: the datapath is at work, or not all results are written. Both rise at most
        ``LAUNCH_CYCLES`` + 1 cycles after ``launch``.
    left : In(1)
        Something is there that a finished pass should have used up. It may be seen
        ``SETTLE_CYCLES`` after the pass has finished.
    progress : In(1)
        Something moved.
    wrong_tiles, wrong_counts : In(1)
        From the datapath.
    range_error, bus_error, short, long : In(1)
        From the ports. Each stays until ``flush``.
    waiting : In(1)
        A port waits for somebody outside.
    stop : Out(1)
        Start nothing new outside.
    quiet : In(1)
        Nothing is under way outside.
    flush : Out(1)
        Reset the datapath and the ports; for a cycle.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "abort": In(1),
                "descriptors": In(OFFSET_BITS),
                "count": In(COUNT_BITS),
                "timeout": In(TIMEOUT_BITS),
                "begin": Out(1),
                "busy": Out(1),
                "finished": Out(1),
                "done": Out(1),
                "failed": Out(1),
                "code": Out(ErrorCode),
                "detail": Out(range(len(CHECKS))),
                "layer": Out(COUNT_BITS),
                "fetch": Out(stream.Signature(run_layout())),
                "i": In(stream.Signature(results_layout(config))),
                "descriptor": Out(descriptor_layout()),
                "launch": Out(1),
                "working": In(1),
                "writing": In(1),
                "left": In(1),
                "progress": In(1),
                "wrong_tiles": In(1),
                "wrong_counts": In(1),
                "range_error": In(1),
                "bus_error": In(1),
                "short": In(1),
                "long": In(1),
                "waiting": In(1),
                "stop": Out(1),
                "quiet": In(1),
                "flush": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.check = check = DescriptorCheck(self.config)
        m.submodules.buffer = buffer = DescriptorBuffer(self.config)
        place = Signal(OFFSET_BITS)
        wait = Signal(range(max(SETTLE_CYCLES, CHECK_CYCLES, LEAVE_CYCLES)))
        idle_cycles = Signal(TIMEOUT_BITS)
        told = Signal()
        asking = Signal()
        failing, failure = Signal(), Signal(ErrorCode, reset_less=True)
        m.d.comb += [
            self.descriptor.eq(buffer.descriptor),
            check.descriptor.eq(buffer.descriptor),
            check.reserved.eq(buffer.reserved),
            buffer.beat.eq(self.i.payload.as_value()),
            buffer.write.eq(self.i.valid & self.i.ready),
            self.fetch.valid.eq(asking),
            self.fetch.payload.offset.eq(place),
            self.fetch.payload.beats.eq(DESCRIPTOR_BYTES // self.config.cols),
        ]
        m.d.sync += self.fetch.payload.last.eq(self.layer + 1 == self.count)
        with m.If(self.fetch.ready):
            m.d.sync += asking.eq(0)

        # What may go wrong at any time while a descriptor is fetched or at work; the first counts.
        # It comes from far away, so it counts two cycles later.
        lost = Signal()
        dead = Signal()
        long_idle = Signal()
        moving, moved, wrote = Signal(), Signal(), Signal()
        aborting = Signal()
        m.d.sync += [
            aborting.eq((aborting | self.abort) & self.busy),
            moved.eq(moving),
            idle_cycles.eq(idle_cycles + 1),
            lost.eq(~moving & ~moved & (self.timeout != 0) & (idle_cycles >= self.timeout)),
            long_idle.eq(~moving & ~moved & (idle_cycles >= dead_cycles(self.config))),
            # A port is quiet from the cycle on in which its last answer counts as progress.
            dead.eq(~self.waiting & ~self.progress & long_idle),
            failing.eq(0),
        ]
        with m.If(moved):
            m.d.sync += idle_cycles.eq(0)
        m.d.sync += wrote.eq(buffer.write)
        m.d.comb += moving.eq(self.progress | wrote)
        conditions = {
            ErrorCode.ABORTED: aborting,
            ErrorCode.BUS: self.bus_error,
            ErrorCode.RANGE: self.range_error,
            ErrorCode.STREAM_SHORT: self.short,
            ErrorCode.STREAM_LONG: self.long,
            ErrorCode.TILES: self.wrong_tiles,
            ErrorCode.COUNTS: self.wrong_counts,
            ErrorCode.TIMEOUT: lost,
        }
        seen = Signal(len(conditions))
        m.d.sync += seen.eq(Cat(conditions.values()))
        for code, condition in reversed([*zip(conditions, seen, strict=True)]):
            with m.If(condition):
                m.d.sync += [failing.eq(1), failure.eq(code)]

        def fail(code):
            m.d.sync += [self.code.eq(code), self.detail.eq(0), told.eq(0), wait.eq(0)]
            m.next = "stop"

        with m.FSM() as fsm:
            with m.State("idle"), m.If(self.start):
                m.d.comb += self.begin.eq(1)
                m.d.sync += [
                    self.code.eq(ErrorCode.NONE),
                    self.detail.eq(0),
                    self.layer.eq(0),
                    place.eq(self.descriptors),
                ]
                m.next = "next"
            with m.State("next"):
                m.d.comb += buffer.clear.eq(1)
                m.d.sync += [wait.eq(0), idle_cycles.eq(0)]
                with m.If(self.layer == self.count):
                    m.d.comb += self.done.eq(1)
                    m.next = "idle"
                with m.Else():
                    m.d.sync += asking.eq(1)
                    m.next = "read"
            with m.State("read"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid & buffer.last):
                    m.next = "check"
                with m.If(failing):
                    fail(failure)
            with m.State("check"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == CHECK_CYCLES - 1):
                    m.d.comb += self.launch.eq(~check.wrong)
                    m.d.sync += [wait.eq(0), idle_cycles.eq(0)]
                    m.next = "settle"
                    with m.If(check.wrong):
                        fail(ErrorCode.DESCRIPTOR)
                        m.d.sync += self.detail.eq(check.number)
                with m.If(failing):  # of the last beat
                    fail(failure)
            with m.State("settle"):  # `working` follows `launch`
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == LAUNCH_CYCLES - 1):
                    m.d.sync += wait.eq(0)
                    m.next = "run"
            with m.State("run"):
                with m.If(~self.working & ~self.writing):
                    m.next = "end"
                with m.Elif(dead):
                    fail(Mux(self.writing, ErrorCode.STREAM_SHORT, ErrorCode.STREAM_LONG))
                with m.If(failing):
                    fail(failure)
            with m.State("end"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(failing):
                    fail(failure)
                with m.Elif(wait == SETTLE_CYCLES - 1):
                    with m.If(self.left):
                        fail(ErrorCode.STREAM_LONG)
                    with m.Else():
                        m.d.comb += self.finished.eq(1)
                        m.d.sync += [
                            self.layer.eq(self.layer + 1),
                            place.eq(place + DESCRIPTOR_BYTES),
                        ]
                        m.next = "next"
            with m.State("stop"):
                m.d.comb += self.stop.eq(1)
                m.d.sync += asking.eq(0)
                m.d.sync += idle_cycles.eq(idle_cycles + 1)
                with m.If(wait == 0):
                    m.d.sync += idle_cycles.eq(0)
                with m.If(wait != STOP_REACHES):
                    m.d.sync += wait.eq(wait + 1)
                with m.Elif(self.quiet):
                    m.d.sync += wait.eq(0)
                    m.next = "flush"
                with m.Elif((idle_cycles >= STOP_CYCLES) & ~told):
                    m.d.comb += self.failed.eq(1)
                    m.d.sync += told.eq(1)
            with m.State("flush"):
                m.d.comb += [self.stop.eq(1), self.flush.eq(wait == 0)]
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == LEAVE_CYCLES - 1):
                    m.d.comb += self.failed.eq(~told)
                    m.next = "idle"
        m.d.comb += self.busy.eq(~fsm.ongoing("idle"))
        return m
