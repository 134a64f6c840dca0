# SPDX-License-Identifier: Apache-2.0
"""What was found, network by network; what follows from it is a property."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import cast

from sim.model.actions import together as acted
from sim.model.constants import Constants
from sim.peers.base import Cost, together
from sim.peers.csp_h import CspCost, CspH, places
from sim.peers.sparten import SparTenCost, network_cost
from sim.report.comparison import chain, levers, roofline, sensitivity
from sim.report.comparison.accelerators import (
    OURS,
    RIVAL,
    RIVAL_CASCADE,
    Accelerator,
    costs,
)
from sim.report.comparison.chain import Step
from sim.report.comparison.levers import Pulled
from sim.report.comparison.roofline import Roof
from sim.report.comparison.sensitivity import Sweep
from sim.workloads.catalogue import Work, Workload

#: Tells what is being done, and which share 0 … 1 is done.
Tell = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerRecord:
    """A layer: the work, what it costs everyone, and what bounds it on CSP-H."""

    work: Work
    costs: Mapping[str, Cost]
    roof: Roof

    @property
    def name(self) -> str:
        """Its name in the network."""
        return self.work.shape.name


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NetworkRecord:
    """A network.

    Parameters
    ----------
    workload : Workload
    layers : tuple of LayerRecord
    sweeps : tuple of Sweep
        Of CSP-H's parameters.
    levers : tuple of Pulled
        What could be built otherwise, the strongest first.
    """

    workload: Workload
    layers: tuple[LayerRecord, ...]
    sweeps: tuple[Sweep, ...]
    levers: tuple[Pulled, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return self.workload.name

    @property
    def macs(self) -> int:
        """Multiplications of the dense network."""
        return sum(layer.work.shape.macs for layer in self.layers)

    @functools.cached_property
    def totals(self) -> dict[str, Cost]:
        """What the network costs everyone."""
        totals: dict[str, Cost] = {}
        for key in self.layers[0].costs:
            parts = [layer.costs[key] for layer in self.layers]
            spartens = [part for part in parts if isinstance(part, SparTenCost)]
            totals[key] = (
                network_cost(self.name, spartens) if spartens else together(self.name, parts)
            )
        return totals

    @functools.cached_property
    def ours(self) -> CspCost:
        """What it costs CSP-H, with its actions and components."""
        parts = [cast(CspCost, layer.costs[OURS]) for layer in self.layers]
        whole = self.totals[OURS]
        components = {
            name: sum(part.components[name] for part in parts) for name in parts[0].components
        }
        fields = {field.name: getattr(whole, field.name) for field in dataclasses.fields(Cost)}
        actions = acted(part.actions for part in parts)
        return CspCost(**fields, actions=actions, components=components)

    @property
    def compared(self) -> bool:
        """Whether SparTen is there."""
        return RIVAL in self.totals

    @property
    def energy_chain(self) -> tuple[Step, ...]:
        """Steps from SparTen's energy to CSP-H's; none without SparTen."""
        return self._chain(chain.energy)

    @property
    def cycle_chain(self) -> tuple[Step, ...]:
        """Steps from SparTen's cycles to CSP-H's; none without SparTen."""
        return self._chain(chain.cycles)

    def _chain(self, steps: Callable[[Cost, Cost, CspCost], tuple[Step, ...]]) -> tuple[Step, ...]:
        if not self.compared:
            return ()
        return steps(self.totals[RIVAL], self.totals[RIVAL_CASCADE], self.ours)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """All networks, and what they were reckoned with.

    Parameters
    ----------
    networks : tuple of NetworkRecord
    accelerators : tuple of Accelerator
    config : CspH
    constants : Constants
    seed : int
        Of what is drawn.
    provenance : mapping of str to str
        Version, command … what is needed to get these numbers again.
    """

    networks: tuple[NetworkRecord, ...]
    accelerators: tuple[Accelerator, ...]
    config: CspH
    constants: Constants
    seed: int = 0
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def shown(self, network: NetworkRecord) -> tuple[Accelerator, ...]:
        """Give the accelerators that there are figures of."""
        return tuple(one for one in self.accelerators if one.key in network.totals)

    @property
    def all_shown(self) -> tuple[Accelerator, ...]:
        """Those that there are figures of on any network."""
        keys = {key for network in self.networks for key in network.totals}
        return tuple(one for one in self.accelerators if one.key in keys)

    def title(self, key: str) -> str:
        """Give the name of an accelerator for people."""
        return next(one.title for one in self.accelerators if one.key == key)


def compare(
    network: Workload,
    tell: Tell,
    *,
    config: CspH | None = None,
    constants: Constants | None = None,
    seed: int = 0,
    sparten: bool = True,
) -> NetworkRecord:
    """Reckon what a network costs everyone.

    Parameters
    ----------
    network : Workload
    tell : callable
        Takes the layer or parameter that is next, and the share that is done.
    config : CspH, optional
    constants : Constants, optional
    seed : int
    sparten : bool
        SparTen, too: seconds to minutes a network.

    Raises
    ------
    CspError
        A layer does not fit CSP-H.
    """
    config, constants = config or CspH(), constants or Constants()
    # The masks of a layer are as large as its maps and weights: shares by them.
    sizes = [work.shape.macs + work.shape.weights for work in network.works]
    whole = sum(sizes) * (1.25 if sparten else 4)
    layers: list[LayerRecord] = []
    done = 0
    for work, place, size in zip(network.works, places(network), sizes, strict=True):
        tell(work.shape.name, done / whole)
        ours, roof = roofline.layer(work, place, config, constants, seed=seed)
        others = costs(work, constants, seed=seed, sparten=sparten)
        layers.append(LayerRecord(work=work, costs={OURS: ours, **others}, roof=roof))
        done += size
    sweeps = []
    left, rest = 1 - done / whole, len(sensitivity.PARAMETERS) + 1
    for number, parameter in enumerate(sensitivity.PARAMETERS):
        tell(parameter.name, 1 - left * (rest - number) / rest)
        sweeps.append(sensitivity.sweep(network, parameter, config, constants, seed=seed))
    tell("levers", 1 - left / rest)
    return NetworkRecord(
        workload=network,
        layers=tuple(layers),
        sweeps=tuple(sweeps),
        levers=levers.ranked(network, config, constants, seed=seed),
    )
