// SPDX-License-Identifier: Apache-2.0
//
// The board that main.c runs on, simulated: the core that Verilator made of its Verilog, a memory
// at its three managers, a processor's bus at its registers, and its interrupt. Time passes only
// while the firmware accesses a register or sleeps.
//
// CSP_LATENCY in the environment is the memory's latency in cycles.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "csp.h"
#include "platform.h"
#include "verilated.h"

namespace {

constexpr uint64_t SIZE_LIMIT = uint64_t{1} << 32;
constexpr unsigned OUTSTANDING = 16;
constexpr unsigned LATENCY = 20;
constexpr unsigned RESET_CYCLES = 4;
// Cycles of the longest sleep, and those after which an access to a register has no answer.
constexpr unsigned SLEEP = 10000, BUS_PATIENCE = 1000;
constexpr unsigned OKAY = 0, DECERR = 3, INCR = 1, PAGE = 4096;
// What memory holds that nobody has written.
constexpr uint8_t JUNK = 0xA5;

[[noreturn]] void die(const char *what) {
    std::fflush(stdout);
    std::fprintf(stderr, "harness: %s\n", what);
    std::exit(4);
}

uint64_t cycle = 0;
unsigned latency = LATENCY;
std::vector<uint8_t> memory;

// Give a place in memory, or null if there are not so many bytes.
uint8_t *place(uint64_t address, uint64_t bytes) {
    const uint64_t offset = address - PLATFORM_WINDOW;
    if (address < PLATFORM_WINDOW || offset > memory.size() || bytes > memory.size() - offset)
        return nullptr;
    return memory.data() + offset;
}

struct Burst {
    uint64_t beats, due;
    uint8_t *at; // null: not in memory
};

// An address channel. What a port sends is looked at before the clock's edge, for it changes there;
// what it is sent changes after the edge.
struct Addresses {
    CData &valid, &ready, &length, &size, &burst;
    QData &address;
    std::deque<Burst> open{};
    bool taken = false;
    Burst next{};

    void look(unsigned beat_bytes) {
        taken = valid && ready;
        if (!taken)
            return;
        const uint64_t beats = length + uint64_t{1}, bytes = beats * beat_bytes;
        if (burst != INCR || 1u << size != beat_bytes || address % beat_bytes)
            die("a burst that is not INCR of whole beats");
        if (address % PAGE + bytes > PAGE)
            die("a burst crosses 4 KiB");
        next = {beats, cycle + latency, place(address, bytes)};
    }

    void move() {
        if (taken)
            open.push_back(next);
        ready = open.size() < OUTSTANDING;
    }
};

// The reading half of a manager's memory: a beat a cycle, in order.
template <typename Data> struct Reader {
    Addresses ar;
    CData &valid, &ready, &response, &last;
    Data &data;
    uint64_t beat = 0;
    bool taken = false;

    void look() {
        ar.look(sizeof data);
        taken = valid && ready;
    }

    void move() {
        ar.move();
        if (valid && !taken)
            return;
        valid = !ar.open.empty() && ar.open.front().due <= cycle;
        if (!valid)
            return;
        const Burst &burst = ar.open.front();
        response = burst.at ? OKAY : DECERR;
        if (burst.at)
            std::memcpy(&data, burst.at + beat * sizeof data, sizeof data);
        last = ++beat == burst.beats;
        if (last) {
            ar.open.pop_front();
            beat = 0;
        }
    }
};

// The writing half: data are taken behind their address, answers come in order.
template <typename Data, typename Strobe> struct Writer {
    Addresses aw;
    CData &valid, &ready, &last, &answered, &answer_ready, &response;
    Data &data;
    Strobe &strobe;
    uint64_t beat = 0;
    std::deque<Burst> done{};
    bool taken = false, ends = false, answer_taken = false;

    void look() {
        aw.look(sizeof data);
        answer_taken = answered && answer_ready;
        taken = valid && ready;
        if (!taken)
            return;
        const Burst &burst = aw.open.front();
        uint8_t bytes[sizeof data];
        std::memcpy(bytes, &data, sizeof data);
        for (size_t n = 0; burst.at && n < sizeof data; n++)
            if (strobe >> n & 1)
                burst.at[beat * sizeof data + n] = bytes[n];
        ends = last;
        if (ends != (++beat == burst.beats))
            die("WLAST is not at the last beat");
    }

    void move() {
        if (taken && ends) {
            done.push_back(aw.open.front());
            done.back().due = cycle + latency;
            aw.open.pop_front();
            beat = 0;
        }
        aw.move();
        ready = !aw.open.empty();
        if (answered && !answer_taken)
            return;
        answered = !done.empty() && done.front().due <= cycle;
        if (answered) {
            response = done.front().at ? OKAY : DECERR;
            done.pop_front();
        }
    }
};

// Deduces the types of a port's data, which follow from the number of columns.
template <typename Data>
Reader<Data> reader(Addresses ar, CData &valid, CData &ready, CData &response, CData &last,
                    Data &data) {
    return {ar, valid, ready, response, last, data};
}
template <typename Data, typename Strobe>
Writer<Data, Strobe> writer(Addresses aw, CData &valid, CData &ready, CData &last, CData &answered,
                            CData &answer_ready, CData &response, Data &data, Strobe &strobe) {
    return {aw, valid, ready, last, answered, answer_ready, response, data, strobe};
}

#define ADDRESSES(c, port, channel)                                                                \
    Addresses {                                                                                    \
        (c).m_axi_##port##_##channel##valid, (c).m_axi_##port##_##channel##ready,                  \
            (c).m_axi_##port##_##channel##len, (c).m_axi_##port##_##channel##size,                 \
            (c).m_axi_##port##_##channel##burst, (c).m_axi_##port##_##channel##addr                \
    }
#define READER(c, port)                                                                            \
    reader(ADDRESSES(c, port, ar), (c).m_axi_##port##_rvalid, (c).m_axi_##port##_rready,           \
           (c).m_axi_##port##_rresp, (c).m_axi_##port##_rlast, (c).m_axi_##port##_rdata)
#define WRITER(c, port)                                                                            \
    writer(ADDRESSES(c, port, aw), (c).m_axi_##port##_wvalid, (c).m_axi_##port##_wready,           \
           (c).m_axi_##port##_wlast, (c).m_axi_##port##_bvalid, (c).m_axi_##port##_bready,         \
           (c).m_axi_##port##_bresp, (c).m_axi_##port##_wdata, (c).m_axi_##port##_wstrb)

class Board {
  public:
    Board() {
        if (const char *text = std::getenv("CSP_LATENCY"))
            latency = static_cast<unsigned>(std::strtoul(text, nullptr, 0));
        core.rst = 1;
        for (unsigned n = 0; n < RESET_CYCLES; n++)
            tick();
        core.rst = 0;
        tick();
    }

    ~Board() { core.final(); }

    bool irq() const { return core.irq; }

    void step() {
        settle();
        weights.look();
        maps.look();
        residuals.look();
        results.look();
        edge();
        weights.move();
        maps.move();
        residuals.move();
        results.move();
    }

    uint32_t read(uint32_t offset) {
        core.s_axil_araddr = offset;
        core.s_axil_arvalid = 1;
        core.s_axil_rready = 1;
        for (unsigned n = 0; n < BUS_PATIENCE; n++) {
            core.eval();
            const bool asked = core.s_axil_arvalid && core.s_axil_arready;
            const bool answered = core.s_axil_rvalid;
            const uint32_t data = core.s_axil_rdata, response = core.s_axil_rresp;
            step();
            if (asked)
                core.s_axil_arvalid = 0;
            if (answered) {
                core.s_axil_rready = 0;
                if (response != OKAY)
                    die("a register cannot be read");
                return data;
            }
        }
        die("a register does not answer");
    }

    void write(uint32_t offset, uint32_t value) {
        core.s_axil_awaddr = offset;
        core.s_axil_awvalid = 1;
        core.s_axil_wdata = value;
        core.s_axil_wstrb = 0xF;
        core.s_axil_wvalid = 1;
        core.s_axil_bready = 1;
        for (unsigned n = 0; n < BUS_PATIENCE; n++) {
            core.eval();
            const bool addressed = core.s_axil_awvalid && core.s_axil_awready;
            const bool written = core.s_axil_wvalid && core.s_axil_wready;
            const bool answered = core.s_axil_bvalid;
            const uint32_t response = core.s_axil_bresp;
            step();
            if (addressed)
                core.s_axil_awvalid = 0;
            if (written)
                core.s_axil_wvalid = 0;
            if (answered) {
                core.s_axil_bready = 0;
                if (response != OKAY)
                    die("a register cannot be written");
                return;
            }
        }
        die("a register does not answer");
    }

  private:
    void settle() {
        core.clk = 0;
        core.eval();
    }

    void edge() {
        core.clk = 1;
        core.eval();
        cycle++;
    }

    void tick() {
        settle();
        edge();
    }

    Vtop core;
    decltype(READER(core, wgt)) weights = READER(core, wgt);
    decltype(READER(core, act)) maps = READER(core, act);
    decltype(READER(core, res)) residuals = READER(core, res);
    decltype(WRITER(core, res)) results = WRITER(core, res);
};

Board &board() {
    static Board the_board;
    return the_board;
}

uint32_t offset_of(uintptr_t address) {
    if (address < PLATFORM_REGISTERS || address - PLATFORM_REGISTERS >= PAGE)
        die("an address where no register is");
    return static_cast<uint32_t>(address - PLATFORM_REGISTERS);
}

} // namespace

extern "C" uint32_t csp_read32(uintptr_t address) { return board().read(offset_of(address)); }

extern "C" void csp_write32(uintptr_t address, uint32_t value) {
    board().write(offset_of(address), value);
}

extern "C" void *platform_window(uint64_t bytes) {
    if (bytes > SIZE_LIMIT)
        return nullptr;
    memory.assign(bytes, JUNK);
    return memory.data();
}

extern "C" int platform_sleep(void *) {
    for (unsigned n = 0; n < SLEEP && !board().irq(); n++)
        board().step();
    return 0;
}
