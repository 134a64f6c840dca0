# SPDX-License-Identifier: Apache-2.0
"""How much each layer of a network keeps, so that all of it meets a budget on the core."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from csp_algo import budget, sensitivity
from csp_algo.cascade import Counts
from csp_algo.errors import located
from csp_algo.network import Network
from csp_algo.quantize import FloatNetwork, quantise
from csp_hw.config import CspConfig
from sim.costs import Meter, Of, dense, densities, with_counts

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What a network's layers cost and how much they matter; the budget comes later.

    Parameters
    ----------
    meter : Meter
    skeleton : Network
        Integers of the network, for its costs.
    ladders : mapping of layer name to counts [groups, J] at each share
        Shares are :data:`csp_algo.sensitivity.SHARES`.
    costs : mapping of layer name to float64 [shares]
    errors : mapping of layer name to float64 [shares]
        Of the network's output, if only this layer is pruned.
    whole : mapping of node name to float
        Costs of the dense network.
    fixed : mapping of node name to float
        Those of them that stay as they are.
    """

    meter: Meter
    skeleton: Network
    ladders: Mapping[str, Sequence[Counts]]
    costs: Mapping[str, Floats]
    errors: Mapping[str, Floats]
    whole: Mapping[str, float]
    fixed: Mapping[str, float]

    def choose(self, share: float) -> dict[str, int]:
        """Give the level of each layer with which all costs at most a share of the dense network.

        Raises
        ------
        CspError
            The budget is out of reach.
        """
        curves = [
            budget.Curve(name=name, costs=costs, damages=self.errors[name] ** 2)
            for name, costs in self.costs.items()
        ]
        whole, allowed = sum(self.whole.values()), share
        with located(f"network {self.skeleton.name}"):
            while True:
                levels = budget.choose(curves, allowed, whole, self.fixed)
                # Where weights lie in memory, and so their bursts, depends on the other layers.
                excess = sum(self.costs_of(self.counts(levels)).values()) / whole - share
                if excess <= budget.ROUNDING:
                    return levels
                allowed -= excess

    def counts(self, levels: Mapping[str, int]) -> dict[str, Counts]:
        """Give the counts of some levels."""
        return {name: self.ladders[name][level] for name, level in levels.items()}

    def costs_of(self, counts: Mapping[str, Counts]) -> dict[str, float]:
        """Give the cost of each node with some counts."""
        return self.meter.nodes(with_counts(self.skeleton, counts))


def measure(
    network: FloatNetwork,
    layers: Sequence[str],
    images: npt.NDArray[np.integer],
    *,
    of: Of,
    config: CspConfig,
    moments: Mapping[str, Floats],
    tell: Callable[[str, float], None] = sensitivity.silent,
) -> Measured:
    """Measure what some layers of a network cost and how much they matter.

    Parameters
    ----------
    network : FloatNetwork
    layers : names
    images : integers [N, H, W, C]
        Of the input's type, N above 0.
    of : Of
    config : CspConfig
    moments : mapping of layer name to float64 [groups, J]
        :func:`csp_algo.prune.tap_moments`.
    tell : function of a name and of the share that is done, optional

    Raises
    ------
    CspError
        The core cannot run the network, and more than its weights are asked for.
    """
    cols = config.cols
    skeleton = quantise(
        network, images[:1], cols=cols, period=config.max_period, acc_bits=config.acc_bits
    )
    filled = densities(skeleton, network.forward(images)) if of is Of.ENERGY else {}
    meter = Meter(of=of, config=config, densities=filled)
    ladders = sensitivity.ladders(network, layers, cols, moments=moments)
    whole = meter.nodes(dense(skeleton))
    costs = []
    for level, share in enumerate(sensitivity.SHARES):
        tell(f"{of} at {share:.0%}", level / len(sensitivity.SHARES) / 2)
        counts = {name: each[level] for name, each in ladders.items()}
        costs.append(meter.nodes(with_counts(skeleton, counts)))
    measured = [sensitivity.SHARES.index(share) for share in sensitivity.MEASURED]
    errors = sensitivity.errors(
        network,
        {name: [each[level] for level in measured] for name, each in ladders.items()},
        cols,
        images,
        tell=lambda name, share: tell(name, (1 + share) / 2),
    )
    lost = sensitivity.losses(network, ladders, cols, moments=moments)
    return Measured(
        meter=meter,
        skeleton=skeleton,
        ladders=ladders,
        costs={name: np.array([each[name] for each in costs]) for name in ladders},
        errors={name: sensitivity.interpolated(each, lost[name]) for name, each in errors.items()},
        whole=whole,
        fixed={name: cost for name, cost in costs[0].items() if name not in ladders},
    )
