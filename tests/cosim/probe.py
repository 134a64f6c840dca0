# SPDX-License-Identifier: Apache-2.0
"""An engine in Amaranth's simulator, whose array's edge and PEs are watched in every cycle."""

import collections
import dataclasses
from unittest import mock

from csp_hw import row as row_module
from csp_hw.engine import Engine
from csp_hw.pe.accumulation.regbin import bins
from csp_hw.pe.group import Group
from sim.cosim.protocol import STREAMS
from tests.csp_hw.bench import Sink, Source, plain, simulate


@dataclasses.dataclass
class Clocked:
    """How often flags let registers of all PEs be clocked; words read from banks by bin.

    ``passed`` counts drained words: once in each group that they pass.
    """

    weights: int = 0
    operands: int = 0
    runs: int = 0
    sums: int = 0
    passed: int = 0
    addresses: int = 0
    words: list = dataclasses.field(default_factory=list)
    written: list = dataclasses.field(default_factory=list)


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
    clocked: Clocked = dataclasses.field(default_factory=Clocked)
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
        self.groups = []

    def play(self, inputs):
        words = self.streams(inputs)
        results = int(self.schedule.result_words.sum())
        sink = Sink(self.dut.results, results)
        feeds = [
            Source(getattr(self.dut, name), words[name], gap=0.2, seed=number).run
            for number, name in enumerate(words)
        ]

        def recorded(config):
            self.groups.append(Group(config))
            return self.groups[-1]

        with mock.patch.object(row_module, "Group", recorded):
            watches = [self.watch, self.watch_groups]
            simulate(self.dut, sink.run, background=[*feeds, *watches], cycles=100_000)
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

    async def watch_groups(self, ctx):
        """Look at the flags that reach each group: registers are clocked with them, or later."""
        clocked, edges = self.seen.clocked, bins(self.config.half_depth)
        across, elements = self.config.share, self.config.share**2
        clocked.words, clocked.written = ([0] * len(edges) for _ in range(2))
        bin_of = {word: number for number, edge in enumerate(edges) for word in edge}
        ports = [port for each in self.groups for port in (each.nonzero, each.control)]
        before = [0] * len(self.groups)
        while True:
            _, _, *values = await ctx.tick().sample(*ports)
            controls = [plain(control) for control in values[1::2]]
            for number, (nonzero, at) in enumerate(zip(values[::2], controls, strict=True)):
                # Rows have flags of their own.
                clocked.operands += across * nonzero.bit_count()
                clocked.weights += elements * at["valid"]
                # A product's last flag comes a cycle after its operands.
                runs = elements if at["last"] else across * before[number].bit_count()
                clocked.runs += runs
                before[number] = nonzero
                clocked.sums += elements * at["add"]
                clocked.passed += at["shift"]
                for bank in range(2):
                    words = across * at[f"fetch{bank}"].bit_count()
                    clocked.words[bin_of[at[f"read{bank}"]]] += words
                    clocked.addresses += words > 0
                    written = elements * at[f"write{bank}"]
                    clocked.written[bin_of[at["write_address"]]] += written

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
