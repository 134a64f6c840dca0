# SPDX-License-Identifier: Apache-2.0
"""Memories behind AXI4 ports: naive, slow in every way that AXI allows, and strict.

Both are testbenches that see one cycle after the other. They check what AXI demands of a
manager, keep what happened in lists, and draw all their delays from one seed.
"""

import collections
import dataclasses

from tests.csp_hw.bench import chance, plain, rng_of

PAGE = 4096
MOST_BEATS = 256


def content(address):
    """Give the byte that memory holds at first."""
    return (address * 0x9E3779B1 >> 13) & 0xFF


def word(address, data_bytes):
    """Give the beat at an address as memory holds it at first."""
    return int.from_bytes(bytes(content(address + n) for n in range(data_bytes)), "little")


def run_of(offset, beats):
    """Give a run of beats as a client of a manager asks for it."""
    return {"offset": offset, "beats": beats, "last": 0}


def in_a_row(cycles):
    """Whether something happened in each cycle from the first to the last."""
    return cycles == list(range(cycles[0], cycles[0] + len(cycles)))


def okay(_address):
    """Give the response of a memory without faults."""
    return 0


@dataclasses.dataclass
class Burst:
    """A burst that was asked for, and the cycles of its offer and its transfer."""

    address: int
    beats: int
    offered: int
    taken: int

    def check(self, data_bytes, longest):
        """Fail if AXI does not allow it."""
        assert self.address % data_bytes == 0
        assert 1 <= self.beats <= min(MOST_BEATS, longest)
        end = self.address + self.beats * data_bytes - 1
        assert self.address // PAGE == end // PAGE, "a burst crosses a page"


class Held:
    """Watches a channel on which a word on offer must neither change nor be withdrawn."""

    def __init__(self, name):
        self.name = name
        self.word = None
        self.since = 0

    def see(self, cycle, valid, ready, payload):
        """Take note of a cycle; give the cycle in which the word came on offer."""
        now = plain(payload) if valid else None
        assert self.word in (None, now), f"{self.name}: {self.word} was on offer, then {now}"
        if self.word is None:
            self.since = cycle
        self.word = None if ready else now
        return self.since


class Answers:
    """The channel of answers: words in order, each not before its time, with random gaps."""

    def __init__(self, port, gap, rng):
        self.port, self.gap, self.rng = port, gap, rng
        self.waiting = collections.deque()  # (first cycle, payload)
        self.offered = False

    def set(self, ctx, cycle):
        """Offer a word, or go on offering it."""
        if not self.offered and self.waiting and self.waiting[0][0] <= cycle:
            self.offered = not chance(self.rng, self.gap)
            if self.offered:
                ctx.set(self.port.payload, self.waiting[0][1])
        ctx.set(self.port.valid, self.offered)

    def passed(self, ready):
        """Take note whether the word was taken; give it if so."""
        if not (self.offered and ready):
            return None
        self.offered = False
        return self.waiting.popleft()[1]


class ReadMemory:
    """A memory to read from, whose contents :func:`content` gives.

    Parameters
    ----------
    axi : interface
        Of the manager.
    data_bytes : int
    longest : int
        Beats of the longest burst allowed.
    latency : int
        Cycles from the transfer of an address to the first beat.
    gaps : pair of float
        Chance that an address is not taken, or a beat not offered, in a cycle.
    response : callable
        Gives the response for the address of a beat.
    """

    def __init__(
        self,
        axi,
        data_bytes,
        *,
        longest=MOST_BEATS,
        latency=1,
        gaps=(0.0, 0.0),
        response=okay,
        seed=0,
    ):
        self.axi, self.data_bytes, self.longest = axi, data_bytes, longest
        self.latency, self.response = latency, response
        self.rng = rng_of(seed, 3)
        self.ar_gap = gaps[0]
        self.answers = Answers(axi.r, gaps[1], self.rng)
        self.held = Held("ar")
        self.bursts = []
        self.beats = []  # cycle of each beat's transfer
        self.pending = 0  # bursts that are not complete
        self.most_pending = 0
        self.cycle = 0

    async def run(self, ctx):
        ar, r = self.axi.ar, self.axi.r
        while True:
            ready = not chance(self.rng, self.ar_gap)
            ctx.set(ar.ready, ready)
            self.answers.set(ctx, self.cycle)
            _, _, valid, payload, r_ready = await ctx.tick().sample(ar.valid, ar.payload, r.ready)
            since = self.held.see(self.cycle, valid, ready, payload)
            beat = self.answers.passed(r_ready)
            if beat is not None:
                self.beats.append(self.cycle)
                self.pending -= beat["last"]
            if valid and ready:
                self.take(Burst(payload.addr, payload.len + 1, since, self.cycle))
            self.cycle += 1

    def take(self, burst):
        """Answer a burst."""
        burst.check(self.data_bytes, self.longest)
        self.bursts.append(burst)
        self.pending += 1
        self.most_pending = max(self.most_pending, self.pending)
        for n in range(burst.beats):
            address = burst.address + n * self.data_bytes
            payload = {
                "data": word(address, self.data_bytes),
                "resp": self.response(address),
                "last": n == burst.beats - 1,
            }
            self.answers.waiting.append((self.cycle + self.latency, payload))


class WriteMemory:
    """A memory to write to.

    Parameters
    ----------
    axi : interface
        Of the manager.
    data_bytes : int
    longest : int
        Beats of the longest burst allowed.
    gaps : triple of float
        Chance that an address or a beat is not taken, or an acknowledgement not offered.
    order : str
        ``any``: addresses and beats are taken independently, ``aw``: beats after their address,
        ``w``: an address only when its first beat is on offer or taken.
    response : callable
        Gives the response for the address of a burst.
    """

    def __init__(
        self,
        axi,
        data_bytes,
        *,
        longest=MOST_BEATS,
        latency=1,
        gaps=(0.0, 0.0, 0.0),
        order="any",
        response=okay,
        seed=0,
    ):
        self.axi, self.data_bytes, self.longest = axi, data_bytes, longest
        self.latency, self.order, self.response = latency, order, response
        self.rng = rng_of(seed, 4)
        self.aw_gap, self.w_gap = gaps[:2]
        self.answers = Answers(axi.b, gaps[2], self.rng)
        self.held = {"aw": Held("aw"), "w": Held("w")}
        self.bytes = {}  # what was written, by address
        self.bursts = []
        self.beats = []  # cycle of each beat's transfer
        self.strobes = []  # of each beat
        self.written = 0  # bursts whose last beat was taken
        self.offered = 0  # bursts whose address was on offer
        self.data = []  # beats of the burst that is being taken
        self.full = collections.deque()  # bursts whose beats all came
        self.pending = 0  # bursts taken that are not acknowledged
        self.most_pending = 0
        self.w_valid = False
        self.cycle = 0

    def ready(self):
        """Choose which addresses and beats to take."""
        aw = not chance(self.rng, self.aw_gap)
        w = not chance(self.rng, self.w_gap)
        ahead = self.written - len(self.bursts)  # of the addresses are the data, in bursts
        if self.order == "aw":
            w &= ahead < 0
        if self.order == "w":
            aw &= ahead > 0 or (ahead == 0 and (self.w_valid or bool(self.data)))
        return aw, w

    async def run(self, ctx):
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        while True:
            aw_ready, w_ready = self.ready()
            ctx.set(aw.ready, aw_ready)
            ctx.set(w.ready, w_ready)
            self.answers.set(ctx, self.cycle)
            _, _, aw_valid, address, w_valid, beat, b_ready = await ctx.tick().sample(
                aw.valid, aw.payload, w.valid, w.payload, b.ready
            )
            since = self.held["aw"].see(self.cycle, aw_valid, aw_ready, address)
            self.offered = len(self.bursts) + bool(aw_valid)
            self.held["w"].see(self.cycle, w_valid, w_ready, beat)
            self.w_valid = bool(w_valid)
            assert w_valid or not self.data, "a gap in a burst's data"
            if w_valid:
                assert self.written < self.offered, "data without an address"
            if self.answers.passed(b_ready) is not None:
                self.pending -= 1
            if aw_valid and aw_ready:
                burst = Burst(address.addr, address.len + 1, since, self.cycle)
                burst.check(self.data_bytes, self.longest)
                self.bursts.append(burst)
                self.pending += 1
                self.most_pending = max(self.most_pending, self.pending)
            if w_valid and w_ready:
                self.take(plain(beat))
            self.store()
            self.cycle += 1

    def take(self, beat):
        """Take a beat."""
        self.beats.append(self.cycle)
        self.strobes.append(beat["strb"])
        self.data.append(beat)
        if beat["last"]:
            self.full.append(self.data)
            self.data = []
            self.written += 1

    def store(self):
        """Write a burst of which all has come."""
        done = self.written - len(self.full)
        if not self.full or done >= len(self.bursts):
            return
        burst, beats = self.bursts[done], self.full.popleft()
        assert len(beats) == burst.beats, "wlast is not at the burst's last beat"
        for n, beat in enumerate(beats):
            for k in range(self.data_bytes):
                if beat["strb"] >> k & 1:
                    address = burst.address + n * self.data_bytes + k
                    self.bytes[address] = beat["data"] >> 8 * k & 0xFF
        resp = {"resp": self.response(burst.address)}
        self.answers.waiting.append((self.cycle + self.latency, resp))
