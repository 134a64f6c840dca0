# SPDX-License-Identifier: Apache-2.0
"""A cascade matrix as counts and words: what is stored, moved and multiplied, in that order."""

import dataclasses

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError, check_int
from csp_algo.geometry import EXTENT_LIMIT, PERIOD_LIMIT, TAP_LIMIT, checked_chunks, chunks

Indices = npt.NDArray[np.int64]
Counts = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int8]

#: Weights are −127 … 127, so that their negatives exist too.
WEIGHT_LIMIT = 127


def counts_of(weights: Words, cols: int) -> Counts:
    """Give 1 + the last chunk with a non-zero weight, and 0 for an empty tap.

    Parameters
    ----------
    weights : int8 [M, J]

    Returns
    -------
    uint8 [J]

    Raises
    ------
    CspError
        There are more than 255 chunks.
    """
    count = checked_chunks(len(weights), cols)
    chunk = np.arange(1, count + 1, dtype=np.uint8).repeat(cols)[: len(weights)]
    return np.asarray(((weights != 0) * chunk[:, None]).max(axis=0), dtype=np.uint8)


def stream_order(counts: Counts, period: int) -> tuple[Indices, Indices]:
    """Give the tap and the chunk of each word, in the order of the stream.

    For each block of T surviving taps, for k = 0 … max n − 1, for each tap of it with n > k.

    Returns
    -------
    tuple of int64 [N] and int64 [N], N = the sum of the counts
    """
    survivors = np.flatnonzero(counts)
    if not survivors.size:
        return survivors, survivors
    blocks = np.zeros((-(-len(survivors) // period), period), dtype=np.uint8)
    blocks.flat[: len(survivors)] = counts[survivors]
    chunk = np.arange(blocks.max(), dtype=np.uint8)
    block, k, place = np.nonzero(blocks[:, None, :] > chunk[:, None])
    return survivors[block * period + place], k


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CompressedMatrix:
    """The weights of one group of a layer.

    Parameters
    ----------
    filters : int
        Filters M.
    cols : int
        Filters of a chunk.
    period : int
        Surviving taps T of a block.
    counts : uint8 [J]
        Stored chunks of each tap; may be larger than the weights need.
    words : int8 [N, cols]
        Chunks in the order of :func:`stream_order`, N = the sum of the counts.

    Raises
    ------
    CspError
        See :meth:`validate`.
    """

    filters: int
    cols: int
    period: int
    counts: Counts
    words: Words

    def __post_init__(self) -> None:
        self.validate()

    @property
    def taps(self) -> int:
        """Taps J."""
        return len(self.counts)

    @property
    def chunks(self) -> int:
        """Chunks K."""
        return chunks(self.filters, self.cols)

    def validate(self) -> None:
        """Check every field against the limits and the fields against each other.

        Raises
        ------
        CspError
            The message names the field and the value.
        """
        check_int("filters", self.filters, 1, EXTENT_LIMIT)
        checked_chunks(self.filters, self.cols)
        check_int("period", self.period, 1, PERIOD_LIMIT)
        _check_array("counts", self.counts, np.uint8, 1)
        _check_array("words", self.words, np.int8, 2)
        check_int("taps", self.taps, 1, TAP_LIMIT)
        if (worst := int(self.counts.max())) > self.chunks:
            tap = int(np.argmax(self.counts))
            raise CspError(f"count {worst} of tap {tap} exceeds the {self.chunks} chunks")
        expected = (int(self.counts.sum(dtype=np.int64)), self.cols)
        if self.words.shape != expected:
            raise CspError(f"words have shape {list(self.words.shape)}, not {list(expected)}")
        _check_weights(self.words, "word")
        padding = self.chunks * self.cols - self.filters
        if padding:
            _, chunk = stream_order(self.counts, self.period)
            wrong = self.words[chunk == self.chunks - 1, self.cols - padding :]
            if wrong.any():
                raise CspError(
                    f"padding of the last chunk holds {int(wrong[wrong != 0][0])}, not 0"
                )

    def survivors(self) -> Indices:
        """Give the taps with a count above 0, int64."""
        return np.flatnonzero(self.counts)

    def blocks(self) -> list[Indices]:
        """Give the taps of each block, int64: T of them, fewer in the last block."""
        taps = self.survivors()
        return [taps[start : start + self.period] for start in range(0, len(taps), self.period)]

    def decompress(self) -> Words:
        """Give the weights, int8 [M, J]."""
        matrix = np.zeros((self.taps, self.chunks, self.cols), dtype=np.int8)
        matrix[stream_order(self.counts, self.period)] = self.words
        return np.ascontiguousarray(matrix.reshape(self.taps, -1)[:, : self.filters].T)


def compress(
    weights: Words, cols: int, period: int, *, counts: Counts | None = None
) -> CompressedMatrix:
    """Compress the weights of one group.

    Parameters
    ----------
    weights : int8 [M, J]
        −127 … 127.
    cols, period : int
        Filters of a chunk, and T.
    counts : uint8 [J], optional
        Counts to store instead of the smallest ones.

    Raises
    ------
    CspError
        A weight is −128, a given count is too small or too large, or a limit is exceeded.
    """
    _check_array("weights", weights, np.int8, 2)
    check_int("filters", weights.shape[0], 1, EXTENT_LIMIT)
    check_int("taps", weights.shape[1], 1, TAP_LIMIT)
    check_int("period", period, 1, PERIOD_LIMIT)
    _check_weights(weights, "weight")
    needed = counts_of(weights, cols)
    if counts is None:
        counts = needed
    _check_array("counts", counts, np.uint8, 1)
    count = chunks(len(weights), cols)
    if counts.shape != needed.shape:
        raise CspError(f"there are {len(counts)} counts for {len(needed)} taps")
    if (counts < needed).any() or (counts > count).any():
        tap = int(np.argmax((counts < needed) | (counts > count)))
        raise CspError(f"count {counts[tap]} of tap {tap} must be {needed[tap]} … {count}")
    padded = np.zeros((weights.shape[1], count * cols), dtype=np.int8)
    padded[:, : len(weights)] = weights.T
    words = padded.reshape(-1, count, cols)[stream_order(counts, period)]
    return CompressedMatrix(
        filters=len(weights), cols=cols, period=period, counts=counts, words=words
    )


def _check_array(name: str, array: object, dtype: type[np.generic], ndim: int) -> None:
    if not isinstance(array, np.ndarray):
        raise CspError(f"{name} must be an array, not {type(array).__name__}")
    if array.dtype != dtype or array.ndim != ndim:
        raise CspError(
            f"{name} must be {np.dtype(dtype)} with {ndim} axes, "
            f"not {array.dtype} of shape {list(array.shape)}"
        )


def _check_weights(weights: Words, what: str) -> None:
    if (weights < -WEIGHT_LIMIT).any():
        position = np.argwhere(weights < -WEIGHT_LIMIT)[0].tolist()
        raise CspError(f"{what} {position} is -128, the least weight is -{WEIGHT_LIMIT}")
