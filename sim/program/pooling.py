# SPDX-License-Identifier: Apache-2.0
"""What the pooler is told, behind a convolution or in a pass of its own."""

import dataclasses
from typing import NamedTuple

import numpy as np

from csp_algo.errors import CspError
from csp_algo.network import AvgPool, MaxPool, Pool, Shape
from csp_hw.config import CspConfig
from csp_hw.ports import POOL_COVER, PoolKind
from sim.program.layout import Ints
from sim.program.windows import reach, strips

#: Windows that overlap along an axis are at most this long there; means that overlap downwards are
#: at most this wide.
OVERLAP_LIMIT, OVERLAP_WIDTH = 3, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolWindow:
    """The part of a map that one pass pools.

    Parameters
    ----------
    columns, outputs : range
        Columns of the input and of the output.
    beats : range
        Beats of a pixel.
    fields : dict of str to int
        What the descriptor says of the pooling.
    """

    columns: range
    outputs: range
    beats: range
    fields: dict[str, int]


class _Axis(NamedTuple):
    """Windows along one axis.

    ``covered`` is how many places of each window lie inside.
    """

    size: int
    kernel: int
    stride: int
    before: int
    behind: int
    covered: Ints


def pool_window(node: Pool, shape: Shape, beats: range, out: range) -> PoolWindow:
    """Give the pooling of some columns; the pooler's line must hold a word of each of their beats.

    Parameters
    ----------
    node : Pool
    shape : (H, W, C)
        The whole map.
    beats : range
        Beats of a pixel.
    out : range
        Columns of the output.

    Raises
    ------
    CspError
        The pooler cannot do it.
    """
    height, width, _ = node.out_shape(shape)
    columns, before = range(shape[1]), node.padding[1]
    if len(out) < width:
        columns, (before, _) = reach(out, shape[1], node.kernel[1], node.stride[1], before)
    down = _axis(node, 0, range(height), range(shape[0]), node.padding[0])
    right = _axis(node, 1, out, columns, before)
    for axis in (down, right):
        if axis.stride < axis.kernel > OVERLAP_LIMIT:
            raise CspError(
                f"windows of {node.kernel} that overlap exceed {OVERLAP_LIMIT} along an axis"
            )
    average = isinstance(node, AvgPool)
    if average and down.stride < down.kernel and right.kernel > OVERLAP_WIDTH:
        raise CspError(
            f"means of {node.kernel} that overlap downwards exceed {OVERLAP_WIDTH} columns"
        )
    fields = {
        "pool": int(PoolKind.MAX if isinstance(node, MaxPool) else PoolKind.AVERAGE),
        "pool_words": len(beats),
        "pool_height": down.size,
        "pool_width": right.size,
        "pool_kernel_h": down.kernel,
        "pool_kernel_w": right.kernel,
        "pool_stride_h": down.stride,
        "pool_stride_w": right.stride,
        "pool_pad_top": down.before,
        "pool_pad_left": right.before,
        "pool_pad_bottom": down.behind,
        "pool_pad_right": right.behind,
    }
    if isinstance(node, AvgPool):
        fields["pool_shift"] = node.shift
        mults = node.multipliers(shape)[:, out.start : out.stop]
        fields |= _multipliers(down.covered, right.covered, mults)
    return PoolWindow(columns=columns, outputs=out, beats=beats, fields=fields)


def pool_windows(node: Pool, shape: Shape, beats: int, config: CspConfig) -> tuple[PoolWindow, ...]:
    """Give the parts of a map that are pooled one after the other.

    Channels are divided first, since no word is read twice for that, then columns.

    Raises
    ------
    CspError
        The pooler cannot do it.
    """
    width = node.out_shape(shape)[1]
    words = max(1, config.pool_words // width)
    return tuple(
        pool_window(node, shape, part, out)
        for out in strips(width, -(-width // config.pool_words))
        for part in strips(beats, -(-beats // words))
    )


def _axis(node: Pool, axis: int, out: range, inside: range, before: int) -> _Axis:
    """Give the windows along one axis of a part of the map.

    A single window is made to begin and to end inside, and no second one follows. The padding
    behind is what the last window needs: so much that ceil mode's windows exist, and never more.
    """
    kernel, stride, size = node.kernel[axis], node.stride[axis], len(inside)
    starts = np.arange(len(out), dtype=np.int64) * stride - before
    ends = np.minimum(starts + kernel, size)
    covered = ends - np.maximum(starts, 0)
    if len(out) == 1:
        kernel, before = int(covered[0]), 0
        return _Axis(size, kernel, max(kernel, size - kernel + 1), 0, 0, covered)
    behind = max(0, (len(out) - 1) * stride + kernel - before - size)
    return _Axis(size, kernel, stride, before, behind, covered)


def _multipliers(lines: Ints, columns: Ints, mults: Ints) -> dict[str, int]:
    """Give the table of multipliers by how many lines and columns of a window lie inside."""
    table: dict[int, int] = {}
    for line, row in zip(lines.tolist(), mults.tolist(), strict=True):
        for column, mult in zip(columns.tolist(), row, strict=True):
            place = (min(line, POOL_COVER) - 1) * POOL_COVER + min(column, POOL_COVER) - 1
            if table.setdefault(place, mult) != mult:
                raise CspError(
                    f"windows with {line} × {column} elements inside need the multipliers "
                    f"{table[place]} and {mult}"
                )
    return {f"pool_mult_{place}": mult for place, mult in table.items()}
