// SPDX-License-Identifier: Apache-2.0

#include "csp_program.h"

#include <string.h>

const char *csp_program_misfit(const struct csp_program *program,
                               const struct csp_parameters *found) {
    const struct csp_parameters *core = &program->core;

    // The order of the sums and what the core saturates.
    if (found->rows != core->rows)
        return "rows";
    if (found->cols != core->cols)
        return "cols";
    if (found->acc_bits != core->acc_bits)
        return "acc_bits";
    if (found->lookahead != core->lookahead)
        return "lookahead";
    // Sizes.
    if (found->depth < core->depth)
        return "depth";
    if (found->max_period < core->max_period)
        return "max_period";
    if (found->max_interleave < core->max_interleave)
        return "max_interleave";
    if (found->row_blocks < core->row_blocks)
        return "row_blocks";
    if (found->line_bytes < core->line_bytes)
        return "line_bytes";
    if (found->weight_bytes < core->weight_bytes)
        return "weight_bytes";
    if (found->count_bytes < core->count_bytes)
        return "count_bytes";
    if (found->pool_words < core->pool_words)
        return "pool_words";
    return NULL;
}

size_t csp_map_bytes(const struct csp_map *map) {
    return (size_t)map->height * map->width * map->channels * map->bytes;
}

// Give how far from the window's begin a pixel lies.
static size_t pixel_at(const struct csp_map *map, uint32_t image, uint32_t y, uint32_t x) {
    return map->offset + (size_t)image * map->image + (size_t)y * map->line +
           (size_t)x * map->pixel;
}

static size_t place_of(const struct csp_map *map, uint32_t channel) {
    return (size_t)(map->places ? map->places[channel] : channel) * map->bytes;
}

void csp_map_write(const struct csp_map *map, void *window, uint32_t image, const void *elements) {
    const uint8_t *from = elements;

    for (uint32_t y = 0; y < map->height; y++)
        for (uint32_t x = 0; x < map->width; x++) {
            uint8_t *pixel = (uint8_t *)window + pixel_at(map, image, y, x);

            for (uint32_t c = 0; c < map->channels; c++, from += map->bytes)
                memcpy(pixel + place_of(map, c), from, map->bytes);
        }
}

static int32_t value_of(const struct csp_map *map, const uint8_t *element) {
    uint32_t bits = element[0];

    if (map->bytes == 1)
        return map->is_signed && bits > 127 ? (int32_t)bits - 256 : (int32_t)bits;
    bits |= (uint32_t)element[1] << 8 | (uint32_t)element[2] << 16 | (uint32_t)element[3] << 24;
    return bits > INT32_MAX ? (int32_t)(bits - INT32_MAX - 1) + INT32_MIN : (int32_t)bits;
}

void csp_map_read(const struct csp_map *map, const void *window, uint32_t image, int32_t *values) {
    for (uint32_t y = 0; y < map->height; y++)
        for (uint32_t x = 0; x < map->width; x++) {
            const uint8_t *pixel = (const uint8_t *)window + pixel_at(map, image, y, x);

            for (uint32_t c = 0; c < map->channels; c++)
                *values++ = value_of(map, pixel + place_of(map, c));
        }
}
