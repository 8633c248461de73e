"""Norms over groups of channels, and weights with mean 0 and variance 1."""

from dataclasses import replace

import pytest

from common.arch import get
from common.diagnosis import diagnose
from common.errors import RosettaError

torch_impl = pytest.importorskip("torch_impl")
from torch import nn  # noqa: E402

BATCH = get("resnet18", widths=(8, 12), depths=(2, 1), num_classes=5)
GROUPS, STANDARDISED = replace(BATCH, norm_groups=4), replace(BATCH, weight_std=1e-5)


@pytest.mark.parametrize(
    ("theirs", "row", "fields", "says"),
    [
        (GROUPS, BATCH, {"norm_groups": 4}, "norms are over 4 groups of channels, and not over the batch"),
        (BATCH, GROUPS, {"norm_groups": 0}, "norms are over the batch, and none over groups of channels"),
        (
            replace(GROUPS, norm_groups=1),
            GROUPS,
            {"norm_groups": 1},
            "norms are over all channels of an example, and not 4",
        ),
        (STANDARDISED, BATCH, {"weight_std": 1e-5}, "convolutions standardise their weights, epsilon 1e-5"),
        (BATCH, STANDARDISED, {"weight_std": 0.0}, "no convolution standardises its weights"),
        (replace(GROUPS, norm_eps=1e-3), GROUPS, {"norm_eps": 1e-3}, "all 9 group norms 1e-3 for 1e-5"),
    ],
)
def test_a_field(theirs, row, fields, says):
    """The only thing that is said, proven, and nothing without it."""
    found = diagnose(torch_impl.create_model(theirs, seed=1), row)
    (edit,) = found.edits
    assert (edit.fields, edit.says) == (fields, says) and found.proof.holds, found.text()


def swapped(module, make):
    """A net whose BatchNorms are other norms."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, make(child.num_features))
        else:
            swapped(child, make)
    return module


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (nn.InstanceNorm2d, "instance normalisation"),
        (lambda n: nn.InstanceNorm2d(n, affine=True), "instance normalisation"),
        (lambda n: nn.GroupNorm(2, n, affine=False), "group normalisation"),
    ],
    ids=["instance", "instance with scale", "groups without scale"],
)
def test_other_norms(make, name):
    found = diagnose(swapped(torch_impl.create_model(BATCH, seed=1), make), BATCH)
    assert [e.name for e in found.edits] == [name] and found.proof.holds, found.text()


def test_one_norm_alone():
    net = torch_impl.create_model(GROUPS, seed=1)
    net.layer1[1].bn2 = nn.GroupNorm(2, 8)
    (edit,) = diagnose(net, GROUPS).edits
    assert edit.says == "layer1.1.bn2 are over 2 groups for 4" and edit.name == "2 groups of a norm"


def test_in_keras():
    """Keras' own layer computes in float32 whatever its dtype, and is read in float64."""
    keras_impl = pytest.importorskip("keras_impl")
    import keras
    from test_keras import TINY, functional

    row = replace(TINY, norm_groups=4, weight_std=1e-5)
    found = diagnose(keras_impl.create_model(row, seed=1), row)
    assert found.same, found.text()
    found = diagnose(functional(lambda axis: keras.layers.GroupNormalization(4, axis=axis, epsilon=1e-5)), TINY)
    (edit,) = found.edits
    assert edit.fields == {"norm_groups": 4} and found.proof.holds, found.text()


@pytest.mark.parametrize("all_of_them", [False, True])
def test_what_is_not_understood_is_not_called_no_resnet(all_of_them):
    net = torch_impl.create_model(BATCH if all_of_them else GROUPS)
    if all_of_them:  # too far from every row
        swapped(net, lambda n: nn.InstanceNorm2d(n, track_running_stats=True))
    else:
        net.bn1 = nn.InstanceNorm2d(64, track_running_stats=True)
    try:
        said = diagnose(net, None if all_of_them else GROUPS).text()
    except RosettaError as e:
        said = str(e)
    assert "instance_norm" in said and "isn't understood" in said and "no ResNet" not in said
    assert ("can't be told" in said) == all_of_them
