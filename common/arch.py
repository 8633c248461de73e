"""What each ResNet is: one row a variant. A new variant edits this file alone.

`Arch()` is torchvision's resnet50 but for its depths; every row says only where it differs. The fields are
common/row.py's; the arithmetic that follows from a row (channels, strides, names) is common/plan.py's.

Papers, as cited below:
[1] He et al., Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385
[2] He et al., Identity Mappings in Deep Residual Networks, 2016, arXiv 1603.05027
[3] Xie et al., Aggregated Residual Transformations (ResNeXt), 2016, arXiv 1611.05431
[4] Zagoruyko and Komodakis, Wide Residual Networks, 2016, arXiv 1605.07146
[5] He et al., Bag of Tricks (ResNet-D), 2018, arXiv 1812.01187
[6] Hu et al., Squeeze-and-Excitation Networks, 2017, arXiv 1709.01507
[7] Huang et al., Deep Networks with Stochastic Depth, 2016, arXiv 1603.09382
[8] geekfeiw/Multi-Scale-1D-ResNet, 2018
[9] Zhang, Making Convolutional Networks Shift-Invariant Again, 2019, arXiv 1904.11486
[10] Wang et al., ECA-Net: Efficient Channel Attention, 2019, arXiv 1910.03151
[11] Bello et al., Revisiting ResNets (ResNet-RS), 2021, arXiv 2103.07579
[12] Wu and He, Group Normalization, 2018, arXiv 1803.08494
[13] Qiao et al., Weight Standardization, 2019, arXiv 1903.10520
[14] Kolesnikov et al., Big Transfer (BiT), 2019, arXiv 1912.11370
"""

from dataclasses import fields, replace
from typing import Any

from common.errors import RosettaError, nearest
from common.row import EXPANSION as EXPANSION
from common.row import Arch as Arch
from common.row import Stem as Stem


def _cifar(n: int, per_block: int = 2) -> tuple[int, int, int]:
    """[1] section 4.2: three stages of n blocks, 6n + 2 layers (9n + 2 for bottlenecks)."""
    assert (n - 2) % (3 * per_block) == 0, n
    return ((n - 2) // (3 * per_block),) * 3


_DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_D = Stem(((32, 3, 2), (32, 3, 1), (64, 3, 1)))  # [5] figure 2(b), ResNet-C's
_T = Stem(((24, 3, 2), (32, 3, 1), (64, 3, 1)))  # timm's name for the same in tiers
_S = Stem(((64, 3, 2), (64, 3, 1), (128, 3, 1)))  # timm's name for the same, twice as wide
_RS = Stem(((32, 3, 2), (32, 3, 1), (64, 3, 1), (64, 3, 2)), pool=False)
_CIFAR16 = dict(stem=Stem(((16, 3, 1),), pool=False), widths=(16, 32, 64), num_classes=10)
_CIFAR64 = dict(stem=Stem(((64, 3, 1),), pool=False), num_classes=10)
_SIGNAL = dict(dims=1, in_channels=1, num_classes=10)

_basic = {n: Arch(_DEPTHS[n], block="basic") for n in (18, 34)}  # [1] Table 1
_bottle = {n: Arch(_DEPTHS[n]) for n in (50, 101, 152)}  # [1] Table 1, with v1.5's stride
_26, _200 = Arch((2, 2, 2, 2)), Arch(_DEPTHS[200])  # timm's resnet26; [2] Table 5
_nets = _basic | _bottle
_cifar_a = Arch((3, 3, 3), block="basic", shortcut="pad", **_CIFAR16)  # type: ignore[arg-type]
_d = {n: replace(a, stem=_D, shortcut="pool") for n, a in sorted((_nets | {26: _26, 200: _200}).items())}
_resnext50, _resnext101 = (replace(_nets[n], groups=32, width_per_group=4) for n in (50, 101))
_seresnext26 = replace(_resnext50, depths=(2, 2, 2, 2), shortcut="pool", se_ratio=16)
_seresnextaa = replace(_resnext101, width_per_group=8, stem=_D, shortcut="pool", antialias="avg", se_ratio=16)

FAMILIES: dict[str, dict[str, Arch]] = {
    # [1] Table 1; the stride on the 3x3 is torchvision's and NVIDIA's "v1.5"
    "resnet": {f"resnet{n}": a for n, a in (_nets | {26: _26, 200: _200}).items()},
    # [1] as published: the first 1x1 of a bottleneck strides
    "resnet_v1": {f"resnet{n}_v1": replace(a, stride_in=1) for n, a in _bottle.items()},
    # [1] section 3.3: the same nets without shortcuts
    "plain": {f"plain{n}": replace(a, shortcut="none") for n, a in _basic.items()},
    # [1] Table 3: options A (zero-padded identity) and C (all projections)
    "shortcut_options": {
        f"resnet{n}_{option}": replace(a, shortcut=kind)  # type: ignore[arg-type]
        for option, kind in (("a", "pad"), ("c", "project_all"))
        for n, a in _basic.items()
    },
    # [2], with timm's strides (on the 3x3) and no norm after the stem
    "preact": {f"resnetv2_{n}": replace(a, preact=True) for n, a in (_nets | {200: _200}).items()},
    # the same with [5]'s stem and shortcut, as timm has them
    "preact_d": {
        **{f"resnetv2_{n}d": replace(a, stem=_D, shortcut="pool", preact=True) for n, a in _nets.items()},
        "resnetv2_50t": replace(_d[50], stem=_T, preact=True),
    },
    # [3] Table 1 and section 5; groups x width_per_group
    "resnext": {
        "resnext50_32x4d": _resnext50,
        "resnext101_32x4d": _resnext101,
        "resnext101_32x8d": replace(_resnext101, width_per_group=8),
        "resnext101_64x4d": replace(_resnext101, groups=64),
        **{f"resnext101_32x{n}d": replace(_resnext101, width_per_group=n) for n in (16, 32)},
        "resnext50d_32x4d": replace(_resnext50, stem=_D, shortcut="pool"),
    },
    # [4] section 3: twice the inner width
    "wide": {f"wide_resnet{n}_2": replace(_nets[n], width_per_group=128) for n in (50, 101)},
    # [5] figure 2(b), the stem alone; timm's s, twice as wide; timm's t, in tiers and with ResNet-D's shortcut
    "resnet_c": {f"resnet{n}c": replace(a, stem=_D) for n, a in _bottle.items()},
    "resnet_s": {f"resnet{n}s": replace(a, stem=_S) for n, a in _bottle.items()},
    "resnet_t": {
        "resnet10t": replace(_d[18], depths=(1, 1, 1, 1), stem=_T),
        "resnet14t": replace(_d[50], depths=(1, 1, 1, 1), stem=_T),
        **{f"resnet{n}t": replace(_d[n], stem=_T) for n in (26, 50)},
    },
    # [5] section 4: three 3x3 in the stem, average pooling before the projection
    "resnet_d": {f"resnet{n}d": a for n, a in _d.items()},
    # PaddleClas' and KerasHub's "vd": the first block of stage 1 projects, too, which only basic blocks can tell
    "resnet_vd": {f"resnet{n}_vd": replace(a, stem=_D, shortcut="pool_first") for n, a in _basic.items()},
    # [6], on the v1.5 nets, as timm builds them
    "se": {
        **{f"seresnet{n}": replace(a, se_ratio=16) for n, a in _nets.items()},
        "seresnext50_32x4d": replace(_resnext50, se_ratio=16),
        "seresnext101_32x4d": replace(_resnext101, se_ratio=16),
        "seresnext101_32x8d": replace(_resnext101, width_per_group=8, se_ratio=16),
        "seresnext101_64x4d": replace(_resnext101, groups=64, se_ratio=16),
    },
    # the same with [5]'s stem and shortcut, as timm builds them
    "se_d": {
        "seresnet50t": replace(_d[50], stem=_T, se_ratio=16),
        **{f"seresnet{n}d": replace(_d[n], se_ratio=16) for n in (152, 200)},
        "seresnet269d": replace(_d[200], depths=(3, 30, 48, 8), se_ratio=16),
        "seresnext26d_32x4d": replace(_seresnext26, stem=_D),
        "seresnext26t_32x4d": replace(_seresnext26, stem=_T),
        "seresnext101d_32x8d": replace(_resnext101, width_per_group=8, stem=_D, shortcut="pool", se_ratio=16),
    },
    # [11] Table 11: a convolution for the stem's pooling, and SE that reduces by 4
    "resnetrs": {
        f"resnetrs{n}": replace(_d[50], depths=depths, stem=_RS, se_ratio=4)
        for n, depths in (
            *((n, _DEPTHS[n]) for n in (50, 101, 152, 200)), (270, (4, 29, 53, 4)), (350, (4, 36, 72, 4)),
            (420, (4, 44, 87, 4)),
        )
    },
    # [12], 32 groups, as timm builds them
    "group_norm": {
        "resnet50_gn": replace(_nets[50], norm_groups=32),
        "resnetv2_50d_gn": replace(_d[50], preact=True, norm_groups=32),
    },
    # [14] section 3.1: [13] and [12] for BatchNorm, widths times 1 to 4, and a pooling whose border is 0
    "bit": {
        f"resnetv2_{n}x{k}_bit": replace(
            _nets[n], preact=True, stem=Stem(((64 * k, 7, 2),), "zeros"), widths=(64 * k, 128 * k, 256 * k, 512 * k),
            norm_groups=32, weight_std=1e-8,
        )
        for n, k in ((50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4))
    },
    # [10], as timm builds them
    "eca": {
        **{f"ecaresnet{n}d": replace(_d[n], eca=True) for n in (50, 101, 200)},
        "ecaresnet269d": replace(_d[200], depths=(3, 30, 48, 8), eca=True),
        **{f"ecaresnet{n}t": replace(_d[n], stem=_T, eca=True) for n in (26, 50)},
        "ecaresnetlight": replace(_nets[50], depths=(1, 1, 11, 3), shortcut="pool", eca=True),
        "ecaresnext26t_32x4d": replace(_resnext50, depths=(2, 2, 2, 2), stem=_T, shortcut="pool", eca=True),
        "ecaresnext50t_32x4d": replace(_resnext50, stem=_T, shortcut="pool", eca=True),
    },
    # [9], as timm builds them: means of 2x2, and the filter 1-2-1
    "antialias": {
        **{f"resnetaa{n}d": replace(_d[n], antialias="avg") for n in (34, 50, 101)},
        "resnetaa50": replace(_nets[50], antialias="avg"),
        **{f"resnetblur{n}": replace(_nets[n], antialias="blur") for n in (18, 50)},
        **{f"resnetblur{n}d": replace(_d[n], antialias="blur") for n in (50, 101)},
        "seresnetaa50d": replace(_d[50], antialias="avg", se_ratio=16),
        "seresnextaa101d_32x8d": _seresnextaa,
        "seresnextaa201d_32x8d": replace(_seresnextaa, depths=(3, 24, 36, 4), stem=_S),
    },
    # keras.applications' ResNet: v1, a bias in every convolution, its own epsilon
    "keras": {
        f"resnet{n}_keras": replace(a, stride_in=1, conv_bias=True, norm_eps=1.001e-5) for n, a in _bottle.items()
    },
    # keras.applications' V2: pre-activation, the stride in a stage's last block, biases where no norm follows, and a
    # pooling whose border is 0
    "keras_v2": {
        f"resnet{n}v2_keras": replace(
            a, preact=True, stem=Stem(pool="zeros"), stride_block="last", conv_bias="unnormed", norm_eps=1.001e-5
        )
        for n, a in _bottle.items()
    },
    # Dive into Deep Learning, section 8.6: biases everywhere, no norm on the projection
    "d2l": {
        f"resnet{n}_d2l": replace(a, conv_bias=True, shortcut_norm=False, in_channels=1, num_classes=10)
        for n, a in _basic.items()
    },
    # [1] section 4.2 and Table 6: option A; and the same nets without shortcuts
    "cifar": {f"cifar_resnet{n}": replace(_cifar_a, depths=_cifar(n)) for n in (20, 32, 44, 56, 110, 1202)},
    "cifar_plain": {f"cifar_plain{n}": replace(_cifar_a, depths=_cifar(n), shortcut="none") for n in (20, 32, 44, 56)},
    # [2] Tables 2 and 4: 110 of basic blocks with option A, 164 and 1001 of bottlenecks with projections
    "cifar_preact": {
        "cifar_preresnet110": replace(_cifar_a, depths=_cifar(110), preact=True),
        **{f"cifar_preresnet{n}": Arch(_cifar(n, 3), preact=True, **_CIFAR16) for n in (164, 1001)},  # type: ignore[arg-type]
    },
    # [7] section 4: the last block survives with probability 0.5
    "cifar_stochastic_depth": {"cifar_resnet110_sd": replace(_cifar_a, depths=_cifar(110), drop_path=0.5)},
    # [3] section 5.3: 29 = 9 * 3 + 2 layers, widths 64, 128, 256
    "cifar_resnext": {
        f"cifar_resnext29_{groups}x64d": Arch(_cifar(29, 3), widths=(64, 128, 256), groups=groups, **_CIFAR64)  # type: ignore[arg-type]
        for groups in (8, 16)
    },
    # [4] Table 1: depth 6n + 4, widths 16k, 32k, 64k; dropout 0.3 where the paper uses it, in WRN-28-10
    "cifar_wide": {
        f"cifar_wrn{depth}_{k}": replace(
            _cifar_a, depths=_cifar(depth - 2), widths=(16 * k, 32 * k, 64 * k), preact=True, shortcut="project",
            dropout=dropout,
        )
        for depth, k, dropout in ((16, 8, 0.0), (40, 4, 0.0), (28, 10, 0.3))
    },
    # the ImageNet nets with a 3x3 stem that keeps the resolution, as kuangliu/pytorch-cifar has them
    "cifar_3x3_stem": {f"cifar_resnet{n}": replace(_nets[n], **_CIFAR64) for n in (18, 34, 50)},  # type: ignore[arg-type]
    # signals: the same nets over one axis; and three trunks of kernels 3, 5 and 7 [8]
    "signal": {
        **{f"resnet{n}_1d": replace(_nets[n], **_SIGNAL) for n in (18, 34, 50)},  # type: ignore[arg-type]
        "msresnet_1d": Arch(
            (1, 1, 1), (64, 128, 256), "basic", first_stride=2, kernels=(3, 5, 7), dims=1, in_channels=1, num_classes=6
        ),
    },
}  # fmt: skip

VARIANTS: dict[str, Arch] = {name: arch for family in FAMILIES.values() for name, arch in family.items()}


def get(name_or_arch: str | Arch, **overrides: Any) -> Arch:
    """The row of that name, or the row itself, with fields replaced: `get("resnet50", groups=8, width_per_group=16)`.

    Raises RosettaError for an unknown name or field (the nearest are offered) or a row that can't exist.
    """
    if isinstance(name_or_arch, Arch):
        arch = name_or_arch
    elif name_or_arch in VARIANTS:
        arch = VARIANTS[name_or_arch]
    else:
        hint = nearest(str(name_or_arch), VARIANTS)
        raise RosettaError(f"unknown variant {name_or_arch!r}{hint or '; `rosetta list` shows them all'}")
    known = [f.name for f in fields(Arch)]
    for key in overrides:
        if key not in known:
            raise RosettaError(f"unknown field {key!r}{nearest(key, known) or '; the fields are ' + ', '.join(known)}")
    return replace(arch, **overrides)


def name_of(arch: Arch) -> str | None:
    """The variant's name, or None where the row is nobody's but the user's."""
    return next((name for name, row in VARIANTS.items() if row == arch), None)


def nearly(arch: Arch) -> str:
    """The variant that a row is but for its classes and channels, and folding; "custom" where it is none."""
    edges: dict[str, Any] = {"num_classes": arch.num_classes, "in_channels": arch.in_channels, "folded": arch.folded}
    as_deep = ((n, row) for n, row in VARIANTS.items() if row.depths == arch.depths)
    return name_of(arch) or next((n for n, row in as_deep if replace(row, **edges) == arch), "custom")
