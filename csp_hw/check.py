# SPDX-License-Identifier: Apache-2.0
"""What makes a descriptor one that cannot be computed."""

from collections.abc import Iterator

from amaranth import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.descriptor import Kind, descriptor_layout
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
    """Look a descriptor over; three cycles.

    Members
    -------
    descriptor : In
    reserved : In(1)
        A bit that belongs to no field is not 0; a cycle later than the descriptor.
    wrong : Out(1)
        A check fails, three cycles after the descriptor is stable.
    number : Out
        The first one that does, in the order of ``CHECKS``.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "descriptor": In(descriptor_layout()),
                "reserved": In(1),
                "wrong": Out(1),
                "number": Out(range(len(CHECKS))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # A register after each of: all conditions, the checks, the first one that fails.
        names = []
        failures = Signal(len(CHECKS), reset_less=True)
        for number, (name, applies, conditions, late) in enumerate(self._checks(m)):
            names.append(name)
            needed = Signal(name=f"{name}_needed", reset_less=True)
            met = Signal(len(conditions), name=f"{name}_met", reset_less=True)
            m.d.sync += [
                needed.eq(applies),
                met.eq(Cat(conditions)),
                failures[number].eq(needed & (met.any() | late)),
            ]
        assert tuple(names) == CHECKS
        m.d.sync += self.wrong.eq(failures.any())
        for number in reversed(range(len(CHECKS))):
            with m.If(failures[number]):
                m.d.sync += self.number.eq(number)
        return m

    def _checks(self, m: Module) -> Iterator[tuple[str, Value, list[Value], Value]]:
        """Give each check: name, whether it applies, what must not be, the same a cycle later."""
        config, d = self.config, self.descriptor
        always, never = Const(1), Const(0)
        convolve = d.kind == Kind.CONVOLVE
        pools = d.pool != PoolKind.NONE
        int32 = d.out == OutputType.INT32

        yield "reserved", always, [], self.reserved
        yield "kind", always, [d.kind > Kind.POOL], never
        yield "out", always, [d.out > OutputType.INT32], never
        yield (
            "pool",
            always,
            [
                d.pool > PoolKind.AVERAGE,
                ~convolve & ~pools,
                *(pools & condition for condition in self._pool()),
            ],
            never,
        )
        yield "int32", int32, [d.relu | d.residual | pools], never
        yield "period", convolve, _outside(d.period, 1, config.max_period), never
        yield "chunks", convolve, _outside(d.chunks, 1, config.depth), never
        yield "last_filters", convolve, _outside(d.last_filters, 1, config.cols), never
        yield "acc_shift", convolve, [d.acc_shift > 32 - config.acc_bits], never
        yield "taps", convolve, [d.taps == 0, d.position_words == 0], never
        yield "tiles", convolve, [d.tiles == 0], never
        sides = (d.kernel_h, d.kernel_w)
        kernel = [condition for side in sides for condition in _outside(side, 1, KERNEL_LIMIT)]
        yield "kernel", convolve, kernel, never
        yield "stride", convolve, [d.stride_y > 2, d.stride_x > 2], never
        yield "dilation", convolve, [d.dilation_y == 0, d.dilation_x == 0], never
        extents = (d.images, d.height, d.width, d.out_height, d.out_width)
        yield "extent", convolve, [extent == 0 for extent in extents], never
        yield (
            "grid",
            convolve,
            [
                d.lines < d.out_height,
                d.pitch < d.out_width,
                (d.lines << d.stride_y) < d.height,
                (d.pitch << d.stride_x) < d.width,
            ],
            never,
        )
        # The words of a position, in all its phases, fill at most a slot's part of a bank: that is
        # a power of two, so that the high bits of the last word's number tell.
        last_word = Signal(16 + 6, reset_less=True)
        m.d.sync += last_word.eq((d.beats << (d.stride_y + d.stride_x)) - 1)
        ring_limit = (config.line_words - 1).bit_length()
        fits = Cat(
            (d.ring_bits == bits) & ~last_word[ring_limit - bits :].any()
            for bits in range(ring_limit + 1)
        ).any()
        yield "line_buffer", convolve, [d.beats == 0], ~fits
        yield (
            "weight_buffer",
            convolve,
            [d.weights_resident & (d.weight_words > config.weight_words)],
            never,
        )
        count_beats = config.count_words * config.lookahead // config.cols
        counts = [d.counts_resident & (d.count_beats > count_beats), d.count_beats == 0]
        yield "count_buffer", convolve, counts, never
        empty = [*self._empty("input"), *self._empty("output")]
        empty += [d.residual & condition for condition in self._empty("add")]
        yield "loops", always, empty, never
        addresses = [
            d[f"{name}_offset"]
            for name in ("params", "tiles", "counts", "weights", "input", "add", "output")
        ]
        addresses += [d[f"{name}_pitch{n}"] for name in ("input", "add", "output") for n in (1, 2)]
        beat_bits = (config.cols - 1).bit_length()
        yield "alignment", always, [address[:beat_bits].any() for address in addresses], never
        yield "output_range", always, [d.output_low > d.output_high], never

    def _empty(self, name: str) -> list[Value]:
        d = self.descriptor
        return [d[f"{name}_{part}"] == 0 for part in ("beats", "count1", "count2")]

    def _pool(self) -> list[Value]:
        """Give what makes a pooling empty, or larger than what the pooler keeps."""
        d = self.descriptor
        parts = ("height", "width", "kernel_h", "kernel_w", "stride_h", "stride_w", "words")
        empty = [d[f"pool_{part}"] == 0 for part in parts]
        overlaps = [
            (d[f"pool_kernel_{axis}"] > d[f"pool_stride_{axis}"]) & (d[f"pool_kernel_{axis}"] > 3)
            for axis in "hw"
        ]
        return [*empty, *overlaps, d.images == 0, d.pool_words > self.config.pool_words]


def _outside(value: Value, low: int, high: int) -> list[Value]:
    """Give the two conditions under which an unsigned value is not low … high."""
    return [value < low, value > high]
