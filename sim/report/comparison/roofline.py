# SPDX-License-Identifier: Apache-2.0
"""What bounds each layer on CSP-H: the array, the drain, or one of the ports."""

import dataclasses
from collections.abc import Mapping

from sim.cosim.core.jobs import Timing
from sim.model.bound import pass_bound
from sim.model.constants import Constants
from sim.peers import csp_h
from sim.peers.csp_h import CspCost, CspH, Place
from sim.program.passes import Pass
from sim.workloads.catalogue import Work


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roof:
    """A layer under the roofs of CSP-H; all repeats, one image.

    Parameters
    ----------
    cycles : float
    products : float
        On a live pixel and a real filter; those with an activation of zero, too.
    port_bytes : float
        Bytes of the port that moves the most.
    sums : float
        Partial sums that the array drains.
    paths : mapping of str to float
        Cycles that each path alone would take.
    limit : str
        The path that binds for the most cycles.
    """

    cycles: float
    products: float
    port_bytes: float
    sums: float
    paths: Mapping[str, float]
    limit: str

    @property
    def rate(self) -> float:
        """Products a cycle."""
        return self.products / self.cycles

    @property
    def per_byte(self) -> float:
        """Products for each byte of the busiest port."""
        return self.products / self.port_bytes

    @property
    def per_sum(self) -> float:
        """Products for each partial sum that is drained."""
        return self.products / self.sums


def layer(
    work: Work, place: Place, config: CspH, constants: Constants, *, seed: int = 0
) -> tuple[CspCost, Roof]:
    """Give what a layer costs on CSP-H, and what bounds it."""
    factor = work.shape.repeat / config.images
    paths: dict[str, float] = {}
    binds: dict[str, float] = {}

    def clock(step: Pass, timing: Timing) -> float:
        bound = pass_bound(step, timing)
        for name, cycles in bound.paths.items():
            paths[name] = paths.get(name, 0.0) + factor * cycles
        binds[bound.limit] = binds.get(bound.limit, 0.0) + bound.cycles
        return csp_h.bound_cycles(step, timing)

    watched = dataclasses.replace(config, cycles=clock)
    cost = csp_h.cost(work, config=watched, constants=constants, place=place, seed=seed)
    actions, cols = cost.actions, config.core.config.cols
    beats = (
        actions.input_beats,
        actions.weight_beats,
        actions.residual_beats,
        actions.result_beats,
    )
    roof = Roof(
        cycles=cost.cycles,
        products=actions.useful,
        port_bytes=cols * max(beats),
        sums=cols * actions.sums,
        paths=paths,
        limit=max(binds, key=binds.__getitem__),
    )
    return cost, roof
