# SPDX-License-Identifier: Apache-2.0
"""What `csp generate` writes, and what it refuses to write over."""

import errno
import gc
import json
import os
import re
from pathlib import Path

import pytest

import csp_hw
from csp_hw import generate as module
from csp_hw.config import PRESETS, BufferStyle, ConfigError, CspConfig
from csp_hw.generate import FILES, SIGNALS, VERILOG, engine_verilog, generate, signals
from csp_hw.ports import layer_layout, tile_layout

TINY = CspConfig(rows=2, cols=4, depth=4, max_period=2, max_interleave=2, lookahead=2)
NAMES = {"csp_engine.v", "config.json", "signals.json", "files.f"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate") / "deep" / "tiny"
    assert {path.name for path in generate(TINY, folder)} == NAMES
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Spare the Verilog where only the folder is of interest."""
    monkeypatch.setattr(module, "engine_verilog", lambda config: f"// {config.rows}\n")


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_files(written):
    assert names_in(written) == NAMES
    assert names_in(written.parent) == {"tiny"}
    assert (written / FILES).read_text() == f"{VERILOG}\n"
    fields = json.loads((written / "config.json").read_text())
    assert fields["generator"].startswith("csp-accelerator ")
    assert fields.pop("format") == 1
    del fields["generator"]
    assert CspConfig(**{**fields, "style": BufferStyle(fields["style"])}) == TINY


def test_verilog_is_one_top_without_paths_of_this_machine(written):
    text = (written / VERILOG).read_text()
    modules = re.findall(r"^module (\S+?) ?\(", text, re.MULTILINE)
    assert len(modules) == len(set(modules))
    assert modules.count("csp_engine") == 1
    assert len(re.findall(r"^  csp_pe \S+ \($", text, re.MULTILINE)) == TINY.cols
    assert len(re.findall(r"^  csp_row \S+ \($", text, re.MULTILINE)) == TINY.rows
    for hint in (str(Path(csp_hw.__file__).parent), str(Path.cwd()), ".py", "src ="):
        assert hint not in text


def test_same_bytes_every_time(written):
    assert engine_verilog(TINY) == (written / VERILOG).read_text()
    assert gc.isenabled()


def test_signals_are_the_ports_of_the_top(written):
    described = json.loads((written / SIGNALS).read_text())
    assert described["top"] == "csp_engine"
    text = (written / VERILOG).read_text()
    top = text[text.index("module csp_engine(") :]
    top = top[: top.index("endmodule")]
    found = {}
    for direction, high, name in re.findall(
        r"^  (input|output)(?: \[(\d+):0\])? (\w+);", top, re.MULTILINE
    ):
        found[name] = {"direction": direction, "width": int(high or 0) + 1}
    ports = described["ports"]
    assert {
        name: {key: port[key] for key in ("direction", "width")} for name, port in ports.items()
    } == found
    assert set(described["streams"]) == {
        name.removesuffix("__valid") for name in found if name.endswith("__valid")
    }


@pytest.mark.parametrize("name", PRESETS)
def test_signals_say_where_fields_lie(name):
    config = PRESETS[name]
    ports = signals(config)["ports"]
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
    generate(TINY.replace(rows=3), str(folder))
    assert names_in(folder) == NAMES
    assert names_in(tmp_path) == {"out"}
    assert (folder / VERILOG).read_text() == "// 3\n"


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
        generate(TINY.replace(rows=3), folder)
    assert (folder / VERILOG).read_text() == "// 2\n"
    assert names_in(tmp_path) == {"out"}
