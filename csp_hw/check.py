# SPDX-License-Identifier: Apache-2.0
"""What makes a descriptor one that cannot be computed."""

from collections.abc import Iterator

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.descriptor import Kind, descriptor_layout, reserved_bits
from csp_hw.ports import KERNEL_LIMIT, OutputType, PoolKind

#: Names of the checks; a failing one is told by its number in this list.
CHECKS = (
    "reserved",
    "kind",
    "out",
    "pool",
    "int32",
    "period",
    "chunks",
    "last_filters",
    "acc_shift",
    "taps",
    "tiles",
    "kernel",
    "stride",
    "dilation",
    "extent",
    "grid",
    "line_buffer",
    "weight_buffer",
    "count_buffer",
    "loops",
    "alignment",
    "output_range",
)


class DescriptorCheck(wiring.Component):
    """Look a descriptor over; two cycles.

    Members
    -------
    descriptor : In
    wrong : Out(1)
        A check fails, two cycles after the descriptor is stable.
    number : Out
        The first one that does, in the order of ``CHECKS``.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "descriptor": In(descriptor_layout()),
                "wrong": Out(1),
                "number": Out(range(len(CHECKS))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        found = dict(self._failures())
        assert tuple(found) == CHECKS
        failures = Signal(len(CHECKS))
        m.d.sync += [failures.eq(Cat(found.values())), self.wrong.eq(failures.any())]
        for number in reversed(range(len(CHECKS))):
            with m.If(failures[number]):
                m.d.sync += self.number.eq(number)
        return m

    def _failures(self) -> Iterator[tuple[str, Value]]:
        """Give each check's name and its failure."""
        config, d = self.config, self.descriptor
        whole = d.as_value()
        convolve = d.kind == Kind.CONVOLVE
        pools = d.pool != PoolKind.NONE
        int32 = d.out == OutputType.INT32
        beat_bits = (config.cols - 1).bit_length()

        yield "reserved", (whole & reserved_bits()).any()
        yield "kind", d.kind > Kind.POOL
        yield "out", d.out > OutputType.INT32
        yield "pool", (d.pool > PoolKind.AVERAGE) | (~convolve & ~pools) | (pools & self._pool())
        yield "int32", int32 & (d.relu | d.residual | pools)
        yield "period", convolve & _outside(d.period, 1, config.max_period)
        yield "chunks", convolve & _outside(d.chunks, 1, config.depth)
        yield "last_filters", convolve & _outside(d.last_filters, 1, config.cols)
        yield "acc_shift", convolve & (d.acc_shift > 32 - config.acc_bits)
        yield "taps", convolve & ((d.taps == 0) | (d.position_words == 0))
        yield "tiles", convolve & (d.tiles == 0)
        yield (
            "kernel",
            convolve
            & (_outside(d.kernel_h, 1, KERNEL_LIMIT) | _outside(d.kernel_w, 1, KERNEL_LIMIT)),
        )
        yield "stride", convolve & ((d.stride_y > 2) | (d.stride_x > 2))
        yield "dilation", convolve & ((d.dilation_y == 0) | (d.dilation_x == 0))
        extents = (d.images, d.height, d.width, d.out_height, d.out_width)
        yield "extent", convolve & Cat(extent == 0 for extent in extents).any()
        yield (
            "grid",
            convolve
            & (
                (d.lines < d.out_height)
                | (d.pitch < d.out_width)
                | ((d.lines << d.stride_y) < d.height)
                | ((d.pitch << d.stride_x) < d.width)
            ),
        )
        ring_limit = (config.line_words - 1).bit_length()
        phases = (d.beats << (d.stride_y + d.stride_x))[: 16 + 6]
        fits = Cat(
            (d.ring_bits == bits) & (phases <= (config.line_words >> bits))
            for bits in range(ring_limit + 1)
        ).any()
        yield "line_buffer", convolve & (~fits | (d.beats == 0))
        yield (
            "weight_buffer",
            convolve & d.weights_resident & (d.weight_words > config.weight_words),
        )
        count_beats = config.count_words * config.lookahead // config.cols
        yield (
            "count_buffer",
            convolve & ((d.counts_resident & (d.count_beats > count_beats)) | (d.count_beats == 0)),
        )
        yield (
            "loops",
            self._empty("input") | self._empty("output") | (d.residual & self._empty("add")),
        )
        addresses = [
            d[f"{name}_offset"]
            for name in ("params", "tiles", "counts", "weights", "input", "add", "output")
        ]
        addresses += [d[f"{name}_pitch{n}"] for name in ("input", "add", "output") for n in (1, 2)]
        yield "alignment", Cat(address[:beat_bits].any() for address in addresses).any()
        yield "output_range", d.output_low > d.output_high

    def _empty(self, name: str) -> Value:
        d = self.descriptor
        parts = ("beats", "count1", "count2")
        return Cat(d[f"{name}_{part}"] == 0 for part in parts).any()

    def _pool(self) -> Value:
        """Say whether a pooling is empty, or larger than what the pooler keeps."""
        d = self.descriptor
        parts = ("height", "width", "kernel_h", "kernel_w", "stride_h", "stride_w", "words")
        empty = Cat(d[f"pool_{part}"] == 0 for part in parts).any()
        overlaps = [
            (d[f"pool_kernel_{axis}"] > d[f"pool_stride_{axis}"]) & (d[f"pool_kernel_{axis}"] > 3)
            for axis in "hw"
        ]
        return (
            empty | Cat(overlaps).any() | (d.images == 0) | (d.pool_words > self.config.pool_words)
        )


def _outside(value: Value, low: int, high: int) -> Value:
    """Say whether an unsigned value is not low … high."""
    return Mux(value < low, 1, value > high)
