# SPDX-License-Identifier: Apache-2.0
"""The output stage: bias, requantisation, residual, ReLU and saturation of drained sums."""

from amaranth import Array, Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw import ports
from csp_hw.buffer import ResultBuffer
from csp_hw.config import (
    ACC_SHIFT_BITS,
    ACTIVATION_BITS,
    BIAS_BITS,
    MULT_BITS,
    CspConfig,
)
from csp_hw.requantise import SCALER_LATENCY, Scaler, factor, factor_layout, saturated
from csp_hw.util import delayed, place

#: Verilog module of a column, instantiated cols times.
COLUMN_MODULE = "csp_output_column"
#: Result words that may be inside the stage at once: the depth of the result buffer, which is
#: one row of LUT RAM on an ECP5 and covers the latency and the returning credit.
CREDITS = 16
#: Cycles from a column's operands to its result.
COLUMN_LATENCY = 2 + SCALER_LATENCY + 2
#: Cycles from a word's acceptance to its result's first cycle on offer.
LATENCY = 1 + COLUMN_LATENCY + 2
INT32_LATENCY = 6
#: Words that carry the int32 results of one chunk.
INT32_WORDS = 4
#: acc · 2^t, at most 32 bits since acc_bits + t <= 32.
SUM_BITS = 32
#: v = acc · 2^t + bias.
VALUE_BITS = max(SUM_BITS, BIAS_BITS) + 1
#: z is clipped to this width before a residual is added.
RESIDUAL_BITS = 16
#: r · rmult, r being int8 or uint8.
ADDED_BITS = ACTIVATION_BITS + MULT_BITS
#: Of the shift of a residual, the bits that are done before it is multiplied.
FINE_BITS = 3
#: Cycles for which a column holds a residual back until z comes.
RESIDUAL_DELAY = 4
#: Unsigned bits that a multiplier takes.
OPERAND_BITS = 18


def column_layout() -> data.StructLayout:
    """Give the parameters of a filter as they are kept for a column."""
    return data.StructLayout({"bias": signed(BIAS_BITS), "factor": factor_layout()})


class ColumnSignature(wiring.Signature):
    """Ports of a column; :class:`OutputColumn` explains them."""

    def __init__(self, config: CspConfig):
        super().__init__(
            {
                "acc": In(signed(config.acc_bits)),
                "filter": In(column_layout()),
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
    saturated to int8 or, if ``unsigned``, to uint8. For rhu see
    :class:`csp_hw.requantise.Scaler`.

    Latency: ``value`` 2 cycles and ``result`` COLUMN_LATENCY cycles after ``acc``, ``filter`` and
    ``residual``; a new operand every cycle. The other inputs change only while it is empty, two
    cycles before the first operand at the latest.

    Parameters
    ----------
    config : CspConfig
        Gives the width of a partial sum.
    """

    def __init__(self, config: CspConfig):
        super().__init__(ColumnSignature(config))

    def elaborate(self, platform):
        m = Module()
        m.submodules.scaler = scaler = Scaler(VALUE_BITS, RESIDUAL_BITS)
        sum_bits = len(self.acc)
        most = min(SUM_BITS - sum_bits, (1 << ACC_SHIFT_BITS) - 1)

        def register(shape, name):
            return Signal(shape, name=name, reset_less=True)

        # What a layer says is kept in each column, since it reaches much there.
        power = register(unsigned(most + 1), "power")
        acc_shift = register(unsigned(ACC_SHIFT_BITS), "acc_shift_here")
        relu, is_unsigned = register(1, "relu_here"), register(1, "unsigned_here")
        enabled, is_signed = register(1, "enabled_here"), register(1, "signed_here")
        rest = register(unsigned(FINE_BITS), "rest")
        coarse = register(unsigned(len(self.add.shift) - 1 - FINE_BITS), "coarse")
        m.d.sync += [
            power.eq(1 << self.acc_shift),
            acc_shift.eq(self.acc_shift),
            relu.eq(self.relu),
            is_unsigned.eq(self.unsigned),
            # From 32 on, nothing is left after the shift.
            enabled.eq(self.add.enabled & ~self.add.shift[-1]),
            is_signed.eq(self.add.signed),
            rest.eq(~self.add.shift[:FINE_BITS]),
            coarse.eq(self.add.shift[FINE_BITS:]),
        ]

        # Run shift: a multiplication, and few bits of multiplexers for what it has no room for.
        # The parameters a second time, since block RAM is slow to answer.
        again = Signal(column_layout(), reset_less=True)
        m.d.sync += again.eq(self.filter)
        if sum_bits > OPERAND_BITS:
            low = register(unsigned(OPERAND_BITS + most), "shifted_low")
            high = register(signed(sum_bits - OPERAND_BITS + most), "shifted_high")
            m.d.sync += [
                low.eq(self.acc[:OPERAND_BITS] * power),
                high.eq(self.acc[OPERAND_BITS:].as_signed() << acc_shift),
            ]
            # What both have in common is zero in one of them.
            shifted = Cat(low[:OPERAND_BITS], high | low[OPERAND_BITS:]).as_signed()
        else:
            shifted = register(signed(sum_bits + most), "shifted")
            m.d.sync += shifted.eq(self.acc * power)

        # Bias. These registers are the inputs of the multipliers.
        factor = Signal(factor_layout(), reset_less=True)
        value = register(signed(VALUE_BITS), "value_here")
        m.d.sync += [value.eq(shifted + again.bias), factor.eq(again.factor)]
        m.d.comb += [self.value.eq(value), scaler.value.eq(value), scaler.factor.eq(factor)]

        # The residual, whose shift is the same for a whole layer: with s = 8q + f, y = 2r · mult
        # >> s = (r · 2^(7-f)) · mult >> 8q + 6.
        byte = delayed(m, self.residual, RESIDUAL_DELAY, "residual_delayed", reset_less=True)
        widened = register(signed(ACTIVATION_BITS + 2**FINE_BITS - 1), "widened")
        operand = register(widened.shape(), "operand")  # where the multiplier is
        scaled = register(signed(len(operand) + MULT_BITS), "scaled")
        added = register(signed(ADDED_BITS + 1), "added")
        extended = Cat(byte, byte[-1] & is_signed).as_signed()
        m.d.sync += [
            widened.eq(Mux(enabled, extended << rest, 0)),
            operand.eq(widened),
            scaled.eq(operand * self.add.mult),
        ]
        with m.Switch(coarse):
            for n in range(2 ** len(coarse)):
                with m.Case(n):
                    m.d.sync += added.eq(scaled[8 * n + 6 :].as_signed())

        # Sum, of which one addend is y: (2z + 1 + y) >> 1 rounds it. ReLU and saturation. Without
        # a residual the clip in between changes nothing.
        total = register(signed(ADDED_BITS + 1), "total")
        result = register(8, "result_here")
        m.d.sync += [
            total.eq((Cat(1, scaler.z).as_signed() + added) >> 1),
            result.eq(saturated(total, is_unsigned=is_unsigned, relu=relu)),
        ]
        m.d.comb += self.result.eq(result)
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
            shape=data.ArrayLayout(column_layout(), config.cols),
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
        given = self.params.payload
        kept = Signal(column_layout())
        m.d.comb += kept.bias.eq(given.bias)
        m.d.comb += [kept.factor[n].eq(f) for n, f in factor(given.mult, given.shift).items()]
        m.d.comb += [load.data[c].eq(kept) for c in range(config.cols)]
        with m.If(do_load):
            m.d.sync += column.eq(column.rotate_left(1))
            m.d.sync += chunk.eq(chunk + column[-1])
            m.d.sync += loading.eq(~last)
            m.d.sync += loaded.eq(last)
        with m.If(self.clear):
            m.d.sync += [column.eq(1), chunk.eq(0), loading.eq(1), loaded.eq(0)]

        # Words: `free` counts the places of the buffer that no accepted word needs.
        int32 = Signal(reset_less=True)
        ready = Signal()
        pause = Signal(range(INT32_WORDS))
        pause_next = Signal.like(pause)
        free = Signal(range(CREDITS + 1), init=CREDITS)
        free_next = Signal.like(free)
        start = Signal()
        do_result = self.o.valid & self.o.ready
        m.d.comb += [
            self.i.ready.eq(ready),
            start.eq(self.i.valid & ready & self.i.payload.live),
            free_next.eq(free - Mux(start, Mux(int32, INT32_WORDS, 1), 0) + do_result),
            self.busy.eq(~free[-1]),  # which is all of them, a power of two
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

        # Whether the next word will have room, without an adder: this path is the longest. After a
        # word of int32 there is a pause anyway.
        need = Mux(int32, INT32_WORDS, 1)
        room = Mux(
            start,
            Mux(do_result, free >= 1, free >= 2),
            Mux(do_result, free >= need - 1, free >= need),
        )
        m.d.sync += [
            int32.eq(self.layer.out == ports.OutputType.INT32),
            pause.eq(pause_next),
            free.eq(free_next),
            waiting.eq(waiting_next),
            given.eq(given_next),
            # A register, because it holds back the drain of the whole array.
            ready.eq(
                loaded
                & ~self.clear
                & ~(start & int32)
                & (pause <= 1)
                & room
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
        values, exceeds, bytes_out = [], [], []
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
            # Of a value that exceeds int32 only the sign counts.
            values.append(Cat(wires["value"][:31], wires["value"][32]))
            exceeds.append(wires["value"][31] ^ wires["value"][32])
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
        filters_a_word = config.cols // INT32_WORDS
        number = Signal(range(INT32_WORDS), reset_less=True)
        word = Signal(data.ArrayLayout(32, filters_a_word), reset_less=True)
        # What leaves: a value of int32, one of its limits or, if neither, results.
        from_word = Signal(filters_a_word, reset_less=True)
        at_limit = Signal(filters_a_word, reset_less=True)
        word_valid = Signal()
        m.d.sync += [
            number.eq(number + 1),
            word_valid.eq(passed[1:taken].any() & int32),
        ]
        with m.If(passed[0]):
            m.d.sync += number.eq(0)
        result = Cat(bytes_out)
        for n in range(filters_a_word):
            value, exceed, sign = Signal(32, name=f"value_of_word_{n}"), Signal(), word[n][31]
            m.d.comb += [
                value.eq(Array(values[n::filters_a_word])[number]),
                exceed.eq(Array(exceeds[n::filters_a_word])[number]),
            ]
            m.d.sync += [
                word[n].eq(value),
                at_limit[n].eq(exceed & int32),
                from_word[n].eq(Mux(exceed, ~value[31], 1) & int32),
            ]
            byte = result.word_select(n, 32)
            m.d.comb += (
                buffer.data.as_value()
                .word_select(n, 32)
                .eq(
                    Cat(
                        Mux(
                            at_limit[n],
                            from_word[n].replicate(31),
                            Mux(from_word[n], word[n][:31], byte[:31]),
                        ),
                        Mux(int32, sign, byte[31]),
                    )
                )
            )
        m.d.comb += buffer.write.eq(Mux(int32, word_valid, passed[-1]))
        wiring.connect(m, buffer.o, wiring.flipped(self.o))
        return m
