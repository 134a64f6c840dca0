# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the core: a DMA with the core's ports that misbehaves on demand."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.back import verilog
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

PORTS = ("wgt", "act", "res")
#: Registers: written by software …
WRITTEN = (
    "CONTROL",  # starts
    "SOURCE_LOW",
    "SOURCE_HIGH",
    "TARGET_LOW",
    "TARGET_HIGH",
    "BURSTS",
    "LENGTH",  # of a burst, in beats less one
    "PORT",  # that reads, by its place in PORTS
    "PACE",  # reads a beat in cycles with cycle & PACE == 0 only
    "MODE",
    "MASK",  # a bit for each byte of a beat that is not written
)
#: … and by the DMA; STATUS is busy, done, error, and writing it clears done and the interrupt.
TOLD = ("STATUS", "AR_FIRST", "AW_FIRST", "AW_LAST", "W_FIRST", "W_LAST", "B_FIRST", "B_LAST")
REGISTERS = {name: 4 * number for number, name in enumerate((*WRITTEN, *TOLD))}

#: What it does: reads each beat and writes it plus one; writes the cycle in which it was read;
#: reads nothing and writes the cycle from which each beat is on offer.
COPY, STAMP, FILL = range(3)
#: How it misbehaves while copying.
(
    WITHDRAWS_ADDRESS,
    CHANGES_ADDRESS,
    WITHDRAWS_DATA,
    CHANGES_DATA,
    CHANGES_CACHE,
    FIXED,
    NARROW,
    CROOKED,
    LAST_TOO_EARLY,
    WAITS_FOR_ADDRESS,
    STUCK,
) = range(8, 19)

DEPTH = 256


def _axi(name, beat, *, writes):
    """Give the ports of a manager; some of what is optional is there, some not."""
    bits = 8 * beat
    address = {"addr": 64, "len": 8, "size": 3, "burst": 2, "cache": 4, "valid": 1}
    members = {f"ar{k}": Out(v) for k, v in address.items()}
    members |= {"arready": In(1), "rid": In(1), "rdata": In(bits), "rresp": In(2)}
    members |= {"rlast": In(1), "rvalid": In(1), "rready": Out(1)}
    if writes:
        members |= {f"aw{k}": Out(v) for k, v in address.items()}
        members |= {"awready": In(1), "wdata": Out(bits), "wstrb": Out(beat), "wlast": Out(1)}
        members |= {"wvalid": Out(1), "wready": In(1), "bresp": In(2), "bvalid": In(1)}
        members |= {"bready": Out(1)}
    return {f"m_axi_{name}_{k}": v for k, v in members.items()}


def _lite():
    members = {"awaddr": In(12), "awvalid": In(1), "awready": Out(1), "awprot": In(3)}
    members |= {"wdata": In(32), "wstrb": In(4), "wvalid": In(1), "wready": Out(1)}
    members |= {"bresp": Out(2), "bvalid": Out(1), "bready": In(1)}
    members |= {"araddr": In(12), "arvalid": In(1), "arready": Out(1), "arprot": In(3)}
    members |= {"rdata": Out(32), "rresp": Out(2), "rvalid": Out(1), "rready": In(1)}
    return {f"s_axil_{k}": v for k, v in members.items()}


class StandIn(wiring.Component):
    """Read ``BURSTS`` bursts through one port, write as many through ``res``, then interrupt."""

    def __init__(self, beat):
        self.beat = beat
        members = _lite() | {"irq": Out(1)}
        for name in PORTS:
            members |= _axi(name, beat, writes=name == "res")
        super().__init__(members)

    def port(self, manager, signal):
        return getattr(self, f"m_axi_{manager}_{signal}")

    def elaborate(self, _platform):
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=8 * self.beat, depth=DEPTH)
        regs = {name: Signal(32, name=name.lower()) for name in (*WRITTEN, *TOLD)}
        start, cycle = Signal(), Signal(32)
        busy, done, error = Signal(), Signal(), Signal()
        mode = regs["MODE"]
        m.d.sync += cycle.eq(cycle + 1)
        m.d.comb += [
            regs["STATUS"].eq(Cat(busy, done, error)),
            self.irq.eq(done),
        ]
        self.registers(m, regs, start, done)
        with m.If(start):
            m.d.sync += [busy.eq(1), error.eq(0)]
        self.read(m, regs, start, cycle, queue)
        ends = self.write(m, regs, start, cycle, queue)
        with m.If(ends & (mode != STUCK)):
            m.d.sync += [busy.eq(0), done.eq(1)]
        wrong = [self.port(name, "rvalid") & (self.port(name, "rresp") != 0) for name in PORTS] + [
            self.port("res", "bvalid") & (self.port("res", "bresp") != 0)
        ]
        with m.If(Cat(wrong).any()):
            m.d.sync += error.eq(1)
        return m

    def registers(self, m, regs, start, done):
        """Take writes when address and data are both there; answer in the cycle after."""
        both = self.s_axil_awvalid & self.s_axil_wvalid & ~self.s_axil_bvalid
        m.d.comb += [self.s_axil_awready.eq(both), self.s_axil_wready.eq(both)]
        m.d.sync += start.eq(0)
        with m.If(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        with m.If(both):
            m.d.sync += [self.s_axil_bvalid.eq(1), self.s_axil_bresp.eq(2)]
            with m.Switch(self.s_axil_awaddr):
                for name in (*WRITTEN, "STATUS"):
                    with m.Case(REGISTERS[name]):
                        m.d.sync += self.s_axil_bresp.eq(0)
                        if name == "STATUS":
                            m.d.sync += done.eq(0)
                            continue
                        for byte in range(4):
                            part = slice(8 * byte, 8 * byte + 8)
                            with m.If(self.s_axil_wstrb[byte]):
                                m.d.sync += regs[name][part].eq(self.s_axil_wdata[part])
                        if name == "CONTROL":
                            m.d.sync += start.eq(1)
        m.d.comb += self.s_axil_arready.eq(~self.s_axil_rvalid)
        with m.If(self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)
        with m.If(self.s_axil_arvalid & self.s_axil_arready):
            m.d.sync += [self.s_axil_rvalid.eq(1), self.s_axil_rresp.eq(2)]
            with m.Switch(self.s_axil_araddr):
                for name, offset in REGISTERS.items():
                    with m.Case(offset):
                        m.d.sync += [self.s_axil_rdata.eq(regs[name]), self.s_axil_rresp.eq(0)]

    def bursts(self, m, regs, start, begin, valid, ready, address, name):
        """Offer the addresses of all bursts, one after the other, as fast as they are taken."""
        left = Signal(32, name=f"{name}_left")
        with m.If(valid & ready):
            step = (regs["LENGTH"] + 1) * self.beat
            m.d.sync += [address.eq(address + step), left.eq(left - 1), valid.eq(left != 1)]
        with m.If(start):
            m.d.sync += [address.eq(begin), left.eq(regs["BURSTS"]), valid.eq(1)]

    def read(self, m, regs, start, cycle, queue):
        mode, address, valid, ready = regs["MODE"], Signal(64), Signal(), Signal()
        waited, flip = Signal(8), Signal()
        reads = start & (mode != FILL)
        begin = Cat(regs["SOURCE_LOW"], regs["SOURCE_HIGH"])
        self.bursts(m, regs, reads, begin, valid, ready, address, "ar")
        with m.If(valid & ready & ~regs["AR_FIRST"].any()):
            m.d.sync += regs["AR_FIRST"].eq(cycle)
        m.d.sync += [waited.eq(Mux(valid & ~ready, waited + 1, 0)), flip.eq(~flip)]
        bend = Signal(64)
        with m.Switch(mode):
            with m.Case(CHANGES_ADDRESS):
                m.d.comb += bend.eq(Mux(waited == 1, self.beat, 0))
            with m.Case(CROOKED):
                m.d.comb += bend.eq(1)
        for number, name in enumerate(PORTS):
            chosen = regs["PORT"] == number
            m.d.comb += [
                self.port(name, "araddr").eq(address ^ bend),
                self.port(name, "arlen").eq(regs["LENGTH"]),
                self.port(name, "arsize").eq((self.beat.bit_length() - 1) - (mode == NARROW)),
                self.port(name, "arburst").eq(mode != FIXED),
                self.port(name, "arcache").eq(Mux(mode == CHANGES_CACHE, waited, 0b0011)),
                self.port(name, "arvalid").eq(
                    valid & chosen & ~((mode == WITHDRAWS_ADDRESS) & (waited == 1))
                ),
                self.port(name, "rready").eq(chosen & queue.w_rdy & ((cycle & regs["PACE"]) == 0)),
            ]
            with m.If(chosen):
                m.d.comb += [
                    ready.eq(self.port(name, "arready") & self.port(name, "arvalid")),
                    queue.w_en.eq(self.port(name, "rvalid") & self.port(name, "rready")),
                    queue.w_data.eq(Mux(mode == STAMP, cycle, self.port(name, "rdata") + 1)),
                ]

    def write(self, m, regs, start, cycle, queue):
        mode, address, valid = regs["MODE"], Signal(64), Signal()
        ready = self.port("res", "awready")
        begin = Cat(regs["TARGET_LOW"], regs["TARGET_HIGH"])
        self.bursts(m, regs, start, begin, valid, ready, address, "aw")
        announced, beat, sent, answered = Signal(32), Signal(8), Signal(32), Signal(32)
        with m.If(valid & ready):
            m.d.sync += [announced.eq(announced + 1), regs["AW_LAST"].eq(cycle)]
            with m.If(announced == 0):
                m.d.sync += regs["AW_FIRST"].eq(cycle)
        m.d.comb += [
            self.port("res", "awaddr").eq(address),
            self.port("res", "awlen").eq(regs["LENGTH"]),
            self.port("res", "awsize").eq(self.beat.bit_length() - 1),
            self.port("res", "awburst").eq(1),
            self.port("res", "awcache").eq(0b0011),
            self.port("res", "awvalid").eq(valid),
        ]

        # A register before the channel: what is on offer stays, unless it misbehaves.
        offered, data, waited = Signal(), Signal(8 * self.beat), Signal()
        taken = self.port("res", "wvalid") & self.port("res", "wready")
        last = beat == regs["LENGTH"]
        more = Signal()
        m.d.comb += more.eq(
            Mux(mode == FILL, sent + (offered & last) != regs["BURSTS"], queue.r_rdy)
            & ~((mode == WAITS_FOR_ADDRESS) & (announced <= sent))
        )
        running = Signal()
        m.d.comb += queue.r_en.eq((~offered | taken) & more & (mode != FILL))
        m.d.sync += waited.eq(self.port("res", "wvalid") & ~self.port("res", "wready"))
        with m.If(~offered | taken):
            m.d.sync += [
                offered.eq(more & running),
                data.eq(Mux(mode == FILL, cycle + 1, queue.r_data)),
            ]
        with m.If(taken):
            m.d.sync += [
                beat.eq(Mux(last, 0, beat + 1)),
                sent.eq(sent + last),
                regs["W_LAST"].eq(cycle),
            ]
            with m.If((sent == 0) & (beat == 0)):
                m.d.sync += regs["W_FIRST"].eq(cycle)
        m.d.comb += [
            self.port("res", "wdata").eq(data ^ ((mode == CHANGES_DATA) & waited)),
            self.port("res", "wstrb").eq(~regs["MASK"]),
            self.port("res", "wlast").eq(last | ((mode == LAST_TOO_EARLY) & (beat == 0))),
            self.port("res", "wvalid").eq(offered & ~((mode == WITHDRAWS_DATA) & waited)),
            self.port("res", "bready").eq(1),
        ]
        with m.If(self.port("res", "bvalid")):
            m.d.sync += [answered.eq(answered + 1), regs["B_LAST"].eq(cycle)]
            with m.If(answered == 0):
                m.d.sync += regs["B_FIRST"].eq(cycle)
        ends = Signal()
        m.d.comb += ends.eq(running & (answered == regs["BURSTS"]))
        with m.If(start):
            m.d.sync += [announced.eq(0), beat.eq(0), sent.eq(0), answered.eq(0), running.eq(1)]
            m.d.sync += [regs[name].eq(0) for name in TOLD if name != "STATUS"]
        with m.Elif(ends):
            m.d.sync += running.eq(0)
        return ends


def standin_verilog(beat):
    """Give the stand-in as the module ``csp_core``."""
    return verilog.convert(StandIn(beat), name="csp_core", emit_src=False)
