# SPDX-License-Identifier: Apache-2.0
"""Shapes of layers: taps, groups, windows, and the order in which taps are numbered.

Feature maps are [N, H, W, C]. Tap j = (r·S + s)·Cg + c, channel innermost, where Cg = C / groups.
"""

import dataclasses
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError, check_int, check_ints

Scalar = TypeVar("Scalar", bound=np.generic)

#: Largest kernel side R or S.
KERNEL_LIMIT = 11
#: Most taps J of a group's matrix.
TAP_LIMIT = 65_535
#: Most chunks K, since a tap's count is one byte.
CHUNK_LIMIT = 255
#: Longest block T.
PERIOD_LIMIT = 32
#: Largest extent of a map (H, W, C or M); a description of a layer has 16 bits for each.
EXTENT_LIMIT = 65_535
#: Most elements of a map, so that its size in bytes has 32 bits.
MAP_LIMIT = 2**31 - 1
#: Largest stride, dilation, padding, and side of a pooling window.
STEP_LIMIT = 255
#: Widest chunk.
COLS_LIMIT = 256


def chunks(filters: int, cols: int) -> int:
    """Give K = ceil(M / cols)."""
    return -(-filters // cols)


def checked_chunks(filters: int, cols: int) -> int:
    """Give K within its limit.

    Raises
    ------
    CspError
        ``cols`` is out of range, or there are more than 255 chunks.
    """
    check_int("cols", cols, 1, COLS_LIMIT)
    count = chunks(filters, cols)
    if count > CHUNK_LIMIT:
        raise CspError(
            f"{filters} filters make {count} chunks of {cols}, at most {CHUNK_LIMIT} are possible"
        )
    return count


def check_map(name: str, shape: tuple[int, int, int]) -> None:
    """Refuse what is not the shape (H, W, C) of a map.

    Raises
    ------
    CspError
        The message names ``name`` and the value.
    """
    check_ints(name, shape, 3, 1, EXTENT_LIMIT)
    height, width, channels = shape
    if height * width * channels > MAP_LIMIT:
        raise CspError(f"{name} {shape} has more than {MAP_LIMIT} elements")


def windows(
    size: int, kernel: int, stride: int, before: int, after: int, *, ceil_mode: bool = False
) -> int:
    """Give how many windows fit along one axis.

    With ``ceil_mode`` a last, partial window counts if it starts inside the map or the padding
    before it (the rule of PyTorch and ONNX).
    """
    room = size + before + after - kernel
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + before else count


def patches(
    x: npt.NDArray[Scalar],
    out: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> npt.NDArray[Scalar]:
    """View a padded map [N, H, W, C] as windows [N, Ho, Wo, R, S, C] without a copy.

    The caller answers for H and W being large enough for ``out`` = (Ho, Wo) windows.
    """
    images, down, right, channel = x.strides
    steps = (images, down * stride[0], right * stride[1])
    inner = (down * dilation[0], right * dilation[1], channel)
    shape = (len(x), *out, *kernel, x.shape[3])
    return np.lib.stride_tricks.as_strided(x, shape, steps + inner, writeable=False)


def flatten_order(shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """Give the order that moves columns of a Linear after a Flatten to the tap order of CSP.

    Elsewhere a map is flattened as (c, y, x), here as (y, x, c):
    ``w_csp = w[:, flatten_order((H, W, C))]``.
    """
    height, width, channels = shape
    order = np.arange(height * width * channels, dtype=np.int64)
    return order.reshape(channels, height, width).transpose(1, 2, 0).ravel()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """Shape of a convolution; a linear layer is a 1×1 map with its tokens along x.

    Parameters
    ----------
    in_shape : (H, W, C)
        Input map; a linear layer has (1, tokens, inputs).
    filters : int
        Filters M of all groups together.
    kernel : (R, S)
        Rows and columns of the kernel.
    stride, dilation : (y, x)
        Steps between windows and between taps of a window.
    padding : (top, left, bottom, right)
        Zeros around the map.
    groups : int
        Divides both C and M; depthwise is groups = C.

    Raises
    ------
    CspError
        A value is out of range, or the kernel does not fit; the message names it.
    """

    in_shape: tuple[int, int, int]
    filters: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        check_map("in_shape", self.in_shape)
        check_int("filters", self.filters, 1, EXTENT_LIMIT)
        check_ints("kernel", self.kernel, 2, 1, KERNEL_LIMIT)
        check_ints("stride", self.stride, 2, 1, STEP_LIMIT)
        check_ints("padding", self.padding, 4, 0, STEP_LIMIT)
        check_ints("dilation", self.dilation, 2, 1, STEP_LIMIT)
        check_int("groups", self.groups, 1, EXTENT_LIMIT)
        for name, value in (("channels", self.in_shape[2]), ("filters", self.filters)):
            if value % self.groups:
                raise CspError(f"groups {self.groups} does not divide {value} {name}")
        if self.taps > TAP_LIMIT:
            raise CspError(f"a group has {self.taps} taps, at most {TAP_LIMIT} are possible")
        for axis in (0, 1):
            size, pads = self.in_shape[axis], self.padding[axis::2]
            if self.extent[axis] > size + sum(pads):
                raise CspError(
                    f"a kernel of extent {self.extent[axis]} does not fit {size + sum(pads)} "
                    f"{('rows', 'columns')[axis]}, padding included"
                )
        check_map("out_shape", self.out_shape)

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns that the dilated kernel spans."""
        (rows, cols), (down, right) = self.kernel, self.dilation
        return (rows - 1) * down + 1, (cols - 1) * right + 1

    @property
    def group_channels(self) -> int:
        """Input channels Cg of a group."""
        return self.in_shape[2] // self.groups

    @property
    def group_filters(self) -> int:
        """Filters of a group, the M of its matrix."""
        return self.filters // self.groups

    @property
    def taps(self) -> int:
        """Taps J of a group, R·S·Cg."""
        return self.kernel[0] * self.kernel[1] * self.group_channels

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """Output map (Ho, Wo, M)."""
        top, left, bottom, right = self.padding
        return (
            windows(self.in_shape[0], self.extent[0], self.stride[0], top, bottom),
            windows(self.in_shape[1], self.extent[1], self.stride[1], left, right),
            self.filters,
        )

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates for one image."""
        return self.out_shape[0] * self.out_shape[1] * self.filters * self.taps

    def chunks(self, cols: int) -> int:
        """Give the chunks K of a group.

        Raises
        ------
        CspError
            There are more than 255.
        """
        return checked_chunks(self.group_filters, cols)

    def unfold(self, x: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Give the activation of every tap of every window.

        Parameters
        ----------
        x : array [N, H, W, C] of any dtype

        Returns
        -------
        array [groups, N, Ho, Wo, J] of the same dtype
            Taps in CSP's order, zeros in the padding; contiguous.

        Raises
        ------
        CspError
            The shape of ``x`` is not that of the input map.
        """
        if x.ndim != 4 or x.shape[1:] != self.in_shape:
            wanted = ", ".join(str(extent) for extent in self.in_shape)
            raise CspError(f"activations have shape {list(x.shape)}, not [N, {wanted}]")
        if any(self.padding):
            top, left, bottom, right = self.padding
            x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        height, width, _ = self.out_shape
        view = patches(x, (height, width), self.kernel, self.stride, self.dilation)
        split = view.reshape(*view.shape[:-1], self.groups, self.group_channels)
        ordered = np.ascontiguousarray(split.transpose(5, 0, 1, 2, 3, 4, 6))
        return ordered.reshape(self.groups, len(x), height, width, self.taps)

    def weights_to_matrices(self, weights: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Give [groups, M/groups, J] from weights [M, Cg, R, S] (or [M, Cg], a linear layer).

        Raises
        ------
        CspError
            The shape is not that of the layer's weights.
        """
        shape = (self.filters, self.group_channels, *self.kernel)
        if weights.shape != shape and (weights.shape != shape[:2] or self.kernel != (1, 1)):
            raise CspError(f"weights have shape {list(weights.shape)}, not {list(shape)}")
        ordered = weights.reshape(shape).transpose(0, 2, 3, 1)
        return ordered.reshape(self.groups, self.group_filters, self.taps)

    def matrices_to_weights(self, matrices: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Give [M, Cg, R, S] from [groups, M/groups, J].

        Raises
        ------
        CspError
            The shape is not that of the layer's matrices.
        """
        shape = (self.groups, self.group_filters, self.taps)
        if matrices.shape != shape:
            raise CspError(f"matrices have shape {list(matrices.shape)}, not {list(shape)}")
        ordered = matrices.reshape(self.filters, *self.kernel, self.group_channels)
        return ordered.transpose(0, 3, 1, 2)
