# SPDX-License-Identifier: Apache-2.0
"""The command ``csp run``: a network from a file, on the core and on the golden model."""

import dataclasses
from pathlib import Path

import numpy as np
from rich.console import Console

from csp_algo import container
from csp_algo.errors import CspError, check_int
from csp_hw.config import CspConfig
from sim import demo, execute
from sim.cosim.core.jobs import LATENCY_LIMIT, Timing
from sim.model.bound import pass_bound
from sim.program.plan import Choices
from sim.report import passes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is run, and on what.

    Parameters
    ----------
    network : Path
    images : int
        How many of the first ones.
    config : CspConfig
    simulator : str
    data : Path, optional
        Images and labels, if not those of the demo.
    latency : int
        Of the memory: cycles from an address to its first beat, and from the last to its answer.
    rate : int, optional
        Bytes a cycle of each port of the memory; whole beats if not given.
    copies : bool
        Maps on the chip are copied to memory and compared.
    """

    network: Path
    images: int
    config: CspConfig
    simulator: str
    data: Path | None
    latency: int
    rate: int | None
    copies: bool = True


def run(options: Options, console: Console) -> bool:
    """Run the network, print what it did, and say whether all is equal to the golden model.

    Raises
    ------
    CspError
        Something does not fit, a tool is missing, or the core reports an error.
    """
    config = options.config
    check_int("--latency", options.latency, 1, LATENCY_LIMIT)
    if options.rate is not None and (options.rate < 1 or config.cols % options.rate):
        raise CspError(f"--rate must divide {config.cols} bytes, not {options.rate}")
    network = demo.fitted(container.load(options.network), config)
    images = demo.load_images(options.data or demo.IMAGES, options.images, network.input)
    timing = Timing(
        read_latency=options.latency,
        write_latency=options.latency,
        read_rate=options.rate,
        write_rate=options.rate,
    )
    with demo.Phases(console) as phases:
        with phases.phase("golden model"):
            choices = Choices(expose=options.copies)
            task = execute.Task.make(network, config, images.pixels, choices)
        with phases.phase("Verilog and its simulator") as tell:
            built = execute.build(config, simulator=options.simulator, report=tell)
        runs = []
        with phases.phase("core") as tell:
            for done in execute.run(task, built, timing=timing):
                runs.append(done)
                tell(done.step.title, len(runs) / len(task.program.passes))
    bounds = [pass_bound(done.step, timing) for done in runs]
    if config.map_bytes:
        console.print(passes.place_table(task.program))
    exact = passes.show(console, runs, bounds, hidden=passes.not_compared(task.program))
    classes = task.values[task.output].reshape(options.images, -1).argmax(axis=1)
    right = int(np.count_nonzero(classes == images.labels))
    if exact:
        console.print(
            f"{right} of {options.images} images right, on the core as in the golden model"
        )
    return exact
