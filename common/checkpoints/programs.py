"""The weights in programs of PyTorch's, TorchScript and exported ones: the code beside them is neither run nor read."""

import functools
import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoints.arrays import WORDS, Reader, dictionary
from common.checkpoints.containers import Container, Entry, clear, from_file, json_object, widened
from common.errors import RosettaError

_NOTE = "it is a program, of which the weights are taken; its code is neither run nor read"
_STORAGES = {
    "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16", "DoubleStorage": "float64",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
# torch.export's numbers of the dtypes (torch/_export/serde/schema.py, ScalarType)
_NUMBERS = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
            12: "bool", 13: "bfloat16"}  # fmt: skip


@dataclass(frozen=True)
class _Tensor:
    """As a program says it: which record, and where in it, counted in elements."""

    record: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def scripted(path: Path, z: zipfile.ZipFile) -> Container:
    """The parameters and statistics of a TorchScript file. Raises RosettaError for one without, such as a frozen one,
    whose weights are constants of its code."""
    top = z.namelist()[0].split("/")[0]
    with clear(path, "TorchScript file"):
        code = z.read(f"{top}/data.pkl")
        if word := next((w.name for w, _, _ in pickletools.genops(code) if w.name not in _WORDS), ""):
            raise ValueError(f"it has the word {word}")
        found = dict(_tensors(_Program(io.BytesIO(code)).load(), "", ()))
        entries = _entries(path, z, {name: (f"{top}/data/{t.record}", t) for name, t in found.items()})
    if not entries:
        raise RosettaError(
            f"{path} is TorchScript whose weights are constants of its code: save it before it is frozen"
        )
    return Container(path, "TorchScript", entries, notes=[_NOTE, *widened(entries)])


def exported(path: Path, z: zipfile.ZipFile) -> Container:
    """The parameters and statistics of what torch.export.save wrote."""
    configs = [name for name in z.namelist() if name.endswith("/data/weights/model_weights_config.json")]
    if not configs:
        raise RosettaError(
            f"{path} is an exported program of PyTorch before 2.8. Where you trust it, save its weights: "
            f"torch.save(torch.export.load({path.name!r}).state_dict, 'weights.pth')"
        )
    with clear(path, "exported program"):
        found = {}
        for name, row in json_object(path, z.read(configs[0]), "the weights' configuration")["config"].items():
            meta = row["tensor_meta"]
            if row["use_pickle"] or meta["dtype"] not in _NUMBERS:
                raise ValueError(f"{name} is no plain tensor")
            sizes, strides = (tuple(n["as_int"] for n in meta[key]) for key in ("sizes", "strides"))
            tensor = _Tensor(
                row["path_name"], _NUMBERS[meta["dtype"]], meta["storage_offset"]["as_int"], sizes, strides
            )
            found[name] = (f"{configs[0].rpartition('/')[0]}/{tensor.record}", tensor)
        entries = _entries(path, z, found)
    return Container(path, "exported program", entries, notes=[_NOTE, *widened(entries)])


def _entries(path: Path, z: zipfile.ZipFile, found: dict[str, tuple[str, _Tensor]]) -> dict[str, Entry]:
    """Where in the archive the numbers of each tensor are."""
    entries = {}
    with open(path, "rb") as f:
        for name, (record, t) in found.items():
            info, size = z.getinfo(record), np.dtype(t.dtype.replace("bfloat16", "float16")).itemsize
            count, places = math.prod(t.shape), [math.prod(t.shape[i + 1 :]) for i in range(len(t.shape))]
            whole = all(n == 1 or step == place for n, step, place in zip(t.shape, t.strides, places, strict=True))
            if min((t.offset, *t.shape)) < 0 or (t.offset + count) * size > info.file_size or not whole:
                raise ValueError(f"{name} isn't whole in {record}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{record} is compressed, and PyTorch's never are")
            f.seek(info.header_offset + 26)  # in the record's own header: how long its name is, and what pads it
            at = info.header_offset + 30 + sum(struct.unpack("<HH", f.read(4))) + t.offset * size
            entries[name] = Entry(t.shape, t.dtype, functools.partial(from_file, path, at, t.shape, t.dtype))
    return entries


# -- TorchScript's pickle: objects of the program's own classes, which have tensors


class _Object:
    """An object of a class whose code is in the program."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _tensors(value: Any, before: str, around: tuple[int, ...]) -> Iterator[tuple[str, _Tensor]]:
    if not isinstance(value, _Object) or id(value) in around or not isinstance(value.state, dict):
        return
    for name, inner in value.state.items():
        if isinstance(inner, _Tensor):
            yield f"{before}{name}", inner
        yield from _tensors(inner, f"{before}{name}.", (*around, id(value)))


def _tensor(storage: _Tensor, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage.record, storage.dtype, offset, shape, strides)


def _nothing(*_: Any) -> None:
    pass


def _first(value: Any, *_: Any) -> Any:
    return value


class _Program(Reader):
    """Python's own unpickler, in which nothing is what it seems."""

    keys = (str, int, float, bool)

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return type("_Object", (_Object,), {})
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known = {
            "torch._utils._rebuild_tensor_v2": _tensor, "collections.OrderedDict": dictionary, "torch.device": _nothing,
            "torch.jit._pickle.restore_type_tag": _first,
            **{f"torch.jit._pickle.build_{kind}list": _nothing for kind in ("int", "double", "bool", "tensor")},
        }  # fmt: skip
        if f"{module}.{name}" not in known:
            raise ValueError(f"it names {module}.{name}")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> _Tensor:
        what, kind, key, *_ = pid
        if what != "storage" or not isinstance(kind, str) or not isinstance(key, str):
            raise ValueError("it refers to what is no storage")
        return _Tensor(key, kind, 0, (), ())


_WORDS = WORDS | {"NEWOBJ", "BINPERSID", "LONG1"}
