// SPDX-License-Identifier: Apache-2.0
//
// Driver of the core: registers only. C99; neither an operating system nor a heap.
//
//   struct csp core;
//   csp_probe(&core, registers);            is it there, and what was built?
//   csp_open(&core, base, size);            the window of memory that it may touch
//   csp_start(&core, first, count);         descriptors in the window
//   csp_wait(&core, limit, pause, context); done, or why not
//
// The processor's caches are the caller's: what was written to the window must be in memory before
// csp_start, and what a cache holds of the results must be dropped after csp_wait. All functions
// work on one core from one thread at a time, but for csp_interrupt, which a handler may call.

#ifndef CSP_H
#define CSP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// --- Access to the registers -------------------------------------------------------------------

#ifdef CSP_POINTERS
// The registers are in the processor's address space. A barrier lets what was written to the
// window come before the start, and what is read of it after the end, for the compiler and, on
// processors that reorder, for the memory.
#ifndef CSP_BARRIER
#ifdef __GNUC__
#define CSP_BARRIER() __sync_synchronize()
#else
#error "define CSP_BARRIER(): a full barrier of memory"
#endif
#endif

static inline uint32_t csp_read32(uintptr_t address) {
    uint32_t value = *(const volatile uint32_t *)address;
    CSP_BARRIER();
    return value;
}

static inline void csp_write32(uintptr_t address, uint32_t value) {
    CSP_BARRIER();
    *(volatile uint32_t *)address = value;
}
#else
// The caller's: read and write the register at an address, that of csp_probe plus an offset.
uint32_t csp_read32(uintptr_t address);
void csp_write32(uintptr_t address, uint32_t value);
#endif

// --- Types -------------------------------------------------------------------------------------

enum csp_result {
    CSP_OK = 0,
    CSP_ERROR,     // the core reports an error: see csp_error
    CSP_TIMEOUT,   // the limit is reached; the core is still at work
    CSP_BUSY,      // the core is at work
    CSP_IDLE,      // nothing was started
    CSP_ARGUMENT,  // an argument is out of range
    CSP_NOT_FOUND, // there is no core
    CSP_VERSION,   // the core is of a version that this driver does not know
};

// What was built; csp_hw/config.py says what the numbers mean.
struct csp_parameters {
    uint32_t rows, cols, depth, max_period, max_interleave;
    uint32_t acc_bits, style, lookahead, row_blocks;
    uint32_t line_bytes, weight_bytes, count_bytes, pool_words;
};

// The latest error; of use after CSP_ERROR.
struct csp_failure {
    uint32_t code;   // CSP__ERROR_CODE__… of csp_regs.h
    uint32_t layer;  // the descriptor, from 0
    uint32_t detail; // for a descriptor that is refused: the check that failed
};

// A core; only the driver writes to it.
struct csp {
    uintptr_t registers;
    uint32_t version; // VERSION
    struct csp_parameters parameters;
    uint64_t size; // bytes of the window; 0 before csp_open
    struct csp_failure failure;
};

// All numbers but core_cycles, useful_macs and gated_macs (48 bits) wrap at 2^32.
struct csp_counter_values {
    // Since the start.
    uint64_t core_cycles;
    uint32_t layers; // descriptors that are done
    uint32_t activation_beats, weight_port_beats, residual_beats, result_beats;
    // Of the latest descriptor: cycles, and what they were spent on.
    uint32_t cycles, issued;
    uint32_t stalled_tiles, stalled_counts, stalled_activations, stalled_weights;
    uint32_t stalled_bank, stalled_drain;
    uint32_t counts_words, weights_words, activations_words, results_words, saturations;
    uint64_t useful_macs, gated_macs;
};

// Called again and again while the core works. It may return at once, or sleep until the interrupt
// or until some time has passed; another value than 0 gives up.
typedef int csp_pause(void *context);

// --- Functions ---------------------------------------------------------------------------------

// Look for a core at an address, and learn what was built.
// CSP_NOT_FOUND, CSP_VERSION
enum csp_result csp_probe(struct csp *core, uintptr_t registers);

// Tell the core the window: its address, a multiple of 4 KiB, and its size, at most 2^32 bytes.
// Offsets in descriptors count from the address. CSP_ARGUMENT; CSP_BUSY: see csp_abort.
enum csp_result csp_open(struct csp *core, uint64_t base, uint64_t size);

// Let done and error raise the interrupt, or not, as after csp_open. It is a level, which stays
// until csp_wait, csp_abort or csp_start: a handler turns it off here, or at its controller.
void csp_interrupt(const struct csp *core, int enable);

// Cycles without any progress after which the core gives up with an error; 0: never.
void csp_patience(const struct csp *core, uint32_t cycles);

// Run `count` descriptors from the offset `first` on, a multiple of 256.
// CSP_ARGUMENT: they are not in the window. CSP_BUSY
enum csp_result csp_start(struct csp *core, uint32_t first, uint32_t count);

// Wait until all descriptors are done: look, then call `pause`, which may be NULL, and look again;
// `limit` looks at most, or any number if it is 0. CSP_ERROR, CSP_TIMEOUT, CSP_IDLE
enum csp_result csp_wait(struct csp *core, uint32_t limit, csp_pause *pause, void *context);

// The descriptor that is at work, from 0.
uint32_t csp_progress(const struct csp *core);

// Give up what is at work, and look up to `limit` times whether that is done (0: any number).
// The window keeps what was written. CSP_TIMEOUT
enum csp_result csp_abort(struct csp *core, uint32_t limit);

// Say in one line what the latest error was: write it into `text`, cut to `size` with the final 0,
// and give its whole length.
size_t csp_error(const struct csp *core, char *text, size_t size);

// Say what a result means; the text is constant.
const char *csp_result_text(enum csp_result result);

// Read the counters, also while the core works.
void csp_counters(const struct csp *core, struct csp_counter_values *counters);

#ifdef __cplusplus
}
#endif

#endif // CSP_H
