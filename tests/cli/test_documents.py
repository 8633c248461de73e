"""Every code block and every command of README and docs: read out of the text, and run on stand-ins for the files that
they name."""

import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from PIL import Image

import common.weights as store
from common.arch import FAMILIES, VARIANTS, get
from common.cli import cli
from common.init import randomised
from common.teaching.faults import FAULTS

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (path.name, re.sub(r"\s+#.*", "", line).strip())
    for path in DOCUMENTS
    for line in re.findall(r"^(?:    |\$ )(rosetta .*)$", path.read_text(), re.MULTILINE)
]
USAGES = [use for path in DOCUMENTS for use in re.findall(r"`(rosetta [a-z][^`]*)`", path.read_text())]
BLOCKS = [block for path in DOCUMENTS for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)]

# what makes the commands cheap: small nets and pictures, data that need no download, backends of this process
SMALLER = [
    (r"resnet50-0676ba61\.pth", "resnet50.pth"),  # a name with a checksum is held to it
    (r"resnet20-12fca82f\.th", "resnet20.th"),
    (r"fashion-mnist", "digits"),
    (r"keras:tensorflow keras:jax.*", "keras:tensorflow"),  # the other engines need processes: test_cli.py
    (r"^rosetta compare (resnet\S+)(.*)", r"rosetta compare \1 --set depths=1,1,1,1 --size 64\2 --checks forward"),
    (r"^rosetta compare (model\S+)(.*)", r"rosetta compare \1 --size 32\2 --checks forward"),
    (r"^rosetta train (cifar\S+)(.*)", r"rosetta train \1 --set depths=1,1,1\2 --epochs 1"),
    (r"^(rosetta train --resume.*)", r"\1 --steps 1"),
    (r"^rosetta train (resnet50)(.*)", r"rosetta train \1 --set depths=1,1,1,1\2 --epochs 1 --batch 4 --size 64"),
    (r"^rosetta race (cifar\S+)", r"rosetta race \1 --set depths=1,1,1 --steps 2 --measure 20"),
]
PARSED_ALONE = {
    "rosetta diagnose my_net.py:resnet50 --like resnet50": "somebody's own file; tests/diagnosis has many",
    'rosetta diagnose my_net.py --call "build(num_classes=10)"': "the same",
    "rosetta exercise check 5 mine.py":
        "it isn't solved, so the exit code is 1; tests/teaching/test_exercises.py solves it",
    "rosetta evaluate docs/cifar_resnet20-fashion-mnist --framework both --dtype float64":
        "needs Fashion-MNIST; tests/twins/test_real_models.py evaluates that net",
    "rosetta port resnet50-0676ba61.pth resnet50.keras --as keras-hub":
        "KerasHub takes half a minute; tests/checkpoints/test_port.py writes such files",
}  # fmt: skip


def test_there_is_something_to_run():
    assert len(COMMANDS) > 15 and len(USAGES) > 10 and len(BLOCKS) > 3
    assert set(PARSED_ALONE) <= {command for _, command in COMMANDS}


@pytest.mark.parametrize("command", [command for _, command in COMMANDS])
def test_every_command_can_be_parsed(command):
    _, name, *args = shlex.split(command)
    assert name in cli.commands, command
    cli.commands[name].make_context(name, list(args))


@pytest.mark.parametrize("usage", USAGES)
def test_every_option_that_is_named_exists(usage):
    """In the table of commands, and wherever a command stands in a sentence."""
    name = usage.split()[1]
    assert name in cli.commands, usage
    options = {o for p in cli.commands[name].params if isinstance(p, click.Option) for o in p.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", usage)) <= options, usage


@pytest.mark.parametrize("group", [cli, cli.commands["exercise"]], ids=["rosetta", "exercise"])
def test_no_command_is_summed_up_in_half_a_sentence(group):
    said = CliRunner().invoke(group, ["--help"]).output
    assert all(name in said for name in group.commands) and "..." not in said.split("Commands:")[1], said


def test_the_documents_have_every_command_and_count_the_variants():
    assert {use.split()[1] for use in USAGES if "[" in use or "NAME" in use} == set(cli.commands)
    said = re.search(r"There are (\d+), in (\d+) families", (ROOT / "docs" / "variants.md").read_text())
    assert said and (int(said[1]), int(said[2])) == (len(VARIANTS), len(FAMILIES))
    assert f"{len(FAULTS)} mistakes" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_every_file_that_is_linked_is_there(path):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]
    if path.parent.name == "docs" and path.name != "README.md":
        assert f"({path.name})" in (path.parent / "README.md").read_text(), "docs/README.md is the index"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Stand-ins of the same kinds as what the documents name: small nets with random weights, and noise."""
    import torch

    folder = tmp_path_factory.mktemp("documents")
    rng = np.random.default_rng(0)

    def picture(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), np.uint8)).save(path)

    def port(*args):
        out = CliRunner().invoke(cli, ["port", *map(str, args), "--no-probe"])
        assert out.exit_code == 0, out.output

    for name in ("cat.jpg", "photo.jpg"):
        picture(folder / name)
    for half, count in (("train", 4), ("val", 2)):
        for kind in ("daisy", "rose"):
            for i in range(count):
                picture(folder / "flowers" / half / kind / f"{i}.jpg")
    small = get("resnet50", depths=(1, 1, 1, 1))
    torch.save({n: torch.from_numpy(w) for n, w in randomised(small).items()}, folder / "resnet50.pth")
    cifar = get("cifar_resnet20", depths=(1, 1, 1))
    store.save(folder / "model.safetensors", cifar, randomised(cifar))
    port(folder / "model.safetensors", folder / "resnet20.th", "--as", "akamaster")
    port(folder / "resnet50.pth", folder / "my-finetuned-folder", "--as", "transformers", "--num-classes", 3)
    keras = get("resnet50_keras")
    store.save(folder / "k.safetensors", keras, randomised(keras))
    port(folder / "k.safetensors", folder / "resnet50.h5", "--as", "keras.applications")
    (folder / "k.safetensors").unlink()
    return folder


def run(commands, made, files):
    for package in ("onnxruntime", "onnxscript", "jinja2", "matplotlib"):
        pytest.importorskip(package)
    for command in commands:
        for pattern, replacement in SMALLER:
            command = re.sub(pattern, replacement, command)
        out = CliRunner().invoke(cli, shlex.split(command)[1:])
        assert out.exit_code == 0, (command, out.output, out.exception)
    for name in made:
        assert (files / name).stat().st_size > 500, name


# what computes in Keras, or in both, takes seconds to compile
HEAVY = re.compile(r"^rosetta (compare|race|export)|--framework (keras|both)|folder:flowers")


def test_every_light_command_runs(files, here, monkeypatch):
    """In the order of the text, as a reader would who has such files."""
    monkeypatch.chdir(files)
    commands = [c for _, c in COMMANDS if c not in PARSED_ALONE and not HEAVY.search(c)]
    assert len(commands) > 10
    run(
        commands,
        ("resnet50.weights.h5", "ours.weights.h5", "model.keras", "resnet50.safetensors", "small.pt",
         "folded.safetensors", "resnet20.weights.h5", "plain_residual.png"), files,
    )  # fmt: skip


@pytest.mark.slow
def test_every_command_runs(files, here, monkeypatch, tmp_path):
    """The same with the others, in an empty folder beside the files."""
    monkeypatch.chdir(tmp_path)
    for path in files.iterdir():
        if path.name != "runs":
            (tmp_path / path.name).symlink_to(path)
    run(
        [c for _, c in COMMANDS if c not in PARSED_ALONE and not c.startswith("rosetta port")],
        ("report.json", "report/report.html", "model.onnx", "confusion.png", "plain_residual.png"), tmp_path,
    )  # fmt: skip


# the same for Python: small nets and pictures, one epoch
SMALLER_PYTHON = [
    ("resnet50-0676ba61.pth", "resnet50.pth"),
    ('create_model("resnet50"', 'create_model("cifar_resnet20"'),
    ("2, 3, 224, 224", "2, 3, 32, 32"),
    ('"digits", how)', '"digits", how, {"depths": (1, 1, 1)})'),
    ("smoothing=0.1", "smoothing=0.1, epochs=1, batch=256"),
]


def test_every_python_block_runs(files, monkeypatch, capsys):
    """In one process and one after another: what one of them made, the next ones use."""
    monkeypatch.chdir(files)
    said: dict = {}
    first: dict = {}
    for block in BLOCKS:
        for pattern, replacement in SMALLER_PYTHON:
            block = block.replace(pattern, replacement)
        exec(compile(block, "a document", "exec"), said)
        first = first or (dict(said) if "logits" in said else {})
    import keras_impl
    import torch_impl

    # what the words beside the code promise
    net, x = first["net"], first["x"]
    assert not net.training and set(net.features(x)) == {"stem", "layer1", "layer2", "layer3"}
    ours, theirs = torch_impl.export_weights(net), keras_impl.export_weights(first["twin"])
    assert all(np.array_equal(ours[n], theirs[n]) for n in ours)
    assert np.allclose(first["logits"], net(x).detach(), atol=1e-4)
