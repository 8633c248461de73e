"""What a row's parameters are called and shaped, and what it costs: from the row alone, without a framework."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from common.arch import Arch
from common.errors import RosettaError, nearest
from common.plan import Block, ChannelAttention, Conv, Layer, Linear, Norm, Plan, Pool, make_plan

Shape = tuple[int, ...]
STATISTICS = ("running_mean", "running_var")  # of a BatchNorm: state, but not trained


def layer_parameters(layer: Layer) -> dict[str, Shape]:
    """{leaf name: shape} of one layer, in PyTorch's layout: kernels are (out, in / groups, *kernel)."""
    if isinstance(layer, Norm):
        return {leaf: (layer.channels,) for leaf in ("weight", "bias", *(() if layer.groups else STATISTICS))}
    if isinstance(layer, Linear):
        return {"weight": (layer.out_features, layer.in_features), "bias": (layer.out_features,)}
    weight = (layer.out_channels, layer.in_channels // layer.groups, *(layer.kernel,) * layer.dims)
    return {"weight": weight, "bias": (layer.out_channels,)} if layer.bias else {"weight": weight}


def _named(layers: Iterable[Layer]) -> dict[str, Shape]:
    return {f"{layer.name}.{leaf}": shape for layer in layers for leaf, shape in layer_parameters(layer).items()}


def parameters(arch: Arch) -> dict[str, Shape]:
    """{canonical name: shape} of every parameter and BatchNorm statistic, in canonical order."""
    return _named(make_plan(arch).layers())


def section_of(name: str) -> str:
    """The stem, stage or head that a layer or parameter belongs to, from its canonical name."""
    top = name.split(".")[0]
    return top if top.startswith("layer") else "head" if top in ("fc", "logits") or top.startswith("norm") else "stem"


def is_trainable(name: str) -> bool:
    """False for the running statistics of a BatchNorm."""
    return not name.endswith(STATISTICS)


def count(shapes: dict[str, Shape], statistics: bool = False) -> int:
    """Trainable parameters among `shapes`; with `statistics`, BatchNorm's running statistics too."""
    return sum(math.prod(shape) for name, shape in shapes.items() if statistics or is_trainable(name))


@dataclass(frozen=True)
class Section:
    """What the stem, a stage or the head is and costs, for one input."""

    name: str
    output: Shape  # (channels, *size); (classes,) of the head
    layers: int  # convolutions and linear layers
    parameters: int
    statistics: int
    multiply_adds: int


_COUNTS = ("layers", "parameters", "statistics", "multiply_adds")


@dataclass(frozen=True)
class Row:
    """A layer, or what layers make up (a block, a stage), for one input."""

    name: str
    kind: str
    output: Shape  # (channels, *size); (channels,) where there are no positions
    parameters: int = 0  # a block or stage has none of its own: those of its layers have rows
    statistics: int = 0
    multiply_adds: int = 0

    @property
    def channels_last(self) -> Shape:
        """The output in Keras' order."""
        return (*self.output[1:], self.output[0])


def layers(arch: Arch, size: int | Sequence[int] | None = None) -> list[Row]:
    """Every layer, block and stage in the order in which each ends, as both frameworks' traces see them.

    Multiply-adds are those of convolutions (a blur is one) and linear layers alone, as the papers count. `size` is one
    length for every axis, or one for each; by default the size that the net was designed for. Raises RosettaError where
    the size doesn't fit the axes, or too little is left of it to be pooled.
    """
    plan = make_plan(arch)
    axes = arch.input_shape(size)[1:]
    if len(axes) != arch.dims or min(axes) < 1:
        raise RosettaError(f"size {axes} can't be: expected {arch.dims} length(s), each at least 1")
    rows: list[Row] = []

    def add(name: str, kind: str, output: Shape, layer: Layer | Pool | None = None) -> Shape:
        shapes = layer_parameters(layer) if layer and not isinstance(layer, Pool) else {}
        trainable, madds = count(shapes), 0
        if isinstance(layer, Conv | Linear):
            madds = math.prod(shapes["weight"]) * math.prod(output[1:])
        if isinstance(layer, Pool) and layer.kind == "blur":
            madds = layer.kernel**layer.dims * math.prod(output)
        rows.append(Row(name, kind, output, trainable, count(shapes, statistics=True) - trainable, madds))
        return output

    def conv(c: Conv, x: Shape) -> Shape:
        grouped = f", {c.groups} groups" * (c.groups > 1) + f", dilated by {c.dilation}" * (c.dilation > 1)
        across = "x".join([f"{c.kernel}"] * c.dims)
        kind = f"conv {across}" + (f"/{c.stride}" if c.stride > 1 else "") + grouped
        return add(c.name, kind, (c.out_channels, *(c.out_size(n) for n in x[1:])), c)

    def norm(n: Norm | None, name: str, x: Shape) -> Shape:
        return add(name, "folded norm" if n is None else "group norm" if n.groups else "batch norm", x, n)

    def pool(p: Pool, x: Shape) -> Shape:
        output = (x[0], *(p.out_size(n) for n in x[1:]))
        if min(output) < 1 or (p.kind == "blur" and min(x[1:]) < 2):
            left = f"{p.name}, {p.text}, gets {' x '.join(map(str, x[1:]))} positions"
            raise RosettaError(f"size {axes} can't be: {left}, and needs at least 2 along each axis")
        return add(p.name, p.text, output, p)

    x: Shape = (arch.in_channels, *axes)
    stem = plan.stem
    for i, c in enumerate(stem.convs):
        x = conv(c, x)
        last = i == len(stem.convs) - 1
        if not last:
            norm(stem.norms[i], f"conv1.{3 * i + 1}", x)
            add(f"conv1.{3 * i + 2}", "ReLU", x)
    if len(stem.convs) > 1:
        add("conv1", "sequential", x)
    if not arch.preact:
        norm(stem.norms[-1], "bn1", x)
    for p in stem.pools:
        x = pool(p, x)
    if len(stem.pools) > 1:
        add("maxpool", "sequential", x)

    def shortcut(b: Block, x: Shape) -> None:
        s, name = b.shortcut, f"{b.name}.downsample"
        if s.kind == "pad":
            add(name, f"pad/{s.stride}", (x[0] + s.before + s.after, *(-(-n // s.stride) for n in x[1:])))
        if not s.conv:
            return
        if s.pool:
            x = pool(s.pool, x)
        x = conv(s.conv, x)
        if s.norm:
            norm(s.norm, s.norm.name, x)
        add(name, "sequential", x)

    def block(b: Block, x: Shape) -> Shape:
        y = x
        for i, (c, n) in enumerate(zip(b.convs, b.norms, strict=True), 1):
            if arch.preact:
                norm(n, f"{b.name}.bn{i}", y)
            if b.antialias and i == len(b.convs):
                y = pool(b.antialias, y)
            if b.dropout and i == len(b.convs):
                add(f"{b.name}.dropout", "dropout", y)
            y = conv(c, y)
            if not arch.preact:
                norm(n, f"{b.name}.bn{i}", y)
        if isinstance(b.se, ChannelAttention):
            conv(b.se.conv, (1, y[0]))
            add(f"{b.name}.se", "channel attention", y)
        elif b.se:
            squeezed = (y[0], *(1,) * arch.dims)
            for c in b.se.layers():
                squeezed = conv(c, squeezed)
            add(f"{b.name}.se", "squeeze-excite", y)
        if b.drop_path:
            add(f"{b.name}.drop_path", "drop path", y)
        shortcut(b, x)
        return add(b.name, b.kind, y)

    for trunk in plan.trunks:
        y = x
        for stage in trunk.stages:
            for b in stage.blocks:
                y = block(b, y)
            add(stage.name, "stage", y)
        if trunk.norm:
            norm(trunk.norm, trunk.norm.name, y)
    if plan.fc:
        add(plan.fc.name, "linear", (plan.fc.out_features,), plan.fc)
    return rows


def sections(arch: Arch, size: int | Sequence[int] | None = None) -> list[Section]:
    """Shapes, parameters and multiply-adds of the stem, each stage and the head, for one input of `size` pixels, as
    `layers` counts them and refuses."""
    size = size if size is None or isinstance(size, int) else tuple(size)
    if arch.stride_block == "last":
        return list(_counted(arch, size))
    # a stage's blocks behind its first are all alike, so two blocks a stage say what any number of them costs
    one, two = (_counted(replace(arch, depths=(n,) * len(arch.depths)), size) for n in (1, 2))
    depths = (1, *arch.depths * len(arch.kernels), 1)

    def total(a: Section, b: Section, depth: int) -> Section:
        of_a, of_b = ([getattr(section, key) for key in _COUNTS] for section in (a, b))
        return Section(a.name, a.output, *(n + (depth - 1) * (m - n) for n, m in zip(of_a, of_b, strict=True)))

    return list(map(total, one, two, depths))


@lru_cache(maxsize=256)
def _counted(arch: Arch, size: int | Sequence[int] | None) -> tuple[Section, ...]:
    """The sections, added up layer by layer."""
    plan = make_plan(arch)
    by_section: dict[str, list[Row]] = {name: [] for name, _ in plan.sections()}
    for row in layers(arch, size):
        by_section[section_of(row.name)].append(row)
    if not plan.fc:  # the pooled features come out
        by_section["head"].append(Row("", "", (plan.features,)))
    result = []
    for name, of in plan.sections():
        rows = by_section[name]
        weighted = sum(isinstance(layer, Conv | Linear) for layer in of)
        totals = (sum(getattr(row, key) for row in rows) for key in _COUNTS[1:])
        result.append(Section(name, rows[-1].output, weighted, *totals))
    return tuple(result)


@dataclass(frozen=True)
class Feature:
    """What the stem or a stage puts out: its channels, and how many pixels of the input lie, along an axis, between one
    position and the next."""

    channels: int
    stride: int


def feature_info(arch: Arch) -> dict[str, Feature]:
    """{"stem": ..., "layer1": ..., ...}: what `features` of either framework's net will give."""
    size = 2**16  # which every stride divides
    parts = [s for s in sections(arch, size) if s.name != "head"]
    return {s.name: Feature(s.output[0], size // s.output[1]) for s in parts}


def chosen(plan: Plan, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The stem and stages that were asked for, or all; and of each trunk the stages that are needed for those. Raises
    RosettaError where the net has no stage of that name."""
    trunks = [[stage.name for stage in trunk.stages] for trunk in plan.trunks]
    known = ["stem", *(name for stages in trunks for name in stages)]
    for name in names:
        if name not in known:
            raise RosettaError(f"the net has no stage {name!r}{nearest(name, known) or '; it has ' + ', '.join(known)}")
    wanted = list(names) or known
    ends = [max([i for i, name in enumerate(stages, 1) if name in wanted], default=0) for stages in trunks]
    return wanted, [stages[:end] for stages, end in zip(trunks, ends, strict=True)]


def multiply_adds(arch: Arch, size: int | Sequence[int] | None = None) -> int:
    """Multiply-adds of one forward pass of one input: convolutions and linear layers alone."""
    return sum(section.multiply_adds for section in sections(arch, size))
