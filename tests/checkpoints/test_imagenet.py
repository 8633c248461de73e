"""ImageNet's class names, held against lists that nobody here wrote; and who gets them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from common.arch import VARIANTS, get
from common.checkpoints import imagenet
from common.cli import cli
from common.init import randomised
from common.parity.checks import Item
from common.training import evaluation
from common.weights import save


def test_they_are_torchvisions_and_timms(referees):
    models, timm = referees
    wnids, names = zip(*imagenet.classes(), strict=True)
    assert list(names) == models.ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    assert len(set(names)) == len(set(wnids)) == 1000 and list(wnids) == sorted(wnids)
    info = Path(timm.__file__).parent / "data" / "_info"
    assert list(wnids) == (info / "imagenet_synsets.txt").read_text().split()
    lemma = dict(line.split("\t") for line in (info / "imagenet_synset_to_lemma.txt").read_text().splitlines())
    other = {name: lemma[wnid] for wnid, name in imagenet.classes() if lemma[wnid].split(", ")[0] != name}
    assert other == {"crane bird": "crane", "maillot tank suit": "maillot, tank suit"}


def test_they_are_in_the_package():
    from conftest import ROOT

    assert f'"{imagenet.__file__.rsplit("/")[-1].replace(".py", ".txt")}"' in (ROOT / "pyproject.toml").read_text()


@pytest.fixture
def second(monkeypatch):
    """Any net says class 1."""

    class Fake:
        spec = "torch"

        def __init__(self, *_):
            pass

        def run(self, job):
            yield Item("predict", "logits", "logits", np.eye(job.arch.num_classes)[[1] * len(job.examples)])

        def close(self):
            pass

    monkeypatch.setattr(evaluation, "Elsewhere", Fake)


def predicted(tmp_path, file):
    picture = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(picture)
    out = CliRunner().invoke(cli, ["predict", str(picture), "--weights", str(file), "--json"])
    assert out.exit_code == 0, out.output
    said = json.loads(out.stdout)
    return said["images"][0]["top"][0], " ".join(said["notes"])


def test_predict_says_them_where_the_library_has_them(tmp_path, second):
    """A state_dict of 1000 classes is torchvision's; of ten it isn't, and our own file keeps what it says."""
    import torch

    def checkpoint(arch, name):
        weights = randomised(arch)
        torch.save({n: torch.from_numpy(w) for n, w in weights.items()}, tmp_path / name)
        return weights, tmp_path / name

    arch = get("resnet18", depths=(1, 1, 1, 1))
    weights, file = checkpoint(arch, "imagenet.pth")
    top, notes = predicted(tmp_path, file)
    assert top["label"] == "goldfish" and top["wnid"] == "n01443537" and top["class"] == 1
    assert "ImageNet's are taken, in the order of torchvision" in notes

    top, notes = predicted(tmp_path, checkpoint(dataclasses.replace(arch, num_classes=10), "ten.pth")[1])
    assert top["label"] == "class 1" and "wnid" not in top and "ImageNet's are" not in notes

    labels = "\n".join(f"mine {i}" for i in range(1000))
    for name, said, expected in (("a", {"labels": labels}, "mine 1"), ("b", {}, "class 1")):
        save(tmp_path / f"{name}.safetensors", arch, weights, said)
        top, notes = predicted(tmp_path, tmp_path / f"{name}.safetensors")
        assert top["label"] == expected and "wnid" not in top and "classes" not in notes


def test_cifars_libraries_are_not_imagenets(tmp_path):
    import torch

    from common.checkpoints.port import inspect

    arch = dataclasses.replace(VARIANTS["cifar_resnet18"], depths=(1, 1, 1, 1), num_classes=1000)
    weights = {n.replace("downsample", "shortcut").replace("fc.", "linear."): w for n, w in randomised(arch).items()}
    torch.save({n: torch.from_numpy(w) for n, w in weights.items()}, tmp_path / "x.pth")
    found = inspect(tmp_path / "x.pth")
    assert found.library.name == "kuangliu" and not imagenet.known(found)
