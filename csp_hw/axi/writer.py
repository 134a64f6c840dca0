# SPDX-License-Identifier: Apache-2.0
"""An AXI4 manager that writes a stream to memory."""

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.bursts import BurstPlanner
from csp_hw.axi.ports import (
    LENGTH_BITS,
    OFFSET_BITS,
    PAGE_BYTES,
    SIZE_BITS,
    Fault,
    LocalWriteSignature,
    burst_layout,
    is_local,
    run_layout,
)
from csp_hw.axi.queue import BEYOND, Queue
from csp_hw.axi.signature import ADDRESS_BITS, Response, WriteSignature
from csp_hw.slice import RegisterSlice
from csp_hw.util import counted

#: Bursts that are not acknowledged yet.
OUTSTANDING = 16


class WriteManager(wiring.Component):
    """Write the beats of a stream to the places that runs name, in order.

    A burst is announced only when all of its beats are here, so its data follow without gaps.
    Runs that touch become longer bursts; what is left of a run goes when its beats are here. A
    burst has at most half of ``depth`` beats, at most 256, and does not cross a page.

    ``awvalid`` rises 7 cycles after a run's transfer at the earliest, or 6 after that of the
    burst's last beat; the first beat follows 3 cycles later. One beat a cycle, sustained, if bursts
    have at least two beats and the memory takes them.

    Parameters
    ----------
    data_bytes : int
        Bytes of a beat; a power of two.
    depth : int
        Beats that wait for their burst; a power of two.
    local_bytes : int
        Bytes of a memory on the chip that has the offsets from
        :data:`csp_hw.axi.ports.LOCAL_OFFSET` on; 0: there is none.

    Members
    -------
    runs : In(stream)
        :func:`csp_hw.axi.ports.run_layout`. A run of 0 beats is nothing.
    i : In(stream)
        Beats.
    strobe : In(data_bytes)
        Bytes of each beat that are written.
    base : In(64)
        Address of the window; a multiple of 4 KiB. It is constant while there are runs, as are
        ``strobe`` and
    size : In(33)
        Bytes of the window, and
    low, high : In
        the part of it that runs may write to: bytes low … high − 1. Of a run that is not wholly
        inside both, or not aligned to beats, nothing is written: the block stops there, with a
        ``Fault.RANGE``.
    stop : In(1)
        Announce no more bursts, and write no more bytes but those of two beats that may be on
        their way to the port: what is announced is completed with strobes of 0. It stays high
        until reset.
    quiet : Out(1)
        No burst is on offer or not acknowledged: with ``stop``, it is safe to reset.
    idle : Out(1)
        Besides, all runs that were taken are written.
    left : Out(1)
        A beat is here for which no run was written yet.
    error : Out(2)
        A :class:`csp_hw.axi.ports.Fault`; stays until reset.
    axi : Out(WriteSignature)
    local : Out(LocalWriteSignature)
        If there is a memory on the chip. Nothing is announced here while something is not
        acknowledged there, nor the other way round.
    """

    def __init__(self, data_bytes: int, depth: int, *, local_bytes: int = 0):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, not {depth}")
        self.data_bytes = data_bytes
        self.depth = depth
        self.local_bytes = local_bytes
        local = LocalWriteSignature(data_bytes, local_bytes) if local_bytes else None
        super().__init__(
            {
                "runs": In(stream.Signature(run_layout())),
                "i": In(stream.Signature(unsigned(8 * data_bytes))),
                "strobe": In(data_bytes),
                "base": In(ADDRESS_BITS),
                "size": In(SIZE_BITS),
                "low": In(OFFSET_BITS),
                "high": In(SIZE_BITS),
                "stop": In(1),
                "quiet": Out(1),
                "idle": Out(1),
                "left": Out(1),
                "error": Out(Fault),
                "axi": Out(WriteSignature(data_bytes)),
                **({"local": Out(local)} if local else {}),
            }
        )

    @property
    def longest_burst(self) -> int:
        """Beats of the longest burst: while it leaves, the next one comes in."""
        return min(self.depth // 2, 1 << LENGTH_BITS, PAGE_BYTES // self.data_bytes)

    def elaborate(self, platform):
        m = Module()
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        room = self.depth + BEYOND
        m.submodules.planner = planner = BurstPlanner(
            self.data_bytes,
            self.longest_burst,
            room,
            limited=True,
            local_bytes=self.local_bytes,
        )
        m.submodules.queue = queue = Queue(unsigned(8 * self.data_bytes), self.depth, room=room)
        m.submodules.lengths = lengths = Queue(unsigned(LENGTH_BITS), OUTSTANDING)
        m.submodules.bursts = bursts = RegisterSlice(burst_layout(self.data_bytes))
        wiring.connect(m, wiring.flipped(self.runs), planner.runs)
        wiring.connect(m, planner.o, bursts.i)
        wiring.connect(m, wiring.flipped(self.i), queue.i)
        m.d.comb += [
            planner.size.eq(self.size),
            planner.low.eq(self.low),
            planner.high.eq(self.high),
        ]
        m.d.sync += planner.more.eq(queue.i.valid & queue.i.ready)

        # Addresses. Bursts on offer and not acknowledged are counted.
        announce = Signal()
        acknowledged = b.valid | self.local.done if self.local_bytes else b.valid
        outstanding, any_outstanding = counted(
            m, "outstanding", OUTSTANDING, announce, acknowledged
        )
        announced_addr = Signal(ADDRESS_BITS, reset_less=True)
        announced_length = Signal(LENGTH_BITS, reset_less=True)
        may_announce = (
            bursts.o.valid & (~aw.valid | aw.ready) & (outstanding != OUTSTANDING) & ~self.stop
        )
        if self.local_bytes:
            here = Signal()  # what is not acknowledged goes to the chip
            to_chip = is_local(bursts.o.payload.at)
            may_announce &= (here == to_chip) | ~any_outstanding
        m.d.comb += [
            aw.payload.addr.eq(announced_addr),
            aw.payload.len.eq(announced_length),
            announce.eq(may_announce),
            bursts.o.ready.eq(announce),
            lengths.i.valid.eq(announce),
            lengths.i.payload.eq(bursts.o.payload.length),
            b.ready.eq(1),
            self.quiet.eq(~any_outstanding),
            self.idle.eq(self.quiet & ~planner.busy & ~bursts.o.valid),
            self.left.eq(queue.o.valid),
        ]
        if self.local_bytes:
            asks = self.local.asks
            m.d.sync += asks.valid.eq(announce & to_chip)
            with m.If(announce):
                m.d.sync += [here.eq(to_chip), asks.payload.eq(bursts.o.payload.at)]
        with m.If(announce):
            m.d.sync += [
                aw.valid.eq(~to_chip if self.local_bytes else 1),
                announced_addr.eq(self.base + bursts.o.payload.at * self.data_bytes),
                announced_length.eq(bursts.o.payload.length),
            ]
        with m.Elif(aw.ready):
            m.d.sync += aw.valid.eq(0)

        # Data. They do not wait for their address to be taken: a memory may want both at once.
        m.submodules.sending = sending = RegisterSlice(w.payload.shape())
        if self.local_bytes:
            beats = self.local.beats
            m.d.comb += [
                w.payload.eq(sending.o.payload),
                beats.payload.eq(sending.o.payload),
                w.valid.eq(sending.o.valid & ~here),
                beats.valid.eq(sending.o.valid & here),
                sending.o.ready.eq(Mux(here, beats.ready, w.ready)),
            ]
        else:
            wiring.connect(m, sending.o, wiring.flipped(w))
        beat = sending.i.payload
        sent = Signal(LENGTH_BITS)
        send = Signal()
        m.d.comb += [
            beat.data.eq(queue.o.payload),
            beat.strb.eq(Mux(self.stop, 0, self.strobe)),
            beat.last.eq(sent == lengths.o.payload),
            sending.i.valid.eq(lengths.o.valid & queue.o.valid),
            send.eq(sending.i.valid & sending.i.ready),
            queue.o.ready.eq(send),
            lengths.o.ready.eq(send & beat.last),
        ]
        with m.If(send):
            m.d.sync += sent.eq(Mux(beat.last, 0, sent + 1))

        with m.If(self.error == Fault.NONE):
            with m.If(b.valid & (b.payload.resp != Response.OKAY)):
                m.d.sync += self.error.eq(Fault.BUS)
            with m.Elif(planner.outside):
                m.d.sync += self.error.eq(Fault.RANGE)
        return m
