"""Damaged and hostile images, .npz, .npy and CIFAR's files: `python hostile.py KINDS FIRST COUNT FOLDER`.

In a process of its own, so that a crash, a hang or a hunger for memory is seen. Each file must be read, or refused by a
RosettaError of one short message without control characters. Prints a line of JSON for each kind.
"""

import io
import json
import random
import resource
import signal
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from common.arch import get
from common.checkpoints.preprocessing import IMAGENET
from common.errors import RosettaError
from common.plan import make_plan
from common.training import data as datasets
from common.training.data import Batches, folder, images

IMAGES = (
    "png", "16.png", "palette.png", "jpg", "exif.jpg", "gif", "tif", "16.tif", "float.tif", "lzw.tif", "webp", "bmp",
    "ppm", "pgm",
)  # fmt: skip
ARRAYS, CIFAR = ("npz", "packed.npz", "npy"), ("bin", "pickle")
SECONDS, LONGEST = 10, 2000
PLAN = make_plan(get("cifar_resnet20"))


def honest(kind: str) -> bytes:
    """A whole file."""
    x = np.random.default_rng(0).integers(0, 256, (40, 52, 3)).astype(np.uint8)
    out = io.BytesIO()
    if kind in IMAGES:
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = 6, "a camera"
        deep = Image.fromarray(x[..., 0].astype(np.uint16) * 257)
        picture, options = {
            "16.png": (deep, {}), "16.tif": (deep, {}), "palette.png": (Image.fromarray(x).convert("P"), {}),
            "exif.jpg": (Image.fromarray(x), {"exif": exif}), "pgm": (Image.fromarray(x[..., 0]), {}),
            "float.tif": (Image.fromarray(x[..., 0].astype(np.float32) / 255), {}),
            "lzw.tif": (Image.fromarray(x), {"compression": "tiff_lzw"}),
        }.get(kind, (Image.fromarray(x), {}))  # fmt: skip
        picture.save(out, Image.registered_extensions()[f".{kind.split('.')[-1]}"], **options)
    elif kind.endswith("npz"):
        y = np.arange(40) % 3
        save = np.savez if kind == "npz" else np.savez_compressed
        save(out, x_train=x.reshape(40, 4, 13, 3)[:, :, :13], y_train=y, x_test=x.reshape(40, 4, 13, 3), y_test=y)
    elif kind == "npy":
        np.save(out, x[:32, :32].transpose(2, 0, 1)[None].astype(np.float32))
    elif kind == "bin":
        rows = np.random.default_rng(0).integers(0, 10, (3, 3073)).astype(np.uint8)
        out.write(rows.tobytes())
    else:
        import pickle

        rows = np.random.default_rng(0).integers(0, 256, (3, 3072)).astype(np.uint8)
        out.write(pickle.dumps({b"data": rows, b"labels": [0, 1, 2], b"filenames": [b"a", b"b", b"c"]}, 2))
    return out.getvalue()


def mended(b: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have: so that what is in them is believed."""
    out, at = b[:8], 8
    while at + 12 <= len(b):
        n = struct.unpack(">I", b[at : at + 4])[0]
        body = b[at + 4 : at + 8 + n]
        out += b[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + n
    return out


def damage(b: bytearray, r: random.Random, how: str, at: int, near: int) -> None:
    """Damages bytes of any kind, at `at`; digits, of a shape, an offset or a count, among the first `near`."""
    if how == "flip":
        for _ in range(r.randint(1, 4)):
            b[r.choice([at, r.randrange(near)])] ^= 1 << r.randrange(8)
    elif how == "bytes":
        for i in range(at, min(len(b), at + r.randint(1, 16))):
            b[i] = r.randrange(256)
    elif how == "cut":
        b[:] = b[:at] if r.random() < 0.5 else b[:at] + b[at + r.randint(1, 4000) :]
    elif how == "insert":
        b[at:at] = r.randbytes(r.randint(1, 300))
    elif how == "zeros":
        n = r.randint(1, 3000)
        b[at : at + n] = bytes(len(b[at : at + n]))
    elif how == "swap":
        other = r.randrange(len(b))
        n = r.randint(1, 500)
        b[at : at + n], b[other : other + n] = b[other : other + n], b[at : at + n]
    elif how == "repeat":
        b += b[: r.randint(1, len(b))]
    elif how == "digits":
        digits = [i for i, c in enumerate(b[:near]) if 48 <= c <= 57]
        for _ in range(r.randint(1, 3)):
            if digits:
                b[r.choice(digits)] = r.choice(b"0123456789")


def mutate(data: bytes, r: random.Random, kind: str) -> tuple[str, bytes]:
    """(what was done, the bytes)."""
    how = r.choice(["flip", "bytes", "cut", "insert", "zeros", "sizes", "sizes", "swap", "repeat", "digits"])
    b, near = bytearray(data), min(len(data), 400)
    at = r.choice([r.randrange(near), r.randrange(len(b)), len(b) - 1 - r.randrange(near)])
    if how == "sizes":  # numbers of two and four bytes, small and beyond measure
        for _ in range(r.randint(1, 2)):
            form = r.choice(["<H", ">H", "<I", ">I"])
            n = r.choice([0, 1, 255, 20_000, 65_535, 10**6, 2**31 - 1, 2**32 - 1]) % 256 ** struct.calcsize(form)
            where = r.randrange(near)
            b[where : where + struct.calcsize(form)] = struct.pack(form, n)
    else:
        damage(b, r, how, at, near)
    found = bytes(b)
    return how, mended(found) if kind.endswith("png") and r.random() < 0.8 else found


def attempt(path: Path, kind: str) -> None:
    """Reads a file in every way that a user can."""
    if kind in IMAGES:
        image = images.photograph(path, False)
        assert image.mode in ("RGB", "F") and images.fault(path) == ""
        for draws in (None, np.arange(30, dtype=np.uint64) << np.uint64(50)):
            x = folder.pixels(path, IMAGENET, 3, draws)
            assert x.shape == (3, 224, 224) and np.isfinite(x).all() and x.min() >= 0 and x.max() <= 255
        assert np.isfinite(images.read([path], PLAN)).all()
    elif kind == "npy":
        assert images.read([path], PLAN).dtype == np.float64
    else:
        data = datasets.load(str(path)) if kind.endswith("npz") else datasets.load("cifar10", path.parent)
        assert data.train.labels.max() < len(data.classes) <= 2 * len(data.train)
        ((x, _), *_) = Batches(data.test, 4, data.preprocessing, channels=data.shape[0]).epoch()
        assert np.isfinite(x).all()


def main(kind: str, first: int, count: int, where: Path) -> None:
    warnings.simplefilter("ignore")
    data = honest(kind)
    names = [f"a.{kind}"]
    if kind in ("bin", "pickle"):
        end = ".bin" * (kind == "bin")
        names = [f"test_batch{end}", *(f"data_batch_{i}{end}" for i in range(1, 6))]
    for name in names:
        (where / name).write_bytes(data)
    attempt(where / names[0], kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for i in range(first, first + count):
        how, damaged = mutate(data, random.Random(i), kind)
        (where / names[0]).write_bytes(damaged)
        (where / "at").write_text(f"{kind} {i} {how}")
        signal.alarm(SECONDS)
        try:
            attempt(where / names[0], kind)
        except RosettaError as e:
            said = str(e)
            assert len(said) <= LONGEST and all(c.isprintable() or c == "\n" for c in said), (i, how, said)
            assert str(where) in said or said.startswith("a has"), (i, how, said)  # a: the name of data in a.npz
            refused += 1
        signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"kind": kind, "refused": refused, "read": count - refused, "grown": grown // 1024}))


if __name__ == "__main__":
    for each in sys.argv[1].split(","):
        (Path(sys.argv[4]) / each).mkdir()
        main(each, int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]) / each)
