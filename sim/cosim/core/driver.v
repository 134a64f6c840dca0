// SPDX-License-Identifier: Apache-2.0
// Carries out one command after the other: write a register, read one, wait. An AXI4-Lite manager
// that keeps a watch over its subordinate. Plain Verilog-2005.
//
// A command begins when `order` differs from `answer`, which follows it when the command is done.
module csp_driver (
    input wire clk,
    input wire rst,
    input wire [31:0] cycle,

    input wire order,
    input wire [1:0] command,
    input wire [11:0] address,
    input wire [31:0] data,
    input wire [3:0] strobe,
    input wire [31:0] deadline,      // WAIT ends in this cycle at the latest, …
    input wire for_irq,           // … or with irq, …
    input wire halt,              // … or with this
    input wire irq,
    input wire [7:0] stall,       // 256ths of the cycles in which a channel stands still
    input wire [63:0] seed,       // not 0

    output reg answer,
    output reg [31:0] result,
    output reg [2:0] response,    // of AXI, or LOST
    output reg [31:0] started,    // the cycle in which the latest write was taken, …
    output reg [31:0] finished,   // … and the first one with irq after it
    output reg [3:0] faults,      // a bit for each rule below that was broken

    output reg [11:0] awaddr,
    output reg awvalid,
    input wire awready,
    output reg [31:0] wdata,
    output reg [3:0] wstrb,
    output reg wvalid,
    input wire wready,
    input wire [1:0] bresp,
    input wire bvalid,
    output reg bready,
    output reg [11:0] araddr,
    output reg arvalid,
    input wire arready,
    input wire [31:0] rdata,
    input wire [1:0] rresp,
    input wire rvalid,
    output reg rready
);
  // Commands.
  localparam WAIT = 0, WRITE = 1, READ = 2;
  // Rules; sim/cosim/core/protocol.py names them in this order.
  localparam HELD = 0;     // an answer was withdrawn or changed
  localparam UNASKED = 1;  // an answer without a question
  localparam UNKNOWN = 2;  // x or z
  localparam RESET = 3;    // an answer during reset

  localparam [2:0] LOST = 4;
  localparam PATIENCE = 1000;

  reg busy, aw_left, w_left, ar_left, answered, waits, was_reset, rang;
  reg [33:0] kept;
  reg [9:0] age;
  reg [63:0] random;
  reg [63:0] noise;

  initial answer = 0;

  always @(posedge clk) begin
    if (rst) begin
      answer <= order;
      awvalid <= 0;
      wvalid <= 0;
      bready <= 0;
      arvalid <= 0;
      rready <= 0;
      busy = 0;
      waits = 0;
      aw_left = 0;
      w_left = 0;
      ar_left = 0;
      result <= 0;
      response <= 0;
      started <= 0;
      finished <= 0;
      rang = 0;
      faults = 0;
      random = seed;
      if (was_reset === 1 && (bvalid !== 0 || rvalid !== 0)) faults[RESET] = 1;
    end else begin
      noise = random ^ (random << 13);
      noise = noise ^ (noise >> 7);
      noise = noise ^ (noise << 17);
      random = noise;

      // The subordinate's side.
      if (bvalid === 1'bx || rvalid === 1'bx || awready === 1'bx || wready === 1'bx
          || arready === 1'bx || irq === 1'bx)
        faults[UNKNOWN] = 1;
      if (waits && (command == READ ? rvalid !== 1 || {rresp, rdata} !== kept
                                    : bvalid !== 1 || bresp !== kept[1:0]))
        faults[HELD] = 1;
      waits = command == READ ? rvalid && !rready : bvalid && !bready;
      kept = command == READ ? {rresp, rdata} : bresp;
      if (bvalid && (!busy || command != WRITE || aw_left || w_left)) faults[UNASKED] = 1;
      if (rvalid && (!busy || command != READ || ar_left)) faults[UNASKED] = 1;

      if (irq && !rang) begin
        rang = 1;
        finished <= cycle;
      end

      if (!busy) begin
        busy = order != answer;
        age = 0;
        aw_left = busy && command == WRITE;
        w_left = aw_left;
        ar_left = busy && command == READ;
        response <= 0;
        awaddr <= address;
        wdata <= data;
        wstrb <= strobe;
        araddr <= address;
      end else begin
        age = age + 1;
        answered = 0;
        if (command == WAIT) answered = (for_irq && irq) || halt || cycle >= deadline;
        if (awvalid && awready) aw_left = 0;
        if (wvalid && wready) w_left = 0;
        if (arvalid && arready) ar_left = 0;
        if ((awvalid || wvalid) && !aw_left && !w_left) begin
          started <= cycle;
          rang = 0;
        end
        if (bvalid && bready) begin
          answered = 1;
          response <= bresp;
          if (^bresp === 1'bx) faults[UNKNOWN] = 1;
        end
        if (rvalid && rready) begin
          answered = 1;
          result <= rdata;
          response <= rresp;
          if (^{rresp, rdata} === 1'bx) faults[UNKNOWN] = 1;
        end
        if (command != WAIT && age == PATIENCE) begin
          answered = 1;
          response <= LOST;
        end
        if (answered) begin
          answer <= order;
          busy = 0;
        end
      end
      awvalid <= busy && aw_left && (awvalid || noise[7:0] >= stall);
      wvalid <= busy && w_left && (wvalid || noise[15:8] >= stall);
      arvalid <= busy && ar_left && (arvalid || noise[23:16] >= stall);
      bready <= busy && command == WRITE && noise[31:24] >= stall;
      rready <= busy && command == READ && noise[39:32] >= stall;
    end
    was_reset = rst;
  end
endmodule
