# SPDX-License-Identifier: Apache-2.0
"""From a configuration to a folder of Verilog that needs nothing else of this project.

============== ====================================================================================
csp_engine.v   the accelerator; its top is the module ``csp_engine``
config.json    the build-time parameters and the version of this generator
signals.json   every port, and where its fields lie in it
files.f        the sources, as command files of simulators and synthesisers list them
============== ====================================================================================
"""

import contextlib
import gc
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Shape
from amaranth.lib import data, wiring

from csp_hw import ports
from csp_hw.array import parts
from csp_hw.config import ConfigError, CspConfig
from csp_hw.core import Core
from csp_hw.counters import counters_layout
from csp_hw.engine import Engine
from csp_hw.output import COLUMN_MODULE, OutputColumn

#: Names of the tops.
TOP, CORE = "csp_engine", "csp_core"
VERILOG, CONFIG, SIGNALS, FILES = "csp_engine.v", "config.json", "signals.json", "files.f"
#: Version of config.json and signals.json.
FORMAT = 1


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


def engine_verilog(config: CspConfig) -> str:
    """Give the engine as one text; the same for the same configuration, byte for byte."""
    return _verilog({**_repeated(config), TOP: Engine(config, hierarchical=True)})


def core_verilog(config: CspConfig) -> str:
    """Give the whole core as one text; the same for the same configuration, byte for byte.

    Raises
    ------
    ConfigError
        The configuration is that of an engine only.
    """
    return _verilog({**_repeated(config), CORE: Core(config, hierarchical=True)})


def _repeated(config: CspConfig) -> dict[str, wiring.Component]:
    """Give what stands in a design rows × cols, or cols times."""
    return {**parts(config), COLUMN_MODULE: OutputColumn(config)}


def _verilog(modules: dict[str, wiring.Component]) -> str:
    """Give modules as one text.

    What repeats is elaborated once, as a module of its own: neither the time nor the text grows
    with rows × cols. Source locations are paths of this machine, and half of the text.
    """
    with _collector_paused():
        return "".join(
            verilog.convert(module, name=name, emit_src=False, strip_internal_attrs=True)
            for name, module in modules.items()
        )


def signals(config: CspConfig) -> dict[str, Any]:
    """Give the map of ports: direction, width, and [offset, width, signed] of each field.

    Bit 0 is the least significant one. A field that is itself an array or a structure has its own
    ``fields``; the elements of an array are named by their index.
    """
    described: dict[str, Any] = {
        "clk": {"direction": "input", "width": 1},
        "rst": {"direction": "input", "width": 1},
    }
    streams = stream_layouts(config) | {"positions": ports.position_layout(config)}
    for name, layout in streams.items():
        outward = name in ("results", "positions")
        forward, backward = ("output", "input") if outward else ("input", "output")
        described[f"{name}__payload"] = {"direction": forward, **_fields(layout)}
        described[f"{name}__valid"] = {"direction": forward, "width": 1}
        described[f"{name}__ready"] = {"direction": backward, "width": 1}
    described["counters"] = {"direction": "output", **_fields(counters_layout())}
    described["idle"] = {"direction": "output", "width": 1}
    described["kept"] = {"direction": "output", "width": 1}
    return {
        "format": FORMAT,
        "top": TOP,
        "streams": list(streams),
        "ports": described,
    }


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
    contents = {
        VERILOG: engine_verilog(config),
        CONFIG: _config_json(config),
        SIGNALS: json.dumps(signals(config), indent=1) + "\n",
        FILES: f"{VERILOG}\n",
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_folder(target, contents)
    except OSError as error:
        what = error.strerror or error
        raise ConfigError(f"cannot write {target}: {what}") from error
    return [target / name for name in contents]


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
    ours = {VERILOG, CONFIG, SIGNALS, FILES}
    if not names:
        return
    if not names <= ours or not _is_ours(target / CONFIG):
        other = min(names - ours, default=min(names))
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
