"""What the tutorials of ResNet do, step by step, as commands: build the nets, look at their layers, compare shortcuts,
train on CIFAR-10's files, on Fashion-MNIST's kind of images and on signals, put a new head on frozen ImageNet weights,
name what a photograph shows. Small nets and data of the same kind stand in for theirs.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import common.weights as store
from common.arch import get
from common.cli import cli
from common.init import initial, randomised
from common.training import run as training

SMALL = ("--set", "depths=1,1,1,1", "--set", "widths=8,16,16,32", "--set", "stem=8@3x3/2")
FRAMEWORKS = ("torch", "keras")
SLOW_IN_KERAS = ("torch", pytest.param("keras", marks=pytest.mark.slow))  # half a minute to compile


@pytest.fixture
def rosetta(here, monkeypatch, tmp_path):
    """Runs a command here, in an empty folder; gives what it prints. Backends share this process."""

    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> str:
        out = CliRunner().invoke(cli, [str(a) for a in args])
        assert out.exit_code == 0, (args, out.output, out.exception)
        return out.stdout

    return run


def pictures(folder: Path, train: int, test: int, mode: str = "RGB") -> Path:
    """An image folder of two kinds: dark and light."""
    rng = np.random.default_rng(0)
    for half, count in (("train", train), ("val", test)):
        for kind, level in (("cats", 60), ("dogs", 190)):
            for i in range(count):
                path = folder / half / kind / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.clip(rng.normal(level, 20, (40, 44, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).convert(mode).save(path)
    return folder


def metrics(run: str) -> list[dict]:
    rows = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "test_accuracy" in row]


def test_build_the_nets_and_look_at_them(rosetta):
    """ResNet-18 to 152, plain-18 and 34, ResNeXt, by name; every layer's output, and the parameters that are known."""
    listed = rosetta("list")
    for name, parameters in (
        ("resnet18", "11,689,512"), ("resnet34", "21,797,672"), ("resnet50", "25,557,032"), ("resnet101", "44,549,160"),
        ("resnet152", "60,192,808"), ("plain18", "11,515,688"), ("plain34", "21,623,848"),
        ("resnext50_32x4d", "25,028,904"), ("resnext101_32x8d", "88,791,336"), ("resnet18_d2l", "11,178,378"),
        ("resnet34_d2l", "21,290,250"),
    ):  # fmt: skip
        assert any(line.split()[0] == name and parameters in line for line in listed.splitlines()), name
    # what the book prints, block by block: 64 x 56 x 56, 128 x 28 x 28, 256 x 14 x 14, 512 x 7 x 7, and 10
    rows = json.loads(rosetta("show", "resnet18_d2l", "--layers", "--json"))["layers"]
    outputs = {r["name"]: tuple(r["channels_first"]) for r in rows}
    assert outputs["maxpool"] == outputs["layer1"] == (64, 56, 56) and outputs["layer2"] == (128, 28, 28)
    assert outputs["layer3"] == (256, 14, 14) and outputs["layer4"] == (512, 7, 7) and outputs["fc"] == (10,)
    text = rosetta("show", "resnext50_32x4d", "--layers")
    assert "conv 3x3, 32 groups" in text and "56 x 56 x 128" in text and "2048 x 7 x 7" in text


@pytest.mark.parametrize("row", [("resnet34_a",), ("resnet34",), ("resnet34_c",), ("resnext50_32x4d",), ("plain34",)])
def test_shortcuts_and_groups_are_the_same_in_both_frameworks(rosetta, row):
    """Options A, B and C, none, and the grouped convolutions of ResNeXt."""
    small = SMALL if row[0] != "resnext50_32x4d" else ("--set", "depths=1,1,1,1")
    said = rosetta("compare", *row, *small, "--size", 64, "--checks", "forward", "--dtype", "float64")
    assert "the same function, to rounding" in said


@pytest.mark.parametrize("framework", SLOW_IN_KERAS)
def test_train_on_cifar_10s_files_with_adam(rosetta, tmp_path, framework):
    """The first tutorial: ResNet-50, Adam at 1e-3 and nothing else, the accuracy after every epoch."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        rows = rng.integers(0, 256, (20, 3073), np.uint8)
        rows[:, 0] = np.arange(20) % 10
        (folder / name).write_bytes(rows.tobytes())
    rosetta(
        "train", "resnet50", *SMALL, "--data", "cifar10", "--data-dir", tmp_path, "--framework", framework,
        "--with", "kind=Adam", "--rate", "1e-3", "--with", "schedule=constant", "--with", "weight_decay=0",
        "--with", "warmup=0", "--batch", 50, "--epochs", 2, "--out", "run",
    )  # fmt: skip
    assert [row["epoch"] for row in metrics("run")] == [1, 2] and metrics("run")[1]["rate"] == 1e-3
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000  # its plot of the loss


def test_train_the_books_net_by_its_recipe(rosetta):
    """Dive into Deep Learning and the forum below it: ResNet-18 on grey images, SGD, Xavier's initialisation."""
    rosetta(
        "train", "resnet18_d2l", *SMALL, "--data", "digits", "--size", 32, "--recipe", "d2l", "--epochs", 1,
        "--out", "run", "--quiet",
    )  # fmt: skip
    assert "centre 32 x 32" in rosetta("inspect", "run/last.safetensors")  # larger than they are, as the book has them
    config = json.loads(Path("run/config.json").read_text())
    assert config["recipe"]["rule"]["kind"] == "SGD" and config["recipe"]["init"] == "xavier"
    assert "recall" in rosetta("evaluate", "run", "--framework", "both", "--dtype", "float64")


def test_train_the_books_net_at_224_pixels(rosetta):
    """The book resizes Fashion-MNIST's 28 pixels, and so does --size; the run and its checkpoint say what the net saw.
    Its weights begin as Xavier's."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 28, 28), np.uint8), np.arange(30) % 10
    np.savez("clothes.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    rosetta(
        "train", "resnet18_d2l", *SMALL, "--data", "clothes.npz", "--size", 224, "--recipe", "d2l", "--epochs", 1,
        "--batch", 10, "--out", "run", "--quiet",
    )  # fmt: skip
    run = training.Run.load(Path("run"))
    assert run.size == 224 and run.load_data().shape == (1, 224, 224)
    assert "centre 224 x 224" in rosetta("inspect", "run/best.safetensors")
    xaviers = initial(run.arch, run.seed, "xavier")
    assert all(np.array_equal(w, xaviers[name]) for name, w in training.start(run).items())


@pytest.mark.parametrize("framework", SLOW_IN_KERAS)
def test_train_a_multi_scale_net_on_signals(rosetta, framework):
    """Multi-Scale-1D-ResNet, on signals of one's own: two kinds of wave, N L C."""
    rng, n, length = np.random.default_rng(0), 48, 128
    labels = np.arange(n) % 2
    x = np.sin(np.arange(length)[None] * np.where(labels, 0.5, 0.1)[:, None]) + 0.1 * rng.standard_normal((n, length))
    x = x[..., None].astype(np.float32)
    np.savez("waves.npz", x_train=x[:32], y_train=labels[:32], x_test=x[32:], y_test=labels[32:])
    rosetta(
        "train", "msresnet_1d", "--set", "widths=4,8,8", "--set", "stem=4@7/2", "--data", "waves.npz",
        "--framework", framework, "--epochs", 1, "--batch", 16, "--out", "run",
    )  # fmt: skip
    assert len(metrics("run")) == 1
    assert set(json.loads(Path("run/config.json").read_text())["arch"]["kernels"]) == {3, 5, 7}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_new_head_on_frozen_weights(rosetta, tmp_path, framework):
    """Transfer learning: a trained net's stages frozen, a head for two kinds, and what a photograph shows."""
    data = pictures(tmp_path / "photos", 8, 4)
    arch = get("resnet50", depths=(1, 1), widths=(8, 16), num_classes=1000)
    store.save("trained.safetensors", arch, randomised(arch))
    before = store.load("trained.safetensors")[1]
    rosetta(
        "train", "resnet50", "--set", "depths=1,1", "--set", "widths=8,16", "--data", f"folder:{data}", "--size", 32,
        "--init", "trained.safetensors", "--freeze", "all-but-head", "--framework", framework, "--epochs", 2,
        "--batch", 8, "--out", "run",
    )  # fmt: skip
    after = store.load("run/last.safetensors")[1]
    moved = {
        n for n, w in after.items() if n not in before or w.shape != before[n].shape or not np.array_equal(w, before[n])
    }
    assert {n for n in moved if "running" not in n} == {"fc.weight", "fc.bias"}
    said = rosetta("predict", data / "val" / "dogs" / "0.png", "--weights", "run", "--top", 2)
    assert "cats" in said and "dogs" in said


@pytest.mark.slow
def test_name_what_a_photograph_shows(rosetta, tmp_path):
    """keras.applications' file in both frameworks: its top three of ImageNet's classes."""
    arch = get("resnet50_keras")
    store.save("ours.safetensors", arch, randomised(arch))
    rosetta("port", "ours.safetensors", "resnet50.h5", "--as", "keras.applications", "--no-probe")
    photo = pictures(tmp_path / "photos", 1, 1) / "val" / "cats" / "0.png"
    said = json.loads(
        rosetta("predict", photo, "--weights", "resnet50.h5", "--framework", "both", "--top", 3, "--json")
    )
    top = said["images"][0]["top"]
    assert len(top) == 3 and all(t["wnid"].startswith("n") and t["label"] for t in top) and said["relative"] < 1e-5


@pytest.mark.slow
def test_plain_nets_get_worse_with_depth(rosetta):
    """The figure that all of them show: the same depth with and without shortcuts, one over the other."""
    for name in ("cifar_plain20", "cifar_resnet20"):
        rosetta("train", name, "--data", "digits", "--epochs", 1, "--batch", 256, "--out", name, "--quiet")
    said = rosetta("curves", "cifar_plain20", "cifar_resnet20", "--out", "figure.png")
    assert "test error by epoch" in said and Path("figure.png").stat().st_size > 5000
