"""What a checkpoint file holds, under its own names, before anybody says what it means.

Files come from anywhere. Nothing in one is run; sizes are what the file itself can hold, checked before memory is
taken; every fault is a RosettaError that says what was wrong.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import itertools
import json
import math
import mmap
import os
import re
import struct
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.checkpoints.hdf5 import READER
from common.checkpoints.libraries.library import KERAS_LEAVES
from common.checkpoints.pickles import NUMBERS, Number, storages
from common.errors import RosettaError
from common.names import Shape
from common.tools.frameworks import require
from common.weights import DTYPES, FORMAT

LARGEST_HEADER = 100_000_000  # bytes: what the safetensors library allows
PIECE = 2**20  # bytes of a file that are looked at together


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
        """Of an array that is in the file as it is."""
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


def read(path: str | os.PathLike) -> Container:
    """The container of a file or folder, by what it begins with, not by its suffix.

    Raises RosettaError for a file that is missing, damaged, of no known kind, or that would run code.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    try:
        if path.exists() and not path.is_file():
            raise RosettaError(
                f"{path} is a device or a pipe: expected a file or a folder, which is read more than once"
            )
        with open(path, "rb") as f:
            begin = f.read(64)
    except FileNotFoundError:
        raise RosettaError(f"no such file: {path}") from None
    except OSError as e:
        raise RosettaError(f"can't read {path}: {e.strerror or e}") from None
    if begin.startswith(b"version https://git-lfs"):
        raise RosettaError(f"{path} is a Git LFS pointer, and the weights are elsewhere: `git lfs pull` fetches them")
    if begin.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise RosettaError(f"{path} is a web page: whatever fetched it was shown one instead of the file")
    _check_name(path)
    if begin.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(path)
    if begin.startswith(b"PK\x03\x04"):
        return _zip(path)
    if path.name.endswith(".safetensors") or begin[8:9] == b"{":
        return _safetensors(path)
    if begin.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")) or path.suffix in PYTORCH:
        return _pytorch(path)
    raise RosettaError(
        f"{path} is no checkpoint that is known: expected safetensors, a PyTorch file, HDF5 (.h5), .keras, or a folder"
    )


PYTORCH = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")


def _check_name(path: Path) -> None:
    """Where the name ends with the first digits of a SHA-256, as torchvision's, timm's and akamaster's do, they must
    be the file's."""
    said = re.search(r"-([0-9a-f]{8})\.(?:pth|pt|th|bin|safetensors)$", path.name)
    if not said or not re.search(r"\d", said[1]):
        return
    import hashlib

    with open(path, "rb") as f:
        found = hashlib.file_digest(f, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(f.read())
    if not found.hexdigest().startswith(said[1]):
        raise RosettaError(
            f"{path} is damaged or was changed: its SHA-256 begins with {found.hexdigest()[:8]}, and its name says "
            f"{said[1]}. If that is meant, give it another name"
        )


@contextlib.contextmanager
def _clear(path: Path, what: str) -> Iterator[None]:
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


def _json(path: Path, text: bytes, what: str) -> dict[str, Any]:
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


# -- safetensors

_DTYPES = DTYPES | {
    "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def _safetensors(path: Path) -> Container:
    import safetensors

    size = path.stat().st_size
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise RosettaError(
                f"{path} is not a whole safetensors file: its header wants {length:,} bytes, the file has {size:,}"
            )
        header = _json(path, f.read(length), "the header")
    with _clear(path, "safetensors file"), safetensors.safe_open(path, framework="numpy"):
        pass  # the library has checked offsets and shapes
    metadata = header.pop("__metadata__", None) or {}
    entries = {}
    with _clear(path, "safetensors file"):
        for name, row in header.items():
            dtype, shape = _DTYPES.get(row["dtype"], row["dtype"]), tuple(row["shape"])
            at = 8 + length + row["data_offsets"][0]
            as_it_is = (path, at) if dtype != "bfloat16" and sys.byteorder == "little" else None
            entries[name] = Entry(shape, dtype, functools.partial(_from_file, path, at, shape, dtype), at=as_it_is)
    ours = _ours(path, metadata)
    unused: dict[str, str] = {}
    entries, notes = (entries, []) if ours else _strip(entries, unused)
    return Container(path, "safetensors", entries, dict(ours), ours, unused, notes + _widened(entries))


def _ours(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Our own metadata, where a file has it."""
    text = metadata.get(FORMAT)
    if text is None and any('"crc32"' in str(value) for value in metadata.values()):
        raise RosettaError(f"{path} is damaged: its metadata is ours, but not under our name")
    return {} if text is None else _json(path, str(text).encode("utf-8", "replace"), "the metadata")


def _from_file(path: Path, offset: int, shape: Shape, dtype: str) -> np.ndarray:
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


def pieces(entries: Sequence[Entry], share: slice) -> Iterator[tuple[int, np.ndarray]]:
    """(number, values) of a share of the arrays, all in a file as they are, for whoever looks at each value once:
    some at a time, in one small buffer, which a processor keeps near. To map a page costs more than to look at it."""
    buffer = np.empty(PIECE, np.uint8)
    places = [(*e.at, i) for i, e in enumerate(entries) if e.at][share]
    for path, in_file in itertools.groupby(places, lambda place: place[0]):
        with _filler(path) as fill:
            for _, at, i in in_file:
                left = entries[i].nbytes
                while left:
                    piece = buffer[: min(left, PIECE)]
                    fill([piece], at)
                    yield i, piece.view(entries[i].dtype)
                    at, left = at + piece.size, left - piece.size


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


def _widened(entries: dict[str, Entry]) -> list[str]:
    wide = sum(e.dtype == "bfloat16" for e in entries.values())
    return [f"{wide} tensors are bfloat16, which numpy lacks: widened to float32, exactly"] if wide else []


# -- PyTorch

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "state_dict_ema")


def _pytorch(path: Path, zipped: bool = False) -> Container:
    """Of a file that `_zip` has looked through, or of the layout before, which is pickles one after the other."""
    require(f"{path} is PyTorch's own format, and reading it", ("torch",), "torch")
    import torch

    if not zipped:
        if tarfile.is_tarfile(path):
            raise RosettaError(f"{path} is of PyTorch before 0.1.10: load it there, and save its state_dict()")
        with open(path, "rb") as f:  # a magic number, a version, the system, what was saved, names of storages
            claimed = sum({s.key: s.nbytes for s in storages(path, f, pickles=5)}.values())
        if claimed > path.stat().st_size:
            raise RosettaError(f"{path} claims {claimed:,} bytes of tensors in a file of {path.stat().st_size:,}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *((Number, n) for n in ("numpy.dtype", *NUMBERS))]):
            # memory-mapped, an archive's tensors cost nothing until they are read
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except MemoryError:
        raise RosettaError(f"{path} asks for more memory than there is") from None
    except Exception as e:  # PyTorch documents none: RuntimeError, UnpicklingError, EOFError, KeyError, ... were seen
        wanted = re.search(r"GLOBAL ([\w.]+)", str(e))
        # PyTorch's own advice is to run what the file says
        advice = "weights_only" in str(e) and not wanted
        reason = (
            f"it names {wanted[1]}"
            if wanted
            else "no tensors are in it"
            if advice
            else re.sub(r"\s+", " ", str(e).strip().split("\n")[0])
        )
        raise RosettaError(f"{path} is not a whole PyTorch checkpoint of tensors alone: {reason[:200]}") from None

    state, outside, metadata = _state_dict(path, held)
    said = getattr(state, "_metadata", None)
    row = said.get("resnet_rosetta") if isinstance(said, dict) else None
    if isinstance(row, dict):
        metadata |= {k: v for k, v in row.items() if isinstance(k, str) and isinstance(v, str)}
    entries, unused, size = {}, dict(outside), path.stat().st_size
    seen: dict[int, int] = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            unused[str(name)] = f"a {type(value).__name__}, no tensor"
            continue
        dtype = str(value.dtype).removeprefix("torch.")
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise RosettaError(f"{path}: {name} is a {value.layout} tensor: expected a plain one")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise RosettaError(f"{path}: {name} claims {tuple(value.shape)}, more than the file holds of it")
        seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        entries[str(name)] = Entry(tuple(value.shape), dtype, functools.partial(_from_torch, value))
    if sum(seen.values()) > 2 * size:
        raise RosettaError(f"{path} claims {sum(seen.values()):,} bytes of tensors in a file of {size:,}")
    if not entries:
        raise RosettaError(
            f"{path} holds no tensors" + (f": its keys are {', '.join(list(unused)[:8])}" if unused else "")
        )
    entries, notes = _strip(entries, unused)
    ours = {k: v for k, v in metadata.items() if k != "wrapped"}
    arguments = held.get("args")
    if isinstance(arguments, argparse.Namespace) and held.get("arch") == getattr(arguments, "model", 0):  # timm's
        more = {k: getattr(arguments, n, None) for k, n in (("global_pool", "gp"), ("bn_eps", "bn_eps"))}
        more |= arguments.model_kwargs if isinstance(getattr(arguments, "model_kwargs", 0), dict) else {}
        metadata["config"] = {"architecture": str(held["arch"]), "model_args": more}
    return Container(path, "PyTorch checkpoint", entries, metadata, ours, unused, notes + _widened(entries))


def _from_torch(tensor: Any) -> np.ndarray:
    import torch

    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def _state_dict(path: Path, held: Any) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """(the state_dict, what lies beside it and why it isn't used, metadata) of what a checkpoint holds."""
    import torch

    if not isinstance(held, dict):
        raise RosettaError(f"{path} holds a {type(held).__name__}, no state_dict: expected {{name: tensor}}")

    def tensors(values: dict[Any, Any]) -> int:
        return sum(isinstance(v, torch.Tensor) for v in values.values())

    dicts = {id(v): v for v in held.values() if isinstance(v, dict)}  # a file may have one under many names
    full = {i: n for i, v in dicts.items() if (n := tensors(v))}
    inner = {k: v for k, v in held.items() if id(v) in full}
    # beside a state_dict there may be some, such as the best accuracy
    if tensors(held) and tensors(held) >= max(full.values(), default=0):
        return held, {}, {}
    chosen = next((k for k in WRAPPERS if k in inner), next(iter(inner), None) if len(inner) == 1 else None)
    if chosen is None and len(inner) > 1:
        raise RosettaError(
            f"{path} holds several sets of weights: {', '.join(map(str, list(inner)[:8]))}. Save the one that is "
            f"meant, such as torch.save(torch.load({path.name!r})[{str(next(iter(inner)))!r}], 'weights.pth')"
        )
    if chosen is None:
        keys = ", ".join(map(str, list(held)[:8])) or "none"
        optimizer = {"param_groups", "state"} <= set(held) or "optimizer" in held
        what = "an optimizer's state and no weights" if optimizer else "no state_dict"
        raise RosettaError(f"{path} holds {what}: its keys are {keys}")
    unused = {str(k): _beside(k) for k in held if k != chosen}
    return inner[chosen], unused, {"wrapped": str(chosen)}


def _beside(key: Any) -> str:
    return "another copy of the weights" if "ema" in str(key) else "of the training, not of the net"


PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "timm_model.")


def _strip(entries: dict[str, Entry], unused: dict[str, str]) -> tuple[dict[str, Entry], list[str]]:
    """(the entries without what DataParallel, torch.compile, trainers and wrappers put before their names, a note of
    it); the few that have another name, such as a loss's weights, go to `unused`."""
    before = ""
    while entries:
        counts = Counter(name.partition(".")[0] + "." for name in entries)
        first = max(PREFIXES, key=lambda p: counts[p])
        if counts[first] < 0.75 * len(entries):
            break
        before += first
        unused |= {
            e.where or n: f"not one of those under {before!r}" for n, e in entries.items() if n[: len(first)] != first
        }
        entries = {
            n[len(first) :]: dataclasses.replace(e, where=e.where or n)
            for n, e in entries.items() if n.startswith(first)
        }  # fmt: skip
    return entries, [f"names begin with {before!r}, which is left out"] if before else []


# -- zip archives: Keras' and PyTorch's


def _zip(path: Path) -> Container:
    size = path.stat().st_size
    with _clear(path, "archive"), zipfile.ZipFile(path) as z:
        members = z.infolist()
        names = [m.filename for m in members]
        if twice := next((n for n, count in Counter(n.lower() for n in names).items() if count > 1), ""):
            raise RosettaError(f"{path} has {twice} twice: which one is meant can't be told")
        if sum(m.file_size for m in members) > 2 * size + 2**20:
            raise RosettaError(
                f"{path} is {size:,} bytes that unpack to {sum(m.file_size for m in members):,}: no checkpoint does"
            )
        # PyTorch itself doesn't look at the checksums
        if broken := z.testzip():
            raise RosettaError(f"{path} is damaged: {broken} doesn't have its checksum")
        if "config.json" not in names:
            ends = {n.partition("/")[2] for n in names}
            if "archive_format" in ends or "models/model.json" in ends:
                raise RosettaError(
                    f"{path} is an exported program of PyTorch's. Where you trust it, save its weights: "
                    f"torch.save(torch.export.load({path.name!r}).state_dict, 'weights.pth')"
                )
            if not any(n.endswith("data.pkl") for n in names):
                raise RosettaError(f"{path} is an archive, but neither Keras' (config.json) nor PyTorch's (data.pkl)")
            _check_records(path, z)
            return _pytorch(path, zipped=True)
        if "model.weights.h5" not in names:
            raise RosettaError(f"{path} has no model.weights.h5: expected Keras 3's archive")
        config = _json(path, z.read("config.json"), "config.json")
    held = _hdf5(path, "model.weights.h5")
    held.kind = "Keras archive"
    inner = config.get("config")
    if config.get("registered_name") == "resnet_rosetta>ResNet" and isinstance(inner, dict):
        if held.metadata.get("arch", inner.get("arch")) != inner.get("arch"):
            raise RosettaError(f"{path} is damaged: its configuration and its weights name different nets")
        held.metadata |= {k: v for k, v in inner.items() if isinstance(v, str)}
    held.metadata["config"] = config
    return _named(held)


def _check_records(path: Path, z: zipfile.ZipFile) -> None:
    """Raises RosettaError unless each storage that PyTorch's archive speaks of is a record of its own, of its size:
    PyTorch, which maps the file, would take what lies behind the record for the rest of it."""
    members = z.infolist()
    top = members[0].filename.split("/")[0]
    sizes = {m.filename: m.file_size for m in members}
    if f"{top}/constants.pkl" in sizes:
        raise RosettaError(
            f"{path} is TorchScript, which is code. Where you trust it, save its weights: "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
        )
    if squeezed := next((m.filename for m in members if m.compress_type != zipfile.ZIP_STORED), ""):
        raise RosettaError(f"{path} was packed again: {squeezed} is compressed, and PyTorch's never are")
    end = 0
    with open(path, "rb") as f:
        for m in sorted(members, key=lambda m: m.header_offset):
            f.seek(m.header_offset + 26)  # in a record's own header: how long its name is, and what pads it
            here = m.header_offset + 30 + sum(struct.unpack("<HH", f.read(4))) + m.file_size
            if m.header_offset < end or m.compress_size != m.file_size or here > z.start_dir:
                raise RosettaError(f"{path} is not a whole archive: {m.filename} lies over what is beside it")
            end = here
        if min(m.header_offset for m in members) or not _ends_in_directory(f, len(members), z.start_dir):
            raise RosettaError(f"{path} is not a whole archive: there is something before it or behind it")
    if f"{top}/data.pkl" not in sizes:
        raise RosettaError(f"{path} has no {top}/data.pkl: expected PyTorch's archive")
    with z.open(f"{top}/data.pkl") as f:
        claimed = storages(path, io.BytesIO(f.read()))
    for s in claimed:
        if (there := sizes.get(f"{top}/data/{s.key}")) != s.nbytes:
            has = "isn't there" if there is None else f"has {there:,}"
            raise RosettaError(f"{path} is damaged: it speaks of {s.nbytes:,} bytes in data/{s.key}, which {has}")


def _ends_in_directory(f: BinaryIO, count: int, start: int) -> bool:
    """Whether an archive's directory goes from `start` to what ends the archive, the two ways in which that is said
    being of one mind: readers differ in which they believe."""
    size = f.seek(0, os.SEEK_END)
    f.seek(max(0, size - 98))
    tail = f.read()
    mark, *said, comment = struct.unpack("<4s6xHIIH", tail[-22:])
    behind = size - 22
    if tail[-42:-38] == b"PK\6\7":  # of an archive that may be larger than 4 GB
        behind = size - 98
        wide = list(struct.unpack("<32xQQQ", tail[:56]))
        alike = all(n in (w, most) for n, w, most in zip(said, wide, (0xFFFF, 2**32 - 1, 2**32 - 1), strict=True))
        if tail[:4] != b"PK\6\6" or struct.unpack("<8xQ4x", tail[-42:-22]) != (behind,) or not alike:
            return False
        said = wide
    found, length, offset = said
    return mark == b"PK\5\6" and not comment and (found, offset, offset + length) == (count, start, behind)


# -- HDF5


def _hdf5(path: Path, member: str = "") -> Container:
    require(f"{path} is HDF5, and reading it", ("h5py",), "keras")
    attributes, found = READER.index(path, member)
    ours = _ours(path, attributes)
    legacy = "model_weights" in attributes or "layer_names" in attributes
    entries: dict[str, Entry] = {}
    unused: dict[str, str] = {}
    ordered = False
    for said in found:
        name = where = said["where"]
        if where.split("/")[0] in ("optimizer", "optimizer_weights"):
            unused[where] = "the optimizer's"
            continue
        if legacy:
            parts = where.removeprefix("model_weights/").split("/")
            name = f"{parts[0]}/{parts[-1].removesuffix(':0')}"
        elif said["layer"]:
            at, names = where.rsplit("/", 1)[1], leaves(said["axes"])
            name = f"{said['layer']}/{names[int(at)] if at.isdigit() and int(at) < len(names) else at}"
        elif "/vars/" in where:
            ordered = True
        if name in entries:
            cure = ". It is of a model in a model: save the weights of the inner one by itself" if legacy else ""
            raise RosettaError(f"{path} has {name} twice: which one is meant can't be told{cure}")
        read = functools.partial(READER.read, path, member, where)
        entries[name] = Entry(tuple(said["shape"]), str(np.dtype(said["dtype"])), read, where)
    if not entries:
        raise RosettaError(f"{path} holds no arrays of a net")
    kind = "HDF5, Keras' older layout" if legacy else "HDF5"
    said = dict(ours)
    if text := attributes.get("model_config"):  # a whole model's
        said["config"] = _json(path, text.encode("utf-8", "replace"), "the model's configuration")
    return Container(path, kind, entries, said, ours, unused, ordered=ordered)


def _named(held: Container) -> Container:
    """A Keras archive of an older Keras keeps no names beside its arrays, but has them, in order, in its
    configuration."""
    config = held.metadata.get("config", {}).get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    if not held.ordered or not isinstance(layers, list):
        return held
    names, counts = {}, dict[str, int]()
    for layer in layers:
        if not isinstance(layer, dict) or not isinstance(layer.get("class_name"), str):
            return held
        kind = snake(layer["class_name"])
        n = counts.get(kind, 0)
        counts[kind] = n + 1
        names[f"layers/{numbered(kind, n)}"] = str(layer.get("config", {}).get("name", layer.get("name")))
    entries = {}
    for where, entry in held.entries.items():
        group, _, at = where.rpartition("/vars/")
        if group not in names:
            return held
        first = held.entries.get(f"{group}/vars/0", entry)
        kinds = leaves(len(first.shape))
        entries[f"{names[group]}/{kinds[int(at)] if at.isdigit() and int(at) < len(kinds) else at}"] = entry
    held.entries, held.ordered = entries, False
    return held


def leaves(axes: int) -> list[str]:
    """Keras' names of a layer's variables, which its files only count: a norm's have one axis all, a kernel more."""
    return list(KERAS_LEAVES["norm" if axes == 1 else "kernel"].values())


def numbered(kind: str, n: int) -> str:
    """The `n`-th of a class, from 0, as Keras' files have it: "conv2d", "conv2d_1", ..."""
    return f"{kind}_{n}" if n else kind


def snake(name: str) -> str:
    """ "BatchNormalization" as Keras' files have it: "batch_normalization"; "Conv2D" is "conv2d"."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# -- folders


OF_FOLDERS = ("model.safetensors", "pytorch_model.bin", "task.weights.h5", "model.weights.h5")


def _folder(path: Path) -> Container:
    """Hugging Face's (config.json and safetensors or a PyTorch file) or KerasHub's (config.json and .weights.h5)."""
    if (path / "saved_model.pb").exists():
        raise RosettaError(
            f"{path} is a SavedModel of TensorFlow, a graph: where the model was made, save_weights('x.weights.h5') "
            "writes what can be read here"
        )
    config = _json(path / "config.json", _small(path / "config.json"), "the configuration")
    beside = {}
    for name in ("preprocessor_config.json", "task.json"):
        if (path / name).is_file():
            beside[name] = _json(path / name, _small(path / name), name)
    for name in OF_FOLDERS:
        if (path / name).is_file():
            held = read(path / name)
            if name == "task.weights.h5" and (path / "model.weights.h5").is_file():
                body = read(path / "model.weights.h5")
                held.entries = body.entries | held.entries
                held.ordered |= body.ordered
            held.path, held.kind = path, f"folder with {name}"
            held.metadata = {"config": config, **beside, **held.metadata}
            return held
    for index in path.glob("*.index.json"):
        raise RosettaError(
            f"{path} has its weights in several files, by {index.name}: Transformers' from_pretrained(...) and "
            "save_pretrained(..., max_shard_size='50GB') put them into one"
        )
    raise RosettaError(
        f"{path} is a folder without weights: expected model.safetensors, pytorch_model.bin or model.weights.h5"
    )


def _small(path: Path) -> bytes:
    if not path.is_file():
        raise RosettaError(f"{path.parent} is a folder without {path.name}: expected one of Hugging Face or KerasHub")
    if path.stat().st_size > 2**24:
        raise RosettaError(f"{path} has {path.stat().st_size:,} bytes: no configuration is so large")
    return path.read_bytes()
