"""Files that somebody made to do harm, or that broke on the way."""

import collections
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import Path

import h5py
import mutations
import numpy as np
import pytest
import safetensors.numpy
import torch
from conftest import ROOT
from mutations import ARCH, BARE, KINDS, LARGE, OTHERS, OURS, Calls, gadgets

from common import weights as canonical
from common.arch import get
from common.checkpoints import files, port
from common.checkpoints.recognise import recognise
from common.errors import RosettaError
from common.init import randomised
from common.training import record
from common.training import run as training

WEIGHTS = randomised(ARCH)


def refused(path: Path, words: str) -> None:
    """A clear error that names the file, and no output."""
    out = path.parent / "out.safetensors"
    with pytest.raises(RosettaError, match=words) as error:
        port.port(path, out)
    assert path.name in str(error.value) and not out.exists()


def hostile(kinds: Iterable[str], first: int, count: int, folder: Path) -> None:
    """So many files of each kind, each refused or read as it should be: see mutations.py."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", mutations.__file__, str(first), str(count), str(folder), *kinds],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": f"{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for kind, found in json.loads(done.stdout.splitlines()[-1]).items():
        print(kind, {k: n for k, n in found.items() if k != "faults"})
        assert not found["faults"], (kind, len(found["faults"]), found["faults"][:3])
        assert found["refused"] > count // 6 and sum(n for k, n in found.items() if k != "faults") == count, found


@pytest.mark.parametrize("share", [OURS, (*BARE, *OTHERS[:2])], ids=["ours", "others"])
def test_hostile_files(tmp_path, share):
    """3,060 in all: refused in a short line, or read as it was written, or as the library whose file it is reads it; no
    traceback, crash or hang, no memory, nothing left behind."""
    hostile(share, 0, 180, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, *LARGE])
def test_many_hostile_files(tmp_path, kind):
    hostile([kind], 10_000, 20_000 // len(KINDS) + 1 if kind in KINDS else 100, tmp_path)


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


def archive(path: Path, pickled: bytes, records: dict[str, bytes], **more: bytes) -> Path:
    """PyTorch's archive of this pickle and these storages."""
    held = {"data.pkl": pickled, **{f"data/{k}": v for k, v in records.items()}, "version": b"3\n", **more}
    with zipfile.ZipFile(path, "w") as z:
        for name, content in held.items():
            z.writestr(f"a/{name}", content)
    return path


def changed(source: Path, path: Path, pickled=lambda p: p, records=lambda r: r) -> Path:
    """`source` with another pickle, or other records."""
    with zipfile.ZipFile(source) as z:
        top = z.namelist()[0].split("/")[0]
        data = {n.removeprefix(f"{top}/data/"): z.read(n) for n in z.namelist() if n.startswith(f"{top}/data/")}
        return archive(path, pickled(z.read(f"{top}/data.pkl")), records(data))


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("what", gadgets())
def test_a_pickle_asks_for_nothing_that_a_checkpoint_has_no_use_for(tmp_path, what, form):
    held = {"state_dict": {n: torch.from_numpy(w) for n, w in WEIGHTS.items()}, "best": gadgets()[what]}
    torch.save(held, tmp_path / "a.pth", _use_new_zipfile_serialization=form == "zip")
    refused(tmp_path / "a.pth", "wants to run (numpy|builtins|collections|_codecs)")


def test_keys_that_go_deep_and_attributes_that_hide_methods(tmp_path):
    """To hash a tuple goes as deep as the tuple does, in C; and an attribute of an OrderedDict may be `items`."""
    deep = b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s."
    refused(archive(tmp_path / "deep.pth", deep, {}), "a key that is no name")
    for held in ([(1, 2)], [torch.zeros(3)]):
        torch.save({"a": Calls(set, held)}, tmp_path / "set.pth")
        refused(tmp_path / "set.pth", "wants to run builtins.set")
    hidden = b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x05sb."
    refused(archive(tmp_path / "hidden.pth", hidden, {}), "a state of collections.OrderedDict")


def test_a_storage_is_a_record_of_its_size(tmp_path):
    """PyTorch, mapping the file, reads what lies behind a record as the rest of it; without a map it refuses."""
    honest = tmp_path / "honest.pth"
    torch.save({n: torch.from_numpy(w) for n, w in WEIGHTS.items()}, honest)
    port.inspect(honest)
    short = changed(honest, tmp_path / "short.pth", records=lambda r: r | {"1": r["1"][:-4]})
    double = changed(honest, tmp_path / "d.pth", lambda p: p.replace(b"FloatStorage", b"DoubleStorage"))
    count, other = (b"K%c" % len(WEIGHTS["bn1.weight"]), b"K%c" % (len(WEIGHTS["bn1.weight"]) + 1))
    longer = changed(honest, tmp_path / "longer.pth", lambda p: p.replace(count, other))
    for path in (short, double, longer):
        with pytest.raises(RuntimeError):
            torch.load(path, weights_only=True)
        refused(path, r"is damaged: it speaks of [\d,]+ bytes in data/\d+, which has")
    gone = changed(honest, tmp_path / "gone.pth", records=lambda r: {k: v for k, v in r.items() if k != "3"})
    refused(gone, "in data/3, which isn't there")


def test_an_archive_is_one_whichever_end_it_is_read_from(tmp_path):
    honest, path = tmp_path / "honest.pth", tmp_path / "a.pth"
    torch.save({n: torch.from_numpy(w) for n, w in WEIGHTS.items()}, honest)
    whole = honest.read_bytes()
    for content in (whole + whole, whole + b"PK\5\6" + bytes(18), whole[:-2] + b"\1\0x", whole + bytes(5)):
        path.write_bytes(content)
        refused(path, "something before it or behind it|not a whole archive|neither Keras' .* nor PyTorch's")
    with zipfile.ZipFile(honest) as z, zipfile.ZipFile(path, "w") as other:
        for info in z.infolist():
            other.writestr(info.filename, z.read(info))
        other.writestr(info.filename.upper(), b"")
    refused(path, "twice")
    refused(archive(path, b"\x80\x02}.", {}, **{"constants.pkl": b"\x80\x02)."}), "is TorchScript")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 2026-11-25, PyTorch 2.13: torch.jit is on its way out
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The TorchScript type system")
def test_programs_that_are_not_whole(tmp_path):
    """Of TorchScript and exported ones the weights are read; nothing that a changed file says of them is believed."""
    net, x = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval(), torch.zeros(1, 3, 8, 8)
    torch.jit.save(torch.jit.script(net), tmp_path / "a.pt")
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "b.pt2")
    torch.jit.save(torch.jit.freeze(torch.jit.script(net)), tmp_path / "frozen.pt")
    refused(tmp_path / "frozen.pt", "constants of its code: save it before it is frozen")
    for name, wanted in (("a.pt", "TorchScript"), ("b.pt2", "exported program")):
        held = files.read(tmp_path / name)
        assert held.kind == wanted and all(
            np.array_equal(held.entries[n].read(), t.numpy()) for n, t in net.state_dict().items()
        )

    def again(source, change):
        with zipfile.ZipFile(tmp_path / source) as z, zipfile.ZipFile(tmp_path / "c.pt", "w") as out:
            for n in z.namelist():
                out.writestr(n, change(z.read(n)) if n.endswith(("data.pkl", "weights_config.json")) else z.read(n))
        return tmp_path / "c.pt"

    def says(**more):
        def change(text):
            found = json.loads(text)
            found["config"]["0.weight"]["tensor_meta"] |= more
            return json.dumps(found).encode()

        return change

    long = [{"as_int": n} for n in (4, 3, 3, 2**40)]
    for more in ({"sizes": long}, {"storage_offset": {"as_int": 1}}, {"storage_offset": {"as_int": -4}}, {"dtype": 99},
                 {"strides": long}, {"sizes": 3}):  # fmt: skip
        refused(again("b.pt2", says(**more)), "not a whole exported program")
    data = zipfile.ZipFile(tmp_path / "a.pt").read("a/data.pkl")
    for old, new in ((b"_rebuild_tensor_v2", b"_rebuild_qtensor12"), (b"c__torch__.torch", b"cos.torch.torch_.c"),
                     (b"K\x04K\x03K\x03K\x03t", b"K\x7fK\x7fK\x7fK\x03t"), (data[-8:], b"")):  # fmt: skip
        assert old in data
        refused(again("a.pt", lambda text, o=old, n=new: text.replace(o, n, 1)), "not a whole TorchScript")


def test_a_whole_pickled_model_is_refused_in_words(tmp_path):
    torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / "whole.pt")
    refused(tmp_path / "whole.pt", "torch.nn.modules.conv.Conv2d.*state_dict")


def test_harmless_companions_of_a_state_dict_are_read(tmp_path):
    import argparse

    held = {
        "state_dict": {n: torch.from_numpy(w) for n, w in WEIGHTS.items()},
        "args": argparse.Namespace(lr=0.1), "best": np.float64(93.2), "optimizer": {"state": {}, "param_groups": []},
        "epoch": np.int64(3), "seen": {1, 2}, "schedule": {"milestones": collections.Counter([30, 60])}, "rng": b"123",
        "more": [torch.nn.Parameter(torch.zeros(2)), torch.float16, torch.Size([1]), torch.device("cpu")],
    }  # fmt: skip
    for zipped in (True, False):
        torch.save(held, tmp_path / "t.pth.tar", _use_new_zipfile_serialization=zipped)
        assert set(port.inspect(tmp_path / "t.pth.tar").unused) == set(held) - {"state_dict"}


def test_a_net_without_its_first_norm_is_refused_by_the_file(tmp_path):
    torch.save({n: torch.from_numpy(w) for n, w in WEIGHTS.items() if n != "bn1.weight"}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", r"a\.pth has the names of torchvision, but no norm follows its first convolution")


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
    "deep": {}, "rate": {"drop_path": 10**400}, "number": {"num_classes": 10**5000}, "classes": {"num_classes": 10**60},
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".weights.h5", ".keras"])
def test_a_row_that_says_more_than_the_file_holds_is_not_worked_out(tmp_path, suffix):
    """Whether or not it can be: one of 10^9 blocks is no more than ten characters longer than an honest one."""
    honest = tmp_path / f"honest{suffix}"
    port.writers.write(honest, port.writers.target_of(honest, None, ARCH), ARCH, WEIGHTS)
    held = files.read(honest)
    monkey = dict(held.metadata)
    for what, fields in HUGE.items():
        sys.set_int_max_str_digits(0)
        text = "[" * 10**5 if what == "deep" else json.dumps(json.loads(ARCH.to_json()) | fields)
        sys.set_int_max_str_digits(4300)
        held.metadata = monkey | {"arch": text}
        began = time.perf_counter()
        with pytest.raises(RosettaError, match="names a net") as error:
            recognise(held)
        assert time.perf_counter() - began < 2 and len(str(error.value)) < 2000, what


def test_tensors_that_claim_more_than_the_file_holds(tmp_path):
    state = {n: torch.from_numpy(w) for n, w in WEIGHTS.items()}
    state["conv1.weight"] = torch.zeros(1).expand(2**20, 2**10, 3, 3)
    torch.save(state, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "conv1.weight claims")


def test_json_that_goes_deep(tmp_path):
    """Python's reader raises RecursionError there, which is no ValueError."""
    deep = "[" * 10**5
    row = {"resnet-rosetta": json.dumps({"arch": ARCH.to_json(), "training": deep})}
    for metadata in ({"resnet-rosetta": deep}, row):
        path = header(tmp_path / "a.safetensors", {"__metadata__": metadata})
        for read in (canonical.load, canonical.load_training, port.inspect):
            with pytest.raises(RosettaError):
                read(path)
    (tmp_path / "config.json").write_text(deep)
    for read in (training.Run.load, port.inspect):
        with pytest.raises(RosettaError):
            read(tmp_path)


def test_devices_and_pipes_are_no_checkpoints(tmp_path):
    """One has no end, the other waits for somebody to write."""
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    for name in ("pipe.pth", "zero.safetensors"):
        refused(tmp_path / name, "is a device or a pipe")


def test_a_message_is_short_and_nothing_in_it_rules_the_terminal(tmp_path):
    for i, name in enumerate(("\x1b]0;title\x07\x1b[2J", "\ud800", "\u202egnp.", "x" * 10**6)):
        path = header(
            tmp_path / f"{i}.safetensors", {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
        )
        with pytest.raises(RosettaError) as error:
            port.inspect(path)
        said = str(error.value)
        assert len(said) <= 2000 and "safetensors" in said and said == said.encode(errors="replace").decode()
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in said.replace("\n", "")), said
    many = {f"layer{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(10**4)}
    arch = {"resnet-rosetta": json.dumps({"arch": ARCH.to_json()})}
    path = header(tmp_path / "many.safetensors", {"__metadata__": arch, **many}, bytes(4 * 10**4))
    refused(path, r"10000 unexpected(.|\n)*characters are left out")


def test_labels_and_names_of_a_file_are_shown_without_what_a_terminal_obeys(tmp_path):
    from click.testing import CliRunner

    from common.cli import cli

    path = tmp_path / "a.pth"
    state = {n: torch.from_numpy(w) for n, w in WEIGHTS.items()}
    torch.save({"state_dict": state, "\x1b[2Jepoch": 3}, path)
    shown = CliRunner().invoke(cli, ["inspect", str(path)])
    assert shown.exit_code == 0 and "\\x1b[2Jepoch" in shown.output and "\x1b[2J" not in shown.output
    folder = tmp_path / "folder"
    folder.mkdir()
    labels = {"0": "\x1b]0;cat\x07", "1": "dog\ud800", "2": "a\nb"}
    (folder / "config.json").write_text(json.dumps({"id2label": labels, "num_labels": 3}))
    torch.save(state, folder / "pytorch_model.bin")
    assert record.model_of(folder) == folder  # and no run, though that has a config.json, too
    found = port.inspect(folder)
    assert found.labels == ("\\x1b]0;cat\\x07", "dog\\ud800", "a\\nb")
    assert CliRunner().invoke(cli, ["inspect", str(folder)]).exit_code == 0
    port.port(folder, tmp_path / "b.safetensors")
    assert port.inspect(tmp_path / "b.safetensors").labels == found.labels


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
    from common.checkpoints import hdf5

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

    from common.checkpoints import hdf5

    monkeypatch.setattr(hdf5, "_limit", lambda more: None)
    opened = hdf5.Opened()
    opened.open(path, "model.weights.h5" if suffix == ".keras" else "", anew=True)
    key, held = opened.key, opened.held
    opened.open(*key[:2], anew=False)
    assert opened.held is held and opened.key == key
    opened.open(*key[:2], anew=True)  # where no time has changed
    assert opened.held is not held and not held
    opened.held.close()


def test_killed_in_the_middle_of_writing_the_target_is_the_old_file_or_the_new_one(tmp_path):
    """Killed so many seconds after something new has appeared beside the target, which is what is being written; or
    (None) when the target itself is another."""
    arch = get("resnet34", num_classes=7)
    source, target = tmp_path / "a.safetensors", tmp_path / "there" / "out.weights.h5"
    target.parent.mkdir()
    port.canonical.save(source, arch, randomised(arch))
    port.canonical.save(tmp_path / "old.safetensors", ARCH, WEIGHTS)
    port.port(tmp_path / "old.safetensors", target)
    old = target.read_bytes()
    command = [sys.executable, "-m", "common.cli", "port", source, target, "--no-probe", "--force"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    whole, middle = target.read_bytes(), 0
    assert whole != old
    for wait in (0, 0.02, 0.05, 0.1, None, None):
        target.write_bytes(old)
        before, was = set(os.listdir(target.parent)), os.stat(target)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        if wait is None:
            while process.poll() is None and (os.stat(target).st_ino, os.stat(target).st_size) == (
                was.st_ino, was.st_size
            ):  # fmt: skip
                time.sleep(0.001)
        else:
            while process.poll() is None and not set(os.listdir(target.parent)) - before:
                time.sleep(0.001)
            time.sleep(wait)
            middle += process.poll() is None and bool(set(os.listdir(target.parent)) - before)
        process.kill()
        process.wait()
        assert target.read_bytes() in (old, whole)
    assert middle >= 2  # kills that found a file half-written
