# SPDX-License-Identifier: Apache-2.0
"""The register file behind its AXI4-Lite port, against a table of integers."""

import pytest

from csp_hw.axi.signature import Response
from csp_hw.config import PRESETS, BufferStyle
from csp_hw.register_map import REGISTERS, Access
from csp_hw.registers import RegisterFile, hardware_layout, software_layout
from tests.csp_hw.bench import Sink, Source, between, chance, pick, plain, rng_of, simulate

CONFIG = PRESETS["tiny_4x4"]
OKAY, SLVERR, DECERR = Response.OKAY, Response.SLVERR, Response.DECERR
PLACES = {register.name: register.offset for register in REGISTERS}
FULL = 0b1111
#: What tiny_4x4 tells of itself, written out.
BUILD = {
    "ID": 0x43535031,
    "VERSION": 1,
    "CONFIG0": 4 | 4 << 8 | 8 << 16 | 4 << 24,
    "CONFIG1": 16 | 4 << 12 | 4 << 20 | 6 << 28,
    "CONFIG2": 24 | 0 << 7 | 12 << 8 | 12 << 16 | 10 << 24,
}
DONE, ERROR, PENDING = 1 << 1, 1 << 2, 1 << 3


def write_word(address, data, strobes=FULL):
    return {"addr": address}, {"data": data, "strb": strobes}


class Manager:
    """Accesses one after the other, with random delays on every channel.

    An answer on offer must neither change nor be withdrawn.
    """

    def __init__(self, dut, *, gap=0.0, seed=0):
        self.axi = dut.axi
        self.gap = gap
        self.rng = rng_of(seed, 7)

    async def write(self, ctx, address, data, strobes=FULL):
        """Give the answer."""
        at, word = write_word(address, data, strobes)
        waiting = [(self.axi.aw, at), (self.axi.w, word)]
        return (await self._access(ctx, waiting, self.axi.b))["resp"]

    async def read(self, ctx, address):
        """Give the word and the answer."""
        at = {"addr": address}
        answer = await self._access(ctx, [(self.axi.ar, at)], self.axi.r)
        return answer["data"], answer["resp"]

    async def _access(self, ctx, waiting, answers):
        offered = []
        held = None
        while True:
            for one in list(waiting):
                if not chance(self.rng, self.gap):
                    waiting.remove(one)
                    offered.append(one[0])
                    ctx.set(one[0].payload, one[1])
                    ctx.set(one[0].valid, 1)
            ready = not chance(self.rng, self.gap)
            ctx.set(answers.ready, ready)
            channels = list(offered)
            _, _, valid, payload, *taken = await ctx.tick().sample(
                answers.valid, answers.payload, *(channel.ready for channel in channels)
            )
            for channel, done in zip(channels, taken, strict=True):
                if done:
                    ctx.set(channel.valid, 0)
                    offered.remove(channel)
            answer = plain(payload) if valid else None
            assert held in (None, answer), f"{held} was on offer, then {answer}"
            assert answer is None or not (waiting or channels), "answered before it was asked"
            held = answer
            if answer is not None and ready:
                ctx.set(answers.ready, 0)
                return answer


class Model:
    """What software must see, from the map alone."""

    def __init__(self, build):
        self.words = dict(build)  # what is stored or fixed
        self.hardware = {}
        self.pulses = {}
        for register in REGISTERS:
            for field in register.fields:
                if field.reset and field.access is not Access.FIXED:
                    self.words[register.name] = field.reset << field.lsb

    def read(self, register):
        word = self.words.get(register.name, 0) | self.hardware.get(register.name, 0)
        if register.name == "STATUS":
            enabled = self.words.get("CONTROL", 0) & 0b100
            word |= PENDING * bool(word & (DONE | ERROR) and enabled)
        return word

    def write(self, register, data, strobes):
        """Give the answer."""
        mask = sum(0xFF << 8 * n for n in range(4) if strobes >> n & 1)
        word = self.words.get(register.name, 0)
        for field in register.fields:
            bits = ((1 << field.width) - 1 << field.lsb) & mask
            if field.access is Access.WRITE:
                word = word & ~bits | data & bits
            elif field.access is Access.STICKY:
                word &= ~(data & bits)
            elif field.access is Access.PULSE and data & bits:
                key = register.name.lower(), field.name
                self.pulses[key] = self.pulses.get(key, 0) + 1
        self.words[register.name] = word
        return OKAY if register.access == "rw" else SLVERR

    def set_hardware(self, register, field, value):
        if field.access is Access.STICKY:
            self.words[register.name] = self.words.get(register.name, 0) | value << field.lsb
        else:
            mask = (1 << field.width) - 1 << field.lsb
            word = self.hardware.get(register.name, 0) & ~mask
            self.hardware[register.name] = word | value << field.lsb


def inputs():
    """Give the registers and fields that the hardware drives."""
    return [
        (register, field)
        for register in REGISTERS
        for field in register.fields
        if field.access in (Access.READ, Access.STICKY) and field.name != "irq_pending"
    ]


def test_layouts():
    software = {(name, field) for name, layout in software_layout() for field, _ in layout.shape}
    assert software == {
        ("control", "start"),
        ("control", "abort"),
        ("control", "irq_enable"),
        ("status", "done"),
        ("status", "error"),
        ("descriptors", "offset"),
        ("count", "descriptors"),
        ("base_low", "address"),
        ("base_high", "address"),
        ("size_low", "bytes"),
        ("size_high", "bytes"),
        ("timeout", "cycles"),
    }
    hardware = {(name, field) for name, layout in hardware_layout() for field, _ in layout.shape}
    assert hardware == {(register.name.lower(), field.name) for register, field in inputs()}
    assert ("status", "busy") in hardware
    assert ("status", "done") in hardware


@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_reset_values_and_fixed_words(gap):
    dut = RegisterFile(CONFIG)
    manager = Manager(dut, gap=gap)

    async def bench(ctx):
        assert plain(ctx.get(dut.software.timeout)) == {"cycles": 65536}
        for register in REGISTERS:
            expected = {**BUILD, "TIMEOUT": 65536}.get(register.name, 0)
            assert await manager.read(ctx, register.offset) == (expected, OKAY), register.name

    simulate(dut, bench)


def test_fixed_words_follow_the_configuration():
    dut = RegisterFile(PRESETS["csp_h_32x32"].replace(style=BufferStyle.REGBIN))
    manager = Manager(dut)

    async def bench(ctx):
        for name, expected in (
            ("CONFIG0", 32 | 32 << 8 | 32 << 16 | 8 << 24),
            ("CONFIG1", 128 | 16 << 12 | 4 << 20 | 9 << 28),
            ("CONFIG2", 24 | 1 << 7 | 19 << 8 | 19 << 16 | 16 << 24),
        ):
            assert await manager.read(ctx, PLACES[name]) == (expected, OKAY)

    simulate(dut, bench)


@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_every_register_is_written_and_read(gap):
    """All ones, all zeros and both patterns of alternating bits, at all registers."""
    dut = RegisterFile(CONFIG)
    manager = Manager(dut, gap=gap, seed=1)
    model = Model(BUILD)

    async def bench(ctx):
        for data in (0xFFFFFFFF, 0x55555555, 0xAAAAAAAA, 0):
            for register in REGISTERS:
                answer = model.write(register, data, FULL)
                assert await manager.write(ctx, register.offset, data) == answer, register.name
            for register in REGISTERS:
                word = model.read(register)
                assert await manager.read(ctx, register.offset) == (word, OKAY), register.name

    simulate(dut, bench)
    assert model.words["BASE_LOW"] == 0


class Trial:
    """A register file, what software does to it and what the hardware does, and the model."""

    def __init__(self, gap):
        self.dut = RegisterFile(CONFIG)
        self.manager = Manager(self.dut, gap=gap, seed=2)
        self.model = Model(BUILD)
        self.rng = rng_of(2, int(10 * gap))
        self.pulses = {}

    async def drive(self, ctx, register, field, value):
        """Set what the hardware drives; a sticky bit for one cycle."""
        port = self.dut.hardware[register.name.lower()][field.name]
        ctx.set(port, value)
        self.model.set_hardware(register, field, value)
        if field.access is Access.STICKY:
            await ctx.tick()
            ctx.set(port, 0)

    async def read(self, ctx, register):
        """Read with any low address bits, which do not matter."""
        expected = self.model.read(register)
        address = register.offset | between(self.rng, 0, 3)
        assert await self.manager.read(ctx, address) == (expected, OKAY), register.name

    async def write(self, ctx, register):
        """Write anything with any strobes."""
        data, strobes = between(self.rng, 0, 2**32 - 1), between(self.rng, 0, FULL)
        expected = self.model.write(register, data, strobes)
        address = register.offset | between(self.rng, 0, 3)
        assert await self.manager.write(ctx, address, data, strobes) == expected, register.name

    def check(self, ctx):
        """Look at the other side."""
        enabled = self.model.words.get("CONTROL", 0) & 0b100
        raised = self.model.words.get("STATUS", 0) & (DONE | ERROR)
        assert ctx.get(self.dut.irq) == bool(raised and enabled)
        software = plain(ctx.get(self.dut.software))
        for register in REGISTERS:
            fields = software.get(register.name.lower(), {})
            for field in register.fields:
                if field.name in fields and field.access is not Access.PULSE:
                    word = self.model.words.get(register.name, 0) >> field.lsb
                    assert fields[field.name] == word & (1 << field.width) - 1

    async def watch(self, ctx):
        """Count the cycles of each pulse."""
        async for _, _, control in ctx.tick().sample(self.dut.software.control):
            for name in ("start", "abort"):
                if control[name]:
                    key = "control", name
                    self.pulses[key] = self.pulses.get(key, 0) + 1


@pytest.mark.parametrize("gap", [0.0, 0.3, 0.7])
def test_random_accesses(gap):
    trial = Trial(gap)
    rng, drivable = trial.rng, inputs()
    busiest = [register for register in REGISTERS if register.name in ("CONTROL", "STATUS")]

    async def bench(ctx):
        for register, field in drivable:
            await trial.drive(ctx, register, field, between(rng, 0, (1 << field.width) - 1))
        for register in REGISTERS:
            await trial.read(ctx, register)
        for _ in range(400):
            register = pick(rng, busiest if chance(rng, 0.4) else REGISTERS)
            kind = between(rng, 0, 4)
            if kind == 0:
                await trial.drive(ctx, *pick(rng, drivable), between(rng, 0, 1))
            elif kind <= 2:
                await trial.write(ctx, register)
            else:
                await trial.read(ctx, register)
            await ctx.tick()
            trial.check(ctx)

    simulate(trial.dut, bench, background=[trial.watch])
    assert trial.pulses == trial.model.pulses
    assert min(trial.pulses.values()) > 5


def test_addresses_without_a_register():
    dut = RegisterFile(CONFIG)
    manager = Manager(dut, gap=0.2, seed=3)
    used = set(PLACES.values())
    holes = [address for address in range(0, 4096, 4) if address not in used]
    rng = rng_of(3)
    tried = [0x14, 0x34, 0x5C, max(used) + 4, 0x7FC, 0xFFC, *rng.choice(holes, 60).tolist()]
    # One bit away from a register: every bit of the address counts.
    tried += [used ^ 1 << bit for used in (PLACES["TIMEOUT"], PLACES["ID"]) for bit in range(2, 12)]

    async def bench(ctx):
        before = plain(ctx.get(dut.software))
        for address in tried:
            if address in used:
                continue
            assert await manager.write(ctx, address, 0xFFFFFFFF) == DECERR
            assert await manager.read(ctx, address) == (0, DECERR)
        assert plain(ctx.get(dut.software)) == before

    simulate(dut, bench)


def test_a_write_of_what_is_read_only_does_nothing():
    dut = RegisterFile(CONFIG)
    manager = Manager(dut)

    async def bench(ctx):
        for name in ("ID", "CONFIG2", "LAYER", "ERROR_LAYER", "CYCLES", "GATED_MACS_HIGH"):
            word, _ = await manager.read(ctx, PLACES[name])
            assert await manager.write(ctx, PLACES[name], 0xFFFFFFFF) == SLVERR
            assert await manager.read(ctx, PLACES[name]) == (word, OKAY)
        # No strobe, no bit: that is no error where something could be written.
        assert await manager.write(ctx, PLACES["COUNT"], 0xFFFFFFFF, 0) == OKAY
        assert await manager.write(ctx, PLACES["ID"], 0xFFFFFFFF, 0) == SLVERR

    simulate(dut, bench)


@pytest.mark.parametrize("field", ["done", "error"])
@pytest.mark.parametrize("when", range(6))
def test_setting_wins_over_clearing(field, when):
    """The clearing write acts in cycle 1; the hardware sets the bit in cycle ``when``."""
    dut = RegisterFile(CONFIG)
    bit = {"done": DONE, "error": ERROR}[field]

    async def bench(ctx):
        at, word = write_word(PLACES["STATUS"], DONE | ERROR)
        ctx.set(dut.axi.b.ready, 1)
        for cycle in range(8):
            for channel, payload in ((dut.axi.aw, at), (dut.axi.w, word)):
                ctx.set(channel.payload, payload)
                ctx.set(channel.valid, cycle == 0)
            ctx.set(dut.hardware.status[field], cycle == when)
            await ctx.tick()
        assert plain(ctx.get(dut.software.status)) == {
            "done": int(bit == DONE and when >= 1),
            "error": int(bit == ERROR and when >= 1),
        }

    simulate(dut, bench)


def test_only_what_is_written_is_cleared():
    dut = RegisterFile(CONFIG)
    manager = Manager(dut)
    status = PLACES["STATUS"]

    async def bench(ctx):
        ctx.set(dut.hardware.status, {"done": 1, "error": 1, "busy": 1, "code": 6})
        await ctx.tick()
        ctx.set(dut.hardware.status, {"done": 0, "error": 0, "busy": 0, "code": 6})
        assert await manager.read(ctx, status) == (DONE | ERROR | 6 << 8, OKAY)
        assert not ctx.get(dut.irq)
        await manager.write(ctx, PLACES["CONTROL"], 0b100)
        assert await manager.read(ctx, status) == (DONE | ERROR | PENDING | 6 << 8, OKAY)
        assert ctx.get(dut.irq)
        await manager.write(ctx, status, DONE)
        assert await manager.read(ctx, status) == (ERROR | PENDING | 6 << 8, OKAY)
        await manager.write(ctx, status, 0)  # other bits, and writing 0, clear nothing
        await manager.write(ctx, status, ~(DONE | ERROR) & 0xFFFFFFFF)
        await manager.write(ctx, status, ERROR, 0b1110)
        assert await manager.read(ctx, status) == (ERROR | PENDING | 6 << 8, OKAY)
        await manager.write(ctx, status, ERROR, 0b0001)
        assert await manager.read(ctx, status) == (6 << 8, OKAY)
        assert not ctx.get(dut.irq)

    simulate(dut, bench)


def test_a_pulse_is_one_cycle_long_and_the_values_stay():
    dut = RegisterFile(CONFIG)
    seen = []

    async def bench(ctx):
        at, word = write_word(PLACES["CONTROL"], 0b101)
        for cycle in range(10):  # nobody takes the answer
            for channel, payload in ((dut.axi.aw, at), (dut.axi.w, word)):
                ctx.set(channel.payload, payload)
                ctx.set(channel.valid, cycle == 0)
            _, _, control, valid = await ctx.tick().sample(dut.software.control, dut.axi.b.valid)
            seen.append((plain(control), valid))

    simulate(dut, bench)
    assert [valid for _, valid in seen] == [0, 0] + 8 * [1]
    assert [control["start"] for control, _ in seen] == [0, 0, 1] + 7 * [0]
    assert [control["irq_enable"] for control, _ in seen] == [0, 0] + 8 * [1]
    assert not any(control["abort"] for control, _ in seen)


@pytest.mark.parametrize("gaps", [(0, 0, 0, 0, 0), (0.7, 0, 0.3, 0, 0.5), (0, 0.6, 0, 0.4, 0.6)])
def test_writes_and_reads_at_the_same_time(gaps):
    """The channels know nothing of each other: addresses may be far ahead of data."""
    dut = RegisterFile(CONFIG)
    rng = rng_of(5)
    names = ["BASE_HIGH", "SIZE_LOW", "TIMEOUT", "ID", None]
    writes = [(pick(rng, names), between(rng, 0, 2**32 - 1)) for _ in range(60)]
    ends = dict(writes)
    reads = [pick(rng, ["ID", "CONFIG0", "CONFIG2", None]) for _ in range(60)]
    places = {**PLACES, None: 0x800}
    axi = dut.axi
    words = [write_word(places[name], value) for name, value in writes]
    sources = [
        Source(axi.aw, [at for at, _ in words], gap=gaps[0], seed=1),
        Source(axi.w, [word for _, word in words], gap=gaps[1], seed=2),
        Source(axi.ar, [{"addr": places[n]} for n in reads], gap=gaps[2], seed=3),
    ]
    b = Sink(axi.b, len(writes), gap=gaps[3], seed=4)
    r = Sink(axi.r, len(reads), gap=gaps[4], seed=5)

    async def last(ctx):
        await b.run(ctx)
        software = plain(ctx.get(dut.software))
        assert software["base_high"]["address"] == ends["BASE_HIGH"]
        assert software["size_low"]["bytes"] == ends["SIZE_LOW"]
        assert software["timeout"]["cycles"] == ends["TIMEOUT"]

    simulate(dut, last, r.run, background=[source.run for source in sources])
    answers = {"ID": SLVERR, None: DECERR}
    assert [word["resp"] for word in b.words] == [answers.get(name, OKAY) for name, _ in writes]
    assert r.words == [
        {"data": BUILD[name], "resp": OKAY} if name else {"data": 0, "resp": DECERR}
        for name in reads
    ]
    if not any(gaps):
        assert b.cycles == [2 + 2 * n for n in range(60)]
        assert r.cycles == [3 + 3 * n for n in range(60)]


def test_no_path_between_channels():
    """What comes in is seen outside in the next cycle at the earliest."""
    dut = RegisterFile(CONFIG)
    axi = dut.axi
    rng = rng_of(6)
    outputs = [axi.aw.ready, axi.w.ready, axi.ar.ready, axi.b.valid, axi.r.valid]
    outputs += [axi.b.payload, axi.r.payload, dut.software, dut.irq]

    async def bench(ctx):
        for _ in range(200):
            before = [plain(ctx.get(port)) for port in outputs]
            for channel in (axi.aw, axi.ar):
                ctx.set(channel.payload, {"addr": pick(rng, REGISTERS).offset})
                ctx.set(channel.valid, between(rng, 0, 1))
            ctx.set(axi.w.payload, {"data": between(rng, 0, 2**32 - 1), "strb": FULL})
            ctx.set(axi.w.valid, between(rng, 0, 1))
            for channel in (axi.b, axi.r):
                ctx.set(channel.ready, between(rng, 0, 1))
            ctx.set(dut.hardware.status.done, between(rng, 0, 1))
            assert [plain(ctx.get(port)) for port in outputs] == before
            await ctx.tick()

    simulate(dut, bench)
