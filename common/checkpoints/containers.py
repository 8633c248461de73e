"""What a checkpoint file holds, under its own names, before anybody says what it means."""

import contextlib
import itertools
import json
import math
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import RosettaError
from common.names import Shape
from common.weights import FORMAT


@dataclass(frozen=True)
class Entry:
    """One array of a file. `read` takes it into memory."""

    shape: Shape
    dtype: str  # numpy's name, or bfloat16, which `read` widens to float32
    read: Callable[[], np.ndarray]
    where: str = ""  # its name in the file, where that isn't the one it goes by here
    at: tuple[Path, int] | None = None  # the file, and where in it its bytes are, if they are there as they are

    @property
    def nbytes(self) -> int:
        """How many bytes the array takes, where it is in the file as it is."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass
class Container:
    """A file's arrays by name, in its order, and what else it says."""

    path: Path
    kind: str  # "safetensors", "PyTorch checkpoint", "HDF5", "Keras archive", ...
    entries: dict[str, Entry]
    metadata: dict[str, Any] = field(default_factory=dict)  # "arch": our row as JSON; "config": a library's own
    said: dict[str, Any] = field(default_factory=dict)  # our own metadata as it is in the file, with its checksum
    unused: dict[str, str] = field(default_factory=dict)  # what isn't an array of the net: name, and why
    notes: list[str] = field(default_factory=list)  # what a user should know of how it was read
    ordered: bool = False  # names are classes and positions alone


@contextlib.contextmanager
def clear(path: Path, what: str) -> Iterator[None]:
    """Turns what a library raises for a damaged file into one line. Libraries document none: OSError, ValueError,
    KeyError, TypeError, RuntimeError, struct.error, BadZipFile, ... were seen."""
    try:
        yield
    except RosettaError:
        raise
    except MemoryError:
        raise RosettaError(f"{path} is not a whole {what}: it asks for more memory than there is") from None
    except Exception as e:
        reason = str(e).strip().split("\n")[0] or type(e).__name__
        raise RosettaError(f"{path} is not a whole {what}: {reason}") from None


def json_object(path: Path, text: bytes, what: str) -> dict[str, Any]:
    """A JSON object whose keys are each there once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise RosettaError(f"{path} has a key twice in {what}: which one is meant can't be told")
        return made

    try:
        found = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as e:
        raise RosettaError(f"{path}: {what} is not JSON: {str(e)[:100]}") from None
    if not isinstance(found, dict):
        raise RosettaError(f"{path}: {what} is not a JSON object")
    return found


def ours(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Our own metadata, where a file has it."""
    text = metadata.get(FORMAT)
    if text is None and any('"crc32"' in str(value) for value in metadata.values()):
        raise RosettaError(f"{path} is damaged: its metadata is ours, but not under our name")
    return {} if text is None else json_object(path, str(text).encode("utf-8", "replace"), "the metadata")


def widened(entries: dict[str, Entry]) -> list[str]:
    wide = sum(e.dtype == "bfloat16" for e in entries.values())
    return [f"{wide} tensors are bfloat16, which numpy lacks: widened to float32, exactly"] if wide else []


def shards(index: Path) -> list[str]:
    """The files beside an index in which a model's weights are. Raises RosettaError for names that lead elsewhere."""
    text = index.read_bytes() if index.stat().st_size < 2**26 else b""
    files = json_object(index, text, "the index").get("weight_map")
    names = sorted({str(name) for name in files.values()}) if isinstance(files, dict) else []
    if not names or any(not re.fullmatch(r"[\w-][\w.-]*", name) for name in names):
        raise RosettaError(f"{index} doesn't say which files beside it hold the weights (weight_map)")
    return names


# -- arrays that are in a file as they are


def from_file(path: Path, offset: int, shape: Shape, dtype: str) -> np.ndarray:
    """One array, read into place: the library's own way maps the file, and so holds it twice."""
    kind = np.dtype("<u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
    with _readable(path):
        value = np.fromfile(path, kind, math.prod(shape), offset=offset).reshape(shape)
    return (value.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else value


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """One line of a file that has changed since its container was read."""
    try:
        yield
    except RosettaError:
        raise
    except (OSError, ValueError, TypeError) as e:  # numpy's: ValueError by itself, TypeError where it is mapped
        raise RosettaError(f"{path} can't be read any more: {e}") from None


def _as_they_are(entries: Sequence[Entry]) -> bool:
    """Whether these can be read from their files without their containers."""
    return all(e.at for e in entries) and hasattr(os, "preadv")


def mapped(entries: Sequence[Entry]) -> list[np.ndarray] | None:
    """These arrays where the system has the file in its memory anyway; what is written to them stays with the process.
    None where they are not in a file as they are. They are good as long as nobody writes to the file."""
    if not _as_they_are(entries):
        return None
    files: dict[Path, mmap.mmap] = {}
    arrays = []
    for e in entries:
        path, at = e.at  # type: ignore[misc]
        with _readable(path):
            if path not in files:
                with open(path, "rb") as f:
                    files[path] = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
            arrays.append(np.ndarray(e.shape, e.dtype, files[path], at))
    return arrays


def in_one(entries: Sequence[Entry]) -> list[np.ndarray] | None:
    """These arrays, read into one large buffer, which the system backs with large pages, by a call or two, in which
    other threads can work. None where they are not in a file as they are. All live as long as one of them."""
    if not _as_they_are(entries):
        return None
    sizes = [e.nbytes for e in entries]
    starts = [0, *itertools.accumulate(-(-size // 64) * 64 for size in sizes)]
    buffer = np.empty(starts[-1], np.uint8)
    parts = [buffer[start : start + size] for start, size in zip(starts, sizes, strict=False)]
    places = sorted((*e.at, i) for i, e in enumerate(entries) if e.at)
    for path, in_file in itertools.groupby(places, lambda place: place[0]):
        with _filler(path) as fill:
            for at, run in _runs((at, parts[i]) for _, at, i in in_file):
                fill(run, at)
    return [part.view(e.dtype).reshape(e.shape) for e, part in zip(entries, parts, strict=True)]


@contextlib.contextmanager
def _filler(path: Path) -> Iterator[Callable[[Sequence[np.ndarray], int], None]]:
    """A function that reads bytes into arrays of them, from a place in the file on."""

    def fill(parts: Sequence[np.ndarray], at: int) -> None:
        if os.preadv(file.fileno(), [part.data for part in parts], at) == sum(part.size for part in parts):
            return
        file.seek(at)  # a system may give less than it was asked for
        for part in parts:
            left = part.data
            while left:
                if not (n := file.readinto(left)):
                    raise RosettaError(f"{path} can't be read any more: it ends in the middle of an array")
                left = left[n:]

    with _readable(path), open(path, "rb", buffering=0) as file:
        yield fill


def _runs(places: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """(where, parts) of what is one after the other in a file, as much as the system reads in one call."""
    begin, end = 0, 0
    run: list[np.ndarray] = []
    for at, part in places:
        if run and (at != end or len(run) == 1000 or end - begin > 2**29):
            yield begin, run
            run = []
        if not run:
            begin = at
        end = at + part.size
        run.append(part)
    yield begin, run
