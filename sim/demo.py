# SPDX-License-Identifier: Apache-2.0
"""The main job: real images through generated Verilog, every integer compared, one page."""

import dataclasses
import importlib.metadata
import json
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from csp_algo import arrays, container
from csp_algo.errors import CspError
from csp_algo.inspect import summarise
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Layer, MaxPool, Network, Pool
from csp_hw.config import CspConfig, preset
from sim import golden
from sim.cosim.build import ICARUS, Build, build
from sim.cosim.runner import LayerJob, LayerRun, network_jobs, run_layers
from sim.cosim.toolchain import find_icarus, find_verilator
from sim.report import page, terminal
from sim.report.model import HostRecord, LayerRecord, Report, Sample, cascade_picture
from sim.version import version

#: The network and the images that come along.
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "fashion_mnist"
NETWORK, IMAGES = EXAMPLE / "network.csp", EXAMPLE / "images.npz"
#: Classes of Fashion-MNIST, in the order of its labels.
FASHION_MNIST = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
#: Distributions whose versions the page tells.
TOOLS = ("amaranth", "cocotb", "numpy")
#: What the engine's counters call stalls, and what the report does.
STALLS = {
    "stalled_tiles": "no tile",
    "stalled_counts": "no block ready",
    "stalled_activations": "activations",
    "stalled_weights": "weights",
    "stalled_bank": "sums still draining",
    "stalled_drain": "last drain",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asks for.

    Parameters
    ----------
    images : int
        How many images, the first ones of ``data``.
    preset : str
        Configuration of the hardware.
    simulator : str
        ``verilator`` or ``icarus``.
    network, data : Path
        A network, and images with their labels.
    """

    images: int
    preset: str
    simulator: str
    network: Path = NETWORK
    data: Path = IMAGES


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Labelled images: uint8 [N, H, W, C] and int64 [N]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What is to be run: each layer with its activations and the integers that must come out."""

    config: CspConfig
    network: Network
    images: Images
    jobs: list[LayerJob]
    golden: golden.GoldenResult


def prepare(options: Options) -> Work:
    """Load what the user named and let the golden model compute it.

    Raises
    ------
    CspError, ConfigError
        There is no such preset, or a file is wrong or does not fit.
    """
    config = preset(options.preset)
    network = fitted(container.load(options.network), config)
    if not network.layers():
        raise CspError(f"{options.network}: network {network.name} has no layer for the engine")
    images = load_images(options.data, options.images, network.input)
    jobs, result = network_jobs(network, images.pixels, acc_bits=config.acc_bits)
    return Work(config=config, network=network, images=images, jobs=jobs, golden=result)


def load_images(path: Path, count: int, source: Input) -> Images:
    """Read the first images of a file and check that they fit a network.

    Parameters
    ----------
    path : Path
        An .npz file with ``images`` uint8 [N, H, W] or [N, H, W, C] and ``labels``, integers [N].
    count : int
        How many.
    source : Input
        The network's input; its type must be uint8.

    Raises
    ------
    CspError
        The file cannot be read, holds something else, or has fewer images.
    """
    with arrays.opened(path) as file:
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise CspError("is not a file of arrays: holds one without a name")
        for name in ("images", "labels"):
            if name not in file:
                raise CspError(f"has no array {name}")
        pixels, labels = file["images"], file["labels"]
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.shape[1:] != source.shape:
        raise CspError(
            f"{path}: images are {pixels.dtype} {list(pixels.shape[1:])}, "
            f"input {source.name} takes uint8 {list(source.shape)}"
        )
    if source.dtype is not ActDtype.UINT8:
        raise CspError(f"input {source.name} is {source.dtype.value}, images are uint8")
    if labels.shape != pixels.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise CspError(f"{path}: labels are {labels.dtype} {list(labels.shape)}")
    if not 1 <= count <= len(pixels):
        raise CspError(f"--images must be 1 … {len(pixels)}, not {count}")
    return Images(pixels=pixels[:count], labels=labels[:count].astype(np.int64))


def fitted(network: Network, config: CspConfig) -> Network:
    """Give the network in the form that an array needs; compressed anew only if it must be.

    Where partial sums are rounded the results depend on T, so that it stays if the array allows it.
    """
    if network.cols == config.cols and network.period <= config.max_period:
        return network
    period = config.max_period
    if any(layer.acc_shift for layer in network.layers()):
        period = min(network.period, period)
    return container.repack(network, config.cols, period)


def kind_of(node: Layer | Pool) -> str:
    """Say in words what a layer or a pool does."""
    if isinstance(node, Layer):
        geometry = node.geometry
        if geometry.in_shape[:2] == (1, 1) and geometry.kernel == (1, 1):
            return "linear"
        depthwise = geometry.groups > 1 and geometry.group_channels == 1
        size = "×".join(str(side) for side in geometry.kernel)
        return f"{size} {'depthwise ' if depthwise else ''}convolution"
    size = "×".join(str(side) for side in node.kernel)
    return f"{size} {'max' if isinstance(node, MaxPool) else 'average'} pool"


class Phases:
    """Shows one bar after the other on a terminal, one line each elsewhere, and keeps the time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        #: Wall-clock seconds of each phase that has ended.
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[str, float], None]]:
        """Give a function that takes what is being done and the share 0 … 1 that is done."""
        task = self._bars.add_task(name, total=1.0)

        def tell(what: str, share: float) -> None:
            self._bars.update(
                task, description=f"{name}: {what}" if what else name, completed=share
            )

        start = time.monotonic()
        yield tell
        self.seconds[name] = time.monotonic() - start
        tell("", 1.0)
        if not self._console.is_terminal:
            self._console.print(f"{name}: {self.seconds[name]:.1f} s", highlight=False)


def layer_record(network: Network, run: LayerRun, job: LayerJob) -> LayerRecord:
    """Put together what is said of one layer that has run.

    Parameters
    ----------
    network : Network
    run : LayerRun
    job : LayerJob
        What was asked for.
    """
    layer, total = run.layer, run.total
    geometry, matrix = layer.geometry, layer.matrices[0]
    summary = summarise(layer)
    interleaves = {tile.interleave for schedule in run.schedules for tile in schedule.tiles}
    return LayerRecord(
        name=layer.name,
        kind=kind_of(layer),
        in_shape=geometry.in_shape,
        out_shape=geometry.out_shape,
        groups=geometry.groups,
        filters=geometry.filters,
        taps=geometry.taps,
        chunks=matrix.chunks,
        period=network.period,
        interleaves=tuple(sorted(interleaves)),
        tiles=sum(len(schedule.tiles) for schedule in run.schedules),
        zero_weights=summary.weights - summary.nonzero,
        bits=8 * summary.bytes,
        cascade=cascade_picture(matrix.decompress(), matrix.counts, network.cols),
        compared=run.outputs.size,
        mismatches=run.mismatches,
        cycles=run.cycles,
        bound=sum(schedule.bound().cycles for schedule in run.schedules),
        stalls={name: total[counter] for counter, name in STALLS.items()},
        slots=sum(schedule.slots for schedule in run.schedules),
        useful=sum(schedule.useful for schedule in run.schedules),
        gated=sum(schedule.gated(job.inputs) for schedule in run.schedules),
        saturations=total["saturations"],
    )


def run(options: Options, path: Path, console: Console) -> Report:
    """Do all of it: load, compute, build, execute, compare, print, and write the page.

    A difference between hardware and golden model is no exception: it is in the report.

    Raises
    ------
    CspError, ConfigError, OSError
        Something that the user gave is wrong, a tool is missing, or the page cannot be written.
    """
    with Phases(console) as phases:
        with phases.phase("golden model"):
            work = prepare(options)
        with phases.phase("Verilog and its simulator") as tell:
            built = build(work.config, simulator=options.simulator, report=tell)
        with phases.phase("simulation") as tell:
            runs = list(run_layers(built, work.jobs, report=tell))
    report = report_of(options, work, built, runs, phases.seconds)
    terminal.show(console, report)
    page.write(report, path)
    console.print(f"The figures are on one page: {path}", markup=False, highlight=False)
    return report


def report_of(
    options: Options,
    work: Work,
    built: Build,
    runs: Sequence[LayerRun],
    seconds: Mapping[str, float],
) -> Report:
    """Put together all that is said of a run; it has fewer layers if it ended at a mismatch."""
    network = work.network
    records = [layer_record(network, run, job) for run, job in zip(runs, work.jobs, strict=False)]
    return Report(
        network=network.name,
        description=describe(network),
        preset=options.preset,
        hardware=hardware_of(work.config),
        simulator=simulator_of(built),
        layers=tuple(records),
        host=host_records(network),
        samples=samples_of(work, runs),
        classes=FASHION_MNIST if "Fashion-MNIST" in network.metadata.get("dataset", "") else (),
        seconds=seconds,
        provenance=provenance_of(network, options),
        commands=("make demo", command("demo", options)),
        mismatch=first_mismatch(runs, work.golden, options),
    )


def host_records(network: Network) -> tuple[HostRecord, ...]:
    """Give the nodes with arithmetic that the hardware does not do yet."""
    kinds = {node.name: kind_of(node) for node in network.nodes if isinstance(node, Pool)}
    shapes = network.shapes()
    return tuple(
        HostRecord(name=name, kind=kind, out_shape=shapes[name]) for name, kind in kinds.items()
    )


def first_mismatch(
    runs: Sequence[LayerRun], expected: golden.GoldenResult, options: Options
) -> str:
    """Say where hardware and golden model first differ, and how to see it again; empty if not."""
    for run in runs:
        name = run.layer.name
        if run.mismatch is not None:
            again = command("run-tile", options, *run.mismatch.options(), "--wave", "tile.vcd")
            return f"{run.mismatch}. With a waveform: {again}"
        counted, wanted = run.total["saturations"], expected.saturations[name]
        if counted != wanted:
            return f"layer {name}: {counted} saturations were counted, not {wanted}"
    return ""


def samples_of(work: Work, runs: Sequence[LayerRun]) -> tuple[Sample, ...]:
    """Give the images with their classes, those of the hardware only if it came to the end."""
    pixels, labels = work.images.pixels, work.images.labels.tolist()
    rtl: list[int | None] = [None] * len(labels)
    if runs and runs[-1].layer is work.network.output:
        rtl = runs[-1].outputs.reshape(len(labels), -1).argmax(axis=1).tolist()
    shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    return tuple(
        Sample(image=image, label=label, golden=best, rtl=chosen)
        for image, label, best, chosen in zip(
            shown, labels, work.golden.argmax.tolist(), rtl, strict=True
        )
    )


def describe(network: Network) -> str:
    """Say in a sentence what the network is."""
    summaries = [summarise(layer) for layer in network.layers()]
    weights = sum(summary.weights for summary in summaries)
    zero = 1 - sum(summary.nonzero for summary in summaries) / weights
    return f"{len(summaries)} layers, {weights:,} weights, {zero:.1%} of them zero"


def hardware_of(config: CspConfig) -> dict[str, str]:
    """Give the configuration's fields in words."""
    return {name: str(value) for name, value in json.loads(config.to_json()).items()}


def simulator_of(built: Build) -> str:
    """Give the simulator's name and version."""
    if built.simulator == ICARUS:
        return find_icarus().version
    return f"Verilator, {find_verilator().version}"


def provenance_of(network: Network, options: Options) -> Mapping[str, str]:
    """Give what is needed to get the same numbers again."""
    tools = [f"{name} {importlib.metadata.version(name)}" for name in TOOLS]
    versions = [f"csp {version()}", *tools, f"Python {platform.python_version()}"]
    return {
        "network": f"{options.network.name}, SHA-256 {container.digest(network)}",
        **network.metadata,
        "images": f"the first {options.images} of {options.data.name}",
        "made with": ", ".join(versions),
    }


def command(name: str, options: Options, *more: str) -> str:
    """Give the command line that does the same, or another command on the same things."""
    parts = ["csp", name, "--preset", options.preset, "--images", str(options.images)]
    if options.simulator != "verilator":
        parts += ["--simulator", options.simulator]
    for option, path, default in (
        ("--network", options.network, NETWORK),
        ("--data", options.data, IMAGES),
    ):
        if path != default:
            parts += [option, str(path)]
    return shlex.join([*parts, *more])
