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

#: Windows that overlap are at most this wide and high.
OVERLAP_LIMIT = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolWindow:
    """The part of a map that one pass pools.

    Parameters
    ----------
    columns, out_columns : range
        Columns of the input and of the output.
    beats : range
        Beats of a pixel.
    fields : dict of str to int
        What the descriptor says of the pooling.
    """

    columns: range
    out_columns: range
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


def pool_fields(
    node: Pool, shape: Shape, words: int, config: CspConfig, out: range | None = None
) -> tuple[dict[str, int], range]:
    """Give the fields of a descriptor for the pooling of some columns, and the columns it reads.

    Parameters
    ----------
    node : Pool
    shape : (H, W, C)
        The whole map.
    words : int
        Words of a pixel.
    config : CspConfig
    out : range, optional
        Columns of the output; all of them if not given.

    Raises
    ------
    CspError
        The pooler cannot do it.
    """
    height, width, _ = node.out_shape(shape)
    if out is None:
        out, columns = range(width), range(shape[1])
        around = node.padding[1::2]
    else:
        columns, around = reach(out, shape[1], node.kernel[1], node.stride[1], node.padding[1])
    down = _axis(node, 0, range(height), range(shape[0]), node.padding[0])
    right = _axis(node, 1, out, columns, around[0])
    if len(out) * words > config.pool_words:
        raise CspError(
            f"{len(out)} windows of {words} words exceed the {config.pool_words} words of the "
            "pooler's line"
        )
    overlap = down.stride < down.kernel or right.stride < right.kernel
    if overlap and max(down.kernel, right.kernel) > OVERLAP_LIMIT:
        raise CspError(
            f"windows of {node.kernel} that overlap exceed {OVERLAP_LIMIT} × {OVERLAP_LIMIT}"
        )
    fields = {
        "pool": int(PoolKind.MAX if isinstance(node, MaxPool) else PoolKind.AVERAGE),
        "pool_words": words,
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
    return fields, columns


def pool_windows(node: Pool, shape: Shape, beats: int, config: CspConfig) -> tuple[PoolWindow, ...]:
    """Give the parts of a map that are pooled one after the other.

    Channels are divided first, since no word is read twice for that, then columns.

    Raises
    ------
    CspError
        The pooler cannot do it.
    """
    width = node.out_shape(shape)[1]
    cut = strips(width, -(-width // config.pool_words))
    words = max(1, config.pool_words // width)
    windows = []
    for out in cut:
        for part in strips(beats, -(-beats // words)):
            only = None if len(cut) == 1 else out
            fields, columns = pool_fields(node, shape, len(part), config, only)
            windows.append(PoolWindow(columns=columns, out_columns=out, beats=part, fields=fields))
    return tuple(windows)


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
