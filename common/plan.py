"""A row worked out: every layer with its name, channels, stride, padding and rate, in canonical order.

Both implementations read their numbers here and compute none, so that neither can infer one
that the other is told. Names are attribute paths, torchvision's where torchvision has the net. What a plan is made of
is in parts.py, and imported from here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from common.arch import Arch
from common.parts import (
    MOMENTUM,
    Block,
    ChannelAttention,
    Conv,
    Layer,
    Linear,
    Norm,
    Plan,
    Pool,
    Shortcut,
    SqueezeExcite,
    Stage,
    StemPlan,
    Trunk,
)  # fmt: skip

__all__ = [
    "MOMENTUM", "Block", "ChannelAttention", "Conv", "Layer", "Linear", "Norm", "Plan", "Pool", "Shortcut", 
    "SqueezeExcite", "Stage", "StemPlan", "Trunk", "foldable", "make_plan", "neighbours", "reduced",
]  # fmt: skip


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
