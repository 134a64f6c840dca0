// SPDX-License-Identifier: Apache-2.0
//
// A network that `csp compile` made ready for a core: program.bin goes into the window, program.h
// describes it in the words of this file. C99; no library but memcpy's.

#ifndef CSP_PROGRAM_H
#define CSP_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "csp.h"

#ifdef __cplusplus
extern "C" {
#endif

// Where maps [images][height][width][channels] lie in the window. The element of image n, line y,
// column x and channel c is at
//   offset + n·image + y·line + x·pixel + places[c]·bytes
struct csp_map {
    uint32_t images, height, width, channels;
    uint32_t bytes;        // of an element: 1, or 4 little endian
    uint32_t is_signed;    // whether it is int8 or int32, or uint8
    uint32_t offset;       // in the window
    uint32_t image;        // bytes from one image to the next, …
    uint32_t line;         // … from one line to the next, …
    uint32_t pixel;        // … and from one column to the next
    const uint32_t *places; // NULL: channel c is element c
};

struct csp_program {
    const char *name;
    uint64_t window;           // bytes, at least, of the window
    uint32_t constants;        // offset in the window of the contents of program.bin, …
    uint32_t constants_bytes;  // … and their number
    uint32_t descriptors;      // for csp_start: offset of the first descriptor, …
    uint32_t descriptor_count; // … and their number
    struct csp_map input, output;
    struct csp_parameters core; // the program is for cores that were built like this
};

// Give NULL if the program can run on a core, or the name of a parameter of which it needs another
// value. Buffers may be larger.
const char *csp_program_misfit(const struct csp_program *program,
                               const struct csp_parameters *parameters);

// Give the bytes of an image's elements, [height][width][channels].
size_t csp_map_bytes(const struct csp_map *map);

// Write an image into the window: its elements, [height][width][channels], little endian.
void csp_map_write(const struct csp_map *map, void *window, uint32_t image, const void *elements);

// Read the elements of an image from the window, [height][width][channels].
void csp_map_read(const struct csp_map *map, const void *window, uint32_t image, int32_t *values);

#ifdef __cplusplus
}
#endif

#endif // CSP_PROGRAM_H
