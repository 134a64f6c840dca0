# SPDX-License-Identifier: Apache-2.0
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from csp_algo import container
from csp_algo.errors import CspError
from csp_hw import generate
from csp_hw.config import PRESETS, ConfigError
from sim import cli
from sim.version import version
from tests import strategies
from tests.command import csp

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def network():
    rng = np.random.default_rng(3)
    layer = strategies.random_layer(rng, cols=4, period=4, acc_shift=0)
    return strategies.network_of(layer, name="small")


@pytest.fixture
def file(tmp_path, network):
    path = tmp_path / "small.csp"
    container.save(network, path)
    return path


@pytest.fixture
def refused(capfd):
    """Run a command that must be refused; give its one line on stderr."""

    def run(*arguments):
        assert csp(*arguments) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("csp: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return run


def test_help_names_the_commands(capfd):
    assert csp("--help") == 0
    out = capfd.readouterr().out
    assert "Usage: csp " in out
    commands = "inspect prune repack generate compile demo run report firmware run-tile"
    for command in commands.split():
        assert f"\n  {command} " in out
    assert "..." not in out.split("Commands:")[1]


def test_version(capfd):
    assert csp("--version") == 0
    assert capfd.readouterr().out == f"csp {version()}\n"


def test_version_of_a_bare_checkout(monkeypatch):
    monkeypatch.setattr("sim.version.DISTRIBUTION", "no-such-distribution")
    assert version() == "unknown"


def test_starting_loads_nothing_heavy():
    code = "import sys, sim.cli; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert not loaded & {"numpy", "amaranth", "cocotb", "safetensors", "jinja2", "rich.console"}


def test_module_is_the_command_line():
    result = subprocess.run(
        [sys.executable, "-m", "sim", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"csp {version()}\n"


def test_inspect_shows_the_network(file, network, capfd):
    assert csp("inspect", file) == 0
    out = capfd.readouterr().out
    assert "small" in out
    assert container.digest(network)[:16] in out


def test_repack_makes_a_network_for_another_array(file, network, tmp_path, capfd):
    output = tmp_path / "other.csp"
    assert csp("repack", file, "--cols", 8, "--period", 2, "-o", output) == 0
    assert capfd.readouterr().out == f"wrote {output}\n"
    again = container.load(output)
    assert (again.cols, again.period) == (8, 2)
    (old,), (new,) = network.layers(), again.layers()
    assert (old.weights() == new.weights()).all()


@pytest.fixture
def quick(monkeypatch):
    """Spare the Verilog where it does not matter."""
    monkeypatch.setattr(
        generate,
        "sources",
        lambda config, names: {name: f"// {config.rows} {name}\n" for name in names},
    )


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("style", [None, "memory", "regbin"])
def test_generate_writes_the_accelerator(style, tmp_path, capfd):
    folder = tmp_path / "verilog"
    options = [] if style is None else ["--style", style]
    assert csp("generate", "--preset", "tiny_4x4", "-o", folder, *options) == 0
    out = capfd.readouterr().out
    assert out.splitlines() == [f"wrote {folder / path.name}" for path in sorted_as(out, folder)]
    config = json.loads((folder / "config.json").read_text())
    assert config["rows"] == 4
    assert config["style"] == (style or "memory")


@pytest.mark.usefixtures("quick")
def test_generate_says_why_there_is_no_core(tmp_path, capfd, monkeypatch):
    config = PRESETS["tiny_4x4"].replace(cols=12)
    monkeypatch.setitem(PRESETS, "tiny_4x4", config)
    assert csp("generate", "--preset", "tiny_4x4", "-o", tmp_path) == 0
    assert capfd.readouterr().out.splitlines()[-1] == (
        "only an engine, no csp_core and no csp_stream: "
        "cols of a core must be a power of two, not 12"
    )
    assert (tmp_path / "csp_engine.v").exists()
    assert not (tmp_path / "csp_core.v").exists()


def sorted_as(out, folder):
    """The files of a folder in the order in which they were printed; all of them must be."""
    files = sorted(folder.iterdir(), key=lambda path: out.find(path.name))
    assert files
    return files


# --- Everything that can be wrong ------------------------------------------------------------


def test_missing_file(refused, tmp_path):
    path = tmp_path / "none.csp"
    assert refused("inspect", path) == f"csp: {path}: cannot be read: No such file or directory\n"


def test_folder_instead_of_a_file(refused, tmp_path):
    assert str(tmp_path) in refused("inspect", tmp_path)


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_truncated_file(refused, file, size):
    file.write_bytes(file.read_bytes()[:size])
    assert str(file) in refused("inspect", file)


def test_damaged_file(refused, file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert f"{file}: the digest is not" in refused("inspect", file)


@pytest.mark.parametrize(
    ("cols", "period", "words"),
    [(0, 4, "cols must be 1"), (4, 99, "period must be 1 … 32, not 99"), (4, -1, "period")],
)
def test_repack_out_of_range(refused, file, tmp_path, cols, period, words):
    output = tmp_path / "out.csp"
    assert words in refused("repack", file, "--cols", cols, "--period", period, "-o", output)
    assert not output.exists()


def test_repack_into_a_missing_folder(refused, file, tmp_path):
    output = tmp_path / "no" / "out.csp"
    message = refused("repack", file, "--cols", 8, "--period", 4, "-o", output)
    assert str(output) in message


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--rate", 0, "must divide 8 bytes, not 0"),
        ("--rate", -4, "must divide 8 bytes, not -4"),
        ("--latency", -1, "must be 1 … 65535, not -1"),
    ],
)
def test_a_memory_out_of_range(refused, file, option, value, words):
    assert refused("run", file, option, value) == f"csp: {option} {words}\n"


def test_repack_tells_that_rounded_sums_change(tmp_path, capfd):
    rng = np.random.default_rng(3)
    layer = strategies.random_layer(rng, cols=4, period=4, acc_shift=3)
    file, output = tmp_path / "rounded.csp", tmp_path / "out.csp"
    container.save(strategies.network_of(layer), file)
    assert csp("repack", file, "--cols", 8, "--period", 4, "-o", output) == 0
    assert capfd.readouterr().out == f"wrote {output}\n"
    assert csp("repack", file, "--cols", 4, "--period", 8, "-o", output) == 0
    assert capfd.readouterr().out == (
        f"wrote {output}\nT was 4 and sums are rounded in {layer.name}: other integers come out\n"
    )


def test_unknown_preset(refused, tmp_path):
    output = tmp_path / "out"
    assert refused("generate", "--preset", "huge", "-o", output) == (
        "csp: unknown preset 'huge'; there are: tiny_4x4, csp_8x8, csp_h_32x32\n"
    )
    assert not output.exists()


def test_generate_over_something_else(refused, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    assert "letter.txt" in refused("generate", "--preset", "tiny_4x4", "-o", tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CspError("x.csp: layer conv1: count 9"), "x.csp: layer conv1: count 9"),
        (CspError("two\nlines"), "two lines"),
        (ConfigError("depth 3"), "depth 3"),
        (OSError(errno.ENOSPC, "No space left on device", "p"), "p: No space left on device"),
        (OSError(errno.EXDEV, "Invalid", "a", None, "b"), "a → b: Invalid"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
        (PermissionError(), "PermissionError"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_errors_become_one_line(refused, monkeypatch, file, error, line):
    def fail(_):
        raise error

    monkeypatch.setattr(container, "load", fail)
    assert refused("inspect", file) == f"csp: {line}\n"


def test_other_exceptions_are_bugs_and_are_seen(monkeypatch, file):
    def fail(_):
        raise ZeroDivisionError

    monkeypatch.setattr(container, "load", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["inspect", str(file)])


def test_wrong_use_exits_with_two(capfd):
    assert csp("inspect") == 2
    assert csp("nonsense") == 2
    assert csp("generate", "--preset", "tiny_4x4", "-o", "x", "--style", "wood") == 2
    assert "wood" in capfd.readouterr().err


def test_full_disk_leaves_nothing(file, tmp_path):
    """Files cannot grow beyond 100 bytes, which fails like a full disk does."""
    resource = pytest.importorskip("resource")
    output = tmp_path / "folder" / "out"
    output.parent.mkdir()
    command = ["repack", str(file), "--cols", "8", "--period", "4", "-o", str(output)]
    # Coverage writes its own file when the process ends, and would fail as well.
    environment = {name: os.environ[name] for name in os.environ if "COVERAGE" not in name}
    result = subprocess.run(
        [sys.executable, "-m", "sim", *command],
        cwd=ROOT,
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("csp: ")
    assert str(output) in result.stderr
    assert result.stderr.endswith("File too large\n")
    assert result.stderr.count("\n") == 1
    assert list(output.parent.iterdir()) == []
