# SPDX-License-Identifier: Apache-2.0
"""The output stage: bias, requantisation, residual, ReLU and saturation of drained sums."""

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw import ports
from csp_hw.buffer import ResultBuffer
from csp_hw.config import (
    ACC_SHIFT_BITS,
    ACTIVATION_BITS,
    BIAS_BITS,
    MULT_BITS,
    SHIFT_BITS,
    CspConfig,
)
from csp_hw.util import delayed, place

#: Verilog module of a column, instantiated cols times.
COLUMN_MODULE = "csp_output_column"
#: Result words that may be inside the stage at once: the depth of the result buffer, which is
#: one row of LUT RAM on an ECP5 and covers the latency and the returning credit.
CREDITS = 16
#: Cycles from a column's operands to its result.
COLUMN_LATENCY = 10
#: Cycles from a word's acceptance to its result's first cycle on offer.
LATENCY = 1 + COLUMN_LATENCY + 2
INT32_LATENCY = 6
#: Words that carry the int32 results of one chunk.
INT32_WORDS = 4
#: acc · 2^t, at most 32 bits since acc_bits + t <= 32.
SUM_BITS = 32
#: v = acc · 2^t + bias.
VALUE_BITS = max(SUM_BITS, BIAS_BITS) + 1
#: v is multiplied in two parts: its low bits, unsigned, and the rest. Both fit one side of an
#: 18 × 18 signed multiplier.
LOW_BITS = 17
#: v · mult.
PRODUCT_BITS = VALUE_BITS + MULT_BITS
#: Levels of the second part of a shifter, which shifts by 0 … 7.
FINE_BITS = 3
#: z is clipped to this width before a residual is added.
RESIDUAL_BITS = 16
#: Between the two parts of the shifter, values are clipped to this width: the second part leaves
#: at least one bit more than twice z has, so whatever is clipped there is clipped again later.
CLIP_BITS = RESIDUAL_BITS + 1 + 2**FINE_BITS - 1
#: r · rmult, r being int8 or uint8.
ADDED_BITS = ACTIVATION_BITS + MULT_BITS
#: Cycles for which a column holds a residual back until z comes.
RESIDUAL_DELAY = 3


def _limit(sign, width: int):
    """Give the smallest (``sign`` = 1) or largest value of ``width`` bits."""
    most = (1 << (width - 1)) - 1
    return Mux(sign, Const(-most - 1, signed(width)), Const(most, signed(width)))


def _clip(value, width: int):
    """Saturate a signed value to ``width`` bits, fewer than it has."""
    sign, top = value[-1], value[width - 1 :]
    return Mux(top.all() | ~top.any(), value[:width].as_signed(), _limit(sign, width))


class ColumnSignature(wiring.Signature):
    """Ports of a column; :class:`OutputColumn` explains them."""

    def __init__(self, config: CspConfig):
        super().__init__(
            {
                "acc": In(signed(config.acc_bits)),
                "filter": In(ports.filter_layout()),
                "residual": In(8),
                "acc_shift": In(ACC_SHIFT_BITS),
                "add": In(ports.residual_layout()),
                "relu": In(1),
                "unsigned": In(1),
                "value": Out(signed(VALUE_BITS)),
                "result": Out(8),
            }
        )


class OutputColumn(wiring.Component):
    """The arithmetic of one column: a pipeline without stalls.

    ``v = acc · 2^acc_shift + bias``, ``z = rhu(v · mult, shift)``; if ``add.enabled``,
    ``z ← sat16(z) + rhu(residual · add.mult, add.shift)``; then ReLU if ``relu``; then z is
    saturated to int8 or, if ``unsigned``, to uint8. rhu(x, s) = (x + 2^(s-1)) >> s, and x for
    s = 0. It is computed as y = 2x >> s, (y >> 1) + (y & 1): bit 0 of y is the rounding carry.

    Latency: ``value`` 2 cycles and ``result`` COLUMN_LATENCY cycles after ``acc``, ``filter`` and
    ``residual``; a new operand every cycle. The other inputs change only while it is empty.

    Parameters
    ----------
    config : CspConfig
        Gives the width of a partial sum.
    """

    def __init__(self, config: CspConfig):
        super().__init__(ColumnSignature(config))

    def elaborate(self, platform):
        m = Module()

        def register(shape, name):
            return Signal(shape, name=name, reset_less=True)

        # Run shift; the parameters a second time, since block RAM is slow to answer.
        shifted = register(signed(SUM_BITS), "shifted")
        again = Signal(ports.filter_layout(), reset_less=True)
        m.d.sync += [shifted.eq(self.acc << self.acc_shift), again.eq(self.filter)]

        # Bias. These registers are the inputs of the multipliers.
        mult = register(unsigned(MULT_BITS), "mult")
        shift_v = register(unsigned(SHIFT_BITS), "shift_v")
        m.d.sync += [
            self.value.eq(shifted + again.bias),
            mult.eq(again.mult),
            shift_v.eq(again.shift),
        ]

        # v · mult = high · 2^17 + low
        low = register(unsigned(LOW_BITS + MULT_BITS), "low")
        high = register(signed(VALUE_BITS - LOW_BITS + MULT_BITS), "high")
        shift_p = register(unsigned(SHIFT_BITS), "shift_p")
        m.d.sync += [
            low.eq(self.value[:LOW_BITS] * mult),
            high.eq(self.value[LOW_BITS:].as_signed() * mult),
            shift_p.eq(shift_v),
        ]

        product = register(signed(PRODUCT_BITS), "product")
        shift_s = register(unsigned(SHIFT_BITS), "shift_s")
        m.d.sync += [
            product.eq(Cat(low[:LOW_BITS], (high + low[LOW_BITS:])[: len(high)])),
            shift_s.eq(shift_p),
        ]

        # Shift by multiples of eight, clip, shift by the rest. Clipping before the last shift keeps
        # that narrow, and changes no result that would not saturate anyway. Of the first shift
        # only the low bits are kept, and whether the others are copies of the sign.
        doubled = product << 1
        coarse = register(signed(CLIP_BITS), "coarse")
        fits = register(1, "fits")
        sign_c = register(1, "sign_c")
        shift_c = register(unsigned(FINE_BITS), "shift_c")
        clipped = register(signed(CLIP_BITS), "clipped")
        shift_f = register(unsigned(FINE_BITS), "shift_f")
        fine = register(signed(CLIP_BITS), "fine")
        amount = Cat(Const(0, FINE_BITS), shift_s[FINE_BITS:])
        m.d.sync += [
            coarse.eq(doubled >> amount),
            sign_c.eq(product[-1]),
            shift_c.eq(shift_s),
            clipped.eq(Mux(fits, coarse, _limit(sign_c, CLIP_BITS))),
            shift_f.eq(shift_c),
            fine.eq(clipped >> shift_f),
        ]
        with m.Switch(shift_s[FINE_BITS:]):
            for n in range(2 ** (SHIFT_BITS - FINE_BITS)):
                top = doubled[CLIP_BITS - 1 + (n << FINE_BITS) :]
                with m.Case(n):
                    m.d.sync += fits.eq(top.all() | ~top.any())

        # The residual, whose shift is the same for a whole layer.
        byte = delayed(m, self.residual, RESIDUAL_DELAY, "residual_delayed")
        operand = register(signed(ACTIVATION_BITS), "operand")
        scaled = register(signed(ADDED_BITS), "scaled")
        scaled_coarse = register(signed(ADDED_BITS + 1), "scaled_coarse")
        scaled_fine = register(signed(ADDED_BITS + 1), "scaled_fine")
        added = register(signed(ADDED_BITS), "added")
        amount = Cat(Const(0, FINE_BITS), self.add.shift[FINE_BITS:])
        with m.If(self.add.enabled):
            m.d.sync += operand.eq(Cat(byte, byte[-1] & self.add.signed).as_signed())
        with m.Else():
            m.d.sync += operand.eq(0)
        m.d.sync += [
            scaled.eq(operand * self.add.mult),
            scaled_coarse.eq((scaled << 1) >> amount),
            scaled_fine.eq(scaled_coarse >> self.add.shift[:FINE_BITS]),
            added.eq((scaled_fine >> 1) + scaled_fine[0]),
        ]

        # Rounding carry, sum, ReLU and saturation. Without a residual the clip in between changes
        # nothing.
        rounded = register(signed(CLIP_BITS), "rounded")
        total = register(signed(ADDED_BITS + 1), "total")
        m.d.sync += [
            rounded.eq((fine >> 1) + fine[0]),
            total.eq(_clip(rounded, RESIDUAL_BITS) + added),
        ]
        sign, top = total[-1], total[7:-1]
        with m.If(sign & (self.relu | self.unsigned)):
            m.d.sync += self.result.eq(0)
        with m.Elif(sign):
            m.d.sync += self.result.eq(Mux(top.all(), total[:8], 0x80))
        with m.Elif(self.unsigned):
            m.d.sync += self.result.eq(Mux(top[1:].any(), 0xFF, total[:8]))
        with m.Else():
            m.d.sync += self.result.eq(Mux(top.any(), 0x7F, total[:8]))
        return m


class OutputStage(wiring.Component):
    """Turns drained words into result words, in order.

    For each column c of a word of chunk k, with the parameters of filter k · cols + c:
    ``v = acc · 2^acc_shift + bias`` (exact for acc_bits + acc_shift <= 32), then either

    - int8, uint8: ``z = rhu(v · mult, shift)``, with a residual sat16(z) + rhu(r · rmult, rshift),
      ReLU if asked, saturated; one result word, or
    - int32: v itself, saturated, without ReLU and residual; four result words, of which word w
      holds filters w · cols / 4 … of the chunk as little-endian int32.

    Dead words are swallowed, cost one cycle and take no residual. A word is accepted once its
    results have room in the result buffer (``CREDITS`` words). A live word that was accepted
    waits in the first stage until its residual has come; behind it the pipeline never stalls.

    Throughput: one word a cycle, for int32 one live word every four cycles; both also hold
    back to back while ``o.ready`` is high and residuals come. Latency from the cycle in which ``i``
    transfers to the first one with ``o.valid``: ``LATENCY`` cycles, for int32 ``INT32_LATENCY`` + w
    for word w; as many from the cycle in which ``residual`` transfers, if that is later. A transfer
    on ``o`` gives its room back in the next cycle.

    Parameters
    ----------
    config : CspConfig
        Size of the array; ``depth`` chunks of parameters are held.
    hierarchical : bool
        Instantiate columns as the Verilog module ``csp_output_column``; see
        :class:`csp_hw.array.Array`.

    Ports
    -----
    layer
        The layer's command, stable from the cycle after ``clear`` while the stage is in use.
    clear
        A layer starts: forget the parameters. Only while ``busy`` is low.
    params
        One beat a filter, filter order k · cols + c, chunks · cols beats; ready until all came.
    loaded
        All parameters of the layer are in. Until then no word is accepted on ``i``.
    residual
        If the layer adds a residual, one word for each live word, in the order of ``o``; otherwise
        none is taken. One word may be taken before its live word has come.
    i, o
        Drained words and result words. ``i.payload`` addresses a memory: drive it from registers.
    busy
        A live word was accepted and not all of its results have left.
    given
        A residual was taken whose live word has not come.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self._config = config
        self._hierarchical = hierarchical
        super().__init__(
            {
                "layer": In(ports.layer_layout(config)),
                "clear": In(1),
                "params": In(stream.Signature(ports.filter_layout())),
                "loaded": Out(1),
                "residual": In(stream.Signature(ports.results_layout(config))),
                "i": In(stream.Signature(ports.sums_layout(config))),
                "o": Out(stream.Signature(ports.results_layout(config))),
                "busy": Out(1),
                "given": Out(1),
            }
        )

    def elaborate(self, platform):
        config = self._config
        m = Module()

        # No address is ever read and written in one cycle: parameters are written before
        # `loaded` and read after it.
        filters = memory.Memory(
            shape=data.ArrayLayout(ports.filter_layout(), config.cols),
            depth=config.depth,
            init=[],
            attrs={"no_rw_check": 1},
        )
        m.submodules.filters = filters
        m.submodules.buffer = buffer = ResultBuffer(ports.results_layout(config), CREDITS)

        # Parameters: the column is one bit of `column`, which also enables the write.
        load = filters.write_port(granularity=1)
        column = Signal(config.cols, init=1)
        chunk = Signal(range(config.depth))
        last = Signal()
        loading = Signal()
        loaded = Signal()
        do_load = self.params.valid & self.params.ready
        m.d.comb += [
            self.params.ready.eq(loading),
            last.eq(column[-1] & (chunk + 1 == self.layer.chunks)),
            load.addr.eq(chunk),
            load.en.eq(Mux(do_load, column, 0)),
            self.loaded.eq(loaded),
        ]
        m.d.comb += [load.data[c].eq(self.params.payload) for c in range(config.cols)]
        with m.If(do_load):
            m.d.sync += column.eq(column.rotate_left(1))
            m.d.sync += chunk.eq(chunk + column[-1])
            m.d.sync += loading.eq(~last)
            m.d.sync += loaded.eq(last)
        with m.If(self.clear):
            m.d.sync += [column.eq(1), chunk.eq(0), loading.eq(1), loaded.eq(0)]

        # Words: `free` counts the places of the buffer that no accepted word needs.
        int32 = Signal()
        ready = Signal()
        pause = Signal(range(INT32_WORDS))
        pause_next = Signal.like(pause)
        free = Signal(range(CREDITS + 1), init=CREDITS)
        free_next = Signal.like(free)
        start = Signal()
        do_result = self.o.valid & self.o.ready
        m.d.comb += [
            int32.eq(self.layer.out == ports.OutputType.INT32),
            self.i.ready.eq(ready),
            start.eq(self.i.valid & ready & self.i.payload.live),
            free_next.eq(free - Mux(start, Mux(int32, INT32_WORDS, 1), 0) + do_result),
            self.busy.eq(free != CREDITS),
        ]
        with m.If(start & int32):
            m.d.comb += pause_next.eq(INT32_WORDS - 1)
        with m.Elif(pause != 0):
            m.d.comb += pause_next.eq(pause - 1)

        # A live word waits in the first stage for its residual, and is launched with it.
        add = self.layer.residual
        waiting, waiting_next = Signal(), Signal()
        given, given_next = self.given, Signal()
        added = Signal(self.residual.payload.shape(), reset_less=True)
        launch = Signal()
        do_residual = self.residual.valid & self.residual.ready
        m.d.comb += [
            launch.eq(waiting & (given | ~add.enabled)),
            waiting_next.eq(start | (waiting & ~launch)),
            self.residual.ready.eq(add.enabled & (~given | launch)),
            given_next.eq(do_residual | (given & ~(launch & add.enabled))),
        ]
        with m.If(do_residual):
            m.d.sync += added.eq(self.residual.payload)

        m.d.sync += [
            pause.eq(pause_next),
            free.eq(free_next),
            waiting.eq(waiting_next),
            given.eq(given_next),
            # A register, because it holds back the drain of the whole array.
            ready.eq(
                loaded
                & ~self.clear
                & (pause_next == 0)
                & Mux(int32, free_next >= INT32_WORDS, free_next != 0)
                & ~(waiting_next & add.enabled & ~given_next)
            ),
        ]

        # Only a live word loads the first stage, so that for int32 the values stay in place
        # for the four cycles that they need, and nothing toggles for dead words.
        # The memory is read without a clock and then registered: Yosys makes block RAM of both
        # together, and believes `no_rw_check` only in this form; else it adds a LUT a bit for a
        # collision that never comes.
        read = filters.read_port(domain="comb")
        parameters = Signal(filters.shape, reset_less=True)
        acc = Signal(data.ArrayLayout(signed(config.acc_bits), config.cols), reset_less=True)
        m.d.comb += read.addr.eq(self.i.payload.chunk)
        with m.If(start):
            m.d.sync += [acc.eq(self.i.payload.acc), parameters.eq(read.data)]
        values, bytes_out = [], []
        for c in range(config.cols):
            wires = {
                "acc": acc[c],
                "filter": parameters[c],
                "residual": added[c],
                "acc_shift": self.layer.acc_shift,
                "add": add,
                "relu": self.layer.relu,
                "unsigned": self.layer.out == ports.OutputType.UINT8,
                "value": Signal(signed(VALUE_BITS), name=f"value_{c}"),
                "result": Signal(8, name=f"result_{c}"),
            }
            column = None if self._hierarchical else OutputColumn(config)
            m.submodules[f"column_{c}"] = place(
                m, ColumnSignature(config), wires, COLUMN_MODULE, column
            )
            values.append(_clip(wires["value"], 32))
            bytes_out.append(wires["result"])

        # Bit n of `passed`: a word was launched n + 1 cycles ago. Its value is there after 2
        # cycles and its result after 10; the words of int32 are taken from cycles 2 … 5. Then
        # they are done, and the next layer may begin before they have gone all the way.
        passed = Signal(COLUMN_LATENCY)
        taken = 1 + INT32_WORDS
        m.d.sync += [
            passed[:taken].eq(Cat(launch, passed)),
            passed[taken:].eq(Mux(int32, 0, passed[taken - 1 :])),
        ]
        word = Signal(8 * config.cols, reset_less=True)
        word_valid = Signal()
        values = Cat(values)
        for w in range(INT32_WORDS):
            with m.If(passed[1 + w]):
                m.d.sync += word.eq(values.word_select(w, 8 * config.cols))
        m.d.sync += word_valid.eq(passed[1:taken].any() & int32)
        m.d.comb += [
            buffer.write.eq(Mux(int32, word_valid, passed[-1])),
            buffer.data.eq(Mux(int32, word, Cat(bytes_out))),
        ]
        wiring.connect(m, buffer.o, wiring.flipped(self.o))
        return m
