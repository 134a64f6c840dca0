# SPDX-License-Identifier: Apache-2.0
"""An AXI4 manager that reads memory for several clients."""

from collections.abc import Sequence

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.bursts import BurstPlanner
from csp_hw.axi.ports import (
    LENGTH_BITS,
    PAGE_BYTES,
    SIZE_BITS,
    Fault,
    LocalReadSignature,
    burst_layout,
    is_local,
    run_layout,
)
from csp_hw.axi.queue import Queue
from csp_hw.axi.signature import ADDRESS_BITS, ReadSignature, Response
from csp_hw.util import counted

#: Bursts whose data are still to come.
OUTSTANDING = 16


def longest_burst(data_bytes: int, depth: int) -> int:
    """Give the longest burst of a client with a queue of ``depth`` beats.

    A quarter of the queue: room for the next burst is there when the burst before the three that
    are on their way has been taken. With halves only one would be on its way then.
    """
    return min(depth // 4, 1 << LENGTH_BITS, PAGE_BYTES // data_bytes)


class ReadManager(wiring.Component):
    """Read runs of memory into one queue a client, in the order of the client's runs.

    A burst is asked for only when the client's queue has room for all of it. So the memory's
    answers are taken at once (``rready`` is always high), and no client waits for another one's
    consumer. Clients with a burst to ask for take turns. A burst has at most a quarter of the
    client's beats (:func:`longest_burst`), at most 256, and does not cross a page.

    ``arvalid`` rises 8 cycles after a run's transfer at the earliest, and a beat is on offer 3
    cycles after it came. A burst every two cycles; a client has one beat a cycle, sustained, while
    the memory answers within 3/4 · depth − 9 cycles from ``arvalid`` to the first beat.

    Parameters
    ----------
    data_bytes : int
        Bytes of a beat; a power of two.
    depths : sequence of int
        Beats of each client's queue; powers of two, at least four.
    local_bytes : int
        Bytes of a memory on the chip that has the offsets from
        :data:`csp_hw.axi.ports.LOCAL_OFFSET` on; 0: there is none.

    Members
    -------
    runs : In(stream), one a client
        :func:`csp_hw.axi.ports.run_layout`. A run of 0 beats is nothing.
    o : Out(stream), one a client
        Beats.
    base : In(64)
        Address of the window; a multiple of 4 KiB. It is constant while there are runs, as is
    size : In(33)
        Bytes of the window. A run that is not wholly inside, or not aligned to beats, is not read:
        its client stops there, with a ``Fault.RANGE``.
    stop : In(1)
        Ask for no more bursts; what still comes has room. It stays high until reset.
    quiet : Out(1)
        No burst is on offer or outstanding: with ``stop``, it is safe to reset.
    idle : Out(1)
        Besides, all runs that were taken are read; their beats may still be on offer.
    error : Out(2)
        A :class:`csp_hw.axi.ports.Fault`; stays until reset. Data of a faulty answer are passed on.
    axi : Out(ReadSignature)
    local : Out(LocalReadSignature)
        If there is a memory on the chip. Nothing is asked for here while something is outstanding
        there, nor the other way round, so that beats come in order.
    """

    def __init__(self, data_bytes: int, depths: Sequence[int], *, local_bytes: int = 0):
        if not depths:
            raise ValueError("depths must name at least one client")
        for depth in depths:
            if depth < 4 or depth & (depth - 1):
                raise ValueError(f"depths must be powers of two from 4 on, not {depth}")
        self.data_bytes = data_bytes
        self.depths = tuple(depths)
        self.local_bytes = local_bytes
        local = LocalReadSignature(data_bytes, local_bytes) if local_bytes else None
        clients = len(depths)
        super().__init__(
            {
                "runs": In(stream.Signature(run_layout())).array(clients),
                "o": Out(stream.Signature(unsigned(8 * data_bytes))).array(clients),
                "base": In(ADDRESS_BITS),
                "size": In(SIZE_BITS),
                "stop": In(1),
                "quiet": Out(1),
                "idle": Out(1),
                "error": Out(Fault),
                "axi": Out(ReadSignature(data_bytes)),
                **({"local": Out(local)} if local else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        clients = range(len(self.depths))
        client = range(max(len(clients), 2))  # shape of a client's number
        ar, r = self.axi.ar, self.axi.r
        asked = Signal()
        comes, last = r.valid, r.payload.last
        if self.local_bytes:  # one of both only
            answers = self.local.answers
            comes = r.valid | answers.valid
            last = Mux(answers.valid, answers.payload.last, last)

        # What comes goes, a cycle later, to the client that asked first: one bit each.
        m.submodules.routes = routes = Queue(len(clients), OUTSTANDING)
        answer = Signal(r.payload.shape(), reset_less=True)
        answered = Signal()
        wanted = Signal(len(clients))
        done = Signal()
        m.d.comb += [
            r.ready.eq(1),
            routes.o.ready.eq(comes & last),
            done.eq(answered & answer.last),
        ]
        m.d.sync += [
            answered.eq(comes),
            wanted.eq(Mux(comes, routes.o.payload, 0)),
            answer.eq(r.payload),
        ]
        if self.local_bytes:
            with m.If(self.local.answers.valid):
                m.d.sync += [
                    answer.data.eq(self.local.answers.payload.data),
                    answer.last.eq(self.local.answers.payload.last),
                    answer.resp.eq(Response.OKAY),
                ]

        # A client: planner, queue.
        planners = []
        for n in clients:
            depth = self.depths[n]
            burst = longest_burst(self.data_bytes, depth)
            planner = BurstPlanner(
                self.data_bytes, burst, depth, free=depth, local_bytes=self.local_bytes
            )
            queue = Queue(unsigned(8 * self.data_bytes), depth)
            m.submodules[f"planner_{n}"], m.submodules[f"queue_{n}"] = planner, queue
            planners.append(planner)
            wiring.connect(m, wiring.flipped(self.runs[n]), planner.runs)
            wiring.connect(m, queue.o, wiring.flipped(self.o[n]))
            m.d.comb += [
                planner.size.eq(self.size),
                queue.i.valid.eq(wanted[n]),
                queue.i.payload.eq(answer.data),
            ]
            m.d.sync += planner.more.eq(queue.o.valid & queue.o.ready)

        # Turns: after a client come those behind it. A burst is chosen, then fetched: the choice
        # goes from registers to registers, since much depends on it in the planner.
        offers = Cat(planner.o.valid for planner in planners)
        turn = Signal(client)  # the client chosen last
        fetch = Signal(len(clients))
        is_burst = Signal()
        burst = Signal(
            data.StructLayout({"client": len(clients), "burst": burst_layout(self.data_bytes)}),
            reset_less=True,
        )
        m.d.sync += fetch.eq(0)
        with m.If(~fetch.any() & (~is_burst | asked)), m.Switch(turn):
            for n in clients:
                with m.Case(n):
                    for k in reversed(clients):
                        other = (n + 1 + k) % len(clients)
                        with m.If(offers[other]):
                            m.d.sync += [turn.eq(other), fetch.eq(1 << other)]
        with m.If(asked):
            m.d.sync += is_burst.eq(0)
        for n in clients:
            m.d.comb += planners[n].o.ready.eq(fetch[n])
            with m.If(fetch[n]):
                m.d.sync += [
                    is_burst.eq(1),
                    burst.client.eq(1 << n),
                    burst.burst.eq(planners[n].o.payload),
                ]

        # The address. Bursts on offer and outstanding are counted.
        outstanding, any_outstanding = counted(m, "outstanding", OUTSTANDING, asked, done)
        asked_addr = Signal(ADDRESS_BITS, reset_less=True)
        asked_length = Signal(LENGTH_BITS, reset_less=True)
        may_ask = is_burst & (~ar.valid | ar.ready) & (outstanding != OUTSTANDING) & ~self.stop
        if self.local_bytes:
            here = Signal()  # what is outstanding comes from the chip
            to_chip = is_local(burst.burst.at)
            may_ask &= (here == to_chip) | ~any_outstanding
        m.d.comb += [
            ar.payload.addr.eq(asked_addr),
            ar.payload.len.eq(asked_length),
            asked.eq(may_ask),
            routes.i.valid.eq(asked),
            routes.i.payload.eq(burst.client),
            self.quiet.eq(~any_outstanding),
            self.idle.eq(self.quiet & ~is_burst & ~Cat(planner.busy for planner in planners).any()),
        ]
        if self.local_bytes:
            asks = self.local.asks
            m.d.sync += asks.valid.eq(asked & to_chip)
            with m.If(asked):
                m.d.sync += [
                    here.eq(to_chip),
                    asks.payload.at.eq(burst.burst.at),
                    asks.payload.length.eq(burst.burst.length),
                ]
        with m.If(asked):
            m.d.sync += [
                ar.valid.eq(~to_chip if self.local_bytes else 1),
                asked_addr.eq(self.base + burst.burst.at * self.data_bytes),
                asked_length.eq(burst.burst.length),
            ]
        with m.Elif(ar.ready):
            m.d.sync += ar.valid.eq(0)

        with m.If(self.error == Fault.NONE):
            with m.If(answered & (answer.resp != Response.OKAY)):
                m.d.sync += self.error.eq(Fault.BUS)
            for planner in planners:
                with m.Elif(planner.outside):
                    m.d.sync += self.error.eq(Fault.RANGE)
        return m
