# SPDX-License-Identifier: Apache-2.0
"""A folder of things that are made once and found again by what they were made from."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from csp_algo.errors import CspError

#: Names the folder; otherwise $XDG_CACHE_HOME/csp or ~/.cache/csp.
ENVIRONMENT = "CSP_CACHE"


def root() -> Path:
    """Give the cache's folder, which is made.

    Raises
    ------
    CspError
        It cannot be made or written to.
    """
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        folder = Path(chosen).expanduser().absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(base) if base else Path.home() / ".cache") / "csp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CspError(f"cannot make the cache {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CspError(f"cannot write to the cache {folder}; {ENVIRONMENT} names another")
    return folder


def digest(parts: Iterable[str | bytes]) -> str:
    """Give 16 hexadecimal digits that stand for the parts in their order."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:16]


def obtain(name: str, make: Callable[[Path], None]) -> Path:
    """Give the cached folder ``name``; if there is none, ``make`` fills it.

    ``make`` gets an empty folder that is put in place only when it returns, so what is found is
    complete. Of several processes that want the same thing one makes it and the others wait.

    Raises
    ------
    CspError
        From ``make``, or the disk is full or cannot be written.
    """
    folder = root() / name
    if folder.is_dir():
        _touch(folder)
        return folder
    with _locked(folder):
        if not folder.is_dir():
            try:
                with _working_folder(folder) as work:
                    make(work)
                    work.rename(folder)
            except OSError as error:
                raise CspError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def _touch(folder: Path) -> None:
    """Note that it was used, for whoever tidies up by age."""
    with contextlib.suppress(OSError):
        os.utime(folder)


@contextlib.contextmanager
def _working_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside the target, whose lock is held."""
    # Nobody else makes the target now: these are of processes that were killed. Their compilers may
    # write there still, so the new one has a name of its own.
    for left in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold a lock file beside the target; the system frees it if the process dies."""
    path = target.with_name(f".{target.name}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CspError(f"cannot write {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
