# SPDX-License-Identifier: Apache-2.0
"""The command line ``csp``.

Exit codes: 0, it worked; 1, the hardware differs from the golden model, or ONNX Runtime from what
was pruned; 2, something that the user gave or the machine lacks, in one line on stderr. Commands
import what they need when they run: ``csp --help`` loads neither numpy nor Amaranth.
"""

import enum
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from csp_algo.errors import CspError
from csp_hw.config import PRESETS, BufferStyle, ConfigError, CspConfig
from csp_hw.config import preset as csp_preset
from sim.model.constants import Setting
from sim.version import version

#: Exit codes beside 0.
EXIT_MISMATCH = 1
EXIT_ERROR = 2
#: What the demo runs unless told otherwise.
IMAGES = 16
PRESET = "csp_8x8"

app = typer.Typer(
    name="csp",
    help="From a pruned neural network to an accelerator in Verilog.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Simulator(enum.StrEnum):
    """Which program executes the Verilog."""

    VERILATOR = "verilator"
    ICARUS = "icarus"


class PruningRule(enum.StrEnum):
    """How the chunks that a tap keeps are chosen: csp_algo.prune.Rule, without numpy."""

    TAILS = "tails"
    PREFIX = "prefix"
    WHOLE = "whole"


class BudgetOf(enum.StrEnum):
    """What a budget is of: sim.costs.Of, without numpy."""

    WEIGHTS = "weights"
    CYCLES = "cycles"
    ENERGY = "energy"


NetworkFile = Annotated[Path, typer.Argument(metavar="FILE", help="A network (.csp).")]
PresetName = Annotated[
    str, typer.Option("--preset", help=f"Hardware configuration: {', '.join(PRESETS)}.")
]
ImageCount = Annotated[int, typer.Option(help="How many test images.")]
OtherNetwork = Annotated[
    Path | None, typer.Option(help="Another network than the one that comes along.")
]
OtherData = Annotated[
    Path | None, typer.Option(help="Other images (.npz with `images` and `labels`).")
]
MapBytes = Annotated[
    int, typer.Option(help="Map memory: bytes of maps that stay on the chip; a power of two.")
]
AccBits = Annotated[
    int | None, typer.Option(help="Width of a partial sum in bits, if not the preset's.")
]
MaxPeriod = Annotated[
    int | None, typer.Option(help="Largest truncation period T in taps, if not the preset's.")
]
SimulatorName = Annotated[Simulator, typer.Option(help="What executes the Verilog.")]


def _hardware(preset: str, **fields: object) -> CspConfig:
    """Give a preset with other fields; None leaves one as it is."""
    changed = {name: value for name, value in fields.items() if value is not None}
    return csp_preset(preset).replace(**changed)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"csp {version()}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def inspect(file: NetworkFile) -> None:
    """Show a network: layers, sparsity, counts."""
    from rich.console import Console

    from csp_algo import container
    from csp_algo import inspect as csp_inspect

    Console().print(*csp_inspect.describe(container.load(file), file))


@app.command()
def prune(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A network (.onnx).")],
    samples: Annotated[
        Path, typer.Option(help="Inputs to calibrate with: .npz, .npy or a folder of .npy.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The network to write (.csp).")],
    target: Annotated[
        float | None,
        typer.Option(help="Share of zeros in the layers that are pruned, between 0 and 1."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Instead of --target: the most that the network may cost, as a share of the "
            "dense one. How much each layer keeps is chosen for the least error."
        ),
    ] = None,
    of: Annotated[
        BudgetOf | None, typer.Option(help="What the budget is of: cycles if not given.")
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(help="Also write the pruned graph (.onnx), compared with ONNX Runtime."),
    ] = None,
    preset: PresetName = PRESET,
    rule: Annotated[
        PruningRule | None,
        typer.Option(
            help="With --target. tails: the CSP paper's; prefix: least error of each layer; whole, "
            "if not given: the same over all layers, whose sparsities then differ."
        ),
    ] = None,
    reorder: Annotated[
        bool, typer.Option("--reorder/--no-reorder", help="Put filters into a better order first.")
    ] = True,
    limit: Annotated[int, typer.Option(min=1, help="Most samples, the first ones.")] = 16,
) -> None:
    """Prune an ONNX network and make it integers."""
    from rich.console import Console

    from csp_algo.prune import Rule
    from sim import prune as csp_prune
    from sim.costs import Of

    options = csp_prune.Options(
        model=model,
        samples=samples,
        target=target,
        budget=budget,
        of=None if of is None else Of(of.value),
        output=output,
        preset=preset,
        rule=None if rule is None else Rule(rule.value),
        reorder=reorder,
        limit=limit,
        onnx=onnx,
    )
    if not csp_prune.run(options, Console()).equal:
        raise typer.Exit(EXIT_MISMATCH)


@app.command()
def repack(
    file: NetworkFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    cols: Annotated[int, typer.Option(help="Filters of a chunk: columns of the array.")],
    period: Annotated[int, typer.Option(help="Truncation period T: taps of a block.")],
) -> None:
    """Make a network anew for another array."""
    from csp_algo import container

    network = container.load(file)
    container.save(container.repack(network, cols=cols, period=period), output)
    typer.echo(f"wrote {output}")
    rounded = [layer.name for layer in network.layers() if layer.acc_shift]
    if rounded and period != network.period:
        typer.echo(
            f"T was {network.period} and sums are rounded in {', '.join(rounded)}: "
            "other integers come out"
        )


@app.command()
def generate(
    preset: PresetName,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    style: Annotated[
        BufferStyle | None, typer.Option(help="Accumulation buffer, if not the preset's.")
    ] = None,
    acc_bits: AccBits = None,
    max_period: MaxPeriod = None,
    map_bytes: MapBytes = 0,
) -> None:
    """Write an accelerator as Verilog."""
    from csp_hw import generate as csp_generate

    config = _hardware(
        preset, style=style, acc_bits=acc_bits, max_period=max_period, map_bytes=map_bytes
    )
    for path in csp_generate.generate(config, output):
        typer.echo(f"wrote {path}")
    reason = csp_generate.why_no_core(config)
    if reason is not None:
        typer.echo(f"only an engine, no csp_core and no csp_stream: {reason}")


@app.command("compile")
def compile_(
    file: NetworkFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    preset: PresetName = PRESET,
    images: Annotated[int, typer.Option(help="How many images the program takes.")] = IMAGES,
    acc_bits: AccBits = None,
    max_period: MaxPeriod = None,
    map_bytes: MapBytes = 0,
) -> None:
    """Make a network a program for software in C."""
    from csp_algo import container
    from sim import firmware as csp_firmware

    config = _hardware(preset, acc_bits=acc_bits, max_period=max_period, map_bytes=map_bytes)
    program, files = csp_firmware.compile_files(container.load(file), config, images, output)
    for path in files:
        typer.echo(f"wrote {path}")
    typer.echo(
        f"{len(program.passes)} descriptors, a window of {program.size:,} bytes, "
        f"{len(program.constants):,} of them constant"
    )


@app.command()
def demo(
    images: ImageCount = IMAGES,
    preset: PresetName = PRESET,
    simulator: SimulatorName = Simulator.VERILATOR,
    report: Annotated[Path, typer.Option(help="The page to write.")] = Path("build/report.html"),
    network: OtherNetwork = None,
    data: OtherData = None,
) -> None:
    """Classify images on generated Verilog."""
    from rich.console import Console

    from sim import demo as csp_demo

    options = csp_demo.Options(
        images=images,
        preset=preset,
        simulator=simulator.value,
        network=network or csp_demo.NETWORK,
        data=data or csp_demo.IMAGES,
    )
    if not csp_demo.run(options, report, Console()).exact:
        raise typer.Exit(EXIT_MISMATCH)


@app.command("run")
def run_network(
    network: NetworkFile,
    images: ImageCount = IMAGES,
    preset: PresetName = PRESET,
    simulator: SimulatorName = Simulator.VERILATOR,
    data: OtherData = None,
    latency: Annotated[int, typer.Option(help="Cycles from an address to its first beat.")] = 20,
    rate: Annotated[
        int | None, typer.Option(help="Bytes a cycle of each memory port, if not whole beats.")
    ] = None,
    acc_bits: AccBits = None,
    max_period: MaxPeriod = None,
    map_bytes: MapBytes = 0,
    copies: Annotated[
        bool,
        typer.Option(
            "--copies/--no-copies",
            help="Copy maps on the chip to memory and compare them, or leave them out.",
        ),
    ] = True,
) -> None:
    """Run a whole network on the core, layer after layer."""
    from rich.console import Console

    from sim import run as csp_run

    config = _hardware(preset, acc_bits=acc_bits, max_period=max_period, map_bytes=map_bytes)
    options = csp_run.Options(
        network=network,
        images=images,
        config=config,
        simulator=simulator.value,
        data=data,
        latency=latency,
        rate=rate,
        copies=copies,
    )
    if not csp_run.run(options, Console()):
        raise typer.Exit(EXIT_MISMATCH)


@app.command()
def firmware(
    images: ImageCount = IMAGES,
    preset: PresetName = PRESET,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path(
        "build/firmware"
    ),
    latency: Annotated[int, typer.Option(min=0, help="Of the memory, in cycles.")] = 20,
    network: OtherNetwork = None,
    data: OtherData = None,
) -> None:
    """Run the example's firmware in C on the generated Verilog."""
    from rich.console import Console

    from sim import demo as csp_demo
    from sim import firmware as csp_firmware

    options = csp_demo.Options(
        images=images,
        preset=preset,
        simulator=Simulator.VERILATOR.value,
        network=network or csp_demo.NETWORK,
        data=data or csp_demo.IMAGES,
    )
    if not csp_firmware.run(options, output, Console(), latency=latency):
        raise typer.Exit(EXIT_MISMATCH)


@app.command("run-tile")
def run_tile(
    layer: Annotated[str, typer.Option(help="The layer's name.")],
    tile: Annotated[int, typer.Option(help="Number of the tile in the layer's schedule.")] = 0,
    group: Annotated[int, typer.Option(help="Group of the convolution.")] = 0,
    wave: Annotated[Path | None, typer.Option(help="The waveform to write (.vcd).")] = None,
    images: ImageCount = IMAGES,
    preset: PresetName = PRESET,
    simulator: SimulatorName = Simulator.VERILATOR,
    network: OtherNetwork = None,
    data: OtherData = None,
) -> None:
    """Run one tile again, with a waveform."""
    from rich.console import Console

    from sim import demo as csp_demo
    from sim import tile as csp_tile

    options = csp_demo.Options(
        images=images,
        preset=preset,
        simulator=simulator.value,
        network=network or csp_demo.NETWORK,
        data=data or csp_demo.IMAGES,
    )
    result = csp_tile.run(options, Console(), layer=layer, group=group, tile=tile, wave=wave)
    if result.mismatch is not None:
        raise typer.Exit(EXIT_MISMATCH)


@app.command()
def report(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NETWORK",
            help="Some networks, if not all five; or vgg16_hed, resnet50_nsfw: their own zeros.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path(
        "build/comparison"
    ),
    setting: Annotated[Setting, typer.Option(help="Of the energy constants.")] = Setting.MID,
    seed: Annotated[int, typer.Option(help="Of the zeros that are drawn.")] = 0,
    sparten: Annotated[
        bool, typer.Option("--sparten/--no-sparten", help="Without it, seconds, not minutes.")
    ] = True,
) -> None:
    """Compare CSP-H with SparTen and others."""
    from rich.console import Console

    from sim.report.comparison import run as csp_report

    options = csp_report.Options(
        networks=tuple(networks or ()),
        output=output,
        setting=setting,
        seed=seed,
        sparten=sparten,
    )
    csp_report.run(options, Console())


def message(error: Exception) -> str:
    """Put an error of the user or of the machine into one line."""
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([" → ".join(names), error.strerror] if names else [error.strerror])
    return " ".join(str(error).split()) or type(error).__name__


def fail(error: Exception) -> NoReturn:
    """Say what is wrong in one line on stderr and exit with 2."""
    print(f"csp: {message(error)}", file=sys.stderr)
    sys.exit(EXIT_ERROR)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, or these arguments, and exit."""
    try:
        sys.exit(app(arguments, prog_name="csp"))
    except (CspError, ConfigError, OSError) as error:
        fail(error)
    except MemoryError:
        fail(CspError("not enough memory"))
