# SPDX-License-Identifier: Apache-2.0
"""The integer arithmetic of CSP, bit for bit; inference and training use this one module.

All results are int64, in which every intermediate value is exact: |acc · 2^t| ≤ 2^31 because
B + t ≤ 32, so |v| ≤ 2^32, |v · mult| < 2^48 and the rounding term is at most 2^46.
"""

import enum

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError

Ints = npt.NDArray[np.int64]

#: Run shift t, 0 … 15; a partial sum of B bits keeps B + t ≤ 32.
ACC_SHIFT_LIMIT = 15
#: Requantisation shift, 0 … 47.
SHIFT_LIMIT = 47
#: A multiplier is 0 or normalised to MULT_LOW … MULT_HIGH.
MULT_LOW, MULT_HIGH = 2**15, 2**16 - 1
#: Signed bits to which z is clipped before a residual is added.
RESIDUAL_BITS = 16


class ActDtype(enum.Enum):
    """Type of a feature map; INT32 only leaves the network (logits)."""

    INT8 = "int8"
    UINT8 = "uint8"
    INT32 = "int32"

    @property
    def low(self) -> int:
        """Smallest value."""
        return int(np.iinfo(self.value).min)

    @property
    def high(self) -> int:
        """Largest value."""
        return int(np.iinfo(self.value).max)

    @property
    def magnitude(self) -> int:
        """Largest absolute value: 128, 255 or 2^31."""
        return max(-self.low, self.high)

    @property
    def numpy(self) -> np.dtype[np.integer]:
        """The numpy dtype of the same name."""
        return np.dtype(self.value)


def rhu(x: npt.ArrayLike, s: npt.ArrayLike) -> Ints:
    """Give x / 2^s rounded half up: (x + 2^(s−1)) >> s, and x for s = 0 (integers, broadcast)."""
    shift = np.asarray(s, dtype=np.int64)
    half = np.left_shift(np.int64(1), shift) >> 1
    return np.asarray((np.asarray(x, dtype=np.int64) + half) >> shift)


def sat(x: npt.ArrayLike, bits: int) -> Ints:
    """Clip x to signed ``bits`` bits."""
    limit = 1 << (bits - 1)
    return np.clip(np.asarray(x, dtype=np.int64), -limit, limit - 1)


def accumulate(acc: npt.ArrayLike, run: npt.ArrayLike, t: int, bits: int) -> tuple[Ints, int]:
    """Add a run to partial sums: sat_B(acc + rhu(run, t)).

    Parameters
    ----------
    acc, run : integers, broadcast together
        Partial sums of ``bits`` bits, and exact sums of the products of a run.
    t : int
        Run shift of the layer.
    bits : int
        Width B of a partial sum.

    Returns
    -------
    tuple of int64 array and int
        The new partial sums, and how many of them saturated.
    """
    exact = np.asarray(acc, dtype=np.int64) + rhu(run, t)
    clipped = sat(exact, bits)
    return clipped, int(np.count_nonzero(clipped != exact))


def affine(acc: npt.ArrayLike, t: int, bias: npt.ArrayLike) -> Ints:
    """Give v = acc · 2^t + bias, exact (filters on the last axis)."""
    return np.asarray((np.asarray(acc, dtype=np.int64) << t) + np.asarray(bias, dtype=np.int64))


def rescale(x: npt.ArrayLike, mult: npt.ArrayLike, shift: npt.ArrayLike) -> Ints:
    """Give rhu(x · mult, shift)."""
    return rhu(np.asarray(x, dtype=np.int64) * np.asarray(mult, dtype=np.int64), shift)


def requantise(
    v: npt.ArrayLike,
    mult: npt.ArrayLike,
    shift: npt.ArrayLike,
    dtype: ActDtype,
    *,
    relu: bool = False,
    residual: npt.ArrayLike | None = None,
) -> Ints:
    """Give the outputs of a layer from v.

    z = rhu(v · mult, shift); with a residual z ← sat16(z) + residual; then ReLU; then z is
    clipped to the type. INT32 asks for v itself, clipped to 32 bits, without all of these.

    Parameters
    ----------
    v : integers, filters on the last axis
        acc · 2^t + bias.
    mult, shift : integers, broadcast with v
        Multiplier and shift of each filter.
    dtype : ActDtype
        Type of the outputs.
    relu : bool
        Whether negative values become 0.
    residual : integers like v, or None
        What is added, already rescaled: ``rescale(r, rmult, rshift)``.

    Raises
    ------
    CspError
        INT32 together with ReLU or a residual.
    """
    if dtype is ActDtype.INT32:
        if relu or residual is not None:
            raise CspError("an int32 output is v itself: it takes neither ReLU nor a residual")
        return sat(v, 32)
    z = rescale(v, mult, shift)
    if residual is not None:
        z = sat(z, RESIDUAL_BITS) + np.asarray(residual, dtype=np.int64)
    low = 0 if relu else dtype.low
    return np.clip(z, low, dtype.high)
