"""What a layer computes."""

import pkgutil
from typing import Any

import numpy as np

from common.teaching.faults.fault import Side, fault, padded_same


@fault("same padding", 'padding="same" at stride 2, for PyTorch\'s k // 2 on both sides', "basic",
       ("forward", "layer2.0.conv1"), 1)  # fmt: skip
def _(side: Side) -> None:
    def same(net: Any) -> None:
        for b, block in side.blocks_of(net):
            for c in b.convs:
                if c.stride > 1 and c.kernel > 1:
                    side.same(getattr(block, c.name.rsplit(".", 1)[1]))

    side.built(same)


@fault("same padding in the stem", 'padding="same" in the 7x7 convolution', "bottleneck", ("forward", "conv1"), 1)
def _(side: Side) -> None:
    def same(net: Any) -> None:
        for c in net.plan.stem.convs:
            if c.stride > 1:
                side.same(side.layer(net, c.name))

    side.built(same)


@fault(
    "stride on the first 1x1", "v1 for v1.5: same shapes, same count", "bottleneck", ("forward", "layer2.0.conv1"), 6
)
def _(side: Side) -> None:
    def v1(net: Any) -> None:
        for b, block in side.blocks_of(net):
            if len(b.convs) == 3 and b.convs[1].stride > 1:
                if side.torch:
                    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
                else:
                    block.conv1.strides, block.conv1.padding = block.conv2.strides, "valid"
                    block.conv2.strides = (1,) * net.plan.arch.dims
                    block.conv2.before, block.conv2.padding = None, "same"

    side.built(v1)


def _epsilon(side: Side, value: float) -> None:
    side.alone("epsilon")

    def change(net: Any) -> None:
        for n in side.norms(net):
            setattr(n, "eps" if side.torch else "epsilon", value)

    side.built(change)


@fault("epsilon 1e-3", "Keras' BatchNorm epsilon for PyTorch's 1e-5", "basic", ("forward", "bn1"), 5)
def _(side: Side) -> None:
    _epsilon(side, 1e-3)


@fault("epsilon 1.001e-5", "keras.applications' epsilon for PyTorch's 1e-5", "basic", ("forward", "bn1"), 5,
       verdict="suspicious")  # fmt: skip
def _(side: Side) -> None:
    _epsilon(side, 1.001e-5)


def _bordered(side: Side, border: Any, value: float) -> None:
    """Max pooling without a border of its own, behind an explicit one: `border(x, kernel, stride, value)`."""
    side.alone("max pooling")

    def change(net: Any) -> None:
        pools = [m for m in net.modules() if type(m).__name__.startswith("MaxPool")]
        for pool in pools:
            kernel, stride = (pool.kernel_size,) * net.plan.arch.dims, (pool.stride,) * net.plan.arch.dims
            pool.padding = 0
            pool.register_forward_pre_hook(lambda m, args, k=kernel, s=stride: border(args[0], k, s, value))

    side.built(change)


@fault("max pool same", 'max pooling with "same"', "bottleneck", ("forward", "maxpool"), 12)
def _(side: Side) -> None:
    if side.torch:
        _bordered(side, padded_same, -np.inf)
        return
    from keras import ops

    side.set(side.layers.MaxPool, "call", lambda self, x: ops.max_pool(x, 3, 2, "same", "channels_last"))


@fault("max pool with zeros", "a border of zeros where the stem can be negative", "pre-activation",
       ("forward", "maxpool"), 12)  # fmt: skip
def _(side: Side) -> None:
    if side.torch:
        import torch.nn.functional as F

        _bordered(side, lambda x, kernel, stride, value: F.pad(x, [k // 2 for k in kernel for _ in "ab"]), 0.0)
        return
    from keras import ops

    side.set(
        side.layers.MaxPool, "call",
        lambda self, x: ops.max_pool(ops.pad(x, ((0, 0), *((1, 1),) * len(side.positions(x)), (0, 0))), 3, 2, "valid",
                                     "channels_last"),
    )  # fmt: skip


@fault("average pool counts padding", "ResNet-D's pool divides by its full width at the border of odd sizes", "D",
       ("forward", "layer2.0.downsample.0"), 25)  # fmt: skip
def _(side: Side) -> None:
    pool = side.blocks.pool

    if side.torch:
        import torch.nn.functional as F
        from torch import nn

        class Counting(nn.Module):
            def forward(self, x: Any) -> Any:
                x = F.pad(x, [v for n in x.shape[:1:-1] for v in (0, n % 2)])
                return (F.avg_pool1d if x.ndim == 3 else F.avg_pool2d)(x, 2, 2)
    else:
        from keras import ops

        class Counting(side.model.Module):  # type: ignore[no-redef,name-defined]
            def call(self, x: Any) -> Any:
                axes = side.positions(x)
                if any(x.shape[a] is None for a in axes):  # a graph of symbols: of the same shape as the honest one's
                    return ops.average_pool(x, 2, 2, "same", "channels_last")
                x = ops.pad(x, ((0, 0), *((0, x.shape[a] % 2) for a in axes), (0, 0)))
                return ops.average_pool(x, 2, 2, "valid", "channels_last")

    side.set(side.blocks, "pool", lambda p: Counting() if p and p.kind == "avg" and p.stride == 2 else pool(p))


@fault("one position for the mean", "the first position is taken for global average pooling", "basic",
       ("forward", "fc"), 26)  # fmt: skip
def _(side: Side) -> None:
    def first(x: Any, dims: int) -> Any:
        return x[(slice(None), slice(None), *(0,) * dims)] if side.torch else x[(slice(None), *(0,) * dims)]

    side.set(side.resnet, "spatial_mean", first)


@fault("float32 inside", "one operation of a float64 net in float32, as Keras' own mean on JAX and torch", "basic",
       ("forward", "fc"), None, verdict="suspicious")  # fmt: skip
def _(side: Side) -> None:
    def narrow(x: Any, dims: int) -> Any:
        if side.torch:
            return x.float().mean(side.positions(x)).to(x.dtype)
        from keras import ops

        return ops.cast(ops.mean(ops.cast(x, "float32"), side.positions(x)), x.dtype)

    side.set(side.resnet, "spatial_mean", narrow)


def _convolutions(side: Side) -> tuple[Any, ...]:
    """The classes whose call convolves."""
    if not side.torch:
        return (side.layers._Conv,)
    from torch import nn

    return (nn.Conv1d, nn.Conv2d)


@fault("fewer bits", "float32 products of operands with 10 bits, as TF32 has them", "basic", ("forward", "conv1"), 18,
       dtypes=("float64", "float32"))  # fmt: skip
def _(side: Side) -> None:
    def rounded(call: Any, self: Any, x: Any) -> Any:
        if "float32" in str(x.dtype):
            scale = np.float32(2.0**13 + 1)  # Veltkamp's splitting keeps the upper bits
            x = x * float(scale) - (x * float(scale) - x)
        return call(self, x)

    for cls in _convolutions(side):
        side.around(cls, side.call, rounded)


@fault("groups interleaved", "group g takes channels g, g + groups, ... and not a run of them", "groups",
       ("forward", "layer1.0.conv2"), 19)  # fmt: skip
def _(side: Side) -> None:
    def interleaved(call: Any, self: Any, x: Any) -> Any:
        if self.groups > 1:
            channels = x.shape[1 if side.torch else -1]
            order = np.arange(channels).reshape(-1, self.groups).T.ravel()
            if side.torch:
                x = x[:, order.tolist()]
            else:
                from keras import ops

                x = ops.take(x, order, axis=-1)
        return call(self, x)

    for cls in _convolutions(side):
        side.around(cls, side.call, interleaved)


@fault("hard sigmoid", "squeeze-and-excitation with a hard sigmoid", "SE", ("forward", "layer1.0.se"))
def _(side: Side) -> None:
    name = "torch.nn.functional.hardsigmoid" if side.torch else "keras.ops.hard_sigmoid"
    side.set(side.blocks, "sigmoid", pkgutil.resolve_name(name))
