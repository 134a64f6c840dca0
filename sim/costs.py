# SPDX-License-Identifier: Apache-2.0
"""What a network costs on the core, node by node: weights, cycles or energy of one image."""

import dataclasses
import enum
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from csp_algo.cascade import Counts, mask_of
from csp_algo.compress import CompressedMatrix
from csp_algo.errors import CspError, located
from csp_algo.network import Layer, Network
from csp_hw.config import ConfigError, CspConfig
from sim.cosim.core.jobs import Timing
from sim.model import actions
from sim.model.constants import Constants
from sim.model.core.passes import pass_cycles
from sim.model.energy import Core, energy
from sim.peers.base import Traffic
from sim.peers.csp_h import CspH, kept_energy
from sim.program.compiler import compile_network
from sim.program.passes import Pass


class Of(enum.StrEnum):
    """What is counted."""

    #: Those in chunks that are kept.
    WEIGHTS = "weights"
    #: Of the core, with a memory of 20 cycles of latency (:mod:`sim.model.core`).
    CYCLES = "cycles"
    #: In pJ, of the chip, its map memory if it has one, and of DRAM (:mod:`sim.model.energy`).
    ENERGY = "energy"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Meter:
    """Tells what networks cost.

    Parameters
    ----------
    of : Of
    config : CspConfig
    densities : mapping of map name to float
        Share of each map that is not 0, for the energy.
    """

    of: Of
    config: CspConfig
    densities: Mapping[str, float]

    def nodes(self, network: Network) -> dict[str, float]:
        """Give the cost of each node; what is computed with a layer before it is the layer's.

        Raises
        ------
        CspError
            The core cannot run the network.
        """
        if self.of is Of.WEIGHTS:
            return {layer.name: float(_stored(layer)) for layer in network.layers()}
        try:
            with located(f"no {self.of} to be told"):
                passes = compile_network(network, self.config, 1).passes
        except ConfigError as error:
            raise CspError(f"no {self.of} to be told: {error}") from error
        inputs = {node.name: node.sources[0] for node in network.nodes}
        costs: dict[str, float] = {}
        for step in passes:
            name = step.nodes[0]
            cost = self._pass(step, self.densities.get(inputs[name], 1.0))
            costs[name] = costs.get(name, 0.0) + cost
        return costs

    def _pass(self, step: Pass, density: float) -> float:
        cycles = pass_cycles(step, Timing()).cycles
        if self.of is Of.CYCLES:
            return cycles
        done, constants = actions.count_expected(step, density), Constants()
        beats = done.input_beats + done.residual_beats + done.weight_beats + done.result_beats
        dram = constants.dram_byte * self.config.cols * beats
        core = Core(config=self.config)
        kept = kept_energy(_on_chip(step), CspH(core=core), constants)
        return sum(energy(done, cycles, core, constants).values()) + kept + dram


def densities(network: Network, values: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """Give which share of each map of floats is not 0 as an integer of the network."""
    scales = network.scales()
    return {
        name: float(np.mean(np.abs(values[name]) >= scale / 2)) for name, scale in scales.items()
    }


def with_counts(network: Network, counts: Mapping[str, Counts]) -> Network:
    """Give a network that costs what one with these counts [groups, J] does; its weights are 0."""
    nodes = (
        _with_counts(node, counts[node.name])
        if isinstance(node, Layer) and node.name in counts
        else node
        for node in network.nodes
    )
    return dataclasses.replace(network, nodes=tuple(nodes))


def dense(network: Network) -> Network:
    """Give a network that costs what one without a zero does."""
    full = {
        layer.name: np.full((len(layer.matrices), each.taps), each.chunks)
        for layer in network.layers()
        for each in layer.matrices[:1]
    }
    return with_counts(network, full)


def _with_counts(layer: Layer, counts: Counts) -> Layer:
    matrices = tuple(
        CompressedMatrix(
            filters=matrix.filters,
            cols=matrix.cols,
            period=matrix.period,
            counts=each.astype(np.uint8),
            words=np.zeros((int(each.sum()), matrix.cols), dtype=np.int8),
        )
        for matrix, each in zip(layer.matrices, counts, strict=True)
    )
    return dataclasses.replace(layer, matrices=matrices)


def _on_chip(step: Pass) -> Traffic:
    """Give the bytes that a pass reads from the map memory, residuals too, and writes to it."""
    reads = [step.input] if step.residual is None else [step.input, step.residual]
    read = sum(loops.total for loops in reads if loops.on_chip)
    cols, written = step.config.cols, step.kept_beats - read
    return Traffic(weights=0.0, inputs=cols * read, outputs=cols * written)


def _stored(layer: Layer) -> int:
    return sum(int(mask_of(each.counts, each.filters, each.cols).sum()) for each in layer.matrices)
