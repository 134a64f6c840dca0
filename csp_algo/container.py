# SPDX-License-Identifier: Apache-2.0
"""The container of a network: one safetensors file, arrays and one JSON header.

Arrays of a layer, named ``<layer>.<field>``: counts uint8 [groups, J], words int8 [N, cols] (the
streams of the groups one after the other), bias int32 [M], mult uint16 [M], shift uint8 [M],
filter_order int32 [M]. The header is the metadata entry ``csp``. Its digest is the SHA-256 of the
canonical header without the digest and, sorted by name, of each array's [name, dtype, shape] as
canonical JSON and its bytes, all separated by line feeds.

A file is data from strangers: whatever is unknown, missing or wrong is refused by name.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import secrets
import stat
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from csp_algo import header
from csp_algo.compress import CompressedMatrix, compress
from csp_algo.errors import CspError, check_int, located
from csp_algo.geometry import COLS_LIMIT, Geometry
from csp_algo.network import AvgPool, Concat, Flatten, Input, Layer, MaxPool, Network, Node

#: Version of the format.
VERSION = 1
#: Largest file and largest JSON text that are read, in bytes.
FILE_LIMIT, HEADER_LIMIT = 2**31, 2**24
#: Largest extent of an array.
ARRAY_LIMIT = 2**31

Arrays = Mapping[str, npt.NDArray[Any]]

#: The library's function has no annotations.
_deserialize: Callable[[bytes], list[tuple[str, Any]]] = safetensors.deserialize

_KINDS: dict[str, type[Node]] = {
    "layer": Layer,
    "max_pool": MaxPool,
    "avg_pool": AvgPool,
    "concat": Concat,
    "flatten": Flatten,
}
_DTYPES = {"I8": "<i1", "U8": "<u1", "U16": "<u2", "I32": "<i4"}
_VECTORS = {"bias": "int32", "mult": "uint16", "shift": "uint8", "filter_order": "int32"}
_FIELDS = {"version", "digest", "name", "input", "nodes", "cols", "period", "metadata"}
#: Fields of a layer that are arrays, not JSON.
_STORED = {"matrices", *_VECTORS}


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network to a file, completely or not at all.

    Raises
    ------
    CspError
        The file cannot be written; what was there before is untouched.
    """
    write_atomically(path, to_bytes(network))


def load(path: str | os.PathLike[str]) -> Network:
    """Read a network from a file and check all of it.

    Raises
    ------
    CspError
        The file cannot be read or is not exactly what the format says; the message names the
        file and what is wrong.
    """
    with located(os.fspath(path)):
        return from_bytes(_read(pathlib.Path(path)))


def to_bytes(network: Network) -> bytes:
    """Give the contents of the file; equal networks give equal bytes."""
    document, arrays = _document(network), _arrays(network)
    document["digest"] = digest_of(document, arrays)
    text = header.canonical(document)
    return safetensors.numpy.save(dict(arrays), {"csp": text})


def from_bytes(data: bytes) -> Network:
    """Give the network from the contents of a file.

    Raises
    ------
    CspError
        See :func:`load`.
    """
    document, arrays = _parse(data)
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or version != VERSION:
        raise CspError(f"the format's version must be {VERSION}, not {version!r:.40}")
    header.check_names(document, _FIELDS, "the header")
    expected = digest_of(document, arrays)
    if document["digest"] != expected:
        raise CspError(f"the digest is not {expected}: the file is damaged or was edited")
    return _network(document, arrays)


def digest(network: Network) -> str:
    """Give the SHA-256 that the container of a network has, in hexadecimal."""
    return digest_of(_document(network), _arrays(network))


def digest_of(document: Mapping[str, Any], arrays: Arrays) -> str:
    """Give the SHA-256 of a header (its own digest is left out) and arrays."""
    bare = {name: value for name, value in document.items() if name != "digest"}
    result = hashlib.sha256(header.canonical(bare).encode() + b"\n")
    for name, array in sorted(arrays.items()):
        head = header.canonical([name, array.dtype.name, list(array.shape)])
        result.update(head.encode() + b"\n")
        result.update(np.ascontiguousarray(array).data)
        result.update(b"\n")
    return result.hexdigest()


def repack(network: Network, cols: int, period: int) -> Network:
    """Compress a network anew for an array of ``cols`` columns and another period T.

    Raises
    ------
    CspError
        A layer has too many chunks, or a value is out of range.
    """

    def packed(node: Node) -> Node:
        if not isinstance(node, Layer):
            return node
        with located(f"network {network.name}: layer {node.name}"):
            matrices = (compress(matrix.decompress(), cols, period) for matrix in node.matrices)
            return dataclasses.replace(node, matrices=tuple(matrices))

    nodes = tuple(packed(node) for node in network.nodes)
    return dataclasses.replace(network, nodes=nodes, cols=cols, period=period)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file by way of a temporary one beside it, so that it is whole or not there.

    Raises
    ------
    CspError
        It cannot be written (no such directory, disk full …), or something other than a file is
        there (a rename would replace even a device); nothing is left behind.
    """
    target = pathlib.Path(path)
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        if os.path.lexists(target) and not target.is_file():
            raise CspError(f"{target}: cannot be written: is not a file")
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise CspError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _read(path: pathlib.Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CspError("is not a file")
        if status.st_size > FILE_LIMIT:
            raise CspError(f"has {status.st_size} bytes, more than {FILE_LIMIT}")
        return path.read_bytes()
    except OSError as error:
        raise CspError(f"cannot be read: {error.strerror}") from error


def _parse(data: bytes) -> tuple[Any, Arrays]:
    """Take a file apart into the JSON header and the arrays, none of them trusted yet."""
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, HEADER_LIMIT):
        raise CspError("is truncated, or no safetensors file")
    outer = header.parse(data[8 : 8 + length])  # the library would accept repeated names
    try:
        entries = _deserialize(data)
    except safetensors.SafetensorError as error:
        raise CspError(f"is no safetensors file: {str(error)[:120]}") from error
    metadata = outer.get("__metadata__")
    if metadata is None:
        raise CspError("has no CSP header")
    header.check_names(metadata, {"csp"}, "the metadata")
    return header.parse(metadata["csp"]), {name: _array(name, entry) for name, entry in entries}


def _array(name: str, entry: Mapping[str, Any]) -> npt.NDArray[Any]:
    if entry["dtype"] not in _DTYPES:
        raise CspError(f"array {name!r:.80} has the type {entry['dtype']}, which CSP does not use")
    if max(entry["shape"], default=0) > ARRAY_LIMIT:
        raise CspError(f"array {name!r:.80} has the shape {entry['shape']}")
    return np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _document(network: Network) -> dict[str, Any]:
    kinds = {cls: kind for kind, cls in _KINDS.items()}
    nodes = [
        {"kind": kinds[type(node)], **header.encode(node, _skipped(type(node)))}
        for node in network.nodes
    ]
    return {"version": VERSION, **header.encode(network, {"nodes"}), "nodes": nodes}


def _arrays(network: Network) -> Arrays:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for layer in network.layers():
        counts = np.stack([matrix.counts for matrix in layer.matrices])
        words = np.concatenate([matrix.words for matrix in layer.matrices])
        arrays |= {f"{layer.name}.counts": counts, f"{layer.name}.words": words}
        for field in _VECTORS:
            arrays[f"{layer.name}.{field}"] = np.ascontiguousarray(getattr(layer, field))
    return arrays


def _skipped(cls: type[Node]) -> set[str]:
    return _STORED if cls is Layer else set()


def _network(document: dict[str, Any], arrays: Arrays) -> Network:
    shelf = _Shelf(arrays)
    cols = header.decode(int, document["cols"], "cols")
    check_int("cols", cols, 1, COLS_LIMIT)
    period = header.decode(int, document["period"], "period")
    nodes = header.decode(list, document["nodes"], "nodes")
    network = Network(
        name=header.decode(str, document["name"], "name"),
        input=Input(**header.fields(Input, document["input"], "input")),
        nodes=tuple(_node(item, index, cols, period, shelf) for index, item in enumerate(nodes)),
        cols=cols,
        period=period,
        metadata=header.decode(dict[str, str], document["metadata"], "metadata"),
    )
    for name in arrays.keys() - shelf.taken:
        raise CspError(f"there is an unknown array {name!r:.80}")
    return network


def _node(item: Any, index: int, cols: int, period: int, shelf: "_Shelf") -> Node:
    if not isinstance(item, dict):
        raise CspError(f"node {index} must be an object, not {item!r:.40}")
    kind, where = item.get("kind"), f"node {index} ({item.get('name')!r:.80})"
    if not isinstance(kind, str) or kind not in _KINDS:
        raise CspError(f"{where} must be of kind {', '.join(_KINDS)}, not {kind!r:.40}")
    cls = _KINDS[kind]
    bare = {name: value for name, value in item.items() if name != "kind"}
    arguments = header.fields(cls, bare, where, _skipped(cls))
    if cls is Layer:
        with located(f"layer {arguments['name']!r:.80}"):
            arguments |= _stored(arguments["name"], arguments["geometry"], cols, period, shelf)
    return cls(**arguments)


def _stored(
    name: str, geometry: Geometry, cols: int, period: int, shelf: "_Shelf"
) -> dict[str, Any]:
    """Give the fields of a layer that are arrays; the counts say how many words there are."""
    counts = shelf.take(f"{name}.counts", "uint8", (geometry.groups, geometry.taps))
    ends = counts.sum(axis=1, dtype=np.int64).cumsum()
    words = np.split(shelf.take(f"{name}.words", "int8", (int(ends[-1]), cols)), ends[:-1])
    matrices = tuple(
        CompressedMatrix(
            filters=geometry.group_filters, cols=cols, period=period, counts=group, words=stream
        )
        for group, stream in zip(counts, words, strict=True)
    )
    size = (geometry.filters,)
    vectors = {field: shelf.take(f"{name}.{field}", _VECTORS[field], size) for field in _VECTORS}
    return {"matrices": matrices, **vectors}


class _Shelf:
    """The arrays of a file, and which of them were taken."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.taken: set[str] = set()

    def take(self, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Give an array that must have this type and shape."""
        if name not in self._arrays:
            raise CspError(f"the array {name!r:.80} is missing")
        array = self._arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise CspError(
                f"the array {name!r:.80} must be {dtype} {list(shape)}, "
                f"not {array.dtype} {list(array.shape)}"
            )
        self.taken.add(name)
        return array
