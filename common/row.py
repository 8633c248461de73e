"""One row: its fields, what each may be, and how it is read and written. The rows themselves are common/arch.py's,
whose list of papers the numbers in brackets mean."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
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
    output_stride: int = 0  # a stage that would stride beyond this dilates the convolutions behind instead; 0 is none
    stride_in: Literal[1, 2] = 2  # the bottleneck conv that strides: 1 is v1 [1], 2 is "v1.5"
    # a block's 3x3 that strides, and the stem's pooling, don't: means of 2x2 behind them do, or the filter 1-2-1 of [9]
    antialias: Literal["none", "avg", "blur"] = "none"
    stride_block: Literal["first", "last"] = "first"  # of a stage halves; the last, for the next stage: keras' V2 nets
    groups: int = 1  # of the bottleneck's 3x3: the cardinality of [3]
    width_per_group: int = 64  # inner width = widths * this / 64 * groups
    # options A, B, C of [1] section 4.1; ResNet-D's [5]; that, with every stage's first block projecting; a plain net's
    shortcut: Shortcut = "project"
    shortcut_norm: bool = True  # BatchNorm after a projection; pre-activation nets [2] never have it
    stem: Stem = Stem()
    se_ratio: int = 0  # squeeze-and-excitation [6] reduces by this; 0 is off
    eca: bool = False  # efficient channel attention [10]: the gate reads neighbouring channels' means
    drop_path: float = 0.0  # stochastic depth [7]: the last block's drop rate; linear from the first
    dropout: float = 0.0  # [4] section 2.4: before a block's last convolution
    kernels: tuple[int, ...] = (3,)  # of the blocks; several are parallel trunks [8]
    dims: Literal[1, 2] = 2  # spatial axes: signals or images
    # biases that BatchNorm makes useless, as keras.applications and d2l have them; or "unnormed": where no norm follows
    conv_bias: bool | Literal["unnormed"] = False
    norm_eps: float = 1e-5
    # weight standardisation [13]: each output's kernel has mean 0 and variance 1, with this epsilon; 0 is off
    weight_std: float = 0.0
    norm_groups: int = 0  # of channels, normalised in each example by themselves [12]; 0 is BatchNorm
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

    def input_shape(self, size: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """(in_channels, *size) of one example; `size` is one length for every axis, or one for each.

        By default what the net was designed for: 224 x 224 pixels, 32 x 32 for CIFAR's stems, or 1024 samples.
        """
        if size is None:
            strides = self.stem.pool or any(stride > 1 for *_, stride in self.stem.convs)
            size = 1024 if self.dims == 1 else 224 if strides else 32
        return (self.in_channels, *((size,) * self.dims if isinstance(size, int) else size))

    def words(self) -> dict[str, str]:
        """{field: its value in words}, for people."""
        said = {f.name: str(getattr(self, f.name)) for f in fields(self)}
        said["stem"] = self.stem.text(self.dims)
        if self.shortcut in OPTIONS:
            said["shortcut"] += f" (option {OPTIONS[self.shortcut]} of He et al. 2015)"
        return said

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
        ("se_ratio", 0), ("norm_groups", 0), ("output_stride", 0), ("in_channels", 1), ("num_classes", 0),
    ):  # fmt: skip
        if not _is_int(getattr(a, name)) or getattr(a, name) < low:
            _refuse(name, getattr(a, name), f"a whole number, at least {low}")
    for name, allowed in (
        ("block", tuple(EXPANSION)), ("shortcut", get_args(Shortcut)),
        ("stride_in", (1, 2)), ("dims", (1, 2)), ("first_stride", (1, 2)), ("stride_block", ("first", "last")),
        ("antialias", ("none", "avg", "blur")),
    ):  # fmt: skip
        value = getattr(a, name)
        if isinstance(value, bool) or value not in allowed:
            hint = nearest(value, allowed) if isinstance(value, str) else ""
            if name == "shortcut" and (meant := [word for word, option in OPTIONS.items() if option == value]):
                hint = f"; did you mean {meant[0]}?"
            options = (repr(word) + (f" (option {OPTIONS[word]})" if word in OPTIONS else "") for word in allowed)
            _refuse(name, value, f"one of {', '.join(options)}{hint}")
    for name in ("preact", "shortcut_norm", "eca", "folded"):
        if not isinstance(getattr(a, name), bool):
            _refuse(name, getattr(a, name), "true or false")
    if not isinstance(a.conv_bias, bool) and a.conv_bias != "unnormed":
        _refuse("conv_bias", a.conv_bias, "true, false or 'unnormed'")
    for name in ("drop_path", "dropout", "norm_eps", "weight_std"):
        value = getattr(a, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse(name, value, "a number")
        if not 0 <= value < 1 or (name == "norm_eps" and value == 0):
            what = {"norm_eps": "a number in (0, 1)", "weight_std": "0, or an epsilon below 1"}
            _refuse(name, value, what.get(name, "a rate in [0, 1)"))
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
    inner = [a.inner_width(s) if a.block == "bottleneck" else w for s, w in enumerate(a.widths)]
    if a.weight_std:
        fans = [a.in_channels * a.stem.convs[0][1], *(n for n, *_ in a.stem.convs), *a.widths]
        if min(*fans, *(n // a.groups for n in inner)) < 2:
            _refuse("weight_std", a.weight_std, "0 where a convolution reads one value: that alone has no variance")
    if a.norm_groups:
        for n in (*(c for c, *_ in a.stem.convs), *inner, *(w * a.expansion for w in a.widths)):
            if n % a.norm_groups:
                _refuse("norm_groups", a.norm_groups, f"a divisor of every number of channels, {n} among them")
    if a.eca and a.se_ratio:
        _refuse("eca", True, f"false with se_ratio = {a.se_ratio}: a block has one attention")
    if a.antialias != "none":
        if a.stride_in == 1:
            _refuse("antialias", a.antialias, "'none' with stride_in = 1: it follows the 3x3, in place of its stride")
        if a.stem.pool == "zeros":
            _refuse("antialias", a.antialias, "'none' with a stem whose pooling has a border of zeros")
    if a.preact and a.output_stride and a.stride_block == "last":
        _refuse(
            "output_stride", a.output_stride, "0 with preact = True and stride_block = 'last': nobody has such nets"
        )
    if a.preact and not a.shortcut_norm:
        _refuse("shortcut_norm", False, "true with preact = True: a pre-activation projection has no norm to leave out")
    if a.shortcut == "pad":
        channels = [a.stem.convs[-1][0], *(w * a.expansion for w in a.widths)]
        for before, after in zip(channels, channels[1:], strict=False):
            if after < before:
                _refuse(
                    "shortcut", "pad", f"stages that never narrow ({before} to {after} channels): padding only adds"
                )
