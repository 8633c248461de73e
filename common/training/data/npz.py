"""Examples in a .npz, read without trusting it: no pickles, nothing that claims to be larger than it is."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoints.arrays import array
from common.errors import RosettaError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
UNPACKED, RATIO = 100_000_000, 100  # bytes that a packed file may have in all; beyond that, so many times its own
LAYOUTS = ("channels-first", "channels-last")


def read(path: Path, *, test: bool = True) -> dict[str, np.ndarray]:
    """The arrays of ARRAYS that a .npz has, and `classes`. Without `test` it needs none to measure on.

    Raises RosettaError for a file that is missing, no .npz, damaged, or lacks an array.
    """
    try:
        with zipfile.ZipFile(path) as z:
            members = {info.filename.removesuffix(".npy"): info for info in z.infolist()}
            if missing := [key for key in ARRAYS[: 4 if test else 2] if key not in members]:
                has = ", ".join(map(repr, list(members)[:10])) + ", ..." * (len(members) > 10)
                hint = "" if missing[0] in ARRAYS[:2] else "; --hold-out 0.2 measures on training examples"
                raise RosettaError(
                    f"{path} lacks {', '.join(missing)}: expected {', '.join(ARRAYS)}, and has {has or 'nothing'}{hint}"
                )
            wanted = {key: members[key] for key in (*ARRAYS, "classes") if key in members}
            whole, size = sum(info.file_size for info in wanted.values()), os.stat(path).st_size
            if whole > max(UNPACKED, RATIO * size):
                raise RosettaError(
                    f"{path} has {size:,} bytes and claims {whole:,} unpacked, more than {RATIO} times as many"
                )
            found = {}
            for key, info in wanted.items():
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise RosettaError(f"{path} has {key} packed in another way than numpy's")
                with z.open(info) as f:
                    found[key] = array(f, info.file_size, f"{path} has {key}")
            return found
    except FileNotFoundError:
        raise RosettaError(f"no such file: {path}") from None
    except zipfile.BadZipFile as e:
        raise RosettaError(f"{path} is not a whole .npz, such as numpy.savez writes: {e}") from None
    except RosettaError:
        raise
    except Exception as e:  # zipfile documents few: zlib.error, NotImplementedError, struct.error, ... were seen
        raise RosettaError(f"{path} is not a whole .npz of plain arrays: {str(e)[:100] or type(e).__name__}") from None


def inputs(x: np.ndarray, what: str, layout: str | None) -> np.ndarray:
    """Examples as N C *S: uint8, or float32. They come as N H W C or N L C, with `layout` "channels-first" as N C H W
    or N C L; grey images of uint8 also as N H W.

    Raises RosettaError where they seem to come the other way round and `layout` doesn't say so.
    """
    if x.dtype.kind != "f" and x.dtype != np.uint8:
        hint = "; if they are 0 to 255, x.astype(numpy.uint8)" if x.dtype.kind in "iub" else ""
        raise RosettaError(f"{what} of {x.dtype}: expected uint8, or finite floats{hint}")
    if x.ndim == 3 and x.dtype == np.uint8:
        x, layout = x[..., None], "channels-last"
    if x.ndim not in (3, 4) or not x.size:
        raise RosettaError(f"{what} {x.shape}: expected N H W C, or N L C of floats, and none of them 0")
    if layout is None and _swapped(*x.shape[1:]):
        first, last = ("N C H W", "N H W C") if x.ndim == 4 else ("N C L", "N L C")
        raise RosettaError(
            f"{what} {x.shape}: as {last}, which is expected, that is {x.shape[-1]} channels, and it looks like "
            f"{first}. Say which it is: --layout channels-first or --layout channels-last"
        )
    x = x if layout == "channels-first" else np.moveaxis(x, -1, 1)
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, None if x.dtype == np.uint8 else np.float32)
    if x.dtype != np.uint8:
        for i, example in enumerate(x):
            if not np.isfinite(example).all():
                raise RosettaError(f"{what}, of which number {i} is not finite: expected uint8, or finite floats")
    return x


def _swapped(*shape: int) -> bool:
    """Whether an example's axes look like channels, then places: few, then many."""
    first, last = shape[0], shape[-1]
    if len(shape) == 2:
        return first < last and first <= 32
    return first < last and last > 4 and (first <= 4 or shape[1] == last)


def classes_of(y: np.ndarray, n: int, what: str) -> np.ndarray:
    """Labels as int64, one an example. Raises RosettaError for what is none, with what makes labels of it."""
    if y.ndim == 2 and y.shape[0] == n and y.shape[1] > 1:
        raise RosettaError(
            f"{what} {y.shape}, which looks one-hot: expected one label an example; y.argmax(1) makes them"
        )
    if y.size != n or y.shape[:1] != (n,):
        raise RosettaError(f"{what} {y.shape} for {n} examples: expected one label an example")
    if y.dtype.kind not in "iu":
        hint = {
            "f": "; y.astype(int), if they are whole", "b": "; y.astype(int)",
            "U": "; classes, y = numpy.unique(y, return_inverse=True)",
        }.get(y.dtype.kind, "")  # fmt: skip
        raise RosettaError(f"{what} of {y.dtype}: expected integers{hint}")
    if n and (int(y.min()) < 0 or int(y.max()) >= 2**31):
        raise RosettaError(f"{what} with labels from {y.min()} to {y.max()}: expected 0 to the number of classes - 1")
    return y.reshape(-1).astype(np.int64)


def names_of(found: dict[str, np.ndarray], labels: np.ndarray, path: Path) -> tuple[tuple[str, ...], list[str]]:
    """(the classes' names, notes on classes without an example), by the training's labels."""
    used, k = np.unique(labels), int(labels.max(initial=-1)) + 1
    given: Any = found.get("classes")
    if given is not None:
        if given.ndim != 1 or given.dtype.kind not in "USiu":
            raise RosettaError(f"{path} has classes {given.shape} of {given.dtype}: expected a name for each class")
        names = tuple(c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in given.tolist())
    elif k > 2 * len(used):
        raise RosettaError(
            f"{path} has y_train with {len(used)} different labels, up to {k - 1}: expected 0 to {len(used) - 1}; "
            "numpy.unique(y, return_inverse=True)[1] makes them"
        )
    else:
        names = tuple(map(str, range(k)))
    empty = sorted(set(range(len(names))) - set(used.tolist()))
    if not empty or len(empty) == len(names):
        return names, []
    why = ": labels begin at 0, and these at 1" if empty == [0] else ""
    more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
    return names, [f"no training example is of class {', '.join(names[i] for i in empty[:5])}{more}{why}"]
