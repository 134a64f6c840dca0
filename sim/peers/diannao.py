# SPDX-License-Identifier: Apache-2.0
"""DianNao (Chen et al., ASPLOS 2014): dense, 16 filters × 16 inputs a cycle.

doi 10.1145/2541940.2541967.

    items  = P · g · ceil(M / (g · Tn))          (pixel, group of Tn filters)
    cycles = ceil(items / cores) · R · S · ceil(C / (g · Ti))

Published: 452 GOP/s, 485 mW, 3.02 mm² at 65 nm, with 16-bit operands and 256 multipliers. Here
operands have 8 bits, four cores share the pixels so that there are 1,024 multipliers, and energy
comes from this project's constants, not from the published power. Sizes of the buffers (2 and 32
KB a core) are from memory.

Simplified: the pipeline never empties; operands are always there; partial sums stay in registers.
"""

import dataclasses

from sim.model.constants import Constants
from sim.model.sram import Memory
from sim.peers.base import Cost, Part, Traffic, map_sizes, useful_products
from sim.workloads.catalogue import Work

#: Bits that change in registers for each product: operands, and the adder tree's share of a sum.
REGISTER_BITS = 8 + 8 + 16

#: Its memories.
NEURONS = Memory(bytes=2048, width_bits=256)
SYNAPSES = Memory(bytes=32 * 1024, width_bits=256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DianNao:
    """The accelerator: ``cores`` of Tn = ``filters`` × Ti = ``inputs`` multipliers."""

    cores: int = 4
    filters: int = 16
    inputs: int = 16
    neurons: Memory = NEURONS
    synapses: Memory = SYNAPSES

    @property
    def multipliers(self) -> int:
        """Of all cores."""
        return self.cores * self.filters * self.inputs


def cost(work: Work, *, config: DianNao | None = None, constants: Constants | None = None) -> Cost:
    """Give what a layer costs."""
    config, constants = config or DianNao(), constants or Constants()
    shape, geometry = work.shape, work.shape.geometry
    passes = -(-geometry.group_filters // config.filters)
    items = shape.pixels * geometry.groups * passes
    rows, columns = geometry.kernel
    steps = rows * columns * -(-geometry.group_channels // config.inputs)
    cycles = shape.repeat * -(-items // config.cores) * steps
    words = shape.repeat * items * steps
    slots = cycles * config.multipliers
    inputs, outputs = (shape.repeat * size for size in map_sizes(work))
    weights = shape.repeat * shape.weights
    registers = constants.register_bit * REGISTER_BITS
    core = {
        Part.MAC: constants.mac * shape.macs,
        Part.REGISTER: registers * shape.macs,
        Part.BUFFER: config.neurons.read(words * config.inputs, constants)
        + config.synapses.read(words * config.inputs * config.filters, constants)
        + config.neurons.write(inputs + outputs, constants)
        + config.synapses.write(weights, constants),
        Part.IDLE: constants.idle_share * (constants.mac + registers) * (slots - shape.macs),
    }
    return Cost(
        name=shape.name,
        cycles=cycles,
        units=config.multipliers,
        useful=useful_products(work),
        core=core,
        traffic=Traffic(
            weights=weights, inputs=inputs, outputs=outputs, refetched=(passes - 1) * inputs
        ),
        constants=constants,
    )
