# SPDX-License-Identifier: Apache-2.0
"""The example's firmware on the simulated core, held against the golden model."""

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import numpy as np
from rich.console import Console

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.integers import Ints
from csp_algo.network import Network
from csp_hw.config import CspConfig, preset
from sim import golden
from sim.cosim.firmware import build_firmware
from sim.demo import Options, Phases, fitted, load_images
from sim.golden import Maps
from sim.program import files
from sim.program.compiler import compile_network
from sim.program.program import Program

IMAGES = "images.bin"
#: Names the memory's latency in the environment of the firmware.
LATENCY = "CSP_LATENCY"
IMAGE = re.compile(r"image (\d+): class (\d+), logits((?: -?\d+)+)")
CYCLES = re.compile(r"(\d+) cycles, (\d+) descriptors")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What the firmware printed.

    Parameters
    ----------
    classes : int64 [N]
    logits : int64 [N, values]
    cycles : int
        Of the core, from start to end.
    descriptors : int
        That were run.
    """

    classes: Ints
    logits: Ints
    cycles: int
    descriptors: int

    def differences(self, expected: golden.GoldenResult) -> int:
        """Give how many logits and classes are not those of the golden model."""
        logits = expected.logits.reshape(len(expected.logits), -1)
        if self.logits.shape != logits.shape:
            return logits.size + len(expected.argmax)
        different = np.count_nonzero(self.logits != logits)
        return int(different + np.count_nonzero(self.classes != expected.argmax))


def compile_files(
    network: Network, config: CspConfig, images: int, folder: Path
) -> tuple[Program, list[Path]]:
    """Compile a network for a core, compressed anew if it must be; write its files.

    Raises
    ------
    CspError, OSError
        Something does not fit, or a file cannot be written.
    """
    program = compile_network(fitted(network, config), config, images)
    return program, files.write(program, folder)


def write_images(folder: Path, images: Maps) -> None:
    """Write images [N, H, W, C] as the firmware reads them.

    Raises
    ------
    CspError
        The file cannot be written.
    """
    little = images.astype(images.dtype.newbyteorder("<"))
    container.write_atomically(folder / IMAGES, little.tobytes())


def execute(folder: Path, executable: Path, *, latency: int = 20) -> str:
    """Run the firmware on the files in a folder; give what it prints.

    Parameters
    ----------
    folder : Path
    executable : Path
    latency : int
        Of the memory, in cycles.

    Raises
    ------
    CspError
        It ends with an error; its own words are in the message.
    """
    command = [str(executable), str(folder / files.CONSTANTS), str(folder / IMAGES)]
    result = subprocess.run(
        command,
        env={**os.environ, LATENCY: str(latency)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise CspError(result.stderr.strip() or f"the firmware ends with {result.returncode}")
    return result.stdout


def read_output(text: str) -> Outcome:
    """Read what the firmware printed.

    Raises
    ------
    CspError
        Something is missing.
    """
    images, cycles = IMAGE.findall(text), CYCLES.search(text)
    if cycles is None or [int(number) for number, _, _ in images] != list(range(len(images))):
        raise CspError("the firmware does not print what it should")
    return Outcome(
        classes=np.array([int(best) for _, best, _ in images], dtype=np.int64),
        logits=np.array([logits.split() for _, _, logits in images], dtype=np.int64),
        cycles=int(cycles[1]),
        descriptors=int(cycles[2]),
    )


def run(options: Options, folder: Path, console: Console, *, latency: int = 20) -> bool:
    """Do all of it: compile, build, execute, compare and print; give whether all is equal.

    Raises
    ------
    CspError, ConfigError, OSError
        Something that the user gave is wrong, a tool is missing, or the core reports an error.
    """
    config = preset(options.preset)
    with Phases(console) as phases:
        with phases.phase("golden model"):
            network = fitted(container.load(options.network), config)
            images = load_images(options.data, options.images, network.input).pixels
            expected = golden.run(network, images, acc_bits=config.acc_bits)
        with phases.phase("program"):
            compile_files(network, config, options.images, folder)
            write_images(folder, images)
        with phases.phase("simulator and firmware") as tell:
            executable = build_firmware(config, folder, report=tell)
        with phases.phase("simulation"):
            printed = execute(folder, executable, latency=latency)
    console.print(printed, markup=False, highlight=False, soft_wrap=True, end="")
    different = read_output(printed).differences(expected)
    words = f"{different} of them differ from" if different else "all equal to"
    console.print(
        f"{expected.logits.size:,} logits and {options.images} classes, {words} the golden model",
        highlight=False,
    )
    return different == 0
