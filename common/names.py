"""What a row's parameters are called and shaped, and what it costs: from the row alone, without a framework."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.arch import Arch
from common.errors import RosettaError
from common.plan import POOL_KERNEL, POOL_PADDING, POOL_STRIDE, Conv, Layer, Linear, Norm, make_plan, out_size

Shape = tuple[int, ...]
STATISTICS = ("running_mean", "running_var")  # of a BatchNorm: state, but not trained


def layer_parameters(layer: Layer) -> dict[str, Shape]:
    """{leaf name: shape} of one layer, in PyTorch's layout: kernels are (out, in / groups, *kernel)."""
    if isinstance(layer, Norm):
        return {leaf: (layer.channels,) for leaf in ("weight", "bias", *STATISTICS)}
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


def sections(arch: Arch, size: int | Sequence[int] | None = None) -> list[Section]:
    """Shapes, parameters and multiply-adds of the stem, each stage and the head, for one input of `size` pixels.

    Multiply-adds are those of convolutions and linear layers alone, as the papers count. `size` is one length
    for every axis, or one for each; by default the size that the net was designed for. Raises RosettaError
    where the size doesn't fit the axes.
    """
    plan = make_plan(arch)
    axes = plan.default_input()[1:] if size is None else (size,) * arch.dims if isinstance(size, int) else tuple(size)
    if len(axes) != arch.dims or min(axes) < 1:
        raise RosettaError(f"size {axes} can't be: expected {arch.dims} length(s), each at least 1")

    def through(conv: Conv, axes: Shape) -> tuple[Shape, int]:
        out = tuple(conv.out_size(n) for n in axes)
        return out, math.prod(layer_parameters(conv)["weight"]) * math.prod(out)

    cost: dict[str, int] = dict.fromkeys((name for name, _ in plan.sections()), 0)
    output: dict[str, Shape] = {}

    for conv in plan.stem.convs:
        axes, madds = through(conv, axes)
        cost["stem"] += madds
    if plan.stem.pool:
        axes = tuple(out_size(n, POOL_KERNEL, POOL_STRIDE, POOL_PADDING) for n in axes)
    output["stem"] = (plan.stem.convs[-1].out_channels, *axes)
    for trunk in plan.trunks:
        at = axes
        for stage in trunk.stages:
            for block in stage.blocks:
                for conv in block.convs:
                    at, madds = through(conv, at)
                    cost[stage.name] += madds
                if block.se:  # on one pixel
                    cost[stage.name] += sum(
                        math.prod(layer_parameters(c)["weight"]) for c in (block.se.fc1, block.se.fc2)
                    )
                if block.shortcut.conv:  # whatever strides or pools before it, its output is the block's
                    cost[stage.name] += math.prod(layer_parameters(block.shortcut.conv)["weight"]) * math.prod(at)
            output[stage.name] = (stage.blocks[-1].convs[-1].out_channels, *at)
    output["head"] = (plan.features,)
    if plan.fc:
        output["head"] = (plan.fc.out_features,)
        cost["head"] += plan.fc.in_features * plan.fc.out_features

    result = []
    for name, layers in plan.sections():
        shapes = _named(layers)
        trainable = count(shapes)
        result.append(
            Section(
                name, output[name], sum(isinstance(layer, Conv | Linear) for layer in layers),
                trainable, count(shapes, statistics=True) - trainable, cost[name],
            )
        )  # fmt: skip
    return result


def multiply_adds(arch: Arch, size: int | Sequence[int] | None = None) -> int:
    """Multiply-adds of one forward pass of one input: convolutions and linear layers alone."""
    return sum(section.multiply_adds for section in sections(arch, size))
