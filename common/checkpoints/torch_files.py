"""PyTorch's own files: an archive, or pickles one after the other as before 1.6. Nothing in one is run."""

import argparse
import functools
import io
import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.checkpoints.containers import Container, Entry, widened
from common.checkpoints.pickles import NUMBERS, Inert, storages
from common.errors import RosettaError
from common.tools.frameworks import require

SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # with which a file of before 1.6 begins, pickled
NO_TENSOR = "no tensor"  # and yet among a net's
DEEPEST = 4  # dictionaries in dictionaries in which weights are looked for


def read(path: Path, others: set[str] | None = None) -> Container:
    """Of an archive that was looked through, and names `others`; or of the layout before, which is pickles one after
    the other."""
    require(f"{path} is PyTorch's own format, and reading it", ("torch",), "torch")
    import torch

    zipped = others is not None
    if others is None:
        if tarfile.is_tarfile(path):
            raise RosettaError(f"{path} is of PyTorch before 0.1.10: load it there, and save its state_dict()")
        with open(path, "rb") as f:  # a magic number, a version, the system, what was saved, names of storages
            kept, others = storages(path, f, pickles=5)
            claimed = sum({s.key: s.nbytes for s in kept}.values())
        if claimed > path.stat().st_size:
            raise RosettaError(f"{path} claims {claimed:,} bytes of tensors in a file of {path.stat().st_size:,}")
    try:
        inert = [(Inert, name) for name in ("numpy.dtype", *NUMBERS, *sorted(others))]
        with torch.serialization.safe_globals([argparse.Namespace, *inert]):
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

    if not isinstance(held, dict):
        raise RosettaError(f"{path} holds a {type(held).__name__}, no state_dict: expected {{name: tensor}}")
    unused: dict[str, str] = {}
    ours: dict[str, Any] = {}
    entries, size = {}, path.stat().st_size
    seen: dict[int, int] = {}
    for name, where, value in _tensors(held, unused, ours):
        dtype = str(value.dtype).removeprefix("torch.")
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise RosettaError(f"{path}: {name} is a {value.layout} tensor: expected a plain one")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise RosettaError(f"{path}: {name} claims {tuple(value.shape)}, more than the file holds of it")
        seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        entries[name] = Entry(tuple(value.shape), dtype, functools.partial(_from_torch, value), where)
    if sum(seen.values()) > 2 * size:
        raise RosettaError(f"{path} claims {sum(seen.values()):,} bytes of tensors in a file of {size:,}")
    if not entries:
        keys = ", ".join(map(str, list(held)[:8])) or "none"
        optimizer = {"param_groups", "state"} <= set(held) or "optimizer" in held
        what = "an optimizer's state and no weights" if optimizer else "no state_dict"
        raise RosettaError(f"{path} holds {what}: its keys are {keys}")
    metadata: dict[str, Any] = dict(ours)
    arguments = held.get("args")
    if isinstance(arguments, argparse.Namespace) and held.get("arch") == getattr(arguments, "model", 0):  # timm's
        more = {k: getattr(arguments, n, None) for k, n in (("global_pool", "gp"), ("bn_eps", "bn_eps"))}
        more |= arguments.model_kwargs if isinstance(getattr(arguments, "model_kwargs", 0), dict) else {}
        metadata["config"] = {"architecture": str(held["arch"]), "model_args": more}
    return Container(path, "PyTorch checkpoint", entries, metadata, ours, unused, widened(entries))


def _from_torch(tensor: Any) -> np.ndarray:
    import torch

    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def _tensors(held: dict, unused: dict[str, str], ours: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(name, its last part, tensor) of what a checkpoint holds: the names of dictionaries in dictionaries go before
    those of what is in them. What can be no net goes to `unused`; what we wrote of ourselves, to `ours`."""
    import torch

    seen: set[int] = set()  # a file may have one dictionary under many names

    def arrays(values: dict, depth: int) -> bool:
        if depth > DEEPEST or {"param_groups", "state"} <= set(values):
            return False
        return any(
            isinstance(v, torch.Tensor) and v.ndim > 2 or (isinstance(v, dict) and arrays(v, depth + 1))
            for v in values.values()
        )

    def walk(values: dict, before: str, depth: int) -> Iterator[tuple[str, str, Any]]:
        said = getattr(values, "_metadata", None)
        row = said.get("resnet_rosetta") if isinstance(said, dict) else None
        if isinstance(row, dict):
            ours.update((k, v) for k, v in row.items() if isinstance(k, str) and isinstance(v, str))
        for key, value in values.items():
            name = f"{before}{key}"
            if isinstance(value, torch.Tensor):
                yield name, str(key), value
            elif isinstance(value, dict) and id(value) not in seen and arrays(value, depth):
                seen.add(id(value))
                yield from walk(value, f"{name}.", depth + 1)
            else:
                beside = any(isinstance(v, torch.Tensor) and v.ndim > 2 for v in values.values())
                unused[name] = NO_TENSOR if beside else "of the training, not of the net"

    return walk(held, "", 0)


# -- the archive around the pickle


def check_records(path: Path, z: zipfile.ZipFile) -> set[str]:
    """Raises RosettaError unless each storage that PyTorch's archive speaks of is a record of its own, of its size:
    PyTorch, which maps the file, would take what lies behind the record for the rest of it."""
    members = z.infolist()
    top = members[0].filename.split("/")[0]
    sizes = {m.filename: m.file_size for m in members}
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
        claimed, others = storages(path, io.BytesIO(f.read()))
    for s in claimed:
        if (there := sizes.get(f"{top}/data/{s.key}")) != s.nbytes:
            has = "isn't there" if there is None else f"has {there:,}"
            raise RosettaError(f"{path} is damaged: it speaks of {s.nbytes:,} bytes in data/{s.key}, which {has}")
    return others


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
