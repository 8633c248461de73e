"""What a plan is made of: layers with their numbers, blocks of layers, stages of blocks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
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
