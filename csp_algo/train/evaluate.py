# SPDX-License-Identifier: Apache-2.0
"""A quick forward pass of an integer network for the accuracy log.

It knows only the nodes that training needs: layers, pools and flattening.
Where no partial sum can saturate, which is nearly everywhere, a layer is one matrix product.
"""

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError
from csp_algo.integers import Ints, accumulate, affine, requantise, rescale
from csp_algo.network import AvgPool, Flatten, Layer, MaxPool, Network
from csp_algo.quantize import safe_shifts


def integer_forward(network: Network, images: npt.NDArray[np.integer], *, acc_bits: int) -> Ints:
    """Give the output of the last node, int64 [N, H, W, C].

    Raises
    ------
    CspError
        A node is of another kind; the message names it.
    """
    safe = safe_shifts(network, acc_bits)
    dtypes = network.dtypes()
    values: dict[str, npt.NDArray[np.integer]] = {network.input.name: images}
    for node in network.nodes:
        match node:
            case Layer():
                exact = safe[node.name] == 0 == node.acc_shift
                residual = None if node.residual is None else values[node.residual.input]
                values[node.name] = _layer(node, values[node.input], residual, acc_bits, exact)
            case MaxPool():
                x = values[node.input]
                # Every window holds an element, so the least of all elements never wins.
                values[node.name] = node.unfold(x, fill=int(x.min())).max(axis=(3, 4))
            case AvgPool():
                x = values[node.input]
                totals = node.unfold(x.astype(np.int64), fill=0).sum(axis=(3, 4))
                height, width, channels = x.shape[1:]
                mults = node.multipliers((height, width, channels))[..., None]
                kind = dtypes[node.name]
                # A multiplier may have been rounded up, and the mean with it.
                mean = rescale(totals, mults, node.shift)
                values[node.name] = np.clip(mean, kind.low, kind.high)
            case Flatten():
                values[node.name] = values[node.input].reshape(len(images), 1, 1, -1)
            case _:
                raise CspError(f"{node.name}: a {type(node).__name__} is not expected here")
    return values[network.output.name].astype(np.int64)


def _layer(
    layer: Layer,
    x: npt.NDArray[np.integer],
    residual: npt.NDArray[np.integer] | None,
    acc_bits: int,
    exact: bool,
) -> Ints:
    # Runs stay below 2^20 and sums of 24 bits below 2^23, so float32 holds them exactly and numpy
    # multiplies it fast; so does float64 with all others, which stay far below 2^53.
    kind = np.float64 if exact and acc_bits > 24 else np.float32
    parts = layer.geometry.unfold(x.astype(kind))
    groups: list[Ints] = []
    for matrix, windows in zip(layer.matrices, parts, strict=True):
        weights = matrix.decompress().T.astype(kind)
        if exact:
            groups.append((windows @ weights).astype(np.int64))
            continue
        acc = np.zeros((*windows.shape[:-1], matrix.filters), dtype=np.int64)
        for taps in matrix.blocks():
            run = (windows[..., taps] @ weights[taps]).astype(np.int64)
            acc, _ = accumulate(acc, run, layer.acc_shift, acc_bits)
        groups.append(acc)
    v = affine(np.concatenate(groups, axis=-1), layer.acc_shift, layer.bias)
    added = None
    if layer.residual is not None and residual is not None:
        added = rescale(residual, layer.residual.mult, layer.residual.shift)
    return requantise(v, layer.mult, layer.shift, layer.dtype, relu=layer.relu, residual=added)


def integer_accuracy(
    network: Network,
    images: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    *,
    acc_bits: int = 24,
    batch: int = 25,
) -> float:
    """Give the share of right answers (argmax, the first of equals) in percent."""
    right = 0
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        answers = integer_forward(network, images[part], acc_bits=acc_bits)
        right += int((answers.reshape(len(answers), -1).argmax(axis=1) == labels[part]).sum())
    return 100 * right / len(labels)
