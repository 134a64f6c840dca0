# SPDX-License-Identifier: Apache-2.0
"""The engine against integers: layer after layer in one simulation, random gaps on every stream."""

import dataclasses

import pytest
from amaranth.back import rtlil

from csp_hw.array import ROW_MODULE
from csp_hw.config import BufferStyle, CspConfig
from csp_hw.counters import CYCLES, SPENT
from csp_hw.engine import Engine
from csp_hw.ports import OutputType
from tests.csp_hw.bench import (
    Sink,
    Source,
    between,
    chance,
    pick,
    plain,
    rhu,
    rng_of,
    sat,
    simulate,
)

INT8, UINT8, INT32 = OutputType.INT8, OutputType.UINT8, OutputType.INT32
CONFIG = CspConfig(
    rows=2, cols=4, depth=16, max_period=8, max_interleave=4, lookahead=4, row_blocks=2
)
STREAMS = ("params", "tiles", "counts", "weights", "activations", "residual")
COUNTED = ("counts", "weights", "activations", "results")
OTHER_FIELDS = ("interleave", "live", "adds")


class Layer:
    """A random layer: its words on every stream, its results, and what the counters must say.

    ``density`` is the share of taps that survive; ``counts`` gives them outright. ``fields`` are
    those of the command, ``interleave``, the share of lanes that are ``live``, and whether the
    layer ``adds`` a residual.
    """

    def __init__(self, config, rng, *, tiles=3, density=0.5, counts=None, **fields):
        self.config, self.rng = config, rng
        chunks = fields.get("chunks", between(rng, 1, min(4, config.depth)))
        taps = len(counts) if counts else between(rng, 1, 16)
        self.command = {
            "taps": taps,
            "position_words": between(rng, 1, -(-taps // config.lookahead)),
            "kernel_w": between(rng, 1, 11),
            "tiles": tiles,
            "chunks": chunks,
            "period": between(rng, 1, config.max_period),
            "acc_shift": pick(rng, [0, 0, between(rng, 1, 15)]),
            "signed": between(rng, 0, 1),
            "relu": between(rng, 0, 1),
            "out": pick(rng, list(OutputType)),
            **{name: value for name, value in fields.items() if name not in OTHER_FIELDS},
        }
        adds = fields.get("adds", self.command["out"] != INT32 and chance(rng, 0.5))
        self.command["residual"] = {
            "enabled": int(adds),
            "signed": between(rng, 0, 1),
            "mult": between(rng, 1 << 15, (1 << 16) - 1),
            "shift": between(rng, 14, 18),
        }
        self.residual = []  # of the result word at work
        self.filter_count = between(rng, (chunks - 1) * config.cols + 1, chunks * config.cols)
        self.command["last_filters"] = self.filter_count - (chunks - 1) * config.cols
        self.command["acc_shift"] = min(self.command["acc_shift"], 32 - config.acc_bits)
        self.counts = counts or [
            between(rng, 1, chunks) if chance(rng, density) else 0 for _ in range(taps)
        ]
        most = min(config.max_interleave, config.depth // chunks)
        self.tiles = []
        for _ in range(tiles):
            interleave = fields.get("interleave", between(rng, 1, most))
            share = fields.get("live", pick(rng, [0.0, 0.7, 1.0, 1.0]))
            live = [[chance(rng, share) for _ in range(config.rows)] for _ in range(interleave)]
            self.tiles.append(live)
        self.words = {name: [] for name in (*STREAMS, "positions", "results")}
        self.saturations = self.slots = self.useful = self.gated = 0
        self.filters = [self.filter(m) for m in range(chunks * config.cols)]
        self.words["params"] = self.filters
        self.weights = [[self.weight_word(k) for k in range(count)] for count in self.counts]
        for live in self.tiles:
            self.tile(live)

    def filter(self, m):
        """Padding filters are zero; others spread their results over the output's range."""
        if m >= self.filter_count:
            return {"bias": 0, "mult": 0, "shift": 0}
        bits = self.config.acc_bits + self.command["acc_shift"]
        return {
            "bias": between(self.rng, -1000, 1000),
            "mult": between(self.rng, 1 << 15, (1 << 16) - 1),
            "shift": min(47, max(0, bits + 8 - between(self.rng, 0, bits))),
        }

    def weight_word(self, k):
        real = [k * self.config.cols + c < self.filter_count for c in range(self.config.cols)]
        return [pick(self.rng, [0, 127, -127, between(self.rng, -127, 127)]) * r for r in real]

    def tile(self, live):
        config, command = self.config, self.command
        interleave = len(live)
        mask = sum(lane << n for n, lane in enumerate(lane for pixel in live for lane in pixel))
        self.words["tiles"].append({"interleave": interleave, "live": mask})
        padded = self.counts + [0] * (-len(self.counts) % config.lookahead)
        for n in range(0, len(padded), config.lookahead):
            self.words["counts"].append(padded[n : n + config.lookahead])

        survivors = [tap for tap, count in enumerate(self.counts) if count]
        self.words["positions"] += [
            {**self.position(tap), "empty": 0, "end": int(tap == survivors[-1])}
            for tap in survivors
        ] or [{"empty": 1, "end": 1}]
        period = command["period"]
        acc = {}  # (pixel, row, filter) -> partial sum
        for start in range(0, len(survivors), period):
            self.block(survivors[start : start + period], live, acc)
        for pixel in range(interleave):
            for row in range(config.rows):
                if live[pixel][row]:
                    for chunk in range(command["chunks"]):
                        self.results(acc, chunk, pixel, row)

    def position(self, tap):
        """Taps lie channel innermost, then s, then r; a kernel position has whole words."""
        config, command = self.config, self.command
        place, channel = divmod(tap, command["position_words"] * config.lookahead)
        beat, byte = divmod(channel, config.cols)
        r, s = divmod(place, command["kernel_w"])
        return {"r": r, "s": s, "beat": beat, "byte": byte}

    def activation(self):
        lowest, highest = (-128, 127) if self.command["signed"] else (0, 255)
        return pick(self.rng, [0, lowest, highest, between(self.rng, lowest, highest)])

    def block(self, block, live, acc):
        rows, pixels = range(self.config.rows), range(len(live))
        values = {}
        for pixel in pixels:
            for tap in block:
                values[pixel, tap] = [self.activation() for _ in rows]  # of dead lanes too
                self.words["activations"].append([value & 0xFF for value in values[pixel, tap]])
        for chunk in range(max(self.counts[tap] for tap in block)):
            run = [tap for tap in block if self.counts[tap] > chunk]
            self.words["weights"] += [self.weights[tap][chunk] for tap in run]
            self.slots += len(pixels) * len(run)
            for pixel in pixels:
                for row in rows:
                    if live[pixel][row]:
                        self.accumulate(acc, values, run, chunk, pixel, row)

    def accumulate(self, acc, values, run, chunk, pixel, row):
        filters = range(chunk * self.config.cols, (chunk + 1) * self.config.cols)
        real = sum(m < self.filter_count for m in filters)
        self.useful += real * len(run)
        self.gated += real * sum(values[pixel, tap][row] == 0 for tap in run)
        for col in range(self.config.cols):
            total = sum(values[pixel, tap][row] * self.weights[tap][chunk][col] for tap in run)
            at = pixel, row, chunk * self.config.cols + col
            exact = acc.get(at, 0) + rhu(total, self.command["acc_shift"])
            acc[at] = sat(exact, self.config.acc_bits)
            self.saturations += acc[at] != exact

    def results(self, acc, chunk, pixel, row):
        command, cols = self.command, self.config.cols
        leaving = b""
        for m in range(chunk * cols, (chunk + 1) * cols):
            filter_ = self.filters[m]
            value = (acc.get((pixel, row, m), 0) << command["acc_shift"]) + filter_["bias"]
            if command["out"] == INT32:
                leaving += sat(value, 32).to_bytes(4, "little", signed=True)
                continue
            z = rhu(value * filter_["mult"], filter_["shift"])
            if command["residual"]["enabled"]:
                z = sat(z, 16) + self.added(command["residual"])
            z = max(z, 0) if command["relu"] else z
            low, high = (-128, 127) if command["out"] == INT8 else (0, 255)
            leaving += (min(max(z, low), high) & 0xFF).to_bytes(1, "little")
        if command["residual"]["enabled"]:
            self.words["residual"].append([r & 0xFF for r in self.residual])
            self.residual = []
        self.words["results"] += [list(leaving[n : n + cols]) for n in range(0, len(leaving), cols)]

    def added(self, fields):
        """Choose the next value of the residual and give what it adds."""
        low = -128 if fields["signed"] else 0
        self.residual.append(pick(self.rng, [0, low, low + 255, between(self.rng, low, low + 255)]))
        return rhu(self.residual[-1] * fields["mult"], fields["shift"])

    @property
    def counted(self):
        """What the counters say after the layer, except how its cycles were spent."""
        moved = {f"{name}_words": len(self.words[name]) for name in COUNTED}
        macs = {"useful_macs": self.useful, "gated_macs": self.gated}
        return {**moved, **macs, "issued": self.slots, "saturations": self.saturations}


@dataclasses.dataclass
class Report:
    """What a layer's counters said; cycles in which the engine was not idle."""

    counters: dict
    cycles: int


class Run:
    """Layers one after the other; each layer's command is offered while the one before works.

    ``gaps`` holds, by stream, the share of cycles without a word; a list has one for each layer.
    ``ahead`` lets each stream offer a layer's words before the layer's command is taken.
    """

    def __init__(self, layers, *, gaps=None, seed=0, ahead=False):
        self.layers, self.ahead = layers, ahead
        self.dut = Engine(layers[0].config)
        self.gaps = dict.fromkeys((*STREAMS, "positions", "results"), 0.0) | (gaps or {})
        self.seed = seed
        self.taken = 0  # layer commands
        self.reports = []
        words = [word for layer in layers for word in layer.words["results"]]
        self.sink = Sink(self.dut.results, len(words), gap=self.gaps["results"], seed=seed)
        self.words = words
        positions = [word for layer in layers for word in layer.words["positions"]]
        self.places = Sink(
            self.dut.positions, len(positions), gap=self.gaps["positions"], seed=seed
        )
        self.positions = positions

    def feed(self, number, name):
        """Give the testbench of a stream."""

        async def bench(ctx):
            for n, layer in enumerate(self.layers):
                while self.taken <= n and not self.ahead:
                    await ctx.tick()
                port = getattr(self.dut, name)
                seed = 1000 * self.seed + 100 * number + n
                gap = self.gaps[name]
                gap = gap[n] if isinstance(gap, list) else gap
                source = Source(port, layer.words[name], gap=gap, seed=seed)
                await source.run(ctx)

        return bench

    async def control(self, ctx):
        """Offer layer after layer; look at the counters when each is done."""
        dut = self.dut
        cycles = results = 0
        spent = None  # cycles of the layer whose counters are complete in the next cycle
        was_idle = True
        while len(self.reports) < len(self.layers):
            if self.taken < len(self.layers):
                ctx.set(dut.layer.payload, self.layers[self.taken].command)
            ctx.set(dut.layer.valid, self.taken < len(self.layers))
            _, _, idle, ready, valid, takes, counters = await ctx.tick().sample(
                dut.idle, dut.layer.ready, dut.results.valid, dut.results.ready, dut.counters
            )
            assert ready == (idle and was_idle)
            was_idle = idle
            if spent is not None:
                self.reports.append(Report(plain(counters), spent))
                spent = None
            cycles += not idle
            results += valid & takes
            if not ready:
                continue
            if 0 < self.taken <= len(self.layers):
                layer = self.layers[self.taken - 1]
                assert results == len(layer.words["results"]), "idle before the last result"
                spent = cycles
            cycles = results = 0
            self.taken += 1

    def play(self):
        feeds = [self.feed(number, name) for number, name in enumerate(STREAMS)]
        simulate(self.dut, self.control, self.sink.run, self.places.run, background=feeds)
        assert self.sink.words == self.words
        for found, wanted in zip(self.places.words, self.positions, strict=True):
            assert {name: found[name] for name in wanted} == wanted
        for layer, report in zip(self.layers, self.reports, strict=True):
            counters = report.counters
            counted = layer.counted
            if self.ahead:  # words that came early were counted for the layer before
                del counted["weights_words"], counted["activations_words"]
            assert {name: counters[name] for name in counted} == counted
            assert sum(counters[name] for name in SPENT) == counters[CYCLES] == report.cycles
        return self


def random_layers(config, count, seed, **fields):
    rng = rng_of(seed, 6)
    return [
        Layer(config, rng, tiles=between(rng, 1, 4), density=pick(rng, [0.1, 0.5, 1.0]), **fields)
        for _ in range(count)
    ]


CONFIGS = {
    "smallest": CspConfig(
        rows=1, cols=4, depth=4, max_period=1, max_interleave=1, lookahead=1, row_blocks=2
    ),
    "regbin": CONFIG.replace(rows=3, depth=8, max_interleave=2, style=BufferStyle.REGBIN),
    "narrow": CONFIG.replace(rows=1, acc_bits=8, max_period=4, lookahead=1),
    "wide": CONFIG.replace(cols=8, rows=1, depth=8, acc_bits=32, max_period=2, lookahead=8),
    "groups": CONFIG.replace(rows=4, cols=8, depth=8, share=2),
    "group": CONFIG.replace(rows=4, acc_bits=12, share=4, style=BufferStyle.REGBIN),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_random_layers_in_a_row(name):
    config = CONFIGS[name]
    run = Run(random_layers(config, 6, len(name)), gaps={"positions": 0.2}).play()
    if config.acc_bits == 8:
        assert any(layer.saturations for layer in run.layers)


def test_streams_may_run_ahead_of_their_layer():
    Run(random_layers(CONFIG, 6, 5), ahead=True).play()
    gaps = dict.fromkeys((*STREAMS, "positions", "results"), 0.4)
    Run(random_layers(CONFIG, 4, 6), gaps=gaps, seed=3, ahead=True).play()


def test_random_layers_with_gaps_on_every_stream():
    config = CONFIG.replace(acc_bits=12, depth=8, max_period=4)
    layers = random_layers(config, 4, 1)
    gaps = dict.fromkeys((*STREAMS, "positions", "results"), 0.5)
    Run(layers, gaps=gaps, seed=2).play()


def test_corners_in_a_row():
    # Every corner, in an order in which each follows a different one.
    rng = rng_of(7)
    counts = {
        "nothing survives": [0] * 9,
        "everything survives": [3] * 9,
        "one tap": [2],
        "one tap, nothing survives": [0],
        "the first of many": [3] + [0] * 20,
        "the last of many": [0] * 20 + [1],
        "as many as the look-ahead": [1, 0, 3, 2],
        "whole blocks": [1, 2] * 4,
    }
    layers = []
    for number, (name, found) in enumerate(counts.items()):
        out = list(OutputType)[number % 3]
        interleave = 1 + number % 4
        layer = Layer(
            CONFIG, rng, tiles=2, counts=found, chunks=3, out=out, interleave=interleave, period=8
        )
        if "nothing" in name:
            assert layer.slots == 0
        layers.append(layer)
    # Back to back without survivors, then K · I = depth, with all lanes dead in the first tile.
    layers.append(Layer(CONFIG, rng, tiles=5, counts=[0] * 5, chunks=2, interleave=1, out=INT8))
    layers.append(Layer(CONFIG, rng, tiles=2, counts=[4, 4], chunks=4, interleave=4, out=UINT8))
    layers.append(Layer(CONFIG, rng, tiles=2, counts=[1, 0, 3], chunks=16, interleave=1, out=INT8))
    Run(layers).play()


def spent_on(report):
    """What most cycles were spent on until all products were issued."""
    spent = {name: report.counters[name] for name in SPENT if name != "stalled_drain"}
    return max(spent, key=spent.get)


def slow_layer(rng, **fields):
    config = CONFIG.replace(rows=1, lookahead=1, max_period=2)
    counts = [1, 1, 2, 1, 1, 1]
    fields |= {"chunks": 4, "interleave": 2, "period": 1, "out": INT8, "live": 1.0}
    # Eight words a tile: more than the queues behind the array hold.
    return Layer(config, rng, tiles=8, counts=counts, **fields)


def test_a_slow_stream_is_blamed():
    # Each layer has another slow stream, and its counters say which.
    blamed = {
        "counts": "stalled_counts",
        "activations": "stalled_activations",
        "weights": "stalled_weights",
        "tiles": "stalled_tiles",
        "params": "stalled_bank",  # no result can leave, so no bank gets free
        "residual": "stalled_bank",
    }
    often = {"params": 0.96, "tiles": 0.98}  # there are few of them
    gaps = {name: [often.get(name, 0.85) * (name == slow) for slow in blamed] for name in blamed}
    rng = rng_of(3)
    run = Run([slow_layer(rng, adds=slow == "residual") for slow in blamed], gaps=gaps).play()
    assert [spent_on(report) for report in run.reports] == list(blamed.values())


def test_slow_positions_count_as_slow_counts():
    run = Run([slow_layer(rng_of(4))], gaps={"positions": 0.9}).play()
    assert spent_on(run.reports[0]) == "stalled_counts"


def test_slow_results_are_blamed():
    run = Run([slow_layer(rng_of(4))], gaps={"results": 0.93}).play()
    assert spent_on(run.reports[0]) == "stalled_bank"


def test_bound_by_products_has_no_bubble():
    # Long tiles, a quick drain: from the first product to the last one every cycle issues one.
    rng = rng_of(4)
    layers = []
    for period in (1, 8):
        layer = Layer(
            CONFIG.replace(rows=1),
            rng,
            tiles=4,
            counts=[2, 1, 0, 0, 2, 2, 0, 1] * 3,
            chunks=2,
            interleave=2,
            period=period,
            out=INT8,
        )
        layers.append(layer)
    for layer, report in zip(layers, Run(layers).play().reports, strict=True):
        period, counters = layer.command["period"], report.counters
        assert counters["issued"] == 4 * 2 * 24
        # The first block must be scanned and its first words must come.
        assert counters["stalled_counts"] <= 2 * period + 8
        assert counters["stalled_activations"] + counters["stalled_weights"] <= 2
        assert counters["stalled_bank"] == 0


def test_hierarchical_engine_converts():
    # Amaranth's simulator ignores instances; their behaviour is tested on Verilog elsewhere.
    text = rtlil.convert(Engine(CONFIG, hierarchical=True), emit_src=False)
    assert text.count(f"cell \\{ROW_MODULE} \\row_") == CONFIG.rows
