# SPDX-License-Identifier: Apache-2.0
"""SCNN (Parashar et al., ISCA 2017, doi 10.1145/3079856.3080254): products of all pairs.

The map is cut into tiles, one for each of 8 × 8 elements. For each group of filters and each
channel an element multiplies every non-zero input of its tile with every non-zero weight, 4 × 4 a
cycle:

    cycles = Σ over groups of filters Σ over channels E[ceil(A / 4)] · E[ceil(W / 4)]

A is binomial over the tile's pixels, W over the group's R·S·filters weights. A group has as many
filters as 6,144 sums hold, halo included: floor(6144 / ((h + R − 1)·(w + S − 1))).

Stride: all products are made, of which 1 / stride² are wanted; of 1 × 1 kernels, too, though most
of their inputs need not be read, which is not in SCNN's favour. Kernels of 1 × 1 and linear layers
have their pixels dealt evenly. Elements that get no tile take a share of the filters: our choice,
in SCNN's favour, since the paper leaves linear layers out.

Simplified, in SCNN's favour: all tiles are as dense as the layer (no wait for a denser one), no
conflicts at the accumulators' banks, no exchange of halos, the crossbar takes no energy. Not in its
favour: elements without work read their buffers as the others do. Sizes of its memories (10 KB of
inputs, 1 KB of weights, accumulators in banks of 1 KB) are from memory. In DRAM each non-zero
element has a 4-bit run of zeros.
"""

import dataclasses

from sim.model.constants import Constants
from sim.model.sram import Memory
from sim.peers.base import (
    Cost,
    Part,
    Traffic,
    compressed,
    expected_groups,
    map_sizes,
    useful_products,
)
from sim.workloads.catalogue import Work

#: Bits of the run of zeros that stands with each element.
RUN_BITS = 4
#: Bytes of a partial sum in its bank.
SUM_BYTES = 4
#: Bits that change in registers for each product: the product and its address.
REGISTER_BITS = 16 + 16

#: Its memories.
INPUTS = Memory(bytes=10 * 1024, width_bits=64)
WEIGHTS = Memory(bytes=1024, width_bits=64)
ACCUMULATORS = Memory(bytes=1024, width_bits=32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scnn:
    """The accelerator: ``side`` × ``side`` elements of ``vector`` × ``vector`` multipliers."""

    side: int = 8
    vector: int = 4
    sums: int = 6144
    inputs: Memory = INPUTS
    weights: Memory = WEIGHTS
    accumulators: Memory = ACCUMULATORS

    @property
    def multipliers(self) -> int:
        """Of all elements."""
        return self.side**2 * self.vector**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tiling:
    """Tiles of height × width, ``count`` elements have one, each for a share of the filters."""

    height: int
    width: int
    count: int
    filters: int
    group: int


def _tiling(work: Work, config: Scnn) -> _Tiling:
    geometry = work.shape.geometry
    rows, columns, _ = geometry.in_shape
    if geometry.kernel == (1, 1):
        rows, columns = 1, rows * columns
        height, width = 1, -(-columns // config.side**2)
    else:
        height, width = -(-rows // config.side), -(-columns // config.side)
    count = -(-rows // height) * -(-columns // width)
    filters = -(-geometry.group_filters // (config.side**2 // count))
    down, right = geometry.kernel
    room = config.sums // ((height + down - 1) * (width + right - 1))
    return _Tiling(
        height=height, width=width, count=count, filters=filters, group=max(1, min(filters, room))
    )


def cost(work: Work, *, config: Scnn | None = None, constants: Constants | None = None) -> Cost:
    """Give what a layer costs."""
    config, constants = config or Scnn(), constants or Constants()
    shape, geometry = work.shape, work.shape.geometry
    tiling = _tiling(work, config)
    kernel = geometry.kernel[0] * geometry.kernel[1]
    vector = config.vector
    whole, rest = divmod(tiling.filters, tiling.group)
    weight_words = whole * expected_groups(tiling.group * kernel, work.weights, vector)
    weight_words += expected_groups(rest * kernel, work.weights, vector) if rest else 0.0
    input_words = expected_groups(tiling.height * tiling.width, work.inputs, vector)
    channels = geometry.in_shape[2] * shape.repeat
    cycles = channels * input_words * weight_words
    busy = config.side**2 * cycles  # cycles of elements: each has the largest tile
    passes = whole + bool(rest)

    inputs, outputs = (shape.repeat * size for size in map_sizes(work))
    weights = shape.repeat * shape.weights
    products = inputs * work.inputs * geometry.group_filters * kernel * work.weights
    registers = constants.register_bit * REGISTER_BITS
    element_bytes = (8 + RUN_BITS) / 8
    elements = config.side**2
    core = {
        Part.MAC: constants.mac * products,
        Part.REGISTER: registers * products,
        Part.ACCUMULATOR: config.accumulators.read(SUM_BYTES * products, constants)
        + config.accumulators.write(SUM_BYTES * products, constants),
        Part.BUFFER: config.weights.read(busy * vector * element_bytes, constants)
        + config.inputs.read(
            elements * passes * channels * input_words * vector * element_bytes, constants
        )
        + config.inputs.write(
            (inputs * work.inputs + outputs * work.outputs) * element_bytes, constants
        ),
        Part.IDLE: constants.idle_share
        * (constants.mac + registers)
        * (cycles * config.multipliers - products),
    }
    return Cost(
        name=shape.name,
        cycles=cycles,
        units=config.multipliers,
        useful=useful_products(work),
        core=core,
        traffic=Traffic(
            weights=compressed(weights, work.weights, RUN_BITS),
            inputs=compressed(inputs, work.inputs, RUN_BITS),
            outputs=compressed(outputs, work.outputs, RUN_BITS),
        ),
        constants=constants,
    )
