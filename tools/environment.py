# SPDX-License-Identifier: Apache-2.0
"""Make the virtual environment and install this project with one of its extras, quietly.

Usage: ``python tools/environment.py VENV core|test|synth|…``. Standard library only. Pip's own
output is thousands of lines nobody reads: one line shows what it is at, and only if it fails is
the end of its output printed. On success VENV/NAME.stamp is written, the file that make looks at.

Packages of which only files are used are listed under ``[tool.csp.alone]`` in pyproject.toml, by
extra: they are installed behind it, without what they depend on.
"""

import collections
import os
import subprocess
import sys
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What pip says when it starts on something, and how we call that.
STEPS = {
    "Collecting": "looking up",
    "Downloading": "downloading",
    "Using": "reading",
    "Building": "building",
    "Installing": "installing",
}


def describe(line: str) -> str | None:
    """Give the short form of a line of pip's output, or None if it says nothing of interest."""
    words = line.split()
    if not words or words[0] not in STEPS:
        return None
    if words[0] == "Installing":
        return "installing" if "collected" in words else None
    if words[0] == "Building":
        return "building"
    # The second word is a requirement, a URL or a file; "Using cached FILE" has one more.
    name = words[2] if words[0] == "Using" and len(words) > 2 else words[1]
    name = name.rsplit("/", 1)[-1]
    for mark in "[<>=!~;-":
        name = name.split(mark)[0]
    return f"{STEPS[words[0]]} {name}"


def alone(project: str, extra: str) -> list[str]:
    """Give the packages that an extra wants without their dependencies.

    Parameters
    ----------
    project : str
        The text of pyproject.toml.
    extra : str
    """
    listed: list[str] = tomllib.loads(project)["tool"]["csp"]["alone"].get(extra, [])
    return listed


def install(python: Path, requirements: list[str]) -> int:
    """Run pip, showing one line that changes; give its exit code."""
    command = [str(python), "-m", "pip", "install", "--no-input", "--progress-bar=off"]
    command += ["--disable-pip-version-check", *requirements]
    terminal = sys.stdout.isatty()
    tail: collections.deque[str] = collections.deque(maxlen=25)
    start = time.monotonic()
    shown = start
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        for line in pip.stdout or ():
            tail.append(line)
            step = describe(line)
            if step is None:
                continue
            now = time.monotonic()
            if terminal:
                print(f"\r\033[K  {now - start:4.0f} s  {step}", end="", flush=True)
            elif now - shown > 10 or step == "installing":
                print(f"  {now - start:4.0f} s  {step}", flush=True)
                shown = now
    if terminal:
        print("\r\033[K", end="", flush=True)
    if pip.returncode:
        sys.stderr.writelines(tail)
        what = " ".join(requirements)
        print(f"csp: pip could not install {what} (its last lines are above)", file=sys.stderr)
    return pip.returncode


def main(arguments: list[str]) -> int:
    """Make or complete the environment; give the exit code."""
    if len(arguments) != 2:
        print("usage: environment.py VENV core|EXTRA", file=sys.stderr)
        return 2
    folder, extra = Path(arguments[0]), arguments[1]
    requirement = "." if extra == "core" else f".[{extra}]"
    python = folder / "bin" / "python"
    start = time.monotonic()
    print(f"Installing {requirement} into {folder} (once; core needs about 90 MB of downloads)")
    try:
        # Without any stamp it was interrupted, or made by something else: begin anew.
        fresh = not any(folder.glob("*.stamp"))
        venv.create(folder, with_pip=True, clear=fresh, symlinks=os.name != "nt")
        if install(python, ["--editable", requirement]):
            return 2
        files = alone((ROOT / "pyproject.toml").read_text(), extra)
        if files and install(python, ["--no-deps", *files]):
            return 2
        for name in ("core", extra):  # every extra contains the core
            (folder / f"{name}.stamp").touch()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"csp: cannot make the environment {folder}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ncsp: interrupted; run it again to go on", file=sys.stderr)
        return 130
    print(f"  done in {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
