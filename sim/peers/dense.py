# SPDX-License-Identifier: Apache-2.0
"""A dense output-stationary systolic array: what is gained by no zero at all.

Rows are output pixels, columns are filters, as in TPU-like arrays run output-stationary
(SCALE-Sim, arXiv:1811.02883, calls it so). For each of the g groups of a layer of P pixels, M
filters and J taps:

    cycles = g · ceil(P / rows) · ceil(M / (g · cols)) · J  [+ rows + cols − 2 with ``fill``]

Simplified: tiles follow each other without a bubble, and results leave beside the next tile; the
skew of the first and last tile counts with ``fill`` only. Operands are always there. Zeros are
multiplied like everything else.
"""

import dataclasses

from sim.model.constants import Constants
from sim.model.sram import Memory
from sim.peers.base import Cost, Part, Traffic, map_sizes, useful_products
from sim.workloads.catalogue import Work

#: Bits of an operand and of a partial sum.
OPERAND_BITS, SUM_BITS = 8, 24

#: Its memories.
ACTIVATIONS = Memory(bytes=512 * 1024, width_bits=256)
WEIGHTS = Memory(bytes=512 * 1024, width_bits=256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dense:
    """The array; as many multipliers and as large buffers as CSP's with 1,024 elements."""

    rows: int = 32
    cols: int = 32
    fill: bool = False
    activations: Memory = ACTIVATIONS
    weights: Memory = WEIGHTS

    @property
    def multipliers(self) -> int:
        """One an element."""
        return self.rows * self.cols


def cost(work: Work, *, config: Dense | None = None, constants: Constants | None = None) -> Cost:
    """Give what a layer costs."""
    config, constants = config or Dense(), constants or Constants()
    shape, geometry = work.shape, work.shape.geometry
    row_tiles = -(-shape.pixels // config.rows)
    passes = -(-geometry.group_filters // config.cols)
    steps = shape.repeat * geometry.groups * row_tiles * passes * geometry.taps
    cycles = steps + (shape.repeat * (config.rows + config.cols - 2) if config.fill else 0)
    slots = cycles * config.multipliers
    inputs, outputs = (shape.repeat * size for size in map_sizes(work))
    weights = shape.repeat * shape.weights
    registers = constants.register_bit * (2 * OPERAND_BITS + SUM_BITS)
    core = {
        Part.MAC: constants.mac * shape.macs,
        Part.REGISTER: registers * shape.macs,
        Part.BUFFER: config.activations.read(steps * config.rows, constants)
        + config.weights.read(steps * config.cols, constants)
        + config.activations.write(inputs + outputs, constants)
        + config.weights.write(weights, constants),
        Part.IDLE: constants.idle_share * (constants.mac + registers) * (slots - shape.macs),
    }
    traffic = Traffic(
        weights=weights, inputs=inputs, outputs=outputs, refetched=(passes - 1) * inputs
    )
    return Cost(
        name=shape.name,
        cycles=cycles,
        units=config.multipliers,
        useful=useful_products(work),
        core=core,
        traffic=traffic,
        constants=constants,
    )
