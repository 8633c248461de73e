"""A row worked out: every layer with its name, channels, stride, padding and rate, in canonical order.

Both implementations read their numbers here and compute none, so that neither can infer one
that the other is told. Names are attribute paths, torchvision's where torchvision has the net.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from common.arch import Arch
from common.errors import RosettaError

MOST_WEIGHTS = 2**40  # of one layer
MOMENTUM = 0.1  # of the running statistics: new = 0.9 * old + 0.1 * batch, PyTorch's convention


def _can_be(name: str, *shape: int) -> None:
    if math.prod(shape) > MOST_WEIGHTS:
        raise RosettaError(f"{name} of {' x '.join(map(str, shape))[:200]} weights can't be: no memory holds it")


@dataclass(frozen=True)
class Conv:
    """A convolution over `dims` axes, padded by k // 2 times the dilation on both sides of each."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    groups: int = 1
    bias: bool = False
    dims: int = 2
    dilation: int = 1
    std_eps: float = 0.0  # of weight standardisation ([13] of arch.py); 0 is none

    def __post_init__(self) -> None:
        _can_be(self.name, self.out_channels, self.in_channels // self.groups, *(self.kernel,) * self.dims)

    @property
    def padding(self) -> int:
        return self.kernel // 2 * self.dilation

    @property
    def breaks_onednn(self) -> bool:
        """Whether oneDNN may write past its memory when it computes the gradient of these weights channels last.

        Its backward pass of a strided 1x1 copies the positions that count into a space of positions x channels, but
        begins each part of the copy as if a position had the 16 channels of a vector (8 without AVX-512). With fewer
        the later parts lie behind the space, and the process dies at once or much later. An image has such parts from
        46 x 46 on where 16 channels come out, from 66 x 66 where more do, and from 8 x 8 without AVX-512. Measured
        on 2026-11-25 in PyTorch 2.13 (oneDNN 3.12), float32 and bfloat16, and in TensorFlow 2.21 (oneDNN 3.7); the
        fault is https://github.com/uxlfoundation/oneDNN/issues/6035, still open then. The variants of arch.py have
        at least 64 channels there.
        """
        return self.kernel == 1 and self.stride > 1 and self.groups == 1 and self.in_channels < 16

    def out_size(self, n: int) -> int:
        """Length of an axis of `n` after this layer."""
        return (n + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1


@dataclass(frozen=True)
class Norm:
    """Batch normalisation over `channels`, or with `groups` group normalisation, which keeps no statistics."""

    name: str
    channels: int
    eps: float
    dims: int = 2
    groups: int = 0


@dataclass(frozen=True)
class Linear:
    name: str
    in_features: int
    out_features: int
    by_conv: bool = False  # added up in the order of a 1x1 convolution, as timm's pre-activation nets are

    def __post_init__(self) -> None:
        _can_be(self.name, self.out_features, self.in_features)


@dataclass(frozen=True)
class Pool:
    """What a window of `kernel` positions along each axis says of each channel, moved by `stride`.

    max: the largest value, of a border of `padding` positions that counts as nothing, or as 0. avg: the mean. blur: the
    mean with the weights 1, 2, 1 along each axis, the border being the image's own, reflected ([9] of arch.py).
    """

    name: str
    kind: Literal["max", "avg", "blur"]
    channels: int
    kernel: int
    stride: int
    padding: int = 0
    zeros: bool = False  # the border counts as 0
    behind: int = 0  # zeros that are put behind the last position, and count
    ceil: bool = False  # a last window hangs over the edge, and counts what there is
    dims: int = 2

    @property
    def text(self) -> str:
        """`max pool 3/2`; `identity` of one that holds the place that another stage's pooling has."""
        words = {"max": "max pool", "avg": "average pool", "blur": "blur"}
        return f"{words[self.kind]} {self.kernel}/{self.stride}" if self.kernel > 1 else "identity"

    def out_size(self, n: int) -> int:
        """Length of an axis of `n` after this layer."""
        return (n + 2 * self.padding + self.behind - self.kernel + (self.stride - 1) * self.ceil) // self.stride + 1


Layer = Conv | Norm | Linear


@dataclass(frozen=True)
class SqueezeExcite:
    """Global mean, 1x1 to fewer channels, ReLU, 1x1 back, sigmoid, multiply ([6] of arch.py, figure 3)."""

    fc1: Conv
    fc2: Conv

    def layers(self) -> tuple[Conv, ...]:
        return self.fc1, self.fc2


@dataclass(frozen=True)
class ChannelAttention:
    """Global mean, a convolution along the channels, sigmoid, multiply ([10] of arch.py, figure 2)."""

    conv: Conv
    dims: int  # of what is multiplied

    def layers(self) -> tuple[Conv, ...]:
        return (self.conv,)


@dataclass(frozen=True)
class Shortcut:
    """What a block adds to its branch.

    identity: the input. pad: the input, each `stride`-th pixel, with `before` and `after` zero channels.
    project: a 1x1 convolution (and a norm), after `pool` where that is not None.
    none: nothing (a plain net).
    """

    kind: Literal["identity", "pad", "project", "none"]
    stride: int = 1
    before: int = 0
    after: int = 0
    pool: Pool | None = None
    conv: Conv | None = None
    norm: Norm | None = None
    of_preactivation: bool = False  # the projection reads relu(bn1(x)) and not x: [2] of arch.py, section 4
    dims: int = 2


@dataclass(frozen=True)
class Block:
    name: str
    kind: Literal["BasicBlock", "Bottleneck", "PreActBasicBlock", "PreActBottleneck"]
    convs: tuple[Conv, ...]
    norms: tuple[Norm | None, ...]  # None: folded into the convolution before it
    antialias: Pool | None  # before the last convolution
    se: SqueezeExcite | ChannelAttention | None
    shortcut: Shortcut
    dropout: float
    drop_path: float

    def layers(self) -> Iterator[Layer]:
        """The layers with parameters, in canonical order."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pair = (norm, conv) if self.kind.startswith("PreAct") else (conv, norm)
            yield from (layer for layer in pair if layer)
        if self.se:
            yield from self.se.layers()
        if self.shortcut.conv:
            yield self.shortcut.conv
        if self.shortcut.norm:
            yield self.shortcut.norm


@dataclass(frozen=True)
class Stage:
    name: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class StemPlan:
    convs: tuple[Conv, ...]
    norms: tuple[Norm | None, ...]  # as many as convs, or one fewer in a pre-activation net; None: folded
    pools: tuple[Pool, ...]

    def layers(self) -> Iterator[Layer]:
        for i, conv in enumerate(self.convs):
            yield conv
            yield from (norm for norm in self.norms[i : i + 1] if norm)


@dataclass(frozen=True)
class Trunk:
    """The stages that follow each other; a net has one, a multi-scale net one a kernel."""

    stages: tuple[Stage, ...]
    norm: Norm | None  # a pre-activation net's last BN-ReLU


@dataclass(frozen=True)
class Plan:
    arch: Arch
    stem: StemPlan
    trunks: tuple[Trunk, ...]
    features: int  # of the pooled vector
    fc: Linear | None

    def sections(self) -> Iterator[tuple[str, list[Layer]]]:
        """("stem", its layers), (a stage's name, its layers), ..., ("head", final norms and classifier)."""
        yield "stem", list(self.stem.layers())
        for trunk in self.trunks:
            for stage in trunk.stages:
                yield stage.name, [layer for block in stage.blocks for layer in block.layers()]
        head: list[Layer] = [trunk.norm for trunk in self.trunks if trunk.norm]
        yield "head", head + ([self.fc] if self.fc else [])

    def layers(self) -> Iterator[Layer]:
        """Every layer with parameters, in canonical order."""
        for _, layers in self.sections():
            yield from layers

    def blocks(self) -> Iterator[Block]:
        """Every block, stage by stage."""
        return (block for trunk in self.trunks for stage in trunk.stages for block in stage.blocks)

    def pools(self) -> Iterator[Pool]:
        """Every pooling but the head's."""
        yield from self.stem.pools
        for block in self.blocks():
            yield from (pool for pool in (block.antialias, block.shortcut.pool) if pool)

    @property
    def random(self) -> bool:
        """Whether a pass in training mode draws masks."""
        return any(b.dropout or b.drop_path for b in self.blocks())

    @property
    def total_stride(self) -> int:
        """Pixels of the input to one of the last stage, along an axis."""
        blocks = [block for stage in self.trunks[0].stages for block in stage.blocks]
        inner = [layer for b in blocks for layer in (*b.convs, b.antialias) if layer]
        return math.prod(layer.stride for layer in (*self.stem.convs, *self.stem.pools, *inner))


def reduced(channels: int, ratio: int) -> int:
    # timm rounds the squeezed width to the nearest multiple of 8, and never below 8
    return max(8, int(channels / ratio + 4) // 8 * 8)


def neighbours(channels: int) -> int:
    # [10] of arch.py, equation 12 with gamma = 2 and b = 1, and never fewer than 3
    nearly = int(abs(math.log2(channels) + 1) / 2)
    return max(3, nearly + 1 - nearly % 2)


@lru_cache(maxsize=256)
def make_plan(arch: Arch) -> Plan:
    """The row worked out. Cached, since a row is a value."""
    if arch.folded:
        return _folded(make_plan(replace(arch, folded=False)), arch)
    a = arch

    def conv(
        name: str, cin: int, cout: int, k: int, stride: int = 1, groups: int = 1, dilation: int = 1, normed: bool = True
    ) -> Conv:
        bias = not normed if a.conv_bias == "unnormed" else bool(a.conv_bias)
        return Conv(name, cin, cout, k, stride, groups, bias, a.dims, dilation if k > 1 else 1, a.weight_std)

    def norm(name: str, channels: int) -> Norm:
        return Norm(name, channels, a.norm_eps, a.dims, a.norm_groups)

    def mean(name: str, channels: int, stride: int, ceil: bool = True) -> Pool:
        return Pool(name, "avg", channels, stride, stride, ceil=ceil, dims=a.dims)

    def blur(name: str, channels: int, stride: int) -> Pool:
        return Pool(name, "blur", channels, 3, stride, 1, dims=a.dims)

    def stem_pools(c: int) -> Iterator[Pool]:
        """[1] of arch.py, Table 1: the largest of 3x3, every other position."""
        if a.stem.pool and a.antialias == "avg":
            yield mean("maxpool", c, 2, ceil=False)
        elif a.stem.pool:
            blurred = a.antialias == "blur"
            name, stride = ("maxpool.0", 1) if blurred else ("maxpool", 2)
            yield Pool(name, "max", c, 3, stride, 1, zeros=a.stem.pool == "zeros", dims=a.dims)
            if blurred:
                yield blur("maxpool.1", c, 2)

    # stem: one convolution is "conv1", several are timm's Sequential of conv, norm, ReLU, conv, ..., conv
    convs, norms, c = [], [], a.in_channels
    deep = len(a.stem.convs) > 1
    for i, (cout, k, stride) in enumerate(a.stem.convs):
        last = i == len(a.stem.convs) - 1
        normed = not (last and a.preact)  # the first block's norm follows there, behind the pooling
        convs.append(conv(f"conv1.{3 * i}" if deep else "conv1", c, cout, k, stride, normed=normed))
        if normed:
            norms.append(norm("bn1" if last else f"conv1.{3 * i + 1}", cout))
        c = cout
    stem = StemPlan(tuple(convs), tuple(norms), tuple(stem_pools(c)))

    def block(
        name: str, cin: int, stage: int, stride: int, kernel: int, drop_path: float, first: bool, dilation: int,
        kept: bool,
    ) -> Block:  # fmt: skip
        """Where positions are `kept`, the convolutions behind the one that would stride dilate by the stride more."""
        cout, preact = a.widths[stage] * a.expansion, a.preact
        mid = cout if a.block == "basic" else a.inner_width(stage)
        behind = {"none": None, "avg": mean, "blur": blur}[a.antialias] if stride > 1 else None
        behind = None if kept and a.antialias == "avg" else behind  # there a mean would be of one
        more, stride = (dilation * stride, 1) if kept else (dilation, stride)
        own = 1 if behind else stride  # the convolution's
        if a.block == "basic":
            sizes = [(cin, cout, kernel, own, 1, dilation), (cout, cout, kernel, 1, 1, more)]
        else:
            s1, s3, d3 = (own, 1, more) if a.stride_in == 1 else (1, own, dilation)
            sizes = [(cin, mid, 1, s1, 1, 1), (mid, mid, kernel, s3, a.groups, d3), (mid, cout, 1, 1, 1, 1)]
        convs = tuple(
            conv(f"{name}.conv{i}", *size, normed=not preact or i < len(sizes)) for i, size in enumerate(sizes, 1)
        )
        norms = tuple(
            norm(f"{name}.bn{i}", c.in_channels if preact else c.out_channels) for i, c in enumerate(convs, 1)
        )
        se: SqueezeExcite | ChannelAttention | None = None
        if a.eca:
            se = ChannelAttention(Conv(f"{name}.se.conv", 1, 1, neighbours(cout), dims=1), a.dims)
        if a.se_ratio:
            narrow = reduced(cout, a.se_ratio)
            fc1, fc2 = (
                Conv(f"{name}.se.fc{i}", *size, 1, bias=True, dims=a.dims)
                for i, size in ((1, (cout, narrow)), (2, (narrow, cout)))
            )
            se = SqueezeExcite(fc1, fc2)
        kind = ("PreAct" if preact else "") + ("BasicBlock" if a.block == "basic" else "Bottleneck")
        antialias = behind(f"{name}.antialias", mid, stride) if behind else None
        short = shortcut(name, cin, cout, stride, first, kept)
        return Block(name, kind, convs, norms, antialias, se, short, a.dropout, drop_path)  # type: ignore[arg-type]

    def shortcut(name: str, cin: int, cout: int, stride: int, first: bool, kept: bool) -> Shortcut:
        if a.shortcut == "none":
            return Shortcut("none")
        always = a.shortcut == "project_all" or (a.shortcut == "pool_first" and first)
        if stride == 1 and cin == cout and not always:
            return Shortcut("identity")
        # keras.applications' V2 takes every other pixel where a block strides and nothing else changes
        bare = a.stride_block == "last" and cin == cout and a.shortcut == "project"
        if a.shortcut == "pad" or bare:
            extra = cout - cin
            return Shortcut("pad", stride, before=extra // 2, after=extra - extra // 2, dims=a.dims)
        pooled = a.shortcut.startswith("pool")
        pool = mean(f"{name}.downsample.0", cin, stride) if pooled else None
        if pool and kept:  # timm's: of 2x2 at each position, with zeros behind the last
            pool = Pool(pool.name, "avg", cin, 2, 1, behind=1, dims=a.dims)
        i, own = (1, 1) if pooled else (0, stride)  # Sequential: [pool,] convolution[, norm]
        normed = a.shortcut_norm and not a.preact
        project = conv(f"{name}.downsample.{i}", cin, cout, 1, own, normed=normed)
        bn = norm(f"{name}.downsample.{i + 1}", cout) if normed else None
        return Shortcut("project", stride, pool=pool, conv=project, norm=bn, of_preactivation=a.preact, dims=a.dims)

    trunks, channels = [], c
    of_stem = math.prod([layer.stride for layer in stem.convs] + [layer.stride for layer in stem.pools])
    for kernel in a.kernels:
        suffix = "" if len(a.kernels) == 1 else f"_k{kernel}"
        stages, c, done, reached, dilation = [], channels, 0, of_stem, 1
        for s, depth in enumerate(a.depths):
            blocks = []
            for b in range(depth):
                done += 1
                if a.stride_block == "first":
                    stride = 1 if b else (a.first_stride if s == 0 else 2)
                else:  # one block that is first and last strides once
                    halves = b == depth - 1 and s < len(a.depths) - 1
                    stride = 2 if halves else a.first_stride if s == b == 0 else 1
                rate = a.drop_path * done / sum(a.depths)  # [7] of arch.py, equation 4
                kept = stride > 1 and 0 < a.output_stride < reached * stride
                made = block(f"layer{s + 1}{suffix}.{b}", c, s, stride, kernel, rate, b == 0, dilation, kept)
                blocks.append(made)
                reached, dilation = (reached, dilation * stride) if kept else (reached * stride, dilation)
                c = a.widths[s] * a.expansion
            stages.append(Stage(f"layer{s + 1}{suffix}", tuple(blocks)))
        trunks.append(Trunk(tuple(stages), norm(f"norm{suffix}", c) if a.preact else None))

    features = c * len(a.kernels)
    fc = Linear("fc", features, a.num_classes, by_conv=a.preact) if a.num_classes else None
    return Plan(a, stem, tuple(trunks), features, fc)


def foldable(plan: Plan) -> Iterator[tuple[Conv, Norm]]:
    """Each convolution whose output nothing but a norm reads, with that norm: the two are one affine map in evaluation.

    In a pre-activation net these are the norms between a block's convolutions. Its first norm and the net's last read
    a sum, which others read, too. Group normalisation measures what it normalises in evaluation, too: none of it folds.
    """
    yield from _pairs(plan.stem.convs, plan.stem.norms)
    for trunk in plan.trunks:
        for block in (block for stage in trunk.stages for block in stage.blocks):
            yield from _pairs(block.convs, block.norms[1:] if plan.arch.preact else block.norms)
            if block.shortcut.conv:
                yield from _pairs([block.shortcut.conv], [block.shortcut.norm])


def _pairs(convs: Sequence[Conv], norms: Sequence[Norm | None]) -> Iterator[tuple[Conv, Norm]]:
    for conv, norm in zip(convs, norms, strict=False):
        if norm and not norm.groups:
            yield conv, norm


def _folded(plan: Plan, arch: Arch) -> Plan:
    """The plan of `arch`, `plan` being that of the same row with its norms: what takes one up has a bias. Standardised
    kernels are kernels like any other."""
    pairs = list(foldable(plan))
    takers, gone = {conv.name for conv, _ in pairs}, {norm.name for _, norm in pairs}

    def conv(c: Conv) -> Conv:
        return replace(c, bias=c.bias or c.name in takers, std_eps=0.0)

    def norm(n: Norm | None) -> Norm | None:
        return n if n and n.name not in gone else None

    def shortcut(s: Shortcut) -> Shortcut:
        return replace(s, conv=conv(s.conv), norm=norm(s.norm)) if s.conv else s

    def block(b: Block) -> Block:
        convs, norms = tuple(map(conv, b.convs)), tuple(map(norm, b.norms))
        return replace(b, convs=convs, norms=norms, shortcut=shortcut(b.shortcut))

    stem = replace(plan.stem, convs=tuple(map(conv, plan.stem.convs)), norms=tuple(map(norm, plan.stem.norms)))
    trunks = tuple(
        replace(t, stages=tuple(replace(s, blocks=tuple(map(block, s.blocks))) for s in t.stages)) for t in plan.trunks
    )
    return replace(plan, arch=arch, stem=stem, trunks=trunks)
