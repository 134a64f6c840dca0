# SPDX-License-Identifier: Apache-2.0
"""Files of numpy, .npy and .npz, from strangers."""

import contextlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from csp_algo.errors import CspError, located

#: How files of numpy begin: an array, and a zip of some. Anything else numpy takes for a pickle.
_BEGINNINGS = (b"\x93NUMPY", b"PK")
#: What numpy and zipfile raise when they read a damaged file.
_DAMAGE = (
    EOFError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Give an array, or a mapping of names to arrays that are read when they are asked for.

    Raises
    ------
    CspError
        The file cannot be read, here or while it is in use; the message names it.
    """
    with located(str(path)):
        try:
            with path.open("rb") as file:
                if not file.read(6).startswith(_BEGINNINGS):
                    raise CspError("is not a file of arrays")
                file.seek(0)
                # Never a pickle, which would run code.
                yield np.load(file, allow_pickle=False)
        except CspError:
            raise
        except OSError as error:
            raise CspError(f"cannot be read: {error.strerror or error}") from error
        except _DAMAGE as error:
            raise CspError(f"is not a file of arrays: {error}") from error
