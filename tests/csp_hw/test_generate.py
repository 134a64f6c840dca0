# SPDX-License-Identifier: Apache-2.0
"""What `csp generate` writes, and what it refuses to write over."""

import errno
import gc
import json
import os
import re
from pathlib import Path

import pytest
from amaranth.back import rtlil

import csp_hw
from csp_hw import generate as module
from csp_hw.config import PRESETS, BufferStyle, ConfigError, CspConfig
from csp_hw.descriptor import DESCRIPTOR_BYTES, pack
from csp_hw.generate import (
    MULTIPLIER,
    PARTS,
    REGISTERS,
    SIGNALS,
    SOURCES,
    Top,
    generate,
    signals,
    sources,
    top_verilog,
    tops,
    why_no_core,
)
from csp_hw.ports import layer_layout, tile_layout

TINY = CspConfig(rows=2, cols=4, depth=4, max_period=2, max_interleave=2, lookahead=2)
#: What there is of a configuration that is that of an engine only, and of any other one.
ENGINE_NAMES = {
    "csp_multiplier.v",
    "csp_multiplier_ecp5.v",
    "csp_parts.v",
    "csp_engine.v",
    "csp_engine.f",
    "config.json",
    "signals.json",
}
NAMES = ENGINE_NAMES | {
    "csp_body.v",
    "csp_core.v",
    "csp_core.f",
    "csp_stream.v",
    "csp_stream.f",
    "csp_regs.h",
}
VERILOG = "csp_engine.v"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate") / "deep" / "tiny"
    assert {path.name for path in generate(TINY, folder)} == NAMES
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Spare the Verilog where only the folder is of interest."""

    monkeypatch.setattr(
        module,
        "sources",
        lambda config, names: {name: f"// {config.rows} {name}\n" for name in names},
    )


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def modules_in(text):
    return re.findall(r"^module (\S+?) ?\(", text, re.MULTILINE)


def listed(folder, top):
    """Give the text of all files of a top's list."""
    names = (folder / f"{top}.f").read_text().splitlines()
    return "".join((folder / name).read_text() for name in names)


def test_files(written):
    assert names_in(written) == NAMES
    assert names_in(written.parent) == {"tiny"}
    fields = json.loads((written / "config.json").read_text())
    assert fields["generator"].startswith("csp-accelerator ")
    assert fields.pop("format") == 2
    del fields["generator"]
    assert CspConfig(**{**fields, "style": BufferStyle(fields["style"])}) == TINY


def test_header_of_the_registers_is_the_drivers(written):
    driver = Path(csp_hw.__file__).parents[1] / "drivers" / "c" / REGISTERS
    assert (written / REGISTERS).read_bytes() == driver.read_bytes()


@pytest.mark.parametrize("top", Top)
def test_each_list_holds_all_modules_of_its_top(written, top):
    text = listed(written, top)
    modules = modules_in(text)
    assert len(modules) == len(set(modules))
    assert modules[-1] == top or modules.count(top) == 1
    ours = set(re.findall(r"^  (csp_\w+) \S+ \($", text, re.MULTILINE))
    inside = {"csp_multiplier", "csp_pe", "csp_row", "csp_output_column"}
    if top is not Top.ENGINE:
        inside |= {"csp_pool_column", "csp_pool_lane_x", "csp_pool_lane_y", "csp_line_bank"}
        inside |= {"csp_body", "csp_engine"}
    assert ours == inside
    assert inside <= set(modules)
    # What is instantiated stands before what instantiates it.
    assert [name for name in modules if name in (*inside, top)][-1] == top


def test_verilog_repeats_nothing_and_has_no_paths_of_this_machine(written):
    alternative = written / "csp_multiplier_ecp5.v"
    assert modules_in(alternative.read_text()) == ["csp_multiplier"]
    files = set(written.glob("*.v")) - {alternative}
    text = "".join(path.read_text() for path in sorted(files))
    modules = modules_in(text)
    assert len(modules) == len(set(modules))
    assert len(re.findall(r"^  csp_pe \S+ \($", text, re.MULTILINE)) == TINY.cols
    assert len(re.findall(r"^  csp_row \S+ \($", text, re.MULTILINE)) == TINY.rows
    for name, count in (("pool_column", TINY.cols), ("line_bank", TINY.rows)):
        assert len(re.findall(rf"^  csp_{name} \S+ \($", text, re.MULTILINE)) == count
    for hint in (str(Path(csp_hw.__file__).parent), str(Path.cwd()), ".py", "src ="):
        assert hint not in text


def test_large_memories_of_zeros_have_no_first_values(written):
    text = listed(written, Top.CORE)
    sizes = re.findall(r"^  reg \[.*\] \S+ \[(\d+):0\];", text, re.MULTILINE)
    said = re.findall(r"^    \S+ ?\[(\d+)\] = ", text, re.MULTILINE)
    largest = 1 + max(map(int, sizes))
    assert largest == TINY.weight_words
    assert 0 < max(map(int, said)) < largest // 4


@pytest.mark.parametrize(
    ("name", "map_bytes"), [*((name, 0) for name in module.MODULES), ("csp_core.v", 1 << 13)]
)
def test_no_combinational_cycles(name, map_bytes):
    """Amaranth looks for them; the generator spares that time."""
    for top, component in module.MODULES[name](TINY.replace(map_bytes=map_bytes)).items():
        assert f"module \\{top}\n" in rtlil.convert(component, name=top, emit_src=False)


def test_same_bytes_every_time(written):
    for path in written.glob("*.v"):
        assert sources(TINY, [path.name]) == {path.name: path.read_text()}
    assert gc.isenabled()


@pytest.mark.usefixtures("quick")
def test_engine_only(tmp_path):
    config = TINY.replace(rows=3)
    assert why_no_core(TINY) is None
    assert why_no_core(config) == "rows of a core must be a power of two, not 3"
    assert tops(config) == (Top.ENGINE,)
    generate(TINY, tmp_path)
    generate(config, tmp_path)
    assert names_in(tmp_path) == ENGINE_NAMES
    assert (tmp_path / "csp_engine.f").read_text() == f"{MULTIPLIER}\n{PARTS}\n{VERILOG}\n"
    described = json.loads((tmp_path / SIGNALS).read_text())
    assert set(described["tops"]) == {"csp_engine"}
    assert "descriptor" not in described
    for top in (Top.CORE, Top.STREAM):
        with pytest.raises(ConfigError, match="rows of a core must be a power of two, not 3"):
            top_verilog(config, top)


@pytest.mark.parametrize("top", Top)
def test_signals_are_the_ports_of_the_top(written, top):
    text = (written / SOURCES[top][-1]).read_text()
    start = text.index(f"module {top}(")
    body = text[start : text.index("endmodule", start)]
    found = {}
    for direction, high, name in re.findall(
        r"^  (input|output)(?: \[(\d+):0\])? (\w+);", body, re.MULTILINE
    ):
        found[name] = {"direction": direction, "width": int(high or 0) + 1}
    described = json.loads((written / SIGNALS).read_text())["tops"][top]
    ports = described["ports"]
    assert {
        name: {key: port[key] for key in ("direction", "width")} for name, port in ports.items()
    } == found
    if top is Top.ENGINE:
        assert set(described["streams"]) == {
            name.removesuffix("__valid") for name in found if name.endswith("__valid")
        }


def test_signals_say_where_the_fields_of_a_descriptor_lie(written):
    described = json.loads((written / SIGNALS).read_text())["descriptor"]
    assert described["bytes"] == DESCRIPTOR_BYTES
    place = described["fields"]["output_high"]
    value = (1 << place["width"]) - 1
    whole = int.from_bytes(pack({"output_high": value}), "little")
    assert whole == value << place["bit"]


@pytest.mark.parametrize("name", PRESETS)
def test_signals_say_where_fields_lie(name):
    config = PRESETS[name]
    ports = signals(config)["tops"]["csp_engine"]["ports"]
    layer, layout = ports["layer__payload"], layer_layout(config)
    assert layer["fields"]["period"] == {
        "offset": layout["period"].offset,
        "width": layout["period"].width,
        "signed": False,
    }
    assert ports["params__payload"]["fields"]["bias"] == {"offset": 0, "width": 32, "signed": True}
    assert ports["tiles__payload"]["width"] == tile_layout(config).size
    weights = ports["weights__payload"]["fields"]
    assert weights[f"{config.cols - 1}"] == {
        "offset": 8 * (config.cols - 1),
        "width": 8,
        "signed": True,
    }
    for port in ports.values():
        end = 0
        for field in port.get("fields", {}).values():
            assert field["offset"] == end
            end += field["width"]
        assert end in (0, port["width"])


@pytest.mark.usefixtures("quick")
def test_its_own_folder_is_replaced(tmp_path):
    folder = tmp_path / "out"
    generate(TINY, folder)
    generate(TINY.replace(rows=4), str(folder))
    assert names_in(folder) == NAMES
    assert names_in(tmp_path) == {"out"}
    assert (folder / VERILOG).read_text() == "// 4 csp_engine.v\n"


@pytest.mark.usefixtures("quick")
def test_a_folder_of_the_first_format_is_replaced(tmp_path):
    (tmp_path / "config.json").write_text('{"generator": "csp-accelerator 0.1.0"}')
    for name in ("csp_engine.v", "signals.json", "files.f"):
        (tmp_path / name).touch()
    generate(TINY, tmp_path)
    assert names_in(tmp_path) == NAMES


@pytest.mark.usefixtures("quick")
def test_an_empty_folder_is_used(tmp_path):
    generate(TINY, tmp_path)
    assert names_in(tmp_path) == NAMES


@pytest.mark.usefixtures("quick")
def test_other_things_stay(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=f"{tmp_path} holds thesis.tex, which was not generated"):
        generate(TINY, tmp_path)
    assert names_in(tmp_path) == {"thesis.tex"}


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"generator": "me"}'])
@pytest.mark.usefixtures("quick")
def test_a_folder_that_only_looks_generated_stays(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ConfigError, match=r"holds config\.json, which was not generated"):
        generate(TINY, tmp_path)
    assert (tmp_path / "config.json").read_text() == config


@pytest.mark.usefixtures("quick")
def test_generated_files_beside_others_stay(tmp_path):
    generate(TINY, tmp_path / "out")
    (tmp_path / "out" / "notes").touch()
    with pytest.raises(ConfigError, match="holds notes"):
        generate(TINY, tmp_path / "out")


@pytest.mark.usefixtures("quick")
def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file exists and is no folder"):
        generate(TINY, tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot write"):
        generate(TINY, tmp_path / "file" / "below")


@pytest.mark.usefixtures("quick")
def test_full_disk(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "fsync", full)
    folder = tmp_path / "out"
    with pytest.raises(ConfigError) as caught:
        generate(TINY, folder)
    assert str(caught.value) == f"cannot write {folder}: No space left on device"
    assert names_in(tmp_path) == set()


@pytest.mark.usefixtures("quick")
def test_a_failure_leaves_the_old_folder(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    generate(TINY, folder)
    rename = Path.rename

    def fail(path, target):
        if path.name == "new":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ConfigError, match="Permission denied"):
        generate(TINY.replace(rows=4), folder)
    assert (folder / VERILOG).read_text() == "// 2 csp_engine.v\n"
    assert names_in(tmp_path) == {"out"}
