// SPDX-License-Identifier: Apache-2.0
//
// What main.c needs besides the driver's csp_read32 and csp_write32. harness.cpp provides it around
// the simulated core; for a board, write these functions anew.

#ifndef PLATFORM_H
#define PLATFORM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Address of the core's registers, for csp_probe.
#define PLATFORM_REGISTERS ((uintptr_t)0x40000000)
// Address of the window as the core's memory ports see it, for csp_open.
#define PLATFORM_WINDOW UINT64_C(0x180000000)

// Give the window as the processor sees it; NULL if there are not so many bytes. What is in it is
// not defined.
void *platform_window(uint64_t bytes);

// Sleep until the core's interrupt, or until some time has passed; a csp_pause.
int platform_sleep(void *context);

#ifdef __cplusplus
}
#endif

#endif // PLATFORM_H
