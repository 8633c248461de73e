"""The command line as a user meets it: in a process of its own where exit codes and stderr matter, else in this one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from PIL import Image

import common.weights as store
from common.arch import FAMILIES, VARIANTS, get
from common.cli import cli
from common.errors import RosettaError
from common.init import randomised


def rosetta(*args: object):
    return CliRunner().invoke(cli, [str(a) for a in args])


def process(*args: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "common.cli", *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=400
    )


def test_list():
    out = rosetta("list")
    assert out.exit_code == 0 and all(name in out.output for name in VARIANTS) and "25,557,032" in out.output
    rows = json.loads(rosetta("list", "--family", "wide", "--json").output)
    assert [r["name"] for r in rows] == ["wide_resnet50_2", "wide_resnet101_2"] and rows[0]["parameters"] == 68_883_240
    assert len(json.loads(rosetta("list", "--json").output)) == len(VARIANTS)
    for family in FAMILIES:
        assert rosetta("list", "--family", family).exit_code == 0


@pytest.mark.parametrize("name", VARIANTS)
def test_show_every_variant(name):
    out = rosetta("show", name)
    assert out.exit_code == 0 and "multiply-adds" in out.output
    shown = json.loads(rosetta("show", name, "--json").output)
    assert shown["total"]["parameters"] == sum(s["parameters"] for s in shown["stages"])
    assert json.loads(json.dumps(shown["names"])) == shown["names"]


def test_show_composes():
    out = rosetta(
        "show",
        "resnet50",
        "--set",
        "groups=8",
        "--set",
        "width_per_group=16",
        "--set",
        "depths=[1,1,1,1]",
        "--set",
        "preact=True",
        "--json",
    )
    shown = json.loads(out.output)
    assert shown["arch"]["depths"] == [1, 1, 1, 1] and shown["arch"]["preact"] is True
    assert shown["names"]["layer1.0.conv2.weight"] == [128, 16, 3, 3]
    stem = rosetta(
        "show", "resnet18", "--set", 'stem={"convs": [[32, 3, 2], [64, 3, 1]], "pool": false}', "--size", 64, "--json"
    )
    assert json.loads(stem.output)["stages"][0]["output"] == [64, 32, 32]


@pytest.fixture
def weights_file(tmp_path) -> Path:
    arch = get("cifar_resnet20", depths=(1, 1, 1))
    store.save(tmp_path / "w.safetensors", arch, randomised(arch))
    return tmp_path / "w.safetensors"


def photo(path: Path, size: tuple[int, int] = (40, 50), mode: str = "RGB") -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode).save(path)
    return path


def test_compare_says_equal(tmp_path):
    done = process("compare", "cifar_resnet20", "--json", tmp_path / "r.json", "--report", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    for words in (
        "269,722",
        "bit-exact",
        "china.jpg, flower.jpg",
        "layer3",
        "floor",
        "keras:tensorflow, float64: rounding: the largest difference is",
        "keras:tensorflow, float32: rounding: at most",
        "equal: the same function",
    ):
        assert words in done.stdout, (words, done.stdout)
    assert done.stdout.count("269,722") == 3 and "different" not in done.stdout
    for step in ("starting torch, keras:tensorflow", "forward", "train", "gradients"):
        assert step in done.stderr
    assert "oneDNN" not in done.stderr  # TensorFlow's chatter
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["equal"] is True and report["verdict"] == "rounding"
    assert [(c["backend"], c["dtype"]) for c in report["compared"]] == [
        ("keras:tensorflow", "float64"), ("keras:tensorflow", "float32")
    ]  # fmt: skip
    rows = report["compared"][0]["rows"]
    assert {d["check"] for d in rows} == {"forward", "train", "gradients"}
    names = [d["name"] for d in rows if d["check"] == "forward"]
    assert names[:2] == ["conv1", "bn1"] and names[-2:] == ["fc", "logits"] and len(names) == len(set(names)) > 40
    logits = next(d for d in rows if d["name"] == "logits")
    assert logits["relative"] < 1e-13
    gradients = [d["name"] for d in rows if d["check"] == "gradients"]
    assert gradients[0] == "conv1.weight" and gradients[-2:] == ["fc.bias", "input"]
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["report.html", "report.json"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<svg") == 4 and "layer3.0.conv1" in page and "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize("name", ["resnet18_1d", "resnet18_d2l"])
def test_compare_takes_signals_grey_images_and_one_dtype(name, here):
    out = rosetta("compare", name, "--dtype", "float64", "--size", 64, "--checks", "forward")
    assert out.exit_code == 0, out.output
    assert "float32" not in out.output


def test_compare_takes_files_and_photographs(tmp_path, weights_file, here):
    images = [
        photo(tmp_path / "a.png"),
        photo(tmp_path / "b.png", mode="L"),
        photo(tmp_path / "c.gif", mode="P"),
        photo(tmp_path / "d.png", mode="RGBA"),
    ]
    out = rosetta("compare", weights_file, *(a for i in images for a in ("--image", i)), "--dtype", "float64")
    assert out.exit_code == 0 and "a.png, b.png, c.gif, d.png" in out.output


def test_compare_names_the_first_layer_that_differs(monkeypatch, tmp_path, here):
    """One twin broken, in the third block: exit code 1, the layer, its two values, what it means, in words and on the
    page."""
    from keras_impl import layers

    block = layers.BatchNorm.call

    def broken(self, x, training=None, mask=None):
        y = block(self, x, training)
        return y * 1.0001 if self.name == "layer2_0_bn2" else y

    monkeypatch.setattr(layers.BatchNorm, "call", broken)
    out = rosetta("compare", "cifar_resnet20", "--report", tmp_path)
    assert out.exit_code == 1
    assert "first over tolerance: layer2.0.bn2 at [" in out.output
    assert "different: layer2.0.bn2 (forward) is 1.0e-04 apart" in out.output
    assert "another function from there on" in out.output and "not equal" in out.output
    page = (tmp_path / "report.html").read_text()
    assert "over first" in page and page.split("over first")[1].startswith('"><td>layer2.0.bn2')
    assert json.loads((tmp_path / "report.json").read_text())["compared"][0]["first_over"]["name"] == "layer2.0.bn2"


def test_compare_takes_arrays_checks_steps_and_any_order_of_backends(tmp_path, here, weights_file):
    x = np.random.default_rng(0).standard_normal((3, 3, 12, 15))
    np.save(tmp_path / "x.npy", x)
    out = rosetta(
        "compare", weights_file, "--backends", "keras:tensorflow", "torch", "--checks", "train,steps", "--steps", 2,
        "--image", tmp_path / "x.npy", "--dtype", "float64", "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert out.exit_code == 0, out.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["compared"][0]["against"] == "keras:tensorflow" and report["input"] == [3, 3, 12, 15]
    checks = list(dict.fromkeys(d["check"] for d in report["compared"][0]["rows"]))
    rules = ("sgd", "nesterov", "adam", "adamw")
    assert checks == ["train", *(f"steps {rule} {k}" for rule in rules for k in (1, 2))]
    parts = {d["part"] for d in report["compared"][0]["rows"] if d["check"] == "steps adam 2"}
    assert parts == {"loss", "parameters", "statistics", "moments", "logits after"}


def test_compare_in_half_precision_stands_beside_its_floor(here, tmp_path):
    out = rosetta(
        "compare", "cifar_resnet20", "--dtype", "bfloat16", "--dtype", "float16", "--json", tmp_path / "r.json"
    )
    assert out.exit_code == 0, out.output
    for compared in json.loads((tmp_path / "r.json").read_text())["compared"]:
        logits = next(d for d in compared["rows"] if d["name"] == "logits")
        assert 1e-4 < logits["floor"] < 0.2 and logits["relative"] < 3 * logits["floor"]


EVERY = ["torch", "keras:tensorflow", "keras:jax", "keras:torch", "onnx:torch", "onnx:keras"]


@pytest.mark.parametrize(
    "backends, steps", [(["torch", "keras:torch", "onnx:keras"], 1), pytest.param(EVERY, 3, marks=pytest.mark.slow)]
)
def test_every_backend_in_a_process_of_its_own(tmp_path, monkeypatch, backends, steps):
    """torch, Keras on its engines, and exports in ONNX Runtime: the whole command."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling takes longer than running
    for package in ("jax", "onnx", "onnxruntime", "onnxscript", "tf2onnx"):
        pytest.importorskip(package)
    arch = get("resnext50_32x4d", depths=(1, 1), widths=(16, 32), groups=4, width_per_group=16, num_classes=5)
    store.save(tmp_path / "w.safetensors", arch, randomised(arch))
    done = process(
        "compare", tmp_path / "w.safetensors", "--size", 24, "--checks", "all", "--steps", steps,
        "--json", tmp_path / "r.json", "--backends", *backends,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert list(report["versions"]) == backends
    limits = {"forward": 1e-13, "train": 1e-10, "gradients": 1e-10, "steps": 1e-8}
    for compared in report["compared"]:
        rows = compared["rows"]
        if compared["dtype"] == "float64":
            assert all(d["relative"] <= limits[d["check"].split()[0]] for d in rows)
        if compared["backend"].startswith("onnx"):
            assert [d["name"] for d in rows] == ["logits"] and rows[0]["relative"] <= 1e-5
        else:
            assert {d["check"].split()[0] for d in rows} == set(limits)


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_export_gives_a_graph_that_gives_the_logits(tmp_path, weights_file, framework):
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    import torch

    import torch_impl

    out = rosetta("export", weights_file, tmp_path / "x.onnx", "--from", framework)
    assert out.exit_code == 0 and "N x 3 x H x W" in out.output, out.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.safetensors", "x.onnx"]  # one file
    onnx.checker.check_model(tmp_path / "x.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    assert [i.shape for i in session.get_inputs()] == [["N", 3, "H", "W"]]
    arch, weights, _ = store.load(weights_file)
    net = torch_impl.create_model(arch, weights=weights).eval()
    for shape in ((1, 3, 32, 32), (5, 3, 17, 40)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        with torch.no_grad():
            expected = net(torch.from_numpy(x)).numpy()
        (found,) = session.run(["logits"], {"input": x})
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_export_keeps_nothing_that_differs(tmp_path, weights_file, monkeypatch):
    pytest.importorskip("onnxruntime")
    from common.parity import graphs

    run = graphs.run
    monkeypatch.setattr(graphs, "run", lambda path, x: run(path, x) * 1.001)
    out = rosetta("export", weights_file, tmp_path / "x.onnx", "--from", "torch")
    assert out.exit_code == 2 and "other logits than torch" in out.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("suffix", ["pt", "weights.h5", "keras", "safetensors"])
def test_port_there_and_back(tmp_path, weights_file, suffix):
    there, back = tmp_path / f"x.{suffix}", tmp_path / "back.safetensors"
    out = rosetta("port", weights_file, there)
    assert out.exit_code == 0 and "bit-equal" in out.output, out.output
    assert rosetta("port", there, back).exit_code == 0
    assert back.read_bytes() == weights_file.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"w.safetensors", there.name, "back.safetensors"})


def test_ported_files_are_each_frameworks_own(tmp_path, weights_file):
    """What comes out loads without us: a state_dict, weights, and a model that Keras finds by its registered name."""
    import keras
    import torch

    import keras_impl
    import torch_impl

    arch, weights, _ = store.load(weights_file)
    for suffix in ("pt", "weights.h5", "keras"):
        assert rosetta("port", weights_file, tmp_path / f"x.{suffix}").exit_code == 0
    ours = torch_impl.create_model(arch)
    ours.load_state_dict(torch.load(tmp_path / "x.pt", weights_only=True), strict=True)
    twin = keras_impl.create_model(arch)
    twin.load_weights(tmp_path / "x.weights.h5")
    for found in (
        torch_impl.export_weights(ours),
        keras_impl.export_weights(twin),
        keras_impl.export_weights(keras.saving.load_model(tmp_path / "x.keras")),
    ):
        assert all(np.array_equal(w, weights[n]) for n, w in found.items())


def test_a_state_dict_without_a_row_is_recognised_and_held_to_its_name(tmp_path):
    import torch

    import torch_impl

    torch.save(torch_impl.create_model("cifar_resnet20").state_dict(), tmp_path / "x.pt")
    out = rosetta("port", tmp_path / "x.pt", tmp_path / "x.safetensors", "--arch", "cifar_resnet32")
    assert out.exit_code == 2 and "depths is (3, 3, 3) in the file and (5, 5, 5) in what was named" in out.stderr
    assert not (tmp_path / "x.safetensors").exists()
    for extra, name in (((), "cifar_resnet20"), (("--arch", "cifar_plain20"), "cifar_plain20")):
        out = rosetta("port", tmp_path / "x.pt", tmp_path / "x.safetensors", "--force", *extra)
        assert out.exit_code == 0 and store.load(tmp_path / "x.safetensors")[0] == VARIANTS[name]
    out = rosetta("port", tmp_path / "x.pt", tmp_path / "y.safetensors", "--set", "shortcut=none", "--json")
    assert out.exit_code == 0 and json.loads(out.stdout)["name"] == "cifar_plain20"


def bad(tmp_path: Path, weights_file: Path) -> dict[str, tuple[list[object], str]]:
    """{what: (arguments, words that the error must have)}."""
    text, tiny, cut, nan = (
        tmp_path / "text.jpg",
        tmp_path / "tiny.png",
        tmp_path / "cut.png",
        tmp_path / "nan.safetensors",
    )
    text.write_text("not an image")
    photo(tiny, (5, 40))
    cut.write_bytes(photo(tmp_path / "whole.png", (400, 400)).read_bytes()[:20_000])
    truncated, evil = tmp_path / "t.safetensors", tmp_path / "evil.pt"
    truncated.write_bytes(weights_file.read_bytes()[:1000])
    arch, weights, _ = store.load(weights_file)
    weights["fc.bias"][3] = np.nan
    store.save(nan, arch, weights)
    x = np.zeros((2, 3, 8, 8))
    x[1, 2, 3, 4] = np.nan
    np.save(tmp_path / "nan.npy", x)
    (tmp_path / "text.npy").write_text("no array")
    evil.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    for name in ("x.keras", "x.weights.h5", "x.pt"):
        (tmp_path / name).write_text("nothing of the kind")
    return {
        "unknown command": (["compaer"], "did you mean compare"),
        "unknown variant": (["show", "resnet5O"], "did you mean resnet50"),
        "unknown family": (["list", "--family", "wides"], "did you mean wide"),
        "unknown field": (["show", "resnet50", "--set", "group=8"], "did you mean groups"),
        "no field": (["show", "resnet50", "--set", "groups"], "FIELD=VALUE"),
        "impossible row": (["compare", "resnet18", "--set", "groups=8"], "groups = 8 can't be"),
        "impossible row, by word": (["show", "resnet18", "--set", "shortcut=padd"], "did you mean pad"),
        "no size": (["show", "resnet18", "--size", 0], "at least 1"),
        "no size to compare": (["compare", "resnet18", "--size", 0], "at least 1"),
        "no image": (["compare", "resnet18", "--image", text], "not an image"),
        "absent image": (["compare", "resnet18", "--image", tmp_path / "absent.jpg"], "no such image"),
        "folder as image": (["compare", "resnet18", "--image", tmp_path], "no such image"),
        "tiny image": (["compare", "resnet18", "--image", tiny], "too small: 5 x 40 pixels"),
        "cut image": (["compare", "resnet18", "--image", cut], "damaged or unreadable"),
        "report in no folder": (["compare", "resnet18", "--json", tmp_path / "no" / "r.json"], "can't write"),
        "report on a folder": (["compare", "resnet18", "--json", tmp_path], "it is a folder"),
        "truncated weights": (["compare", truncated], "not a whole safetensors file"),
        "absent weights": (["compare", tmp_path / "absent.safetensors"], "no such file"),
        "file with --set": (["compare", weights_file, "--set", "groups=8"], "--set"),
        "port from nothing": (["port", tmp_path / "absent.safetensors", tmp_path / "o.pt"], "no such file"),
        "port from truncated": (["port", truncated, tmp_path / "o.pt"], "not a whole safetensors file"),
        "port from text as pt": (
            ["port", tmp_path / "x.pt", tmp_path / "o.safetensors"],
            "not a whole PyTorch checkpoint",
        ),
        "port from text as keras": (
            ["port", tmp_path / "x.keras", tmp_path / "o.safetensors"],
            "no checkpoint that is known",
        ),
        "port from text as h5": (
            ["port", tmp_path / "x.weights.h5", tmp_path / "o.safetensors"],
            "no checkpoint that is known",
        ),
        "port from code": (["port", evil, tmp_path / "o.safetensors"], "os.system"),
        "port of nan": (["port", nan, tmp_path / "o.pt"], "NaN or infinity, in fc.bias"),
        "port to nowhere": (["port", weights_file, tmp_path / "no" / "o.pt"], "can't write"),
        "port to no format": (["port", weights_file, tmp_path / "o.onnx"], "no suffix that is known"),
        "port to the wrong library": (["port", weights_file, tmp_path / "o.pt", "--as", "keras-hub"], "not o.pt"),
        "port to what can't hold it": (
            ["port", weights_file, tmp_path / "o.pt", "--as", "torchvision"],
            "builds no such net",
        ),
        "port to no library": (["port", weights_file, tmp_path / "o.pt", "--as", "tim"], "did you mean timm"),
        "port to two heads": (["port", weights_file, tmp_path / "o.pt", "--no-head", "--num-classes", 3], "both"),
        "port to five channels": (["port", weights_file, tmp_path / "o.pt", "--in-channels", 5], "summed to 1"),
        "port with a change": (["port", weights_file, tmp_path / "o.pt", "--set", "norm_eps=0.1"], "says what it is"),
        "inspect nothing": (["inspect", tmp_path / "absent.pth"], "no such file"),
        "inspect text": (["inspect", text], "no checkpoint that is known"),
        "inspect a folder": (["inspect", tmp_path], "without config.json"),
        "port of another net": (["port", weights_file, tmp_path / "o.pt", "--arch", "resnet50"], "another net"),
        "unknown check": (["compare", "resnet18", "--checks", "foward"], "did you mean forward"),
        "no check": (["compare", "resnet18", "--checks", ","], "--checks needs names"),
        "unknown backend": (["compare", "resnet18", "--backends", "torch", "keras:jaxx"], "did you mean keras:jax"),
        "one backend": (["compare", "resnet18", "--backends", "torch"], "two different ones"),
        "a backend twice": (["compare", "resnet18", "--backends", "keras", "keras:tensorflow"], "two different ones"),
        "no backend": (["compare", "resnet18", "--backends", "--size", 32], "--backends needs names"),
        "no such device": (["compare", "cifar_resnet20", "--device", "gpu"], "finds no GPU"),
        "a referee on the device": (
            ["compare", "resnet18", "--device", "gpu", "--backends", "torch", "onnx:torch"],
            "run on the CPU",
        ),
        "report into a file": (["compare", "resnet18", "--report", weights_file], "can't write into"),
        "report into nowhere": (["compare", "resnet18", "--report", tmp_path / "no" / "r"], "can't write into"),
        "nan in weights": (["compare", nan], "NaN or infinity, in fc.bias"),
        "nan in an image": (["compare", "cifar_resnet20", "--image", tmp_path / "nan.npy"], "nan.npy holds nan at"),
        "array of another shape": (["compare", "resnet18_1d", "--image", tmp_path / "nan.npy"], "expected numbers"),
        "no array": (["compare", "resnet18", "--image", tmp_path / "text.npy"], "not a whole .npy"),
        "export to another format": (["export", "resnet18", tmp_path / "o.pt", "--from", "torch"], "NAME.onnx"),
        "export to nowhere": (["export", "resnet18", tmp_path / "no" / "o.onnx", "--from", "keras"], "can't write"),
        "export of nothing": (["export", "resnet19", tmp_path / "o.onnx", "--from", "keras"], "did you mean resnet18"),
        "export from nowhere": (["export", "resnet18", tmp_path / "o.onnx", "--from", "jax"], "jax"),
        "bad option": (["compare", "resnet18", "--dtype", "float65"], "float65"),
        "no argument": (["port", weights_file], "TARGET"),
    }


def test_bad_input_is_one_clear_error_and_exit_code_2(tmp_path, weights_file):
    cases = bad(tmp_path, weights_file)
    before = sorted(p.name for p in tmp_path.iterdir())
    for what, (args, words) in cases.items():
        out = rosetta(*args)
        assert out.exit_code == 2, (what, out.exit_code, out.output, out.exception)
        assert words in out.stderr and not out.stdout, (what, out.output)
        assert "Traceback" not in out.output and len(out.stderr.strip().splitlines()) <= 8, (what, out.stderr)
        assert sorted(p.name for p in tmp_path.iterdir()) == before, what  # nothing written, nothing run


def test_no_traceback_in_a_process_of_its_own(tmp_path, weights_file):
    for args in (
        ["show", "resnet5O"],
        ["compare", "resnet18", "--image", ROOT / "README.md"],
        ["port", weights_file, tmp_path / "no" / "x.keras"],
    ):
        done = process(*args)
        assert done.returncode == 2 and not done.stdout, done
        message = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
        assert len(message) == 1 and message[0].startswith("rosetta: "), done.stderr


def test_a_full_disk_leaves_nothing_half_written(tmp_path, small_disk):
    disk, arch = small_disk("600k"), VARIANTS["cifar_resnet20"]
    store.save(tmp_path / "w.safetensors", arch, randomised(arch))  # 1.1 MB
    for name in ("x.safetensors", "x.pt", "x.keras", "x.weights.h5"):
        (disk / name).write_text("before")
        out = rosetta("port", tmp_path / "w.safetensors", disk / name, "--force")
        said = (name, out.output, out.exception)
        assert out.exit_code == 2 and "can't write" in out.stderr and "Traceback" not in out.output, said
        assert (disk / name).read_text() == "before" and [p.name for p in disk.iterdir()] == [name]
        (disk / name).unlink()


def test_a_backend_that_is_not_installed_says_what_to_install(monkeypatch, tmp_path):
    import importlib.util

    find = importlib.util.find_spec
    gone = {"jax", "onnxruntime", "matplotlib"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name in gone else find(name, *a))
    for args, words in (
        (["compare", "resnet18", "--backends", "torch", "keras:jax"], "needs jax, which is not installed: pip install"),
        (["compare", "resnet18", "--backends", "torch", "onnx:torch"], "resnet-rosetta[torch,onnx]"),
        (["compare", "resnet18", "--report", tmp_path / "r"], "resnet-rosetta[report]"),
        (["export", "resnet18", tmp_path / "o.onnx", "--from", "torch"], "resnet-rosetta[torch,onnx]"),
    ):
        out = rosetta(*args)
        assert out.exit_code == 2 and words in out.stderr and not out.stdout, out.output
    assert not list(tmp_path.iterdir())


def test_a_process_that_dies_is_one_line(monkeypatch):
    import signal

    from common.parity import backends

    with pytest.raises(backends.BackendDied, match="torch was killed by signal 9"):
        with backends.started(["torch", "keras:tensorflow"]) as running:
            os.kill(running[0]._process.pid, signal.SIGKILL)
            running[0].versions()


def test_stderr_may_be_closed():
    """Where stderr is closed, progress is told to nobody."""
    code = "import os; from common.cli.group import Progress\nwith Progress() as say: say('a step')\nprint('done')"
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_no_home(monkeypatch):
    from common.training.data import download

    for name in ("RESNET_ROSETTA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(download.Path, "home", nobody)
    with pytest.raises(RosettaError, match="set RESNET_ROSETTA_CACHE"):
        download.cache()


def test_nowhere_to_write_temporary_files(monkeypatch):
    import tempfile

    def nowhere(*args, **options):
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", nowhere)
    done = CliRunner().invoke(cli, ["predict", "-", "--weights", "resnet18"], input=b"")
    assert done.exit_code == 2 and "set TMPDIR" in done.stderr
