"""Nets that are what they say: no edit may be found in them. To accuse an innocent net is the worst failure."""

import pytest

from common.arch import FAMILIES, VARIANTS, get
from common.diagnosis import diagnose
from common.plan import make_plan
from common.row import Stem
from common.tools.frameworks import peer

torch_impl = pytest.importorskip("torch_impl")

SMALL = dict(widths=(16, 18, 20), depths=(1, 2, 1), num_classes=5)
KINDS = {
    "basic": get("cifar_resnet20", **SMALL),
    "projections": get("resnet18", widths=(8, 12), depths=(2, 1), num_classes=5),
    "bottleneck": get("resnet50", widths=(8, 12), depths=(2, 1), num_classes=5),
    "pre-activation": get("resnetv2_50", widths=(8, 12), depths=(2, 1), num_classes=5),
    "keras v2": get("resnet50v2_keras", widths=(8, 12), depths=(2, 1), num_classes=5),
    "D, SE": get("resnet18d", widths=(8, 12), depths=(2, 1), se_ratio=4, num_classes=5),
    "dropped": get("cifar_wrn16_8", widths=(16, 18, 20), dropout=0.3, drop_path=0.2),
    "three kernels": get("msresnet_1d", widths=(8, 12, 16)),
    "blurred": get("resnetblur18", widths=(8, 12), depths=(1, 1), num_classes=5),
    "channel attention": get("resnet18", widths=(8, 12), depths=(1, 1), num_classes=5, eca=True),
    "dilated": get("resnet18d", widths=(8, 12, 16), depths=(1, 1, 2), output_stride=8, num_classes=5),
    "group norm": get("resnet18", widths=(8, 12), depths=(2, 1), norm_groups=4, num_classes=5),
    "standardised": get("resnetv2_50x1_bit", widths=(8, 12), depths=(2, 1), norm_groups=2, num_classes=5),
    "no classifier": get("resnet18", widths=(8, 12), depths=(1, 1), num_classes=0),
    "folded": get("resnet18", widths=(8, 12), depths=(1, 1), folded=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_of_ours_is_its_row(kind):
    found = diagnose(torch_impl.create_model(KINDS[kind], seed=1), KINDS[kind])
    assert found.same, found.text()


def test_the_row_is_found():
    found = diagnose(torch_impl.create_model("cifar_resnet20", seed=1, num_classes=7, in_channels=1))
    assert (found.row, found.arch.num_classes, found.arch.in_channels) == ("cifar_resnet20", 7, 1)
    assert found.same, found.text()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in VARIANTS if sum(get(n).depths) <= 50])
def test_every_variant_is_found(name):
    found = diagnose(torch_impl.create_model(name, seed=1))
    assert found.row == name and found.same, found.text()


NARROW = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 16)}


@pytest.mark.parametrize("name", ["resnetaa50", "ecaresnet26t", "seresnet50", "resnetblur18", "resnet50d"])
def test_narrow_nets_of_timm(name, referees):
    """Means of 2x2 that leave out a last row, at sizes at which the net can't run; gates that are expanded."""
    arch = get(name, depths=NARROW["layers"], widths=NARROW["channels"])
    found = diagnose(referees[1].create_model(name, **NARROW), arch)
    assert found.same, found.text()


def test_a_net_of_transformers_without_a_head():
    transformers = peer("transformers")
    hidden = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    net = transformers.ResNetModel(transformers.ResNetConfig(**hidden))
    stem = get("resnet18").stem
    found = diagnose(net, get("resnet18", widths=(8, 12), depths=(1, 1), stem=Stem(((8, 7, 2),), stem.pool)))
    assert found.same and not found.arch.num_classes, found.text()


THEIRS = [n for family in ("resnet", "resnext", "wide") for n in FAMILIES[family]]


@pytest.mark.slow
@pytest.mark.parametrize("name", THEIRS)
def test_torchvision(name, referees):
    found = diagnose(getattr(referees[0], name)())
    assert found.row == name and found.same, found.text()


def test_a_net_is_left_as_it_was():
    net = torch_impl.create_model(KINDS["basic"], seed=1)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    diagnose(net, KINDS["basic"])
    assert net.training and all(t.equal(net.state_dict()[n]) for n, t in before.items())
    assert make_plan(KINDS["basic"]) is net.plan
