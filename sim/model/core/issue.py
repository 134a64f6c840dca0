# SPDX-License-Identifier: Apache-2.0
"""Products: :class:`csp_hw.issue.Issuer` in time, block by block."""

from collections.abc import Sequence

import numpy as np

from csp_hw.config import CspConfig
from csp_hw.counters import SPENT
from sim.model.core.memory import EARLY, Recent, Times, chain
from sim.model.core.taps import Block, Shape

#: Cycles from a word's entry into its buffer until a product can use it.
ARRIVAL = 2


def _at_once(shape: Shape, load: int, entered: Times, sent: Times) -> bool:
    """Whether a block's products, loaded in some cycle, follow each other from the next one on."""
    # Activations enter a cycle after each other at the earliest, so the last one is the latest.
    last = int(entered[-1]) - len(entered) + 1
    return last + ARRIVAL <= load + 1 and not (sent - shape.first >= load).any()


class IssueTimes:
    """The issuer and the run buffer.

    Parameters
    ----------
    config : CspConfig
    begin : int
        The first cycle in which the engine is at work.
    tell : bool
        Keep when weights enter the run buffer.
    """

    def __init__(self, config: CspConfig, begin: int, *, tell: bool) -> None:
        self.spent = dict.fromkeys(SPENT, 0)
        self.done = begin - 1  # the last cycle that is accounted for
        self._tell = tell
        self.sent: list[Times] = []  # words of weights, into the run buffer; block by block
        self._sent = EARLY
        self._size = config.run_words
        self._room = Recent(self._size)
        self._half = 0
        self._began = EARLY  # when the tile before was loaded
        self._free = [0, 0]  # from when on each half of the accumulation buffer is

    @property
    def oldest(self) -> int:
        """When the oldest words of weights in the run buffer, or their places, were given back."""
        return int(self._room.before(1)[0])

    def state(self) -> list[Times]:
        """Give the times that what comes may depend on, between two tiles, but for the drains."""
        began = max(self._began, self.done - 2)  # what is older does not matter
        return [np.array([self.done, self._sent, began], dtype=np.int64), self._room.all()]

    def resume(self, state: Sequence[Times]) -> None:
        """Go on from the times of a state, a tile later."""
        single, room = state
        self.done, self._sent, self._began = single.tolist()
        self._room.extend(room)
        self._half = 1 - self._half

    @property
    def free(self) -> tuple[int, int]:
        """From when on the next tile's half of the accumulation buffer is free, and the other."""
        return self._free[1 - self._half], self._free[self._half]

    def first(self, available: int, command: int, given: int, *, overlaps: bool) -> int:
        """Load the first block of a tile.

        Parameters
        ----------
        available : int
            From when on it is on offer.
        command, given : int
            From when on the tile's command is on offer, and is there.
        overlaps : bool
            The tile takes half of the accumulation buffer.
        """
        spent, done = self.spent, self.done
        self._half = 1 - self._half
        place = self._free[self._half] if overlaps else max(self._free)
        # Whether there is one is known a cycle after the command is seen, behind the one before.
        asked = max(given, self._began + 1) + 1
        place = max(place + 1, asked)
        load = max(available, done, place)
        tiles = max(0, command - (done + 1))
        bank = max(0, place - max(asked, available, done + 1))
        spent["stalled_tiles"] += tiles
        spent["stalled_bank"] += bank
        spent["stalled_counts"] += load - done - tiles - bank
        self._began = load
        return load

    def next(self, available: int) -> int:
        """Load a further block of a tile."""
        load = max(available, self.done)
        self.spent["stalled_counts"] += load - self.done
        return load

    def drained(self, last: int, *, overlaps: bool) -> None:
        """Take note of a tile's last request of the drain."""
        if overlaps:
            self._free[self._half] = last + 1
        else:
            self._free = [last + 1] * 2

    def skip(self, load: int) -> None:
        """Compute a tile without survivors."""
        self.done = load + 1
        self.spent["stalled_counts"] += 1

    def block(
        self, block: Block, interleave: int, load: int, *, entered: Times, offers: Times
    ) -> None:
        """Issue the products of a block.

        Parameters
        ----------
        block : Block
        interleave : int
        load : int
            When it is loaded.
        entered : int64 array
            When its activations enter the row buffer.
        offers : int64 array
            From when on its weights are on offer.
        """
        shape = block.shape(interleave)
        words, size = shape.words, self._size
        offers = offers.copy()
        old = min(words, size)
        np.maximum(offers[:old], self._room.before(old) + 1, out=offers[:old])
        # If nothing waits, a product is issued in each cycle from the next one on.
        ends = shape.ends + (load + 1)
        sent = self._send(offers, ends)
        if not _at_once(shape, load, entered, sent):
            issued, ends, sent = self._wait(shape, load, entered=entered, offers=offers)
            self.done = int(issued[-1])
        else:
            self.done = load + shape.products
        if self._tell:
            self.sent.append(sent)
        self._sent = int(sent[-1])
        self.spent["issued"] += shape.products
        self._room.extend(ends[-size:])

    def _send(self, offers: Times, ends: Times) -> Times:
        """Give when weights enter the run buffer, from when the last products of each would be."""
        size = self._size
        if len(offers) > size:
            offers = offers.copy()
            np.maximum(offers[size:], ends[:-size] + 1, out=offers[size:])
        return chain(offers, self._sent)

    def _wait(
        self, shape: Shape, load: int, *, entered: Times, offers: Times
    ) -> tuple[Times, Times, Times]:
        """Issue products that wait for operands; also give each weight's last one and its entry."""
        wanted = np.full(shape.products, EARLY, dtype=np.int64)
        wanted[: len(entered)] = entered + ARRIVAL
        # A run's weights leave the buffer at its end, which may let later ones of this block in.
        ends = np.full(shape.words, EARLY, dtype=np.int64)
        while True:
            sent = self._send(offers, ends)
            earliest = wanted.copy()
            earliest[shape.first] = np.maximum(earliest[shape.first], sent + ARRIVAL)
            issued = chain(earliest, load)
            before, ends = ends, issued[shape.ends]
            if np.array_equal(before[: -self._size], ends[: -self._size]):
                break
        could = np.concatenate(([load], issued[:-1])) + 1
        for_activations = int(np.maximum(wanted - could, 0).sum())
        self.spent["stalled_activations"] += for_activations
        waits = int(issued[-1]) - load - len(issued)
        self.spent["stalled_weights"] += waits - for_activations
        return issued, ends, sent
