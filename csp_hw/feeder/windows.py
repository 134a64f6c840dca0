# SPDX-License-Identifier: Apache-2.0
"""The windows of the lanes at work, and which lanes of a word lie in the map."""

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.layouts import lane_slots, request_layout, window_layout
from csp_hw.util import delayed


def lane_layout(config: CspConfig) -> data.StructLayout:
    """Give the window of a lane: one row of ``rows``, none if zero, of the group at ``slot``."""
    return data.StructLayout(
        {
            "rows": unsigned(config.rows),
            "slot": range(lane_slots(config)),
            "y": window_layout(),
            "x": window_layout(),
        }
    )


class Windows(wiring.Component):
    """Tell padding from activations.

    Parameters
    ----------
    config : CspConfig
    latency : int
        Cycles from ``request`` to ``mask``; at least 1.

    Members
    -------
    lane : In
        A lane to keep.
    request : In
    mask : Out
        A bit for each row whose position is in the map.
    release : Out(1)
        ``request.release``, when a lane may be overwritten.
    """

    def __init__(self, config: CspConfig, latency: int):
        self.config = config
        self.latency = latency
        super().__init__(
            {
                "lane": In(lane_layout(config)),
                "request": In(request_layout(config)),
                "mask": Out(config.rows),
                "release": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        request = self.request
        cycles = self.latency - 1
        slot, r, s = (
            delayed(m, request[name], cycles, f"request_{name}", reset_less=True)
            for name in ("lanes", "r", "s")
        )
        release = delayed(m, request.release, cycles, "request_release")
        mask = Signal(self.config.rows, reset_less=True)
        m.d.comb += [self.release.eq(release), self.mask.eq(mask)]
        layout = data.StructLayout({"y": window_layout(), "x": window_layout()})
        for row in range(self.config.rows):
            store = memory.Memory(shape=layout, depth=lane_slots(self.config), init=[])
            m.submodules[f"row_{row}"] = store
            write, read = store.write_port(), store.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(self.lane.slot),
                write.data.eq(Cat(self.lane.y, self.lane.x)),
                write.en.eq(self.lane.rows[row]),
                read.addr.eq(slot),
            ]
            y, x = read.data.y, read.data.x
            m.d.sync += mask[row].eq((y.first <= r) & (r < y.stop) & (x.first <= s) & (s < x.stop))
        return m
