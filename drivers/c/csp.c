// SPDX-License-Identifier: Apache-2.0

#include "csp.h"

// csp_regs.h wants it of <assert.h>, where C99 has none.
#if defined(__STDC_VERSION__) && __STDC_VERSION__ < 201112L
#include <assert.h>
#ifndef static_assert
#define static_assert(condition, text) typedef char csp_static_assert[(condition) ? 1 : -1]
#endif
#endif
#include "csp_regs.h"

#define READ(core, name) csp_read32((core)->registers + CSP__##name##__offset)
#define WRITE(core, name, value) csp_write32((core)->registers + CSP__##name##__offset, (value))
#define FIELD(word, name) (((word) & CSP__##name##_bm) >> CSP__##name##_bp)

#define DESCRIPTOR_BYTES 256u
#define WINDOW_ALIGNMENT 4096u
#define WINDOW_LIMIT (UINT64_C(1) << 32)
#define ENDED (CSP__STATUS__DONE_bm | CSP__STATUS__ERROR_bm)

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *name, *text;
} errors[] = {
    [CSP__ERROR_CODE__NONE] = {"NONE", "no error"},
    [CSP__ERROR_CODE__DESCRIPTOR] = {"DESCRIPTOR", "it cannot be computed"},
    [CSP__ERROR_CODE__RANGE] = {"RANGE", "an address is outside of the window or the output"},
    [CSP__ERROR_CODE__BUS] = {"BUS", "the memory answered with an error"},
    [CSP__ERROR_CODE__STREAM_SHORT] = {"STREAM_SHORT", "a stream ended too early"},
    [CSP__ERROR_CODE__STREAM_LONG] = {"STREAM_LONG", "a stream went on after its end"},
    [CSP__ERROR_CODE__TIMEOUT] = {"TIMEOUT", "it made no progress"},
    [CSP__ERROR_CODE__ABORTED] = {"ABORTED", "software gave it up"},
    [CSP__ERROR_CODE__TILES] = {"TILES", "a tile does not fit, or comes out of order"},
    [CSP__ERROR_CODE__COUNTS] = {"COUNTS", "a tap has more chunks than the layer"},
};

// The checks of a descriptor, as in csp_hw/check.py.
static const char *const checks[] = {
    "reserved", "kind", "out", "pool", "int32", "period", "chunks", "last_filters", "acc_shift",
    "taps", "tiles", "kernel", "stride", "dilation", "extent", "grid", "line_buffer",
    "weight_buffer", "count_buffer", "loops", "alignment", "output_range",
};

static const char *const results[] = {
    [CSP_OK] = "it worked",
    [CSP_ERROR] = "the core reports an error",
    [CSP_TIMEOUT] = "the core is not done in time",
    [CSP_BUSY] = "the core is at work",
    [CSP_IDLE] = "nothing was started",
    [CSP_ARGUMENT] = "an argument is out of range",
    [CSP_NOT_FOUND] = "there is no core",
    [CSP_VERSION] = "the core is of a version that the driver does not know",
};

// --- Text --------------------------------------------------------------------------------------

struct text {
    char *to;
    size_t size, length;
};

static void put_char(struct text *text, char letter) {
    if (text->length + 1 < text->size)
        text->to[text->length] = letter;
    text->length++;
}

static void put(struct text *text, const char *words) {
    while (*words)
        put_char(text, *words++);
}

static void put_number(struct text *text, uint32_t number) {
    if (number > 9)
        put_number(text, number / 10);
    put_char(text, (char)('0' + number % 10));
}

size_t csp_error(const struct csp *core, char *to, size_t size) {
    const struct csp_failure *failure = &core->failure;
    struct text text = {to, size, 0};

    if (failure->code == CSP__ERROR_CODE__NONE) {
        put(&text, errors[CSP__ERROR_CODE__NONE].text);
    } else {
        put(&text, "descriptor ");
        put_number(&text, failure->layer);
        put(&text, ": ");
        if (failure->code < LENGTH(errors)) {
            put(&text, errors[failure->code].name);
            put(&text, ", ");
            put(&text, errors[failure->code].text);
        } else {
            put(&text, "error ");
            put_number(&text, failure->code);
        }
    }
    if (failure->code == CSP__ERROR_CODE__DESCRIPTOR) {
        put(&text, ": check ");
        put_number(&text, failure->detail);
        if (failure->detail < LENGTH(checks)) {
            put(&text, ", ");
            put(&text, checks[failure->detail]);
        }
    }
    if (size)
        to[text.length < size ? text.length : size - 1] = 0;
    return text.length;
}

const char *csp_result_text(enum csp_result result) {
    return (size_t)result < LENGTH(results) ? results[result] : "unknown";
}

// --- Core --------------------------------------------------------------------------------------

static int known(uint32_t version) {
    const uint32_t major = CSP__VERSION__MAJOR_reset, minor = CSP__VERSION__MINOR_reset;
    const uint32_t found = FIELD(version, VERSION__MINOR);

    if (FIELD(version, VERSION__MAJOR) != major)
        return 0;
    return major == 0 ? found == minor : found >= minor;
}

enum csp_result csp_probe(struct csp *core, uintptr_t registers) {
    struct csp_parameters *parameters = &core->parameters;
    uint32_t word;

    core->registers = registers;
    core->size = 0;
    core->failure.code = CSP__ERROR_CODE__NONE;
    core->failure.layer = 0;
    core->failure.detail = 0;
    if (READ(core, ID) != CSP__ID__MAGIC_reset)
        return CSP_NOT_FOUND;
    core->version = READ(core, VERSION);
    if (!known(core->version))
        return CSP_VERSION;
    word = READ(core, CONFIG0);
    parameters->rows = FIELD(word, CONFIG0__ROWS);
    parameters->cols = FIELD(word, CONFIG0__COLS);
    parameters->max_period = FIELD(word, CONFIG0__MAX_PERIOD);
    parameters->max_interleave = FIELD(word, CONFIG0__MAX_INTERLEAVE);
    word = READ(core, CONFIG1);
    parameters->depth = FIELD(word, CONFIG1__DEPTH);
    parameters->lookahead = FIELD(word, CONFIG1__LOOKAHEAD);
    parameters->row_blocks = FIELD(word, CONFIG1__ROW_BLOCKS);
    parameters->pool_words = UINT32_C(1) << FIELD(word, CONFIG1__POOL_WORDS_LOG2);
    word = READ(core, CONFIG2);
    parameters->acc_bits = FIELD(word, CONFIG2__ACC_BITS);
    parameters->style = FIELD(word, CONFIG2__STYLE);
    parameters->line_bytes = UINT32_C(1) << FIELD(word, CONFIG2__LINE_BYTES_LOG2);
    parameters->weight_bytes = UINT32_C(1) << FIELD(word, CONFIG2__WEIGHT_BYTES_LOG2);
    parameters->count_bytes = UINT32_C(1) << FIELD(word, CONFIG2__COUNT_BYTES_LOG2);
    return CSP_OK;
}

enum csp_result csp_open(struct csp *core, uint64_t base, uint64_t size) {
    if (base % WINDOW_ALIGNMENT || size == 0 || size > WINDOW_LIMIT || base > UINT64_MAX - size)
        return CSP_ARGUMENT;
    if (READ(core, STATUS) & CSP__STATUS__BUSY_bm)
        return CSP_BUSY;
    WRITE(core, CONTROL, 0);
    WRITE(core, STATUS, ENDED);
    WRITE(core, BASE_LOW, (uint32_t)base);
    WRITE(core, BASE_HIGH, (uint32_t)(base >> 32));
    WRITE(core, SIZE_LOW, (uint32_t)size);
    WRITE(core, SIZE_HIGH, (uint32_t)(size >> 32));
    core->size = size;
    return CSP_OK;
}

void csp_interrupt(const struct csp *core, int enable) {
    WRITE(core, CONTROL, enable ? CSP__CONTROL__IRQ_ENABLE_bm : 0);
}

void csp_patience(const struct csp *core, uint32_t cycles) { WRITE(core, TIMEOUT, cycles); }

enum csp_result csp_start(struct csp *core, uint32_t first, uint32_t count) {
    if (first % DESCRIPTOR_BYTES || count > CSP__COUNT__DESCRIPTORS_bm ||
        first + (uint64_t)count * DESCRIPTOR_BYTES > core->size)
        return CSP_ARGUMENT;
    if (READ(core, STATUS) & CSP__STATUS__BUSY_bm)
        return CSP_BUSY;
    core->failure.code = CSP__ERROR_CODE__NONE;
    WRITE(core, DESCRIPTORS, first);
    WRITE(core, COUNT, count);
    WRITE(core, STATUS, ENDED);
    WRITE(core, CONTROL, READ(core, CONTROL) | CSP__CONTROL__START_bm);
    return CSP_OK;
}

// Keep what the core tells of its end, then let it be forgotten, and with it the interrupt.
static enum csp_result end(struct csp *core, uint32_t status) {
    const int failed = (status & CSP__STATUS__ERROR_bm) != 0;

    if (failed) {
        core->failure.code = FIELD(status, STATUS__CODE);
        core->failure.layer = FIELD(READ(core, ERROR_LAYER), ERROR_LAYER__INDEX);
        core->failure.detail = FIELD(READ(core, ERROR_DETAIL), ERROR_DETAIL__DETAIL);
    }
    WRITE(core, STATUS, ENDED);
    return failed ? CSP_ERROR : CSP_OK;
}

enum csp_result csp_wait(struct csp *core, uint32_t limit, csp_pause *pause, void *context) {
    uint32_t looks = 0;

    for (;;) {
        const uint32_t status = READ(core, STATUS);

        if (status & ENDED)
            return end(core, status);
        if (!(status & CSP__STATUS__BUSY_bm))
            return CSP_IDLE;
        if (limit && ++looks >= limit)
            return CSP_TIMEOUT;
        if (pause && pause(context))
            return CSP_TIMEOUT;
    }
}

uint32_t csp_progress(const struct csp *core) { return FIELD(READ(core, LAYER), LAYER__INDEX); }

enum csp_result csp_abort(struct csp *core, uint32_t limit) {
    uint32_t status = READ(core, STATUS), looks = 0;

    if (status & CSP__STATUS__BUSY_bm)
        WRITE(core, CONTROL, READ(core, CONTROL) | CSP__CONTROL__ABORT_bm);
    // It first brings to an end what it began on the bus.
    while (status & CSP__STATUS__BUSY_bm) {
        if (limit && looks++ >= limit)
            return CSP_TIMEOUT;
        status = READ(core, STATUS);
    }
    end(core, status);
    return CSP_OK;
}

// --- Counters ----------------------------------------------------------------------------------

// Read two registers as one number, which does not carry between the two reads.
static uint64_t wide(const struct csp *core, uint32_t low, uint32_t high) {
    uint32_t before, part, after = csp_read32(core->registers + high);

    do {
        before = after;
        part = csp_read32(core->registers + low);
        after = csp_read32(core->registers + high);
    } while (before != after);
    return (uint64_t)after << 32 | part;
}

#define WIDE(core, name) wide((core), CSP__##name##_LOW__offset, CSP__##name##_HIGH__offset)

void csp_counters(const struct csp *core, struct csp_counter_values *counters) {
    counters->core_cycles = WIDE(core, CORE_CYCLES);
    counters->layers = READ(core, LAYER_COUNT);
    counters->activation_beats = READ(core, ACTIVATION_BEATS);
    counters->weight_port_beats = READ(core, WEIGHT_PORT_BEATS);
    counters->residual_beats = READ(core, RESIDUAL_BEATS);
    counters->result_beats = READ(core, RESULT_BEATS);
    counters->cycles = READ(core, CYCLES);
    counters->issued = READ(core, ISSUED);
    counters->stalled_tiles = READ(core, STALLED_TILES);
    counters->stalled_counts = READ(core, STALLED_COUNTS);
    counters->stalled_activations = READ(core, STALLED_ACTIVATIONS);
    counters->stalled_weights = READ(core, STALLED_WEIGHTS);
    counters->stalled_bank = READ(core, STALLED_BANK);
    counters->stalled_drain = READ(core, STALLED_DRAIN);
    counters->counts_words = READ(core, COUNTS_WORDS);
    counters->weights_words = READ(core, WEIGHTS_WORDS);
    counters->activations_words = READ(core, ACTIVATIONS_WORDS);
    counters->results_words = READ(core, RESULTS_WORDS);
    counters->saturations = READ(core, SATURATIONS);
    counters->useful_macs = WIDE(core, USEFUL_MACS);
    counters->gated_macs = WIDE(core, GATED_MACS);
}
