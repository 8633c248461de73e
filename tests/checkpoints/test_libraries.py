"""docs/libraries.md: its rows are every ResNet of the libraries that are installed, and each is what it says there."""

import gc
import importlib.util
import json
import re
import sys

import pytest
import torch
from conftest import ROOT
from test_port import shapes_only

from common.checkpoints.recognise import recognise

sys.path.append(str(ROOT / "benchmarks"))
import libraries

FOUND = json.loads(libraries.JSON.read_text())
DETECTORS = [name for name in FOUND["torchvision"] if re.search("rcnn|retinanet|fcos|fcn|deeplab", name)]


def test_the_page_is_what_was_measured():
    assert libraries.PAGE.read_text() == libraries.page(FOUND) and list(FOUND) == list(libraries.LIBRARIES)
    taken = [row for nets in FOUND.values() for row in nets.values() if "row" in row]
    assert len(taken) > 70 and max(row["relative"] for row in taken) <= libraries.MOST


def test_no_net_of_theirs_is_forgotten(referees):
    import keras

    assert sorted(FOUND["torchvision"]) == sorted(libraries.torchvision_names())
    names = {name.split(",")[0] for name in FOUND["keras.applications"]}
    assert names == {name for name in dir(keras.applications) if name.startswith("ResNet")}


def test_kerashubs_presets(referees):
    hub = pytest.importorskip("keras_hub")
    names = {re.match(r"resnet_(v2_|vd_)?\d+", name)[0] for name in hub.models.ResNetBackbone.presets}
    assert names == {name for name in FOUND["KerasHub"] if name.startswith("resnet")}


@pytest.mark.parametrize("name", DETECTORS)
def test_torchvisions_detectors_and_segmenters_are_what_the_page_says(referees, name):
    models, _ = referees
    with torch.device("meta"):
        theirs = models.get_model(name, weights=None, weights_backbone=None)
    found, row = recognise(shapes_only(theirs.state_dict())), FOUND["torchvision"][name]
    assert found.name.startswith("resnet") or row["but"]
    assert found.arch.output_stride == row["but"].get("output_stride", 0)


@pytest.mark.slow
@pytest.mark.parametrize("library", libraries.LIBRARIES)
def test_every_net_is_what_the_page_says(tmp_path, referees, library):
    if importlib.util.find_spec(libraries.MODULES[library]) is None:
        pytest.skip(f"{library} is not installed")
    names = []
    for name, make in libraries.LIBRARIES[library]():
        (tmp_path / name.replace("/", "_")).mkdir()
        found, said = libraries.outcome(make, tmp_path / name), FOUND[library][name]
        assert found.pop("relative", 0) <= libraries.MOST, name
        assert found == {key: value for key, value in said.items() if key != "relative"}, name
        names.append(name)
        for file in (tmp_path / name).rglob("*.*"):
            if file.is_file():
                file.unlink()
        gc.collect()
    assert names == list(FOUND[library])
