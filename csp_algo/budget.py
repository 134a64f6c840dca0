# SPDX-License-Identifier: Apache-2.0
"""A choice of how much each layer keeps, under a budget of some cost of the whole network.

Each layer has a few levels, each with a cost and a damage; costs and damages of layers are added.
From the cheapest levels on, the step with the most damage averted for its cost is taken, of those
that still fit. While the best of all fits, that is the choice for a price λ of a unit of cost, the
last step's ratio, and goes along the lower convex hull of each layer's points: no other choice of
as little cost does less damage (H. Everett, Operations Research 11, 1963,
doi 10.1287/opre.11.3.399). What is left of the budget then goes to smaller steps.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError

Floats = npt.NDArray[np.float64]

#: By how much sums of costs may miss each other.
ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """What a layer costs and what damage it does, at each of its levels.

    Parameters
    ----------
    name : str
    costs, damages : float64 [L]
        L above 0, finite.

    Raises
    ------
    CspError
        They are not.
    """

    name: str
    costs: Floats
    damages: Floats

    def __post_init__(self) -> None:
        for name in ("costs", "damages"):
            values = getattr(self, name)
            if values.shape != self.costs.shape or values.ndim != 1 or not values.size:
                raise CspError(f"layer {self.name}: {name} must be [L], not {list(values.shape)}")
            if not np.isfinite(values).all():
                raise CspError(f"layer {self.name}: {name} hold a value that is not finite")

    @property
    def cheapest(self) -> int:
        """The level of the least cost; of equals that of the least damage."""
        return int(np.lexsort((self.damages, self.costs))[0])

    def best_step(self, level: int, room: float) -> tuple[float, int]:
        """Give the best step from a level: damage averted for each unit of cost, and where to.

        0 and the level itself if no dearer level within the room does less damage.
        """
        dearer, averted = self.costs - self.costs[level], self.damages[level] - self.damages
        possible = (dearer > 0) & (averted > 0) & (dearer <= room)
        ratios = np.where(possible, averted / np.where(possible, dearer, 1.0), 0.0)
        best = int(np.argmax(ratios))
        return (float(ratios[best]), best) if ratios[best] > 0 else (0.0, level)


def choose(
    curves: Sequence[Curve], budget: float, whole: float, fixed: Mapping[str, float]
) -> dict[str, int]:
    """Give the level of each layer.

    A larger budget never gives a smaller cost.

    Parameters
    ----------
    curves : sequence of Curve
    budget : float
        Most that all may cost, as a share of ``whole``, above 0.
    whole : float
        Cost of the dense network.
    fixed : mapping of name to cost
        Of what is not pruned.

    Raises
    ------
    CspError
        The budget is out of reach; the message says what is the least, and which layer holds most
        of it.
    """
    levels = [curve.cheapest for curve in curves]
    least = {curve.name: float(curve.costs[n]) for curve, n in zip(curves, levels, strict=True)}
    least = {**fixed, **least}
    spent, limit = sum(least.values()), budget * whole * (1 + ROUNDING)
    if spent > limit:
        most = max(least, key=least.__getitem__)
        raise CspError(
            f"a budget of {budget:g} is out of reach: the least is {spent / whole:.4f} of the "
            f"dense network's, {least[most] / spent:.0%} of it in {most}"
        )
    while True:
        steps = [
            curve.best_step(level, limit - spent)
            for curve, level in zip(curves, levels, strict=True)
        ]
        which = max(range(len(steps)), key=lambda number: steps[number][0], default=-1)
        if which < 0 or steps[which][0] == 0:
            return {curve.name: level for curve, level in zip(curves, levels, strict=True)}
        costs, level = curves[which].costs, steps[which][1]
        spent += float(costs[level] - costs[levels[which]])
        levels[which] = level
