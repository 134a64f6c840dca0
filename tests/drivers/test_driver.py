# SPDX-License-Identifier: Apache-2.0
"""The C driver on a model of the registers, function by function."""

import ctypes
import dataclasses
import re
import subprocess

import numpy as np
import pytest

from csp_algo.integers import ActDtype
from csp_hw.check import CHECKS
from csp_hw.config import PRESETS
from csp_hw.register_map import REGISTERS, BufferStyle, ErrorCode
from sim.cosim.firmware import DRIVER
from sim.cosim.toolchain import find_compiler
from sim.program.layout import Layout
from sim.program.maps import FeatureMap, pack_map
from tests.drivers.structures import C99, Counters, Device, Map, Parameters, Program, shared

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow"]
BASE = 0x4000_0000
#: Calls of the library end in these.
ACCESS = """
#include "csp.h"
uint32_t (*reader)(uintptr_t);
void (*writer)(uintptr_t, uint32_t);
uint32_t csp_read32(uintptr_t address) { return reader(address); }
void csp_write32(uintptr_t address, uint32_t value) { writer(address, value); }
"""
READER = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_size_t)
WRITER = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_uint32)
PAUSE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)

OK, ERROR, TIMEOUT, BUSY, IDLE, ARGUMENT, NOT_FOUND, VERSION = range(8)
START, ABORT, ENABLE = 1, 2, 4
AT_WORK, DONE, FAILED = 1, 2, 4

#: Offset of the first counter.
COUNTERS = 0x80
PLACES = {register.offset: register for register in REGISTERS}


class Registers:
    """What the driver reads and writes; ``next`` holds what single reads give."""

    def __init__(self, config):
        self.words = dict.fromkeys((register.name for register in REGISTERS), 0)
        for register in REGISTERS:
            for field in register.fields:
                self.put(register.name, field.name, field.reset or 0)
                name = field.name.removesuffix("_log2")
                if register.name.startswith("CONFIG"):
                    value = getattr(config, name)
                    if name == "style":
                        value = BufferStyle[value.name]
                    logarithm = name != field.name
                    self.put(
                        register.name, field.name, value.bit_length() - 1 if logarithm else value
                    )
        self.writes = []
        self.next = {}

    def put(self, register, field, value):
        (found,) = (
            each
            for each in next(each for each in REGISTERS if each.name == register).fields
            if each.name == field
        )
        mask = (1 << found.width) - 1
        assert 0 <= value <= mask
        self.words[register] = self.words[register] & ~(mask << found.lsb) | value << found.lsb

    def read(self, address):
        name = PLACES[address - BASE].name
        if self.next.get(name):
            self.words[name] = self.next[name].pop(0)
        return self.words[name]

    def write(self, address, value):
        register = PLACES[address - BASE]
        assert register.access == "rw"
        self.writes.append((register.name, value))
        if register.name == "STATUS":
            self.words["STATUS"] &= ~(value & (DONE | FAILED))
        elif register.name == "CONTROL":
            self.words["CONTROL"] = value & ENABLE
            self.words["STATUS"] |= AT_WORK * (value & START)
        else:
            self.words[register.name] = value


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    (folder / "access.c").write_text(ACCESS)
    sources = [DRIVER / "csp.c", DRIVER / "csp_program.c", folder / "access.c"]
    loaded = shared(folder, *sources)
    loaded.csp_result_text.restype = ctypes.c_char_p
    loaded.csp_program_misfit.restype = ctypes.c_char_p
    loaded.csp_error.restype = ctypes.c_size_t
    loaded.csp_map_bytes.restype = ctypes.c_size_t
    loaded.csp_open.argtypes = [ctypes.POINTER(Device), ctypes.c_uint64, ctypes.c_uint64]
    return loaded


class Driver:
    """The library on a model of the registers."""

    def __init__(self, library, config):
        self.library = library
        self.registers = Registers(config)
        # They live as long as the library may call them.
        self.access = READER(self.registers.read), WRITER(self.registers.write)
        for name, function in zip(("reader", "writer"), self.access, strict=True):
            place = ctypes.c_void_p.in_dll(library, name)
            place.value = ctypes.cast(function, ctypes.c_void_p).value
        self.device = Device()

    def __call__(self, name, *arguments):
        return getattr(self.library, f"csp_{name}")(ctypes.byref(self.device), *arguments)

    def probe(self):
        return self("probe", ctypes.c_size_t(BASE))

    def wait(self, limit=0, pause=None):
        return self("wait", limit, PAUSE(pause) if pause else None, None)

    def error(self, size=200):
        buffer = ctypes.create_string_buffer(b"?" * 300)
        length = self("error", buffer, ctypes.c_size_t(size))
        assert buffer.raw[size : size + 1] == b"?"  # nothing is written behind the end
        return length, buffer.value.decode() if size else buffer.raw.decode()[:3]


@pytest.fixture
def driver(library):
    made = Driver(library, PRESETS["tiny_4x4"])
    assert made.probe() == OK
    assert made("open", 0x1_8000_0000, 1 << 20) == OK
    made.registers.writes.clear()
    return made


def flags(kind):
    return {
        "c99": C99,
        "c11": ["-x", "c", "-std=c11"],
        "freestanding": [*C99, "-ffreestanding"],
        "pointers": [*C99, "-DCSP_POINTERS"],
    }[kind]


@pytest.mark.parametrize("kind", ["c99", "c11", "freestanding", "pointers"])
@pytest.mark.parametrize("source", ["csp.c", "csp_program.c"])
def test_compiles_without_a_warning(kind, source, tmp_path):
    command = [*find_compiler().command, *flags(kind), *WARNINGS, "-O2", "-c", DRIVER / source]
    subprocess.run([*command, "-o", tmp_path / "driver.o"], check=True)


def test_headers_are_of_use_in_cpp(tmp_path):
    source = tmp_path / "both.cpp"
    source.write_text('#include "csp_program.h"\n#include "csp_regs.h"\nint probe = CSP_OK;\n')
    command = [*find_compiler().command, *WARNINGS, "-std=c++11", "-fsyntax-only", "-I", DRIVER]
    subprocess.run([*command, source], check=True)


# --- What is there --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("style", BufferStyle)
def test_probe_tells_what_was_built(library, name, style):
    config = PRESETS[name]
    config = config.replace(style=type(config.style)[style.name])
    driver = Driver(library, config)
    assert driver.probe() == OK
    found = {name: getattr(driver.device.parameters, name) for name, _ in Parameters._fields_}
    wanted = {**dataclasses.asdict(config), "style": style}
    del wanted["share"], wanted["map_bytes"]  # which no register tells
    assert found == wanted
    assert driver.device.version == driver.registers.words["VERSION"]
    assert driver.registers.writes == []


def test_no_core(driver):
    driver.registers.words["ID"] ^= 1 << 31
    assert driver.probe() == NOT_FOUND


@pytest.mark.parametrize("version", [0, 2, 1 << 16 | 1])
def test_other_version(driver, version):
    driver.registers.words["VERSION"] = version
    assert driver.probe() == VERSION


# --- Window ---------------------------------------------------------------------------------------


def test_open_writes_the_window(driver):
    driver.registers.words["STATUS"] = DONE | FAILED
    assert driver("open", 0xFEDC_BA98_7654_3000, 1 << 32) == OK
    found = driver.registers.words
    assert (found["BASE_HIGH"], found["BASE_LOW"]) == (0xFEDC_BA98, 0x7654_3000)
    assert (found["SIZE_HIGH"], found["SIZE_LOW"]) == (1, 0)
    assert found["STATUS"] == 0
    assert driver("open", 0x3000, 64) == OK
    assert (found["BASE_HIGH"], found["SIZE_HIGH"], found["SIZE_LOW"]) == (0, 0, 64)


@pytest.mark.parametrize(
    ("base", "size"), [(0x800, 64), (0, 0), (0, (1 << 32) + 1), ((1 << 64) - 4096, 8192)]
)
def test_windows_that_cannot_be(driver, base, size):
    assert driver("open", base, size) == ARGUMENT
    assert driver.registers.writes == []


def test_open_while_it_works(driver):
    driver.registers.words["STATUS"] = AT_WORK
    assert driver("open", 0, 4096) == BUSY
    assert driver.registers.writes == []


# --- Start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("enable", [0, 1])
def test_start(driver, enable):
    driver("interrupt", enable)
    assert driver.registers.writes == [("CONTROL", ENABLE * enable)]
    driver.registers.writes.clear()
    driver.registers.words["STATUS"] = DONE
    assert driver("start", 0x500, 7) == OK
    *settings, start = driver.registers.writes
    assert sorted(settings) == [("COUNT", 7), ("DESCRIPTORS", 0x500), ("STATUS", DONE | FAILED)]
    assert start == ("CONTROL", START | ENABLE * enable)


@pytest.mark.parametrize(
    ("first", "count", "result"),
    [
        ((1 << 20) - 512, 2, OK),
        (1 << 20, 0, OK),
        (128, 1, ARGUMENT),
        ((1 << 20) - 256, 2, ARGUMENT),
        (0xFFFF_FF00, 1, ARGUMENT),
        (0, 0x100_0000, ARGUMENT),
    ],
)
def test_descriptors_lie_in_the_window(driver, first, count, result):
    assert driver("start", ctypes.c_uint32(first), ctypes.c_uint32(count)) == result
    assert bool(driver.registers.writes) == (result == OK)


def test_nothing_starts_before_open(library):
    driver = Driver(library, PRESETS["tiny_4x4"])
    assert driver.probe() == OK
    assert driver("start", 0, 1) == ARGUMENT


def test_start_while_it_works(driver):
    driver.registers.words["STATUS"] = AT_WORK
    assert driver("start", 0, 1) == BUSY
    assert driver.registers.writes == []


def test_patience(driver):
    driver("patience", 12345)
    assert driver.registers.writes == [("TIMEOUT", 12345)]


# --- Wait -----------------------------------------------------------------------------------------


def test_wait_until_done(driver):
    assert driver("start", 0, 1) == OK
    paused = []
    driver.registers.next["STATUS"] = [AT_WORK, AT_WORK, DONE]

    def pause(_):
        paused.append(len(driver.registers.next["STATUS"]))
        return 0

    assert driver.wait(pause=pause) == OK
    assert paused == [2, 1]
    # The interrupt is a level: what raised it is cleared.
    assert driver.registers.words["STATUS"] == 0
    assert driver.error() == (8, "no error")


@pytest.mark.parametrize(("limit", "result"), [(3, TIMEOUT), (4, OK), (0, OK)])
def test_limit(driver, limit, result):
    driver.registers.next["STATUS"] = [AT_WORK] * 3 + [DONE]
    assert driver.wait(limit) == result
    assert driver.registers.next["STATUS"] == ([DONE] if result == TIMEOUT else [])


def test_pause_gives_up(driver):
    driver.registers.next["STATUS"] = [AT_WORK] * 3
    assert driver.wait(pause=lambda _: len(driver.registers.next["STATUS"]) < 2) == TIMEOUT
    assert len(driver.registers.next["STATUS"]) == 1


def test_wait_for_nothing(driver):
    assert driver.wait() == IDLE


def fail(driver, code, layer=0, detail=0):
    driver.registers.words |= {
        "STATUS": FAILED | code << 8,
        "ERROR_LAYER": layer,
        "ERROR_DETAIL": detail,
    }
    assert driver.wait() == ERROR


def test_error(driver):
    fail(driver, ErrorCode.BUS, 123456)
    failure = driver.device.failure
    assert (failure.code, failure.layer, failure.detail) == (ErrorCode.BUS, 123456, 0)
    assert driver.registers.words["STATUS"] & (DONE | FAILED) == 0
    assert driver.error()[1] == "descriptor 123456: BUS, the memory answered with an error"
    assert driver("start", 0, 1) == OK
    assert driver.error()[1] == "no error"


@pytest.mark.parametrize("code", [code for code in ErrorCode if code is not ErrorCode.NONE])
def test_all_errors_have_words(driver, code):
    fail(driver, code, 3)
    assert re.match(rf"descriptor 3: {code.name}, [a-z ,]+", driver.error()[1])


def test_error_of_a_newer_core(driver):
    fail(driver, 31, 3)
    assert driver.error()[1] == "descriptor 3: error 31"


@pytest.mark.parametrize("number", range(len(CHECKS) + 1))
def test_checks_have_names(driver, number):
    fail(driver, ErrorCode.DESCRIPTOR, 10, number)
    name = f", {CHECKS[number]}" if number < len(CHECKS) else ""
    assert driver.error()[1] == (
        f"descriptor 10: DESCRIPTOR, it cannot be computed: check {number}{name}"
    )


@pytest.mark.parametrize("size", [0, 1, 2, 30, 53, 54, 55, 100])
def test_text_is_cut(driver, size):
    fail(driver, ErrorCode.BUS, 7)
    whole = "descriptor 7: BUS, the memory answered with an error"
    expected = whole[: size - 1] if size else "???"
    assert driver.error(size) == (len(whole), expected)


def test_results_have_words(library):
    texts = [library.csp_result_text(result).decode() for result in range(9)]
    assert texts[OK] == "it worked"
    assert texts[8] == "unknown"
    assert len(set(texts)) == 9


# --- While it works -------------------------------------------------------------------------------


def test_progress(driver):
    driver.registers.words["LAYER"] = 0xABCDEF
    assert driver("progress") == 0xABCDEF


@pytest.mark.parametrize("enable", [0, 1])
def test_abort(driver, enable):
    driver("interrupt", enable)
    assert driver("start", 0, 1) == OK
    driver.registers.next["STATUS"] = [AT_WORK, AT_WORK, FAILED | ErrorCode.ABORTED << 8]
    assert driver("abort", 0) == OK
    assert ("CONTROL", ABORT | ENABLE * enable) in driver.registers.writes
    assert driver.registers.words["STATUS"] & (DONE | FAILED) == 0
    assert driver.error()[1] == "descriptor 0: ABORTED, software gave it up"


def test_abort_that_takes_long(driver):
    driver.registers.next["STATUS"] = [AT_WORK] * 5
    assert driver("abort", 3) == TIMEOUT
    assert len(driver.registers.next["STATUS"]) == 1


def test_abort_of_nothing(driver):
    driver.registers.words["STATUS"] = DONE
    assert driver("abort", 0) == OK
    assert driver.registers.writes == [("STATUS", DONE | FAILED)]


def test_counters(driver):
    """Every register of a number of its own; those of two parts as one."""
    expected = {}
    for number, register in enumerate(REGISTERS):
        if register.offset >= COUNTERS:
            driver.registers.words[register.name] = 1000 + number
            expected[register.name] = 1000 + number
    counters = Counters()
    driver("counters", ctypes.byref(counters))
    for name, _ in Counters._fields_:
        register = {"layers": "LAYER_COUNT"}.get(name, name.upper())
        if register in expected:
            assert getattr(counters, name) == expected.pop(register)
        else:
            low, high = expected.pop(f"{register}_LOW"), expected.pop(f"{register}_HIGH")
            assert getattr(counters, name) == high << 32 | low
    assert expected == {}


def test_counter_that_carries(driver):
    driver.registers.next = {
        "CORE_CYCLES_HIGH": [1, 2, 2],
        "CORE_CYCLES_LOW": [0xFFFF_FFFF, 5],
    }
    counters = Counters()
    driver("counters", ctypes.byref(counters))
    assert counters.core_cycles == 2 << 32 | 5


# --- Programs -------------------------------------------------------------------------------------

LAYOUTS = {
    "dense": Layout.dense(7, 4),
    "grouped": Layout.grouped(3, 3, 4, share=False),
    "shared": Layout.grouped(5, 2, 8, share=True),
    "repeated": Layout.dense(3, 4).repeated(4),
}


@pytest.mark.parametrize("dtype", ActDtype)
@pytest.mark.parametrize("name", LAYOUTS)
def test_maps(library, name, dtype):
    """What C writes is what Python does, and it reads it back; with gaps everywhere."""
    layout = LAYOUTS[name]
    size = dtype.numpy.itemsize
    pixel = layout.chunks * layout.cols * size + layout.cols
    line = 3 * pixel + 2 * layout.cols
    place = FeatureMap(
        name="map",
        images=2,
        shape=(2, 3, layout.channels),
        dtype=dtype,
        layout=layout,
        offset=64,
        image=2 * line + 4 * layout.cols,
        line=line,
        pixel=pixel,
    )
    limits = np.iinfo(dtype.numpy)
    rng = np.random.default_rng(5)
    values = rng.integers(
        limits.min, limits.max, (2, *place.shape), dtype=dtype.numpy, endpoint=True
    )
    values.flat[:2] = limits.min, limits.max
    places = (ctypes.c_uint32 * layout.channels)(*layout.places)
    found = Map(
        *(2, 2, 3, layout.channels, size, int(limits.min < 0)),
        *(place.offset, place.image, place.line, place.pixel),
        None if name == "dense" else places,
    )
    window = (ctypes.c_uint8 * (place.end + 64))()
    elements = values.astype(values.dtype.newbyteorder("<"))
    assert library.csp_map_bytes(ctypes.byref(found)) == elements[0].nbytes
    got = np.zeros(values.shape, dtype=np.int32)
    for image in (1, 0):
        data = elements[image].tobytes()
        library.csp_map_write(ctypes.byref(found), window, image, data)
    expected = np.zeros(len(window), dtype=np.uint8)
    expected[place.offset : place.end] = pack_map(place, values)
    np.testing.assert_array_equal(np.frombuffer(window, dtype=np.uint8), expected)
    for image in range(2):
        to = got[image].ctypes.data_as(ctypes.c_void_p)
        library.csp_map_read(ctypes.byref(found), window, image, to)
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize("name", [name for name, _ in Parameters._fields_])
@pytest.mark.parametrize("change", [-1, 0, 1])
def test_misfit(library, name, change):
    """Sizes may be larger; what decides the integers may not; the style does not matter."""
    config = {**dataclasses.asdict(PRESETS["csp_8x8"]), "style": 1}
    program = Program(core=Parameters(**config))
    core = Parameters(**{**config, name: config[name] + change})
    strict = ("rows", "cols", "acc_bits", "lookahead")
    wrong = name != "style" and (change < 0 or (change > 0 and name in strict))
    expected = name.encode() if wrong else None
    assert library.csp_program_misfit(ctypes.byref(program), ctypes.byref(core)) == expected
