# SPDX-License-Identifier: Apache-2.0
"""Which element of a feature map each element of a tensor is.

A map has the layout (H, W, C) here, while an ONNX graph transposes, flattens and pads as it likes.
Each tensor is therefore a view: an array of its shape, without the batch, that holds for each
element the number of an element of the map. Whatever only moves elements moves these numbers.
"""

import dataclasses
from typing import Self

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError
from csp_algo.network import Shape

Indices = npt.NDArray[np.int64]

#: Elements that are no part of the map: padding with zeros, with the lowest number, with its edge.
ZERO, LOWEST, EDGE = -1, -2, -3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A tensor that holds a map's elements.

    Parameters
    ----------
    value : str
        Name of the map.
    shape : (H, W, C)
        Of the map.
    index : int64, the tensor's shape without the batch
        Number of each element in the map, or what a padding is filled with.
    shared : bool
        Whether others read the map as it is.
    """

    value: str
    shape: Shape
    index: Indices
    shared: bool = False

    def moved(self, index: Indices) -> Self:
        """Give a tensor with the same map's elements elsewhere."""
        return dataclasses.replace(self, index=index)

    @property
    def pixels(self) -> int:
        """Pixels H · W of the map."""
        return self.shape[0] * self.shape[1]

    @property
    def channels(self) -> int:
        """Channels C of the map."""
        return self.shape[2]

    def padded(self) -> tuple[tuple[int, int, int, int], int]:
        """Give the padding (top, left, bottom, right) around [C, H, W], and what it is filled with.

        Raises
        ------
        CspError
            The tensor is not [C, H, W] of the map with a padding of one kind.
        """
        if self.index.ndim != 3:
            raise CspError(f"reads a tensor of {self.index.ndim + 1} dimensions, not [N, C, H, W]")
        if np.array_equal(self.index, channels_first(self.shape)):
            return (0, 0, 0, 0), ZERO
        inside = self.index >= 0
        lines = np.flatnonzero(inside.any(axis=(0, 2)))
        columns = np.flatnonzero(inside.any(axis=(0, 1)))
        if len(lines) and len(columns):
            height, width = self.index.shape[1:]
            top, bottom = int(lines[0]), int(height - 1 - lines[-1])
            left, right = int(columns[0]), int(width - 1 - columns[-1])
            core = self.index[:, top : height - bottom, left : width - right]
            fills = np.unique(self.index[~inside])
            whole = channels_first(self.shape)
            if np.array_equal(core, whole) and len(fills) < 2 and inside.sum() == core.size:
                return (top, left, bottom, right), int(fills[0]) if len(fills) else ZERO
        raise CspError("reads a tensor that is not [N, C, H, W] of a whole map")

    def per_channel(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Give the value of each channel, float64 [C], of a constant as large as the tensor.

        Raises
        ------
        CspError
            A channel has several.
        """
        self.check_whole()
        flat = np.empty(self.index.size, dtype=np.float64)
        flat[self.index.ravel()] = np.broadcast_to(values, self.index.shape).ravel()
        table = flat.reshape(self.pixels, self.channels)
        if (table != table[0]).any():
            raise CspError("its constant differs within a channel")
        return np.asarray(table[0])

    def check_whole(self) -> None:
        """Refuse a tensor that does not hold each element of the map once."""
        # Nothing but a padding takes elements away or adds some.
        if self.index.size != self.pixels * self.channels or self.index.min() < 0:
            raise CspError("reads a part of a map, or a padded one")


def channels_first(shape: Shape) -> Indices:
    """Give the index of [C, H, W]."""
    return channels_last(shape).transpose(2, 0, 1)


def channels_last(shape: Shape) -> Indices:
    """Give the index of [H, W, C]."""
    return np.arange(shape[0] * shape[1] * shape[2], dtype=np.int64).reshape(shape)


def joined(views: list[View], axis: int) -> Indices:
    """Give the index of tensors one after the other along an axis, of the maps so joined.

    Raises
    ------
    CspError
        The axis is not the maps' channels, or their other extents differ.
    """
    shapes = [view.index.shape for view in views]
    if len({(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}) > 1:
        joint = " and ".join(str(list(shape)) for shape in shapes)
        raise CspError(f"joins tensors of shapes {joint} without the batch")
    total = sum(view.channels for view in views)
    first, parts = 0, []
    for view in views:
        view.check_whole()
        pixel, channel = np.divmod(view.index, view.channels)
        same = np.take(pixel, [0], axis=axis)
        if (pixel != same).any() or view.shape[:2] != views[0].shape[:2]:
            raise CspError("joins along another axis than the channels")
        parts.append(pixel * total + channel + first)
        first += view.channels
    return np.concatenate(parts, axis=axis)
