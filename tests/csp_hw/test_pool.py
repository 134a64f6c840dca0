# SPDX-License-Identifier: Apache-2.0
"""The pooler against the golden model, map after map in one simulation, with random gaps."""

import dataclasses

import numpy as np
import pytest

from csp_algo.integers import ActDtype
from csp_algo.network import AvgPool, MaxPool
from csp_hw.config import CspConfig
from csp_hw.pool.pooler import CREDITS, LATENCY, Pooler
from csp_hw.ports import PoolKind, pool_layout
from sim import golden
from tests.csp_hw.bench import Sink, Source, between, chance, pick, rng_of, simulate

COLS = 4
CONFIG = CspConfig(
    rows=2, cols=COLS, depth=8, max_period=8, max_interleave=2, lookahead=4, pool_words=64
)
INT8, UINT8 = ActDtype.INT8, ActDtype.UINT8


def pool_of(average, shape, kernel, stride, padding=(0, 0, 0, 0), *, ceil_mode=False, counts=False):
    """Give a node; an average's multipliers have as many bits as they may have."""
    fields = {"name": "pool", "input": "x", "kernel": kernel, "stride": stride}
    fields |= {"padding": padding, "ceil_mode": ceil_mode}
    if not average:
        return MaxPool(**fields)
    node = AvgPool(**fields, count_include_pad=counts, shift=0)
    shift = 15 + (int(node.divisors(shape).min()) - 1).bit_length()
    return dataclasses.replace(node, shift=shift)


def inside(node, size, axis, number):
    """Give how many positions of a window lie inside the map, up to 3."""
    start = number * node.stride[axis] - node.padding[axis]
    return min(3, min(start + node.kernel[axis], size) - max(start, 0))


def multipliers(node, shape):
    """Give pmult by lines and columns inside; None if there are windows for which they differ."""
    found = {}
    for (y, x), mult in np.ndenumerate(node.multipliers(shape)):
        lines, columns = inside(node, shape[0], 0, y), inside(node, shape[1], 1, x)
        if found.setdefault((lines - 1) * 3 + columns - 1, int(mult)) != mult:
            return None
    return [found.get(n, 0) for n in range(9)]


def pads_after(node, shape):
    """Give the positions that windows reach beyond the map, (bottom, right)."""
    counts = node.out_shape(shape)
    return tuple(
        max(
            0,
            (counts[axis] - 1) * node.stride[axis]
            + node.kernel[axis]
            - node.padding[axis]
            - shape[axis],
        )
        for axis in (0, 1)
    )


def words_of(maps):
    """Give a map as words, channels padded with zeros."""
    padded = np.pad(maps, ((0, 0), (0, 0), (0, 0), (0, -maps.shape[3] % COLS)))
    return padded.view(np.uint8).reshape(-1, COLS).tolist()


class Layer:
    """A map, what is asked and what must come out."""

    def __init__(self, node, maps):
        shape = maps.shape[1:]
        self.inputs = words_of(maps)
        bottom, right = pads_after(node, shape)
        average = isinstance(node, AvgPool)
        self.fields = {
            "kind": PoolKind.AVERAGE if average else PoolKind.MAX,
            "signed": int(maps.dtype == np.int8),
            "words": -(-shape[2] // COLS),
            "images": len(maps),
            "height": shape[0],
            "width": shape[1],
            "kernel_h": node.kernel[0],
            "kernel_w": node.kernel[1],
            "stride_h": node.stride[0],
            "stride_w": node.stride[1],
            "pad_top": node.padding[0],
            "pad_left": node.padding[1],
            "pad_bottom": bottom,
            "pad_right": right,
        }
        if average:
            self.fields |= {"mults": multipliers(node, shape), "shift": node.shift}
        pool = golden._average_pool if average else golden._max_pool
        self.outputs = words_of(pool(node, maps))
        lines, line = shape[0] + node.padding[0] + bottom, shape[1] + node.padding[1] + right
        self.steps = len(maps) * lines * line * self.fields["words"]


class Passing:
    """Words that are not pooled; the other fields hold anything."""

    def __init__(self, rng, count):
        self.inputs = self.outputs = rng.integers(0, 256, (count, COLS)).tolist()
        layout = pool_layout(CONFIG)
        self.fields = {
            name: int(rng.integers(0, 1 << min(field.width, 30)))
            for name, field in layout
            if name not in ("kind", "mults")
        }
        self.fields["kind"] = PoolKind.NONE


class Run:
    """Layers one after the other; a layer's words are offered before it begins, if they may be."""

    def __init__(self, layers, *, gaps=(0.0, 0.0), seed=0):
        self.layers = layers
        self.dut = Pooler(CONFIG)
        self.begun = 0
        self.sources = [
            Source(self.dut.i, layer.inputs, gap=gaps[0], seed=100 * seed + n)
            for n, layer in enumerate(layers)
        ]
        outputs = sum(len(layer.outputs) for layer in layers)
        self.sink = Sink(self.dut.o, outputs, gap=gaps[1], seed=seed)
        self.cycle = 0

    async def control(self, ctx):
        for layer in self.layers:
            ctx.set(self.dut.pool, layer.fields)
            ctx.set(self.dut.start, 1)
            await ctx.tick()
            ctx.set(self.dut.start, 0)
            self.begun += 1
            if isinstance(layer, Passing):
                while not self.sources[self.begun - 1].cycles[len(layer.inputs) - 1 :]:
                    await ctx.tick()
            while ctx.get(self.dut.busy):
                await ctx.tick()

    def must_wait(self, number):
        """Whether words may not be offered yet, since they would be taken for others."""
        passing = [isinstance(layer, Passing) for layer in self.layers[max(0, number - 1) :][:2]]
        return any(passing[: number + 1]) and self.begun <= number

    async def feed(self, ctx):
        for number, source in enumerate(self.sources):
            while self.must_wait(number):
                await ctx.tick()
            source.cycle = self.cycle
            await source.run(ctx)

    async def count(self, ctx):
        async for _ in ctx.tick():
            self.cycle += 1

    def play(self, cycles=40_000):
        simulate(
            self.dut,
            self.sink.run,
            self.control,
            background=[self.count, self.feed],
            cycles=cycles,
        )
        assert self.sink.words == [word for layer in self.layers for word in layer.outputs]
        return self


def random_maps(rng, shape, dtype):
    """Give values of the whole range, many at its ends."""
    maps = rng.integers(dtype.low, dtype.high + 1, shape)
    extreme = rng.random(shape) < 0.3
    maps[extreme] = rng.choice([dtype.low, dtype.high], size=shape)[extreme]
    if chance(rng, 0.2):
        maps[...] = pick(rng, [dtype.low, dtype.high])
    return maps.astype(dtype.numpy)


def random_axis(rng):
    """Give kernel, stride and padding on both sides."""
    kernel = pick(rng, [1, 2, 2, 3, 3, between(rng, 1, 7)])
    stride = between(rng, kernel, kernel + 2)
    if kernel in (2, 3) and chance(rng, 0.6):
        stride = between(rng, 1, kernel - 1)
    return kernel, stride, between(rng, 0, kernel - 1), between(rng, 0, kernel - 1)


def random_layer(rng, *, average=None, dtype=None):
    """Give a layer of any geometry within the limits."""
    if average is None and chance(rng, 0.15):
        return Passing(rng, between(rng, 1, 40))
    average = chance(rng, 0.6) if average is None else average
    dtype = pick(rng, [INT8, UINT8]) if dtype is None else dtype
    while True:
        axes = [random_axis(rng), random_axis(rng)]
        kernel, stride = (tuple(axis[n] for axis in axes) for n in (0, 1))
        padding = (axes[0][2], axes[1][2], axes[0][3], axes[1][3])
        size = [
            between(rng, max(1, axis[0] - axis[2] - axis[3]), axis[0] + between(rng, 0, 7))
            for axis in axes
        ]
        shape = (*size, between(rng, 1, pick(rng, [COLS, 3 * COLS, 6 * COLS])))
        modes = {"ceil_mode": chance(rng, 0.5), "counts": chance(rng, 0.5)}
        node = pool_of(average, shape, kernel, stride, padding, **modes)
        if node.out_shape(shape)[1] * -(-shape[2] // COLS) > CONFIG.pool_words:
            continue
        if average and multipliers(node, shape) is None:
            continue
        if average and kernel[0] > stride[0] and kernel[1] > 4:
            continue
        return Layer(node, random_maps(rng, (between(rng, 1, 3), *shape), dtype))


@pytest.mark.parametrize("seed", range(6))
def test_random_pools_in_a_row(seed):
    rng = rng_of(seed)
    gaps = [(0.0, 0.0), (0.3, 0.3), (0.0, 0.7), (0.7, 0.0), (0.3, 0.8), (0.0, 0.0)][seed]
    Run([random_layer(rng) for _ in range(12)], gaps=gaps, seed=seed).play()


#: Poolings of real networks: kernel, stride, padding, ceil mode.
USUAL = {
    "2x2 s2": ((2, 2), (2, 2), (0, 0, 0, 0), False),
    "2x2 s2 ceil": ((2, 2), (2, 2), (0, 0, 0, 0), True),
    "3x3 s2": ((3, 3), (2, 2), (0, 0, 0, 0), False),
    "3x3 s2 p1": ((3, 3), (2, 2), (1, 1, 1, 1), False),
    "3x3 s2 ceil": ((3, 3), (2, 2), (0, 0, 0, 0), True),
    "3x3 s2 p1 ceil": ((3, 3), (2, 2), (1, 1, 1, 1), True),
    "3x3 s1 p1": ((3, 3), (1, 1), (1, 1, 1, 1), False),
    "5x5 s5": ((5, 5), (5, 5), (0, 0, 0, 0), False),
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_pools(name):
    kernel, stride, padding, ceil_mode = USUAL[name]
    rng = rng_of(len(name), 1)
    layers = []
    for size, dtype, average, counts in (
        ((8, 8), INT8, True, True),
        ((7, 8), INT8, True, False),
        ((8, 7), INT8, False, False),
        ((6, 6), UINT8, True, True),
        ((9, 7), UINT8, False, False),
    ):
        shape = (*size, 7)
        modes = {"ceil_mode": ceil_mode, "counts": counts}
        node = pool_of(average, shape, kernel, stride, padding, **modes)
        layers.append(Layer(node, random_maps(rng, (2, *shape), dtype)))
    Run(layers).play()


@pytest.mark.parametrize("words", range(1, 7))
def test_the_same_entry_again_and_again(words):
    # An entry comes again after 1 … 6 cycles along x, and, windows being as wide, along y.
    rng = rng_of(words, 2)
    layers = []
    for width in (1, 2, 3):
        for average in (False, True):
            shape = (5, width, words * COLS)
            for kernel in ((2, width), (3, 1)):
                for stride in (1, kernel[0]):
                    node = pool_of(average, shape, kernel, (stride, kernel[1]))
                    layers.append(Layer(node, random_maps(rng, (1, *shape), INT8)))
    Run(layers).play()


def test_a_line_of_windows_fills_what_is_kept():
    # Along y there is an entry for each of 64 words of windows; the line itself has more words.
    rng = rng_of(10)
    layers = []
    for width, words, kernel, stride in (
        (128, 1, 2, 2),
        (33, 4, 3, 2),
        (64, 1, 1, 1),
        (6, 32, 3, 3),
    ):
        for average in (False, True):
            shape = (4, width, words * COLS)
            node = pool_of(average, shape, (2, kernel), (pick(rng, [1, 2]), stride))
            assert node.out_shape(shape)[1] * words == CONFIG.pool_words
            layers.append(Layer(node, random_maps(rng, (1, *shape), UINT8)))
    Run(layers).play()


def test_global_pools():
    rng = rng_of(3)
    layers = []
    for size in ((1, 1), (7, 7), (4, 11)):
        for average, dtype in ((True, INT8), (True, UINT8), (False, INT8)):
            shape = (*size, 6)
            node = pool_of(average, shape, size, size)
            layers.append(Layer(node, random_maps(rng, (2, *shape), dtype)))
    Run(layers).play()


@pytest.mark.parametrize(("dtype", "value"), [(INT8, -128), (UINT8, 255)])
def test_the_largest_windows(dtype, value):
    # The sums of 63 × 63 extreme values need all bits, and those of a line too.
    rng = rng_of(4)
    maps = np.full((1, 63, 63, 1), value, dtype=dtype.numpy)
    layers = [Layer(pool_of(True, maps.shape[1:], (63, 63), (63, 63)), maps)]
    # Overlapping lines of as many values as an average may have; strides of 63.
    for size, kernel, stride in (
        ((5, 9), (3, 4), (1, 4)),
        ((66, 1), (2, 1), (63, 1)),
        ((2, 65), (2, 1), (1, 63)),
    ):
        shape = (*size, 2)
        node = pool_of(True, shape, kernel, stride)
        layers.append(Layer(node, np.full((1, *shape), value, dtype=dtype.numpy)))
        layers.append(Layer(node, random_maps(rng, (1, *shape), dtype)))
    Run(layers).play()


def test_a_mean_above_the_type_saturates():
    # The shift is too small by three: eight times the mean leaves.
    for dtype in (INT8, UINT8):
        shape = (2, 6, 4)
        node = pool_of(True, shape, (2, 2), (2, 2))
        maps = random_maps(rng_of(5), (2, *shape), dtype)
        layer = Layer(node, maps)
        layer.fields["shift"] -= 3
        sums = maps.astype(np.int64).reshape(2, 2, 3, 2, 4).sum(axis=(1, 3))
        outputs = np.clip(2 * sums, dtype.low, dtype.high).astype(dtype.numpy)
        layer.outputs = words_of(outputs.reshape(2, 1, 3, 4))
        saturated = {INT8: {0x80, 0x7F}, UINT8: {0xFF}}[dtype]
        assert saturated <= {byte for word in layer.outputs for byte in word}
        Run([layer]).play()


def reaches_the_end(node, shape):
    """Whether a window ends with the last position."""
    reach = [size + node.padding[n] for n, size in enumerate(shape[:2])]
    reach = [size + after for size, after in zip(reach, pads_after(node, shape), strict=True)]
    return all((reach[n] - node.kernel[n]) % node.stride[n] == 0 for n in (0, 1))


@pytest.mark.parametrize("name", ["2x2 s2", "3x3 s2 p1 ceil", "3x3 s1 p1"])
def test_one_word_a_cycle(name):
    kernel, stride, padding, ceil_mode = USUAL[name]
    shape = (7, 8, 7)
    node = pool_of(True, shape, kernel, stride, padding, ceil_mode=ceil_mode)
    layer = Layer(node, random_maps(rng_of(6), (2, *shape), INT8))
    run = Run([layer]).play()
    (source,) = run.sources
    top, left, _, _ = padding
    bottom, right = pads_after(node, shape)
    # Every position takes a cycle, also between images.
    expected = [
        (((image * (7 + top + bottom) + top + y) * (8 + left + right)) + left + x) * 2 + word
        for image, y, x, word in np.ndindex(2, 7, 8, 2)
    ]
    first = source.cycles[0] - expected[0]
    assert source.cycles == [first + step for step in expected]
    if reaches_the_end(node, shape):
        assert run.sink.cycles[-1] == first + layer.steps - 1 + LATENCY


def test_words_that_pass_take_a_cycle_each():
    rng = rng_of(7)
    run = Run([Passing(rng, 100)]).play()
    (source,) = run.sources
    assert source.cycles == list(range(source.cycles[0], source.cycles[0] + 100))
    assert run.sink.cycles == [cycle + LATENCY for cycle in source.cycles]


@pytest.mark.parametrize("passing", [False, True])
def test_blocked_output_loses_nothing(passing):
    rng = rng_of(8)
    shape = (9, 9, 4)
    node = pool_of(True, shape, (3, 3), (1, 1), (1, 1, 1, 1))
    layer = Passing(rng, 81) if passing else Layer(node, random_maps(rng, (1, *shape), UINT8))
    run = Run([layer])
    taken = []
    free = run.sink.run

    async def blocked(ctx):
        await ctx.tick().repeat(200)
        taken.append(len(run.sources[0].cycles))
        await free(ctx)

    run.sink.run = blocked
    run.play()
    # As many words as have places, or nearly so; the last of a window's words is a line further.
    assert CREDITS - 4 <= taken[0] - (0 if passing else 10 + 2) <= CREDITS


def test_nothing_is_taken_before_the_start():
    dut = Pooler(CONFIG)
    rng = rng_of(9)
    shape = (2, 2, 4)
    layer = Layer(pool_of(False, shape, (2, 2), (2, 2)), random_maps(rng, (1, *shape), INT8))

    async def bench(ctx):
        ctx.set(dut.pool, layer.fields)
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.o.ready, 1)
        for _ in range(2):  # the second map is as good as the first
            for _ in range(9):
                assert not ctx.get(dut.i.ready)
                assert not ctx.get(dut.busy)
                await ctx.tick()
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            taken = 0
            for _ in range(60):
                taken += ctx.get(dut.i.ready)
                await ctx.tick()
            assert taken == 4

    simulate(dut, bench)
