# SPDX-License-Identifier: Apache-2.0
"""Files of installed packages, found without importing the packages.

What imports them needs far more than the file: TensorFlow for one, scipy for another.
"""

import importlib.util
from pathlib import Path

from csp_algo.errors import CspError

#: How to get the packages.
INSTALL = "python tools/environment.py .venv models"


def package_file(distribution: str, package: str, path: str) -> Path:
    """Give the path of a file in a package.

    Parameters
    ----------
    distribution : str
        What pip calls it.
    package : str
        What Python calls it.
    path : str
        Of the file in the package's folder.

    Raises
    ------
    CspError
        The package is not installed, or has no such file.
    """
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations if found is not None else None
    if not folders:
        raise CspError(f"the package {distribution} is not installed: {INSTALL}")
    file = Path(folders[0]) / path
    if not file.is_file():
        raise CspError(f"the package {distribution} has no file {path}")
    return file
