# SPDX-License-Identifier: Apache-2.0
"""The core as a slow program: executes descriptors from memory, and knows nothing else.

Independent of the compiler on purpose: it reads the bytes of descriptors, counts, weights and maps,
keeps a line buffer with the real numbering, and trips over whatever the hardware would trip over:
a tile that waits for ever, a word that was overwritten, a write out of range.
"""

import dataclasses
import itertools

import numpy as np

from csp_algo.integers import ActDtype, accumulate, affine, requantise, rescale
from csp_hw.descriptor import DESCRIPTOR_BYTES, Kind, unpack
from csp_hw.ports import OutputType, PoolKind

DTYPES = {
    OutputType.INT8: ActDtype.INT8,
    OutputType.UINT8: ActDtype.UINT8,
    OutputType.INT32: ActDtype.INT32,
}
#: Where the map memory begins.
CHIP = 0xFE00_0000


@dataclasses.dataclass
class Traffic:
    """Beats of a pass through the ports."""

    input: int = 0
    weight: int = 0
    residual: int = 0
    result: int = 0


class Core:
    """Executes descriptors.

    Parameters
    ----------
    config : CspConfig
    memory : uint8 array
        The window; what a pass writes appears here.
    """

    def __init__(self, config, memory):
        self.config = config
        self.memory = memory
        # The map memory begins with anything.
        self.chip = np.random.default_rng(1).integers(0, 256, config.map_bytes, dtype=np.uint8)
        self.banks = {}  # that each map of a pass is in
        self.written = np.zeros(len(memory), dtype=bool)

    def run(self, offset):
        """Execute the descriptor at an offset and give its traffic."""
        assert offset % DESCRIPTOR_BYTES == 0
        self.d = unpack(self._bytes(offset, DESCRIPTOR_BYTES).tobytes())
        self.banks = {}
        self.traffic = Traffic(weight=DESCRIPTOR_BYTES // self.config.cols)
        if self.d["kind"] == Kind.POOL:
            words = self._read("input", "input")
            assert self.d["tiles"] == 0
        else:
            words = self._convolve()
        if self.d["pool"] != PoolKind.NONE:
            words = self._pool(words)
        self._write(words)
        # What is read at once lies in different banks.
        assert self.banks.get("input", set()).isdisjoint(self.banks.get("add", set()))
        return self.traffic

    # --- Ports --------------------------------------------------------------------------------

    def _bytes(self, offset, size):
        assert offset + size <= len(self.memory)
        return self.memory[offset : offset + size]

    def _addresses(self, name):
        """Give the address of each beat, in order."""
        d, cols = self.d, self.config.cols
        assert d[f"{name}_beats"] > 0
        runs = [
            d[f"{name}_offset"] + j * d[f"{name}_pitch2"] + i * d[f"{name}_pitch1"]
            for j in range(d[f"{name}_count2"])
            for i in range(d[f"{name}_count1"])
        ]
        places = np.arange(d[f"{name}_beats"]) * cols
        addresses = (np.array(runs, dtype=np.int64)[:, None] + places).reshape(-1)
        assert not (addresses % cols).any()
        if addresses.min() < CHIP:
            assert addresses.min() >= 0
            assert addresses.max() + cols <= len(self.memory)
            return addresses
        assert addresses.max() + cols <= CHIP + self.config.map_bytes
        self.banks[name] = set(((addresses - CHIP) // (self.config.map_bytes // 4)).tolist())
        return addresses

    def _place(self, addresses):
        """Give the memory that beats lie in, and where."""
        if addresses[0] < CHIP:
            return self.memory, addresses
        return self.chip, addresses - CHIP

    def _read(self, name, port):
        """Give the beats that loops read, uint8 [beats, cols]."""
        addresses = self._addresses(name)
        memory, places = self._place(addresses)
        if memory is self.memory:
            setattr(self.traffic, port, len(addresses))
        return memory[places[:, None] + np.arange(self.config.cols)]

    def _fetch(self, name, size, times=1):
        """Give some bytes that the port of the weights reads, perhaps several times."""
        cols = self.config.cols
        offset = self.d[f"{name}_offset"]
        assert offset % max(64, cols) == 0
        self.traffic.weight += -(-size // cols) * times
        return self._bytes(offset, size)

    def _write(self, words):
        cols = self.config.cols
        addresses = self._addresses("output")
        assert words.shape == (len(addresses), cols)
        assert len(np.unique(addresses)) == len(addresses)
        memory, places = self._place(addresses)
        if memory is self.memory:
            self.traffic.result = len(addresses)
        strobe = self.d["strobe_low"] | self.d["strobe_high"] << 32
        assert 0 < strobe < 1 << cols
        assert self.d["output_low"] == addresses.min()
        assert self.d["output_high"] == addresses.max() + cols
        for column in range(cols):
            if strobe >> column & 1:
                memory[places + column] = words[:, column]
                if memory is self.memory:
                    self.written[places + column] = True

    # --- Convolution --------------------------------------------------------------------------

    def _convolve(self):
        d, config = self.d, self.config
        survivors, counts = self._taps()
        tiles = self._fetch("tiles", 4 * d["tiles"]).view("<u4").astype(np.int64)
        bases, interleaves = (tiles & 0xFFFFFF) * config.rows, tiles >> 24
        assert (interleaves > 0).all()
        assert (interleaves * d["chunks"] <= config.depth).all()
        assert (np.diff(bases) >= interleaves[:-1] * config.rows).all()
        buffer = LineBuffer(config, d, self._read("input", "input"), survivors)
        activations = []
        for base, interleave in zip(bases.tolist(), interleaves.tolist(), strict=True):
            activations.append(buffer.tile(base, interleave))
        pixels = np.concatenate(activations)
        assert len(pixels) == d["images"] * d["out_height"] * d["out_width"]
        if d["signed"]:
            pixels = pixels.view(np.int8)
        sums = self._sums(pixels.astype(np.float64), counts)
        return self._output(sums)

    def _taps(self):
        """Give kernel position and channel of each surviving tap, and its count."""
        d, config = self.d, self.config
        kernel = d["kernel_h"] * d["kernel_w"]
        channels = d["beats"] * config.cols
        assert d["taps"] == kernel * channels == d["count_beats"] * config.cols
        assert d["position_words"] * config.lookahead == channels
        resident = d["counts_resident"]
        if resident:
            assert d["taps"] // config.lookahead <= config.count_words
        counts = self._fetch("counts", d["taps"], 1 if resident else d["tiles"])
        assert counts.max() <= d["chunks"]
        taps = np.flatnonzero(counts)
        position, channel = np.divmod(taps, channels)
        r, s = np.divmod(position, d["kernel_w"])
        return (r, s, channel), counts[taps].astype(np.int64)

    def _sums(self, pixels, counts):
        """Give the partial sums [pixels, K, cols] at the end."""
        d, config = self.d, self.config
        assert 1 <= d["period"] <= config.max_period
        resident = d["weights_resident"]
        if resident:
            assert d["weight_words"] <= config.weight_words
        size = d["weight_words"] * config.cols
        words = self._fetch("weights", size, 1 if resident else d["tiles"])
        words = words.view(np.int8).reshape(-1, config.cols).astype(np.float64)
        acc = np.zeros((d["chunks"], len(pixels), config.cols), dtype=np.int64)
        used = 0
        for block in np.split(np.arange(len(counts)), range(d["period"], len(counts), d["period"])):
            for k in range(counts[block].max(initial=0)):
                run = block[counts[block] > k]
                word = words[used : used + len(run)]
                used += len(run)
                total = (pixels[:, run] @ word).astype(np.int64)
                acc[k], _ = accumulate(acc[k], total, d["acc_shift"], config.acc_bits)
        assert used == len(words)
        return acc.transpose(1, 0, 2)

    def _output(self, sums):
        """Give the result words of all pixels."""
        d, cols = self.d, self.config.cols
        filters = d["chunks"] * cols
        assert 1 <= d["last_filters"] <= cols
        raw = self._fetch("params", 8 * filters).reshape(filters, 8)
        bias = np.ascontiguousarray(raw[:, :4]).view("<i4").astype(np.int64)[:, 0]
        mult = np.ascontiguousarray(raw[:, 4:6]).view("<u2").astype(np.int64)[:, 0]
        dtype = DTYPES[OutputType(d["out"])]
        residual = None
        if d["residual"]:
            added = self._read("add", "residual").reshape(len(sums), filters)
            added = added.view(np.int8) if d["residual_signed"] else added
            residual = rescale(added, d["residual_mult"], d["residual_shift"])
        v = affine(sums.reshape(len(sums), filters), d["acc_shift"], bias)
        outputs = requantise(v, mult, raw[:, 6], dtype, relu=bool(d["relu"]), residual=residual)
        outputs = outputs.astype(dtype.numpy.newbyteorder("<"))
        return np.ascontiguousarray(outputs).view(np.uint8).reshape(-1, cols)

    # --- Pooling ------------------------------------------------------------------------------

    def _pool(self, words):
        d, config = self.d, self.config
        sides = [
            (d["pool_height"], d["pool_kernel_h"], d["pool_stride_h"]),
            (d["pool_width"], d["pool_kernel_w"], d["pool_stride_w"]),
        ]
        pads = [
            (d["pool_pad_top"], d["pool_pad_bottom"]),
            (d["pool_pad_left"], d["pool_pad_right"]),
        ]
        axes = [
            _windows(size, kernel, stride, *around)
            for (size, kernel, stride), around in zip(sides, pads, strict=True)
        ]
        assert len(axes[1]) * d["pool_words"] <= config.pool_words
        assert all(kernel <= max(stride, 3) for _, kernel, stride in sides)
        if d["pool"] == PoolKind.AVERAGE and sides[0][1] > sides[0][2]:
            assert sides[1][1] <= 4
        pixel = d["pool_words"] * config.cols
        x = words.reshape(d["images"], sides[0][0], sides[1][0], pixel)
        x = x.view(np.int8) if d["pool_signed"] else x
        limits = np.iinfo(x.dtype)
        result = np.empty((len(x), len(axes[0]), len(axes[1]), pixel), dtype=x.dtype)
        for (oy, lines), (ox, columns) in itertools.product(*map(enumerate, axes)):
            window = x[:, lines.start : lines.stop, columns.start : columns.stop].astype(np.int64)
            if d["pool"] == PoolKind.MAX:
                result[:, oy, ox] = window.max(axis=(1, 2))
                continue
            covered = (min(len(lines), 3) - 1) * 3 + min(len(columns), 3) - 1
            mult = d[f"pool_mult_{covered}"]
            assert mult > 0
            mean = rescale(window.sum(axis=(1, 2)), mult, d["pool_shift"])
            result[:, oy, ox] = np.clip(mean, limits.min, limits.max)
        return result.view(np.uint8).reshape(-1, config.cols)


def _windows(size, kernel, stride, before, after):
    """Give the places inside of each window along an axis."""
    count = (size + before + after - kernel) // stride + 1
    starts = [number * stride - before for number in range(count)]
    windows = [range(max(0, start), min(size, start + kernel)) for start in starts]
    assert all(windows)
    return windows


class LineBuffer:
    """``rows`` banks of words, filled in the order of the input as long as there is room.

    Parameters
    ----------
    config : CspConfig
    d : dict
        The descriptor.
    words : uint8 [beats, cols]
        The input.
    survivors : (r, s, channel)
        Of each tap.
    """

    def __init__(self, config, d, words, survivors):
        self.config, self.d = config, d
        self.ring = 1 << d["ring_bits"]
        self.beats = d["beats"]
        down, right = d["stride_y"], d["stride_x"]
        assert (self.beats << (down + right)) << d["ring_bits"] <= config.line_words
        shape = (d["images"], d["height"], d["width"])
        assert words.shape == (np.prod(shape) * self.beats, config.cols)
        self.words = words.reshape(-1, self.beats, config.cols)
        image, y, x = (axis.reshape(-1) for axis in np.indices(shape))
        self.l = (image * d["lines"] + (y >> down)) * d["pitch"] + (x >> right)
        self.phase = ((y & ((1 << down) - 1)) << right) | (x & ((1 << right) - 1))
        #: Positions below this are complete when the first n inputs are there.
        later = np.minimum.accumulate(self.l[::-1])[::-1]
        self.complete = np.append(later, np.iinfo(np.int64).max)
        noise = np.random.default_rng(0)
        self.banks = noise.integers(
            0, 256, (config.rows, config.line_words, config.cols), dtype=np.uint8
        )
        self.filled = 0
        r, s, self.channel = survivors
        oy, ox = r * d["dilation_y"] - d["pad_top"], s * d["dilation_x"] - d["pad_left"]
        self.oy, self.ox = oy, ox
        self.delta = (oy >> down) * d["pitch"] + (ox >> right)
        self.tap_phase = ((oy & ((1 << down) - 1)) << right) | (ox & ((1 << right) - 1))
        # Whatever the counts: all kernel positions bound what a tile needs.
        ends = [
            (side * step - pad) >> stride
            for side, step, pad, stride in (
                (0, d["dilation_y"], d["pad_top"], down),
                (d["kernel_h"] - 1, d["dilation_y"], d["pad_top"], down),
                (0, d["dilation_x"], d["pad_left"], right),
                (d["kernel_w"] - 1, d["dilation_x"], d["pad_left"], right),
            )
        ]
        self.least = ends[0] * d["pitch"] + ends[2]
        self.most = ends[1] * d["pitch"] + ends[3]

    def tile(self, base, interleave):
        """Give the activations uint8 [live lanes, surviving taps] of a tile."""
        d, rows = self.d, self.config.rows
        self._fill(base + self.least)
        assert self.complete[self.filled] >= base + interleave * rows + self.most, "stuck"
        lane = base + np.arange(interleave * rows)
        line, x = np.divmod(lane, d["pitch"])
        image, y = np.divmod(line, d["lines"])
        live = (x < d["out_width"]) & (y < d["out_height"]) & (image < d["images"])
        assert live.reshape(interleave, rows).any(axis=1).all()
        lane, y, x = lane[live][:, None], y[live][:, None], x[live][:, None]
        line = (y << d["stride_y"]) + self.oy
        column = (x << d["stride_x"]) + self.ox
        inside = (line >= 0) & (line < d["height"]) & (column >= 0) & (column < d["width"])
        position = lane + self.delta
        beat, byte = np.divmod(self.channel, self.config.cols)
        slot = (position // rows) % self.ring
        address = (self.tap_phase * self.beats + beat) << d["ring_bits"] | slot
        return np.where(inside, self.banks[position % rows, address, byte], np.uint8(0))

    def _fill(self, released):
        """Take all input for which there is room, once positions below are released."""
        rows = self.config.rows
        limit = released + rows * self.ring
        blocked = np.flatnonzero(self.l[self.filled :] >= limit)
        stop = self.filled + int(blocked[0]) if len(blocked) else len(self.l)
        new = slice(self.filled, stop)
        slot = (self.l[new] // rows) % self.ring
        for beat in range(self.beats):
            address = (self.phase[new] * self.beats + beat) << self.d["ring_bits"] | slot
            self.banks[self.l[new] % rows, address] = self.words[new, beat]
        self.filled = stop
