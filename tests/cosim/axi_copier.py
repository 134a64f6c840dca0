# SPDX-License-Identifier: Apache-2.0
"""A Verilog top with memory ports: it reads two regions of memory and writes their sum (xor)."""

from amaranth import Module
from amaranth.back import verilog
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.loops import LoopAddress
from csp_hw.axi.ports import OFFSET_BITS, SIZE_BITS, Fault, loop_layout
from csp_hw.axi.reader import ReadManager
from csp_hw.axi.signature import (
    ADDRESS_BITS,
    ReadSignature,
    WriteSignature,
    connect_flat,
    flat_members,
)
from csp_hw.axi.writer import WriteManager

TOP = "axi_copier"
DATA_BYTES = 8
PREFIX = "m_axi"
COMMANDS = ("left", "right", "target")


class Copier(wiring.Component):
    """Beats of ``left`` and ``right``, each in the order of its loops, go to ``target``."""

    def __init__(self):
        command = In(stream.Signature(loop_layout()))
        super().__init__(
            {
                **dict.fromkeys(COMMANDS, command),
                "base": In(ADDRESS_BITS),
                "size": In(SIZE_BITS),
                "low": In(OFFSET_BITS),
                "strobe": In(DATA_BYTES),
                "stop": In(1),
                "quiet": Out(1),
                "idle": Out(1),
                "read_error": Out(Fault),
                "write_error": Out(Fault),
                **flat_members(PREFIX, ReadSignature(DATA_BYTES)),
                **flat_members(PREFIX, WriteSignature(DATA_BYTES)),
            }
        )

    def elaborate(self, _platform):
        m = Module()
        m.submodules.reader = reader = ReadManager(DATA_BYTES, (16, 64))
        m.submodules.writer = writer = WriteManager(DATA_BYTES, 32)
        connect_flat(m, self, PREFIX, reader.axi)
        connect_flat(m, self, PREFIX, writer.axi)
        runs = (*reader.runs, writer.runs)
        for name, port in zip(COMMANDS, runs, strict=True):
            m.submodules[f"loops_{name}"] = loops = LoopAddress()
            wiring.connect(m, wiring.flipped(getattr(self, name)), loops.i)
            wiring.connect(m, loops.o, port)
        left, right = reader.o
        m.d.comb += [
            writer.i.payload.eq(left.payload ^ right.payload),
            writer.i.valid.eq(left.valid & right.valid),
            left.ready.eq(right.valid & writer.i.ready),
            right.ready.eq(left.valid & writer.i.ready),
            writer.strobe.eq(self.strobe),
            writer.low.eq(self.low),
            writer.high.eq(self.size),
            self.quiet.eq(reader.quiet & writer.quiet),
            self.idle.eq(writer.idle),
            self.read_error.eq(reader.error),
            self.write_error.eq(writer.error),
        ]
        for port in (reader, writer):
            m.d.comb += [
                port.base.eq(self.base),
                port.size.eq(self.size),
                port.stop.eq(self.stop),
            ]
        return m


def copier_verilog():
    """Give the top as Verilog."""
    return verilog.convert(Copier(), name=TOP, emit_src=False, strip_internal_attrs=True)
