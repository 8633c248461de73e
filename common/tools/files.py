"""Files that are there whole or not at all."""

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from common.errors import RosettaError

os.umask(_UMASK := os.umask(0))  # it can't be read without being set


def make_folder(path: str | os.PathLike) -> Path:
    """`path`, made where there is none. Raises RosettaError where it can't be made, or nothing can be written in it:
    better before a minute's work than after it."""
    folder = Path(path)
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError:
        raise RosettaError(f"can't write into {folder}: it is no folder") from None
    except OSError as e:
        raise RosettaError(f"can't write into {folder}: {e.strerror}") from None
    return folder


@contextlib.contextmanager
def atomic(path: str | os.PathLike, size: int = 0, folder: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffixes, that takes its place if the block ends well and else is
    removed.

    A link is followed, and what is no file (a device, a pipe) is written to. `size` is how many bytes are to come:
    HDF5 can't be stopped quietly once the disk is full. Raises RosettaError where the folder can't be written or the
    disk is full; whatever was at `path` stays. With `folder` the block makes a folder there, which nothing may be in
    the place of.
    """
    named, path = Path(path), Path(path)
    if folder and os.path.lexists(path):
        raise RosettaError(f"can't write {path}: it is there already, and a folder is not replaced")
    through = not folder and written_through(path)
    if os.path.islink(path) and not through:
        path = Path(os.path.realpath(path))
    where = Path(tempfile.gettempdir()) if through else path.parent
    if where.is_dir() and shutil.disk_usage(where).free < size:
        raise RosettaError(f"can't write {named}: No space left on device for {size:,} bytes; nothing was written")
    try:
        beside, lock = _made_beside(where)
    except OSError as e:
        raise RosettaError(f"can't write {named}: {e.strerror}: {where}") from None
    try:
        temporary = beside / path.name.encode("utf-8", "replace").decode()  # libraries take no name that is no text
        yield temporary
        for written in temporary.iterdir() if folder else (temporary,):
            with open(written, "rb") as f:
                os.fsync(f.fileno())
        if path.is_dir():
            raise RosettaError(f"can't write {named}: it is a folder")
        if through:
            with open(temporary, "rb") as f, _opened(path) as out:
                shutil.copyfileobj(f, out)
        else:
            if not folder:  # safetensors makes a file that only its owner reads
                temporary.chmod(0o666 & ~_UMASK)
            os.replace(temporary, path)
    except OSError as e:
        raise RosettaError(f"can't write {named}: {e.strerror or e}; nothing was written") from e
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        os.close(lock)


def written_through(path: str | os.PathLike) -> bool:
    """Whether `path` is a device, a pipe or a file that is open already, which nothing can take the place of."""
    absolute = os.path.abspath(path)
    special = absolute.startswith(("/dev/", "/proc/")) and not absolute.startswith("/dev/shm/")
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        return special or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


def _opened(path: Path) -> BinaryIO:
    """To be written to, behind what is there; of what this process has open, its own place in it."""
    number = {"/dev/stdout": "1", "/dev/stderr": "2"}.get(str(path)) or "".join(
        re.findall(r"^(?:/dev|/proc/self)/fd/(\d+)$", str(path))
    )
    if not number:
        return open(path, "ab", buffering=0)
    if sys.stdout:
        sys.stdout.flush()
    return os.fdopen(os.dup(int(number)), "wb", buffering=0)


_OURS = ".rosetta-"


def _made_beside(where: Path) -> tuple[Path, int]:
    """A folder of this process's in `where`, and its lock, which ends with the process; folders whose processes were
    killed are removed first."""
    with contextlib.suppress(OSError):
        for left in where.glob(f"{_OURS}*/"):
            with contextlib.suppress(OSError):
                lock = _locked(left)
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
    made = Path(tempfile.mkdtemp(prefix=".", dir=where))
    try:
        lock = _locked(made)
        # by its name it is known as one of ours, and so not before it is locked
        return made.rename(where / f"{_OURS}{os.getpid()}{made.name}"), lock
    except OSError:  # no locks, or no renaming of a folder, here
        return made, os.open(os.devnull, os.O_RDONLY)


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder's lock. Raises OSError where another process has it, or there are none."""
    try:
        import fcntl
    except ImportError:
        raise OSError("no locks") from None
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        raise
    return opened
