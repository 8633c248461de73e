"""Where examples come from: data sets by name, a folder of images, a .npz."""

import dataclasses
import gzip
import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoints.preprocessing import CIFAR10, LARGEST, Preprocessing
from common.errors import RosettaError, nearest
from common.training.data import counters, npz, pickled
from common.training.data.augment import Augment
from common.training.data.download import cached
from common.training.data.examples import Data, Examples

SOURCES = {
    "digits": "1,797 handwritten digits of 8 x 8 pixels, which scikit-learn ships",
    "fashion-mnist": "70,000 pictures of clothes, 28 x 28: Debian's package dataset-fashion-mnist, or downloaded",
    "cifar10": "60,000 photographs of 10 classes, 32 x 32, in the binary format",
    "cifar100": "the same of 100 classes",
    "ecg": "4,000 heartbeat signals of 4 classes, generated, for the nets of one axis",
    "folder:PATH": "PATH/train/CLASS/*.png and PATH/val/CLASS/*.png, or other images; --hold-out needs no val",
    "FILE.npz": "x_train, y_train, x_test, y_test, and classes if they have names; x is N H W C or N L C, or --layout",
}


def load(
    spec: str, folder: str | os.PathLike | None = None, *, size: int | None = None, skip_corrupt: bool = False,
    layout: str | None = None, hold_out: bool = False,
) -> Data:  # fmt: skip
    """The data set that `spec` names, one of SOURCES; `folder` is where its files are, where they are not in the
    usual place. `size` is what images are resized and cut to: a folder's to 224 by default, others stay as they are.
    `skip_corrupt` leaves out images that can't be read, which are an error otherwise. `layout` says where a .npz has
    its channels, where that isn't plain. Where training examples are to be held out (`hold_out`), no others to
    measure on are needed.

    Raises RosettaError for an unknown name, files that are missing or damaged, and labels that can't be.
    """
    if layout is not None and (layout not in npz.LAYOUTS or not spec.endswith(".npz")):
        raise RosettaError(f"layout {layout!r} can't be for {spec}: expected {' or '.join(npz.LAYOUTS)}, and a .npz")
    if size is not None and not 1 <= size <= LARGEST:
        raise RosettaError(f"size {size} can't be: expected at least 1 pixel, and at most {LARGEST}")
    if spec.startswith("folder:"):
        from common.training.data.folder import read

        data = read(Path(spec.removeprefix("folder:")), size or 224, skip_corrupt, test=not hold_out)
    elif spec.endswith(".npz"):
        data = _npz(Path(spec), layout, test=not hold_out)
    elif spec in _NAMED:
        data = _NAMED[spec](Path(folder) if folder is not None else None)
    else:
        hint = nearest(spec, _NAMED) or "; there are " + ", ".join(SOURCES)
        if Path(spec).is_dir():
            hint = f"; that is a folder: --data folder:{spec}"
        raise RosettaError(f"unknown data {spec!r}{hint}")
    if size is not None and not data.train.files:
        data = _resized(data, size)
    _check(data, test=not hold_out)
    return data


def _resized(data: Data, size: int) -> Data:
    """The data, of which the net sees images of `size`."""
    if len(data.shape) != 3:
        raise RosettaError(f"{data.name} has signals of {data.shape[-1]} places: --size is for images")
    if data.shape[1:] == (size, size):
        return data
    train, test = (dataclasses.replace(part, size=size) for part in (data.train, data.test))
    how = dataclasses.replace(data.preprocessing, size=size, resize=size)
    return dataclasses.replace(data, train=train, test=test, shape=(data.shape[0], size, size), preprocessing=how)


def _check(data: Data, test: bool) -> None:
    k = len(data.classes)
    if k < 2:
        raise RosettaError(f"{data.name} has {k} class{'es' * (k != 1)}: expected at least 2")
    if strange := [c for c in data.classes if not c.isprintable() or not c]:
        raise RosettaError(f"{data.name} has a class whose name can't be printed: {strange[0][:40]!r}")
    for kind, part in (("training", data.train), ("test", data.test)):
        if not len(part):
            if kind == "test" and not test:
                continue
            raise RosettaError(f"{data.name} has no {kind} examples")
        if part.labels.min() < 0 or part.labels.max() >= k:
            raise RosettaError(
                f"{data.name} has {kind} labels from {part.labels.min()} to {part.labels.max()}: expected 0 to {k - 1}"
            )
    data.train.labels, data.test.labels = (p.labels.astype(np.int64) for p in (data.train, data.test))


def _spread(x: np.ndarray, size: int, scale: float = 255.0) -> Preprocessing:
    """Mean and deviation of each channel of N C *S, to four digits: what gets into a file is what is computed with."""
    axes, count = (0, *range(2, x.ndim)), x.size // x.shape[1]
    pieces = [x[i : i + 256] for i in range(0, len(x), 256)]  # the whole in float64 would be eight times as large
    mean = np.sum([p.sum(axes, dtype=np.float64) for p in pieces], 0) / count
    apart = (p - mean.reshape(-1, *(1,) * (x.ndim - 2)) for p in pieces)
    std = np.sqrt(np.sum([(a * a).sum(axes) for a in apart], 0) / count)
    return Preprocessing(
        tuple(round(float(m) / scale, 4) for m in mean), tuple(max(round(float(s) / scale, 4), 1e-4) for s in std),
        scale=scale, size=size, resize=size,
    )  # fmt: skip


def _digits(folder: Path | None) -> Data:
    from sklearn.datasets import load_digits

    found = load_digits()
    x = (found.images[:, None] * (255 / 16)).round().astype(np.uint8)  # N 1 8 8
    test = np.arange(len(x)) % 5 == 4  # every fifth: the writers come one after another
    parts = [Examples(found.target[rows], x[rows]) for rows in (~test, test)]
    return Data(
        "digits", parts[0], parts[1], tuple("0123456789"), (1, 8, 8), _spread(x, 8), Augment("pad", 1)
    )  # fmt: skip


_CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
)  # fmt: skip
# SHA-256 of the unpacked files: the packages that hold them are packed anew by whoever offers them
_FASHION = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def _fashion_mnist(folder: Path | None) -> Data:
    if folder is None and _DEBIAN.is_dir():
        folder = _DEBIAN
    parts = []
    for which in ("train", "t10k"):
        arrays = []
        for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
            name = f"{which}-{kind}-ubyte"
            if folder is None:
                path = cached(f"{FASHION_URL}/{name}.gz", f"fashion-mnist/{name}.gz", _FASHION[name], _unpacked)
            else:
                path = _inside(folder, f"{name}.gz", name)
            content = _unpacked(path)
            if hashlib.sha256(content).hexdigest() != _FASHION[name]:
                raise RosettaError(f"{path} is damaged or another file: its content is not Fashion-MNIST's {name}")
            arrays.append(np.frombuffer(content, np.uint8, offset=header))
        parts.append(Examples(arrays[1], arrays[0].reshape(-1, 1, 28, 28)))
    preprocessing = Preprocessing((0.286,), (0.353,), size=28, resize=28)
    return Data("fashion-mnist", parts[0], parts[1], _CLOTHES, (1, 28, 28), preprocessing, Augment("pad", 2, flip=True))


def _inside(folder: Path, *names: str) -> Path:
    """The first file of these names in a folder, or up to two below it, where other libraries put them."""
    for deeper in ("", "*/", "*/*/"):
        for name in names:
            if found := sorted(p for p in folder.glob(deeper + name) if p.is_file()):
                return found[0]
    raise RosettaError(f"no such file: {folder / names[0]}" + f", nor {', '.join(names[1:])}" * (len(names) > 1))


def _unpacked(path: Path) -> bytes:
    try:
        with open(path, "rb") as f:
            content = f.read()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except FileNotFoundError:
        raise RosettaError(f"no such file: {path}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as e:
        raise RosettaError(f"{path} can't be read: {e}") from None
    except Exception as e:  # zlib.error, which is no OSError
        raise RosettaError(f"{path} is damaged: {e}") from None


# MD5: what the authors publish of the binary version (cs.toronto.edu/~kriz/cifar.html)
_CIFAR = {
    "cifar10": (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
        [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin",
        (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616),
    ),
    "cifar100": (
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8",
        ["train.bin"], "test.bin", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
    ),
}  # fmt: skip


def _cifar(name: str, folder: Path | None) -> Data:
    url, md5, train, test, mean, std = _CIFAR[name]
    if folder is None:
        from common.training.data.download import unpacked

        folder = unpacked(url, name, md5)
    coarse, k = (1, 100) if name == "cifar100" else (0, 10)  # a byte of the coarse class comes first
    python = test.removesuffix(".bin")  # its file in the Python version, a pickle
    inside = _inside(folder, test, python).parent
    if not (inside / test).is_file():
        train = [file.removesuffix(".bin") for file in train]

    def part(files: Sequence[str]) -> Examples:
        rows = []
        for file in files:
            if not file.endswith(".bin"):
                x, y = pickled.examples(inside / file, "fine_labels" if coarse else "labels", k)
                front = np.stack([y] * (1 + coarse), 1).astype(np.uint8)
                rows.append(np.concatenate([front, x.reshape(len(x), -1)], 1))
                continue
            content = np.frombuffer(_unpacked(inside / file), np.uint8)
            if not len(content) or len(content) % (3073 + coarse):
                raise RosettaError(
                    f"{inside / file} has {len(content):,} bytes: expected a multiple of {3073 + coarse}, an image each"
                )
            rows.append(content.reshape(-1, 3073 + coarse))
            if (most := rows[-1][:, coarse].max()) >= k:
                raise RosettaError(f"{inside / file} has labels up to {most}: expected 0 to {k - 1}")
        every = np.concatenate(rows)
        return Examples(every[:, coarse].astype(np.int64), every[:, 1 + coarse :].reshape(-1, 3, 32, 32))

    classes: tuple[str, ...] = CIFAR10
    if name == "cifar100":
        classes = _fine_names(inside, (inside / test).is_file())
    test = test if (inside / test).is_file() else python
    preprocessing = Preprocessing(mean, std, size=32, resize=32)
    return Data(
        name, part(train), part([test]), classes, (3, 32, 32), preprocessing, Augment("pad", 4, flip=True)
    )  # fmt: skip


def _fine_names(folder: Path, binary: bool) -> tuple[str, ...]:
    """CIFAR-100's classes."""
    if binary:
        found: Any = _unpacked(folder / "fine_label_names.txt").decode("utf-8", "replace").split()
    else:
        found = pickled.read(folder / "meta").get("fine_label_names")
    if not isinstance(found, list) or len(found) != 100:
        raise RosettaError(f"{folder} names no 100 classes, in fine_label_names.txt or in meta")
    return tuple(c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in found)


ECG = ("normal", "no P wave", "wide QRS", "ST elevation")
_WAVES = {  # of a beat: (place, width, height) of P, Q, R, S and T, in parts of it and of R
    "P": (0.2, 0.025, 0.15), "Q": (0.33, 0.01, -0.12), "R": (0.36, 0.012, 1.0), "S": (0.39, 0.012, -0.25),
    "T": (0.6, 0.04, 0.3),
}  # fmt: skip


def _ecg(folder: Path | None) -> Data:
    """Made up: four kinds of heartbeat, of 1,000 samples and five beats or so, under noise and a wandering base line.
    A test of nets, and nothing about hearts."""
    n, length = 4000, 1000
    labels = np.arange(n) % len(ECG)
    u = counters.uniform(counters.raw(n * 4, 0, counters.SIGNALS, 0)).reshape(4, n, 1)
    time = np.arange(length)[None] / length
    beats = (4.5 + 1.5 * u[0]) * time + u[1]  # N L
    uneven = np.where((labels == 1)[:, None], 0.12 * np.sin(2 * np.pi * (2.3 * time + u[2])), 0)  # and irregular
    phase = (beats + uneven) % 1
    x = 0.2 * np.sin(2 * np.pi * (0.7 * time + u[3])) + 0.1 * counters.normal(
        n * length, 0, counters.SIGNALS, 1
    ).reshape(n, length)
    for wave, (place, width, height) in _WAVES.items():
        tall = np.where((labels == 1) & (wave == "P"), 0.0, height)[:, None]
        wide = np.where((labels == 2) & (wave in "QRS"), 3 * width, width)[:, None]
        x += tall * np.exp(-0.5 * ((phase - place) / wide) ** 2)
    x += np.where((labels == 3)[:, None], 0.25 * np.exp(-0.5 * ((phase - 0.48) / 0.04) ** 2), 0)
    x = x[:, None].astype(np.float32)  # N 1 L
    test = np.arange(n) % 20 >= 16
    parts = [Examples(labels[rows], x[rows]) for rows in (~test, test)]
    return Data("ecg", parts[0], parts[1], ECG, (1, length), _spread(x, length, 1.0), Augment("pad", 50))


def _npz(path: Path, layout: str | None, test: bool) -> Data:
    found = npz.read(path, test=test)
    parts: list[Examples] = []
    for which in ("train", "test"):
        if f"x_{which}" not in found or f"y_{which}" not in found:
            parts.append(parts[0].subset(np.arange(0)))
            continue
        x = npz.inputs(found.pop(f"x_{which}"), f"{path} has x_{which}", layout)
        y = npz.classes_of(found.pop(f"y_{which}"), len(x), f"{path} has y_{which}")
        parts.append(Examples(y, x))
    train, other = parts[0].x, parts[1].x
    assert train is not None and other is not None
    if train.shape[1:] != other.shape[1:] or train.dtype != other.dtype:
        raise RosettaError(f"{path} has x_train {train.shape} and x_test {other.shape}: expected one shape and dtype")
    classes, notes = npz.names_of(found, parts[0].labels, path)
    preprocessing = _spread(train, train.shape[-1], 255.0 if train.dtype == np.uint8 else 1.0)
    return Data(path.stem, parts[0], parts[1], classes, train.shape[1:], preprocessing, notes=notes)


_NAMED: dict[str, Callable[[Path | None], Data]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "cifar10": lambda folder: _cifar("cifar10", folder),
    "cifar100": lambda folder: _cifar("cifar100", folder),
    "ecg": _ecg,
}
