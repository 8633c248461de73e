"""What each ResNet is: one row a variant. A new variant edits this file alone.

`Arch()` is torchvision's resnet50 but for its depths; every row says only where it differs.
The arithmetic that follows from a row (channels, strides, names) is `common/plan.py`.

Papers, as cited below:
[1] He et al., Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385
[2] He et al., Identity Mappings in Deep Residual Networks, 2016, arXiv 1603.05027
[3] Xie et al., Aggregated Residual Transformations (ResNeXt), 2016, arXiv 1611.05431
[4] Zagoruyko and Komodakis, Wide Residual Networks, 2016, arXiv 1605.07146
[5] He et al., Bag of Tricks (ResNet-D), 2018, arXiv 1812.01187
[6] Hu et al., Squeeze-and-Excitation Networks, 2017, arXiv 1709.01507
[7] Huang et al., Deep Networks with Stochastic Depth, 2016, arXiv 1603.09382
[8] geekfeiw/Multi-Scale-1D-ResNet, 2018
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NoReturn, get_args

from common.errors import RosettaError, nearest

Shortcut = Literal["pad", "project", "project_all", "pool", "pool_first", "none"]
OPTIONS: dict[object, str] = {"pad": "A", "project": "B", "project_all": "C"}  # what [1] calls them, in section 4.1
EXPANSION = {"basic": 1, "bottleneck": 4}  # a block's output channels over its width
MOST_CONVOLUTIONS = 10_000  # of a row that anybody means: the deepest that was published has 1,201


def _refuse(field: str, value: Any, expected: str) -> NoReturn:
    try:
        said = repr(value)
    except ValueError:  # a whole number of thousands of digits
        said = "a number beyond measure"
    raise RosettaError(f"{field} = {said if len(said) <= 200 else said[:200] + '...'} can't be: expected {expected}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Stem:
    """The layers before the first stage: convolutions as (channels, kernel, stride), then 3x3/2 max pooling.

    The pooling's border counts as nothing; with "zeros" as 0, which a stem without a norm can tell: keras' V2 nets.
    """

    convs: tuple[tuple[int, int, int], ...] = ((64, 7, 2),)
    pool: bool | Literal["zeros"] = True

    def __post_init__(self) -> None:
        if isinstance(self.convs, list | tuple):
            rows = tuple(tuple(c) if isinstance(c, list | tuple) else c for c in self.convs)
            object.__setattr__(self, "convs", rows)
        if not isinstance(self.convs, tuple) or not self.convs:
            _refuse("stem", self.convs, "at least one convolution, as (channels, kernel, stride)")
        if len(self.convs) > MOST_CONVOLUTIONS:
            _refuse("stem", self.convs, f"at most {MOST_CONVOLUTIONS:,} convolutions")
        for conv in self.convs:
            if not isinstance(conv, tuple) or len(conv) != 3 or not all(_is_int(n) and n >= 1 for n in conv):
                _refuse("stem", conv, "each convolution as (channels, kernel, stride), all at least 1")
            if conv[1] % 2 == 0:
                _refuse("stem", conv, "odd kernels: an even one can't be padded alike on both sides")
        if not isinstance(self.pool, bool) and self.pool != "zeros":
            _refuse("stem", self.pool, "pool to be true, false or 'zeros'")

    def text(self, dims: int = 2) -> str:
        """`64@7x7/2, max pool 3/2`: channels, kernel and stride of each convolution, and the pooling. `parse` reads
        it."""
        convs = " ".join(f"{c}@{'x'.join([str(k)] * dims)}/{s}" for c, k, s in self.convs)
        return convs + (", max pool 3/2" if self.pool else "") + (", border of zeros" if self.pool == "zeros" else "")

    @classmethod
    def parse(cls, text: str) -> "Stem":
        """The stem that `text` says. Raises RosettaError for other words."""
        convs, *pooling = (part.strip() for part in text.split(","))
        found = [re.fullmatch(r"(\d+)@(\d+)(?:x\2)?/(\d+)", word) for word in convs.split()]
        if pooling not in ([], ["max pool 3/2"], ["max pool 3/2", "border of zeros"]) or not all(found):
            such = "such words as 64@7x7/2, max pool 3/2 (channels@kernel/stride of each convolution)"
            _refuse("stem", text, f"{such}, or JSON such as {json.dumps(dataclasses.asdict(cls()))}")
        pool: bool | Literal["zeros"] = "zeros" if len(pooling) == 2 else bool(pooling)
        return cls(tuple((int(m[1]), int(m[2]), int(m[3])) for m in found if m), pool)


@dataclass(frozen=True)
class Arch:
    """One ResNet. Each field is one independent choice; a row that can't exist raises RosettaError."""

    depths: tuple[int, ...]  # blocks per stage
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels per stage, before expansion
    block: Literal["basic", "bottleneck"] = "bottleneck"  # two 3x3, expansion 1; or 1x1-3x3-1x1, expansion 4
    preact: bool = False  # BN-ReLU-conv [2] instead of conv-BN-ReLU [1]
    first_stride: int = 1  # of stage 1; each later stage halves
    stride_in: Literal[1, 2] = 2  # the bottleneck conv that strides: 1 is v1 [1], 2 is "v1.5"
    stride_block: Literal["first", "last"] = "first"  # of a stage halves; the last, for the next stage: keras' V2 nets
    groups: int = 1  # of the bottleneck's 3x3: the cardinality of [3]
    width_per_group: int = 64  # inner width = widths * this / 64 * groups
    # options A, B, C of [1] section 4.1; ResNet-D's [5]; that, with every stage's first block projecting; a plain net's
    shortcut: Shortcut = "project"
    shortcut_norm: bool = True  # BatchNorm after a projection; pre-activation nets [2] never have it
    stem: Stem = Stem()
    se_ratio: int = 0  # squeeze-and-excitation [6] reduces by this; 0 is off
    drop_path: float = 0.0  # stochastic depth [7]: the last block's drop rate; linear from the first
    dropout: float = 0.0  # [4] section 2.4: before a block's last convolution
    kernels: tuple[int, ...] = (3,)  # of the blocks; several are parallel trunks [8]
    dims: Literal[1, 2] = 2  # spatial axes: signals or images
    # biases that BatchNorm makes useless, as keras.applications and d2l have them; or "unnormed": where no norm follows
    conv_bias: bool | Literal["unnormed"] = False
    norm_eps: float = 1e-5
    folded: bool = False  # for inference: norms are part of the convolutions before them (common/fold.py)
    in_channels: int = 3
    num_classes: int = 1000  # 0: no classifier, the pooled features come out

    def __post_init__(self) -> None:
        for name in ("depths", "widths", "kernels"):
            if isinstance(getattr(self, name), list):  # JSON and the command line have no tuples
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.stem, Mapping):
            object.__setattr__(self, "stem", _from_mapping(Stem, self.stem, "stem"))
        if isinstance(self.stem, str):
            object.__setattr__(self, "stem", Stem.parse(self.stem))
        _check(self)

    @property
    def expansion(self) -> int:
        """Output channels of a block over its width: 1 for basic, 4 for bottleneck blocks."""
        return EXPANSION[self.block]

    @property
    def convolutions(self) -> int:
        """Those of the stem and of the blocks' branches: a net has at least so many tensors."""
        return len(self.stem.convs) + len(self.kernels) * sum(self.depths) * (2 if self.block == "basic" else 3)

    def inner_width(self, stage: int) -> int:
        """Channels of the grouped convolution in `stage`: widths * width_per_group / 64 * groups ([3], Table 1)."""
        return self.widths[stage] * self.width_per_group // 64 * self.groups

    def to_json(self) -> str:
        """The row as JSON, every field written out, so that a later change of a default changes no file."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Arch":
        """The row that `to_json` wrote. Raises RosettaError where `text` is not such a row."""
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise RosettaError(f"the architecture is not JSON ({e}): {text[:80]!r}") from None
        if not isinstance(row, dict):
            raise RosettaError(f"the architecture is not a JSON object: {text[:80]!r}")
        return _from_mapping(cls, row, "the architecture")


def _from_mapping(cls: type, row: Mapping[str, Any], what: str) -> Any:
    known = [f.name for f in fields(cls)]
    for key in row:
        if key not in known:
            raise RosettaError(f"unknown field {key!r} in {what}{nearest(str(key), known)}")
    missing = [f.name for f in fields(cls) if f.name not in row and f.default is dataclasses.MISSING]
    if missing:
        raise RosettaError(f"{what} lacks {', '.join(missing)}")
    return cls(**row)


def _check(a: Arch) -> None:
    """Refuses a row that can't exist, in words that name the field."""
    for name in ("depths", "widths", "kernels"):
        value = getattr(a, name)
        if not isinstance(value, tuple) or not value or not all(_is_int(n) and n >= 1 for n in value):
            _refuse(name, value, "a sequence of whole numbers, each at least 1")
    if len(a.depths) != len(a.widths):
        _refuse("depths", a.depths, f"as many stages as widths = {a.widths} has ({len(a.widths)})")
    for name, low in (
        ("first_stride", 1), ("groups", 1), ("width_per_group", 1),
        ("se_ratio", 0), ("in_channels", 1), ("num_classes", 0),
    ):  # fmt: skip
        if not _is_int(getattr(a, name)) or getattr(a, name) < low:
            _refuse(name, getattr(a, name), f"a whole number, at least {low}")
    for name, allowed in (
        ("block", tuple(EXPANSION)), ("shortcut", get_args(Shortcut)),
        ("stride_in", (1, 2)), ("dims", (1, 2)), ("first_stride", (1, 2)), ("stride_block", ("first", "last")),
    ):  # fmt: skip
        value = getattr(a, name)
        if isinstance(value, bool) or value not in allowed:
            hint = nearest(value, allowed) if isinstance(value, str) else ""
            if name == "shortcut" and (meant := [word for word, option in OPTIONS.items() if option == value]):
                hint = f"; did you mean {meant[0]}?"
            options = (repr(word) + (f" (option {OPTIONS[word]})" if word in OPTIONS else "") for word in allowed)
            _refuse(name, value, f"one of {', '.join(options)}{hint}")
    for name in ("preact", "shortcut_norm", "folded"):
        if not isinstance(getattr(a, name), bool):
            _refuse(name, getattr(a, name), "true or false")
    if not isinstance(a.conv_bias, bool) and a.conv_bias != "unnormed":
        _refuse("conv_bias", a.conv_bias, "true, false or 'unnormed'")
    for name in ("drop_path", "dropout", "norm_eps"):
        value = getattr(a, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse(name, value, "a number")
        if not 0 <= value < 1 or (name == "norm_eps" and value == 0):
            _refuse(name, value, "a number in (0, 1)" if name == "norm_eps" else "a rate in [0, 1)")
    if not isinstance(a.stem, Stem):
        _refuse("stem", a.stem, "a Stem: {'convs': ((channels, kernel, stride), ...), 'pool': true or false}")
    if any(k % 2 == 0 for k in a.kernels) or len(set(a.kernels)) != len(a.kernels):
        _refuse("kernels", a.kernels, "odd and different kernels: an even one can't be padded alike on both sides")
    if a.convolutions > MOST_CONVOLUTIONS:
        _refuse("depths", a.depths, f"at most {MOST_CONVOLUTIONS:,} convolutions, where these are {a.convolutions:,}")
    if a.block == "basic":
        if a.groups != 1:
            _refuse("groups", a.groups, "1 with block = 'basic': only the bottleneck's middle convolution is grouped")
        if a.width_per_group != 64:
            _refuse("width_per_group", a.width_per_group, "64 with block = 'basic': it has no inner width; set widths")
        if a.stride_in != 2:
            _refuse("stride_in", a.stride_in, "2 with block = 'basic': its first convolution always strides")
    else:
        for width in a.widths:
            if width * a.width_per_group % 64:
                _refuse(
                    "width_per_group", a.width_per_group,
                    f"whole channels in each group, where width * width_per_group / 64 isn't whole at width {width}",
                )  # fmt: skip
    if a.preact and not a.shortcut_norm:
        _refuse("shortcut_norm", False, "true with preact = True: a pre-activation projection has no norm to leave out")
    if a.shortcut == "pad":
        channels = [a.stem.convs[-1][0], *(w * a.expansion for w in a.widths)]
        for before, after in zip(channels, channels[1:], strict=False):
            if after < before:
                _refuse(
                    "shortcut", "pad", f"stages that never narrow ({before} to {after} channels): padding only adds"
                )


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
_CIFAR16 = dict(stem=Stem(((16, 3, 1),), pool=False), widths=(16, 32, 64), num_classes=10)
_CIFAR64 = dict(stem=Stem(((64, 3, 1),), pool=False), num_classes=10)
_SIGNAL = dict(dims=1, in_channels=1, num_classes=10)

_basic = {n: Arch(_DEPTHS[n], block="basic") for n in (18, 34)}  # [1] Table 1
_bottle = {n: Arch(_DEPTHS[n]) for n in (50, 101, 152)}  # [1] Table 1, with v1.5's stride
_nets = _basic | _bottle
_cifar_a = Arch((3, 3, 3), block="basic", shortcut="pad", **_CIFAR16)  # type: ignore[arg-type]
_resnext50, _resnext101 = (replace(_nets[n], groups=32, width_per_group=4) for n in (50, 101))

FAMILIES: dict[str, dict[str, Arch]] = {
    # [1] Table 1; the stride on the 3x3 is torchvision's and NVIDIA's "v1.5"
    "resnet": {f"resnet{n}": a for n, a in _nets.items()},
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
    "preact": {f"resnetv2_{n}": replace(a, preact=True) for n, a in (_nets | {200: Arch(_DEPTHS[200])}).items()},
    # [3] Table 1 and section 5; groups x width_per_group
    "resnext": {
        "resnext50_32x4d": _resnext50,
        "resnext101_32x4d": _resnext101,
        "resnext101_32x8d": replace(_resnext101, width_per_group=8),
        "resnext101_64x4d": replace(_resnext101, groups=64),
    },
    # [4] section 3: twice the inner width
    "wide": {f"wide_resnet{n}_2": replace(_nets[n], width_per_group=128) for n in (50, 101)},
    # [5] section 4: three 3x3 in the stem, average pooling before the projection
    "resnet_d": {
        f"resnet{n}d": replace(a, stem=_D, shortcut="pool")
        for n, a in sorted((_nets | {26: Arch((2, 2, 2, 2)), 200: Arch(_DEPTHS[200])}).items())
    },
    # PaddleClas' and KerasHub's "vd": the first block of stage 1 projects, too, which only basic blocks can tell
    "resnet_vd": {f"resnet{n}_vd": replace(a, stem=_D, shortcut="pool_first") for n, a in _basic.items()},
    # [6], on the v1.5 nets, as timm builds them
    "se": {
        **{f"seresnet{n}": replace(a, se_ratio=16) for n, a in _nets.items()},
        "seresnext50_32x4d": replace(_resnext50, se_ratio=16),
        "seresnext101_32x4d": replace(_resnext101, se_ratio=16),
        "seresnext101_32x8d": replace(_resnext101, width_per_group=8, se_ratio=16),
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
    return name_of(arch) or next((n for n, row in VARIANTS.items() if replace(row, **edges) == arch), "custom")
