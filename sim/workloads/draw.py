# SPDX-License-Identifier: Apache-2.0
"""Zeros drawn at random, where no real weights are at hand: the same ones for the same seed.

Densities vary: those of taps, of filters' chunks and of channels are drawn from a beta distribution
with the layer's density as mean. The smaller its concentration ν (a + b), the more uneven: the
variance is ρ(1 − ρ)/(ν + 1).
"""

import zlib

import numpy as np
import numpy.typing as npt

from csp_algo.cascade import mask_of
from csp_algo.errors import CspError
from csp_algo.geometry import chunks

Mask = npt.NDArray[np.bool_]

#: ν of a cascade: how even the shares n/K of the taps are. Measured: in the 13 pruned layers of
#: the networks in ``examples/`` it is 1.9 … 16, the median 8.3.
CASCADE_CONCENTRATION = 8.0
#: ν of unstructured weights, assumed: how even the densities of a filter's stretches of taps are.
WEIGHT_CONCENTRATION = 20.0
#: ν of activations, assumed: how even the densities of channels are.
CHANNEL_CONCENTRATION = 4.0
#: Taps with one drawn density, in an unstructured mask.
STRETCH = 128
#: Filters whose mask is drawn at once: bounds memory.
_FILTERS_AT_ONCE = 256


def generator(*names: str, seed: int = 0) -> np.random.Generator:
    """Give the generator of what has these names, the same on every machine."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def beta(
    rng: np.random.Generator, mean: float, concentration: float, size: int | tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Draw densities with a mean; 0 and 1 have no variance.

    Raises
    ------
    CspError
        The mean is not a density, or the concentration is not positive.
    """
    checked_density("mean", mean)
    if not concentration > 0:
        raise CspError(f"concentration must be positive, not {concentration:g}")
    if mean in (0.0, 1.0):
        return np.full(size, mean)
    return np.asarray(rng.beta(mean * concentration, (1 - mean) * concentration, size))


def checked_density(name: str, value: float) -> float:
    """Refuse what is not a density.

    Raises
    ------
    CspError
        The message names ``name`` and the value.
    """
    if not 0 <= value <= 1:
        raise CspError(f"{name} must be a density of 0 … 1, not {value:g}")
    return value


def cascade_counts(
    rng: np.random.Generator,
    *,
    filters: int,
    taps: int,
    cols: int,
    density: float,
    concentration: float = CASCADE_CONCENTRATION,
) -> npt.NDArray[np.int64]:
    """Draw counts n[j], int64[J] of 0 … K, that keep a share of the weights.

    A tap keeps a share of its chunks drawn from beta(density, ν), rounded at random; counts drawn
    at random are then changed by one until the kept weights are within one chunk of the density.

    Raises
    ------
    CspError
        The density is none.
    """
    most = chunks(filters, cols)
    shares = beta(rng, density, concentration, taps)
    counts = np.floor(shares * most + rng.random(taps)).astype(np.int64).clip(0, most)
    target = round(density * filters * taps)
    # A step changes at least one and at most `cols` weights: never past the target, so this ends.
    while True:
        missing = target - int(np.minimum(counts * cols, filters).sum())
        step = 1 if missing > 0 else -1
        movable = np.flatnonzero(counts < most if missing > 0 else counts > 0)
        wanted = min(abs(missing) // min(cols, filters), len(movable))
        if not wanted:
            return counts
        counts[rng.choice(movable, wanted, replace=False)] += step


def cascade_mask(counts: npt.NDArray[np.int64], *, filters: int, cols: int) -> Mask:
    """Give which weights [M, J] the counts keep."""
    return mask_of(counts, filters, cols)


def unstructured_mask(
    rng: np.random.Generator,
    *,
    filters: int,
    taps: int,
    density: float,
    concentration: float = WEIGHT_CONCENTRATION,
) -> Mask:
    """Draw which weights [M, J] are there: exactly round(density·M·J) of them.

    Each stretch of 128 taps of a filter has a density drawn from beta(density, ν); weights drawn at
    random are then added or taken away until the number is exact.

    Raises
    ------
    CspError
        The density is none.
    """
    stretches = -(-taps // STRETCH)
    mask = np.empty((filters, taps), dtype=np.bool_)
    for first in range(0, filters, _FILTERS_AT_ONCE):
        part = mask[first : first + _FILTERS_AT_ONCE]
        shares = _levels(beta(rng, density, concentration, (len(part), stretches)))
        wide = np.repeat(shares, STRETCH, axis=1)[:, :taps]
        np.less(_dice(rng, part.shape), wide, out=part)
        wanted = [round(density * taps * stop) for stop in (first, first + len(part))]
        _make_exact(rng, part, wanted[1] - wanted[0])
    return mask


def activation_mask(
    rng: np.random.Generator,
    *,
    shape: tuple[int, int, int],
    density: float,
    concentration: float = CHANNEL_CONCENTRATION,
) -> Mask:
    """Draw which activations [H, W, C] are not zero: exactly round(density·H·W·C) of them.

    Each channel has a density drawn from beta(density, ν).

    Raises
    ------
    CspError
        The density is none.
    """
    shares = _levels(beta(rng, density, concentration, shape[2]))
    mask = np.asarray(_dice(rng, shape) < shares)
    _make_exact(rng, mask, round(density * mask.size))
    return mask


def _levels(densities: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    return np.rint(densities * (2**16 - 1)).astype(np.uint16)


def _dice(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
    """Draw from 0 … 2^16 − 1: half the time of floats, and what they round off is made good."""
    return np.frombuffer(rng.bytes(2 * int(np.prod(shape))), dtype="<u2").reshape(shape)


def _make_exact(rng: np.random.Generator, mask: Mask, wanted: int) -> None:
    flat = mask.reshape(-1)
    missing = wanted - int(np.count_nonzero(flat))
    places = np.flatnonzero(~flat if missing > 0 else flat)
    flat[rng.choice(places, abs(missing), replace=False, shuffle=False)] = missing > 0
