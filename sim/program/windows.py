# SPDX-License-Identifier: Apache-2.0
"""Which part of a map a pass reads, so that what a tile needs fits the line buffer.

A tile of I · rows positions needs every position from its first one plus the least tap to its
last one plus the largest tap. A map that is too wide for that is cut into strips of columns, which
read the columns around them again. A vector that is too long for the line buffer is taken as a
short line of pixels under a kernel of the same length: tap for tap the same sum.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from csp_algo.compress import CompressedMatrix
from csp_algo.errors import CspError
from csp_algo.geometry import KERNEL_LIMIT, TAP_LIMIT, Geometry
from csp_hw.config import CspConfig
from sim.grid import Grid

#: Strides of a convolution; their base-2 logarithms are what the feeder knows.
STRIDES = (1, 2, 4)
#: How many numbers of strips are tried, from the first that fits on.
STRIP_TRIALS = 4
#: Sides of a kernel.
SIDES = range(1, KERNEL_LIMIT + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """What a pass reads, and how its tiles may be chosen.

    Parameters
    ----------
    geometry : Geometry
        Of the pass, over all elements of the beats that it reads.
    lines, columns : range
        Of the input.
    outputs : range
        Columns of the output.
    beats : int
        Beats of an input pixel that are read; with a fold more than a pixel of the pass has.
    fold : int
        Pixels of the pass that an input pixel is taken as; if not 1, each input pixel is an image.
    ring_bits : int
        The line buffer has 2^ring_bits slots.
    interleave : int
        Largest I.
    """

    geometry: Geometry
    lines: range
    columns: range
    outputs: range
    beats: int
    fold: int = 1
    ring_bits: int = 0
    interleave: int = 1


def reach(
    out: range, size: int, extent: int, stride: int, before: int
) -> tuple[range, tuple[int, int]]:
    """Give the places that some windows along an axis of ``size`` reach.

    Parameters
    ----------
    out : range
        The windows.
    size, extent, stride, before : int
        Places of the axis, of a window, between windows, and of the padding before.

    Returns
    -------
    range and (int, int)
        The places inside, and how many lie before and behind.

    Raises
    ------
    CspError
        There are none inside.
    """
    first = out.start * stride - before
    last = (out.stop - 1) * stride - before + extent
    inside = range(max(0, first), min(size, last))
    if not inside:
        raise CspError(f"outputs {out.start} … {out.stop - 1} of a line see nothing but padding")
    return inside, (max(0, -first), max(0, last - size))


def strips(size: int, count: int) -> list[range]:
    """Give ``count`` strips of about equal width."""
    edges = [size * number // count for number in range(count + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(edges)]


def held_positions(geometry: Geometry, images: int, rows: int, interleave: int) -> int:
    """Give the positions that the line buffer must hold for a tile.

    With a stride down, positions of a line are complete only when its last input line has come,
    and for that there must be room up to the end. Positions before the map, which padding reaches,
    take room like others.
    """
    grid = Grid.of(geometry, images, rows)
    down, right = (stride.bit_length() - 1 for stride in geometry.stride)
    top, left, _, _ = geometry.padding
    first = (-top >> down) * grid.pitch + (-left >> right)
    last = interleave * rows - 1 + furthest(geometry, grid)
    if down:
        # A tile begins at a multiple of rows, so its last place in a line has this remainder.
        last += grid.pitch - 1 - last % math.gcd(rows, grid.pitch)
    return min(last, grid.positions - 1) - first + 1


def furthest(geometry: Geometry, grid: Grid) -> int:
    """Give how many positions behind a pixel's own one its taps read."""
    down, right = (stride.bit_length() - 1 for stride in geometry.stride)
    top, left, _, _ = geometry.padding
    lines, columns = geometry.extent[0] - 1 - top >> down, geometry.extent[1] - 1 - left >> right
    return lines * grid.pitch + columns


def windows(
    layer: Geometry, beats: int, matrix: CompressedMatrix, config: CspConfig, images: int
) -> tuple[Window, ...]:
    """Give the parts of the map that are computed one after the other.

    Parameters
    ----------
    layer : Geometry
    beats : int
        Beats of an input pixel that are read.
    matrix : CompressedMatrix
        Weights of all elements that are written.
    config : CspConfig
    images : int

    Raises
    ------
    CspError
        The layer cannot be computed on this configuration.
    """
    whole = whole_window(layer, beats, matrix.filters, config, images)
    if layer.kernel == (1, 1):
        # Nothing around a tile: strips would save nothing.
        for form in (whole, *_folds(whole, config)):
            fitted = _fit(form, config, images)
            if fitted is not None:
                return (fitted,)
    width = len(whole.outputs)
    cuts = (cut_window(whole, strips(width, n), config, images) for n in range(1, width + 1))
    fitting = itertools.islice((cut for cut in cuts if cut is not None), STRIP_TRIALS)
    best = min(fitting, key=lambda cut: cost(cut, matrix, config, images), default=None)
    if best is None:
        raise CspError(_why(whole, config, images))
    return best


def cost(parts: Sequence[Window], matrix: CompressedMatrix, config: CspConfig, images: int) -> int:
    """Estimate what windows cost: cycles of the array, and beats of memory but for the results."""
    steps = int(matrix.counts.sum(dtype=np.int64))
    largest = max(1, config.half_depth // matrix.chunks)
    total = 0
    for window in parts:
        pixels = images * len(window.lines) * len(window.columns)
        grid = Grid.of(window.geometry, pixels if window.fold > 1 else images, config.rows)
        groups = len(grid.live_groups())
        tiles = -(-groups // min(window.interleave, largest))
        counts = window.geometry.taps // config.cols
        again = tiles if window.geometry.taps > config.count_words * config.lookahead else 1
        total += groups * steps + pixels * window.beats + counts * again
        total += steps * (tiles if steps > config.weight_words else 1)
    return total


def whole_window(
    layer: Geometry, beats: int, filters: int, config: CspConfig, images: int
) -> Window:
    """Give the whole map, whether it fits or not; parameters as in :func:`windows`."""
    out, stride = layer.out_shape[:2], layer.stride
    places = [range(size) for size in layer.in_shape[:2]]
    # Only the pixels that are used are read, where two loops of runs can do that.
    apart = images == 1 or layer.in_shape[0] == out[0] * stride[0]
    if apart and layer.kernel == (1, 1) and not any(layer.padding):
        places = [range(0, n * step, step) for n, step in zip(out, stride, strict=True)]
        stride = (1, 1)
    strides, padding = list(stride), list(layer.padding)
    for axis, step in enumerate(stride):
        if out[axis] == 1 and step not in STRIDES:
            # A step that is never taken may be anything if nothing follows the only window.
            inside, padding[axis::2] = reach(
                range(1), layer.in_shape[axis], layer.extent[axis], step, padding[axis]
            )
            places[axis], strides[axis] = inside, 1
    dilations = [
        1 if side == 1 else step for side, step in zip(layer.kernel, layer.dilation, strict=True)
    ]
    if not all(step in STRIDES for step in strides):
        raise CspError(f"stride {layer.stride} must be 1, 2 or 4 down and right")
    lines, columns = places
    top, left, bottom, right = padding
    geometry = Geometry(
        in_shape=(len(lines), len(columns), beats * config.cols),
        filters=filters,
        kernel=layer.kernel,
        stride=(strides[0], strides[1]),
        padding=(top, left, bottom, right),
        dilation=(dilations[0], dilations[1]),
    )
    return Window(
        geometry=geometry, lines=lines, columns=columns, outputs=range(out[1]), beats=beats
    )


def cut_window(
    whole: Window, cuts: Sequence[range], config: CspConfig, images: int
) -> tuple[Window, ...] | None:
    """Give the parts of a map that compute some columns each.

    None if one does not fit, or sees nothing but padding.
    """
    try:
        parts = [_strip(whole, outputs) for outputs in cuts]
    except CspError:
        return None
    fitted = [_fit(part, config, images) for part in parts]
    found = tuple(window for window in fitted if window is not None)
    return found if len(found) == len(cuts) else None


def _strip(whole: Window, outputs: range) -> Window:
    """Give the part of a map that computes some columns."""
    if outputs == whole.outputs:
        return whole
    geometry = whole.geometry
    top, left, bottom, _ = geometry.padding
    height, width, channels = geometry.in_shape
    inside, (before, behind) = reach(outputs, width, geometry.extent[1], geometry.stride[1], left)
    strip = dataclasses.replace(
        geometry,
        in_shape=(height, len(inside), channels),
        padding=(top, before, bottom, behind),
    )
    columns = whole.columns[inside.start : inside.stop]
    return dataclasses.replace(whole, geometry=strip, columns=columns, outputs=outputs)


def _slot_words(geometry: Geometry, cols: int) -> int:
    """Give the words of a slot in each bank: beats of all phases."""
    return geometry.in_shape[2] // cols * geometry.stride[0] * geometry.stride[1]


def _ring_bits(geometry: Geometry, config: CspConfig) -> int:
    """Give the base-2 logarithm of the most slots."""
    return (config.line_words // _slot_words(geometry, config.cols)).bit_length() - 1


def _fit(window: Window, config: CspConfig, images: int) -> Window | None:
    """Give the window with its largest I; none if no tile fits.

    The next tile should find room while one is computed, so that nothing waits for it.
    """
    if _slot_words(window.geometry, config.cols) > config.line_words:
        return None
    if window.fold > 1:
        images *= len(window.lines) * len(window.columns)
    ring_bits = _ring_bits(window.geometry, config)

    def fits(interleave: int) -> bool:
        held = held_positions(window.geometry, images, config.rows, interleave)
        return held <= config.rows << ring_bits

    if not fits(1):
        return None
    sizes = range(1, config.max_interleave + 1)
    interleave = max((size for size in sizes if fits(2 * size)), default=1)
    return dataclasses.replace(window, ring_bits=ring_bits, interleave=interleave)


def _folds(window: Window, config: CspConfig) -> Iterator[Window]:
    """Give other forms of a layer without neighbourhoods, the shortest first."""
    geometry = window.geometry
    if geometry.kernel != (1, 1) or geometry.stride != (1, 1) or any(geometry.padding):
        return
    # The widest of equals is the last one.
    forms = {down * right: (down, right) for down in reversed(SIDES) for right in SIDES}
    for fold, kernel in sorted(forms.items())[1:]:
        beats = -(-window.beats // fold)
        shape = (*kernel, beats * config.cols)
        if fold <= window.beats and shape[0] * shape[1] * shape[2] <= TAP_LIMIT:
            yield dataclasses.replace(
                window,
                geometry=Geometry(in_shape=shape, filters=geometry.filters, kernel=kernel),
                beats=fold * beats,
                fold=fold,
            )


def _why(window: Window, config: CspConfig, images: int) -> str:
    """Say what does not fit."""
    words = _slot_words(window.geometry, config.cols)
    if words > config.line_words:
        return (
            f"a pixel takes {words} words of each bank of the line buffer, "
            f"which has {config.line_words}"
        )
    width = len(window.outputs)
    narrow = [_strip(window, outputs).geometry for outputs in strips(width, width)]
    least = max(held_positions(strip, images, config.rows, 1) for strip in narrow)
    return (
        f"one column of outputs needs {least} positions of {words} words, the line buffer has "
        f"{config.rows << _ring_bits(window.geometry, config)}"
    )
