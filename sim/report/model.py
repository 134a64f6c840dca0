# SPDX-License-Identifier: Apache-2.0
"""The record of one run, from which the terminal's tables and the page are made.

It holds what was measured and nothing that can be derived: shares, sums and verdicts are
properties. Terms are those of docs/architecture.md.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]
Picture = NDArray[np.uint8]

#: The share of a chunk's weights that are not zero is drawn in this many steps.
CASCADE_LEVELS = 255


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerRecord:
    """One layer that the hardware executed, all groups and all images together.

    Parameters
    ----------
    name : str
        As in the network.
    kind : str
        In words: ``3×3 convolution``, ``linear`` …
    in_shape, out_shape : (int, int, int)
        (H, W, C) of one image.
    groups, filters, taps, chunks : int
        Groups; filters M of all groups; taps J and chunks K of one group.
    period : int
        Truncation period T.
    interleaves : tuple of int
        The numbers I of interleaved pixels that tiles used, ascending, each once.
    tiles : int
        Tiles of all groups.
    zero_weights : int
        Weights that are zero, padding not counted.
    bits : int
        Size of counts and weight words of the compressed layer.
    cascade : uint8[K, J]
        First group: 0 where a tap's chunk was pruned away, else 1 … 255, growing with the share
        of its weights that are not zero (:func:`cascade_picture`).
    compared, mismatches : int
        Output integers that were compared with the golden model, and those that differed, in the
        last chunk's padding too.
    cycles, bound : int
        Measured cycles and their lower bound.
    stalls : mapping of str to int
        Cycles in which no product was issued, by cause.
    slots, useful, gated : int
        Places for a product: issued steps × rows × cols. Those on a live pixel and a real filter.
        The useful ones whose activation is zero.
    saturations : int
        Partial sums that were clipped.
    """

    name: str
    kind: str
    in_shape: Shape
    out_shape: Shape
    groups: int
    filters: int
    taps: int
    chunks: int
    period: int
    interleaves: tuple[int, ...]
    tiles: int
    zero_weights: int
    bits: int
    cascade: Picture
    compared: int
    mismatches: int
    cycles: int
    bound: int
    stalls: Mapping[str, int]
    slots: int
    useful: int
    gated: int
    saturations: int

    @property
    def weights(self) -> int:
        """Weights before pruning, padding not counted."""
        return self.filters * self.taps

    @property
    def sparsity(self) -> float:
        """Share of the weights that are zero."""
        return self.zero_weights / self.weights

    @property
    def bits_per_weight(self) -> float:
        """Bits of the compressed layer for each weight that is not zero."""
        return self.bits / max(1, self.weights - self.zero_weights)

    @property
    def utilisation(self) -> float:
        """Bound / measured cycles: 1 means that the layer ran without a bubble."""
        return self.bound / self.cycles if self.cycles else 0.0

    @property
    def occupancy(self) -> float:
        """Useful products / slots: the rest are dead lanes and padded filters."""
        return self.useful / self.slots if self.slots else 0.0

    @property
    def busy(self) -> int:
        """Cycles in which a product was issued."""
        return self.cycles - sum(self.stalls.values())


def cascade_picture(matrix: NDArray[np.int8], counts: NDArray[np.uint8], cols: int) -> Picture:
    """Draw a layer's cascade: one column a tap, one row a chunk.

    Parameters
    ----------
    matrix : int8[M, J]
        Weights of one group, zeros included.
    counts : uint8[J]
        Chunks that each tap keeps.
    cols : int
        Filters of a chunk.

    Returns
    -------
    uint8[K, J]
        0 where the tap's chunk is pruned, else 1 … 255 in proportion to the share of the chunk's
        real filters whose weight is not zero.
    """
    filters, taps = matrix.shape
    starts = np.arange(0, filters, cols)
    sizes = np.minimum(cols, filters - starts)[:, None]
    filled = np.add.reduceat(matrix != 0, starts, axis=0, dtype=np.int64)
    level = 1 + (filled * (CASCADE_LEVELS - 1)) // sizes
    kept = np.arange(len(starts))[:, None] < counts.reshape(1, taps)
    return np.where(kept, level, 0).astype(np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostRecord:
    """A node that the host computed, because the hardware does not do it yet."""

    name: str
    kind: str
    out_shape: Shape


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One image and what the two models make of it; classes are indices.

    ``image`` is uint8[H, W] (0 black … 255 white) or uint8[H, W, 3]. ``rtl`` is None if the run
    ended before the last layer.
    """

    image: Picture
    label: int
    golden: int
    rtl: int | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Everything that a run has to say.

    Parameters
    ----------
    network, description : str
        The network's name, and a sentence on it.
    preset : str
        Name of the hardware's configuration.
    hardware : mapping of str to str
        Its fields, printable.
    simulator : str
        Which one, with its version.
    layers : tuple of LayerRecord
        In order of execution.
    host : tuple of HostRecord
        What ran outside the hardware.
    samples : tuple of Sample
        The images that were run.
    classes : tuple of str
        Names of the classes; empty if the network has none.
    seconds : mapping of str to float
        Wall-clock seconds of each phase.
    provenance : mapping of str to str
        Versions, digest, seed …: what is needed to get these numbers again.
    commands : tuple of str
        Shell commands that do so.
    mismatch : str
        The first difference, in words; empty if there is none.
    """

    network: str
    description: str
    preset: str
    hardware: Mapping[str, str]
    simulator: str
    layers: tuple[LayerRecord, ...]
    host: tuple[HostRecord, ...] = ()
    samples: tuple[Sample, ...] = ()
    classes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)
    commands: tuple[str, ...] = ()
    mismatch: str = ""

    @property
    def compared(self) -> int:
        """Output integers compared in all layers."""
        return sum(layer.compared for layer in self.layers)

    @property
    def mismatches(self) -> int:
        """Output integers that differ from the golden model."""
        return sum(layer.mismatches for layer in self.layers)

    @property
    def exact(self) -> bool:
        """Whether something was compared and nothing differed."""
        return self.compared > 0 and self.mismatches == 0 and not self.mismatch

    @property
    def cycles(self) -> int:
        """Cycles of all layers."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def bound(self) -> int:
        """Lower bound of all layers."""
        return sum(layer.bound for layer in self.layers)

    @property
    def utilisation(self) -> float:
        """Bound / cycles of all layers together."""
        return self.bound / self.cycles if self.cycles else 0.0

    @property
    def occupancy(self) -> float:
        """Useful products / slots of all layers together."""
        slots = sum(layer.slots for layer in self.layers)
        return sum(layer.useful for layer in self.layers) / slots if slots else 0.0

    @property
    def sparsity(self) -> float:
        """Share of zero weights in all layers together."""
        weights = sum(layer.weights for layer in self.layers)
        return sum(layer.zero_weights for layer in self.layers) / weights if weights else 0.0

    @property
    def bits_per_weight(self) -> float:
        """Bits of all compressed layers for each weight that is not zero."""
        remaining = sum(layer.weights - layer.zero_weights for layer in self.layers)
        return sum(layer.bits for layer in self.layers) / max(1, remaining)

    @property
    def saturations(self) -> int:
        """Clipped partial sums of all layers."""
        return sum(layer.saturations for layer in self.layers)

    @property
    def golden_correct(self) -> int:
        """Images that the golden model classifies as labelled."""
        return sum(sample.golden == sample.label for sample in self.samples)

    @property
    def rtl_correct(self) -> int:
        """Images that the simulated hardware classifies as labelled."""
        return sum(sample.rtl == sample.label for sample in self.samples)

    @property
    def complete(self) -> bool:
        """Whether the hardware came to classify every image."""
        return all(sample.rtl is not None for sample in self.samples)

    @property
    def causes(self) -> tuple[str, ...]:
        """Causes of stalls that occurred, in the order in which layers name them."""
        seen = dict.fromkeys(
            cause for layer in self.layers for cause, cycles in layer.stalls.items() if cycles
        )
        return tuple(seen)

    def class_name(self, index: int) -> str:
        """Give a class's name, or its number if it has none."""
        return self.classes[index] if index < len(self.classes) else str(index)
