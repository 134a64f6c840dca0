# SPDX-License-Identifier: Apache-2.0
"""Where a feature map lies, and its bytes."""

import dataclasses

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError
from csp_algo.integers import ActDtype
from sim.program.layout import Layout
from sim.program.loops import Loops, Steps

Maps = npt.NDArray[np.integer]
Bytes = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMap:
    """The place of a map [N, H, W, C] in memory.

    Parameters
    ----------
    name : str
        Of the value.
    images : int
    shape : (H, W, C)
    dtype : ActDtype
    layout : Layout
        Of a pixel.
    offset : int
        First byte.
    image, line, pixel : int
        Bytes from one to the next; other maps may lie between.
    on_chip : bool
        It lies in the map memory; else in the window of memory.
    """

    name: str
    images: int
    shape: tuple[int, int, int]
    dtype: ActDtype
    layout: Layout
    offset: int
    image: int
    line: int
    pixel: int
    on_chip: bool = False

    @property
    def beats(self) -> int:
        """Beats of a pixel."""
        return self.layout.chunks * self.dtype.numpy.itemsize

    @property
    def end(self) -> int:
        """The first byte behind the last pixel."""
        height, width, _ = self.shape
        last = (self.images - 1) * self.image + (height - 1) * self.line + (width - 1) * self.pixel
        return self.offset + last + self.beats * self.layout.cols

    @property
    def span(self) -> int:
        """Bytes from the first to the last one."""
        return self.end - self.offset

    def loops(self, images: range, lines: range, columns: range, beats: range) -> Loops:
        """Give the runs of a part of the map, pixel by pixel; lines and columns may be steps apart.

        Raises
        ------
        LoopError
            Two loops of runs do not reach all of it.
        """
        cols = self.layout.cols
        first = images.start * self.image + lines.start * self.line + columns.start * self.pixel
        axes = [
            Steps(len(images), self.image),
            Steps(len(lines), lines.step * self.line),
            Steps(len(columns), columns.step * self.pixel),
            Steps(len(beats), cols),
        ]
        offset = self.offset + first + beats.start * cols
        return Loops.over(offset, axes, cols, on_chip=self.on_chip)

    def reshaped(self, shape: tuple[int, int, int], layout: Layout) -> "FeatureMap":
        """Give the same bytes of each image as a map without gaps between its pixels.

        This is what flattening does, and its opposite.
        """
        pixel = layout.chunks * layout.cols * self.dtype.numpy.itemsize
        return dataclasses.replace(
            self, shape=shape, layout=layout, pixel=pixel, line=shape[1] * pixel
        )


def pack_map(place: FeatureMap, values: Maps) -> Bytes:
    """Give the bytes from ``place.offset`` on of a map [N, H, W, C]; holes are zero.

    Raises
    ------
    CspError
        Shape or type does not fit.
    """
    shape = (place.images, *place.shape)
    if values.dtype != place.dtype.numpy or values.shape != shape:
        raise CspError(
            f"{place.name} must be {place.dtype.value} {list(shape)}, "
            f"not {values.dtype} {list(values.shape)}"
        )
    memory = np.zeros(place.span, dtype=np.uint8)
    pixels = np.zeros((*shape[:3], place.layout.chunks * place.layout.cols), dtype=_little(place))
    pixels[..., place.layout.places] = values
    _view(place, memory)[...] = pixels.view(np.uint8)
    return memory


def unpack_map(place: FeatureMap, memory: Bytes) -> Maps:
    """Give the map [N, H, W, C] that lies in the memory of a program."""
    pixels = np.ascontiguousarray(_view(place, memory[place.offset : place.end]))
    values = pixels.view(_little(place))[..., place.layout.places]
    return values.astype(place.dtype.numpy)


def _little(place: FeatureMap) -> np.dtype[np.integer]:
    return place.dtype.numpy.newbyteorder("<")


def _view(place: FeatureMap, memory: Bytes) -> Bytes:
    """View the bytes of a map as [N, H, W, bytes of a pixel]."""
    shape = (place.images, *place.shape[:2], place.beats * place.layout.cols)
    strides = (place.image, place.line, place.pixel, 1)
    return np.lib.stride_tricks.as_strided(memory, shape, strides)
