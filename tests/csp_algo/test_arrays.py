# SPDX-License-Identifier: Apache-2.0
"""Files of numpy that are damaged, or are something else."""

import io

import numpy as np
import pytest

from csp_algo import arrays
from csp_algo.errors import CspError

VALUES = np.arange(120.0)


def packed():
    file = io.BytesIO()
    np.savez_compressed(file, x=VALUES)
    return file.getvalue()


def test_an_array_and_arrays_with_names(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    with arrays.opened(tmp_path / "a.npy") as loaded:
        np.testing.assert_array_equal(loaded, VALUES)
    (tmp_path / "a.npz").write_bytes(packed())
    with arrays.opened(tmp_path / "a.npz") as loaded:
        np.testing.assert_array_equal(loaded["x"], VALUES)


def shaped(shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


DAMAGED = {
    "a shape of no end": shaped(f"({10**30},)"),
    "a shape of no numbers": shaped("(True,)"),
    "a header without an end": b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'\n",
    "nothing to inflate": packed()[:60] + b"\xff" * 20 + packed()[80:],
    "a packing of no name": packed().replace(b"\x08\x00", b"\x63\x00"),
    "truncated": packed()[:60],
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_told(case, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(DAMAGED[case])
    with (
        pytest.raises(CspError, match=rf"^{path}: is not a file of arrays: "),
        arrays.opened(path) as loaded,
    ):
        _ = loaded["x"]


@pytest.mark.parametrize("data", [b"", b"\x89PNG" * 40, b"1,2\n3,4\n"])
def test_nobody_is_advised_to_load_a_pickle(data, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(CspError, match=rf"^{path}: is not a file of arrays$"), arrays.opened(path):
        pass


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    for path, reason in ((tmp_path / "none.npz", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(CspError, match=rf"^{path}: cannot be read: {reason}"):
            arrays.opened(path).__enter__()
