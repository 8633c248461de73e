"""Files that somebody made to do harm, or that broke on the way."""

import json
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import mutations
import numpy as np
import pytest
import safetensors.numpy
import torch
from conftest import ROOT
from mutations import ARCH, KINDS

from common import port, recognise
from common.arch import get
from common.errors import RosettaError
from common.init import randomised

WEIGHTS = randomised(ARCH)


def refused(path: Path, words: str) -> None:
    """A clear error that names the file, and no output."""
    out = path.parent / "out.safetensors"
    with pytest.raises(RosettaError, match=words) as error:
        port.port(path, out)
    assert path.name in str(error.value) and not out.exists()


def run(kinds: list[str], first: int, count: int, folder: Path) -> None:
    """The mutations of each kind in a process of its own."""
    for kind in kinds:
        (folder / kind).mkdir()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", mutations.__file__, kind, str(first), str(count), str(folder / kind)],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": f"{ROOT}"},
        )  # fmt: skip
        at = (folder / kind / "at").read_text()
        assert done.returncode == 0, f"at {at}, ended with {done.returncode}: {done.stderr[-2000:]}"
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["refused"] + found["read"] == count and found["refused"] > count // 4, (kind, found)
        if not kind.startswith("bare"):  # a file with a checksum that is read at all is the original
            assert found["changed"] == 0, (kind, found)
        if found["size"] < 10**7:  # of larger ones the mutations themselves hold several
            assert found["after"] - found["before"] < 3 * found["size"] / 1024 + 30_000, (kind, found)  # KiB


@pytest.mark.parametrize("kind", [k for k in KINDS if "keras.applications" != KINDS[k]])
def test_mutations(tmp_path, kind):
    """2,000 in all: refused, or read as the original; no traceback, crash or hang, nothing left behind."""
    run([kind], 0, 2000 // 7 + 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutations(tmp_path, kind):
    run([kind], 10_000, 20_000 // 7 + 1 if KINDS[kind] != "keras.applications" else 150, tmp_path)


class Evil:
    def __init__(self, what):
        self.what = what

    def __reduce__(self):
        return (os.system, (self.what,))


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_code_in_a_pickle_is_not_run(tmp_path, form):
    """Not by any of the three forms that PyTorch's files have had; and what it wanted is named."""
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    held = {"conv1.weight": torch.zeros(3), "x": Evil(f"touch {mark}")}
    if form == "bare":
        path.write_bytes(pickle.dumps(held["x"]))
    else:
        torch.save(held, path, _use_new_zipfile_serialization=form == "zip")
    refused(path, r"posix\.system|os\.system")
    assert not mark.exists()


def test_a_whole_pickled_model_is_refused_in_words(tmp_path):
    torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / "whole.pt")
    refused(tmp_path / "whole.pt", "torch.nn.modules.conv.Conv2d.*state_dict")


def test_harmless_companions_of_a_state_dict_are_read(tmp_path):
    import argparse

    held = {
        "state_dict": {n: torch.from_numpy(w) for n, w in WEIGHTS.items()},
        "args": argparse.Namespace(lr=0.1), "best": np.float64(93.2), "optimizer": {"state": {}, "param_groups": []},
    }  # fmt: skip
    torch.save(held, tmp_path / "t.pth.tar")
    assert set(port.inspect(tmp_path / "t.pth.tar").unused) == {"args", "best", "optimizer"}


def test_only_an_optimizer(tmp_path):
    torch.save({"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}, tmp_path / "o.pt")
    refused(tmp_path / "o.pt", "an optimizer's state and no weights")


def header(path: Path, rows: object, data: bytes = b"") -> Path:
    text = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_safetensors_that_lie(tmp_path):
    row = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    two = b'{"a": %s, "a": %s}' % ((json.dumps(row).encode(),) * 2)
    refused(header(tmp_path / "a.safetensors", two, bytes(8)), "has a key twice")
    huge = {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}
    refused(header(tmp_path / "b.safetensors", {"conv1.weight": huge}), "not a whole safetensors")
    (tmp_path / "c.safetensors").write_bytes(struct.pack("<Q", 2**50) + b"{}")
    refused(tmp_path / "c.safetensors", "header wants")
    refused(header(tmp_path / "d.safetensors", b"[" * 100_000), "not JSON|not a JSON")
    refused(header(tmp_path / "e.safetensors", {"conv1.weight": {"dtype": "F32"}}), "not a whole safetensors")
    state = {**WEIGHTS, "fc.bias": np.zeros(3, np.int32)}
    safetensors.numpy.save_file(state, tmp_path / "f.safetensors")
    refused(tmp_path / "f.safetensors", r"fc.bias int32")
    safetensors.numpy.save_file({**WEIGHTS, "fc.bias": np.full(3, np.nan, np.float32)}, tmp_path / "g.safetensors")
    refused(tmp_path / "g.safetensors", "NaN or infinity, in fc.bias")


HUGE = {
    "depths": {"depths": [10**9, 1]}, "many depths": {"depths": [5000, 1]}, "width": {"widths": [10**30, 64]},
    "trunks": {"kernels": [*range(1, 20001, 2)]}, "stem": {"stem": {"convs": [[1, 1, 1]] * 10**5, "pool": True}},
    "rate": {"drop_path": 10**400}, "number": {"num_classes": 10**5000}, "classes": {"num_classes": 10**60},
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".weights.h5", ".keras"])
def test_a_row_that_says_more_than_the_file_holds_is_not_worked_out(tmp_path, suffix):
    """Whether or not it can be: one of 10^9 blocks is no more than ten characters longer than an honest one."""
    honest = tmp_path / f"honest{suffix}"
    port.writers.write(honest, port.writers.target_of(honest, None, ARCH), ARCH, WEIGHTS)
    held = port.containers.read(honest)
    monkey = dict(held.metadata)
    for what, fields in HUGE.items():
        sys.set_int_max_str_digits(0)
        text = json.dumps(json.loads(ARCH.to_json()) | fields)
        sys.set_int_max_str_digits(4300)
        held.metadata = monkey | {"arch": text}
        began = time.perf_counter()
        with pytest.raises(RosettaError, match="names a net") as error:
            recognise.recognise(held)
        assert time.perf_counter() - began < 2 and len(str(error.value)) < 2000, what


def test_tensors_that_claim_more_than_the_file_holds(tmp_path):
    state = {n: torch.from_numpy(w) for n, w in WEIGHTS.items()}
    state["conv1.weight"] = torch.zeros(1).expand(2**20, 2**10, 3, 3)
    torch.save(state, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "conv1.weight claims")


def test_archives_that_unpack_to_more_than_they_are(tmp_path):
    for name in ("bomb.keras", "bomb.pt"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("config.json" if "keras" in name else "archive/data.pkl", b"{}")
            z.writestr("model.weights.h5" if "keras" in name else "archive/data/0", bytes(50_000_000))
        refused(tmp_path / name, "unpack to")


def test_archives_do_not_write_outside(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as z:
        for name in ("config.json", "model.weights.h5", "../../escaped", "/tmp/escaped-from-rosetta"):
            z.writestr(name, b"{}")
    refused(tmp_path / "a.keras", "HDF5")
    assert not (tmp_path.parent / "escaped").exists() and not os.path.exists("/tmp/escaped-from-rosetta")


def test_hdf5_that_leads_elsewhere(tmp_path):
    honest = tmp_path / "honest.weights.h5"
    port.writers.write(honest, port.writers.target_of(honest, None, ARCH), ARCH, WEIGHTS)

    def spoiled(name: str, how) -> Path:
        path = tmp_path / name
        path.write_bytes(honest.read_bytes())
        with h5py.File(path, "a") as f:
            del f["fc/vars/1"]
            how(f)
        return path

    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as f:
        f["s"] = np.zeros(3, np.float32)

    def virtual(f):
        layout = h5py.VirtualLayout((3,), np.float32)
        layout[:] = h5py.VirtualSource(secret, "s", (3,))
        f.create_virtual_dataset("fc/vars/1", layout)

    def external(f):
        f.create_dataset("fc/vars/1", (3,), np.float32, external=[("/etc/passwd", 0, 12)])

    cases = {
        "link.h5": (lambda f: f["fc/vars"].__setitem__("1", h5py.ExternalLink(str(secret), "/s")), "link to elsewhere"),
        "soft.h5": (lambda f: f["fc/vars"].__setitem__("1", h5py.SoftLink("/conv1/vars/0")), "link to elsewhere"),
        "virtual.h5": (virtual, "in another file"),
        "external.h5": (external, "in another file"),
        "round.h5": (lambda f: f["fc"].__setitem__("fc", f["fc"]), "group inside itself"),
        "huge.h5": (lambda f: f.create_dataset("fc/vars/1", (2**40,), np.float32, chunks=(2**10,)), "claims"),
        "packed.h5": (
            lambda f: f.create_dataset("fc/vars/1", data=np.zeros(10**7, np.float32), compression="gzip"), "claims",
        ),
        "text.h5": (lambda f: f["fc/vars"].__setitem__("1", "words"), "expected numbers"),
    }  # fmt: skip
    for name, (how, words) in cases.items():
        refused(spoiled(name, how), words)


def test_hdf5_that_never_ends_is_given_up(tmp_path, monkeypatch):
    from common import hdf5

    monkeypatch.setattr(hdf5, "SILENCE", 1.0)
    honest = tmp_path / "a.weights.h5"
    port.writers.write(honest, port.writers.target_of(honest, None, ARCH), ARCH, WEIGHTS)
    port.inspect(honest)
    os.kill(hdf5.READER.process.pid, signal.SIGSTOP)
    before = time.perf_counter()
    refused(honest, "came to no end")
    assert time.perf_counter() - before < 5
    assert port.inspect(honest).arch == ARCH  # by another process
    with monkeypatch.context() as m:  # whose start has a time of its own
        m.setattr(hdf5, "START", 0.0)
        os.kill(hdf5.READER.process.pid, signal.SIGKILL)
        hdf5.READER.process.wait()
        refused(honest, "came to no end")
    assert port.inspect(honest).arch == ARCH


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_hdf5_written_over_is_read_anew_whatever_its_times_say(tmp_path, suffix, monkeypatch):
    path, other = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    states = {p: randomised(ARCH, seed=i) for i, p in enumerate((path, other))}
    for p, weights in states.items():
        port.writers.write(p, port.writers.target_of(p, None, ARCH), ARCH, weights)
    older = port.inspect(path)
    assert np.array_equal(older.weights()["fc.bias"], states[path]["fc.bias"])
    status = path.stat()
    with open(path, "r+b") as f:  # in its place, of its size
        f.write(other.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_ino, path.stat().st_size) == (status.st_ino, status.st_size)
    # by whoever goes on reading what was begun
    assert np.array_equal(older.held.entries[older.slots[-1].theirs].read(), states[other]["fc.bias"])
    assert np.array_equal(port.inspect(path).weights()["fc.bias"], states[other]["fc.bias"])

    from common import hdf5

    monkeypatch.setattr(hdf5, "_limit", lambda more: None)
    opened = hdf5.Opened()
    opened.open(path, "model.weights.h5" if suffix == ".keras" else "", anew=True)
    key, held = opened.key, opened.held
    opened.open(*key[:2], anew=False)
    assert opened.held is held and opened.key == key
    opened.open(*key[:2], anew=True)  # where no time has changed
    assert opened.held is not held and not held
    opened.held.close()


def test_killed_at_any_moment_the_target_is_the_old_file_or_the_new_one(tmp_path):
    arch = get("resnet34", num_classes=7)
    source, target = tmp_path / "a.safetensors", tmp_path / "out.weights.h5"
    port.canonical.save(source, arch, randomised(arch))
    port.canonical.save(tmp_path / "old.safetensors", ARCH, WEIGHTS)
    port.port(tmp_path / "old.safetensors", target)
    old = target.read_bytes()
    command = [sys.executable, "-m", "common.cli", "port", source, target, "--no-probe"]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    whole, took = target.read_bytes(), time.perf_counter() - began
    ends = set()
    for i in range(8):
        target.write_bytes(old)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        time.sleep(random.Random(i).uniform(0.3, 1.1) * took)
        process.kill()
        process.wait()
        assert target.read_bytes() in (old, whole)
        ends.add(target.read_bytes() == whole)
    assert False in ends
