"""numpy's own files: an array, an .npz of them, and pickles, such as detectron2's weights and CIFAR's examples.

Nothing in one is run, and nothing is believed that claims to be larger than it is. A pickle is a program: only those
words of it are taken that dictionaries of arrays need, and the few things that they name are made by stand-ins of ours.
"""

import functools
import math
import mmap
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from common.checkpoints.containers import Container, Entry, clear
from common.errors import RosettaError
from common.names import Shape

DEEPEST = 4  # dictionaries in dictionaries


def npz(path: Path, z: zipfile.ZipFile) -> Container:
    """The arrays of an archive that was looked through. No pickled ones."""
    entries = {}
    for info in z.infolist():
        name = info.filename.removesuffix(".npy")
        with z.open(info) as f:
            shape, _, dtype = header(f, info.file_size, f"{path} has {name}")
        read = functools.partial(_member, path, info.filename)
        entries[name] = Entry(shape, str(dtype.newbyteorder("=")), read)
    return Container(path, "arrays of numpy (.npz)", entries)


def _member(path: Path, name: str) -> np.ndarray:
    with clear(path, ".npz"), zipfile.ZipFile(path) as z, z.open(name) as f:
        return array(f, z.getinfo(name).file_size, f"{path} has {name}")


def header(f: IO[bytes], size: int, what: str) -> tuple[Shape, bool, np.dtype]:
    """(shape, whether the first axis is the fastest, dtype) of an .npy of `size` bytes; `f` is then at its numbers.
    `what` begins the sentence of a RosettaError."""
    try:
        version = np.lib.format.read_magic(f)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0
        }[version]  # fmt: skip
        shape, fortran, dtype = reader(f)
    except Exception as e:  # the header is Python's own syntax: whatever its parser raises
        raise RosettaError(f"{what}, which is not a whole .npy: {str(e)[:100] or type(e).__name__}") from None
    if dtype.kind not in "biufSU" or not dtype.itemsize or any(n < 0 for n in shape):
        raise RosettaError(f"{what} of {str(dtype)[:40]}: expected plain arrays of numbers, or words for classes")
    count, there = math.prod(shape) * dtype.itemsize, size - f.tell()
    if count != there:
        raise RosettaError(f"{what}, which is damaged: {count:,} bytes by its header, and {there:,} are there")
    return shape, fortran, dtype


def array(f: IO[bytes], size: int, what: str) -> np.ndarray:
    """The array of an .npy of `size` bytes. `what` begins the sentence of a RosettaError."""
    shape, fortran, dtype = header(f, size, what)
    count = math.prod(shape) * dtype.itemsize
    content = np.empty(count, np.uint8)
    at = 0
    while at < count and (piece := f.read(min(1 << 20, count - at))):
        content[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    if at < count or f.read(1):  # its end is where a member's checksum is looked at
        raise RosettaError(f"{what}, which ends after {at:,} of {count:,} bytes")
    return content.view(dtype).reshape(shape, order="F" if fortran else "C")


# -- pickles


def pickled(path: Path) -> Container:
    """The arrays of a dictionary that somebody pickled; those of dictionaries in it have both names."""
    with clear(path, "pickle of numpy's arrays"):
        found = unpickled(path)
    entries: dict[str, Entry] = {}
    unused: dict[str, str] = {}
    for name, value in _flat(found, "", 0):
        if isinstance(value, np.ndarray):
            entries[name] = Entry(value.shape, str(value.dtype), functools.partial(np.asarray, value))
        else:
            unused[name] = "of the training, not of the net"
    return Container(path, "pickle of numpy's arrays", entries, unused=unused)


def _flat(values: dict, before: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and depth < DEEPEST:
            yield from _flat(value, f"{before}{key}.", depth + 1)
        else:
            yield f"{before}{key}", value


WORDS = set(
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINFLOAT SHORT_BINSTRING BINSTRING "
    "SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL REDUCE BUILD BINPUT LONG_BINPUT BINGET LONG_BINGET "
    "MEMOIZE".split()
)


class _Type:
    """A dtype of numpy's."""

    def __init__(self, kind: Any, *_: Any):
        self.kind = np.dtype({b: b for b in ("u1", "i4", "i8", "f2", "f4", "f8")}[_text(kind)]).newbyteorder("<")

    def __setstate__(self, state: Any) -> None:
        if _text(state[1]) not in "<|":
            raise ValueError("an array with its last byte first")


class _Array:
    x: np.ndarray

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes):
            raise ValueError("an array that is not of numbers")
        self.x = np.frombuffer(content, kind.kind).reshape(shape, order="F" if fortran else "C")


def _new(*_: Any) -> _Array:
    return _Array()


def _encoded(text: str, *_: Any) -> bytes:
    return text.encode("latin1")


def _text(word: Any) -> str:
    return word.decode("latin1") if isinstance(word, bytes) else str(word)


def dictionary() -> dict:
    return {}


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _new, ("numpy._core.multiarray", "_reconstruct"): _new,
    ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type, ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): dictionary,
}  # fmt: skip


_Unpickler: Any = pickle._Unpickler  # Python's own and not C's, which makes room for whatever number a file says


class Reader(_Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise ValueError(f"it names {module}.{name}")
        return _NAMES[module, name]

    keys: tuple[type, ...] = (bytes, str)  # to hash a tuple of tuples of tuples takes for ever

    def set(self, key: Any, value: Any) -> None:
        if type(key) not in self.keys or type(self.stack[-1]) is not dict:
            raise ValueError("it has a key that is no word")
        self.stack[-1][_text(key)] = value.x if isinstance(value, _Array) else value

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set(key, value)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.set(key, value)

    dispatch = _Unpickler.dispatch | {pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}


def unpickled(path: Path) -> dict[str, Any]:
    """What the dictionary of such a file says: arrays, lists, words. Raises whatever a damaged one, or one that is
    something else, makes of it."""
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        held: Any = mapped  # which reads as a file does, and never more than there is
        for word, _, _ in pickletools.genops(held):
            if word.name not in WORDS:
                raise ValueError(f"it has the word {word.name}")
        held.seek(0)
        found = Reader(held, encoding="bytes").load()
    if not isinstance(found, dict):
        raise ValueError(f"it is a {type(found).__name__}, no dictionary")
    return found
