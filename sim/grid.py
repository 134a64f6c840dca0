# SPDX-License-Identifier: Apache-2.0
"""Numbering of a layer's pixels, so that neighbours in number work side by side."""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo.geometry import Geometry

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Places(NamedTuple):
    """Where lanes lie: int64 arrays, and bool ``live`` where the output has such a pixel."""

    image: Ints
    y: Ints
    x: Ints
    live: Bools


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Numbering of pixels: l = (image · lines + y) · pitch + x, row of the array = l mod rows.

    ``pitch`` and ``lines`` are the larger of the output's and of the input's extent in strides,
    so that input positions can be numbered in the same way; some l have no pixel.

    Parameters
    ----------
    images : int
    height, width : int
        Output pixels Ho, Wo of an image.
    lines, pitch : int
        Lines of an image and positions of a line.
    rows : int
        Rows of the array; ``rows`` consecutive l from a multiple of it are a group.
    """

    images: int
    height: int
    width: int
    lines: int
    pitch: int
    rows: int

    @classmethod
    def of(cls, geometry: Geometry, images: int, rows: int) -> "Grid":
        """Give the grid of a layer."""
        height, width, _ = geometry.out_shape
        return cls(
            images=images,
            height=height,
            width=width,
            lines=max(height, -(-geometry.in_shape[0] // geometry.stride[0])),
            pitch=max(width, -(-geometry.in_shape[1] // geometry.stride[1])),
            rows=rows,
        )

    @property
    def positions(self) -> int:
        """Numbers l, with a pixel or without."""
        return self.images * self.lines * self.pitch

    @property
    def pixels(self) -> int:
        """Live pixels."""
        return self.images * self.height * self.width

    def places(self, lanes: Ints) -> Places:
        """Give image, y and x of numbers l of any shape."""
        line, x = np.divmod(lanes, self.pitch)
        image, y = np.divmod(line, self.lines)
        live = (x < self.width) & (y < self.height) & (image < self.images)
        return Places(image, y, x, live)

    def live_groups(self) -> Ints:
        """Give the groups that hold a live pixel, in order, without a look at every pixel."""
        first = np.arange(-(-self.positions // self.rows), dtype=np.int64) * self.rows
        image, y, x, _ = self.places(first)
        # The next live pixel from the group's first number on.
        after_line = x >= self.width
        y, x = y + after_line, np.where(after_line, 0, x)
        after_image = y >= self.height
        image = image + after_image
        y, x = np.where(after_image, 0, y), np.where(after_image, 0, x)
        following = (image * self.lines + y) * self.pitch + x
        return np.flatnonzero((image < self.images) & (following < first + self.rows))
