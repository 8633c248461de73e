"""Damaged and hostile checkpoints, made from an honest one: `python mutations.py KIND FIRST COUNT FOLDER`.

In a process of its own, so that a crash or a hang of a library under it is seen as one. Each mutation must end in a
clear error and no output, or in output that equals what the file now says.
"""

import contextlib
import io
import json
import random
import resource
import signal
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import safetensors.numpy

from common import port, writers
from common.arch import Stem, get
from common.errors import RosettaError
from common.init import randomised

ARCH = get("resnet18", depths=(1, 1), widths=(16, 16), stem={"convs": [[8, 3, 1]], "pool": False}, num_classes=3)
KINDS = {
    "a.safetensors": None, "b.pth": None, "c.weights.h5": None, "d.keras": None, "e.safetensors": "torchvision",
    "bare.safetensors": "torchvision",
    "f.pth": "kuangliu", "g.h5": "keras.applications", "h.weights.h5": "keras.applications",
}  # fmt: skip
SECONDS = 10


def honest(kind: str, folder: Path) -> Path:
    """A whole file of this kind."""
    library = KINDS[kind]
    arch = get("resnet50_keras", num_classes=3) if library == "keras.applications" else ARCH
    if library == "torchvision":
        arch = get(ARCH, stem=Stem())
    where = folder / kind
    writers.write(where, writers.target_of(where, library, arch), arch, randomised(arch))
    if kind.startswith("bare"):  # as the library itself would have written it: without our checksum
        bare = safetensors.numpy.load_file(where)
        safetensors.numpy.save_file(bare, where, metadata={"format": "pt"})
    return where


def suffix(kind: str) -> str:
    return next(s for s in writers.SUFFIXES if kind.endswith(s))


def mutate(data: bytes, r: random.Random, kind: str) -> tuple[str, bytes]:
    """(what was done, the bytes)."""
    how = r.choice(["flip", "bytes", "cut", "insert", "zeros", "head", "swap", "repeat", "numbers", "zip"])
    b = bytearray(data)
    near = min(len(b), 6000)  # headers and indices are at the ends
    at = r.choice([r.randrange(near), len(b) - 1 - r.randrange(near), r.randrange(len(b))])
    if how == "flip":
        for _ in range(r.randint(1, 4)):
            b[r.choice([at, r.randrange(near)])] ^= 1 << r.randrange(8)
    elif how == "bytes":
        for i in range(at, min(len(b), at + r.randint(1, 16))):
            b[i] = r.randrange(256)
    elif how == "cut":
        b = b[:at] if r.random() < 0.5 else b[:at] + b[at + r.randint(1, 4000) :]
    elif how == "insert":
        b[at:at] = r.randbytes(r.randint(1, 300))
    elif how == "zeros":
        n = r.randint(1, 3000)
        b[at : at + n] = bytes(len(b[at : at + n]))
    elif how == "head":
        b[:8] = struct.pack("<Q", r.choice([0, 1, 2**31, 2**63, len(b), r.randrange(2**40)]))
    elif how == "swap":
        other = r.randrange(len(b))
        n = r.randint(1, 500)
        b[at : at + n], b[other : other + n] = b[other : other + n], b[at : at + n]
    elif how == "repeat":
        b += b[: r.randint(1, len(b))]
    elif how == "numbers":  # a digit of a shape, an offset, a count
        digits = [i for i, c in enumerate(b[:near]) if 48 <= c <= 57]
        for _ in range(r.randint(1, 3)):
            if digits:
                b[r.choice(digits)] = r.choice(b"0123456789")
    elif zipfile.is_zipfile(io.BytesIO(bytes(b))):
        how, out = "zipped again", io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(bytes(b))) as z, zipfile.ZipFile(out, "w", r.choice([0, 8])) as w:
            for info in z.infolist():
                if r.random() < 0.95:
                    content = z.read(info)
                    if r.random() < 0.1:
                        content = mutate(content or b"x", r, kind)[1] if len(content) > 2 else content
                    w.writestr(info.filename, content)
                    if r.random() < 0.02:
                        w.writestr(info.filename, content)
        b = bytearray(out.getvalue())
    return how, bytes(b)


def attempt(path: Path, way: str) -> dict[str, np.ndarray] | None:
    """The weights, read one way or the other; None where they are refused."""
    try:
        return port.inspect(path).weights(way)
    except RosettaError:
        return None


def main(kind: str, first: int, count: int, folder: Path) -> None:
    """Prints one line of JSON: how many were refused, how many read, the peak of memory."""
    source = honest(kind, folder)
    data = source.read_bytes()
    whole = port.inspect(source)
    weights = whole.weights()
    target = folder / "out.safetensors"
    port.port(source, target)
    target.unlink()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    victim = folder / ("victim" + suffix(kind))
    refused = read = changed = 0
    names = sorted(p.name for p in folder.iterdir())
    for i in range(first, first + count):
        how, damaged = mutate(data, random.Random(i), kind)
        victim.write_bytes(damaged)
        (folder / "at").write_text(f"{kind} {i} {how}")
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                port.port(victim, target)
        except RosettaError as e:
            assert not target.exists() and str(victim) in str(e).replace(str(target), str(victim)), (i, how, str(e))
            refused += 1
        else:
            found = port.inspect(target)
            again = found.weights()
            same = found.arch == whole.arch and all(np.array_equal(again[n], weights[n]) for n in weights)
            read += 1
            changed += not same
            if not same and kind.startswith("bare"):  # nothing in it can tell, but it is what the file says
                theirs = safetensors.numpy.load_file(victim)
                assert all(np.array_equal(again[n], theirs[n]) for n in again), (i, how)
            target.unlink()
        if suffix(kind) == ".safetensors":
            apart, *others = (attempt(victim, way) for way in ("apart", "together", "mapped"))
            for other in others:
                assert (other is None) == (apart is None), (i, how)
                assert apart is None or all(np.array_equal(other[n], apart[n]) for n in apart), (i, how)
        signal.alarm(0)
        victim.unlink()
        left = {p.name for p in folder.iterdir()} - set(names) - {"at"}
        assert not left, (i, how, left)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {"refused": refused, "read": read, "changed": changed, "before": before, "after": after, "size": len(data)}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
