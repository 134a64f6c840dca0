# SPDX-License-Identifier: Apache-2.0
"""From a configuration to a folder of Verilog that needs nothing else of this project.

============== ====================================================================================
csp_core.v     a top: the core with memory ports
csp_stream.v   a top: the core with streams
csp_body.v     what both have inside, around the engine
csp_engine.v   a top and the heart of both: streams of words in, streams of results out
csp_parts.v    what stands in the engine many times
csp_multiplier.v
               the multiplier of a processing element; csp_multiplier_ecp5.v may take its place
csp_core.f …   of each top its sources, as command files of simulators and synthesisers list them
config.json    the build-time parameters and the version of this generator
signals.json   every port of each top, and where fields lie in ports and in a descriptor
csp_regs.h     the registers in C
============== ====================================================================================

A configuration that is that of an engine only gives no more than an engine.
"""

import contextlib
import enum
import functools
import gc
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.back.verilog import _convert_rtlil_text
from amaranth.hdl import Shape
from amaranth.hdl._nir import Netlist
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from csp_hw import ports
from csp_hw.array import parts
from csp_hw.body import BODY_MODULE, Body
from csp_hw.config import ConfigError, CspConfig
from csp_hw.core import CORE_MODULE, Core, CoreSignature
from csp_hw.descriptor import DESCRIPTOR_BYTES, FIELDS
from csp_hw.engine import ENGINE_MODULE, Engine, EngineSignature
from csp_hw.feeder.bank import BANK_MODULE, LineBank
from csp_hw.output import COLUMN_MODULE, OutputColumn
from csp_hw.pe.multiplier import MULTIPLIER_MODULE, Ecp5Multiplier, Multiplier
from csp_hw.pool import pooler
from csp_hw.stream_core import STREAM_MODULE, StreamCore, StreamCoreSignature


class Top(enum.StrEnum):
    """The tops, by the names of their modules."""

    CORE = CORE_MODULE
    STREAM = STREAM_MODULE
    ENGINE = ENGINE_MODULE


#: File of what the engine instantiates many times.
PARTS = "csp_parts.v"
#: Files of the multiplier. Only the first one is in the lists; another one may take its place.
MULTIPLIER, ECP5_MULTIPLIER = f"{MULTIPLIER_MODULE}.v", f"{MULTIPLIER_MODULE}_ecp5.v"
_ENGINE = (MULTIPLIER, PARTS, f"{Top.ENGINE}.v")
#: The sources of each top, what is instantiated before what instantiates it.
SOURCES = {
    Top.CORE: (*_ENGINE, f"{BODY_MODULE}.v", f"{Top.CORE}.v"),
    Top.STREAM: (*_ENGINE, f"{BODY_MODULE}.v", f"{Top.STREAM}.v"),
    Top.ENGINE: _ENGINE,
}
#: The modules of each file.
MODULES: dict[str, Callable[[CspConfig], dict[str, wiring.Component]]] = {
    MULTIPLIER: lambda _: {MULTIPLIER_MODULE: Multiplier()},
    ECP5_MULTIPLIER: lambda _: {MULTIPLIER_MODULE: Ecp5Multiplier()},
    PARTS: lambda config: {**parts(config), COLUMN_MODULE: OutputColumn(config)},
    f"{Top.ENGINE}.v": lambda config: {Top.ENGINE: Engine(config, hierarchical=True)},
    f"{BODY_MODULE}.v": lambda config: {
        BANK_MODULE: LineBank(config),
        **pooler.parts(),
        BODY_MODULE: Body(config, hierarchical=True),
    },
    f"{Top.CORE}.v": lambda config: {Top.CORE: Core(config, hierarchical=True)},
    f"{Top.STREAM}.v": lambda config: {Top.STREAM: StreamCore(config, hierarchical=True)},
}
CONFIG, SIGNALS, REGISTERS = "config.json", "signals.json", "csp_regs.h"
LISTS = {top: f"{top}.f" for top in Top}
#: All that this module has ever written.
OURS = {*LISTS.values(), *MODULES, CONFIG, SIGNALS, REGISTERS, "files.f"}
#: Where the C header lies: in a checkout, and in an installed package.
HEADERS = (
    Path(__file__).parents[1] / "drivers" / "c" / REGISTERS,
    Path(__file__).parent / REGISTERS,
)
#: Version of config.json and signals.json.
FORMAT = 2


def stream_layouts(config: CspConfig) -> dict[str, data.Layout]:
    """Give the payloads of the streams that whoever uses the engine serves.

    All go in except ``results``. ``positions``, which also goes out, may be ignored.
    """
    return {
        "layer": ports.layer_layout(config),
        "params": ports.filter_layout(),
        "tiles": ports.tile_layout(config),
        "counts": ports.counts_layout(config),
        "weights": ports.weights_layout(config),
        "activations": ports.activations_layout(config),
        "residual": ports.results_layout(config),
        "results": ports.results_layout(config),
    }


def why_no_core(config: CspConfig) -> str | None:
    """Give the reason if a configuration is that of an engine only."""
    try:
        config.check_core()
    except ConfigError as error:
        return str(error)
    return None


def tops(config: CspConfig) -> tuple[Top, ...]:
    """Give what can be made of a configuration."""
    return tuple(Top) if why_no_core(config) is None else (Top.ENGINE,)


def engine_verilog(config: CspConfig) -> str:
    """Give the engine as one text; the same for the same configuration, byte for byte."""
    return top_verilog(config, Top.ENGINE)


def core_verilog(config: CspConfig) -> str:
    """Give the whole core as one text; the same for the same configuration, byte for byte.

    Raises
    ------
    ConfigError
        The configuration is that of an engine only.
    """
    return top_verilog(config, Top.CORE)


def top_verilog(config: CspConfig, top: Top) -> str:
    """Give a top as one text; the same for the same configuration, byte for byte.

    Raises
    ------
    ConfigError
        The configuration is that of an engine only, and another top is wanted.
    """
    if top is not Top.ENGINE:
        config.check_core()
    return "".join(sources(config, SOURCES[top]).values())


def sources(config: CspConfig, names: Iterable[str]) -> dict[str, str]:
    """Give the Verilog of files by their names.

    What repeats is elaborated once, as a module of its own: neither the time nor the text grows
    with rows × cols. Source locations would be paths of this machine, and half of the text.
    """
    # Yosys, a process of its own that takes a while to start, works beside the elaboration.
    with ThreadPoolExecutor(max_workers=1) as pool:
        convert = functools.partial(_convert_rtlil_text, strip_internal_attrs=True)
        texts = {name: pool.submit(convert, _netlist(config, name)) for name in names}
        return {name: text.result() for name, text in texts.items()}


def _netlist(config: CspConfig, name: str) -> str:
    """Give the modules of a file as RTLIL."""
    with _collector_paused(), _brief():
        return "".join(
            rtlil.convert(component, name=module, emit_src=False)
            for module, component in MODULES[name](config).items()
        )


def signals(config: CspConfig) -> dict[str, Any]:
    """Give the map of ports of each top, and of the fields of a descriptor.

    A port has a direction and a width. Of the engine's, those with fields have [offset, width,
    signed] of each. Bit 0 is the least significant one. A field that is itself an array or a
    structure has its own ``fields``; the elements of an array are named by their index.
    """
    made = tops(config)
    signatures = {Top.ENGINE: EngineSignature(config)}
    if Top.CORE in made:
        signatures |= {Top.CORE: CoreSignature(config), Top.STREAM: StreamCoreSignature(config)}
    described: dict[str, Any] = {
        "format": FORMAT,
        "tops": {top.value: {"ports": _ports(signatures[top])} for top in made},
    }
    described["tops"][Top.ENGINE]["streams"] = [*stream_layouts(config), "positions"]
    if Top.CORE in made:
        fields = {name: {"bit": bit, "width": width} for name, (bit, width) in FIELDS.items()}
        described["descriptor"] = {"bytes": DESCRIPTOR_BYTES, "fields": fields}
    return described


def _ports(signature: wiring.Signature) -> dict[str, Any]:
    """Describe the ports of a top."""
    described: dict[str, Any] = {
        "clk": {"direction": "input", "width": 1},
        "rst": {"direction": "input", "width": 1},
    }
    for path, member, value in signature.flatten(signature.create()):
        fields = {"width": Shape.cast(member.shape).width}
        if isinstance(value, data.View):
            fields = _fields(value.shape())
        direction = "output" if member.flow is Out else "input"
        described["__".join(map(str, path))] = {"direction": direction, **fields}
    return described


def generate(config: CspConfig, directory: str | os.PathLike[str]) -> list[Path]:
    """Write an accelerator; give the files.

    The folder appears complete or not at all. One that was generated before is replaced.

    Parameters
    ----------
    config : CspConfig
    directory : path
        Does not exist, is empty, or was made by this function and holds nothing else.

    Raises
    ------
    ConfigError
        The folder holds something else, or cannot be written (disk full, no permission); the
        message names it.
    """
    target = Path(directory).absolute()
    _check_target(target)
    made = tops(config)
    names = dict.fromkeys([*(name for top in made for name in SOURCES[top]), ECP5_MULTIPLIER])
    contents = sources(config, names)
    contents |= {LISTS[top]: "".join(f"{name}\n" for name in SOURCES[top]) for top in made}
    contents |= {
        CONFIG: _config_json(config),
        SIGNALS: json.dumps(signals(config), indent=1) + "\n",
    }
    if Top.CORE in made:
        contents[REGISTERS] = _registers()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_folder(target, contents)
    except OSError as error:
        what = error.strerror or error
        raise ConfigError(f"cannot write {target}: {what}") from error
    return [target / name for name in contents]


def _registers() -> str:
    """Give the C header of the registers."""
    return next(path for path in HEADERS if path.exists()).read_text(encoding="utf-8")


class _Emitter(rtlil.ModuleEmitter):
    """Amaranth's, without two things that are nearly all of a large core's text.

    Memories of zeros have no initial value: no block reads what it has not written, and
    memories of FPGAs begin with zeros anyway. Fields of structures have no wires of their own,
    which nothing reads.
    """

    def emit_memory(self, cell_idx, cell):
        if any(cell.init):
            super().emit_memory(cell_idx, cell)

    def emit_signal_fields(self):
        pass


@contextlib.contextmanager
def _brief() -> Iterator[None]:
    """Let Amaranth emit modules with :class:`_Emitter`, and look for no combinational cycles.

    Looking for them takes a sixth of the time, and is a test's work.
    """
    emitter, check = rtlil.ModuleEmitter, Netlist.check_comb_cycles
    rtlil.ModuleEmitter, Netlist.check_comb_cycles = _Emitter, lambda _: None
    try:
        yield
    finally:
        rtlil.ModuleEmitter, Netlist.check_comb_cycles = emitter, check


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Suspend the cycle collector: a netlist is millions of objects that all live to the end.

    Looking through them again and again takes a third of the time of a large array.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _config_json(config: CspConfig) -> str:
    try:
        version = importlib.metadata.version("csp-accelerator")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    header = {"format": FORMAT, "generator": f"csp-accelerator {version}"}
    return json.dumps(header | json.loads(config.to_json()), indent=2) + "\n"


def _fields(layout: data.Layout) -> dict[str, Any]:
    """Describe a layout."""
    fields = {}
    for name, field in layout:
        shape = field.shape
        if isinstance(shape, data.Layout):
            inner = _fields(shape)
        else:
            inner = {"width": field.width, "signed": Shape.cast(shape).signed}
        fields[str(name)] = {"offset": field.offset, **inner}
    return {"width": layout.size, "fields": fields}


def _check_target(target: Path) -> None:
    """Refuse to replace what this module did not write."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        raise ConfigError(f"{target} exists and is no folder")
    names = {path.name for path in target.iterdir()}
    if not names:
        return
    if not names <= OURS or not _is_ours(target / CONFIG):
        other = min(names - OURS, default=min(names))
        raise ConfigError(f"{target} holds {other}, which was not generated: choose another folder")


def _is_ours(path: Path) -> bool:
    try:
        header = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(header, dict) and str(header.get("generator")).startswith("csp-accelerator ")


def _write_folder(target: Path, contents: dict[str, str]) -> None:
    """Write all files into a new folder beside the target, then put it in the target's place."""
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh, old = work / "new", work / "old"
        fresh.mkdir()
        for name, text in contents.items():
            with (fresh / name).open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
