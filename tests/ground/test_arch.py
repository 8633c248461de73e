"""Rows: which exist, which are refused, and how."""

import json
import re

import pytest

from common.arch import FAMILIES, VARIANTS, Arch, Stem, get, name_of
from common.errors import RosettaError
from common.names import parameters
from common.plan import make_plan

NAMED = """resnet18 resnet34 resnet50 resnet101 resnet152 resnet50_v1 resnet101_v1 resnet152_v1 plain18 plain34
resnet18_a resnet34_a resnet18_c resnet34_c resnetv2_18 resnetv2_34 resnetv2_50 resnetv2_101 resnetv2_152
resnetv2_200 resnext50_32x4d resnext101_32x4d resnext101_32x8d resnext101_64x4d wide_resnet50_2
wide_resnet101_2 resnet18d resnet26d resnet34d resnet50d resnet101d resnet152d resnet200d seresnet18
seresnet34 seresnet50 seresnet101 seresnet152 seresnext50_32x4d seresnext101_32x4d seresnext101_32x8d
resnet50_keras resnet101_keras resnet152_keras resnet18_d2l resnet34_d2l resnet50v2_keras resnet101v2_keras
resnet152v2_keras resnet18_vd resnet34_vd cifar_resnet20 cifar_resnet32 cifar_resnet44 cifar_resnet56
cifar_resnet110 cifar_resnet1202 cifar_plain20 cifar_plain32 cifar_plain44 cifar_plain56 cifar_preresnet110
cifar_preresnet164 cifar_preresnet1001 cifar_resnet110_sd cifar_resnext29_8x64d cifar_resnext29_16x64d
cifar_wrn16_8 cifar_wrn40_4 cifar_wrn28_10 cifar_resnet18 cifar_resnet34 cifar_resnet50 resnet18_1d
resnet34_1d resnet50_1d msresnet_1d resnetaa34d resnetaa50 resnetaa50d resnetaa101d resnetblur18 resnetblur50
resnetblur50d resnetblur101d seresnetaa50d seresnextaa101d_32x8d seresnextaa201d_32x8d ecaresnet26t
ecaresnet50d ecaresnet50t ecaresnet101d ecaresnet200d ecaresnet269d ecaresnetlight ecaresnext26t_32x4d
ecaresnext50t_32x4d resnet26 resnet200 resnet10t resnet14t resnet26t resnet50t resnet50c resnet101c resnet152c
resnet50s resnet101s resnet152s resnext50d_32x4d resnext101_32x16d resnext101_32x32d seresnet50t seresnet152d
seresnet200d seresnet269d seresnext26d_32x4d seresnext26t_32x4d seresnext101d_32x8d seresnext101_64x4d
resnetv2_18d resnetv2_34d resnetv2_50d resnetv2_50t resnetv2_101d resnetv2_152d resnetrs50 resnetrs101
resnetrs152 resnetrs200 resnetrs270 resnetrs350 resnetrs420 resnet50_gn resnetv2_50d_gn resnetv2_50x1_bit
resnetv2_50x3_bit resnetv2_101x1_bit resnetv2_101x3_bit resnetv2_152x2_bit resnetv2_152x4_bit""".split()


def test_every_promised_variant_is_there_and_no_two_are_the_same():
    assert sorted(VARIANTS) == sorted(NAMED)
    assert len(set(VARIANTS.values())) == len(VARIANTS)
    assert sum(map(len, FAMILIES.values())) == len(VARIANTS)
    assert all(name_of(arch) == name for name, arch in VARIANTS.items())


# no depth in their names, or not just what is counted here
OTHERWISE = "msresnet_1d ecaresnetlight seresnextaa201d_32x8d resnetrs270 resnetrs420".split()


def test_the_depth_in_a_name_is_the_number_of_layers():
    """Weighted layers, projections and squeeze-and-excitation aside, as the papers count."""
    for name, arch in VARIANTS.items():
        if name in OTHERWISE:
            continue
        depth = re.search(r"\d+", name.replace("resnetv2", ""))[0]
        plan = make_plan(arch)
        convs = sum(len(b.convs) for t in plan.trunks for s in t.stages for b in s.blocks)
        deep = len(plan.stem.convs) - 1  # ResNet-C's stem counts as one
        wrn = name.startswith("cifar_wrn")  # counts the three projections too
        assert convs + len(plan.stem.convs) - deep + 1 + 2 * wrn == int(depth), name


@pytest.mark.parametrize("name", VARIANTS)
def test_a_row_has_as_many_convolutions_as_its_plan(name):
    plan = make_plan(VARIANTS[name])
    blocks = [b for t in plan.trunks for s in t.stages for b in s.blocks]
    assert VARIANTS[name].convolutions == len(plan.stem.convs) + sum(len(b.convs) for b in blocks)


def test_rows_without_measure_are_refused_at_once():
    for fields in ({"depths": (10**9, 1, 1, 1)}, {"kernels": tuple(range(1, 3001, 2))}, {"dropout": 10**400}):
        with pytest.raises(RosettaError, match="can't be") as error:
            get("resnet18", **fields)
        assert len(str(error.value)) < 500
    for fields in ({"widths": (2**22, 2**22, 1, 1)}, {"num_classes": 2**60}):
        with pytest.raises(RosettaError, match="no memory holds it"):
            make_plan(get("resnet18", **fields))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_row_survives_json(name):
    arch = VARIANTS[name]
    again = Arch.from_json(arch.to_json())
    assert again == arch and hash(again) == hash(arch)
    assert set(json.loads(arch.to_json())) == set(Arch.__dataclass_fields__)  # every field, written out


def test_composed_rows_are_as_good_as_named_ones():
    arch = get("resnet50", groups=8, width_per_group=16, se_ratio=8, num_classes=7, in_channels=1)
    shapes = parameters(arch)
    assert shapes["conv1.weight"] == (64, 1, 7, 7)
    assert shapes["layer1.0.conv2.weight"] == (128, 16, 3, 3)
    assert shapes["layer1.0.se.fc1.weight"] == (32, 256, 1, 1)
    assert shapes["fc.weight"] == (7, 2048)
    assert get(arch) == arch and get(arch, num_classes=8).num_classes == 8
    assert get("resnet50", stem={"convs": [[32, 3, 2], [64, 3, 1]], "pool": False}).stem == Stem(
        ((32, 3, 2), (64, 3, 1)), pool=False
    )
    assert "fc.weight" not in parameters(get("resnet18", num_classes=0))


REFUSED = [
    ("depths", dict(depths=())),
    ("depths", dict(depths=(3, 4, 6))),
    ("depths", dict(depths=(3, 0, 6, 3))),
    ("depths", dict(depths="3463")),
    ("depths", dict(depths=(3, True, 6, 3))),
    ("depths", dict(depths=(3, 4.0, 6, 3))),
    ("widths", dict(widths=(64, 128, 256, -512))),
    ("block", dict(block="bottelneck")),
    ("preact", dict(preact=1)),
    ("first_stride", dict(first_stride=3)),
    ("stride_in", dict(stride_in=3)),
    ("stride_in", dict(block="basic", stride_in=1)),
    ("groups", dict(groups=0)),
    ("groups", dict(block="basic", groups=2)),
    ("width_per_group", dict(block="basic", width_per_group=32)),
    ("width_per_group", dict(width_per_group=5, widths=(16, 32, 64, 128))),
    ("shortcut", dict(shortcut="projects")),
    ("shortcut", dict(shortcut="pad", widths=(64, 128, 32, 512))),
    ("shortcut", dict(shortcut="pad", block="basic", widths=(32, 64, 128, 256))),
    ("shortcut_norm", dict(preact=True, shortcut_norm=False)),
    ("stem", dict(stem=5)),
    ("stem", dict(stem={"convs": []})),
    ("stem", dict(stem={"convs": [[64, 8, 2]]})),
    ("stem", dict(stem={"convs": [[64, 7]]})),
    ("stem", dict(stem={"convs": [64]})),
    ("stem", dict(stem={"convs": [[64, 7, 2]], "pool": "yes"})),
    ("stem", dict(stem={"convs": [[64, 7, 2]], "pol": True})),
    ("se_ratio", dict(se_ratio=-1)),
    ("se_ratio", dict(se_ratio=0.25)),
    ("drop_path", dict(drop_path=1.0)),
    ("drop_path", dict(drop_path="much")),
    ("dropout", dict(dropout=-0.1)),
    ("dropout", dict(dropout=float("nan"))),
    ("kernels", dict(kernels=(4,))),
    ("kernels", dict(kernels=(3, 3))),
    ("kernels", dict(kernels=())),
    ("dims", dict(dims=3)),
    ("conv_bias", dict(conv_bias=None)),
    ("conv_bias", dict(conv_bias="normed")),
    ("stride_block", dict(stride_block="middle")),
    ("antialias", dict(antialias="mean")),
    ("weight_std", dict(weight_std=1)),
    ("weight_std", dict(weight_std=1e-8, widths=(1, 2, 3, 4), width_per_group=64)),
    ("eca", dict(eca=3)),
    ("norm_groups", dict(norm_groups=-1)),
    ("norm_groups", dict(norm_groups=48)),
    ("eca", dict(eca=True, se_ratio=16)),
    ("antialias", dict(antialias="avg", stride_in=1)),
    ("antialias", dict(antialias="blur", stem={"convs": [[64, 7, 2]], "pool": "zeros"})),
    ("norm_eps", dict(norm_eps=0)),
    ("norm_eps", dict(norm_eps=1e9)),
    ("in_channels", dict(in_channels=0)),
    ("num_classes", dict(num_classes=-1)),
]


@pytest.mark.parametrize(("field", "change"), REFUSED, ids=[f"{f}-{i}" for i, (f, _) in enumerate(REFUSED)])
def test_a_row_that_cannot_exist_is_refused_by_field(field, change):
    with pytest.raises(RosettaError, match=field) as error:
        get("resnet50", **change)
    assert "\n" not in str(error.value)


def test_unknown_names_are_offered_the_nearest():
    with pytest.raises(RosettaError, match="resnet50"):
        get("resnet5O")
    with pytest.raises(RosettaError, match="rosetta list"):
        get("zzzzzzzz")
    with pytest.raises(RosettaError, match="did you mean groups"):
        get("resnet50", group=8)
    with pytest.raises(RosettaError, match="the fields are depths"):
        get("resnet50", xyzzy=8)
    with pytest.raises(RosettaError, match="did you mean 'pad'|did you mean pad"):
        get("resnet50", shortcut="padd")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"depths": 3}', '{"depths": [1, 1], "widths": [8, 8], "colour": 1}', "null", '{"depths']
)
def test_json_that_is_no_row_is_refused(text):
    with pytest.raises(RosettaError):
        Arch.from_json(text)


def test_stochastic_depth_is_linear_in_depth():
    """Huang et al. 2016, equation 4: 1 - l / L * (1 - p_L) survives; ours is the drop rate."""
    blocks = [b for s in make_plan(VARIANTS["cifar_resnet110_sd"]).trunks[0].stages for b in s.blocks]
    assert len(blocks) == 54
    assert blocks[0].drop_path == pytest.approx(0.5 / 54) and blocks[-1].drop_path == 0.5
