# SPDX-License-Identifier: Apache-2.0
"""Firmware in C on the simulated core: no Python, no cocotb, registers and memory only.

Verilator's model and the harness around it are one object, made once for each content. The
firmware is compiled and linked anew each time, in a second, for the program.h beside it.
"""

import json
import shutil
from pathlib import Path

from csp_hw.config import CspConfig
from csp_hw.generate import Top, core_verilog
from sim.cosim import cache
from sim.cosim.build import (
    OPTIMISE_FAST,
    OPTIMISE_SLOW,
    VERILATE,
    Report,
    Translator,
    generated,
    run,
    silent,
    slug,
)
from sim.cosim.toolchain import find_compiler
from sim.program.files import HEADER

ROOT = Path(__file__).resolve().parents[2]
#: The driver, and the example that uses it.
DRIVER, EXAMPLE = ROOT / "drivers" / "c", ROOT / "examples" / "firmware"
SOURCES = (DRIVER / "csp.c", DRIVER / "csp_program.c")
MAIN = EXAMPLE / "main.c"
HARNESS = EXAMPLE / "harness.cpp"
#: What the harness includes.
INCLUDED = (EXAMPLE / "platform.h", DRIVER / "csp.h")

#: The harness is the main program's platform, and looks at ports only.
ARGUMENTS = [each for each in VERILATE if each not in ("--exe", "--vpi")]
#: Of the firmware and of the harness; both take part in every cycle.
OPTIMISE = "-O2"
C_FLAGS = ("-x", "c", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", OPTIMISE)
VERILOG, PLATFORM, EXECUTABLE = "csp_core.v", "platform.o", "firmware"


def build_platform(config: CspConfig, *, report: Report | None = None) -> Path:
    """Give the object of core and harness, from the cache if it was made before.

    Parameters
    ----------
    config : CspConfig
    report : callable, optional
        Told what is being done.

    Raises
    ------
    CspError
        A tool is missing or fails, or the cache cannot be written.
    """
    tell = report or silent
    translator = Translator(ARGUMENTS)
    verilog = generated(config, VERILOG, lambda: core_verilog(config), tell)
    texts = {path.name: path.read_text(encoding="utf-8") for path in (HARNESS, *INCLUDED)}
    texts[VERILOG] = verilog
    levels = [OPTIMISE, OPTIMISE_FAST, OPTIMISE_SLOW]
    key = [translator.library_key, json.dumps([ARGUMENTS, levels])]
    parts = [part for name, text in texts.items() for part in (name, text)]

    def make(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        harness = {"harness": ([folder / HARNESS.name], OPTIMISE)}
        objects = translator.objects(folder, Top.CORE, [VERILOG], tell, more=harness)
        tell("linking", 0.95)
        # One object of many, so that nothing else of the cache is needed later.
        command = [*translator.compiler.command, "-r", "-nostdlib", "-o", PLATFORM]
        run([*command, *map(str, objects)], folder, "the simulator cannot be linked")
        shutil.rmtree(folder / "objects")

    folder = cache.obtain(f"firmware-{slug(config)}-{cache.digest([*key, *parts])}", make)
    return folder / PLATFORM


def build_firmware(
    config: CspConfig, folder: Path, *, main: Path = MAIN, report: Report | None = None
) -> Path:
    """Compile firmware for the program in a folder; give the executable there.

    Parameters
    ----------
    config : CspConfig
        Of the core to simulate.
    folder : Path
        Holds program.h.
    main : Path
        Its main program; that of the example if not given.
    report : callable, optional
        Told what is being done.

    Raises
    ------
    CspError
        A tool is missing or fails, or the cache cannot be written.
    """
    tell = report or silent
    platform = build_platform(config, report=report)
    compiler = find_compiler()
    assert (folder / HEADER).is_file()
    tell("compiling the firmware", 0.97)
    includes = [f"-I{path}" for path in (DRIVER, EXAMPLE, folder.resolve())]
    objects = []
    for source in (*SOURCES, main):
        objects.append(folder.resolve() / f"{source.stem}.o")
        command = [*compiler.command, *C_FLAGS, *includes, "-c", str(source)]
        run([*command, "-o", str(objects[-1])], folder, "the C compiler fails")
    executable = folder.resolve() / EXECUTABLE
    command = [*compiler.command, "-o", str(executable), *map(str, objects), str(platform)]
    run([*command, "-lpthread"], folder, "the firmware cannot be linked")
    for path in objects:
        path.unlink()
    return executable
