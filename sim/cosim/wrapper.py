# SPDX-License-Identifier: Apache-2.0
"""The Verilog around the engine, through which Python exchanges beats with it.

A simulator spends most of its time on calls from and to Python if there is one in every cycle.
Here there is one in every WINDOW cycles. In front of each input stream stand two buffers of WINDOW
beats that Python writes; a source takes one beat a cycle from them, whenever the engine is
ready and no stall is asked for. Results go to a buffer of WINDOW words, which Python reads before
it can overflow. So every stream can move a beat in every cycle, and what happens in a cycle does
not depend on when Python looks.

A source keeps ``valid`` and its payload until the beat is taken, as the streams of Amaranth demand,
and all outputs of the wrapper are registers: there is no path through it from ``ready`` to
``valid``. The other streams begin in the cycle after the layer's command was taken, so that the
engine counts all their words; with ``ahead`` they begin at once.

Variables besides ``clk`` and ``rst`` (W = WINDOW; all numbers of beats count modulo 2^16)
    {stream}_bank0, {stream}_bank1 : written
        Beats q·W … q·W + W − 1 of a stream, q even in the first and q odd in the second; a beat is
        padded to whole bytes.
    {stream}_end : written, 16
        Beats that are in the buffers, or have been.
    ahead : written, 1
    stalls : written, 8 · W
        Bit s·W + n holds stream s back in cycle n of the window, in the order of ``STREAMS``.
    status : read
        See :func:`sim.cosim.protocol.status_fields`; one word, so that one call reads it.
    results : read
        The last W result words; word n is at n mod W.
    counters : read
        Those of the engine.
"""

import math
from collections.abc import Iterator

from csp_hw.config import CspConfig
from csp_hw.counters import counters_layout
from csp_hw.generate import Top, stream_layouts
from sim.cosim.protocol import (
    CYCLE_BITS,
    POSITION_BITS,
    SINK,
    SOURCES,
    STREAMS,
    WINDOW,
    status_fields,
)

#: Name of the wrapper's module.
BENCH = "csp_bench"


def beat_bytes(config: CspConfig) -> dict[str, int]:
    """Give the bytes of a beat of each stream, padding included."""
    return {name: math.ceil(layout.size / 8) for name, layout in stream_layouts(config).items()}


def bench_verilog(config: CspConfig) -> str:
    """Give the text of the module ``csp_bench``."""
    return "\n".join(_lines(config)) + "\n"


def waveform(bench: str) -> Iterator[str]:
    """Give the lines by which Icarus writes a module's waveform; Verilator needs none."""
    yield "`ifdef __ICARUS__"
    yield "  reg [32767:0] path;"
    yield "  initial"
    yield '    if ($value$plusargs("wave=%s", path)) begin'
    yield "      $dumpfile(path);"
    yield f"      $dumpvars(0, {bench});"
    yield "    end"
    yield "`endif"


def _lines(config: CspConfig) -> Iterator[str]:
    layouts = stream_layouts(config)
    sizes = {name: 8 * size for name, size in beat_bytes(config).items()}
    phase = WINDOW.bit_length() - 1
    public = "/* verilator public_flat_rw */"
    seen = "/* verilator public_flat_rd */"
    status_bits = sum(width for _, width in status_fields().values())

    yield "// Generated: the engine between buffers that Python fills and empties."
    yield "`timescale 1ns / 1ps"
    yield f"module {BENCH};"
    # Public variables rather than ports, which Verilator would copy at every call.
    yield f"  reg clk {public} = 0;"
    yield f"  reg rst {public} = 1;"
    for name in SOURCES:
        for bank in range(2):
            yield f"  reg [{WINDOW * sizes[name] - 1}:0] {name}_bank{bank} {public} = 0;"
        yield f"  reg [{POSITION_BITS - 1}:0] {name}_end {public} = 0;"
    yield f"  reg ahead {public} = 0;"
    yield f"  reg [{len(STREAMS) * WINDOW - 1}:0] stalls {public} = 0;"
    yield f"  wire [{status_bits - 1}:0] status {seen};"
    yield f"  reg [{WINDOW * sizes[SINK] - 1}:0] results {seen};"
    yield f"  wire [{counters_layout().size - 1}:0] counters {seen};"
    yield ""
    for name in ("cycle", "started", "finished", "quiet"):
        yield f"  reg [{CYCLE_BITS - 1}:0] {name} = 0;"
    yield f"  wire [{len(STREAMS) - 1}:0] valid, ready;"
    yield "  wire now_idle;"
    yield "  reg was_idle, idle;  // two cycles late, when the counters are complete"
    # The reset is part of the logic of every register of Amaranth's: straight from a variable that
    # is written outside, that logic would be evaluated for every call and not for every clock edge.
    # It starts low: in Icarus no `always @*` runs before something in it has changed.
    yield "  reg reset = 0;"
    yield "  always @(posedge clk) reset <= rst;"
    yield "  reg broken = 0;"
    yield f"  wire [{phase - 1}:0] phase = cycle[{phase - 1}:0];"
    for index, name in enumerate(STREAMS):
        stalls = f"stalls[{(index + 1) * WINDOW - 1}:{index * WINDOW}]"
        yield f"  wire [{WINDOW - 1}:0] {name}_stalls = {stalls};"

    hold = "~ahead & ((layer_valid & ~layer_ready) | (layer_position != layer_end))"
    for name in SOURCES:
        size = sizes[name]
        position = f"{name}_position"
        select = f"[{position}[{phase - 1}:0] * {size} +: {size}]"
        yield ""
        yield f"  reg [{POSITION_BITS - 1}:0] {position} = 0;"
        yield f"  reg {name}_valid = 0;"
        yield f"  reg [{size - 1}:0] {name}_beat = 0;"
        yield f"  wire {name}_ready;"
        go = f"{position} != {name}_end & ~{name}_stalls[phase]"
        if name != "layer":
            go += f" & ~({hold})"
        yield f"  wire {name}_go = {go};"
        yield "  always @(posedge clk)"
        yield "    if (reset) begin"
        yield f"      {position} <= 0;"
        yield f"      {name}_valid <= 0;"
        yield f"    end else if (~{name}_valid | {name}_ready) begin"
        yield f"      {name}_valid <= {name}_go;"
        yield f"      if ({name}_go) begin"
        yield f"        {position} <= {position} + 1'b1;"
        yield f"        {name}_beat <= {position}[{phase}]"
        yield f"            ? {name}_bank1{select}"
        yield f"            : {name}_bank0{select};"
        yield "      end"
        yield "    end"

    width, padded = layouts[SINK].size, sizes[SINK]
    yield ""
    yield f"  reg [{POSITION_BITS - 1}:0] results_position = 0;"
    yield "  reg results_ready = 0;"
    yield "  wire results_valid;"
    yield f"  wire [{width - 1}:0] results_beat;"
    yield "  reg results_kept = 0;"
    yield f"  reg [{width - 1}:0] results_before;"
    yield "  always @(posedge clk) begin"
    yield "    results_ready <= ~reset & ~results_stalls[phase];"
    yield "    results_before <= results_beat;"
    yield "    results_kept <= ~reset & results_valid & ~results_ready;"
    yield "    if (reset) results_position <= 0;"
    yield "    else if (results_valid & results_ready) begin"
    yield (
        f"      results[results_position[{phase - 1}:0] * {padded} +: {padded}] <= results_beat;"
    )
    yield "      results_position <= results_position + 1'b1;"
    yield "    end"
    yield "  end"

    yield ""
    yield f"  assign valid = {{{', '.join(f'{name}_valid' for name in reversed(STREAMS))}}};"
    yield f"  assign ready = {{{', '.join(f'{name}_ready' for name in reversed(STREAMS))}}};"
    yield "  always @(posedge clk) {idle, was_idle} <= {was_idle & now_idle, now_idle};"
    yield "  always @(posedge clk)"
    yield "    if (reset) begin"
    yield "      cycle <= 0;"
    yield "      quiet <= 0;"
    yield "      broken <= 0;"
    yield "    end else begin"
    yield "      cycle <= cycle + 1;"
    yield "      quiet <= |(valid & ready) ? 0 : quiet + 1;"
    yield "      if (layer_valid & layer_ready) started <= cycle;"
    yield "      if (results_valid & results_ready) finished <= cycle;"
    yield "      if (results_kept & (~results_valid | results_before != results_beat))"
    yield "        broken <= 1;"
    yield "    end"

    fields = [f"{name}_position" if name in STREAMS else name for name in status_fields()]
    yield f"  assign status = {{{', '.join(reversed(fields))}}};"

    yield ""
    yield f"  {Top.ENGINE} engine ("
    yield "      .clk(clk), .rst(reset), .idle(now_idle), .kept(), .counters(counters),"
    yield "      .positions__payload(), .positions__valid(), .positions__ready(1'b1),"
    for name, layout in layouts.items():
        beat = f"{name}_beat[{layout.size - 1}:0]"
        last = "" if name == STREAMS[-1] else ","
        yield f"      .{name}__payload({beat}),"
        yield f"      .{name}__valid({name}_valid), .{name}__ready({name}_ready){last}"
    yield "  );"

    yield ""
    yield from waveform(BENCH)
    yield "endmodule"
