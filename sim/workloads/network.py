# SPDX-License-Identifier: Apache-2.0
"""A layer as work, made a network of one layer with a cascade's counts, for the core's compiler.

The weights' values do not matter to what the core does when; all of them are 0.
"""

import numpy as np

from csp_algo.compress import CompressedMatrix
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Layer, Network
from sim.workloads.catalogue import Work
from sim.workloads.operands import cascade

INPUT, LAYER = "input", "layer"


def network(work: Work, *, cols: int, period: int, seed: int = 0) -> Network:
    """Give one repeat of a layer; its counts are those of the cascade of SparTen's model.

    Parameters
    ----------
    work : Work
    cols, period : int
        Filters of a chunk and T.
    seed : int
        Of the counts.
    """
    geometry = work.shape.geometry
    matrices = tuple(
        CompressedMatrix(
            filters=geometry.group_filters,
            cols=cols,
            period=period,
            counts=counts.astype(np.uint8),
            words=np.zeros((int(counts.sum()), cols), dtype=np.int8),
        )
        for counts in cascade(work, cols=cols, seed=seed)
    )
    layer = Layer(
        name=LAYER,
        input=INPUT,
        geometry=geometry,
        matrices=matrices,
        acc_shift=0,
        bias=np.zeros(geometry.filters, dtype=np.int32),
        mult=np.full(geometry.filters, 2**15, dtype=np.uint16),
        shift=np.zeros(geometry.filters, dtype=np.uint8),
        relu=True,
        dtype=ActDtype.UINT8,
        filter_order=np.arange(geometry.filters, dtype=np.int32),
        scale=1.0,
    )
    source = Input(name=INPUT, shape=geometry.in_shape, dtype=ActDtype.UINT8, scale=1.0)
    return Network(name=work.shape.name, input=source, nodes=(layer,), cols=cols, period=period)
