# SPDX-License-Identifier: Apache-2.0
"""Blocks of the feeder where the whole would need too long to reach their limits."""

import pytest

from csp_hw.config import PRESETS
from csp_hw.feeder import lines
from csp_hw.feeder.axis import AxisWalk
from csp_hw.feeder.bank import LineBank
from csp_hw.feeder.counter import CycleCounter
from csp_hw.feeder.intake import TileIntake
from csp_hw.feeder.kernel import KernelScan
from csp_hw.feeder.queue import CREDITS, WordQueue
from tests.csp_hw.bench import Sink, Source, between, chance, pick, plain, rng_of, simulate

CONFIG = PRESETS["tiny_4x4"]
ADDRESSES = CONFIG.line_words
#: The geometry with the largest numbers that there can be.
LARGEST = {
    "beats": 16,
    "ring_bits": 0,
    "images": 65_535,
    "height": 4095,
    "width": 4095,
    "out_height": 4095,
    "out_width": 4095,
    "lines": 4095,
    "pitch": 4095,
    "stride_y": 0,
    "stride_x": 0,
    "dilation_y": 7,
    "dilation_x": 7,
    "kernel_h": 11,
    "kernel_w": 11,
    "pad_top": 0,
    "pad_left": 0,
}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_counter(size):
    rng = rng_of(400, size)
    dut = CycleCounter(3)
    for part in {1, size, between(rng, 1, size)}:

        async def bench(ctx, part=part):
            ctx.set(dut.size, size)
            ctx.set(dut.part, part)
            await ctx.tick()
            await ctx.tick()
            ctx.set(dut.begin, 1)
            await ctx.tick()
            number = 0
            for _ in range(60):
                assert ctx.get(dut.last) == (number == size - 1)
                assert ctx.get(dut.inside) == (number < part)
                begin, step = chance(rng, 0.1), chance(rng, 0.7)
                ctx.set(dut.begin, begin)
                ctx.set(dut.step, step)
                await ctx.tick()
                number = 0 if begin else (number + step) % size

        simulate(dut, bench)


def taps_inside(place, kernel, dilation, padding, size):
    """Give the taps inside the map of a window that begins at ``place`` − padding."""
    return [tap for tap in range(kernel) if 0 <= place + tap * dilation - padding < size]


def random_axis(rng):
    kernel, dilation = between(rng, 1, 11), between(rng, 1, 7)
    padding = min(31, between(rng, 0, (kernel - 1) * dilation + 1))
    return kernel, dilation, padding, pick(rng, [1, 2, 5, 17, 60, 4095])


def geometry_of(kernel, dilation, padding, size, stride):
    """Give a feed with the same for both axes, as far as KernelScan looks at it."""
    shape = {"height": size, "width": size, "kernel_h": kernel, "kernel_w": kernel}
    step = {"dilation_y": dilation, "dilation_x": dilation, "pad_top": padding}
    return LARGEST | shape | step | {"pad_left": padding, "stride_y": stride, "stride_x": stride}


@pytest.mark.parametrize("stride", [0, 1, 2])
def test_axis(stride):
    # The scan gives the first window, the walk all others.
    rng = rng_of(401, stride)
    for _ in range(8):
        axis, walk = random_axis(rng), AxisWalk()
        fields = geometry_of(*axis, stride)
        found = scanned(fields)["constants"]
        assert found["x"] == found["y"]

        async def walker(ctx, walk=walk, found=found["x"], axis=axis):
            ctx.set(walk.axis, found)
            await ctx.tick()
            ctx.set(walk.back, 1)
            await ctx.tick()
            ctx.set(walk.back, 0)
            place = 0
            for _ in range(150):
                settled = ctx.get(walk.settled)
                assert settled or stride
                window = plain(ctx.get(walk.window))
                if settled:
                    inside = list(range(window["first"], window["stop"]))
                    assert inside == taps_inside(place << stride, *axis)
                back, step = settled and chance(rng, 0.02), settled and chance(rng, 0.8)
                ctx.set(walk.back, back)
                ctx.set(walk.step, step)
                await ctx.tick()
                place = 0 if back else place + step

        simulate(walk, walker)


def scanned(fields):
    """Give what a scan finds: constants, tables and the cycles it took."""
    dut = KernelScan(CONFIG)
    found = {"rows": [], "columns": []}

    async def bench(ctx):
        await ctx.tick()
        ctx.set(dut.feed, fields)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        cycles = 1
        while not ctx.get(dut.ready):
            await ctx.tick()
            cycles += 1
        found["cycles"] = cycles
        found["constants"] = plain(ctx.get(dut.constants))
        for tap in range(11):
            ctx.set(dut.r, tap)
            ctx.set(dut.s, tap)
            await ctx.tick()
            found["rows"].append(plain(ctx.get(dut.row)))
            found["columns"].append(plain(ctx.get(dut.column)))

    simulate(dut, bench)
    return found


def random_feed(rng):
    """Give fields that need not make a map: the scan does not mind."""
    fields = LARGEST | {
        "lines": between(rng, 1, 4095),
        "pitch": between(rng, 1, 4095),
        "beats": between(rng, 1, 16),
        "ring_bits": between(rng, 0, 8),
        "stride_y": between(rng, 0, 2),
        "stride_x": between(rng, 0, 2),
    }
    for side, dilation, padding in (
        ("kernel_h", "dilation_y", "pad_top"),
        ("kernel_w", "dilation_x", "pad_left"),
    ):
        fields |= {side: between(rng, 1, 11), dilation: between(rng, 1, 7)}
        fields |= {padding: between(rng, 0, 31)}
    return fields


def ref_scan(fields):
    places = {}
    reach = {}
    for name, axis, side, padding, pitch, words in (
        (
            "rows",
            "y",
            "kernel_h",
            "pad_top",
            fields["pitch"],
            fields["beats"] << fields["stride_x"],
        ),
        ("columns", "x", "kernel_w", "pad_left", 1, fields["beats"]),
    ):
        offsets = [
            tap * fields[f"dilation_{axis}"] - fields[padding] for tap in range(fields[side])
        ]
        stride = 1 << fields[f"stride_{axis}"]
        reach[name] = [offset // stride * pitch for offset in offsets]
        places[name] = [
            {
                "offset": far % (CONFIG.rows * ADDRESSES),
                "word": offset % stride * words % ADDRESSES,
            }
            for offset, far in zip(offsets, reach[name], strict=True)
        ]
    near = reach["rows"][0] + reach["columns"][0] + (CONFIG.rows << fields["ring_bits"])
    return places | {
        "near": near,
        "far": reach["rows"][-1] + reach["columns"][-1],
        "image_step": fields["lines"] * fields["pitch"],
        "ring_mask": (1 << fields["ring_bits"]) - 1,
    }


def test_scan():
    rng = rng_of(402)
    for fields in [LARGEST, *(random_feed(rng) for _ in range(20))]:
        found, expected = scanned(fields), ref_scan(fields)
        assert found["rows"][: fields["kernel_h"]] == expected["rows"]
        assert found["columns"][: fields["kernel_w"]] == expected["columns"]
        for name in ("near", "far", "image_step", "ring_mask"):
            assert found["constants"][name] == expected[name], name
        assert found["cycles"] == max(fields["kernel_h"], fields["kernel_w"]) + 4


@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_intake_of_the_last_groups(gap):
    rng = rng_of(403)
    dut = TileIntake(CONFIG)
    near, far = -31 * 4095 - 31, 70 * 4095 + 70
    groups = [0, 1, 5, (1 << 23) + 3, (1 << 24) - 7, (1 << 24) - 4]
    entries = [{"group": group, "interleave": between(rng, 1, 3)} for group in groups]
    entries[0]["interleave"] = 1
    walks, spans = [], []
    end = 0
    for entry in entries:
        group, interleave = entry["group"], entry["interleave"]
        walks.append({"gap": group - end, "apart": int(group > end), "interleave": interleave})
        end = group + interleave
        spans.append(
            {
                "slot": group % ADDRESSES,
                "interleave": interleave,
                "need": end * CONFIG.rows + far,
                "limit": group * CONFIG.rows + near,
            }
        )
    source = Source(dut.entries, [*entries, entries[0]], gap=gap)
    sinks = [
        Sink(dut.walks, len(entries), gap=gap, seed=1),
        Sink(dut.spans, len(entries), gap=gap, seed=2),
    ]

    async def starter(ctx):
        ctx.set(dut.tile_count, len(entries))
        ctx.set(dut.constants, {"near": near, "far": far})
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        await ctx.tick().repeat(5)
        ctx.set(dut.open, 1)

    simulate(dut, starter, *(sink.run for sink in sinks), background=[source.run])
    assert sinks[0].words == walks
    assert sinks[1].words == spans
    assert len(source.cycles) == len(entries)


@pytest.mark.parametrize("latency", [1, 8, 11])
@pytest.mark.parametrize("gap", [0.0, 0.4, 0.9])
def test_queue(latency, gap):
    # A pipeline of some cycles between ``asked`` and ``valid``.
    dut = WordQueue(CONFIG)
    sink = Sink(dut.o, 100, gap=gap)
    most = 0

    async def pipeline(ctx):
        nonlocal most
        pending = []
        sent = 0
        for cycle in range(3_000):
            arrives = bool(pending) and pending[0][0] == cycle
            ctx.set(dut.valid, arrives)
            if arrives:
                ctx.set(dut.word, [pending.pop(0)[1]] * CONFIG.rows)
            ask = bool(ctx.get(dut.credit)) and sent < 100
            ctx.set(dut.asked, ask)
            if ask:
                pending.append((cycle + latency, sent))
                sent += 1
            most = max(most, sent - len(sink.words))
            await ctx.tick()

    simulate(dut, sink.run, background=[pipeline])
    assert sink.words == [[n] * CONFIG.rows for n in range(100)]
    if not gap:
        assert sink.cycles == list(range(sink.cycles[0], sink.cycles[0] + 100))
    assert most <= CREDITS + 1  # the sink counts a word a cycle after its transfer


class LineTraffic:
    """Requests and stores for a line buffer, cycle by cycle, and what must be seen.

    Requests repeat each other often, what they read is overwritten often, and now and then another
    ring begins. ``words`` are by the cycle in which they come out, ``reads`` cycles in which banks
    are read.
    """

    PHASES, SLOTS = 4, 8

    def __init__(self, rng):
        self.rng, self.rows, self.cols = rng, CONFIG.rows, CONFIG.cols
        self.ring = self.SLOTS
        self.steps, self.words, self.reads = [], {}, set()
        self.memory = {}  # (bank, address) -> bytes
        self.asked, self.current = None, True  # the last request; whether it still holds
        self.busy = set()  # what the request of the cycle before reads
        for bank in range(self.rows):
            for address in range(self.PHASES * self.SLOTS):
                self.cycle(store=(bank, address))

    def used(self, where):
        """Give of each bank the address that a slot, an offset and a phase mean."""
        slot, offset, phase = where
        turned, groups = offset % self.rows, offset // self.rows
        slots = [(slot + groups + (bank < turned)) % self.ring for bank in range(self.rows)]
        return {(bank, phase * self.SLOTS + at) for bank, at in enumerate(slots)}

    def random_cycle(self):
        """Append one."""
        rng = self.rng
        if chance(rng, 0.05):
            self.ring = pick(rng, [1, 2, 4, 8])
            self.current = False
            self.cycle(begin=1)
            return
        request = store = None
        if chance(rng, 0.7):
            other = between(rng, 0, 15), between(rng, 0, 63), between(rng, 0, self.PHASES - 1)
            request = self.asked if self.asked and chance(rng, 0.7) else other
        if chance(rng, 0.4):
            near = self.asked and chance(rng, 0.5)
            store = pick(rng, sorted(self.used(self.asked) if near else self.memory))
        self.cycle(request, None if store in self.busy else store)

    def cycle(self, request=None, store=None, begin=0):
        """Append a cycle with a request and a store, or without."""
        rng, now = self.rng, len(self.steps)
        step = {"begin": begin, "ring_mask": self.ring - 1}
        step["store"] = {"banks": 0, "address": 0, "word": 0}
        if store:
            self.memory[store] = [between(rng, 0, 255) for _ in range(self.cols)]
            word = int.from_bytes(self.memory[store], "little")
            step["store"] = {"banks": 1 << store[0], "address": store[1], "word": word}
            self.current &= self.asked is None or store not in self.used(self.asked)
        byte = between(rng, 0, self.cols - 1)
        slot, offset, phase = request or (between(rng, 0, 7), between(rng, 0, 31), 0)
        step["request"] = dict.fromkeys(("lanes", "r", "s", "release"), 0) | {
            "valid": int(request is not None),
            "slot": slot,
            "offset": offset,
            "word": phase * self.SLOTS,
            "byte": byte,
        }
        self.busy = set()
        if request:
            self.busy = self.used(request)
            found = dict(self.busy)
            banks = [(row + offset) % self.rows for row in range(self.rows)]
            self.words[now + lines.latency(CONFIG)] = [
                self.memory[bank, found[bank]][byte] for bank in banks
            ]
            if request != self.asked or not self.current:
                self.reads.add(now + 1)
            self.asked, self.current = request, True
        self.steps.append(step)


@pytest.mark.parametrize("seed", range(3))
def test_line_buffer_is_read_only_for_other_words(seed, monkeypatch):
    """Words against a dict; banks are read if others are meant, or one was written since."""
    banks = []

    def recorded(config):
        banks.append(LineBank(config))
        return banks[-1]

    monkeypatch.setattr(lines, "LineBank", recorded)
    traffic = LineTraffic(rng_of(403, seed))
    for _ in range(500):
        traffic.random_cycle()
    dut = lines.LineBuffer(CONFIG)

    async def bench(ctx):
        ctx.set(dut.mask, (1 << CONFIG.rows) - 1)
        reads = [bank.read for bank in banks]
        for cycle, step in enumerate(traffic.steps):
            for name, value in step.items():
                ctx.set(getattr(dut, name), value)
            _, _, valid, word, *read = await ctx.tick().sample(dut.valid, dut.word, *reads)
            assert set(read) == {int(cycle in traffic.reads)}, f"cycle {cycle}"
            assert valid == (cycle in traffic.words)
            if valid:
                assert plain(word) == traffic.words[cycle], f"cycle {cycle}"

    simulate(dut, bench)
    assert len(banks) == CONFIG.rows
    assert 0.3 < len(traffic.reads) / len(traffic.words) < 0.8
