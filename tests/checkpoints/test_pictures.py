"""What a checkpoint says of its images, as its library has it."""

from pathlib import Path

import numpy as np
import pytest

from common.arch import get
from common.checkpoints.containers import Container, Entry
from common.checkpoints.recognise import recognise
from common.names import parameters


def held(name="resnet50", path="x", **metadata):
    entries = {n: Entry(s, "float32", lambda: np.empty(0)) for n, s in parameters(get(name)).items()}
    return Container(Path(path), "", entries, metadata)


def cfg(name, **says):
    usual = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 224, 224], "interpolation": "bicubic"}
    return {"config": {"architecture": name, "pretrained_cfg": usual | says}}


@pytest.mark.parametrize(
    ("says", "size", "resize"),
    [
        ({"crop_pct": 0.95}, 224, 235), ({"crop_pct": 0.9}, 224, 248), ({}, 224, 256),
        ({"crop_pct": 0.95, "test_input_size": [3, 288, 288], "test_crop_pct": 1.0}, 288, 288),
        ({"crop_pct": 0.95, "test_input_size": [3, 288, 288]}, 288, 303),
    ],
)  # fmt: skip
def test_timms_are_rounded_down_and_evaluated_at_their_test_size(says, size, resize):
    """timm/data/transforms_factory.py: floor(size / crop_pct); its validation takes test_input_size."""
    found = recognise(held(**cfg("resnet50", **says))).preprocessing
    assert (found.size, found.resize, found.mean, found.interpolation) == (size, resize, (0.1, 0.2, 0.3), "bicubic")


@pytest.mark.parametrize("name", ["resnet50c", "resnet50s", "resnet50d", "resnetrs50", "resnetv2_50"])
def test_they_are_kept_for_nets_of_any_name(name):
    from common.arch import VARIANTS
    from common.checkpoints.libraries import LIBRARIES

    if name not in VARIANTS:
        pytest.skip(f"no {name}")
    arch = get(name)
    libraries = [lib for lib in LIBRARIES if "timm" in lib.name and lib.builds(arch) and lib.claims(arch)]
    slots = next(lib.slots(arch) for lib in libraries if "v2" in lib.name or "v2" not in name) if libraries else []
    names = {s.theirs: s.shape for s in slots} or parameters(arch)
    entries = {n: Entry(s, "float32", lambda: np.empty(0)) for n, s in names.items()}
    found = recognise(Container(Path("x"), "", entries, cfg(name, crop_pct=0.95)))
    assert found.preprocessing and found.preprocessing.resize == 235 and found.preprocessing.std == (0.4, 0.5, 0.6)


def test_torchvisions_second_weights_are_resized_to_232(referees):
    """Its own table says which: the digits are those of its files."""
    models, _ = referees
    seen = 0
    for name in (
        "resnet18",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext50_32x4d",
        "resnext101_64x4d",
        "wide_resnet50_2",
    ):
        for weights in models.get_model_weights(name):
            transforms = weights.transforms()
            found = recognise(held(name, weights.url.rsplit("/", 1)[1])).preprocessing
            assert (found.size, found.resize) == (transforms.crop_size[0], transforms.resize_size[0]), weights
            seen += found.resize == 232
    assert seen == 6


def test_transformers_processor_says_size_and_cut():
    says = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": 288},
        "crop_pct": 0.95,
        "resample": 2,
    }
    found = recognise(held(**{"preprocessor_config.json": says})).preprocessing
    assert (found.size, found.resize, found.interpolation, found.mean) == (288, 303, "bilinear", (0.5,) * 3)
