# SPDX-License-Identifier: Apache-2.0
"""What ``csp compile`` writes, as the C compiler and the driver understand it."""

import ctypes
import dataclasses

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Network
from csp_hw.config import PRESETS
from sim.cosim.firmware import DRIVER
from sim.program import files
from sim.program.compiler import compile_network
from tests.drivers.structures import Parameters, Program, shared
from tests.sim.networks import random_config, random_network
from tests.strategies import random_activations, random_layer

TINY = PRESETS["tiny_4x4"]
#: A window and a program that Python reaches.
SOURCE = """
#include "program.h"
const struct csp_program *program(void);
const struct csp_program *program(void) { return &csp_program; }
uint32_t csp_read32(uintptr_t address) { return (uint32_t)address; }
void csp_write32(uintptr_t address, uint32_t value) { (void)address; (void)value; }
"""


def compiled(network, config, images, folder):
    """Write the files, compile them; give the program, the library and what C knows of it."""
    program = compile_network(network, config, images)
    files.write(program, folder)
    (folder / "access.c").write_text(SOURCE)
    library = shared(folder, folder / "access.c", DRIVER / "csp_program.c")
    library.program.restype = ctypes.POINTER(Program)
    return program, library, library.program().contents


def grouped(name):
    """A network whose output has holes between its channels."""
    rng = np.random.default_rng(3)
    source = Input(name="input", shape=(4, 3, 6), dtype=ActDtype.INT8, scale=1.0)
    geometry = Geometry(in_shape=(4, 3, 6), filters=6, kernel=(1, 1), groups=2)
    layer = random_layer(rng, geometry=geometry, cols=4, period=4, acc_shift=0)
    layer = dataclasses.replace(layer, input="input")
    return Network(name=name, input=source, nodes=(layer,), cols=4, period=4)


def check(network, config, images, folder):
    """The window that C fills is the one that Python does."""
    program, library, found = compiled(network, config, len(images), folder)
    assert found.name == network.name.encode()
    assert found.window == program.size
    assert found.descriptors == program.descriptors[0]
    assert found.descriptor_count == len(program.passes)
    core = {name: getattr(found.core, name) for name, _ in Parameters._fields_}
    style = {"memory": 0, "regbin": 1}[config.style.value]
    wanted = {**dataclasses.asdict(config), "style": style}
    del wanted["share"], wanted["map_bytes"]  # which no register tells
    assert core == wanted

    window = (ctypes.c_uint8 * program.size)()
    constants = (folder / files.CONSTANTS).read_bytes()
    assert len(constants) == found.constants_bytes
    ctypes.memmove(ctypes.byref(window, found.constants), constants, len(constants))
    for number, image in enumerate(images):
        library.csp_map_write(ctypes.byref(found.input), window, number, image.tobytes())
    memory = program.memory(images)
    np.testing.assert_array_equal(np.frombuffer(window, dtype=np.uint8), memory)

    rng = np.random.default_rng(1)
    memory = rng.integers(0, 256, program.size, dtype=np.uint8)
    expected = program.value(network.output.name, memory)
    values = np.zeros(expected.shape, dtype=np.int32)
    ctypes.memmove(window, memory.tobytes(), program.size)
    for number in range(len(images)):
        to = values[number].ctypes.data_as(ctypes.c_void_p)
        library.csp_map_read(ctypes.byref(found.output), window, number, to)
    np.testing.assert_array_equal(values, expected)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_random_networks(seed, tmp_path):
    rng = np.random.default_rng(seed)
    while True:
        config = random_config(rng)
        network = random_network(rng, config)
        images = random_activations(
            rng, (int(rng.integers(1, 4)), *network.input.shape), network.input.dtype
        )
        try:
            compile_network(network, config, len(images))
        except CspError:
            continue
        break
    check(network, config, images, tmp_path)


@pytest.mark.parametrize("name", ["plain", 'a "b" \\ ??/ %d', "ключ é", "//*"])
def test_holes_and_names(name, tmp_path):
    network = grouped(name)
    images = random_activations(np.random.default_rng(0), (2, 4, 3, 6), ActDtype.INT8)
    found = check(network, TINY, images, tmp_path)
    assert bool(found.output.places)


def test_folder_that_cannot_be(tmp_path):
    program = compile_network(grouped("x"), TINY, 1)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        files.write(program, tmp_path / "file" / "below")
    (tmp_path / files.HEADER).mkdir()
    with pytest.raises(CspError, match=r"program\.h: cannot be written: is not a file"):
        files.write(program, tmp_path)
