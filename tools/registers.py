# SPDX-License-Identifier: Apache-2.0
"""From csp_hw/registers.rdl to everything that knows the registers.

=========================== =======================================================================
drivers/c/csp_regs.h        the C header
csp_hw/register_map.py      the Python constants, from which the hardware is built, too
docs/registers.md           the table of the documentation
a folder of HTML            only with ``--html``: eight megabytes, most of them fonts
=========================== =======================================================================

Usage: ``python tools/registers.py [--html FOLDER]``, which is what ``make registers`` does.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from peakrdl_cheader.c_standards import CStandard
from peakrdl_cheader.exporter import CHeaderExporter
from systemrdl import RDLCompiler
from systemrdl.node import AddrmapNode, FieldNode, RegNode
from systemrdl.rdltypes import AccessType, OnWriteType, UserEnum

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "csp_hw" / "registers.rdl"
MARK = "Generated from csp_hw/registers.rdl by `make registers`: change it there."
#: What begins the end of a header, before which our own definitions go.
HEADER_END = "\n#ifdef __cplusplus\n}\n#endif\n"

#: How software sees a field: name in Python, name in the table, explanation.
ACCESS = {
    "FIXED": ("r", "fixed when the core is built"),
    "READ": ("r", "the hardware's value"),
    "WRITE": ("rw", "software's value"),
    "PULSE": ("w1", "writing 1 acts once; reads as 0"),
    "STICKY": ("rw1c", "set by the hardware, cleared by writing 1"),
}

#: The Python module without what depends on the registers.
MAP = '''# SPDX-License-Identifier: Apache-2.0
"""The registers of the core.

{mark}
"""

import enum
from typing import NamedTuple


class Access(enum.Enum):
    """How software sees a field."""

{classes}


class Field(NamedTuple):
    """Bits lsb … lsb + width − 1 of a register; without ``reset`` the hardware decides."""

    name: str
    lsb: int
    width: int
    access: Access
    reset: int | None


class Register(NamedTuple):
    """32 bits at a byte offset; those of no field are 0. All can be read, if only as zeros."""

    name: str
    offset: int
    access: str
    fields: tuple[Field, ...]


REGISTERS = (
{registers}
)
'''


def compiled() -> AddrmapNode:
    """Give the registers, elaborated."""
    compiler = RDLCompiler()
    compiler.compile_file(str(SOURCE))
    return compiler.elaborate().top


def access(field: FieldNode) -> str:
    """Give the kind of a field, a key of ``ACCESS``.

    Raises
    ------
    ValueError
        Its properties are of no kind that the hardware knows.
    """
    properties = ("sw", "hw", "onwrite", "onread", "singlepulse", "hwset")
    found = tuple(field.get_property(name) for name in properties)
    kinds = {
        (AccessType.r, AccessType.na, None, None, False, False): "FIXED",
        (AccessType.r, AccessType.w, None, None, False, False): "READ",
        (AccessType.rw, AccessType.r, None, None, False, False): "WRITE",
        (AccessType.w, AccessType.r, OnWriteType.woset, None, True, False): "PULSE",
        (AccessType.rw, AccessType.r, OnWriteType.woclr, None, False, True): "STICKY",
    }
    if found not in kinds:
        raise ValueError(f"{field.get_path()}: no hardware for {found}")
    return kinds[found]


def enums(top: AddrmapNode) -> list[type[UserEnum]]:
    """Give the enumerations that fields use, in the order of the fields."""
    found = [field.get_property("encode") for reg in top.registers() for field in reg.fields()]
    return list(dict.fromkeys(each for each in found if each is not None))


def describe(node: RegNode | FieldNode) -> str:
    """Give a description as one line.

    Raises
    ------
    ValueError
        There is none.
    """
    text = node.get_property("desc")
    if not text:
        raise ValueError(f"{node.get_path()} has no description")
    return " ".join(text.split())


def header(top: AddrmapNode) -> str:
    """Give the C header: PeakRDL's masks and structure, then offsets and enumerations.

    PeakRDL's structure is a packed one, which compilers for some processors access byte by byte: a
    driver takes the offsets.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "csp_regs.h"
        # With shared types the masks would be named after the types.
        CHeaderExporter().export(top, str(path), reuse_typedefs=False, std=CStandard.gnu11)
        text = path.read_text(encoding="utf-8")
    body, end, rest = text.rpartition(HEADER_END)
    if not end:
        raise ValueError("PeakRDL's header does not end as it did")
    lines = [f"// SPDX-License-Identifier: Apache-2.0\n// {MARK}\n//\n{body}"]
    prefix = top.inst_name.upper()
    lines.append("// Byte offsets")
    lines += [
        f"#define {prefix}__{reg.inst_name}__offset {reg.address_offset:#05x}"
        for reg in top.registers()
    ]
    for enum in enums(top):
        lines.append("")
        for member in enum.members.values():
            name = f"{prefix}__{enum.type_name.upper()}__{member.name}"
            lines.append(f"#define {name} {member.value} // {member.rdl_desc}")
    return "\n".join(lines) + "\n" + end + rest.rstrip() + "\n"


def register_map(top: AddrmapNode) -> str:
    """Give the Python module; it imports nothing of this project, so that it can be copied."""
    accesses = [f'    {name} = "{name.lower()}"  # {text}' for name, (_, text) in ACCESS.items()]
    classes = [*accesses, *_enum_lines(top)]
    registers = [line for reg in top.registers() for line in _register_lines(reg)]
    return MAP.format(mark=MARK, classes="\n".join(classes), registers="\n".join(registers))


def _enum_lines(top: AddrmapNode) -> Iterator[str]:
    """Give a class for each enumeration."""
    for enum in enums(top):
        yield ""
        yield ""
        yield f"class {enum.type_name.title().replace('_', '')}(enum.IntEnum):"
        yield f'    """Values of {_users(top, enum)}."""'
        yield ""
        for member in enum.members.values():
            yield f"    #: {member.rdl_desc}"
            yield f"    {member.name} = {member.value}"


def _register_lines(reg: RegNode) -> Iterator[str]:
    """Give a register of the map, in the form that ruff gives it, too."""
    yield "    Register("
    yield f'        "{reg.inst_name}",'
    yield f"        0x{reg.address_offset:03X},"
    yield f'        "{_register_access(reg)}",'
    fields = [_field(field) for field in reg.fields()]
    if len(fields) == 1:
        yield f"        ({fields[0]},),"
    else:
        yield "        ("
        yield from (f"            {field}," for field in fields)
        yield "        ),"
    yield "    ),"


def _field(field: FieldNode) -> str:
    """Give a field of the map."""
    reset = field.get_property("reset")
    place = f"{field.lsb}, {field.width}, Access.{access(field)}"
    return f'Field("{field.inst_name}", {place}, {f"0x{reset:X}" if reset else reset})'


def _users(top: AddrmapNode, enum: type[UserEnum]) -> str:
    """Give the fields that an enumeration belongs to."""
    names = [
        f"{reg.inst_name}.{field.inst_name}"
        for reg in top.registers()
        for field in reg.fields()
        if field.get_property("encode") is enum
    ]
    return ", ".join(names)


def _register_access(reg: RegNode) -> str:
    """Give r or rw; every register can be read, if only as zeros."""
    return "rw" if any(field.is_sw_writable for field in reg.fields()) else "r"


def table(top: AddrmapNode) -> str:
    """Give the table of the documentation."""
    lines = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f"<!-- {MARK} -->",
        "# Registers",
        "",
        "32 bits each, at byte offsets of the AXI4-Lite port; [core.md](core.md) says more.",
        "",
        *(f"- `{short}`: {text}" for short, text in _accesses()),
        "",
        "| offset | register | bits | field | access | reset | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for reg in top.registers():
        start = [f"0x{reg.address_offset:03X}", f"**{reg.inst_name}**"]
        rows = [(["", ""], *_cells(field)) for field in reg.fields()]
        if len(rows) == 1:
            rows = [(start, rows[0][1], f"{describe(reg)} {rows[0][2]}")]
        else:
            rows.insert(0, (start, [""] * 4, describe(reg)))
        for place, cells, text in rows:
            lines.append("".join(f"| {cell} " if cell else "| " for cell in [*place, *cells, text]))
            lines[-1] += "|"
    for enum in enums(top):
        lines += ["", f"## {_users(top, enum)}", "", "| value | name | |", "| --- | --- | --- |"]
        for member in enum.members.values():
            lines.append(f"| {member.value} | {member.name} | {member.rdl_desc} |")
    return "\n".join(lines) + "\n"


def _cells(field: FieldNode) -> tuple[list[str], str]:
    """Give bits, name, access and reset of a field, and its description."""
    bits = str(field.lsb) if field.width == 1 else f"{field.msb}:{field.lsb}"
    reset = field.get_property("reset")
    shown = "" if reset is None else f"{reset:#x}" if reset > 9 else str(reset)
    return [bits, field.inst_name, ACCESS[access(field)][0], shown], describe(field)


def _accesses() -> Iterator[tuple[str, str]]:
    """Give what is said about each kind of access; two of them read alike."""
    for short in dict.fromkeys(short for short, _ in ACCESS.values()):
        yield short, " or ".join(text for other, text in ACCESS.values() if other == short)


#: Each file in git and what writes it.
OUTPUTS: dict[str, Callable[[AddrmapNode], str]] = {
    "drivers/c/csp_regs.h": header,
    "csp_hw/register_map.py": register_map,
    "docs/registers.md": table,
}


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--html", metavar="FOLDER", type=Path, help="write pages there, too")
    arguments = parser.parse_args()
    top = compiled()
    for name, make in OUTPUTS.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(top), encoding="utf-8", newline="\n")
        print(name)
    if arguments.html is not None:
        from peakrdl_html import HTMLExporter

        HTMLExporter().export(top, str(arguments.html))
        print(f"{arguments.html}/index.html")


if __name__ == "__main__":
    main()
