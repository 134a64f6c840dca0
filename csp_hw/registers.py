# SPDX-License-Identifier: Apache-2.0
"""The registers behind an AXI4-Lite port, built from the map that registers.rdl gives."""

import functools
import operator

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.signature import LITE_ADDRESS_BITS, LiteSignature, Response
from csp_hw.config import CspConfig
from csp_hw.register_map import REGISTERS, Access, BufferStyle, Field, Register

#: The port's address space: 4 KiB.
ADDR_BITS = LITE_ADDRESS_BITS
WORD_BITS = 32
#: Bits of an address below a word's.
BYTE_BITS = 2
#: Registers among which a read chooses in one cycle.
GROUP = 8
#: Fields of the hardware that the register file computes itself.
DERIVED = {("STATUS", "irq_pending")}


def _layout(*accesses: Access) -> data.StructLayout:
    """Give the fields of some kinds, by register."""
    registers = {
        register.name.lower(): {
            field.name: unsigned(field.width)
            for field in register.fields
            if field.access in accesses and (register.name, field.name) not in DERIVED
        }
        for register in REGISTERS
    }
    return data.StructLayout(
        {name: data.StructLayout(fields) for name, fields in registers.items() if fields}
    )


def software_layout() -> data.StructLayout:
    """Give what software decides: its values, its pulses, and the sticky bits as they are."""
    return _layout(Access.WRITE, Access.PULSE, Access.STICKY)


def hardware_layout() -> data.StructLayout:
    """Give what the hardware decides: its values, and 1 for each sticky bit that it sets."""
    return _layout(Access.READ, Access.STICKY)


def build_parameter(config: CspConfig, name: str) -> int:
    """Give the value of a fixed field: the parameter of that name or, for _log2, its logarithm."""
    if name.endswith("_log2"):
        return getattr(config, name.removesuffix("_log2")).bit_length() - 1
    if name == "style":
        return BufferStyle[config.style.name].value
    return getattr(config, name)


class RegisterFile(wiring.Component):
    """All registers of :mod:`csp_hw.register_map` as an AXI4-Lite subordinate.

    Where there is no register, the answer is DECERR; to a write of a register of which software can
    write nothing it is SLVERR, and nothing happens. The two low bits of an address do not matter,
    nor does ``prot``. A write with some strobes changes the bits of those bytes only.

    The answer to a write is on offer two cycles after both its address and its data were taken, and
    what was written shows from then on; the next write can follow two cycles after the one before.
    A read is answered after three cycles, every three cycles. There is no combinational path
    between channels.

    Parameters
    ----------
    config : CspConfig
        What the fixed fields tell.

    Members
    -------
    axi : In(LiteSignature)
    software : Out
        :func:`software_layout`, as in ``software.timeout.cycles``: registers, which begin with
        their reset values. A pulse is 1 for one cycle.
    hardware : In
        :func:`hardware_layout`, as in ``hardware.layer.index``. A sticky bit that is set and
        cleared in one cycle is set.
    irq : Out(1)
        A cycle behind ``status.irq_pending``: high while ``done`` or ``error`` is set and
        ``irq_enable``, too.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        software = software_layout()
        initial = {
            register.name.lower(): {
                field.name: field.reset
                for field in register.fields
                if field.name in software[register.name.lower()].shape.members
            }
            for register in REGISTERS
            if register.name.lower() in software.members
        }
        super().__init__(
            {
                "axi": In(LiteSignature()),
                "software": Out(software, init=initial),
                "hardware": In(hardware_layout()),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi = self.axi

        # A write waits here for its other half, then for the answer before to be taken.
        write_at = Signal(ADDR_BITS - BYTE_BITS, reset_less=True)
        write_data = Signal(WORD_BITS, reset_less=True)
        write_strobes = Signal(WORD_BITS // 8, reset_less=True)
        at_held, data_held = Signal(), Signal()
        do_write = Signal()
        m.d.comb += [
            axi.aw.ready.eq(~at_held),
            axi.w.ready.eq(~data_held),
            do_write.eq(at_held & data_held & ~axi.b.valid),
        ]
        with m.If(axi.aw.valid & axi.aw.ready):
            m.d.sync += [at_held.eq(1), write_at.eq(axi.aw.payload.addr[BYTE_BITS:])]
        with m.If(axi.w.valid & axi.w.ready):
            m.d.sync += [
                data_held.eq(1),
                write_data.eq(axi.w.payload.data),
                write_strobes.eq(axi.w.payload.strb),
            ]
        with m.If(axi.b.ready):
            m.d.sync += axi.b.valid.eq(0)
        with m.If(do_write):
            m.d.sync += [at_held.eq(0), data_held.eq(0), axi.b.valid.eq(1)]

        # A read waits for the answer before to be taken.
        read_at = Signal(ADDR_BITS - BYTE_BITS, reset_less=True)
        read_held = Signal()
        do_read = Signal()
        gathered = Signal()
        m.d.comb += [
            axi.ar.ready.eq(~read_held),
            do_read.eq(read_held & ~gathered & ~axi.r.valid),
        ]
        m.d.sync += gathered.eq(do_read)
        with m.If(axi.ar.valid & axi.ar.ready):
            m.d.sync += [read_held.eq(1), read_at.eq(axi.ar.payload.addr[BYTE_BITS:])]
        with m.If(do_read):
            m.d.sync += read_held.eq(0)
        with m.If(axi.r.ready):
            m.d.sync += axi.r.valid.eq(0)
        with m.If(gathered):
            m.d.sync += axi.r.valid.eq(1)

        # The interrupt is a level: it stays until software has cleared what it tells.
        m.d.sync += self.irq.eq(self._pending)

        # The registers: what is read, and what a write does.
        mask = Cat(strobe.replicate(8) for strobe in write_strobes)
        words = {}
        for register in REGISTERS:
            chosen = Signal(name=f"{register.name.lower()}_chosen")
            m.d.comb += chosen.eq(do_write & (write_at == register.offset >> BYTE_BITS))
            words[register] = word = Signal(WORD_BITS, name=f"{register.name.lower()}_word")
            for field in register.fields:
                bits = slice(field.lsb, field.lsb + field.width)
                enable = Mux(chosen, mask[bits], 0)
                value = self._field(m, register, field, write_data[bits], enable)
                m.d.comb += word[bits].eq(value)

        with m.If(do_write), m.Switch(write_at):
            for register in REGISTERS:
                with m.Case(register.offset >> BYTE_BITS):
                    answer = Response.SLVERR if register.access == "r" else Response.OKAY
                    m.d.sync += axi.b.payload.resp.eq(answer)
            with m.Default():
                m.d.sync += axi.b.payload.resp.eq(Response.DECERR)

        # What is read comes from all over the core: each group has a register, which is zero
        # unless the word is one of that group's. They follow at all times: those of the cycle of
        # `do_read` are used.
        answers, found = [], []
        for start in range(0, len(REGISTERS), GROUP):
            answers.append(Signal(WORD_BITS, name=f"answer_{start}", reset_less=True))
            found.append(Signal(name=f"found_{start}", reset_less=True))
            m.d.sync += [answers[-1].eq(0), found[-1].eq(0)]
            with m.Switch(read_at):
                for register in REGISTERS[start : start + GROUP]:
                    with m.Case(register.offset >> BYTE_BITS):
                        m.d.sync += [answers[-1].eq(words[register]), found[-1].eq(1)]
        with m.If(gathered):
            m.d.sync += [
                axi.r.payload.data.eq(functools.reduce(operator.or_, answers)),
                axi.r.payload.resp.eq(Mux(Cat(found).any(), Response.OKAY, Response.DECERR)),
            ]
        return m

    @property
    def _pending(self):
        """Whether there is something to interrupt for."""
        status = self.software.status
        return (status.done | status.error) & self.software.control.irq_enable

    def _field(self, m: Module, register: Register, field: Field, written, enable):
        """Give what software reads of a field; ``enable`` says which bits it writes."""
        name = register.name.lower()
        if field.access is Access.FIXED:
            fixed = field.reset is not None
            return field.reset if fixed else build_parameter(self.config, field.name)
        if (register.name, field.name) in DERIVED:
            return self._pending
        if field.access is Access.READ:
            return self.hardware[name][field.name]
        value = self.software[name][field.name]
        if field.access is Access.WRITE:
            m.d.sync += value.eq((value & ~enable) | (written & enable))
        elif field.access is Access.STICKY:
            m.d.sync += value.eq((value & ~(written & enable)) | self.hardware[name][field.name])
        else:
            # A pulse is over before anybody could read it.
            m.d.sync += value.eq(written & enable)
            return 0
        return value
