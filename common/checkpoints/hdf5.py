"""HDF5 read in a process of its own: a damaged file makes the HDF5 library loop without end, or crash.

Here are both ends. `read` asks, waits, and gives up; `python -m common.checkpoints.hdf5` answers, and is started anew
after it had to be killed. An answer is frames: a length, that many bytes of JSON, and the bytes of the array that it
announces.
"""

import atexit
import contextlib
import io
import json
import math
import os
import select
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.errors import RosettaError

START = 60.0  # seconds that the reader may take to be there: a busy machine imports slowly
SILENCE = 6.0  # seconds without a word after which the reader is given up,
SLOWEST = 20e6  # and those in which a disk gives the file, at so many bytes a second
MOST = 2  # times the file's size that its arrays may claim
NUMBERS = "fiub"  # numpy's kinds


class Reader:
    """The process, as its parent sees it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None

    def index(self, path: Path, member: str = "") -> tuple[dict[str, str], list[dict[str, Any]]]:
        """(the file's attributes, [where and what each array is]); `member` of an archive.

        Raises RosettaError for a file at which the HDF5 library fails, crashes or never ends.
        """
        said, _ = self._asked(path, member, "")
        return said[0]["attributes"], said[1:]

    def read(self, path: Path, member: str, where: str) -> np.ndarray:
        """The array at `where`. Raises RosettaError as `index` does."""
        return self._asked(path, member, where)[1][0]

    def _asked(self, path: Path, member: str, where: str) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        with self.lock:
            try:
                return self._ask(path, member, where)
            except BaseException as e:
                if not isinstance(e, _Refused):  # in the middle of an answer
                    self.close()
                raise

    def _ask(self, path: Path, member: str, where: str) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        if self.process is None or self.process.poll() is not None:
            self.close()
            search = os.pathsep.join(
                filter(None, [str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH", "")])
            )
            self.process = subprocess.Popen(
                [sys.executable, "-m", "common.checkpoints.hdf5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, bufsize=0, env={**os.environ, "PYTHONPATH": search},
            )  # fmt: skip
            self._frame(path, START)
        silence = SILENCE
        with contextlib.suppress(OSError):  # that it is gone, the process says
            silence += os.path.getsize(path) / SLOWEST
        with contextlib.suppress(BrokenPipeError):  # what it answers, or doesn't, says the rest
            request = json.dumps([os.path.abspath(path), member, where]).encode() + b"\n"
            self.process.stdin.write(request)  # type: ignore[union-attr]
        found: list[dict[str, Any]] = []
        arrays: list[np.ndarray] = []
        while True:
            said = self._frame(path, silence)
            if "error" in said:
                raise _Refused(said["error"].replace(os.path.abspath(path), str(path)))
            if "done" in said:
                return found, arrays
            found.append(said)
            if where:
                arrays.append(np.empty(said["shape"], said["dtype"]))
                self._fill(path, arrays[0].reshape(-1).view(np.uint8).data, silence)

    def _frame(self, path: Path, silence: float) -> dict[str, Any]:
        length = bytearray(8)
        self._fill(path, memoryview(length), silence)
        text = bytearray(int.from_bytes(length, "little"))
        self._fill(path, memoryview(text), silence)
        return json.loads(text)

    def _fill(self, path: Path, view: memoryview, silence: float) -> None:
        out: Any = self.process.stdout  # type: ignore[union-attr]
        at = 0
        while at < len(view):
            if not select.select([out], [], [], silence)[0]:
                raise RosettaError(f"{path} is not a whole HDF5 file: the HDF5 library came to no end with it")
            n = out.readinto(view[at:])
            if not n:
                code = self.process.wait()  # type: ignore[union-attr]
                raise RosettaError(f"{path} is not a whole HDF5 file: the HDF5 library crashed over it ({code})")
            at += n

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]
            self.process = None


class _Refused(RosettaError):
    """The process itself says what is wrong, and can be asked again."""


READER = Reader()
atexit.register(READER.close)


# -- the process itself


def serve() -> None:
    """Answers until stdin ends."""
    out = os.fdopen(os.dup(1), "wb", buffering=2**20)
    os.dup2(2, 1)
    import h5py  # noqa: F401  # now, and not within the time that a file has

    opened = Opened()
    _frame(out, {"ready": True})
    out.flush()
    for line in sys.stdin.buffer:
        path, member, where = json.loads(line)
        try:
            opened.open(Path(path), member, anew=not where)
            if where:
                _array(opened.held, where, out)
            else:
                _index(Path(path), opened, out)
            _frame(out, {"done": True})
        except RosettaError as e:
            _frame(out, {"error": str(e)})
        except MemoryError:
            _frame(out, {"error": f"{path} is not a whole HDF5 file: it asks for more memory than it has a use for"})
        except Exception as e:  # h5py documents none: OSError, ValueError, KeyError, RuntimeError, ... were seen
            reason = str(e).strip().split("\n")[0] or type(e).__name__
            _frame(out, {"error": f"{path} is not a whole HDF5 file: {reason}"})
        out.flush()


def _limit(more: int) -> None:
    """Lets this process have so much more memory, where the system can be told."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        has = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (has + more, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _frame(out: BinaryIO, said: dict[str, Any]) -> None:
    text = json.dumps(said).encode()
    out.write(len(text).to_bytes(8, "little") + text)


class Opened:
    """The file that was asked for last, open: arrays are asked for one by one."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] = ()
        self.held: Any = None
        self.found: list[tuple[str, Any, str, int]] = []

    def open(self, path: Path, member: str, anew: bool) -> None:
        """Opens the file, `anew` or where it has changed, and finds what is in it: links and the like are refused,
        whatever is asked for next. A file that was written over may have its old times, where a clock is coarse or
        was set back: so whoever begins with a file has it opened anew."""
        import h5py

        status = path.stat()
        key = (path, member, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if anew or key != self.key:
            if self.held is not None:
                self.held.close()
            self.key, self.held, self.found = (), None, []
            _limit(3 * status.st_size + 2**28)
            file: Any = path
            if member:
                with zipfile.ZipFile(path) as z:
                    file = io.BytesIO(z.read(member))
            self.held = h5py.File(file, "r")
            self.found = list(_datasets(path, self.held))
            self.key = key


def _index(path: Path, opened: Opened, out: BinaryIO) -> None:
    f, found, size = opened.held, opened.found, path.stat().st_size
    texts = {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in f.attrs.items()}
    attributes = {_text(k): _text(v) if isinstance(v, str) else "" for k, v in texts.items()}
    _frame(out, {"attributes": attributes | ({"model_weights": ""} if "model_weights" in f else {})})
    claimed = sum(math.prod(d.shape) * d.dtype.itemsize for _, d, _, _ in found)
    if claimed > MOST * size:
        raise RosettaError(f"{path} claims {claimed:,} bytes of arrays in a file of {size:,}")
    for where, d, layer, axes in found:
        if d.attrs.get("dtype") == "bfloat16" or d.dtype.kind not in NUMBERS:
            raise RosettaError(f"{path}: {where} is {d.attrs.get('dtype', d.dtype)}: expected numbers of numpy's")
        _frame(out, {"where": where, "layer": layer, "axes": axes, "shape": d.shape, "dtype": d.dtype.str})


def _text(said: str) -> str:
    """What can be printed of a text whose bytes may be no UTF-8."""
    return said.encode("utf-8", "replace").decode()


def _array(f: Any, where: str, out: BinaryIO) -> None:
    value = np.ascontiguousarray(f[where][()])
    _frame(out, {"shape": value.shape, "dtype": value.dtype.str})
    out.write(value.data if value.size else b"")


def _datasets(path: Path, f: Any) -> Iterator[tuple[str, Any, str, int]]:
    """(place in the file, dataset, the layer's name where its group says it, axes of the layer's first variable),
    without following a link out."""
    import h5py

    above = [f.id]

    def walk(group: Any, prefix: str) -> Iterator[tuple[str, Any, str, int]]:
        if len(above) > 40:
            raise RosettaError(f"{path} has groups in groups without end, at {prefix}")
        for key in group:
            if _text(key) != key:
                raise RosettaError(f"{path} is not a whole HDF5 file: {prefix}{_text(key)} is no text")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise RosettaError(f"{path}: {prefix}{key} is a link to elsewhere, which is not followed")
            item = group[key]
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise RosettaError(f"{path}: {prefix}{key} keeps its values in another file, which is not read")
                layer = group.attrs.get("name") if prefix.endswith("vars/") else None
                first = group["0"] if prefix.endswith("vars/") and "0" in group else item
                yield prefix + key, item, _text(layer) if isinstance(layer, str) else "", len(first.shape)
            elif isinstance(item, h5py.Group):
                if item.id in above:
                    raise RosettaError(f"{path}: {prefix}{key} is a group inside itself")
                above.append(item.id)
                yield from walk(item, f"{prefix}{key}/")
                above.pop()

    yield from walk(f, "")


if __name__ == "__main__":
    serve()
