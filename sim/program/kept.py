# SPDX-License-Identifier: Apache-2.0
"""Which maps stay in the map memory of a core, and where.

A map has its place from the first pass that writes it to the last one that reads it. The largest
maps are placed first, and of equal ones those that are written first, each at the first bank's
begin, or else behind the first other map, where it overlaps no other one of its time. A pass reads
its input and its residual at once, so they lie in different banks. What finds no place stays
outside, and so do maps that a pass reads as both.

Maps in the order in which they are written would leave holes: of ResNet-50's, 2 MiB would keep 82 %
of the bytes that are moved, instead of all (``tests/sim/test_kept.py``).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from csp_hw.config import CspConfig
from csp_hw.map_memory import BANKS
from sim.program.memory import AREA_ALIGNMENT


class Use(NamedTuple):
    """The maps that the passes of a node read and write.

    Fields
    ------
    reads, writes
        Names; a map that is only there is read.
    residual
        Name of the map that is added while the others are read, if there is one.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    residual: str | None = None


def keep(
    uses: Sequence[Use], sizes: Mapping[str, int], outside: Collection[str], config: CspConfig
) -> dict[str, int]:
    """Give the maps that stay on the chip, and the offset of each in the map memory.

    Parameters
    ----------
    uses : sequence of Use
        Of all nodes, in order.
    sizes : mapping of str to int
        Bytes of each map that may stay.
    outside : names
        Maps that software writes or reads.
    config : CspConfig
    """
    spans: dict[str, range] = {}
    apart: dict[str, set[str]] = {}
    for time, (reads, writes, residual) in enumerate(uses):
        added = () if residual is None else (residual,)
        for name in (*writes, *reads, *added):
            spans[name] = range(spans.get(name, range(time, 0)).start, time + 1)
        for one in added:
            for other in reads:
                apart.setdefault(one, set()).add(other)
                apart.setdefault(other, set()).add(one)
    places: dict[str, range] = {}
    may_stay = [name for name in spans if name in sizes and name not in outside]
    for name in sorted(may_stay, key=lambda name: -sizes[name]):
        others = apart.get(name, set())
        if name not in others:
            meeting = [each for each in places if _meet(spans[name], spans[each])]
            banks = {
                bank
                for each in others.intersection(places)
                for bank in _banks(places[each], config)
            }
            place = _fit(sizes[name], [places[each] for each in meeting], banks, config)
            if place is not None:
                places[name] = place
    return {name: place.start for name, place in places.items()}


def _fit(size: int, beside: Sequence[range], banks: set[int], config: CspConfig) -> range | None:
    """Give the first place at a bank's begin, or else behind another one, that is free."""
    alignment = max(AREA_ALIGNMENT, config.cols)
    size = -(-size // alignment) * alignment
    begins = range(0, config.map_bytes, config.map_bytes // BANKS)
    for start in (*begins, *sorted(place.stop for place in beside)):
        place = range(start, start + size)
        free = not any(_meet(place, other) for other in beside)
        if (
            free
            and place.stop <= config.map_bytes
            and not banks.intersection(_banks(place, config))
        ):
            return place
    return None


def _banks(place: range, config: CspConfig) -> range:
    """Give the banks in which a place lies."""
    bank = config.map_bytes // BANKS
    return range(place.start // bank, (place.stop - 1) // bank + 1)


def _meet(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop
