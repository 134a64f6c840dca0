# SPDX-License-Identifier: Apache-2.0
"""What comes through the port of the tables: parameters, list of tiles, counts, weights."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from csp_hw.core import FETCH_DEPTH, TABLE_DEPTHS
from csp_hw.datapath import PARAM_BYTES
from csp_hw.store import CREDITS
from sim.cosim.core.jobs import Timing
from sim.model.core.memory import EARLY, Times, chain
from sim.model.core.reader import Client, Listed, ReadPort
from sim.model.core.widths import Words
from sim.program.passes import Pass

#: Names of the data of a pass that differ from those of the clients.
DATA = {"entries": "tiles"}


class Tables(NamedTuple):
    """Cycles in which tables come.

    Fields
    ------
    loaded
        The last parameter enters the output stage.
    entries
        Client of the list of tiles.
    counts
        Words of counts enter their store,
    weights
        and weights.
    taken
        Beats of the list leave their client.
    """

    loaded: int
    entries: Client
    counts: Times
    weights: Times
    taken: Times

    @classmethod
    def of(cls, step: Pass, start: int, timing: Timing, bounds: Mapping[str, Times]) -> "Tables":
        """Model the port.

        Parameters
        ----------
        step : Pass
        start : int
            Cycle in which the pass is launched.
        timing : Timing
        bounds : mapping of str to int64 array
            What :func:`bounds` gave, if there is something already.
        """
        config, fields = step.config, step.fields
        cols = config.cols
        params = Words(max(1, cols // PARAM_BYTES))
        counts = Words(cols // config.lookahead, bounds.get("counts"))
        leave = {"params": params, "counts": counts}
        leave |= {
            name: Words(1, bounds[name], direct=True)
            for name in ("entries", "weights")
            if name in bounds
        }
        clients: dict[str, Client] = {}
        for name, depth in TABLE_DEPTHS.items():
            data = DATA.get(name, name)
            beats = -(-len(step.data[data]) // cols)
            again = fields["tiles"] if fields.get(f"{name}_resident", 1) == 0 else 1
            runs = [(fields[f"{data}_offset"] // cols, beats)] * again if beats else []
            if name in leave:
                clients[name] = Listed(runs, start + 1, depth, cols, leave[name])
            else:
                clients[name] = Client(runs, start + 1, depth, cols)
        # The client of the descriptors was the last one.
        descriptors = Client([], 0, FETCH_DEPTH, cols)
        ReadPort([descriptors, *clients.values()], timing, cols).run(lambda: False)
        loaded = params.times[-1]
        if cols < PARAM_BYTES:  # beats are put together, the last one completes a word
            loaded = clients["params"].taken(clients["params"].total - 1) + 1
        return cls(
            loaded=loaded,
            entries=clients["entries"],
            counts=np.array(counts.times, dtype=np.int64),
            weights=clients["weights"].all_taken(),
            taken=clients["entries"].all_taken(),
        )

    def agree(self, before: Mapping[str, Times], bounds: Mapping[str, Times]) -> bool:
        """Whether other bounds than those before would change nothing."""
        for name, now in bounds.items():
            times = self.taken if name == "entries" else getattr(self, name)
            held = times == before[name] if name in before else np.zeros(len(now), dtype=np.bool_)
            if name == "entries":  # nothing waits for the places of the last ones
                count = max(0, len(now) - TABLE_DEPTHS[name])
                times, now, held = times[:count], now[:count], held[:count]
            if not np.all(np.where(held, now == times, now <= times)):
                return False
        return True


def bounds_of_entries(loads: list[int]) -> Times:
    """Give before when beats of the list do not leave, from when they were cut into words."""
    bounds = np.full(len(loads), EARLY, dtype=np.int64)
    bounds[1:] = np.array(loads[:-1], dtype=np.int64) + 1
    return bounds


def bounds_of_store(entered: Times, sent: Times, depth: int) -> Times:
    """Give before when words do not enter a store of which each is read once."""
    earliest = entered + 1
    earliest[CREDITS:] = np.maximum(earliest[CREDITS:], sent[:-CREDITS] + 1)
    bounds = np.full(len(sent), EARLY, dtype=np.int64)
    bounds[depth:] = chain(earliest)[:-depth] + 1
    return bounds
