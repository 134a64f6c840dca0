# SPDX-License-Identifier: Apache-2.0
"""Samples to calibrate with, from files of numpy, checked against the graph's input."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from csp_algo import arrays
from csp_algo.errors import CspError, located
from csp_algo.integers import ActDtype
from csp_algo.network import Input
from csp_algo.onnx.importer import Imported
from csp_algo.onnx.runtime import Array
from csp_algo.quantize import activation_scale, quantise_values

Integers = npt.NDArray[np.integer]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Samples as the graph and as the core take them.

    Parameters
    ----------
    input : Input
        With the type and scale that suit the samples.
    images : int8 or uint8 [N, H, W, C]
        In units of the input's scale.
    floats : float64 [N, …]
        What these integers stand for, in the layout of the graph's input.
    """

    input: Input
    images: Integers
    floats: npt.NDArray[np.float64]


def load_samples(
    path: str | os.PathLike[str], imported: Imported, *, limit: int | None = None
) -> Samples:
    """Read samples: a .npy, a .npz, or a folder of .npy with one sample each, sorted by name.

    A .npz holds one array, or one with the name of the graph's input. Samples without a negative
    value become uint8, others int8.

    Parameters
    ----------
    path : path
    imported : Imported
    limit : int, optional
        Most samples, the first ones.

    Raises
    ------
    CspError
        A file cannot be read, or a sample is of another shape, no number, NaN or infinite; the
        message names the file and the value.
    """
    graph = imported.graph
    _, *shape = graph.shape
    folder = Path(path)
    if folder.is_dir():
        files = sorted(folder.glob("*.npy"))[:limit]
        if not files:
            raise CspError(f"{folder}: there is no .npy in this folder")
        values = np.concatenate([_read(file, graph.input, shape) for file in files])
    else:
        values = _read(folder, graph.input, shape)
    values = values[:limit]
    source = _input(imported.network.input, values)
    maps = imported.maps(source.name, values)
    images = quantise_values(maps, source.dtype, source.scale).astype(source.dtype.numpy)
    _, index = imported.tensors[source.name]
    floats = images.reshape(len(images), -1)[:, index].astype(np.float64) * source.scale
    return Samples(input=source, images=images, floats=floats)


def _input(source: Input, values: npt.NDArray[np.float64]) -> Input:
    dtype = ActDtype.INT8 if (values < 0).any() else ActDtype.UINT8
    # Whole numbers that fit, as pixels are, stay what they are.
    whole = values.max(initial=0) <= dtype.high and values.min(initial=0) >= dtype.low
    scale = 1.0 if whole and (values == np.rint(values)).all() else activation_scale(values, dtype)
    return dataclasses.replace(source, dtype=dtype, scale=scale)


def _read(path: Path, name: str, shape: list[int]) -> npt.NDArray[np.float64]:
    values = _array(path, name)
    with located(str(path)):
        if values.dtype.kind not in "fiu":
            raise CspError(f"samples are {values.dtype}, not numbers")
        if list(values.shape) == shape:
            values = values[None]
        if list(values.shape[1:]) != shape or not len(values):
            wanted = ", ".join(str(extent) for extent in shape)
            raise CspError(
                f"samples have shape {list(values.shape)}, not [N, {wanted}] with N above 0"
            )
        floats = values.astype(np.float64)
        finite = np.isfinite(floats)
        if not finite.all():
            place = np.unravel_index(int(np.argmin(finite)), floats.shape)
            where = ", ".join(str(int(item)) for item in place)
            raise CspError(f"sample [{where}] is {floats[place]}")
        return floats


def _array(path: Path, name: str) -> Array:
    with arrays.opened(path) as loaded:
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return np.asarray(loaded)
        if not loaded.files:
            raise CspError("holds no array")
        if name not in loaded.files and len(loaded.files) != 1:
            found = ", ".join(loaded.files)
            raise CspError(f"holds the arrays {found}, none of them is called {name}")
        return np.asarray(loaded[name if name in loaded.files else loaded.files[0]])
