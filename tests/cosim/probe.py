# SPDX-License-Identifier: Apache-2.0
"""An engine in Amaranth's simulator, whose array's edge is watched in every cycle."""

import collections
import dataclasses

from csp_hw.engine import Engine
from csp_hw.pe.accumulation.regbin import bins
from sim.cosim.protocol import STREAMS
from tests.csp_hw.bench import Sink, Source, plain, simulate


@dataclasses.dataclass
class Seen:
    """Products, runs and accesses of one PE; rows with operands; requests of the drain.

    ``written`` and ``read`` count for each bin the sums of one PE, ``drained`` the rows whose
    PEs give one.
    """

    issued: int = 0
    multiplied: int = 0
    runs: int = 0
    requests: int = 0
    written: list = dataclasses.field(default_factory=list)
    read: list = dataclasses.field(default_factory=list)
    drained: list = dataclasses.field(default_factory=list)


class _Watched(Engine):
    """An engine that keeps its parts."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        names = ("issuer", "hazard", "array", "drain")
        self.parts = {name: getattr(m.submodules, name) for name in names}
        return m


class Probe:
    """Feed one layer, and count."""

    def __init__(self, schedule):
        self.schedule, self.config = schedule, schedule.config
        self.dut = _Watched(self.config)
        self.seen = Seen()

    def play(self, inputs):
        words = self.streams(inputs)
        results = int(self.schedule.result_words.sum())
        sink = Sink(self.dut.results, results)
        feeds = [
            Source(getattr(self.dut, name), words[name], gap=0.2, seed=number).run
            for number, name in enumerate(words)
        ]
        simulate(self.dut, sink.run, background=[*feeds, self.watch], cycles=100_000)
        return self.seen

    def streams(self, inputs):
        """Give the words of each stream."""
        schedule = self.schedule
        words = collections.defaultdict(list)
        words["layer"] = [schedule.command(signed=False)]
        params = schedule.params()
        words["params"] = [
            {"bias": int(bias), "mult": int(mult), "shift": int(shift)}
            for bias, mult, shift in zip(*params, strict=True)
        ]
        for tile in schedule.words(inputs):
            mask = sum(int(lane) << n for n, lane in enumerate(tile.live.ravel()))
            words["tiles"].append({"interleave": tile.tile.interleave, "live": mask})
            for name in ("counts", "weights", "activations"):
                words[name] += getattr(tile, name).tolist()
        assert words.keys() <= set(STREAMS)
        return words

    async def watch(self, ctx):
        """Look at products, at the control that follows from them, and at the drain."""
        dut, seen, config = self.dut, self.seen, self.config
        ctx.set(dut.positions.ready, 1)
        edges = bins(config.half_depth)
        written, read, drained = ([0] * len(edges) for _ in range(3))
        seen.written, seen.read, seen.drained = written, read, drained

        def bin_of(word):
            return next(number for number, edge in enumerate(edges) if word in edge)

        hazard, array = dut.parts["hazard"], dut.parts["array"]
        live = 0
        while True:
            _, _, product, control, zeros, request = await ctx.tick().sample(
                hazard.product, hazard.control, array.zeros, dut.parts["drain"].request
            )
            product, control, request = plain(product), plain(control), plain(request)
            # Whether an activation is zero is seen a cycle after its product.
            seen.multiplied += (~zeros & live).bit_count()
            live = product["live"] if product["valid"] else 0
            seen.issued += product["valid"]
            seen.runs += control["add"]
            for bank in range(2):
                written[bin_of(control["write_address"])] += control[f"write{bank}"]
            if product["valid"] and product["last"] and not product["fresh"]:
                read[bin_of(product["word"])] += 1
            if request["valid"]:
                seen.requests += 1
                drained[bin_of(request["address"])] += 1
