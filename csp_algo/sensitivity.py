# SPDX-License-Identifier: Apache-2.0
"""How far a network's outputs move when a single layer is pruned."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from csp_algo import prune
from csp_algo.cascade import Counts, chunk_sums
from csp_algo.prefix import counts_for_shares
from csp_algo.quantize import FloatNetwork

Floats = npt.NDArray[np.float64]

#: Shares of its weights that a layer may keep.
SHARES = (
    *(1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5),
    *(0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05),
)
#: Those at which errors are measured; between them they are interpolated.
MEASURED = (0.9, 0.7, 0.4, 0.2, 0.05)


def silent(_name: str, _share: float) -> None:
    """Tell nobody what is being done and which share of all is done."""


def ladders(
    network: FloatNetwork,
    layers: Sequence[str],
    cols: int,
    *,
    moments: Mapping[str, Floats],
    shares: Sequence[float] = SHARES,
) -> dict[str, list[Counts]]:
    """Give the counts [groups, J] of each layer at each share of its weights."""
    return {
        layer.name: counts_for_shares(
            layer.matrices, cols, shares, moments=moments[layer.name], name=f"layer {layer.name}"
        )
        for layer in network.layers()
        if layer.name in layers
    }


def errors(
    network: FloatNetwork,
    counts: Mapping[str, Sequence[Counts]],
    cols: int,
    images: npt.NDArray[np.integer],
    *,
    tell: Callable[[str, float], None] = silent,
) -> dict[str, Floats]:
    """Give ‖y′ − y‖ / ‖y‖ of the network's output y when one layer alone has some counts.

    Maps before the layer are computed once; only what depends on it is computed again.

    Parameters
    ----------
    network : FloatNetwork
    counts : mapping of layer name to sequence of int64 [groups, J]
    cols : int
        Filters of a chunk.
    images : integers [N, H, W, C]
        Of the input's type, N above 0.
    tell : function of a name and of the share of the layers that is done, optional

    Returns
    -------
    dict of layer name to float64 [number of counts]
    """
    values = network.forward(images)
    expected = values[network.nodes[-1].name]
    size = float(np.linalg.norm(expected)) or 1.0
    found: dict[str, Floats] = {}
    for layer in network.layers():
        if layer.name not in counts:
            continue
        tell(layer.name, len(found) / len(counts))
        each = [
            np.linalg.norm(network.output_with(prune.kept(layer, some, cols), values) - expected)
            for some in counts[layer.name]
        ]
        found[layer.name] = np.array(each) / size
    return found


def losses(
    network: FloatNetwork,
    counts: Mapping[str, Sequence[Counts]],
    cols: int,
    *,
    moments: Mapping[str, Floats],
) -> dict[str, Floats]:
    """Give which share of a layer's norm is lost with some counts, taps weighed with moments.

    It is ‖y′ − y‖ / ‖y‖ of the layer's own sums if activations are uncorrelated.

    Returns
    -------
    dict of layer name to float64 [number of counts]
    """
    found = {}
    for layer in network.layers():
        if layer.name in counts:
            squares = chunk_sums(layer.matrices**2, cols) * moments[layer.name][:, None]
            chunk = np.arange(squares.shape[-2])[:, None]
            lost = [squares[chunk >= each[:, None]].sum() for each in counts[layer.name]]
            found[layer.name] = np.sqrt(np.array(lost) / (squares.sum() or 1.0))
    return found


def interpolated(measured: Floats, lost: Floats) -> Floats:
    """Give the error at each of :data:`SHARES` from those at :data:`MEASURED`.

    It is 0 with all weights, never smaller with fewer, and linear in the norm that is lost between
    those that were measured.

    Parameters
    ----------
    measured : float64 [MEASURED]
    lost : float64 [SHARES]
        Not decreasing.
    """
    known = np.maximum.accumulate(np.concatenate(([0.0], measured)))
    where = [SHARES.index(share) for share in (1.0, *MEASURED)]
    return np.asarray(np.interp(lost, lost[where], known))
