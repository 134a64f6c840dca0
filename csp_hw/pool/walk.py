# SPDX-License-Identifier: Apache-2.0
"""The order in which a map and its padding pass through the pooler."""

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.pool.axis import Axis
from csp_hw.ports import IMAGE_BITS, POOL_COVER, PoolKind, pool_layout, results_layout


def step_layout(config: CspConfig) -> data.StructLayout:
    """Give what happens in a cycle.

    Fields
    ------
    valid
        A word of the map or of the padding goes through; otherwise the rest means nothing.
    inside
        It is one of the map: ``bytes``.
    x_begins, x_ends, y_begins, y_ends
        A window begins or ends, along each axis.
    x_cover, y_cover
        How much of the window that ends lies inside the map; see :class:`csp_hw.pool.axis.Axis`.
    x_entry, y_entry
        Where partial results are kept: along x those of each word of a pixel, along y those of
        each word of a line of windows.
    """
    axes = {}
    for axis in ("x", "y"):
        axes |= {
            f"{axis}_begins": unsigned(1),
            f"{axis}_ends": unsigned(1),
            f"{axis}_cover": range(POOL_COVER),
            f"{axis}_entry": range(config.pool_words),
        }
    flags = {"valid": unsigned(1), "inside": unsigned(1)}
    return data.StructLayout({**flags, **axes, "bytes": results_layout(config)})


class Walker(wiring.Component):
    """Take the words of a map and walk over padding, one word a cycle.

    With ``PoolKind.NONE`` every word is a window of its own, and there is no end.

    Members
    -------
    start : In(1)
        Begin with a map; ``pool`` is stable from now on. Without effect for ``PoolKind.NONE``.
    pool : In
    room : In(1)
        What a step in this cycle leaves, if anything, will have room.
    i : In(stream)
    step : Out
        What happened in the cycle before.
    busy : Out(1)
        Not all of the map's images have been walked over.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "pool": In(pool_layout(config)),
                "room": In(1),
                "i": In(stream.Signature(results_layout(config))),
                "step": Out(step_layout(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pool = self.pool
        m.submodules.x = x = Axis()
        m.submodules.y = y = Axis()
        none = Signal()
        load, working = Signal(), Signal()
        inside, step = Signal(), Signal()
        word, highest = (Signal(range(self.config.pool_words), name=n) for n in ("word", "highest"))
        entry = Signal(range(self.config.pool_words))
        # Whether the word is a pixel's last one is known a cycle before: much waits for it.
        last_word, only_word = Signal(), Signal()
        last_image = Signal()
        images = Signal(IMAGE_BITS)

        m.d.comb += [
            none.eq(pool.kind == PoolKind.NONE),
            inside.eq(none | (x.inside & y.inside)),
            self.i.ready.eq(self.room & inside & (none | working)),
            step.eq(self.room & (none | working) & (~inside | self.i.valid)),
            last_image.eq(images == 1),
            x.before.eq(pool.pad_left),
            x.size.eq(pool.width),
            x.after.eq(pool.pad_right),
            x.kernel.eq(pool.kernel_w),
            x.stride.eq(pool.stride_w),
            x.load.eq(load),
            x.advance.eq(step & last_word),
            y.before.eq(pool.pad_top),
            y.size.eq(pool.height),
            y.after.eq(pool.pad_bottom),
            y.kernel.eq(pool.kernel_h),
            y.stride.eq(pool.stride_h),
            y.load.eq(load),
            y.advance.eq(x.advance & x.last),
            self.busy.eq(load | working),
        ]
        m.d.sync += [
            load.eq(self.start & ~none),
            highest.eq(pool.words - 1),
            only_word.eq(pool.words == 1),
        ]
        with m.If(step):
            m.d.sync += [
                word.eq(Mux(last_word, 0, word + 1)),
                last_word.eq(Mux(last_word, only_word, word + 1 == highest)),
                entry.eq(entry + x.ends),
            ]
        with m.If(y.advance):
            m.d.sync += [entry.eq(0), images.eq(images - y.last)]
            with m.If(y.last & last_image):
                m.d.sync += working.eq(0)
        with m.If(load):
            m.d.sync += [
                word.eq(0),
                last_word.eq(only_word),
                entry.eq(0),
                images.eq(pool.images),
                working.eq(1),
            ]

        done, valid = Signal.like(self.step, reset_less=True), Signal()
        m.d.comb += [self.step.eq(done), self.step.valid.eq(valid)]
        m.d.sync += [
            valid.eq(step),
            done.inside.eq(inside),
            done.bytes.eq(self.i.payload),
            done.x_entry.eq(word),
            done.y_entry.eq(entry),
        ]
        for name, axis in (("x", x), ("y", y)):
            m.d.sync += [
                done[f"{name}_begins"].eq(none | axis.begins),
                done[f"{name}_ends"].eq(none | axis.ends),
                done[f"{name}_cover"].eq(axis.cover),
            ]
        return m
