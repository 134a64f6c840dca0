# SPDX-License-Identifier: Apache-2.0
"""Passes for the feeder: what goes in, and what must come out, from a schedule of the layer."""

import dataclasses
import itertools

import numpy as np
from amaranth import ResetInserter, Signal

from csp_algo.geometry import Geometry
from csp_hw.feeder import Feeder
from sim.schedule import Schedule
from sim.tiling import Tile
from tests.csp_hw.bench import Sink, Source, between, pick, simulate
from tests.strategies import random_layer


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """One pass over a map: the streams of the feeder, in plain integers."""

    schedule: Schedule
    inputs: np.ndarray
    ring_bits: int

    @property
    def first_beat(self):
        """The beat of a pixel with the group's first channel."""
        return self.schedule.group * self._channels // self.schedule.config.cols

    @property
    def beats(self):
        """Words of a pixel that hold the group's channels, with its neighbours' in them."""
        return beats_of(self.schedule)

    @property
    def _channels(self):
        return self.schedule.layer.geometry.group_channels

    def fields(self):
        """Give the geometry."""
        geometry, grid = self.schedule.layer.geometry, self.schedule.grid
        height, width, _ = geometry.in_shape
        return {
            "beats": self.beats,
            "ring_bits": self.ring_bits,
            "images": grid.images,
            "height": height,
            "width": width,
            "out_height": grid.height,
            "out_width": grid.width,
            "lines": grid.lines,
            "pitch": grid.pitch,
            "stride_y": geometry.stride[0].bit_length() - 1,
            "stride_x": geometry.stride[1].bit_length() - 1,
            "dilation_y": geometry.dilation[0],
            "dilation_x": geometry.dilation[1],
            "kernel_h": geometry.kernel[0],
            "kernel_w": geometry.kernel[1],
            "pad_top": geometry.padding[0],
            "pad_left": geometry.padding[1],
        }

    def words_in(self):
        """Give the beats of the map."""
        cols = self.schedule.config.cols
        maps = self.inputs.view(np.uint8)[..., self.first_beat * cols :]
        maps = maps[..., : self.beats * cols]
        missing = self.beats * cols - maps.shape[-1]
        padded = np.pad(maps, ((0, 0), (0, 0), (0, 0), (0, missing)))
        return padded.reshape(-1, cols).tolist()

    def entries(self):
        """Give the list of tiles."""
        rows = self.schedule.config.rows
        return [
            {"group": tile.base // rows, "interleave": tile.interleave}
            for tile in self.schedule.tiles
        ]

    def positions(self):
        """Give the surviving taps of all tiles."""
        schedule = self.schedule
        width, cols = schedule.layer.geometry.kernel[1], schedule.config.cols
        taps = []
        for tap in schedule.survivors.tolist():
            kernel, channel = divmod(tap, self._channels)
            channel += schedule.group * self._channels - self.first_beat * cols
            taps.append(position(*divmod(kernel, width), *divmod(channel, cols)))
        taps = taps or [position(0, 0, 0, 0) | {"empty": 1}]
        taps[-1] |= {"end": 1}
        return taps * len(schedule.tiles)

    def commands(self):
        """Give the commands of the tiles."""
        schedule = self.schedule
        return [
            {
                "interleave": tile.interleave,
                "live": sum(1 << int(n) for n in np.flatnonzero(schedule.live(tile))),
            }
            for tile in schedule.tiles
        ]

    def words(self):
        """Give the activation words of all tiles."""
        return [word for tile in self.schedule.activations(self.inputs) for word in tile.tolist()]


def position(r, s, beat, byte):
    return {"r": r, "s": s, "beat": beat, "byte": byte, "empty": 0, "end": 0}


def beats_of(schedule):
    channels, cols = schedule.layer.geometry.group_channels, schedule.config.cols
    first, last = schedule.group * channels, (schedule.group + 1) * channels - 1
    return last // cols - first // cols + 1


def slots_needed(schedule):
    """Give the slots without which some tile would wait for ever.

    A plain walk over the map: a tile waits until all below some number is complete; what is stored
    by then must lie less than a ring beyond the lowest position that the tile may read.
    """
    geometry, grid, rows = schedule.layer.geometry, schedule.grid, schedule.config.rows
    height, width, _ = geometry.in_shape
    down, right = geometry.stride
    stored, complete = [], []  # numbers; what is complete before each
    for image in range(grid.images):
        for y in range(height):
            line = (image * grid.lines + y // down) * grid.pitch
            last_phase = y % down == down - 1 or y == height - 1
            for x in range(width):
                stored.append(line + x // right)
                complete.append(line + (x // right if last_phase else 0))
    tops = np.maximum.accumulate(stored)
    lines, columns = (
        [
            (tap * geometry.dilation[axis] - geometry.padding[axis]) // geometry.stride[axis]
            for tap in (0, geometry.kernel[axis] - 1)
        ]
        for axis in (0, 1)
    )
    low, high = (lines[end] * grid.pitch + columns[end] for end in (0, 1))
    slots = 1
    for tile in schedule.tiles:
        need = tile.base + tile.interleave * rows + high
        before = int(np.searchsorted(complete, need))
        if before:
            slots = max(slots, -(-(int(tops[before - 1]) + 1 - tile.base - low) // rows))
    return slots


def ring_bits_for(schedule):
    """Give the smallest ring, and the largest one that the line buffer has room for."""
    stride = schedule.layer.geometry.stride
    words = beats_of(schedule) * stride[0] * stride[1]
    least = (slots_needed(schedule) - 1).bit_length()
    return least, (schedule.config.line_words // words).bit_length() - 1


def random_tiles(rng, groups, config):
    """Give tiles of any I for ascending groups; a gap ends a tile."""
    tiles = []
    at = 0
    most = between(rng, 1, config.max_interleave)
    while at < len(groups):
        length = 1
        wanted = between(rng, 1, most)
        while length < wanted and at + length < len(groups):
            if groups[at + length] != groups[at] + length:
                break
            length += 1
        tiles.append(Tile(len(tiles), int(groups[at]) * config.rows, length))
        at += length
    return tuple(tiles)


def random_geometry(rng, *, stride=None, kernel=None, side=9, channels=6):
    """Give a geometry that the feeder takes."""
    if kernel is None:
        kernel = tuple(pick(rng, [1, 1, 2, 3, 3, 5, 7, 11]) for _ in range(2))
    if stride is None:
        stride = tuple(pick(rng, [1, 1, 2, 4]) for _ in range(2))
    dilation = tuple(pick(rng, [1, 1, 2]) for _ in range(2))
    extent = [(taps - 1) * step + 1 for taps, step in zip(kernel, dilation, strict=True)]
    padding = tuple(pick(rng, [0, (extent[n % 2] - 1) // 2, extent[n % 2] - 1]) for n in range(4))
    least = [max(1, extent[n] - padding[n] - padding[n + 2]) for n in range(2)]
    size = [between(rng, low, max(low, side)) for low in least]
    groups = pick(rng, [1, 1, 1, 2, 3])
    return Geometry(
        in_shape=(*size, between(rng, 1, channels) * groups),
        filters=groups,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


def make_pass(rng, config, geometry, *, images=1, density=None, tight=True, every=False, **layer):
    """Give a pass over a random map, or None if the line buffer is too small for it.

    Parameters
    ----------
    every : bool
        Also groups of lanes without a pixel are in tiles.
    """
    if density is None:
        density = pick(rng, [0.0, 0.1, 0.4, 0.7, 1.0, 1.0])
    layer = random_layer(rng, cols=config.cols, geometry=geometry, density=density, **layer)
    group = between(rng, 0, geometry.groups - 1)
    schedule = Schedule.make(layer, group, config, images)
    grid = schedule.grid
    groups = np.arange(-(-grid.positions // config.rows)) if every else grid.live_groups()
    schedule = dataclasses.replace(schedule, tiles=random_tiles(rng, groups, config))
    least, most = ring_bits_for(schedule)
    if least > most:
        return None
    shape = (images, *geometry.in_shape)
    inputs = rng.integers(0, 256, shape).astype(np.uint8)
    ring_bits = least if tight else between(rng, least, most)
    return Pass(schedule=schedule, inputs=inputs, ring_bits=ring_bits)


@dataclasses.dataclass
class Run:
    """What was seen: the cycles of each stream's transfers, and those of the starts."""

    i: Source
    entries: Source
    positions: Source
    tiles: Sink
    activations: Sink
    starts: list


async def start(ctx, dut, each):
    """Start a pass; it is busy then."""
    assert not ctx.get(dut.busy)
    ctx.set(dut.feed, each.fields())
    ctx.set(dut.tile_count, len(each.schedule.tiles))
    ctx.set(dut.period, each.schedule.matrix.period)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)


def feed(config, passes, *, gaps=(0.0,) * 5, seed=0, cycles=60_000, prelude=None, beside=()):
    """Feed passes, one after the other, and compare all that leaves.

    ``gaps`` are those of i, entries, positions, tiles and activations. What goes in is on offer
    from the beginning: no pass may take the words of the next one. Before that ``prelude`` runs,
    and then the feeder is reset. Testbenches ``beside`` run all the time.
    """
    dut, reset = Feeder(config), Signal()
    sources = [
        Source(port, [word for each in passes for word in words(each)], gap=gap, seed=seed + n)
        for n, (port, words, gap) in enumerate(
            (
                (dut.i, Pass.words_in, gaps[0]),
                (dut.entries, Pass.entries, gaps[1]),
                (dut.positions, Pass.positions, gaps[2]),
            )
        )
    ]
    commands = [each.commands() for each in passes]
    words = [each.words() for each in passes]
    tiles = Sink(dut.tiles, sum(map(len, commands)), gap=gaps[3], seed=seed + 3)
    activations = Sink(dut.activations, sum(map(len, words)), gap=gaps[4], seed=seed + 4)
    starts = []

    ready = prelude is None

    async def controller(ctx):
        nonlocal ready
        cycle = taken = 0
        if prelude is not None:
            await prelude(ctx, dut)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            ready = True
        for n, each in enumerate(passes):
            starts.append(cycle)
            await start(ctx, dut, each)
            cycle += 1
            while ctx.get(dut.busy):
                await ctx.tick()
                cycle += 1
            taken += len(each.words_in())
            assert len(sources[0].cycles) == taken
            assert len(tiles.words) == sum(map(len, commands[: n + 1]))
            assert len(activations.words) == sum(map(len, words[: n + 1]))
        assert not ctx.get(dut.error)

    def after_prelude(testbench):
        async def run(ctx):
            while not ready:
                await ctx.tick()
            await testbench.run(ctx)

        return run

    simulate(
        ResetInserter(reset)(dut),
        controller,
        after_prelude(tiles),
        after_prelude(activations),
        background=[*beside, *(after_prelude(source) for source in sources)],
        cycles=cycles,
    )
    assert tiles.words == list(itertools.chain(*commands))
    expected_words = itertools.chain(*words)
    for n, (seen, expected) in enumerate(zip(activations.words, expected_words, strict=True)):
        assert seen == expected, f"word {n}"
    assert all(len(source.cycles) == len(source.words) for source in sources)
    return Run(*sources, tiles, activations, starts)
