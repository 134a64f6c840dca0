// SPDX-License-Identifier: Apache-2.0
// A memory with AXI4 ports: exact timing, random stalls, errors on demand, and a watch over the
// managers. Plain Verilog-2005, the same in every simulator, cycle by cycle.
//
// Cycle t ends at a rising edge; what moves "in cycle t" moves at that edge. For each port:
//
//   ar   arready is high unless `outstanding` bursts are open, from AR to their last R. A slot is
//        free in the cycle after that R.
//   r    Bursts are answered in order. Beat n of all beats, of a burst taken in cycle a, is on
//        offer from cycle  p(n) = max(a + read_latency, h(n-1) + 1, c)  with h(n-1) when the beat
//        before it was taken and c the first cycle with credit >= BYTES. Credit grows by read_rate
//        a cycle up to BYTES + read_rate - 1, where it starts, and a beat costs BYTES when it comes
//        on offer. So a stream that is taken at once flows with beat n at floor(n * BYTES /
//        read_rate) cycles after its first one.
//   aw   Like ar; a burst is open until its B.
//   w    wready is high if credit >= BYTES (it grows by write_rate; a beat costs BYTES when taken)
//        and one of AHEAD places is free for data whose address has not come.
//   b    On offer from cycle  max(w + write_latency, b + 1)  with w the cycle of the last beat or
//        of the address, what is later, and b when the B before it was taken.
//
// What a beat writes can be read from the cycle after it and its address have come, but whoever
// reads it before its B is told of. An access that is not wholly inside of base … base + size - 1
// gets DECERR on each of its beats and does nothing. Beats that do not get OKAY read as 0xdb….
module csp_memory #(
    parameter PORTS = 1,
    parameter BYTES = 8,          // of a beat; a power of two
    parameter WORDS = 1024,       // beats of the memory
    parameter COUNTED = 0         // the port of which it is counted how often each beat was read
) (
    input wire clk,
    input wire rst,

    // Settings; change them only while rst is high. Offsets are bytes from `base`.
    input wire [63:0] base,
    input wire [63:0] size,
    input wire [63:0] guard_low,  // bytes outside of guard_low … guard_high - 1 are written: GUARD
    input wire [63:0] guard_high,
    input wire [63:0] inject_low, // inject_low … inject_high - 1 answers with `inject`
    input wire [63:0] inject_high,
    input wire [1:0] inject,      // 2: SLVERR, 3: DECERR, 1: no answer at all
    input wire inject_reads,      // beats that touch it
    input wire inject_writes,     // bursts that touch it
    input wire [63:0] seed,       // not 0
    input wire [PORTS*16-1:0] read_latency,  // 1 …
    input wire [PORTS*16-1:0] write_latency, // 1 …
    input wire [PORTS*8-1:0] read_rate,      // bytes a cycle, 1 … BYTES
    input wire [PORTS*8-1:0] write_rate,     // 1 … BYTES
    input wire [PORTS*5-1:0] outstanding,    // bursts, 1 … 16, of reads and of writes
    input wire [PORTS-1:0] data_first,       // awready waits for data …
    input wire [PORTS-1:0] address_first,    // … or wready for the address
    input wire [PORTS*8-1:0] ar_stall,       // 256ths of the cycles in which a channel stands still
    input wire [PORTS*8-1:0] r_stall,
    input wire [PORTS*8-1:0] aw_stall,
    input wire [PORTS*8-1:0] w_stall,
    input wire [PORTS*8-1:0] b_stall,

    input wire [PORTS*64-1:0] araddr,
    input wire [PORTS*8-1:0] arlen,
    input wire [PORTS*3-1:0] arsize,
    input wire [PORTS*2-1:0] arburst,
    input wire [PORTS*16-1:0] arother,       // anything else that must not change
    input wire [PORTS-1:0] arvalid,
    output reg [PORTS-1:0] arready,
    output reg [PORTS*BYTES*8-1:0] rdata,
    output reg [PORTS*2-1:0] rresp,
    output reg [PORTS-1:0] rlast,
    output reg [PORTS-1:0] rvalid,
    input wire [PORTS-1:0] rready,
    input wire [PORTS*64-1:0] awaddr,
    input wire [PORTS*8-1:0] awlen,
    input wire [PORTS*3-1:0] awsize,
    input wire [PORTS*2-1:0] awburst,
    input wire [PORTS*16-1:0] awother,
    input wire [PORTS-1:0] awvalid,
    output reg [PORTS-1:0] awready,
    input wire [PORTS*BYTES*8-1:0] wdata,
    input wire [PORTS*BYTES-1:0] wstrb,
    input wire [PORTS-1:0] wlast,
    input wire [PORTS-1:0] wvalid,
    output reg [PORTS-1:0] wready,
    output reg [PORTS*2-1:0] bresp,
    output reg [PORTS-1:0] bvalid,
    input wire [PORTS-1:0] bready,

    // Since reset.
    output reg [31:0] cycle,
    output reg [31:0] quiet,                 // cycles since anything moved
    output reg [PORTS*32-1:0] read_bursts,
    output reg [PORTS*32-1:0] read_beats,
    output reg [PORTS*32-1:0] write_bursts,
    output reg [PORTS*32-1:0] write_beats,
    output reg [PORTS*32-1:0] errors,        // beats read and bursts written without OKAY
    output reg [PORTS*32-1:0] error_cycle,   // in which the first of them came on offer
    output reg [PORTS*16-1:0] faults,        // a bit for each rule below that was broken
    output reg [PORTS*32-1:0] fault_cycle,   // the first of them
    output reg [PORTS*64-1:0] fault_address,

    // Files, in no time: at a rising edge of `load`, load.bin goes to beats first … first + count
    // - 1, each with its last byte first; at one of `dump`, they go to dump.bin, each as 32-bit
    // numbers of this machine with the low ones first; at one of `tell`, how often each was read,
    // a byte for each. `load` also forgets how often.
    input wire load,
    input wire dump,
    input wire tell,
    input wire [31:0] first,
    input wire [31:0] count,
    output reg failed = 0
);
  // Rules; sim/cosim/core/protocol.py names them in this order.
  localparam HELD = 0;      // valid was withdrawn, or what was on offer changed
  localparam BURST = 1;     // not INCR
  localparam SIZE = 2;      // not a whole beat
  localparam ALIGNED = 3;   // to beats
  localparam PAGE = 4;      // crosses 4 KiB
  localparam OUTSIDE = 5;   // of the memory
  localparam UNKNOWN = 6;   // x or z
  localparam LAST = 7;      // wlast not at the last beat, or elsewhere
  localparam GUARD = 8;     // written outside of the guarded region
  localparam RACE = 9;      // read before the write was answered, or written before it was read
  localparam RESET = 10;    // valid during reset

  localparam SLOTS = 16;
  localparam AHEAD = 512;
  localparam BEAT = $clog2(BYTES);
  localparam OKAY = 2'd0, SILENCE = 2'd1, DECERR = 2'd3;

  reg [BYTES*8-1:0] mem [0:WORDS-1];
  reg [7:0] reads [0:WORDS-1];

  reg was_reset = 0;
  initial failed = 0;
  reg [63:0] random [0:PORTS-1];

  // Reads: slots are a ring. `open` until the last beat was taken, `left` until it is on offer.
  reg [31:0] r_word [0:PORTS*SLOTS-1];
  reg [31:0] r_due [0:PORTS*SLOTS-1];
  reg [7:0] r_length [0:PORTS*SLOTS-1];
  reg [1:0] r_response [0:PORTS*SLOTS-1];
  reg [3:0] r_head [0:PORTS-1];
  reg [4:0] r_open [0:PORTS-1];
  reg [4:0] r_left [0:PORTS-1];
  reg [7:0] r_beat [0:PORTS-1];
  reg [9:0] r_credit [0:PORTS-1];
  reg [PORTS-1:0] ar_waits;
  reg [92:0] ar_before [0:PORTS-1];

  // Writes: `left` until all data came, `done` from then until B is on offer, `open` until it was
  // taken.
  reg [31:0] w_word [0:PORTS*SLOTS-1];
  reg [31:0] w_due [0:PORTS*SLOTS-1];
  reg [7:0] w_length [0:PORTS*SLOTS-1];
  reg [1:0] w_response [0:PORTS*SLOTS-1];
  reg [3:0] w_head [0:PORTS-1];
  reg [3:0] b_head [0:PORTS-1];
  reg [4:0] w_open [0:PORTS-1];
  reg [4:0] w_left [0:PORTS-1];
  reg [4:0] w_done [0:PORTS-1];
  reg [7:0] w_beat [0:PORTS-1];
  reg [9:0] w_credit [0:PORTS-1];
  reg [PORTS-1:0] aw_waits;
  reg [92:0] aw_before [0:PORTS-1];
  reg [PORTS-1:0] w_waits;
  reg [BYTES*9:0] w_before [0:PORTS-1];
  // Data whose address has not come, a ring.
  reg [BYTES*9:0] ahead [0:PORTS*AHEAD-1];
  reg [8:0] ahead_head [0:PORTS-1];
  reg [9:0] ahead_count [0:PORTS-1];

  integer p, q, n;
  reg [31:0] slot, word, at;
  reg [63:0] offset, bytes, noise;
  reg [92:0] address;
  reg [BYTES*9:0] beat;
  reg [BYTES*8-1:0] old;
  reg [BYTES-1:0] strobe;
  reg [9:0] credit;
  reg [1:0] response;
  reg legal, last, moved;

  task fault(input integer port, input integer rule, input [63:0] where);
    begin
      if (faults[port*16 +: 16] == 0) begin
        fault_cycle[port*32 +: 32] = cycle;
        fault_address[port*64 +: 64] = where;
      end
      faults[port*16 + rule] = 1;
    end
  endtask

  task error(input integer port);
    begin
      if (errors[port*32 +: 32] == 0) error_cycle[port*32 +: 32] = cycle + 1;
      errors[port*32 +: 32] = errors[port*32 +: 32] + 1;
    end
  endtask

  // Look at an address that was taken; gives offset, bytes, word and legal.
  task examine(input integer port, input [92:0] taken);
    begin
      bytes = (taken[71:64] + 1) * BYTES;
      offset = taken[63:0] - base;
      word = offset >> BEAT;
      legal = 1;
      if (^taken === 1'bx) begin
        fault(port, UNKNOWN, taken[63:0]);
        legal = 0;
      end else begin
        if (taken[74:72] != BEAT) fault(port, SIZE, taken[63:0]);
        if (taken[76:75] != 1) fault(port, BURST, taken[63:0]);
        if (taken[63:0] & (BYTES - 1)) fault(port, ALIGNED, taken[63:0]);
        if (taken[11:0] + bytes > 4096) fault(port, PAGE, taken[63:0]);
        legal = offset < size && offset + bytes <= size;
        if (!legal) fault(port, OUTSIDE, taken[63:0]);
      end
    end
  endtask

  // Write the data of `beat` to `word`.
  task store(input integer port);
    begin
      strobe = beat[BYTES*8 +: BYTES];
      offset = word * BYTES;
      if (^strobe === 1'bx) fault(port, UNKNOWN, base + offset);
      if (strobe != 0) begin
        if (offset < guard_low || offset + BYTES > guard_high)
          for (n = 0; n < BYTES; n = n + 1)
            if (strobe[n] && (offset + n < guard_low || offset + n >= guard_high))
              fault(port, GUARD, base + offset + n);
        if (&strobe) old = beat[BYTES*8-1:0];
        else begin
          old = mem[word];
          for (n = 0; n < BYTES; n = n + 1)
            if (strobe[n]) old[n*8 +: 8] = beat[n*8 +: 8];
        end
        if (^old === 1'bx) fault(port, UNKNOWN, base + offset);
        mem[word] = old;
        // Who has asked for it and did not get it yet?
        for (q = 0; q < PORTS; q = q + 1)
          for (n = 0; n < r_left[q]; n = n + 1) begin
            at = q * SLOTS + ((r_head[q] + n) & (SLOTS - 1));
            if (r_response[at] == OKAY && word >= r_word[at] + (n == 0 ? r_beat[q] : 0)
                && word <= r_word[at] + r_length[at])
              fault(port, RACE, base + offset);
          end
      end
    end
  endtask

  always @(posedge clk) begin
    moved = |{arvalid & arready, rvalid & rready, awvalid & awready, wvalid & wready,
              bvalid & bready};
    if (rst) begin
      arready <= 0;
      rvalid <= 0;
      awready <= 0;
      wready <= 0;
      bvalid <= 0;
      cycle <= 0;
      quiet <= 0;
      ar_waits = 0;
      aw_waits = 0;
      w_waits = 0;
      for (p = 0; p < PORTS; p = p + 1) begin
        random[p] = seed ^ (64'h9e3779b97f4a7c15 * p);
        r_head[p] = 0;
        r_open[p] = 0;
        r_left[p] = 0;
        r_beat[p] = 0;
        r_credit[p] = BYTES + read_rate[p*8 +: 8] - 1;
        w_head[p] = 0;
        b_head[p] = 0;
        w_open[p] = 0;
        w_left[p] = 0;
        w_done[p] = 0;
        w_beat[p] = 0;
        w_credit[p] = BYTES + write_rate[p*8 +: 8] - 1;
        ahead_head[p] = 0;
        ahead_count[p] = 0;
        if (!was_reset) begin
          read_bursts[p*32 +: 32] = 0;
          read_beats[p*32 +: 32] = 0;
          write_bursts[p*32 +: 32] = 0;
          write_beats[p*32 +: 32] = 0;
          errors[p*32 +: 32] = 0;
          error_cycle[p*32 +: 32] = 0;
          faults[p*16 +: 16] = 0;
          fault_cycle[p*32 +: 32] = 0;
          fault_address[p*64 +: 64] = 0;
        end else if (arvalid[p] !== 0 || awvalid[p] !== 0 || wvalid[p] !== 0)
          fault(p, RESET, 0);
      end
    end else begin
      cycle <= cycle + 1;
      quiet <= moved ? 0 : quiet + 1;

      for (p = 0; p < PORTS; p = p + 1) begin
        noise = random[p];
        noise = noise ^ (noise << 13);
        noise = noise ^ (noise >> 7);
        noise = noise ^ (noise << 17);
        random[p] = noise;

        // A beat was taken.
        if (rvalid[p] && rready[p]) begin
          read_beats[p*32 +: 32] = read_beats[p*32 +: 32] + 1;
          if (rlast[p]) r_open[p] = r_open[p] - 1;
        end
        if (rready[p] === 1'bx && rvalid[p]) fault(p, UNKNOWN, 0);

        // An address.
        address = {arother[p*16 +: 16], arburst[p*2 +: 2], arsize[p*3 +: 3], arlen[p*8 +: 8],
                   araddr[p*64 +: 64]};
        if (arvalid[p] === 1'bx) fault(p, UNKNOWN, 0);
        if (ar_waits[p] && (arvalid[p] !== 1 || address !== ar_before[p]))
          fault(p, HELD, ar_before[p][63:0]);
        ar_waits[p] = arvalid[p] && !arready[p];
        if (ar_waits[p]) ar_before[p] = address;
        if (arvalid[p] && arready[p]) begin
          examine(p, address);
          slot = p * SLOTS + ((r_head[p] + r_left[p]) & (SLOTS - 1));
          r_word[slot] = word;
          r_length[slot] = address[71:64];
          r_due[slot] = cycle + read_latency[p*16 +: 16];
          r_response[slot] = legal ? OKAY : DECERR;
          r_open[p] = r_open[p] + 1;
          r_left[p] = r_left[p] + 1;
          read_bursts[p*32 +: 32] = read_bursts[p*32 +: 32] + 1;
          if (legal)
            for (q = 0; q < PORTS; q = q + 1)
              for (n = 0; n < w_open[q]; n = n + 1) begin
                at = q * SLOTS + ((w_head[q] + w_left[q] - 1 - n) & (SLOTS - 1));
                if (w_response[at] == OKAY && w_word[at] <= word + address[71:64]
                    && word <= w_word[at] + w_length[at])
                  fault(p, RACE, address[63:0]);
              end
        end

        // The next beat comes on offer.
        credit = r_credit[p];
        if (!rvalid[p] || rready[p]) begin
          slot = p * SLOTS + r_head[p];
          word = r_word[slot] + r_beat[p];
          offset = word * BYTES;
          response = r_response[slot];
          if (response == OKAY && inject_reads && inject != OKAY && offset < inject_high
              && offset + BYTES > inject_low)
            response = inject;
          if (r_left[p] != 0 && r_due[slot] <= cycle + 1 && credit >= BYTES
              && noise[7:0] >= r_stall[p*8 +: 8] && response != SILENCE) begin
            last = r_beat[p] == r_length[slot];
            rvalid[p] <= 1;
            rresp[p*2 +: 2] <= response;
            rlast[p] <= last;
            if (response == OKAY) begin
              rdata[p*BYTES*8 +: BYTES*8] <= mem[word];
              if (p == COUNTED && reads[word] != 8'hff) reads[word] = reads[word] + 1;
            end else begin
              rdata[p*BYTES*8 +: BYTES*8] <= {BYTES{8'hdb}};
              error(p);
            end
            r_beat[p] = last ? 0 : r_beat[p] + 1;
            if (last) begin
              r_head[p] = r_head[p] + 1;
              r_left[p] = r_left[p] - 1;
            end
            credit = credit - BYTES;
          end else rvalid[p] <= 0;
        end
        credit = credit + read_rate[p*8 +: 8];
        if (credit >= BYTES + read_rate[p*8 +: 8]) credit = BYTES + read_rate[p*8 +: 8] - 1;
        r_credit[p] = credit;
        arready[p] <= r_open[p] < outstanding[p*5 +: 5] && noise[15:8] >= ar_stall[p*8 +: 8];
      end

      for (p = 0; p < PORTS; p = p + 1) begin
        noise = random[p];

        // An answer was taken.
        if (bvalid[p] && bready[p]) w_open[p] = w_open[p] - 1;
        if (bready[p] === 1'bx && bvalid[p]) fault(p, UNKNOWN, 0);

        // An address.
        address = {awother[p*16 +: 16], awburst[p*2 +: 2], awsize[p*3 +: 3], awlen[p*8 +: 8],
                   awaddr[p*64 +: 64]};
        if (awvalid[p] === 1'bx) fault(p, UNKNOWN, 0);
        if (aw_waits[p] && (awvalid[p] !== 1 || address !== aw_before[p]))
          fault(p, HELD, aw_before[p][63:0]);
        aw_waits[p] = awvalid[p] && !awready[p];
        if (aw_waits[p]) aw_before[p] = address;
        if (awvalid[p] && awready[p]) begin
          examine(p, address);
          slot = p * SLOTS + ((w_head[p] + w_left[p]) & (SLOTS - 1));
          w_word[slot] = word;
          w_length[slot] = address[71:64];
          w_response[slot] = legal ? OKAY : DECERR;
          if (legal && inject_writes && offset < inject_high && offset + bytes > inject_low)
            w_response[slot] = inject;
          w_open[p] = w_open[p] + 1;
          w_left[p] = w_left[p] + 1;
          write_bursts[p*32 +: 32] = write_bursts[p*32 +: 32] + 1;
        end

        // Data.
        credit = w_credit[p];
        beat = {wlast[p], wstrb[p*BYTES +: BYTES], wdata[p*BYTES*8 +: BYTES*8]};
        if (wvalid[p] === 1'bx) fault(p, UNKNOWN, 0);
        if (w_waits[p] && (wvalid[p] !== 1 || beat !== w_before[p])) fault(p, HELD, 0);
        w_waits[p] = wvalid[p] && !wready[p];
        if (w_waits[p]) w_before[p] = beat;
        if (wvalid[p] && wready[p]) begin
          ahead[p*AHEAD + ((ahead_head[p] + ahead_count[p]) & (AHEAD - 1))] = beat;
          ahead_count[p] = ahead_count[p] + 1;
          write_beats[p*32 +: 32] = write_beats[p*32 +: 32] + 1;
          credit = credit - BYTES;
        end
        while (w_left[p] != 0 && ahead_count[p] != 0) begin
          beat = ahead[p*AHEAD + ahead_head[p]];
          slot = p * SLOTS + w_head[p];
          word = w_word[slot] + w_beat[p];
          last = w_beat[p] == w_length[slot];
          if (beat[BYTES*9] !== last) fault(p, LAST, base + word * BYTES);
          if (w_response[slot] == OKAY) store(p);
          ahead_head[p] = ahead_head[p] + 1;
          ahead_count[p] = ahead_count[p] - 1;
          w_beat[p] = last ? 0 : w_beat[p] + 1;
          if (last) begin
            w_due[slot] = cycle + write_latency[p*16 +: 16];
            w_head[p] = w_head[p] + 1;
            w_left[p] = w_left[p] - 1;
            w_done[p] = w_done[p] + 1;
          end
        end

        // The next answer comes on offer.
        if (!bvalid[p] || bready[p]) begin
          slot = p * SLOTS + b_head[p];
          if (w_done[p] != 0 && w_due[slot] <= cycle + 1 && noise[23:16] >= b_stall[p*8 +: 8]
              && w_response[slot] != SILENCE) begin
            bvalid[p] <= 1;
            bresp[p*2 +: 2] <= w_response[slot];
            if (w_response[slot] != OKAY) error(p);
            b_head[p] = b_head[p] + 1;
            w_done[p] = w_done[p] - 1;
          end else bvalid[p] <= 0;
        end
        credit = credit + write_rate[p*8 +: 8];
        if (credit >= BYTES + write_rate[p*8 +: 8]) credit = BYTES + write_rate[p*8 +: 8] - 1;
        w_credit[p] = credit;
        awready[p] <= w_open[p] < outstanding[p*5 +: 5] && noise[31:24] >= aw_stall[p*8 +: 8]
            && (!data_first[p] || ahead_count[p] != 0 || (w_left[p] == 0 && w_waits[p]));
        wready[p] <= credit >= BYTES && ahead_count[p] < AHEAD
            && noise[39:32] >= w_stall[p*8 +: 8] && (!address_first[p] || w_left[p] != 0);
      end
    end
    was_reset = rst;
  end

  integer file, i, got;

  always @(posedge load) begin
    for (i = 0; i < size >> BEAT; i = i + 1) reads[i] = 0;
    file = $fopen("load.bin", "rb");
    got = 0;
    if (file != 0) begin
      got = $fread(mem, file, first, count);
      $fclose(file);
    end
    failed = got != count * BYTES;
  end

  always @(posedge dump) begin
    file = $fopen("dump.bin", "wb");
    failed = file == 0;
    if (file != 0) begin
      for (i = first; i < first + count; i = i + 1) $fwrite(file, "%u", mem[i]);
      $fclose(file);
    end
  end

  always @(posedge tell) begin
    file = $fopen("dump.bin", "wb");
    failed = file == 0;
    if (file != 0) begin
      for (i = first; i < first + count; i = i + 4)
        $fwrite(file, "%u", {reads[i+3], reads[i+2], reads[i+1], reads[i]});
      $fclose(file);
    end
  end
endmodule
