"""How layers are put together."""

import dataclasses
from typing import Any

from common.teaching.faults.fault import Side, fault


@fault("option A at the end", "zero channels behind, and not on both sides", "option A",
       ("forward", "layer2.0.downsample"), 23)  # fmt: skip
def _(side: Side) -> None:
    def behind(net: Any) -> None:
        for b, block in side.blocks_of(net):
            if b.shortcut.kind == "pad":
                s = block.downsample
                s.before, s.after = 0, s.before + s.after

    side.built(behind)


def _of_preactivation(side: Side, kinds: tuple[str, ...], value: bool) -> None:
    def change(net: Any) -> None:
        for b, block in side.blocks_of(net):
            if b.shortcut.kind in kinds and hasattr(block, "of_preactivation"):
                block.of_preactivation = value

    side.built(change)


@fault("identity after BN-ReLU", "a pre-activation block adds relu(bn1(x)), and not x", "pre-activation",
       ("forward", "layer2.1"), 24)  # fmt: skip
def _(side: Side) -> None:
    _of_preactivation(side, ("identity",), True)


@fault("projection of the raw input", "a pre-activation projection reads x, and not relu(bn1(x))", "pre-activation",
       ("forward", "layer1.0.downsample.0"), 24)  # fmt: skip
def _(side: Side) -> None:
    _of_preactivation(side, ("project",), False)


@fault("no last BN-ReLU", "a pre-activation net without the norm after its last stage", "pre-activation",
       ("forward", "norm"), 24)  # fmt: skip
def _(side: Side) -> None:
    def pooled(was: Any, self: Any, trunk: Any, x: Any) -> Any:
        return was(self, dataclasses.replace(trunk, norm=None), x)

    side.around(side.resnet.ResNet, "pooled", pooled)


@fault(
    "ReLU before the addition", "a block's last ReLU on its branch, and not on the sum", "basic",
    ("forward", "layer1.0"),
)  # fmt: skip
def _(side: Side) -> None:
    sums: list[Any] = []
    relu = side.blocks.relu

    def add(y: Any, shortcut: Any) -> Any:
        sums[:] = [relu(y) if shortcut is None else relu(y) + shortcut]
        return sums[0]

    side.set(side.blocks, "add", add)
    side.set(side.blocks, "relu", lambda x: x if sums and x is sums[0] else relu(x))


@fault("trunks in another order", "the features of several kernels are joined the other way round", "three kernels",
       ("forward", "fc"))  # fmt: skip
def _(side: Side) -> None:
    side.around(side.resnet, "concat", lambda concat, xs: concat(xs[::-1]))


def _input(side: Side, change: Any) -> None:
    side.around(side.resnet.ResNet, "stem", lambda stem, self, x: stem(self, change(x)))


@fault("height and width swapped", "the input comes as N W H C", "basic", ("forward", "conv1"), 8, size=(12, 12))
def _(side: Side) -> None:
    def swapped(x: Any) -> Any:
        if side.torch:
            return x.transpose(2, 3)
        from keras import ops

        return ops.swapaxes(x, 1, 2)

    _input(side, swapped)


@fault("channels the other way round", "BGR for RGB", "basic", ("forward", "conv1"), 4)
def _(side: Side) -> None:
    _input(side, lambda x: x.flip(1) if side.torch else x[..., ::-1])


@fault("softmax in the net", "the net ends with a softmax", "basic", ("forward", "logits"), 13)
def _(side: Side) -> None:
    side.around(side.resnet.ResNet, "logits", lambda logits, self, x: side.softmax(logits(self, x)))


@fault("bias before BatchNorm", "convolutions with a bias, which the norm takes away: nothing in the output", "basic",
       None, 21)  # fmt: skip
def _(side: Side) -> None:
    side.other_row(conv_bias=True)


@fault(
    "projection in the first stage", "a convolution where the shapes need none", "projection", ("forward", "layer1.0"),
    22,
)  # fmt: skip
def _(side: Side) -> None:
    side.other_row(shortcut="project_all")
