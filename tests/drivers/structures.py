# SPDX-License-Identifier: Apache-2.0
"""The driver's structures, as drivers/c/csp.h and csp_program.h have them, and its library."""

import ctypes
import subprocess

from sim.cosim.firmware import DRIVER
from sim.cosim.toolchain import find_compiler

C99 = ("-x", "c", "-std=c99")


def words(*names):
    return [(name, ctypes.c_uint32) for name in names]


class Parameters(ctypes.Structure):
    _fields_ = words(
        *("rows", "cols", "depth", "max_period", "max_interleave", "acc_bits", "style"),
        *("lookahead", "row_blocks", "line_bytes", "weight_bytes", "count_bytes", "pool_words"),
    )


class Failure(ctypes.Structure):
    _fields_ = words("code", "layer", "detail")


class Device(ctypes.Structure):
    _fields_ = [
        ("registers", ctypes.c_size_t),
        *words("version"),
        ("parameters", Parameters),
        ("size", ctypes.c_uint64),
        ("failure", Failure),
    ]


class Counters(ctypes.Structure):
    _fields_ = [
        ("core_cycles", ctypes.c_uint64),
        *words(
            *("layers", "activation_beats", "weight_port_beats", "residual_beats", "result_beats"),
            *("cycles", "issued", "stalled_tiles", "stalled_counts", "stalled_activations"),
            *("stalled_weights", "stalled_bank", "stalled_drain", "counts_words", "weights_words"),
            *("activations_words", "results_words", "saturations"),
        ),
        ("useful_macs", ctypes.c_uint64),
        ("gated_macs", ctypes.c_uint64),
    ]


class Map(ctypes.Structure):
    _fields_ = [
        *words("images", "height", "width", "channels", "bytes", "is_signed"),
        *words("offset", "image", "line", "pixel"),
        ("places", ctypes.POINTER(ctypes.c_uint32)),
    ]


class Program(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("window", ctypes.c_uint64),
        *words("constants", "constants_bytes", "descriptors", "descriptor_count"),
        ("input", Map),
        ("output", Map),
        ("core", Parameters),
    ]


def shared(folder, *sources):
    """Compile C to a shared library in a folder, and load it."""
    compiler = find_compiler().command
    objects = [folder / f"{source.stem}.o" for source in sources]
    for source, made in zip(sources, objects, strict=True):
        command = [*compiler, *C99, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fPIC", "-O1"]
        command += ["-I", DRIVER, "-I", folder, "-c", source, "-o", made]
        subprocess.run(command, check=True)
    subprocess.run([*compiler, "-shared", "-o", folder / "csp.so", *objects], check=True)
    return ctypes.CDLL(folder / "csp.so")
