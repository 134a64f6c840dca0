# SPDX-License-Identifier: Apache-2.0
"""What `csp inspect` shows of a network: figures of each layer, and tables made of them."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from csp_algo.container import digest
from csp_algo.network import Layer, Network, Node, Pool, Value

#: Bars of a histogram in a table cell.
BARS = 16


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerSummary:
    """Figures of one layer, all groups together.

    Parameters
    ----------
    layer : Layer
    histogram : int64 [K + 1]
        How many taps store 0, 1 … K chunks.
    weights, nonzero : int
        All weights M·J, padding not counted, and those that are not zero.
    words, bytes : int
        Stored words of cols weights, and bytes of the words and the counts.
    """

    layer: Layer
    histogram: npt.NDArray[np.int64]
    weights: int
    nonzero: int
    words: int
    bytes: int

    @property
    def chunks(self) -> int:
        """Chunks K of a group."""
        return len(self.histogram) - 1

    @property
    def taps(self) -> int:
        """Taps of all groups."""
        return int(self.histogram.sum())

    @property
    def survivors(self) -> int:
        """Taps that store at least one chunk."""
        return self.taps - int(self.histogram[0])

    @property
    def sparsity(self) -> float:
        """Zero weights / all weights."""
        return 1.0 - self.nonzero / self.weights

    @property
    def bits_per_nonzero(self) -> float:
        """Stored bits for each weight that is not zero; NaN if there is none."""
        return 8 * self.bytes / self.nonzero if self.nonzero else float("nan")


def summarise(layer: Layer) -> LayerSummary:
    """Give the figures of a layer."""
    counts = np.concatenate([matrix.counts for matrix in layer.matrices])
    words = sum(len(matrix.words) for matrix in layer.matrices)
    cols = layer.matrices[0].cols
    return LayerSummary(
        layer=layer,
        histogram=np.bincount(counts, minlength=layer.matrices[0].chunks + 1),
        weights=layer.geometry.filters * layer.geometry.taps,
        nonzero=sum(int(np.count_nonzero(matrix.words)) for matrix in layer.matrices),
        words=words,
        bytes=words * cols + counts.size,
    )


def describe(network: Network, path: str | os.PathLike[str] | None = None) -> list[RenderableType]:
    """Give what to print of a network, from the file ``path`` if there is one."""
    summaries = [summarise(layer) for layer in network.layers()]
    return [_overview(network, summaries, path), _graph(network), _storage(summaries)]


def bars(histogram: npt.NDArray[np.int64]) -> str:
    """Give a histogram as at most 16 bars; the first stands for taps without any chunk."""
    groups = np.array_split(histogram[1:], min(BARS - 1, len(histogram) - 1))
    sums = np.array([histogram[0], *(group.sum() for group in groups)])
    heights = -(-sums * 8 // max(1, int(sums.max())))
    return "".join(" ▁▂▃▄▅▆▇█"[height] for height in heights)


def _overview(
    network: Network, summaries: Sequence[LayerSummary], path: str | os.PathLike[str] | None
) -> Table:
    values, output = network.values, network.output.name
    weights = sum(summary.weights for summary in summaries)
    nonzero = sum(summary.nonzero for summary in summaries)
    stored = sum(summary.bytes for summary in summaries)
    rows = {
        "network": network.name,
        "file": "" if path is None else f"{os.fspath(path)}, {Path(path).stat().st_size:,} bytes",
        "digest": digest(network),
        "input": _described(network.input.name, values[network.input.name]),
        "output": _described(output, values[output]),
        "packed for": f"{network.cols} columns, blocks of T = {network.period} taps",
        "weights": f"{weights:,}, of which {nonzero:,} are not zero",
        "sparsity": f"{1 - nonzero / weights:.2%}" if weights else "",
        "stored": f"{stored:,} bytes of counts and words",
    }
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    # Metadata comes last and apart: a file must not be able to replace the digest above.
    for name, text in [*rows.items(), *network.metadata.items()]:
        if text:
            _add(table, name, text)
    return table


def _graph(network: Network) -> Table:
    table = _table("Graph", "name", "kind", "reads", "output H×W×C", "type", "what")
    for node in network.nodes:
        value = network.values[node.name]
        reads = ", ".join(node.sources)
        _add(
            table,
            node.name,
            type(node).__name__.lower(),
            reads,
            _map(value.shape),
            value.dtype.value,
            _what(node),
        )
    return table


def _what(node: Node) -> str:
    if isinstance(node, Pool):
        return f"{_map(node.kernel)}; stride {_map(node.stride)}"
    if not isinstance(node, Layer):
        return ""
    shape = node.geometry
    parts = [_map(shape.kernel)]
    if shape.stride != (1, 1):
        parts.append(f"stride {_map(shape.stride)}")
    if shape.dilation != (1, 1):
        parts.append(f"dilation {_map(shape.dilation)}")
    if any(shape.padding):
        parts.append("padding " + ", ".join(str(pad) for pad in shape.padding))
    if shape.groups > 1:
        parts.append(f"{shape.groups} groups")
    parts.append(f"t = {node.acc_shift}")
    if node.relu:
        parts.append("ReLU")
    return "; ".join(parts)


def _storage(summaries: Sequence[LayerSummary]) -> Table:
    table = _table("Layers", "name", "counts 0…K")
    for heading in ("M", "J", "K", "sparsity", "kept taps", "words", "bytes", "bits/w≠0"):
        table.add_column(heading, justify="right")
    for summary in summaries:
        shape = summary.layer.geometry
        groups = f"{shape.groups}×" if shape.groups > 1 else ""
        _add(
            table,
            summary.layer.name,
            bars(summary.histogram),
            f"{groups}{shape.group_filters}",
            f"{groups}{shape.taps}",
            str(summary.chunks),
            f"{summary.sparsity:.1%}",
            f"{summary.survivors:,}/{summary.taps:,}",
            f"{summary.words:,}",
            f"{summary.bytes:,}",
            f"{summary.bits_per_nonzero:.2f}" if summary.nonzero else "none",
        )
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    """Add a row of plain text: names come from a file and may look like markup."""
    table.add_row(*(Text(cell) for cell in cells))


def _described(name: str, value: Value) -> str:
    return f"{name}: {_map(value.shape)} {value.dtype.value}"


def _map(shape: tuple[int, ...]) -> str:
    return "×".join(str(extent) for extent in shape)
