"""What the pickle in a PyTorch file would build, found out without building it.

PyTorch's own restricted reader runs no code of the file's, but it may be asked for any amount of memory or time: a
`bytearray` of a given length, a `set` of the elements of a tensor that one number fills, a key that is a million
tuples deep. So the instructions are first followed here with stand-ins for everything that a file names. What no file
of weights has a use for is refused before PyTorch sees it; and what each storage claims to be is known.
"""

import _compat_pickle
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from common.errors import RosettaError

BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
    "ComplexDouble": 16, "ComplexFloat": 8, "Untyped": 1,
}  # fmt: skip
KEYS = (str, bytes, int, float, type(None))  # of dictionaries: hashing a tuple goes as deep as the tuple does
NUMBERS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
# of the standard library and of PyTorch, what a checkpoint may name beside its tensors; all other names of theirs are
# of code, and who asks for them is refused: eval, os.system, bytearray, a whole model
_HARMLESS = re.compile(
    r"pathlib\.\w+|datetime\.\w+|enum\.\w+|decimal\.Decimal|fractions\.Fraction|uuid\.UUID|types\.SimpleNamespace"
    r"|collections\.(deque|defaultdict)|builtins\.(getattr|object|complex|slice|range|frozenset|list|dict|tuple)"
    r"|torch\.(optim|utils\.data|torch_version|distributed)\.[\w.]+|numpy\.ndarray|numpy\._?core\.multiarray\._reconstruct"
)
_CODE = {*sys.stdlib_module_names, "nt", "torch", "numpy", "torch_impl", "keras_impl", "common"}


class Inert:
    """What PyTorch's reader makes of everything that a file names and that isn't a tensor: a path, a class of
    somebody's, a number of numpy's (which itself crashes over a scalar without a value, and allocates what a dtype
    says). It takes what it is given, and nothing is run."""

    def __new__(cls, *args: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class Storage:
    """The bytes behind tensors, as a pickle claims them."""

    key: str
    nbytes: int


class Unwanted(Exception):
    """A pickle names something that a file of weights has no need of, or makes something odd of what it names."""


class _Named:
    """Stands for what a file names."""

    def __init__(self, name: str):
        self.name = name


class _Made:
    """Stands for what calling that gives."""

    def __init__(self, name: str):
        self.name = name


def _keys(*keys: Any) -> bool:
    return all(isinstance(key, KEYS) for key in keys)


def _pairs(*args: Any) -> bool:
    rows = args[0] if len(args) == 1 else []
    return not args or (isinstance(rows, list) and all(isinstance(r, list | tuple) and _keys(*r[:1]) for r in rows))


_NUMPY = ("f2", "f4", "f8", "i4", "i8", "u1", "b1")
# what may be called, and with what
_CALLS: dict[str, Callable[..., bool]] = {
    "collections.OrderedDict": _pairs,
    "collections.Counter": lambda *args: not args or (len(args) == 1 and isinstance(args[0], dict)),
    "builtins.set": lambda *args: len(args) == 1 and isinstance(args[0], list) and _keys(*args[0]),
    "_codecs.encode": lambda *args: len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"),
    "argparse.Namespace": lambda *args: not args,
    "numpy.dtype": lambda *args: args[:1] in ((t,) for t in _NUMPY) and args[1:] in ((), (False, True)),
    **dict.fromkeys(NUMBERS, lambda *args: len(args) == 2 and getattr(args[0], "name", "") == "numpy.dtype"),
    "torch.Size": lambda *args: len(args) == 1 and isinstance(args[0], tuple | list),
    "torch.device": lambda *args: _keys(*args),
    "torch.nn.parameter.Parameter": lambda *args: _tensors(args),
    "torch._utils._rebuild_tensor": lambda *args: len(args) == 4,
    "torch._utils._rebuild_tensor_v2": lambda *args: len(args) in (6, 7),
    "torch._utils._rebuild_tensor_v3": lambda *args: len(args) in (7, 8),
    "torch._utils._rebuild_parameter": lambda *args: _tensors(args),
    "torch._utils._rebuild_parameter_with_state": lambda *args: _tensors(args),
}
_TYPES = ("torch.Tensor", _OF_TYPE := "torch._tensor._rebuild_from_type_v2")  # named; the second calls what it is given
_DTYPE = r"torch\.(bfloat16|float\d+|u?int\d+|complex\d+|bool)"


def _tensors(args: tuple) -> bool:
    return not args or (isinstance(args[0], _Made) and args[0].name.startswith("torch."))


class _Scan(pickle._Unpickler):
    """The unpickler of the standard library, in which nothing is what it seems."""

    stack: list[Any]  # mypy knows of neither
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[Any] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8", errors="replace")
        self.storages: list[Storage] = []
        self.others: set[str] = set()  # names of which nothing is known here but that they aren't code's

    def find_class(self, module: str, name: str) -> _Named:
        if (module, name) in _compat_pickle.NAME_MAPPING:
            module, name = _compat_pickle.NAME_MAPPING[module, name]
        full = f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"
        if full in _CALLS or full in _TYPES or re.fullmatch(_DTYPE, full) or _storage(full):
            return _Named(full)
        if full.split(".")[0] in _CODE and not _HARMLESS.fullmatch(full):
            raise Unwanted(full)
        self.others.add(full)
        return _Named(full)

    def persistent_load(self, pid: Any) -> _Made:
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
            raise Unwanted("a reference to what is no storage")
        kind, key, location, count = pid[1:5]
        if not (isinstance(kind, _Named) and (size := _storage(kind.name)) and type(count) is int and count >= 0):
            raise Unwanted("a storage of no kind that is known")
        if not isinstance(key, str) or not isinstance(location, str):
            raise Unwanted("a storage without a name")
        self.storages.append(Storage(key, count * size))
        return _Made("storage")

    def called(self, what: Any, args: Any) -> _Made:
        name = getattr(what, "name", "")
        if name == _OF_TYPE and isinstance(args, tuple) and len(args) == 4:
            return self.called(args[0], args[2])
        if not isinstance(what, _Named) or not isinstance(args, tuple):
            raise Unwanted("a call of what is no function")
        if name not in self.others and (name not in _CALLS or not _CALLS[name](*args)):
            raise Unwanted(f"{name} in an odd way")
        return _Made(name)

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.called(self.stack[-1], args)

    def load_build(self) -> None:
        state = self.stack.pop()
        name = getattr(self.stack[-1], "name", "")
        if name == "collections.OrderedDict":
            good = isinstance(state, dict) and not any(hasattr(OrderedDict, str(k)) for k in state)
        else:
            good = name in ("argparse.Namespace", "numpy.dtype") or name in self.others
        if not good:
            raise Unwanted(f"a state of {name or 'what has none'}")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.into([key, value])

    def load_setitems(self) -> None:
        self.into(self.pop_mark())

    def into(self, items: list) -> None:
        keys, there = items[::2], self.stack[-1]
        if not _keys(*keys) or len(items) % 2:
            raise Unwanted("a key that is no name")
        if isinstance(there, dict):
            there.update(zip(keys, items[1::2], strict=True))
        elif getattr(there, "name", "") not in ("collections.OrderedDict", "collections.Counter"):
            raise Unwanted("keys in what has none")

    def load_append(self) -> None:
        value = self.stack.pop()
        self.listed().append(value)

    def load_appends(self) -> None:
        values = self.pop_mark()
        self.listed().extend(values)

    def listed(self) -> list:
        if not isinstance(self.stack[-1], list):
            raise Unwanted("elements in what is no list")
        return self.stack[-1]

    dispatch |= {
        pickle.REDUCE[0]: load_reduce, pickle.NEWOBJ[0]: load_reduce, pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems,
        pickle.APPEND[0]: load_append, pickle.APPENDS[0]: load_appends,
    }  # fmt: skip
    for _ in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.ADDITEMS):
        dispatch.pop(_[0], None)  # which PyTorch's reader doesn't know either


def _storage(name: str) -> int:
    """Bytes of an element, or 0 where `name` is no storage."""
    kind = name.rsplit(".", 1)[-1]
    inside = name.removesuffix(kind) in ("torch.", "torch.cuda.", "torch.storage.")
    return BYTES.get(kind.removesuffix("Storage"), 0) if inside and kind.endswith("Storage") else 0


def storages(path: object, file: BinaryIO, pickles: int = 1) -> tuple[list[Storage], set[str]]:
    """What the pickles, one after the other in `file`, claim of bytes behind tensors, and what they name that isn't
    known here; `file` is then at their end.

    Raises RosettaError where one names, or calls, what no file of weights has a use for, or isn't whole.
    """
    found: list[Storage] = []
    others: set[str] = set()
    for _ in range(pickles):
        scan = _Scan(file)
        try:
            scan.load()
        except Unwanted as e:
            raise RosettaError(
                f"{path} wants to run {e}, which a file of weights has no need of; nothing of it was run. If it is a "
                "whole pickled model: load it where you trust it, and save its state_dict()"
            ) from None
        except (MemoryError, RecursionError):
            raise RosettaError(f"{path} asks for more memory than there is") from None
        except Exception as e:  # an unpickler's errors are of any kind
            reason = str(e).strip().split("\n")[0] or "it ends in the middle"
            raise RosettaError(f"{path} is not a whole PyTorch checkpoint of tensors alone: {reason[:200]}") from None
        found += scan.storages
        others |= scan.others
    return found, others
