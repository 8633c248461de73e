"""Damaged and hostile checkpoints, made from honest ones: `python mutations.py FIRST COUNT FOLDER KIND ...`.

In processes of their own, one a kind, so that a crash or a hang of a library under it is seen as one. Each file must
end in a clear error, or in what it says now: our own files are the original, by their checksum; everybody else's are
held against the library whose files they are.
"""

import codecs
import collections
import contextlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import traceback
import unicodedata
import warnings
import zipfile
from pathlib import Path

import click
import h5py
import numpy as np
import safetensors.torch
import torch
from hostile import damage

import torch_impl
from common import weights as canonical
from common.arch import Stem, get
from common.checkpoints import keras_files, port, writers
from common.checkpoints.hdf5 import READER
from common.checkpoints.libraries.library import TRANSFORMS
from common.checkpoints.libraries.ours import OURS_KERAS
from common.checkpoints.preprocessing import IMAGENET
from common.cli import files as cli
from common.errors import RosettaError
from common.init import randomised
from common.training import record
from common.training import run as training
from common.training.recipe import Recipe

ARCH = get("resnet18", depths=(1, 1), widths=(16, 16), stem={"convs": [[8, 3, 1]], "pool": False}, num_classes=3)
PLAIN = get(ARCH, stem=Stem())  # that others' conventions lead to
# ours, each with its checksum
OURS = {
    "a.safetensors": None, "b.pth": None, "c.weights.h5": None, "d.keras": None, "e.safetensors": "torchvision",
    "f.pth": "kuangliu", "run": None,
}  # fmt: skip
# as others have them, without one
BARE = ("bare.safetensors", "zip.pth", "legacy.pth", "bare.weights.h5", "old.h5", "bare.keras", "hugging", "timm")
LARGE = {"g.h5": "keras.applications", "h.weights.h5": "keras.applications"}
# weights in what isn't a checkpoint; whose own readers would run what a changed file says, and so are not asked
OTHERS = ("arrays.npz", "arrays.pkl", "script.pt", "program.pt2")
KINDS = (*OURS, *BARE, *OTHERS)
LABELS = ("cat", "dog", "bird")
SECONDS = 10
MEMORY = 300 * 2**20  # or three times the file


def honest(kind: str, folder: Path) -> Path:
    """A whole file, or folder, of this kind."""
    where, weights = folder / kind, randomised(PLAIN)
    tensors = {n: torch.from_numpy(w) for n, w in weights.items()}
    if kind == "run":
        return run(where)
    if kind in OURS or kind in LARGE:
        library = {**OURS, **LARGE}[kind]
        arch = get("resnet50_keras", num_classes=3) if kind in LARGE else PLAIN if library == "torchvision" else ARCH
        writers.write(where, writers.target_of(where, library, arch), arch, randomised(arch), IMAGENET, LABELS)
    elif kind in ("hugging", "timm"):
        where.mkdir()
        args = {"layers": [1, 1], "channels": [16, 16]}
        config = {"architecture": "resnet18", "model_args": args, "pretrained_cfg": {
            "input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic", "mean": [0.5] * 3,
            "std": [0.5] * 3, "num_classes": 3, "first_conv": "conv1", "classifier": "fc",
        }, "num_classes": 3, "num_features": 16}  # fmt: skip
        if kind == "hugging":
            place = writers.target_of(where, "transformers", PLAIN)
            where.rmdir()
            writers.write(where, place, PLAIN, weights, IMAGENET, LABELS)
        else:
            (where / "config.json").write_text(json.dumps(config))
        safetensors.torch.save_file(
            safetensors.torch.load_file(where / "model.safetensors") if kind == "hugging" else tensors,
            where / "model.safetensors", metadata={"format": "pt"},
        )  # fmt: skip
    elif kind == "bare.safetensors":
        safetensors.torch.save_file(tensors, where, metadata={"format": "pt"})
    elif kind == "arrays.npz":
        np.savez(where, **weights)
    elif kind == "arrays.pkl":
        where.write_bytes(pickle.dumps({"model": weights, "__author__": "x", "matching_heuristics": True}, 2))
    elif kind in OTHERS:
        net, x = torch_impl.create_model(PLAIN, weights=weights).eval(), torch.zeros(1, 3, 32, 32)
        if kind == "script.pt":
            torch.jit.save(torch.jit.trace(net, x), where)
        else:
            torch.export.save(torch.export.export(net, (x,)), where)
    elif kind.endswith(".pth"):
        held = {"epoch": 3, "state_dict": tensors, "best": np.float64(91.5), "optimizer": {"state": {}, "lr": [0.1]}}
        torch.save(held, where, _use_new_zipfile_serialization=kind == "zip.pth")
    else:  # Keras', with our names, and nothing else of ours but a row in the archive's configuration
        arrays = writers.stored(OURS_KERAS.slots(PLAIN), weights)
        if kind == "bare.weights.h5":
            keras_files.write_weights(where, arrays, OURS_KERAS, PLAIN, True, {})
        elif kind == "old.h5":
            keras_files.write_legacy(where, arrays, OURS_KERAS, PLAIN, {})
        else:
            keras_files.write_own_archive(where, arrays, OURS_KERAS, PLAIN, "float32", {})
    return where


def run(folder: Path) -> Path:
    """A run's folder, as a training leaves it between two epochs."""
    weights = randomised(ARCH)
    made = training.Run("resnet18", ARCH, "digits", Recipe(epochs=2), "torch")
    record.new(folder, made)
    lines = [{"step": 10, "epoch": 0, "loss": 1.5, "rate": 0.1}, {"step": 20, "epoch": 1, "test_accuracy": 0.5}]
    (folder / record.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    moments = {f"momentum {n}": w for n, w in weights.items() if "running" not in n}
    line = dict.fromkeys(record._LINE, 0.5) | {"epoch": 2}
    progress = record.Progress(made, 10, step=20, last=line).state()
    canonical.save(
        folder / record.LAST, ARCH, weights, {"labels": "a\nb\nc"}, {"progress": progress, "arrays": moments}
    )
    canonical.save(folder / record.BEST, ARCH, weights)
    return folder


# -- what is done to them

VALUES: list = [
    None, True, -1, 0, 3, 2**31, 10**9, 10**400, 1e308, float("nan"), "x", "", "\ud800\x1b[2J", [], {}, [[]], ["a"] * 3,
    {"a": 1}, [10**9, 1], "null", "[" * 5000, "9" * 4000,
]  # fmt: skip


GIANTS: list[dict] = [
    {"depths": [10**9, 1]}, {"depths": [10**6, 10**6]}, {"kernels": [*range(1, 20001, 2)]}, {"widths": [10**30, 64]},
    {"stem": {"convs": [[1, 1, 1]] * 10**5, "pool": True}}, {"drop_path": 10**400}, {"num_classes": 10**60},
]  # fmt: skip


def twisted(said: object, r: random.Random) -> object:
    """JSON with another value somewhere, or one less, or one more."""
    if isinstance(said, str) and said.startswith("{") and r.random() < 0.95:  # JSON in JSON, as metadata are
        with contextlib.suppress(ValueError):
            return json.dumps(twisted(json.loads(said), r))
    if isinstance(said, dict) and "depths" in said and r.random() < 0.6:
        return said | r.choice(GIANTS)
    if isinstance(said, dict) and said and r.random() < 0.9:
        row = [k for k in ("arch", "config", "__metadata__", "resnet-rosetta") if k in said]  # the way to a row
        if row and r.random() < 0.6:
            return said | {row[0]: twisted(said[row[0]], r)}
        key, how = r.choice(list(said)), r.random()
        if how < 0.7:
            return said | {key: twisted(said[key], r)}
        if how < 0.8:
            return {k: v for k, v in said.items() if k != key}
        return said | {str(r.choice(VALUES))[:300]: r.choice(VALUES)}
    if isinstance(said, list) and said and r.random() < 0.7:
        at, how = r.randrange(len(said)), r.random()
        if how < 0.7:
            return [*said[:at], twisted(said[at], r), *said[at + 1 :]]
        return said[:at] + said[at + 1 :] if how < 0.85 else said * r.choice([2, 100])
    return r.choice(VALUES)


def twisted_text(text: bytes, r: random.Random) -> bytes:
    try:
        return json.dumps(twisted(json.loads(text), r)).encode()
    except ValueError:
        return mutate(text, r)[1]


class Calls:
    """Pickles as a call."""

    def __init__(self, what, *args):
        self.called = (what, args)

    def __reduce__(self):
        return self.called


def gadgets() -> dict[str, object]:
    """What asks PyTorch's restricted reader, or numpy behind it, to crash, or for any amount of memory or time."""
    scalar, wide = np.float64(0).__reduce__()[0], torch.zeros(1).expand(10**7, 10**7)
    nested: object = "0" * 100
    for _ in range(30):
        nested = Calls(codecs.encode, nested, "hex")
    return {
        "a scalar of objects without a value": Calls(scalar, np.dtype([("a", "O")])),
        "a scalar of two gigabytes": Calls(scalar, np.dtype("V2147483647")),
        "a scalar without a value": Calls(scalar, np.dtype("f8")),
        "a dtype with flags": Calls(np.dtype, "f8", False, True, {}),
        "a list as a number": Calls(np.float64, [[0.0] * 1000] * 1000),
        "zeros": Calls(bytearray, 2**34),
        "a set of a large tensor": Calls(set, wide),
        "a count of a large tensor": Calls(collections.Counter, wide),
        "text that doubles": nested,
    }  # fmt: skip


def with_gadget(data: bytes, r: random.Random) -> bytes:
    """A PyTorch file with one of these, or a row that is hostile, beside its tensors."""
    held = torch.load(io.BytesIO(data), weights_only=False)
    state = held.get("state_dict", held.get("net", held))
    said, state = getattr(state, "_metadata", None), collections.OrderedDict(state)
    if said:  # ours, with the checksum
        state._metadata = said  # type: ignore[attr-defined]
    name = r.choice(list(state))
    out, zipped = io.BytesIO(), r.random() < 0.6
    how = r.choice(["gadget", "row", "shape", "dtype", "name", "value", "expand"])
    if how == "row":
        row = json.dumps(twisted(json.loads(ARCH.to_json()), r))
        state._metadata = {"resnet_rosetta": {"arch": row}}  # type: ignore[attr-defined]
    elif how == "shape":
        state[name] = state[name].reshape(-1) if r.random() < 0.5 else state[name][..., None]
    elif how == "dtype":
        state[name] = state[name].to(r.choice([torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.complex64]))
    elif how == "name":
        state[r.choice([name + "\x1b[2J", "\ud800", "layer9.0." + name, "x" * 10**5])] = state.pop(name)
    elif how == "value":
        state[name] = r.choice([*VALUES[:7], *VALUES[10:16], np.float32(3)])
    elif how == "expand":
        state[name] = torch.zeros(1).expand(*[r.choice([1, 7, 10**4])] * 4)
    more = {"x": r.choice(list(gadgets().values()))} if how == "gadget" else {}
    torch.save({"state_dict": state, **more}, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def in_hdf5(data: bytes, r: random.Random) -> bytes:
    """An HDF5 file whose attributes or arrays are others."""
    kept = io.BytesIO(data)
    with h5py.File(kept, "r+") as f:
        places: list[str] = []
        f.visititems(lambda name, item: places.append(name) if isinstance(item, h5py.Dataset) else None)
        at, how = r.choice(places), r.choice(["attribute", "shape", "dtype", "gone", "link", "name", "value", "chunks"])
        held = f[at][()]
        if how == "attribute":
            for key, said in [*f.attrs.items()][: r.randint(1, 2)]:
                if isinstance(said, str):
                    f.attrs[key] = twisted_text(said.encode(), r).decode()[:60_000]
            f.attrs["resnet-rosetta" if r.random() < 0.3 else "other"] = json.dumps(
                twisted({"arch": ARCH.to_json()}, r)
            )[:60_000]
        elif how == "name" and (group := f[at].parent):
            group.attrs["name"] = r.choice(["\x1b[2J", "fc", "x" * 10**4, ""])
        elif how != "attribute":
            del f[at]
            if how == "shape":
                f[at] = held.reshape(-1) if r.random() < 0.5 else held[None]
            elif how == "dtype":
                f[at] = held.astype(r.choice(["f2", "f8", ">f4", "i4", "u1", "c8", "S4"]))
            elif how == "link":
                f[at] = r.choice([h5py.SoftLink(f"/{places[0]}"), h5py.ExternalLink("/etc/passwd", "/x")])
            elif how == "value":
                f[at] = r.choice(["text", 3.0, np.float32(7)])
            elif how == "chunks":
                f.create_dataset(at, (2 ** r.randint(1, 45),), "f4", chunks=(2,))
    return kept.getvalue()


def inside(data: bytes, r: random.Random) -> bytes:
    """An archive one member of which is another, with a right checksum."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as z, zipfile.ZipFile(out, "w") as w:
        ends = ("data.pkl", "config.json", "model.weights.h5", ".npy")
        small = [n for n in z.namelist() if n.endswith(ends) and "/constants" not in n]
        chosen = r.choice(small) if small and r.random() < 0.7 else r.choice(z.namelist())
        for name in z.namelist():
            content = z.read(name)
            if name == chosen:
                content = other(content, r, name)
            w.writestr(name, content)
    return out.getvalue()


def other(content: bytes, r: random.Random, name: str) -> bytes:
    if name.endswith(".json"):
        return twisted_text(content, r)
    if name.endswith(".h5"):
        return in_hdf5(content, r) if r.random() < 0.5 else mutate(content, r)[1]
    if name.endswith("data.pkl") and r.random() < 0.7:
        names = [b"Float", b"Double", b"Half", b"BFloat16", b"Long", b"Byte"]
        if r.random() < 0.3:
            return content.replace(b"FloatStorage", r.choice(names) + b"Storage", r.choice([1, -1]))
        numbers = [i for i, c in enumerate(content[:-1]) if c in b"KMJq"]  # of one byte, two or four
        b = bytearray(content)
        for _ in range(r.randint(1, 2)):
            b[r.choice(numbers) + 1] = r.choice([0, 1, 2, 3, 8, 16, 17, 27, 48, 255, r.randrange(256)])
        return bytes(b)
    return mutate(content, r)[1] if len(content) > 2 else content + b"x" * r.randint(1, 9)


def crafted(data: bytes, r: random.Random, kind: str) -> tuple[str, bytes] | None:
    """What somebody who knows the format would make of it."""
    if kind.endswith(".safetensors"):
        length = int.from_bytes(data[:8], "little")
        header = twisted_text(data[8 : 8 + length], r)
        return "header", struct.pack("<Q", len(header)) + header + data[8 + length :]
    if kind.endswith(".pth") and (r.random() < 0.3 or kind == "legacy.pth"):
        return "with gadget", with_gadget(data, r)
    if kind.endswith(".h5"):
        return "in hdf5", in_hdf5(data, r)
    if zipfile.is_zipfile(io.BytesIO(data)):
        return "inside", inside(data, r)
    return None


def mutate(data: bytes, r: random.Random, kind: str = "") -> tuple[str, bytes]:
    """(what was done, the bytes)."""
    if kind and r.random() < 0.45:
        with contextlib.suppress(ValueError, TypeError, RuntimeError, OSError):  # what can't be written at all
            if made := crafted(data, r, kind):
                return made
    how = r.choice(["flip", "bytes", "cut", "insert", "zeros", "head", "swap", "repeat", "digits", "none"])
    b = bytearray(data)
    near = min(len(b), 6000)  # headers and indices are at the ends
    at = r.choice([r.randrange(near), len(b) - 1 - r.randrange(near), r.randrange(len(b))])
    if how == "head":
        b[:8] = struct.pack("<Q", r.choice([0, 1, 2**31, 2**63, len(b), r.randrange(2**40)]))
    else:
        damage(b, r, how, at, near)
    return how, bytes(b)


def spoil(source: Path, victim: Path, r: random.Random, kind: str) -> str:
    """Makes a spoilt copy, and says how."""
    if source.is_file():
        how, content = mutate(source.read_bytes(), r, kind)
        victim.write_bytes(content)
        return how
    shutil.copytree(source, victim)
    file = r.choice(sorted(p for p in victim.iterdir() if p.suffix in (".json", ".jsonl", ".safetensors")))
    if r.random() < 0.05:
        file.unlink()
        return f"no {file.name}"
    if file.suffix == ".safetensors" and r.random() < 0.5 or r.random() < 0.2:
        how, content = mutate(file.read_bytes(), r, file.name)
        file.write_bytes(content)
        return f"{how} in {file.name}"
    if file.suffix == ".jsonl":
        lines = file.read_bytes().splitlines()
        file.write_bytes(b"\n".join(twisted_text(line, r) for line in lines))
    elif file.suffix == ".json":
        file.write_bytes(twisted_text(file.read_bytes(), r))
    else:
        file.write_bytes(mutate(file.read_bytes(), r, file.name)[1])
    return f"twisted {file.name}"


# -- what becomes of them


def witnessed(path: Path, found) -> dict[str, np.ndarray]:
    """{tensor of ours: what the library whose file it is reads for it}, without a map and without our reader."""
    if path.is_dir():
        path = path / "model.safetensors"
    wanted = {s.canonical: found.held.entries[s.theirs].where or s.theirs for s in found.slots}
    begin = path.read_bytes()[:8]
    if begin.startswith(b"\x89HDF") or path.suffix == ".keras":
        file = path if path.suffix != ".keras" else io.BytesIO(zipfile.ZipFile(path).read("model.weights.h5"))
        with h5py.File(file, "r") as f:
            return {name: f[at][()] for name, at in wanted.items()}
    if path.suffix == ".pth":
        scalar = np.float64(0).__reduce__()[0]
        with torch.serialization.safe_globals(
            [np.dtype, (scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
            + [type(np.dtype(t)) for t in ("f2", "f4", "f8", "i4", "i8", "u1", "b1")]
        ):
            held = torch.load(path, weights_only=True, map_location="cpu")
        states = [held, *(v for v in held.values() if isinstance(v, dict))]
        state = next(s for s in states if set(wanted.values()) <= set(s))
    else:
        state = safetensors.torch.load_file(path)
    return {
        name: (state[at].float() if state[at].dtype == torch.bfloat16 else state[at]).numpy()
        for name, at in wanted.items()
    }


def model(path: Path, kind: str) -> Path:
    return record.model_of(path) if kind == "run" else path


def bad_text(said: str) -> str:
    """What is wrong with a text that a terminal gets."""
    plain = click.unstyle(said) if "\x1b[0m" in said else said
    control = [c for c in plain if unicodedata.category(c) in ("Cc", "Cs") and c != "\n"]
    return f"control characters {control[:5]}" if control else ""


def look(
    kind: str, path: Path, target: Path, whole, weights: dict[str, np.ndarray], write: bool
) -> tuple[str, list[str]]:
    """("refused" or "read" or "changed", what is wrong with that)."""
    wrong: list[str] = []
    try:
        if kind == "run":
            record.read_metrics(path)
            progress = record.Progress(training.Run.load(path), 10)
            progress.go_on(canonical.load_training(path / record.LAST)[1], path / record.LAST)
        found = port.inspect(model(path, kind))
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            print("\n".join(cli._recognised(found)))
            cli._unused(found)
        json.dumps(found.to_json())
        values = found.weights()
        if write:
            port.port(model(path, kind), target, probe=False)
            target.unlink()
    except RosettaError as e:
        wrong += [bad_text(str(e)), f"{len(str(e))} characters" * (len(str(e)) > 2000)]
        wrong += ["a target" * target.exists(), f"doesn't name the file: {e}"[:300] * (path.name not in str(e))]
        return "refused", [w for w in wrong if w]
    wrong.append(bad_text(shown.getvalue()))
    same = found.arch == whole.arch and all(np.array_equal(values[n], w) for n, w in weights.items())
    if kind in OURS and not same:
        wrong.append("read otherwise than it was written")
    elif kind in BARE:
        theirs = witnessed(path, found)
        for slot in found.slots:
            value = TRANSFORMS[slot.transform][0](theirs[slot.canonical])
            if not np.array_equal(value, values[slot.canonical]):
                wrong.append(f"{slot.canonical} is read otherwise than by its library")
                break
    if path.suffix == ".safetensors":
        for way in ("together", "mapped"):
            again = found.weights(way)
            wrong += [f"{way}: other weights"] * any(not np.array_equal(again[n], w) for n, w in values.items())
    return "read" if same else "changed", [w for w in wrong if w]


def memory(line: str) -> int:
    for row in Path("/proc/self/status").read_text().splitlines():
        if row.startswith(line):
            return int(row.split()[1]) * 1024
    return 0


def files(kind: str, first: int, count: int, folder: Path) -> None:
    """Looks at so many; appends a line of JSON for each fault, and at the end how many were refused and read."""
    source = honest(kind, folder)
    whole = port.inspect(model(source, kind))
    weights = whole.weights()
    target = folder / "out.safetensors"
    victim = folder / f"victim{''.join(source.suffixes) if source.is_file() else ''}"
    assert look(kind, source, target, whole, weights, True) == ("read", []), kind
    if kind not in LARGE:
        resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 2**32, resource.RLIM_INFINITY))  # for the machine
    names = {p.name for p in folder.iterdir()} | {"at", "faults"}
    counts: collections.Counter = collections.Counter()
    for i in range(first, first + count):
        r = random.Random(f"{kind} {i}")
        how = spoil(source, victim, r, kind)
        (folder / "at").write_text(f"{i} {how}")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, size = memory("VmRSS"), sum(p.stat().st_size for p in [victim, *victim.glob("*")])
        signal.alarm(SECONDS)
        try:
            what, wrong = look(kind, victim, target, whole, weights, i % 8 == 0)
        except Exception:
            what, wrong = "traceback", [traceback.format_exc()[-1500:]]
        signal.alarm(0)
        more = memory("VmHWM") - before
        if more > max(MEMORY, 3 * size) and kind not in LARGE:
            wrong.append(f"{more >> 20} MB for a file of {size:,} bytes")
        counts[what] += 1
        shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
        left = {p.name for p in folder.iterdir()} - names
        wrong += [f"left {left}"] * bool(left)
        for fault in wrong:
            with open(folder / "faults", "a") as f:
                f.write(json.dumps([kind, i, how, fault]) + "\n")
    (folder / "counts").write_text(json.dumps(counts))


def main(first: int, count: int, folder: Path, kinds: list[str]) -> None:
    """Prints a line of JSON: {kind: {"refused": how many, ..., "faults": [[kind, number, how, what is wrong]]}}."""
    torch.set_num_threads(1)
    found = {}
    for kind in kinds:
        here, at, total, faults = folder / kind, first, collections.Counter(), []
        while at < first + count:
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir(parents=True)
            sys.stdout.flush()
            if not (pid := os.fork()):
                code = 1
                try:
                    files(kind, at, first + count - at, here)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    READER.close()
                    os._exit(code)
            status = os.waitpid(pid, 0)[1]
            if (here / "faults").exists():
                faults += map(json.loads, (here / "faults").read_text().splitlines())
            if status == 0:
                total.update(json.loads((here / "counts").read_text()))
                break
            if not (here / "at").exists() or not os.WIFSIGNALED(status):
                raise SystemExit(f"the mutations of {kind} themselves went wrong")
            reached, _, how = (here / "at").read_text().partition(" ")
            faults.append([kind, int(reached), how, f"the process ended with {status} (14: it took over {SECONDS} s)"])
            total.update({"ended": 1, "before that": int(reached) - at})
            at = int(reached) + 1
        found[kind] = {**total, "faults": faults}
        shutil.rmtree(here, ignore_errors=True)
    print(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
