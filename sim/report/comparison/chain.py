# SPDX-License-Identifier: Apache-2.0
"""From SparTen to CSP-H in steps: what each one is worth, the product of all is the whole."""

import dataclasses
from collections.abc import Sequence

from sim.peers.base import Cost, Part
from sim.peers.csp_h import CspCost

#: Parts of the energy that CSP-H's take the place of, one step each.
EXCHANGED: tuple[tuple[str, tuple[Part, ...]], ...] = (
    ("units that wait or have nothing to do", (Part.IDLE,)),
    ("finding operands: inner join, permute network; counts, skew, drain", (Part.JOIN, Part.ROUTE)),
    ("buffers and other logic", (Part.BUFFER, Part.OTHER)),
    ("operand and run registers, accumulation buffers", (Part.REGISTER, Part.ACCUMULATOR)),
    ("multipliers", (Part.MAC,)),
    ("DRAM: bit masks and non-zero bytes; counts and chunks, dense maps", (Part.DRAM,)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One step: what changes, and the value behind it; the first one has no factor."""

    name: str
    value: float
    factor: float | None


def steps(values: Sequence[tuple[str, float]]) -> tuple[Step, ...]:
    """Give values that follow each other as steps: a factor above 1 is a gain."""
    found: list[Step] = []
    for name, value in values:
        before = found[-1].value if found else None
        found.append(Step(name=name, value=value, factor=before / value if before else None))
    return tuple(found)


def energy(rival: Cost, cascade: Cost, ours: Cost) -> tuple[Step, ...]:
    """Give the way of the energy, pJ.

    Parameters
    ----------
    rival, cascade : Cost
        SparTen with unstructured weights, and with those of a cascade.
    ours : Cost
        CSP-H.
    """
    values = [
        ("SparTen, unstructured weights, inputs again for each group of filters", 0.0),
        ("each input from DRAM once, as CSP-H has it", rival.total()),
        ("weights pruned as a cascade, equal sparsity", cascade.total()),
    ]
    values[0] = (values[0][0], rival.total(refetch=True))
    now, target = cascade.energy(), ours.energy(refetch=True)
    for name, parts in EXCHANGED:
        now |= {part: target.get(part, 0.0) for part in parts}
        values.append((name, sum(now.values())))
    return steps(values)


def cycles(rival: Cost, cascade: Cost, ours: CspCost) -> tuple[Step, ...]:
    """Give the way of the cycles; arguments as those of :func:`energy`."""
    done, units = ours.actions, ours.units
    return steps(
        [
            ("SparTen, unstructured weights", rival.cycles),
            ("weights pruned as a cascade, equal sparsity", cascade.cycles),
            ("no unit ever waits: useful products / units", cascade.useful / units),
            ("zero activations take their cycle in CSP-H", done.useful / units),
            ("lanes without a pixel, filters that pad a chunk", done.slots / units),
            ("drain, ports, scan of the counts, start and end", ours.cycles),
        ]
    )
