// SPDX-License-Identifier: Apache-2.0
//
// Firmware that polls and gives up, then runs the whole network after all, and once more with the
// interrupt. Prints what the example's main.c does; fails where the driver or the core does not do
// what it should.

#include <inttypes.h>
#include <stdio.h>

#include "csp.h"
#include "csp_program.h"
#include "platform.h"
#include "program.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

static uint8_t image[CSP_PROGRAM_IMAGE_BYTES];
static int32_t logits[CSP_PROGRAM_OUTPUT_VALUES];
static unsigned pauses;

// Give up at the third call.
static int impatient(void *context) {
    (void)context;
    return ++pauses == 3;
}

// Sleep once, and expect the interrupt then.
static int once(void *context) {
    pauses++;
    return platform_sleep(context) || pauses > 1000;
}

int main(int argc, char **argv) {
    const uint32_t first = csp_program.descriptors, count = csp_program.descriptor_count;
    struct csp core;
    struct csp_counter_values early, counters;
    uint8_t *window = platform_window(csp_program.window);
    FILE *file;
    char text[100];

    CHECK(argc == 3 && window);
    CHECK((file = fopen(argv[1], "rb")));
    CHECK(fread(window + csp_program.constants, csp_program.constants_bytes, 1, file) == 1);
    fclose(file);
    CHECK((file = fopen(argv[2], "rb")));
    for (uint32_t n = 0; n < csp_program.input.images; n++) {
        CHECK(fread(image, sizeof image, 1, file) == 1);
        csp_map_write(&csp_program.input, window, n, image);
    }
    fclose(file);

    CHECK(csp_probe(&core, PLATFORM_REGISTERS + 4) == CSP_NOT_FOUND);
    CHECK(csp_probe(&core, PLATFORM_REGISTERS) == CSP_OK);
    CHECK(csp_open(&core, PLATFORM_WINDOW, csp_program.window) == CSP_OK);
    CHECK(csp_wait(&core, 0, NULL, NULL) == CSP_IDLE);
    CHECK(csp_abort(&core, 0) == CSP_OK);

    // Nothing to do is done at once.
    CHECK(csp_start(&core, first, 0) == CSP_OK);
    CHECK(csp_wait(&core, 10, NULL, NULL) == CSP_OK);

    CHECK(csp_start(&core, first, count) == CSP_OK);
    CHECK(csp_start(&core, first, count) == CSP_BUSY);
    CHECK(csp_open(&core, PLATFORM_WINDOW, csp_program.window) == CSP_BUSY);
    CHECK(csp_wait(&core, 5, NULL, NULL) == CSP_TIMEOUT);
    csp_counters(&core, &early);
    CHECK(csp_wait(&core, 0, impatient, NULL) == CSP_TIMEOUT && pauses == 3);
    csp_counters(&core, &counters);
    CHECK(counters.core_cycles > early.core_cycles && counters.layers == 0);
    CHECK(csp_progress(&core) == 0);
    CHECK(csp_abort(&core, 1000) == CSP_OK);
    csp_error(&core, text, sizeof text);
    puts(text);
    CHECK(csp_wait(&core, 0, NULL, NULL) == CSP_IDLE);

    // A core that cannot get ahead gives up by itself.
    csp_patience(&core, 1);
    CHECK(csp_start(&core, first, count) == CSP_OK);
    CHECK(csp_wait(&core, 0, NULL, NULL) == CSP_ERROR);
    csp_error(&core, text, sizeof text);
    puts(text);
    csp_patience(&core, 1u << 16);

    CHECK(csp_start(&core, first, count) == CSP_OK);
    CHECK(csp_wait(&core, 0, NULL, NULL) == CSP_OK);
    csp_counters(&core, &early);
    CHECK(early.layers == count);

    for (uint32_t n = 0; n < csp_program.output.images; n++)
        csp_map_write(&(struct csp_map){.bytes = 1, .channels = 1, .height = 1, .width = 1,
                                        .offset = csp_program.output.offset,
                                        .image = csp_program.output.image},
                      window, n, "");
    csp_interrupt(&core, 1);
    CHECK(csp_start(&core, first, count) == CSP_OK);
    pauses = 0;
    CHECK(csp_wait(&core, 0, once, NULL) == CSP_OK);
    csp_counters(&core, &counters);
    CHECK(counters.core_cycles == early.core_cycles);
    CHECK(counters.useful_macs == early.useful_macs);

    for (uint32_t n = 0; n < csp_program.output.images; n++) {
        uint32_t best = 0;

        csp_map_read(&csp_program.output, window, n, logits);
        for (uint32_t c = 1; c < CSP_PROGRAM_OUTPUT_VALUES; c++)
            best = logits[c] > logits[best] ? c : best;
        printf("image %" PRIu32 ": class %" PRIu32 ", logits", n, best);
        for (uint32_t c = 0; c < CSP_PROGRAM_OUTPUT_VALUES; c++)
            printf(" %" PRId32, logits[c]);
        printf("\n");
    }
    printf("%" PRIu64 " cycles, %" PRIu32 " descriptors\n", counters.core_cycles, counters.layers);
    return 0;
}
