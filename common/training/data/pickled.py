"""The pickles that CIFAR's Python version and torchvision keep it in, read without running what is in them.

A pickle is a program. Only the words of it that these files use are taken, and the three things that they name are made
by stand-ins of ours: an array of bytes, its type, and a string that is bytes.
"""

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import RosettaError

_WORDS = set(
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 SHORT_BINSTRING BINSTRING SHORT_BINUNICODE "
    "BINUNICODE SHORT_BINBYTES BINBYTES EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL REDUCE BUILD BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE".split()
)


class _Type:
    def __init__(self, kind: Any, *_: Any):
        if kind not in (b"u1", "u1"):
            raise ValueError("an array that is not of bytes")

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    x: np.ndarray

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes):
            raise ValueError("an array that is not of bytes")
        self.x = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _new(*_: Any) -> _Array:
    return _Array()


def _encoded(text: str, *_: Any) -> bytes:
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _new, ("numpy._core.multiarray", "_reconstruct"): _new,
    ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type, ("_codecs", "encode"): _encoded,
}  # fmt: skip


_Unpickler: Any = pickle._Unpickler  # Python's own and not C's, which makes room for whatever number a file says


class _Reader(_Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise ValueError(f"it names {module}.{name}")
        return _NAMES[module, name]

    def set(self, key: Any, value: Any) -> None:  # to hash a tuple of tuples of tuples takes for ever
        if type(key) not in (bytes, str) or type(self.stack[-1]) is not dict:
            raise ValueError("it has a key that is no word")
        self.stack[-1][key] = value

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set(key, value)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.set(key, value)

    dispatch = _Unpickler.dispatch | {pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}


def read(path: Path) -> dict[str, Any]:
    """What the dictionary of such a file says: arrays of bytes, lists, words. Raises RosettaError for any other."""
    try:
        with open(path, "rb") as f:
            for word, _, _ in pickletools.genops(f):
                if word.name not in _WORDS:
                    raise ValueError(f"it has the word {word.name}")
            f.seek(0)
            found = _Reader(f, encoding="bytes").load()
        rows = {k.decode() if isinstance(k, bytes) else k: v for k, v in found.items()}
        return {k: v.x if isinstance(v, _Array) else v for k, v in rows.items()}
    except OSError as e:
        raise RosettaError(f"{path} can't be read: {e.strerror}") from None
    except Exception as e:  # whatever a damaged file makes of it
        raise RosettaError(f"{path} is no batch of CIFAR: {str(e)[:100] or type(e).__name__}") from None


def examples(path: Path, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(images N 3 32 32, labels) of a batch; `key` is what it calls its labels."""
    found = read(path)
    x, y = found.get("data"), found.get(key)
    if not (isinstance(x, np.ndarray) and x.ndim == 2 and x.shape[1] == 3072 and isinstance(y, list)):
        raise RosettaError(f"{path} is no batch of CIFAR: expected data of N x 3072 bytes, and {key}")
    if len(y) != len(x) or not all(type(label) is int and 0 <= label < classes for label in y):
        raise RosettaError(f"{path} is no batch of CIFAR: expected {len(x)} {key} from 0 to {classes - 1}")
    return x.reshape(-1, 3, 32, 32), np.array(y, np.int64)
