"""A file or a folder of anybody's as a container, by what it begins with.

Files come from anywhere. Nothing in one is run; sizes are what the file itself can hold, checked before memory is
taken; every fault is a RosettaError that says what was wrong.
"""

import functools
import os
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path

from common.checkpoints import arrays, hubs, keras_files, programs, torch_files
from common.checkpoints.containers import Container, Entry, clear, from_file, json_object, ours, shards, widened
from common.errors import RosettaError
from common.weights import DTYPES

LARGEST_HEADER = 100_000_000  # bytes: what the safetensors library allows


def read(path: str | os.PathLike) -> Container:
    """The container of a file or folder, by what it begins with, not by its suffix; or of a hub's, by its name.

    Raises RosettaError for a file that is missing, damaged, of no known kind, or that would run code.
    """
    if hubs.named(path):
        local, source = hubs.fetch(path)
        held = read(local)
        held.path, held.metadata = Path(path), {**held.metadata, "source": source}
        return held
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
        raise RosettaError(f"no such file: {path}{hubs.hint(path)}") from None
    except OSError as e:
        raise RosettaError(f"can't read {path}: {e.strerror or e}") from None
    if begin.startswith(b"version https://git-lfs"):
        raise RosettaError(f"{path} is a Git LFS pointer, and the weights are elsewhere: `git lfs pull` fetches them")
    if begin.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise RosettaError(f"{path} is a web page: whatever fetched it was shown one instead of the file")
    _check_name(path)
    if begin.startswith(b"\x89HDF\r\n\x1a\n"):
        return keras_files.read(path)
    if begin.startswith(b"PK\x03\x04"):
        return _zip(path)
    if path.name.endswith(".safetensors") or begin[8:9] == b"{":
        return _safetensors(path)
    pickled = begin.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
    if path.suffix in torch_files.SUFFIXES or (pickled and torch_files.MAGIC in begin):
        return torch_files.read(path)
    if pickled:
        return arrays.pickled(path)
    raise RosettaError(
        f"{path} is no checkpoint that is known: expected safetensors, a PyTorch file, HDF5 (.h5), .keras, "
        "arrays of numpy (.npz or .pkl), or a folder"
    )


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
        header = json_object(path, f.read(length), "the header")
    with clear(path, "safetensors file"), safetensors.safe_open(path, framework="numpy"):
        pass  # the library has checked offsets and shapes
    metadata = header.pop("__metadata__", None) or {}
    entries = {}
    with clear(path, "safetensors file"):
        for name, row in header.items():
            dtype, shape = _DTYPES.get(row["dtype"], row["dtype"]), tuple(row["shape"])
            at = 8 + length + row["data_offsets"][0]
            as_it_is = (path, at) if dtype != "bfloat16" and sys.byteorder == "little" else None
            entries[name] = Entry(shape, dtype, functools.partial(from_file, path, at, shape, dtype), at=as_it_is)
    said = ours(path, metadata)
    return Container(path, "safetensors", entries, dict(said), said, {}, widened(entries))


# -- zip archives: Keras' and PyTorch's


def _zip(path: Path) -> Container:
    size = path.stat().st_size
    with clear(path, "archive"), zipfile.ZipFile(path) as z:
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
        if names and all(name.endswith(".npy") for name in names):
            return arrays.npz(path, z)
        if "config.json" not in names:
            ends = {n.partition("/")[2] for n in names}
            if "archive_format" in ends or "serialized_exported_program.json" in names:
                return programs.exported(path, z)
            if "constants.pkl" in ends:
                return programs.scripted(path, z)
            if not any(n.endswith("data.pkl") for n in names):
                raise RosettaError(f"{path} is an archive, but neither Keras' (config.json) nor PyTorch's (data.pkl)")
            others = torch_files.check_records(path, z)
            return torch_files.read(path, others)
        if "model.weights.h5" not in names:
            raise RosettaError(f"{path} has no model.weights.h5: expected Keras 3's archive")
        config = json_object(path, z.read("config.json"), "config.json")
    held = keras_files.read(path, "model.weights.h5")
    held.kind = "Keras archive"
    inner = config.get("config")
    if config.get("registered_name") == "resnet_rosetta>ResNet" and isinstance(inner, dict):
        if held.metadata.get("arch", inner.get("arch")) != inner.get("arch"):
            raise RosettaError(f"{path} is damaged: its configuration and its weights name different nets")
        held.metadata |= {k: v for k, v in inner.items() if isinstance(v, str)}
    held.metadata["config"] = config
    return keras_files.named(held)


# -- folders

OF_FOLDERS = ("model.safetensors", "pytorch_model.bin", "task.weights.h5", "model.weights.h5")


def _folder(path: Path) -> Container:
    """Hugging Face's (config.json and safetensors or a PyTorch file) or KerasHub's (config.json and .weights.h5)."""
    if (path / "saved_model.pb").exists():
        raise RosettaError(
            f"{path} is a SavedModel of TensorFlow, a graph: where the model was made, save_weights('x.weights.h5') "
            "writes what can be read here"
        )
    config = json_object(path / "config.json", _small(path / "config.json"), "the configuration")
    beside = {}
    for name in ("preprocessor_config.json", "task.json"):
        if (path / name).is_file():
            beside[name] = json_object(path / name, _small(path / name), name)
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
    for index in sorted(path.glob("*.index.json"), reverse=True):  # safetensors before pickles
        parts = [read(path / name) for name in shards(index)]
        held = parts[0]
        for part in parts[1:]:
            if twice := next((name for name in part.entries if name in held.entries), ""):
                raise RosettaError(f"{path} has {twice} in two of its files: which one is meant can't be told")
            held.entries |= part.entries
        held.path, held.kind = path, f"folder with {index.name}"
        held.metadata = {"config": config, **beside, **held.metadata}
        return held
    raise RosettaError(
        f"{path} is a folder without weights: expected model.safetensors, pytorch_model.bin or model.weights.h5"
    )


def _small(path: Path) -> bytes:
    if not path.is_file():
        raise RosettaError(f"{path.parent} is a folder without {path.name}: expected one of Hugging Face or KerasHub")
    if path.stat().st_size > 2**24:
        raise RosettaError(f"{path} has {path.stat().st_size:,} bytes: no configuration is so large")
    return path.read_bytes()
