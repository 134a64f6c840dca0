# SPDX-License-Identifier: Apache-2.0
"""What the tests of csp_hw share: streams with random gaps, a limit of cycles, plain models.

Every model here and in the tests is written from the docstrings and the design alone, in plain
integers, and shares no code with the hardware.
"""

import numpy as np
from amaranth.lib import data
from amaranth.sim import Simulator

#: Cycles without a word after the last expected one, in which a word too many would show.
AFTERMATH = 20
#: Of a PE's control, those that products set.
FLAGS = ("valid", "fetch0", "fetch1", "last", "add", "write0", "write1")


def rng_of(*seed):
    """Give a generator; the same seed gives the same test everywhere."""
    return np.random.default_rng(list(seed))


def between(rng, low, high):
    """Give an integer, low … high."""
    return int(rng.integers(low, high, endpoint=True))


def pick(rng, items):
    """Give one of some items."""
    return items[between(rng, 0, len(items) - 1)]


def chance(rng, probability):
    """Give true with some probability."""
    return bool(rng.random() < probability)


def rhu(x, s):
    """Divide by 2^s, rounding halves up."""
    return (x + (1 << (s - 1))) >> s if s else x


def sat(x, bits):
    """Clip to a signed number of so many bits."""
    return min(max(x, -(1 << (bits - 1))), (1 << (bits - 1)) - 1)


def plain(value):
    """Give a sampled value as dicts, lists and ints."""
    if not isinstance(value, data.Const):
        return int(value)
    layout = value.shape()
    if isinstance(layout, data.ArrayLayout):
        return [plain(value[n]) for n in range(layout.length)]
    return {name: plain(value[name]) for name, _ in layout}


def simulate(dut, *testbenches, background=(), cycles=20_000):
    """Run until every testbench has returned; a hang fails after so many cycles."""

    async def watchdog(ctx):
        for _ in range(cycles):
            await ctx.tick()
        raise AssertionError(f"not done after {cycles} cycles")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for testbench in testbenches:
        simulator.add_testbench(testbench)
    for testbench in (*background, watchdog):
        simulator.add_testbench(testbench, background=True)
    simulator.run()


class Source:
    """A testbench that offers words on a stream.

    ``cycles`` are those in which a word was taken, counted from the testbench's start.
    """

    def __init__(self, port, words, *, gap=0.0, seed=0):
        self.port, self.words, self.gap = port, words, gap
        self.rng = rng_of(seed, 1)
        self.cycle = 0
        self.cycles = []

    async def run(self, ctx):
        for word in self.words:
            while chance(self.rng, self.gap):
                await ctx.tick()
                self.cycle += 1
            ctx.set(self.port.payload, word)
            ctx.set(self.port.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(self.port.ready)
                self.cycle += 1
            self.cycles.append(self.cycle - 1)
            ctx.set(self.port.valid, 0)


class Sink:
    """A testbench that takes so many words from a stream and checks that no other follows.

    A word on offer must neither change nor be withdrawn. ``cycles`` are those of the transfers.
    """

    def __init__(self, port, count, *, gap=0.0, seed=0):
        self.port, self.count, self.gap = port, count, gap
        self.rng = rng_of(seed, 2)
        self.cycle = 0
        self.cycles = []
        self.words = []

    async def run(self, ctx):
        held = None
        after = 0
        while after < AFTERMATH:
            ready = not chance(self.rng, self.gap)
            ctx.set(self.port.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(self.port.valid, self.port.payload)
            word = plain(payload) if valid else None
            assert held in (None, word), f"{held} was on offer, then {word}"
            held = None if ready else word
            if valid and ready:
                self.words.append(word)
                self.cycles.append(self.cycle)
            self.cycle += 1
            after = after + 1 if len(self.words) >= self.count else 0
        ctx.set(self.port.ready, 0)


def pass_through(dut, i, words, o, count, *, constants, gaps=(0.0, 0.0), seed=0, beside=()):
    """Send words into a stream, take ``count`` from another; give the source and the sink.

    Testbenches ``beside`` these two must have returned, too.
    """
    source = Source(i, words, gap=gaps[0], seed=seed)
    sink = Sink(o, count, gap=gaps[1], seed=seed)

    async def sender(ctx):
        for name, value in constants.items():
            ctx.set(getattr(dut, name), value)
        for _ in range(2):  # what is derived from them may be registered
            await ctx.tick()
        await source.run(ctx)

    source.cycle += 2
    simulate(dut, sink.run, *beside, background=[sender])
    return source, sink


def play(dut, steps, watch):
    """Set ports and look at others, cycle by cycle; give what was seen.

    ``steps`` holds, for each cycle, values by the name of the port.
    """
    seen = []

    async def player(ctx):
        ports = [getattr(dut, name) for name in watch]
        for step in steps:
            for name, value in step.items():
                ctx.set(getattr(dut, name), value)
            _, _, *values = await ctx.tick().sample(*ports)
            seen.append(dict(zip(watch, map(plain, values), strict=True)))

    simulate(dut, player, cycles=len(steps) + 1)
    return seen


def controls(products, cycles):
    """Give the control of every cycle that some products need; None where anything will do.

    ``products`` holds, for each cycle, None or a dict of last, fresh, bank and word. A sum is
    written four cycles after its run's last product, and a later run at the same place takes the
    newest one: still being added (distance 1), from one of the sum's registers (2 to 4), or from
    the bank.
    """
    names = ("read0", "read1", "add", "addend", "write_address")
    found = [dict.fromkeys(names) for _ in range(cycles + 4)]
    for at in found:
        at.update(dict.fromkeys(FLAGS, 0))
    ends = {}  # place -> cycle in which its latest run ended
    for n, product in enumerate(products[:cycles]):
        if product is None:
            continue
        place = bank, word = product["bank"], product["word"]
        found[n]["valid"] = 1
        if not product["last"]:
            continue
        if not product["fresh"]:
            found[n].update({f"fetch{bank}": 1, f"read{bank}": word})
        found[n + 1]["last"] = 1
        distance = n - ends.get(place, -100)
        ends[place] = n
        addend = {1: 4, 2: 5, 3: 6, 4: 7}.get(distance, 2 + bank)
        if product["fresh"]:
            addend = 0
        found[n + 2].update(add=1, addend=addend)
        found[n + 4].update({f"write{bank}": 1, "write_address": word})
    return found[:cycles]
