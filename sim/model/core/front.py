# SPDX-License-Identifier: Apache-2.0
"""From what the ports read to products: feeder, skip controller and issuer, tile by tile."""

import dataclasses

import numpy as np

from csp_hw.slice import SLICE
from csp_hw.store import ReplayStore
from sim.model.core.issue import IssueTimes
from sim.model.core.memory import Times
from sim.model.core.results import DrainTimes
from sim.model.core.tables import Tables
from sim.model.core.taps import TapTimes, blocks_of, groups_of
from sim.model.core.tiles import Taken, TileTimes
from sim.model.core.words import WordTimes
from sim.program.passes import Pass

#: Cycles before a tile's first step in which nothing holds it back.
BEFORE = 8
#: Tiles that are remembered.
MOST_KNOWN = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """What a tile did, in cycles from the last step before it on.

    Parameters
    ----------
    states : list of list of int64 array
        Taps, words and products after it.
    spent : dict of str to int
        What its cycles were spent on.
    loaded : int
        When its first block was loaded.
    released : list of int
        When each group of its lanes was released.
    """

    states: list[list[Times]]
    spent: dict[str, int]
    loaded: int
    released: list[int]


class Known:
    """Tiles by what they depend on, the last ones of all."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Kept] = {}

    def get(self, key: bytes) -> Kept | None:
        """Give what a tile did that depended on the same."""
        return self._kept.get(key)

    def keep(self, key: bytes, kept: Kept) -> None:
        """Remember a tile; forget the oldest one if there are many."""
        if len(self._kept) == MOST_KNOWN:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = kept


class Front:
    """All tiles of a pass, each from the map's last beat that it needs to its drain.

    What happens in a tile never depends on one behind it, so tiles are gone through in their order,
    and blocks within a tile.

    Parameters
    ----------
    step : Pass
    start : int
        Cycle in which the pass is launched.
    tables : Tables
    tiles : TileTimes
    drain : DrainTimes
    """

    def __init__(
        self, step: Pass, start: int, *, tables: Tables, tiles: TileTimes, drain: DrainTimes
    ) -> None:
        assert step.schedule is not None
        self._schedule, self._fields, self._config = step.schedule, step.fields, step.config
        self._start = start
        self._tables, self._tiles, self._drain = tables, tiles, drain
        self._groups = groups_of(blocks_of(step), step.config)
        self._begin = start + 2
        self._taps = TapTimes(step, begin=self._begin, opened=tiles.open)
        self._words = WordTimes(step.config)
        self._issue = IssueTimes(step.config, self._begin, tell=not step.fields["weights_resident"])
        self._known = Known()
        for number in range(len(self._schedule.tiles)):
            self._tile(number, tiles.take(number))
        stored = tiles.end()
        self.spent = self._issue.spent
        self.counts_sent = self._behind_slice(self._taps.loads)
        self.weights_sent = np.concatenate([*self._issue.sent, np.empty(0, dtype=np.int64)])
        self.idle = max(self._issue.done + 1, drain.idle)
        self.spent["stalled_drain"] = self.idle - 1 - self._issue.done
        # The feeder is at rest three cycles after its last request, and one after all else.
        ends = (tiles.finished + 3, stored + 1, self._words.entered + 1, tiles.commanded + 1)
        self.feeder_idle = max(*ends, tiles.open + 1) + 1

    def _tile(self, number: int, taken: Taken) -> None:
        """Compute a tile that the feeder has taken."""
        tiles, issue = self._tiles, self._issue
        tile = self._schedule.tiles[number]
        overlaps = self._config.overlaps(self._schedule.matrix.chunks, tile.interleave)
        key = self._key(number, taken, overlaps=overlaps)
        if not self._again(key):
            begin, spent = self._taps.begin, dict(issue.spent)
            released = self._compute(number, taken, overlaps=overlaps)
            tiles.released += released
            if key:
                self._keep(key, begin, spent, released)
        tiles.finished = self._words.asked
        last = self._drain.tile(issue.done, self._schedule.live(tile))
        issue.drained(last, overlaps=overlaps)

    def _key(self, number: int, taken: Taken, *, overlaps: bool) -> bytes:
        """Give all that a tile depends on, from the last step before it on; nothing if unknown."""
        fields, issue = self._fields, self._issue
        begin, stored = self._taps.begin, self._start + ReplayStore.LATENCY
        resident = fields["counts_resident"] and fields["weights_resident"]
        # Words of the stores must be there before all that waits for something else.
        if not resident or number == 0 or begin <= stored or issue.oldest < stored:
            return b""
        tile = self._schedule.tiles[number]
        given = [max(taken.time, self._words.asked), taken.command, taken.given, *issue.free]
        old = [*self._taps.state(), *self._words.state(), np.array(given, dtype=np.int64)]
        # What is older than the last step holds nothing back, however old it is.
        times = np.maximum(np.concatenate(old) - begin, -BEFORE)
        late = np.concatenate(issue.state()) - begin
        sizes = repr((tile.interleave, overlaps, *(len(part) for part in old)))
        return b"".join((sizes.encode(), times.tobytes(), late.tobytes()))

    def _again(self, key: bytes) -> bool:
        """Do what was done for a tile before, if there was one like this."""
        known = self._known.get(key)
        if known is None:
            return False
        begin, issue = self._taps.begin, self._issue
        taps, words, issued = ([part + begin for part in parts] for parts in known.states)
        self._taps.resume(taps)
        self._words.resume(words)
        issue.resume(issued)
        for name, cycles in known.spent.items():
            issue.spent[name] += cycles
        self._tiles.loaded = [self._tiles.loaded[-1], known.loaded + begin]
        self._tiles.released += [time + begin for time in known.released]
        return True

    def _keep(self, key: bytes, begin: int, spent: dict[str, int], released: list[int]) -> None:
        """Remember what a tile did."""
        states = [
            [part - begin for part in stage.state()]
            for stage in (self._taps, self._words, self._issue)
        ]
        self._known.keep(
            key,
            Kept(
                states=states,
                spent={name: now - spent[name] for name, now in self._issue.spent.items()},
                loaded=self._tiles.loaded[-1] - begin,
                released=[time - begin for time in released],
            ),
        )

    def _compute(self, number: int, taken: Taken, *, overlaps: bool) -> list[int]:
        """Compute a tile group by group; give when each group of its lanes is released."""
        schedule, issue = self._schedule, self._issue
        tile = schedule.tiles[number]
        words = -(-schedule.matrix.taps // self._config.lookahead)
        # Before the scanner is a slice, into which the engine lets them once it is at work.
        counts = self._offers("counts", number, words, self._tables.counts)
        counts = np.maximum(counts, self._begin) + 1
        self._taps.tile(counts, tell=not self._fields["counts_resident"])
        weights = self._offers("weights", number, schedule.steps, self._tables.weights)
        released: list[int] = []
        for group in self._groups:
            final = group is self._groups[-1]
            kept, joined = self._taps.group(group, final=final)
            if not group.blocks[0].counts:
                released = self._words.skip(int(kept[0]), tile.interleave, taken.time)
                self._taps.read(1, self._words.asked)
                issue.skip(self._load(joined[0], taken, overlaps=overlaps))
                break
            asks = group.asks(tile.interleave)
            asked, entered = self._words.group(kept, asks, taken.time)
            at = 0
            for block, join, end in zip(group.blocks, joined, asks.ends, strict=True):
                self._taps.read(len(block.counts), int(asked[end - 1]))
                first = block.first_weight
                load = self._load(join, None if first else taken, overlaps=overlaps)
                offers = weights[first : first + block.weights]
                issue.block(block, tile.interleave, load, entered=entered[at:end], offers=offers)
                self._words.release(end - at, issue.done)
                at = end
            if final:
                taps = len(group.blocks[-1].counts)
                ends = asked[len(asked) - taps * (tile.interleave - 1) - 1 :: taps]
                released = self._words.lanes(ends)
        return released

    def _load(self, joined: int, taken: Taken | None, *, overlaps: bool) -> int:
        """Load a block whose last tap has joined it; the first one of a tile with its command."""
        available = self._taps.enter(joined)
        if taken is None:
            load = self._issue.next(available)
        else:
            load = self._issue.first(available, taken.command, taken.given, overlaps=overlaps)
            self._tiles.loaded = [self._tiles.loaded[-1], load]
        self._taps.loaded(load)
        return load

    def _behind_slice(self, taken: list[int]) -> Times:
        """Give when words of counts left their store, from when they left the slice."""
        if not taken:
            return np.empty(0, dtype=np.int64)
        sent: Times = np.maximum(self._tables.counts + ReplayStore.LATENCY, self._begin)
        sent[SLICE:] = np.maximum(sent[SLICE:], np.array(taken[:-SLICE], dtype=np.int64) + 1)
        return sent

    def _offers(self, name: str, number: int, words: int, entered: Times) -> Times:
        """Give from when on a tile's words leave a store, those before having left."""
        if not self._fields[f"{name}_resident"]:
            return entered[number * words : (number + 1) * words] + ReplayStore.LATENCY
        if not number:
            return entered[:words] + ReplayStore.LATENCY
        return np.full(words, self._start + ReplayStore.LATENCY, dtype=np.int64)
