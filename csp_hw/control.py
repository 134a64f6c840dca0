# SPDX-License-Identifier: Apache-2.0
"""Control of the core: descriptor after descriptor, and what to do when one goes wrong."""

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.check import CHECKS, DescriptorCheck
from csp_hw.config import CspConfig
from csp_hw.descriptor import DESCRIPTOR_BYTES, OFFSET_BITS, descriptor_layout
from csp_hw.ports import results_layout
from csp_hw.register_map import ErrorCode

#: Descriptors of one start.
COUNT_BITS = 24
#: Cycles in which nothing moves although everything was sent, before a stream counts as too short.
SHORT_CYCLES = 4096
TIMEOUT_BITS = 32


class Control(wiring.Component):
    """Fetch, check and run one descriptor after the other.

    After an error the ports first bring to an end what is on the bus (``stop`` until ``quiet``),
    then everything but the registers is reset (``flush``), so that the next start finds a clean
    core. Abort goes the same way.

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
    busy : Out(1)
    finished, done, failed : Out(1)
        High for a cycle: a descriptor is done; all are; one failed.
    code, detail, layer : Out
        Of the failure, kept until the next start. ``layer`` is the number of the descriptor at
        work, or of the one that failed.
    fetch : Out(stream)
        Offset of a descriptor to be read.
    i : In(stream)
        Its beats.
    descriptor : Out
        The pass at work.
    launch : Out(1)
        Begin it.
    working : In(1)
        It is not done: the datapath or a port is at work.
    left : In(1)
        A word stands on a stream that a finished pass should have emptied.
    fed : In(1)
        All that the pass reads was sent to the datapath.
    progress : In(1)
        Something moved in this cycle.
    wrong_tiles : In(1)
        From the feeder.
    range_error, bus_error : In(1)
        From the ports.
    stop : Out(1)
        Start nothing new on the bus.
    quiet : In(1)
        Nothing is on the bus.
    flush : Out(1)
        Reset the datapath and the ports.
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
                "busy": Out(1),
                "finished": Out(1),
                "done": Out(1),
                "failed": Out(1),
                "code": Out(ErrorCode),
                "detail": Out(range(len(CHECKS))),
                "layer": Out(COUNT_BITS),
                "fetch": Out(stream.Signature(unsigned(OFFSET_BITS))),
                "i": In(stream.Signature(results_layout(config))),
                "descriptor": Out(descriptor_layout()),
                "launch": Out(1),
                "working": In(1),
                "left": In(1),
                "fed": In(1),
                "progress": In(1),
                "wrong_tiles": In(1),
                "range_error": In(1),
                "bus_error": In(1),
                "stop": Out(1),
                "quiet": In(1),
                "flush": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.check = check = DescriptorCheck(self.config)
        beats = DESCRIPTOR_BYTES // self.config.cols
        width = 8 * self.config.cols
        raw = Signal(8 * DESCRIPTOR_BYTES)
        beat = Signal(range(beats + 1))
        wait = Signal(2)
        quiet_cycles = Signal(TIMEOUT_BITS)
        failure = Signal(ErrorCode)
        m.d.comb += [
            self.descriptor.eq(raw),
            check.descriptor.eq(self.descriptor),
        ]

        # What may go wrong at any time while a descriptor is fetched or at work; the first counts.
        lost = Signal()
        aborting = Signal()
        m.d.sync += aborting.eq((aborting | self.abort) & self.busy)
        with m.If(self.progress):
            m.d.sync += quiet_cycles.eq(0)
        with m.Else():
            m.d.sync += quiet_cycles.eq(quiet_cycles + 1)
        m.d.comb += lost.eq((self.timeout != 0) & (quiet_cycles >= self.timeout))
        for condition, code in reversed(
            (
                (aborting, ErrorCode.ABORTED),
                (self.bus_error, ErrorCode.BUS),
                (self.range_error, ErrorCode.RANGE),
                (self.wrong_tiles, ErrorCode.TILES),
                (lost, ErrorCode.TIMEOUT),
            )
        ):
            with m.If(condition):
                m.d.comb += failure.eq(code)

        def fail(code):
            m.d.sync += [self.code.eq(code), self.detail.eq(0)]
            m.next = "stop"

        with m.FSM() as fsm:
            with m.State("idle"), m.If(self.start):
                m.d.sync += [
                    self.code.eq(ErrorCode.NONE),
                    self.detail.eq(0),
                    self.layer.eq(0),
                    self.fetch.payload.eq(self.descriptors),
                ]
                m.next = "next"
            with m.State("next"):
                m.d.sync += [beat.eq(0), wait.eq(0), quiet_cycles.eq(0)]
                with m.If(self.layer == self.count):
                    m.d.comb += self.done.eq(1)
                    m.next = "idle"
                with m.Else():
                    m.next = "ask"
            with m.State("ask"):
                m.d.comb += self.fetch.valid.eq(1)
                with m.If(self.fetch.ready):
                    m.next = "read"
            with m.State("read"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [
                        raw.eq(Cat(raw[width:], self.i.payload.as_value())),
                        beat.eq(beat + 1),
                    ]
                    with m.If(beat == beats - 1):
                        m.next = "check"
                with m.If(failure != ErrorCode.NONE):
                    fail(failure)
            with m.State("check"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == 3):
                    m.d.comb += self.launch.eq(~check.wrong)
                    m.d.sync += quiet_cycles.eq(0)
                    m.next = "settle"
                    with m.If(check.wrong):
                        fail(ErrorCode.DESCRIPTOR)
                        m.d.sync += self.detail.eq(check.number)
            with m.State("settle"):  # `working` follows `launch`
                m.next = "run"
            with m.State("run"):
                with m.If(~self.working):
                    m.d.comb += self.finished.eq(1)
                    m.d.sync += [
                        self.layer.eq(self.layer + 1),
                        self.fetch.payload.eq(self.fetch.payload + DESCRIPTOR_BYTES),
                    ]
                    m.next = "next"
                    with m.If(self.left):
                        m.d.comb += self.finished.eq(0)
                        m.d.sync += self.layer.eq(self.layer)
                        fail(ErrorCode.STREAM_LONG)
                with m.Elif(self.fed & (quiet_cycles >= SHORT_CYCLES)):
                    fail(ErrorCode.STREAM_SHORT)
                with m.If(failure != ErrorCode.NONE):
                    m.d.comb += self.finished.eq(0)
                    m.d.sync += self.layer.eq(self.layer)
                    fail(failure)
            with m.State("stop"):
                m.d.comb += self.stop.eq(1)
                with m.If(self.quiet):
                    m.next = "flush"
            with m.State("flush"):
                m.d.comb += [self.stop.eq(1), self.flush.eq(1), self.failed.eq(1)]
                m.next = "idle"
        m.d.comb += self.busy.eq(~fsm.ongoing("idle"))
        return m
