// SPDX-License-Identifier: Apache-2.0
//
// Firmware that classifies images: it loads a compiled network and the images into the window,
// lets the core run all descriptors, and reads the logits.
//
//   firmware PROGRAM.BIN IMAGES.BIN
//
// IMAGES.BIN holds the elements [images][height][width][channels] as they are. Exit codes: 0, it
// worked; 1, the core reports an error or is not done in time; 2, a file is missing or too short;
// 3, there is no core that the program is for.

#include <inttypes.h>
#include <stdio.h>

#include "csp.h"
#include "csp_program.h"
#include "platform.h"
#include "program.h"

enum { DONE, FAILED, WRONG_FILE, WRONG_CORE };

// Sleeps before the firmware gives up.
#define PATIENCE 100000u

static uint8_t image[CSP_PROGRAM_IMAGE_BYTES];
static int32_t logits[CSP_PROGRAM_OUTPUT_VALUES];

static int fail(int code, const char *what, const char *why) {
    fprintf(stderr, "firmware: %s: %s\n", what, why);
    return code;
}

// Read the next bytes of a file; give whether they were there.
static int load(FILE *file, void *to, size_t bytes) { return fread(to, 1, bytes, file) == bytes; }

// Put the network's constants and the images into the window.
static int fill(uint8_t *window, const char *program, const char *images) {
    FILE *file = fopen(program, "rb");
    int loaded;

    if (!file)
        return fail(WRONG_FILE, program, "cannot be read");
    loaded = load(file, window + csp_program.constants, csp_program.constants_bytes);
    fclose(file);
    if (!loaded)
        return fail(WRONG_FILE, program, "is too short");

    file = fopen(images, "rb");
    if (!file)
        return fail(WRONG_FILE, images, "cannot be read");
    for (uint32_t n = 0; n < csp_program.input.images && loaded; n++) {
        loaded = load(file, image, sizeof image);
        if (loaded)
            csp_map_write(&csp_program.input, window, n, image);
    }
    fclose(file);
    return loaded ? DONE : fail(WRONG_FILE, images, "is too short");
}

// Run all descriptors.
static int run(struct csp *core) {
    enum csp_result result;
    char text[128];

    csp_interrupt(core, 1);
    result = csp_start(core, csp_program.descriptors, csp_program.descriptor_count);
    if (result != CSP_OK)
        return fail(FAILED, "cannot start the core", csp_result_text(result));
    result = csp_wait(core, PATIENCE, platform_sleep, NULL);
    if (result == CSP_OK)
        return DONE;
    if (result == CSP_TIMEOUT)
        csp_abort(core, PATIENCE);
    csp_error(core, text, sizeof text);
    return fail(FAILED, csp_result_text(result), text);
}

// Print the logits of an image, and the largest one's place.
static void show(const void *window, uint32_t n) {
    uint32_t best = 0;

    csp_map_read(&csp_program.output, window, n, logits);
    for (uint32_t c = 1; c < CSP_PROGRAM_OUTPUT_VALUES; c++)
        if (logits[c] > logits[best])
            best = c;
    printf("image %" PRIu32 ": class %" PRIu32 ", logits", n, best);
    for (uint32_t c = 0; c < CSP_PROGRAM_OUTPUT_VALUES; c++)
        printf(" %" PRId32, logits[c]);
    printf("\n");
}

int main(int argc, char **argv) {
    struct csp core;
    struct csp_counter_values counters;
    enum csp_result result;
    const char *misfit;
    uint8_t *window;
    int code;

    if (argc != 3)
        return fail(WRONG_FILE, "usage", "firmware PROGRAM.BIN IMAGES.BIN");

    result = csp_probe(&core, PLATFORM_REGISTERS);
    if (result != CSP_OK)
        return fail(WRONG_CORE, "no core", csp_result_text(result));
    misfit = csp_program_misfit(&csp_program, &core.parameters);
    if (misfit)
        return fail(WRONG_CORE, "the program is for a core of another value", misfit);
    window = platform_window(csp_program.window);
    if (!window)
        return fail(WRONG_CORE, csp_program.name, "not enough memory");
    printf("core of %" PRIu32 " x %" PRIu32 ", %s, window of %" PRIu64 " bytes\n",
           core.parameters.rows, core.parameters.cols, csp_program.name, csp_program.window);

    code = fill(window, argv[1], argv[2]);
    if (code != DONE)
        return code;
    result = csp_open(&core, PLATFORM_WINDOW, csp_program.window);
    if (result != CSP_OK)
        return fail(WRONG_CORE, "cannot open the core", csp_result_text(result));
    code = run(&core);
    if (code != DONE)
        return code;

    for (uint32_t n = 0; n < csp_program.output.images; n++)
        show(window, n);
    csp_counters(&core, &counters);
    printf("%" PRIu64 " cycles, %" PRIu32 " descriptors\n", counters.core_cycles, counters.layers);
    return DONE;
}
