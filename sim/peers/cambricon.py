# SPDX-License-Identifier: Apache-2.0
"""Cambricon-X and Cambricon-S: selectors in front of 16 multipliers each.

Cambricon-X: Zhang et al., MICRO 2016, doi 10.1109/MICRO.2016.7783723. Cambricon-S: Zhou et al.,
MICRO 2018, doi 10.1109/MICRO.2018.00011.

Cambricon-X skips zero weights only. Each of its elements has a filter, and selects the inputs of
16 of its non-zero weights a cycle out of a window of 256 taps:

    cycles = ceil(P · M / elements) · Σ over windows E[ceil(X / 16)],         X ~ B(window, ρ_w)

Cambricon-S skips zero inputs too. Sixteen filters share one index (coarse-grained pruning), so
one selector serves 16 elements, and each window takes at least a cycle:

    cycles = ceil(P · ceil(M / 16) / cores) · Σ over windows E[max(1, ceil(X / 16))],
    X ~ B(window, ρ_i · ρ_a)

ρ_i is the share of taps that any of the 16 filters has: ρ_w for weights pruned in such groups, as
those of a cascade with 16 or a multiple of it as columns are; 1 − (1 − ρ_w)¹⁶ for unstructured
ones.

Published: X 544 GOP/s, 954 mW, 6.38 mm², 65 nm, 256 multipliers of 16 bits; S 1.71 × the speed
and 1.37 × the energy efficiency of the earlier best. Here operands have 8 bits, 64 elements (4
cores) give 1,024 multipliers, and energy comes from this project's constants. Window and sizes of
memories (2 KB of weights an element, 8 KB of inputs a core) are from memory, 4 bits of an index
of a weight are assumed.

Simplified, in their favour: elements of X never wait for each other, selectors take no energy,
operands are always there, densities are the layer's in every window. Not in that of S: padding is
as dense as the map.
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

#: Bits that change in registers for each product: operands, and the adder tree's share of a sum.
REGISTER_BITS = 8 + 8 + 16
#: Bits of the index of a weight of Cambricon-X.
STEP_BITS = 4

#: Its memories.
SYNAPSES = Memory(bytes=2048, width_bits=128)
NEURONS = Memory(bytes=8192, width_bits=256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cambricon:
    """Either accelerator: ``cores`` of ``elements`` with ``vector`` multipliers each."""

    cores: int = 4
    elements: int = 16
    vector: int = 16
    window: int = 256
    synapses: Memory = SYNAPSES
    neurons: Memory = NEURONS

    @property
    def multipliers(self) -> int:
        """Of all cores."""
        return self.cores * self.elements * self.vector

    def window_cycles(self, taps: int, density: float, *, least: int) -> float:
        """Give the cycles of a filter's windows for one pixel."""
        whole, rest = divmod(taps, self.window)
        cycles = whole * expected_groups(self.window, density, self.vector, least=least)
        if rest:
            cycles += expected_groups(rest, density, self.vector, least=least)
        return cycles


def cost_x(
    work: Work, *, config: Cambricon | None = None, constants: Constants | None = None
) -> Cost:
    """Give what a layer costs on Cambricon-X."""
    config, constants = config or Cambricon(), constants or Constants()
    shape, geometry = work.shape, work.shape.geometry
    items = shape.pixels * geometry.filters
    each = config.window_cycles(geometry.taps, work.weights, least=0)
    cycles = shape.repeat * -(-items // (config.cores * config.elements)) * each
    return _cost(
        work,
        config,
        constants,
        cycles=cycles,
        busy=shape.repeat * items * each,
        products=shape.macs * work.weights,
        weight_bytes=compressed(shape.repeat * shape.weights, work.weights, STEP_BITS),
        map_density=(1.0, 1.0),
    )


def cost_s(
    work: Work,
    *,
    coarse: bool = True,
    config: Cambricon | None = None,
    constants: Constants | None = None,
) -> Cost:
    """Give what a layer costs on Cambricon-S.

    Parameters
    ----------
    work : Work
    coarse : bool
        The weights are pruned in groups of as many filters as share an index.
    config : Cambricon, optional
    constants : Constants, optional
    """
    config, constants = config or Cambricon(), constants or Constants()
    shape, geometry = work.shape, work.shape.geometry
    index = work.weights if coarse else 1 - (1 - work.weights) ** config.elements
    groups = geometry.groups * -(-geometry.group_filters // config.elements)
    items = shape.pixels * groups
    each = config.window_cycles(geometry.taps, index * work.inputs, least=1)
    cycles = shape.repeat * -(-items // config.cores) * each
    weights = shape.repeat * shape.weights
    return _cost(
        work,
        config,
        constants,
        cycles=cycles,
        busy=shape.repeat * items * config.elements * each,
        products=shape.macs * index * work.inputs,
        # One bit of each tap for all filters of a group.
        weight_bytes=weights * (index + 1 / 8 / config.elements),
        map_density=(work.inputs, work.outputs),
    )


def _cost(
    work: Work,
    config: Cambricon,
    constants: Constants,
    *,
    cycles: float,
    busy: float,
    products: float,
    weight_bytes: float,
    map_density: tuple[float, float],
) -> Cost:
    """Give the cost; ``busy`` in cycles of elements, ``map_density`` is what is stored of maps."""
    shape, geometry = work.shape, work.shape.geometry
    inputs, outputs = (shape.repeat * size for size in map_sizes(work))
    sparse = map_density[0] < 1
    stored = [
        size * (density + (1 / 8 if sparse else 0))
        for size, density in zip((inputs, outputs), map_density, strict=True)
    ]
    passes = -(-geometry.group_filters // config.elements)
    windows = shape.repeat * shape.pixels * geometry.groups * passes * geometry.taps
    registers = constants.register_bit * REGISTER_BITS
    core = {
        Part.MAC: constants.mac * products,
        Part.REGISTER: registers * products,
        Part.BUFFER: config.synapses.read(busy * config.vector, constants)
        + config.neurons.read(windows * map_density[0], constants)
        + config.neurons.write(sum(stored), constants)
        + config.synapses.write(weight_bytes, constants),
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
            weights=weight_bytes,
            inputs=stored[0],
            outputs=stored[1],
            refetched=(passes - 1) * stored[0],
        ),
        constants=constants,
    )
