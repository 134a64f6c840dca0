# SPDX-License-Identifier: Apache-2.0
"""The output stage against plain integers, with random gaps on every stream."""

import dataclasses

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from csp_algo import integers
from csp_hw.config import CspConfig
from csp_hw.output import CREDITS, INT32_LATENCY, INT32_WORDS, LATENCY, OutputStage
from csp_hw.ports import OutputType, filter_layout, sums_layout

CONFIG = CspConfig(rows=2, cols=4, depth=8, max_period=8, max_interleave=2, lookahead=4)
INT8, UINT8, INT32 = OutputType.INT8, OutputType.UINT8, OutputType.INT32
#: Cycles without a transfer after which a test gives up.
PATIENCE = 200


def ref_rhu(x, s):
    """Round half up."""
    return (x + (1 << (s - 1))) >> s if s else x


def ref_clip(x, low, high):
    """Saturate."""
    return min(max(x, low), high)


def ref_value(acc, filter_, acc_shift):
    """v = acc · 2^t + bias."""
    return (acc << acc_shift) + filter_["bias"]


def ref_added(byte, residual):
    """Give what a byte of a residual adds."""
    r = byte - 256 if residual["signed"] and byte > 127 else byte
    return ref_rhu(r * residual["mult"], residual["shift"])


def ref_result(value, filter_, layer, byte):
    """Give the byte that a filter leaves, ``byte`` being that of the residual."""
    z = ref_rhu(value * filter_["mult"], filter_["shift"])
    if layer.residual["enabled"]:
        z = ref_clip(z, -(2**15), 2**15 - 1) + ref_added(byte, layer.residual)
    if layer.relu:
        z = max(z, 0)
    low, high = {INT8: (-128, 127), UINT8: (0, 255)}[layer.out]
    return ref_clip(z, low, high) & 0xFF


def ref_words(layer, config):
    """Give the result words of a layer, each a list of bytes."""
    words = []
    live = [(chunk, accs) for chunk, alive, accs in layer.sums if alive]
    unused = [[0] * config.cols] * len(live)
    for (chunk, accs), added in zip(live, layer.added or unused, strict=True):
        filters = layer.filters[chunk * config.cols : (chunk + 1) * config.cols]
        values = [
            ref_value(acc, filter_, layer.acc_shift)
            for acc, filter_ in zip(accs, filters, strict=True)
        ]
        if layer.out == INT32:
            logits = [ref_clip(value, -(2**31), 2**31 - 1) for value in values]
            stream = b"".join(logit.to_bytes(4, "little", signed=True) for logit in logits)
            words += [list(stream[n : n + config.cols]) for n in range(0, len(stream), config.cols)]
        else:
            words.append(
                [
                    ref_result(value, filter_, layer, byte)
                    for value, filter_, byte in zip(values, filters, added, strict=True)
                ]
            )
    return words


#: Fields of the residual of a layer without one.
NO_RESIDUAL = {"enabled": 0, "signed": 0, "mult": 0, "shift": 0}


@dataclasses.dataclass(kw_only=True)
class Layer:
    """A layer's command, its parameters and the words that follow."""

    chunks: int
    acc_shift: int = 0
    relu: bool = False
    out: OutputType = INT8
    residual: dict = dataclasses.field(default_factory=NO_RESIDUAL.copy)
    filters: list  # of {"bias", "mult", "shift"}
    sums: list  # of (chunk, live, accs)
    added: list = dataclasses.field(default_factory=list)  # a word for each live one


@dataclasses.dataclass
class Gaps:
    """Shares of cycles in which the driver has nothing and the monitor takes nothing."""

    i: float = 0.0
    o: float = 0.0
    params: float = 0.0
    residual: float = 0.0


def command(layer):
    """Give the payload of a layer's command."""
    names = ("chunks", "acc_shift", "relu", "out", "residual")
    return {name: getattr(layer, name) for name in names}


class Bench:
    """The stage between a driver and a monitor, each with its own random gaps."""

    def __init__(self, layers, config, gaps, seed):
        self.dut = OutputStage(config)
        self.layers = layers
        self.gaps = gaps
        self.rngs = [np.random.default_rng([seed, n]) for n in range(3)]
        # What was seen: result words; cycles of the transfers on i, residual and o.
        self.cycle = 0
        self.words = []
        self.accepted = []
        self.added = []
        self.given = []

    async def send(self, ctx, port, payloads, gap, *, rng=0, patience=PATIENCE):
        cycles = []
        for payload in payloads:
            while self.rngs[rng].random() < gap:
                await ctx.tick()
            ctx.set(port.payload, payload)
            ctx.set(port.valid, 1)
            cycles.append(await self.transfer(ctx, port, patience))
            ctx.set(port.valid, 0)
        return cycles

    async def transfer(self, ctx, port, patience):
        for _ in range(patience):
            cycle = self.cycle
            _, _, ready = await ctx.tick().sample(port.ready)
            if ready:
                return cycle
        raise AssertionError("not accepted")

    async def add(self, ctx):
        """Offer all residuals one after the other, whatever layer is in work."""
        words = [word for layer in self.layers for word in layer.added]
        gap = self.gaps.residual
        self.added += await self.send(
            ctx, self.dut.residual, words, gap, rng=2, patience=20 * PATIENCE
        )

    async def drive(self, ctx):
        for layer in self.layers:
            ctx.set(self.dut.clear, 1)
            await ctx.tick()
            ctx.set(self.dut.clear, 0)
            ctx.set(self.dut.layer, command(layer))
            assert not ctx.get(self.dut.loaded)
            await self.send(ctx, self.dut.params, layer.filters, self.gaps.params)
            assert not ctx.get(self.dut.params.ready), "parameters beyond the layer's are taken"
            assert ctx.get(self.dut.loaded)
            # Words may follow the last parameter at once.
            payloads = [
                {"acc": accs, "chunk": chunk, "live": live} for chunk, live, accs in layer.sums
            ]
            self.accepted += await self.send(ctx, self.dut.i, payloads, self.gaps.i)
            # The next layer begins as soon as it may.
            for _ in range(PATIENCE):
                if not ctx.get(self.dut.busy):
                    break
                await ctx.tick()
        # A word too many would come out now.
        await ctx.tick().repeat(16)
        assert not ctx.get(self.dut.busy)

    async def watch(self, ctx):
        dut, held = self.dut, None
        while True:
            ctx.set(dut.o.ready, self.rngs[1].random() >= self.gaps.o)
            cycle = self.cycle
            _, _, valid, ready, payload, busy = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload, dut.busy
            )
            payload = list(payload) if valid else None
            assert held in (None, payload), "a word on offer changed"
            held = payload if valid and not ready else None
            assert busy or not valid
            if valid and ready:
                self.words.append(payload)
                self.given.append(cycle)

    async def count(self, ctx):
        async for _ in ctx.tick():
            self.cycle += 1

    def run(self):
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self.drive)
        simulator.add_testbench(self.watch, background=True)
        simulator.add_testbench(self.add, background=True)
        simulator.add_testbench(self.count, background=True)
        simulator.run()


def check(layers, config=CONFIG, *, gaps=None, seed=0):
    """Compare the stage with the reference, word by word; give what was seen."""
    bench = Bench(layers, config, gaps or Gaps(), seed)
    bench.run()
    assert bench.words == [word for layer in layers for word in ref_words(layer, config)]
    assert len(bench.added) == sum(len(layer.added) for layer in layers)
    return bench


def pick(rng, items):
    """Give one of some items."""
    return items[rng.integers(len(items))]


def between(rng, low, high):
    """Give an integer, low … high - 1."""
    return int(rng.integers(low, high))


def random_filter(rng, *, acc_shift, acc_bits):
    """Give parameters whose results spread over the output range, or are extreme."""
    bias = pick(rng, [0, 1, -1, 2**31 - 1, -(2**31), between(rng, -(2**20), 2**20)])
    mult = pick(rng, [0, 1, 0x8000, 0xFFFF, between(rng, 2**15, 2**16)])
    near = acc_bits + acc_shift + 16 - 9
    shift = pick(rng, [0, 1, 7, 8, 46, 47, min(47, max(0, near + between(rng, -10, 4)))])
    return {"bias": bias, "mult": mult, "shift": shift}


def random_acc(rng, bits):
    """Give a partial sum, often an extreme one."""
    limit = 2 ** (bits - 1)
    return pick(
        rng, [0, 1, -1, limit - 1, -limit, between(rng, -limit, limit), between(rng, -100, 100)]
    )


def random_residual(rng):
    """Give the fields of a residual whose share of the results is small, large or extreme."""
    return {
        "enabled": 1,
        "signed": between(rng, 0, 2),
        "mult": pick(rng, [0, 0x8000, 0xFFFF, between(rng, 2**15, 2**16)]),
        "shift": pick(rng, [0, 1, 7, 8, 47, between(rng, 8, 18), between(rng, 14, 18)]),
    }


def random_layer(rng, config, *, words=40, out=None, acc_shift=None, live=0.8, residual=None):
    """Give a layer with any parameters that the contract allows."""
    out = pick(rng, list(OutputType)) if out is None else out
    if acc_shift is None:
        acc_shift = between(rng, 0, min(15, 32 - config.acc_bits) + 1)
    chunks = pick(rng, [1, config.depth, between(rng, 1, config.depth + 1)])
    filters = [
        random_filter(rng, acc_shift=acc_shift, acc_bits=config.acc_bits)
        for _ in range(chunks * config.cols)
    ]
    sums = []
    for n in range(words):
        chunk = pick(rng, [n % chunks, chunks - 1, between(rng, 0, chunks)])
        accs = [random_acc(rng, config.acc_bits) for _ in range(config.cols)]
        sums.append((chunk, rng.random() < live, accs))
    added = []
    fields = NO_RESIDUAL
    if residual or (residual is None and out != INT32 and rng.random() < 0.5):
        fields = random_residual(rng)
        added = [
            [pick(rng, [0, 127, 128, 255, between(rng, 0, 256)]) for _ in range(config.cols)]
            for _, alive, _ in sums
            if alive
        ]
    return Layer(
        chunks=chunks,
        acc_shift=acc_shift,
        relu=rng.random() < 0.5,
        out=out,
        residual=fields,
        filters=filters,
        sums=sums,
        added=added,
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("out", list(OutputType))
def test_random_layers(out, seed):
    rng = np.random.default_rng(seed)
    layers = [
        random_layer(rng, CONFIG, out=out),
        random_layer(rng, CONFIG),
        random_layer(rng, CONFIG, out=out),
    ]
    gaps = Gaps(*(pick(rng, [0.0, 0.3, 0.8]) for _ in range(4)))
    check(layers, gaps=gaps, seed=seed)


@pytest.mark.parametrize("acc_shift", range(9))
def test_run_shifts(acc_shift):
    rng = np.random.default_rng(acc_shift)
    check([random_layer(rng, CONFIG, acc_shift=acc_shift, live=1) for _ in range(3)])


@pytest.mark.parametrize(
    ("acc_bits", "acc_shift"), [(8, 15), (8, 0), (16, 15), (17, 15), (24, 8), (32, 0)]
)
def test_widths_of_sums(acc_bits, acc_shift):
    config = CONFIG.replace(acc_bits=acc_bits)
    rng = np.random.default_rng(acc_bits)
    layers = [random_layer(rng, config, out=out, acc_shift=acc_shift, live=1) for out in OutputType]
    check(layers, config)


def test_eight_columns():
    config = CONFIG.replace(cols=8, depth=4)
    rng = np.random.default_rng(8)
    layers = [random_layer(rng, config, out=out) for out in OutputType]
    check(layers, config, gaps=Gaps(0.3, 0.3, 0.3))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("out", [INT8, UINT8])
def test_every_shift_around_the_limits(out, relu):
    # For every shift, sums that land on, just below and just above each limit and each half.
    config = CONFIG.replace(acc_bits=32, depth=64)
    targets = [-129, -128, -127, -1, 0, 1, 126, 127, 128, 254, 255, 256]
    filters, sums = [], []
    for shift in range(48):
        mult = 1 if shift < 16 else 0x8000
        filters += [{"bias": c - 2, "mult": mult, "shift": shift} for c in range(config.cols)]
        edges = {((2 * z - 1) << shift) // (2 * mult) + d for z in targets for d in (0, 1, 2)}
        for edge in sorted(edges):
            acc = min(max(edge, -(2**31)), 2**31 - 1)
            sums.append((shift, 1, [acc] * config.cols))
    layer = Layer(chunks=48, relu=relu, out=out, filters=filters, sums=sums)
    seen = {byte for word in ref_words(layer, config) for byte in word}
    assert {0, 1, 127} <= seen
    check([layer], config)


def test_extremes_saturate():
    limit = 2**23
    filters = [
        {"bias": bias, "mult": mult, "shift": shift}
        for bias in (2**31 - 1, -(2**31))
        for mult in (0, 0xFFFF)
        for shift in (0, 47)
    ]
    sums = [(chunk, 1, [acc] * CONFIG.cols) for chunk in (0, 1) for acc in (limit - 1, -limit, 0)]
    for out in (INT8, UINT8):
        for relu in (False, True):
            layer = Layer(chunks=2, acc_shift=8, relu=relu, out=out, filters=filters, sums=sums)
            check([layer])


@pytest.mark.parametrize("out", list(OutputType))
def test_reference_agrees_with_the_integers_of_csp_algo(out):
    rng = np.random.default_rng(0)
    for _ in range(20):
        layer = random_layer(rng, CONFIG, out=out, live=1)
        layer.relu &= out != INT32
        got = np.array(ref_words(layer, CONFIG), dtype=np.uint8)
        chunks = np.array([chunk for chunk, _, _ in layer.sums])
        fields = {
            name: np.array([f[name] for f in layer.filters]).reshape(layer.chunks, -1)[chunks]
            for name in ("bias", "mult", "shift")
        }
        accs = np.array([accs for _, _, accs in layer.sums])
        v = integers.affine(accs, layer.acc_shift, fields["bias"])
        dtype = integers.ActDtype(out.name.lower())
        residual = None
        if layer.residual["enabled"]:
            added = np.array(layer.added, dtype=np.uint8)
            added = added.view(np.int8) if layer.residual["signed"] else added
            residual = integers.rescale(added, layer.residual["mult"], layer.residual["shift"])
        z = integers.requantise(
            v, fields["mult"], fields["shift"], dtype, relu=layer.relu, residual=residual
        )
        np.testing.assert_array_equal(got.ravel(), z.astype(dtype.numpy).view(np.uint8).ravel())


def test_dead_words_leave_nothing():
    rng = np.random.default_rng(1)
    for out in OutputType:
        layer = random_layer(rng, CONFIG, out=out, words=12, live=0)
        bench = check([layer])
        first = bench.accepted[0]
        assert bench.accepted == list(range(first, first + 12)), "a dead word costs one cycle"
        assert not bench.given


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("out", [INT8, UINT8])
def test_latency_and_throughput(out, residual):
    rng = np.random.default_rng(2)
    layer = random_layer(rng, CONFIG, out=out, words=60, live=1, residual=residual)
    bench = check([layer])
    first = bench.accepted[0]
    assert bench.accepted == list(range(first, first + 60))
    assert bench.given == [cycle + LATENCY for cycle in bench.accepted]


def test_a_late_residual_holds_its_word_back():
    rng = np.random.default_rng(5)
    layer = random_layer(rng, CONFIG, out=INT8, words=60, live=0.5, residual=True)
    bench = check([layer], gaps=Gaps(residual=0.7))
    live = [cycle for cycle, word in zip(bench.accepted, layer.sums, strict=True) if word[1]]
    # One word may wait; what comes behind it, dead or not, is taken once it can go on.
    due = list(map(max, live, bench.added))
    assert bench.given == [cycle + LATENCY for cycle in due]
    assert all(before < cycle for before, cycle in zip(bench.added, live[1:], strict=False))
    # Residuals come one ahead at most.
    assert all(cycle <= after for cycle, after in zip(live, bench.added[2:], strict=False))


def test_a_residual_that_came_early_waits_for_its_layer():
    rng = np.random.default_rng(7)
    layers = [random_layer(rng, CONFIG, out=UINT8, words=9, residual=n != 1) for n in range(3)]
    bench = check(layers)
    assert len(layers[0].added) + len(layers[2].added) == len(bench.added)


def test_int32_words_leave_nothing_for_the_next_layer():
    rng = np.random.default_rng(8)
    layers = [random_layer(rng, CONFIG, out=out, words=5, live=1) for out in (INT32, INT8, INT32)]
    layers[1].chunks, layers[1].filters = 1, layers[1].filters[:4]
    layers[1].sums = [(0, live, accs) for _, live, accs in layers[1].sums]
    check(layers)


def test_dead_words_need_no_residual():
    rng = np.random.default_rng(6)
    layer = random_layer(rng, CONFIG, out=UINT8, words=30, live=0, residual=True)
    layer.sums[4] = (layer.sums[4][0], True, layer.sums[4][2])
    layer.added = [[1, 2, 3, 4]]
    bench = check([layer])
    first = bench.accepted[0]
    assert bench.accepted == list(range(first, first + 30))


@pytest.mark.parametrize("signed", [0, 1])
def test_z_is_clipped_to_16_bits_before_a_residual_is_added(signed):
    # z lands around the limits of 16 bits; what is added brings it back into the output's range.
    config = CONFIG.replace(acc_bits=32)
    ends = [2**15 - 1, 2**15, 2**15 + 200, 2**23, -(2**15), -(2**15) - 1, -(2**15) - 200, -(2**23)]
    for shift in (0, 3, 7, 8, 13, 16):
        sums = [(0, 1, [min(max(end << shift, -(2**31)), 2**31 - 1)] * 4) for end in ends]
        # With mult = 2^15 and shift 7 a byte counts 256-fold: r = ±128 makes ±2^15.
        residual = {"enabled": 1, "signed": signed, "mult": 2**15, "shift": 7}
        layer = Layer(
            chunks=1,
            residual=residual,
            filters=[{"bias": c - 2, "mult": 1, "shift": shift} for c in range(4)],
            sums=sums,
            added=[[0x80] * 4 for _ in sums],
        )
        found = {value for word in ref_words(layer, config) for value in word}
        assert len(found) > 1
        check([layer], config)


def test_every_shift_of_a_residual():
    # Sums of zero: what leaves is the residual alone, on and beside each half.
    layers = []
    for shift in range(48):
        added = [[between(np.random.default_rng(shift), 0, 256), 1, 128, 255] for _ in range(3)]
        mult = 0x8000 + shift
        layers.append(
            Layer(
                chunks=1,
                residual={"enabled": 1, "signed": shift & 1, "mult": mult, "shift": shift},
                out=pick(np.random.default_rng(shift), [INT8, UINT8]),
                filters=[{"bias": 0, "mult": 0, "shift": 0}] * 4,
                sums=[(0, 1, [0] * 4)] * 3,
                added=added,
            )
        )
    check(layers)


def test_latency_and_throughput_of_int32():
    layer = random_layer(np.random.default_rng(3), CONFIG, out=INT32, words=30, live=1)
    bench = check([layer])
    first = bench.accepted[0]
    assert bench.accepted == list(range(first, first + 4 * 30, 4))
    assert bench.given == [
        cycle + INT32_LATENCY + w for cycle in bench.accepted for w in range(INT32_WORDS)
    ]


@pytest.mark.parametrize("out", list(OutputType))
def test_blocked_output_holds_a_full_buffer(out):
    # Nothing leaves for a while: as many words get in as the buffer can hold, and none is lost.
    rng = np.random.default_rng(4)
    layer = random_layer(rng, CONFIG, out=out, words=40, live=1, residual=False)
    dut = OutputStage(CONFIG)
    accepted, words = [], []

    async def driver(ctx):
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        ctx.set(dut.layer, command(layer))
        for filter_ in layer.filters:
            ctx.set(dut.params.payload, filter_)
            ctx.set(dut.params.valid, 1)
            await ctx.tick().until(dut.params.ready)
        ctx.set(dut.params.valid, 0)
        for chunk, live, accs in layer.sums:
            ctx.set(dut.i.payload, {"acc": accs, "chunk": chunk, "live": live})
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            accepted.append(chunk)
        ctx.set(dut.i.valid, 0)

    async def monitor(ctx):
        await ctx.tick().repeat(150)
        assert len(accepted) == (CREDITS // INT32_WORDS if out == INT32 else CREDITS)
        ctx.set(dut.o.ready, 1)
        while len(words) < len(ref_words(layer, CONFIG)):
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid:
                words.append(list(payload))
        assert not ctx.get(dut.busy)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(driver)
    simulator.add_testbench(monitor)
    simulator.run()
    assert words == ref_words(layer, CONFIG)


def test_nothing_moves_before_the_first_layer_or_before_the_parameters():
    dut = OutputStage(CONFIG)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.params.valid, 1)
        ctx.set(dut.layer.chunks, 2)
        for _ in range(8):
            _, _, ready, params, loaded = await ctx.tick().sample(
                dut.i.ready, dut.params.ready, dut.loaded
            )
            assert (ready, params, loaded) == (0, 0, 0)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        for _ in range(2 * CONFIG.cols):
            _, _, ready, params, loaded = await ctx.tick().sample(
                dut.i.ready, dut.params.ready, dut.loaded
            )
            assert (ready, params, loaded) == (0, 1, 0)
        assert ctx.get(dut.loaded)
        assert not ctx.get(dut.params.ready)
        # A second layer forgets them.
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        assert not ctx.get(dut.loaded)
        assert not ctx.get(dut.i.ready)
        assert ctx.get(dut.params.ready)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_layouts_of_the_ports():
    # The widths are the contract with whatever drives the streams.
    assert filter_layout().size == 54
    assert sums_layout(CONFIG).size == 4 * 24 + 3 + 1


def test_four_multipliers_a_column():
    text = rtlil.convert(OutputStage(CONFIG))
    assert text.count("$mul") == 4 * CONFIG.cols
