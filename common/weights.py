"""The canonical weights: {canonical name: array}, PyTorch's layout; on disk safetensors, the row in the metadata.

A file alone says what it is. It is written whole or not at all, and compared with what was meant after writing.
"""

import functools
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.arch import Arch
from common.errors import RosettaError
from common.names import Shape, parameters
from common.tools.files import atomic

Weights = dict[str, np.ndarray]
Source = Mapping[str, Callable[[], np.ndarray]]  # where a net under construction gets each tensor
FORMAT = "resnet-rosetta"  # the key of the metadata
DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64"}  # safetensors' names of what weights may be


def check(arch: Arch, weights: Mapping[str, np.ndarray]) -> None:
    """Raises RosettaError unless `weights` has just the row's names and shapes, all floats; every difference is
    listed."""
    check_shapes(parameters(arch), {name: (tuple(np.shape(w)), _dtype(w)) for name, w in weights.items()})


def _dtype(value: object) -> str:
    return _dtype_name(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__


_dtype_name = functools.cache(str)  # numpy takes its time


def check_shapes(expected: Mapping[str, Shape], found: Mapping[str, tuple[Shape, str]]) -> None:
    """The comparison behind `check`, on {name: (shape, dtype)}."""
    if rows := differences(expected, found):
        summary, _, lines = rows.partition("\n")
        raise RosettaError(f"the weights don't fit the model: {summary}; nothing was changed\n{lines}")


def differences(expected: Mapping[str, Shape], found: Mapping[str, tuple[Shape, str]]) -> str:
    """What differs between names and shapes that should be and {name: (shape, dtype)} that are: how much of what, and
    a line each; empty where nothing does."""
    missing = [f"  - {name} {shape}" for name, shape in expected.items() if name not in found]
    unexpected = [f"  + {name} {shape}" for name, (shape, _) in found.items() if name not in expected]
    misshapen, mistyped = [], []
    for name, (shape, dtype) in found.items():
        if name in expected and shape != expected[name]:
            misshapen += [f"  - {name} {expected[name]}\n  + {name} {shape}"]
        elif name in expected and dtype not in DTYPES.values():
            mistyped += [f"  - {name} float16, float32 or float64\n  + {name} {dtype}"]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen, "not a float array": mistyped}
    if not any(kinds.values()):
        return ""
    summary = ", ".join(f"{len(rows)} {kind}" for kind, rows in kinds.items() if rows)
    return "\n".join([f"{summary} (- expected, + found)", *(row for rows in kinds.values() for row in rows)])


TRAINING = "training/"  # begins the names of what a training keeps beside the net


def save(
    path: str | os.PathLike,
    arch: Arch,
    weights: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Writes `weights` of `arch` as safetensors, whole or not at all, and compares the file with them.

    `training` is what `load_training` gives back: "progress", which JSON can hold, and "arrays" by name. Raises
    RosettaError where the weights don't fit the row, or the file can't be written or reads back otherwise.
    """
    check(arch, weights)
    plain = {name: np.ascontiguousarray(weights[name]) for name in parameters(arch)}
    said = {**(metadata or {}), "arch": arch.to_json()}
    more = {f"{TRAINING}{name}": np.ascontiguousarray(a) for name, a in (training or {}).get("arrays", {}).items()}
    if training:
        said["training"] = json.dumps(training["progress"])
        said["training_crc32"] = checksum({}, (more[name] for name in sorted(more)))
    meta = {FORMAT: described(said, plain)}
    plain |= more
    with atomic(path, sum(w.nbytes for w in plain.values())) as temporary:
        write_safetensors(temporary, plain, meta)
        verify(temporary, plain)


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes `arrays` to `path`. Raises RosettaError where that can't be."""
    import safetensors
    import safetensors.numpy

    # safetensors 0.8.0 writes the memory of a transposed view in its own order, under the view's shape, without
    # a word (its issue 825): so contiguous arrays go in, and what was written is compared afterwards
    plain = {name: np.require(array, requirements="C") for name, array in arrays.items()}  # a scalar stays one
    try:
        safetensors.numpy.save_file(plain, path, metadata=dict(metadata))
    except safetensors.SafetensorError as e:  # how the library reports a full disk
        raise RosettaError(f"can't write {path.name}: {e}; nothing was written") from None


def described(said: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """Our metadata: one text, since safetensors writes several keys in an order that changes from run to run; with
    a checksum over itself and `arrays`, in their order, since no container but a zip has one."""
    return json.dumps({**said, "crc32": checksum(said, arrays.values())})


def checksum(said: Mapping[str, Any], arrays: Iterable[np.ndarray]) -> str:
    """CRC-32 of the metadata, but for the checksum in it, and of the bytes of the arrays, one after the other."""
    crc = zlib.crc32(json.dumps({k: v for k, v in said.items() if k != "crc32"}, sort_keys=True).encode())
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def check_sum(path: str | os.PathLike, said: Mapping[str, Any], arrays: Iterable[np.ndarray]) -> None:
    """Raises RosettaError where the metadata has another checksum than what it came with."""
    if said.get("crc32") != (found := checksum(said, arrays)):
        raise RosettaError(f"{path} is damaged: its checksum is {found}, and should be {said.get('crc32', 'there')}")


def verify(path: str | os.PathLike, weights: Mapping[str, np.ndarray]) -> None:
    """Raises RosettaError unless the safetensors file holds just `weights`, bit for bit."""
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as f:
        names = set(f.keys())
        wrong = sorted(names ^ set(weights))
        wrong += [n for n in names & set(weights) if not same(f.get_tensor(n), weights[n])]
    if wrong:
        raise RosettaError(f"{path} reads back otherwise than it was written, at {wrong[0]} and {len(wrong) - 1} more")


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same dtype, shape and bits."""
    # as bytes: a NaN equals itself here
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bool((a.reshape(-1).view(np.uint8) == b.reshape(-1).view(np.uint8)).all())
    )


def load(path: str | os.PathLike) -> tuple[Arch, Weights, dict[str, str]]:
    """(row, weights, other metadata) of a file that `save` wrote.

    Raises RosettaError for a file that is missing, truncated, not safetensors, not ours, or whose tensors
    don't fit the row it names. Shapes are checked before any tensor is read.
    """
    import safetensors

    if not os.path.isfile(path):
        raise RosettaError(f"no such file: {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            meta = _metadata(path, dict(f.metadata() or {}))
            said = meta.pop("arch")
            arch = Arch.from_json(said)
            slices = {name: f.get_slice(name) for name in f.keys() if not name.startswith(TRAINING)}
            found = {
                name: (tuple(s.get_shape()), DTYPES.get(s.get_dtype(), s.get_dtype())) for name, s in slices.items()
            }
            try:
                check_shapes(parameters(arch), found)
            except RosettaError as e:
                raise RosettaError(f"{path}: {e}") from None
            weights = {name: f.get_tensor(name) for name in parameters(arch)}
            check_sum(path, {**meta, "arch": said}, weights.values())
            meta.pop("crc32", None)
            return arch, weights, meta
    except safetensors.SafetensorError as e:
        raise RosettaError(f"{path} is not a whole safetensors file: {e}") from None
    except OSError as e:
        raise RosettaError(f"can't read {path}: {e.strerror or e}") from None


def load_training(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, progress) that `save` was given as `training`. Raises RosettaError for a file that has none."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            meta = _metadata(path, dict(f.metadata() or {}))
            names = sorted(name for name in f.keys() if name.startswith(TRAINING))
            arrays = {name: f.get_tensor(name) for name in names}
            progress = json.loads(meta["training"])
    except KeyError:
        raise RosettaError(f"{path} holds a net, and no training to go on with") from None
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as e:
        raise RosettaError(f"{path} is not a whole safetensors file: {e}") from None
    if meta.get("training_crc32") != checksum({}, arrays.values()):
        raise RosettaError(f"{path} is damaged: what the training keeps has another checksum")
    if not isinstance(progress, dict):
        raise RosettaError(f"{path} is damaged: how far the training is, is no JSON object")
    return {name.removeprefix(TRAINING): a for name, a in arrays.items()}, progress


def channels_last(weight: np.ndarray) -> np.ndarray:
    """A kernel (out, in / groups, *k) as Keras has it, (*k, in / groups, out): a view, one move of axes for every
    rank."""
    return np.moveaxis(weight, (0, 1), (-1, -2)) if weight.ndim > 1 else weight


def channels_first(weight: np.ndarray) -> np.ndarray:
    """The way back."""
    return np.moveaxis(weight, (-1, -2), (0, 1)) if weight.ndim > 1 else weight


def not_finite(weights: Mapping[str, np.ndarray]) -> str:
    """Which tensors hold NaN or infinity, in words: "fc.bias and 3 more"; empty where none does."""
    broken = [name for name, w in weights.items() if not np.isfinite(w).all()]
    return "".join(broken[:1]) + (f" and {len(broken) - 1} more" if broken[1:] else "")


def _metadata(path: str | os.PathLike, found: dict[str, str]) -> dict[str, str]:
    try:
        meta = json.loads(found[FORMAT])
        if isinstance(meta, dict) and all(isinstance(v, str) for v in meta.values()) and "arch" in meta:
            return meta
    except (KeyError, ValueError, RecursionError):
        pass
    keys = ", ".join(found) or "none"
    raise RosettaError(
        f"{path} is safetensors but not of this project: its metadata names no architecture (its keys: {keys})"
    )
