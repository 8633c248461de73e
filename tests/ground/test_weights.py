"""The canonical weights: checked before anything changes, written whole or not at all, read back."""

import json
import os
import signal
import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

import common.weights as store
import keras_impl
import torch_impl
from common.arch import get
from common.errors import RosettaError
from common.init import randomised
from common.names import parameters
from common.tools.files import atomic

ARCH = get("cifar_resnet20", depths=(1, 1, 1))


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return randomised(ARCH)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_file_alone_says_what_it_is(tmp_path, weights, dtype):
    weights = {n: w.astype(dtype) for n, w in weights.items()}
    store.save(tmp_path / "a.safetensors", ARCH, weights, {"note": "trained on nothing"})
    arch, again, meta = store.load(tmp_path / "a.safetensors")
    assert arch == ARCH and list(again) == list(weights) and meta == {"note": "trained on nothing"}
    assert all(again[n].tobytes() == w.tobytes() and again[n].dtype == w.dtype for n, w in weights.items())
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_same_weights_are_the_same_file(tmp_path, weights):
    for name in "ab":
        store.save(
            tmp_path / name, ARCH, dict(reversed(weights.items())) if name == "b" else weights, {"x": "1", "y": "2"}
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_views_of_any_layout_are_saved_right(tmp_path, weights):
    """safetensors 0.8.0 writes the memory of a transposed view in its own order, under the view's shape."""
    views = {n: np.ascontiguousarray(w.T).T if w.ndim > 1 else np.repeat(w, 2)[::2] for n, w in weights.items()}
    assert not views["conv1.weight"].flags.c_contiguous
    store.save(tmp_path / "a", ARCH, views)
    assert all(np.array_equal(w, weights[n]) for n, w in store.load(tmp_path / "a")[1].items())
    # and what the precaution is for: without it, the check that follows the writing sees the mistake
    safetensors.numpy.save_file(views, tmp_path / "b")
    with pytest.raises(RosettaError, match="reads back otherwise"):
        store.verify(tmp_path / "b", views)


BROKEN = {
    "missing": lambda w: w.pop("fc.bias"),
    "unexpected": lambda w: w.update({"fc.scale": w["fc.bias"]}),
    "misshapen": lambda w: w.update({"conv1.weight": w["conv1.weight"].reshape(16, 3, 9, 1)}),
    "a transposed square": lambda w: w.update({"fc.weight": w["fc.weight"].T}),
    "not a float array: int64": lambda w: w.update({"fc.bias": np.zeros(10, np.int64)}),
    "not a float array: bool": lambda w: w.update({"fc.bias": np.zeros(10, bool)}),
    "not a float array: list": lambda w: w.update({"fc.bias": [0.0] * 10}),
    "not a float array: complex": lambda w: w.update({"fc.bias": np.zeros(10, np.complex64)}),
}


@pytest.mark.parametrize("package", [torch_impl, keras_impl], ids=["torch", "keras"])
@pytest.mark.parametrize("kind", BROKEN)
def test_weights_that_do_not_fit_are_listed_and_change_nothing(package, kind, weights):
    model = package.create_model(ARCH, seed=0)
    before = package.export_weights(model)
    BROKEN[kind](weights)
    with pytest.raises(RosettaError) as error:
        package.import_weights(model, weights)
    assert kind.split(":")[0].removeprefix("a transposed square") in str(error.value)
    listed = {line[2:4] for line in str(error.value).splitlines()[1:]}
    assert listed == ({"- "} if kind == "missing" else {"+ "} if kind == "unexpected" else {"- ", "+ "})
    after = package.export_weights(model)
    assert all(np.array_equal(after[n], w) for n, w in before.items())


def test_a_net_of_another_depth_is_counted_whole_and_listed_from_both_ends():
    with pytest.raises(RosettaError) as error:
        store.check(get("cifar_resnet32"), randomised(ARCH))
    missing = [name for name in parameters(get("cifar_resnet32")) if name not in parameters(ARCH)]
    text = str(error.value)
    assert len(missing) == 120 and "120 missing" in text and len(text) <= 2000
    assert all(f"  - {name} (" in text for name in (*missing[:15], *missing[-15:]))


def test_every_difference_is_listed_at_once(weights):
    for kind in ("unexpected", "misshapen", "missing"):
        BROKEN[kind](weights)
    weights["bn1.bias"] = np.zeros(16, np.int64)
    with pytest.raises(RosettaError) as error:
        store.check(ARCH, weights)
    text = str(error.value)
    assert "1 missing, 1 unexpected, 1 misshapen, 1 not a float array" in text
    for line in (
        "- fc.bias (10,)",
        "+ fc.scale (10,)",
        "- conv1.weight (16, 3, 3, 3)",
        "+ conv1.weight (16, 3, 9, 1)",
        "+ bn1.bias int64",
    ):
        assert line in text


@pytest.mark.parametrize("package", [torch_impl, keras_impl], ids=["torch", "keras"])
def test_exports_are_copies(package):
    model = package.create_model(ARCH, seed=0)
    taken = package.export_weights(model)
    for w in taken.values():
        w += 1
    again = package.export_weights(model)
    assert all((w != again[n]).any() for n, w in taken.items())
    assert all(w.flags.c_contiguous and w.flags.owndata for w in again.values())


@pytest.mark.parametrize("package", [torch_impl, keras_impl], ids=["torch", "keras"])
def test_read_only_and_strided_arrays_are_taken_and_left_alone(package, weights):
    model = package.create_model(ARCH, seed=0)
    for n, w in weights.items():
        w.flags.writeable = False
        weights[n] = np.broadcast_to(w, (2, *w.shape))[0] if w.ndim > 1 else w[::-1][::-1]
    package.import_weights(model, weights)
    assert all(np.array_equal(w, weights[n]) for n, w in package.export_weights(model).items())


def honest(path: Path) -> bytes:
    store.save(path, ARCH, randomised(ARCH))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: b"", "whole safetensors"),
        (lambda b: b[:7], "whole safetensors"),
        (lambda b: b[: len(b) // 2], "whole safetensors"),
        (lambda b: b[:-1], "whole safetensors"),
        (lambda b: b + b"\0", "whole safetensors"),
        (lambda b: struct.pack("<Q", 2**60) + b[8:], "whole safetensors"),
        (lambda b: b"PK\3\4" + b[4:], "whole safetensors"),
        (lambda b: b.replace(b"conv1.weight", b"conv9.weight", 1), "missing"),
        (lambda b: b.replace(b"resnet-rosetta", b"resnet-rosemary"[:14], 1), "not of this project"),
        (lambda b: b.replace(b'\\"num_classes\\\\\\": 10', b'\\"num_classes\\\\\\": 11', 1), "fc.weight"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path, damage, words):
    path = tmp_path / "a.safetensors"
    good = honest(path)
    bad = damage(good)
    assert bad != good
    path.write_bytes(bad)
    with pytest.raises(RosettaError, match=words) as error:
        store.load(path)
    assert "a.safetensors" in str(error.value)


def test_foreign_and_absent_files_are_refused(tmp_path):
    safetensors.numpy.save_file({"x": np.zeros(3, np.float32)}, tmp_path / "f.safetensors", metadata={"format": "pt"})
    with pytest.raises(RosettaError, match="not of this project.*format"):
        store.load(tmp_path / "f.safetensors")
    for name in ("absent.safetensors", "."):
        with pytest.raises(RosettaError, match="no such file"):
            store.load(tmp_path / name)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_mutation_of_a_file_gets_past(tmp_path_factory, data):
    """Whatever byte is changed: a clear error, or a row and weights that fit each other."""
    path = tmp_path_factory.mktemp("m") / "a.safetensors"
    bytes_ = bytearray(honest(path))
    header = 8 + struct.unpack("<Q", bytes_[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        bytes_[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes_)
    try:
        arch, weights, _ = store.load(path)
        store.check(arch, weights)
    except RosettaError:
        pass


def test_a_full_disk_leaves_what_was_there(tmp_path, weights, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_text("before")

    def full(*args, **kwargs):
        Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(RosettaError, match="No space left on device"):
        store.save(path, ARCH, weights)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_really_full_device_is_a_clear_error(tmp_path, weights):
    with pytest.raises(RosettaError), atomic(tmp_path / "a") as temporary:
        os.symlink("/dev/full", temporary)
        with open(temporary, "wb") as f:
            f.write(b"x" * 10_000_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError, RosettaError("no")])
def test_an_interrupted_write_leaves_nothing(tmp_path, interruption):
    with pytest.raises((KeyboardInterrupt, MemoryError, RosettaError)), atomic(tmp_path / "a") as temporary:
        temporary.write_bytes(b"half")
        raise interruption
    assert not list(tmp_path.iterdir())


def test_unwritable_targets_are_refused(tmp_path, weights):
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "nowhere" / "a", tmp_path / "folder"):
        with pytest.raises(RosettaError, match="can't write"):
            store.save(target, ARCH, weights)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"] and not list((tmp_path / "folder").iterdir())


def test_metadata_is_one_key(tmp_path, weights):
    """Several come out of safetensors in an order that changes from run to run."""
    store.save(tmp_path / "a", ARCH, weights)
    with safetensors.safe_open(tmp_path / "a", "numpy") as f:
        assert list(f.metadata()) == [store.FORMAT]
        assert json.loads(json.loads(f.metadata()[store.FORMAT])["arch"])["depths"] == [1, 1, 1]


def test_links_are_followed_and_what_is_no_file_is_written_to(tmp_path):
    real, link = tmp_path / "real" / "a.json", tmp_path / "b.json"
    real.parent.mkdir()
    for target in (real, tmp_path / "real" / "new.json"):  # one that is there, one that isn't yet
        link.unlink(missing_ok=True)
        real.write_text("old")
        link.symlink_to(target)
        with atomic(link) as temporary:
            temporary.write_text("new")
        assert link.is_symlink() and target.read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic(pipe) as temporary:
        temporary.write_text("through")
    assert os.read(reader, 100) == b"through" and pipe.is_fifo()
    os.close(reader)
    master, slave = os.openpty()  # a device
    with atomic(os.ttyname(slave)) as temporary:
        temporary.write_text("through")
    assert os.read(master, 100) == b"through"
    for opened in (master, slave):
        os.close(opened)
    if os.geteuid() == 0:
        device = tmp_path / "null"
        try:
            os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
            with atomic(device) as temporary:
                temporary.write_text("away")
            assert device.is_char_device()
        except PermissionError:  # in a container that may not
            pass


def test_what_this_process_has_open_is_written_to_in_its_place(tmp_path):
    """`--json /dev/stdout > file`: what is printed afterwards comes behind it."""
    code = "import sys; from common.tools.files import atomic\nprint('before')\nwith atomic('/dev/stdout') as t:\n"
    code += "    t.write_text('json ')\nprint('after')"
    with open(tmp_path / "out", "wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, cwd=ROOT)
    assert (tmp_path / "out").read_text() == "before\njson after\n"
    piped = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    assert piped.stdout == b"before\njson after\n"


def test_what_a_killed_process_left_is_cleared_by_the_next_and_what_a_living_one_has_is_not(tmp_path):
    code = (
        "import sys, time; from common.tools.files import atomic; from common.cli.group import end_like_interrupted\n"
        "end_like_interrupted()\n"
        f"with atomic({str(tmp_path / 'a.json')!r}) as t:\n    t.write_text('half')\n"
        "    print('there', flush=True)\n    time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == b"there\n"
    (tmp_path / ".other-1").mkdir()
    processes[0].kill()
    processes[0].wait()
    assert len(list(tmp_path.glob(".rosetta-*"))) == 2
    with atomic(tmp_path / "b.json") as temporary:
        temporary.write_text("whole")
    (left,) = tmp_path.glob(".rosetta-*")
    assert f"-{processes[1].pid}." in left.name and len(list(left.iterdir())) == 1 and (tmp_path / ".other-1").is_dir()
    processes[1].terminate()  # which clears away by itself
    assert processes[1].wait() == 128 + signal.SIGTERM and not list(tmp_path.glob(".rosetta-*"))
    for process in processes:
        process.stdout.close()


def test_names_of_any_length_and_bytes(tmp_path, weights):
    for name in ("x" * (255 - len(".safetensors")) + ".safetensors", os.fsdecode(b"\xff\xfe.safetensors")):
        store.save(tmp_path / name, ARCH, weights)
        assert os.fsencode(name) in os.listdir(os.fsencode(tmp_path))
    with pytest.raises(RosettaError, match="can't write"):
        store.save(tmp_path / ("x" * 300), ARCH, weights)
