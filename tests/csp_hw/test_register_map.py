# SPDX-License-Identifier: Apache-2.0
"""What is generated from registers.rdl is current, and says what the rest of the project needs."""

import dataclasses
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from systemrdl import RDLCompiler

from csp_hw import register_map
from csp_hw.config import BufferStyle, CspConfig
from csp_hw.counters import COUNTERS
from csp_hw.register_map import REGISTERS, Access, ErrorCode
from csp_hw.registers import build_parameter

ROOT = Path(__file__).resolve().parents[2]


def registers_tool():
    path = ROOT / "tools" / "registers.py"
    spec = importlib.util.spec_from_file_location("registers_tool", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool():
    return registers_tool()


@pytest.fixture(scope="module")
def top(tool):
    return tool.compiled()


@pytest.mark.parametrize(
    "name", ["drivers/c/csp_regs.h", "csp_hw/register_map.py", "docs/registers.md"]
)
def test_files_are_current(tool, top, name):
    assert set(tool.OUTPUTS) >= {name}
    text = (ROOT / name).read_text("utf-8")
    assert text == tool.OUTPUTS[name](top), f"{name} is not current: run `make registers`"


def test_all_files_are_written(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["registers.py"])
    tool.main()
    assert capsys.readouterr().out.split() == list(tool.OUTPUTS)
    for name in tool.OUTPUTS:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


def elaborated(tmp_path, text):
    file = tmp_path / "small.rdl"
    file.write_text(f"addrmap small {{ {text} }};")
    compiler = RDLCompiler()
    compiler.compile_file(str(file))
    return compiler.elaborate().top


def test_what_the_hardware_does_not_know_is_refused(tool, tmp_path):
    text = 'reg {desc = "A"; field {sw = rw; hw = w; desc = "B";} value[7:0] = 0;} ODD @ 0;'
    top = elaborated(tmp_path, text)
    with pytest.raises(ValueError, match=r"^small\.ODD\.value: no hardware for \("):
        tool.register_map(top)


def test_everything_is_described(tool, tmp_path):
    text = "reg {field {sw = r; hw = w;} value[7:0];} DARK @ 0;"
    top = elaborated(tmp_path, text)
    with pytest.raises(ValueError, match=r"^small\.DARK\.value has no description$"):
        tool.table(top)


def test_a_header_of_another_form_is_refused(tool, top, monkeypatch):
    monkeypatch.setattr(tool, "HEADER_END", "something else")
    with pytest.raises(ValueError, match=r"^PeakRDL's header does not end as it did$"):
        tool.header(top)


def test_places():
    """The addresses that a driver of this version relies on."""
    places = {register.name: register.offset for register in REGISTERS}
    fixed = {"ID": 0, "VERSION": 4, "CONTROL": 0x20, "STATUS": 0x24, "DESCRIPTORS": 0x40}
    assert fixed.items() <= places.items()
    assert len(places) == len(REGISTERS)
    assert list(places.values()) == sorted(set(places.values()))
    for register in REGISTERS:
        assert register.offset % 4 == 0
        assert register.offset < 4096
        used = [n for field in register.fields for n in range(field.lsb, field.lsb + field.width)]
        assert used == sorted(set(used)), register.name
        assert used[-1] < 32
        writable = any(
            field.access in (Access.WRITE, Access.PULSE, Access.STICKY) for field in register.fields
        )
        assert register.access == ("rw" if writable else "r")


def test_every_counter_has_a_register():
    names = {register.name for register in REGISTERS}
    for counter in COUNTERS:
        assert counter.upper() in names or f"{counter.upper()}_LOW" in names


def build_fields():
    return {
        field.name: field.width
        for register in REGISTERS
        for field in register.fields
        if field.access is Access.FIXED and field.reset is None
    }


def test_every_parameter_of_a_build_can_be_read():
    names = {re.sub("_log2$", "", name) for name in build_fields()}
    # Of groups of PEs software sees nothing: integers and descriptors are the same. A program that
    # wants a map memory which is not there ends with RANGE.
    untold = {"share", "map_bytes"}
    assert names | untold == {field.name for field in dataclasses.fields(CspConfig)}


def test_the_largest_parameters_fit():
    largest = CspConfig(
        rows=64,
        cols=64,
        depth=512,
        max_period=32,
        max_interleave=32,
        acc_bits=32,
        style=BufferStyle.REGBIN,
        lookahead=64,
        row_blocks=16,
        line_bytes=1 << 24,
        weight_bytes=1 << 24,
        count_bytes=1 << 16,
        pool_words=4096,
    )
    values = {name: build_parameter(largest, name) for name in build_fields()}
    assert values["line_bytes_log2"] == values["weight_bytes_log2"] == 24
    assert (values["count_bytes_log2"], values["pool_words_log2"]) == (16, 12)
    assert (values["rows"], values["depth"], values["acc_bits"], values["style"]) == (
        64,
        512,
        32,
        1,
    )
    for name, width in build_fields().items():
        assert values[name] < 1 << width, name


def test_styles_and_errors():
    assert {style.name for style in register_map.BufferStyle} == {
        style.name for style in BufferStyle
    }
    assert [(code.name, code.value) for code in ErrorCode] == [
        ("NONE", 0),
        ("DESCRIPTOR", 1),
        ("RANGE", 2),
        ("BUS", 3),
        ("STREAM_SHORT", 4),
        ("STREAM_LONG", 5),
        ("TIMEOUT", 6),
        ("ABORTED", 7),
        ("TILES", 8),
        ("COUNTS", 9),
    ]


@pytest.mark.parametrize("compiler", [["gcc", "-std=c11"], ["g++", "-std=c++11"]])
def test_header_compiles(compiler, tmp_path):
    """The header's offsets are those of its structure, and those of the map."""
    command = [shutil.which(compiler[0]), *compiler[1:], "-Wall", "-Wextra", "-pedantic", "-Werror"]
    if command[0] is None:
        pytest.skip(f"no {compiler[0]}")
    checks = [
        f'static_assert(offsetof(csp_t, {register.name}) == CSP__{register.name}__offset, "");\n'
        f'static_assert(CSP__{register.name}__offset == {register.offset}, "");'
        for register in REGISTERS
    ]
    checks += [f'static_assert(CSP__ERROR_CODE__{e.name} == {e.value}, "");' for e in ErrorCode]
    suffix = ".c" if compiler[0] == "gcc" else ".cpp"
    source = tmp_path / f"check{suffix}"
    source.write_text("\n".join(["#include <stddef.h>", '#include "csp_regs.h"', *checks, ""]))
    folder = ROOT / "drivers" / "c"
    subprocess.run([*command, "-I", folder, "-fsyntax-only", source], check=True)
