"""Mistakes that make two "identical" ResNets differ, each injected into the Keras twin, one at a time.

The proof is worth what it catches: test_faults.py requires of each fault here that `parity.compare` finds it, names the
right array as the first that differs, and finds nothing without it. `python tests/parity/faults.py` measures what each
does to the logits, for docs/traps.md. "Trap" numbers are that page's.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from common.arch import Arch, get

Inject = Callable[[pytest.MonkeyPatch], None]
FAULTS: dict[str, "Fault"] = {}

SMALL = dict(widths=(16, 20, 24), depths=(1, 1, 1), num_classes=7)
TINY = dict(widths=(8, 16), depths=(1, 1), num_classes=7)
NETS: dict[str, tuple[Arch, tuple[int, ...]]] = {  # name: (row, size of the images)
    "basic": (get("cifar_resnet20", **SMALL), (16, 12)),
    "option A": (get("cifar_resnet20", **SMALL, shortcut="pad"), (16, 12)),
    "projection": (get("cifar_resnet20", **SMALL, shortcut="project"), (16, 12)),
    "bottleneck": (get("resnet50", **TINY, stem={"convs": [[8, 7, 2]]}), (36, 28)),
    "D": (get("resnet18d", **TINY), (33, 26)),
    "pre-activation": (get("resnetv2_18", widths=(8, 8, 16), depths=(1, 2, 1), num_classes=7), (36, 28)),
    "groups": (get("resnext50_32x4d", **{**TINY, "widths": (16, 32)}, groups=4, width_per_group=16), (36, 28)),
    "SE": (get("seresnet18", **TINY), (36, 28)),
    "dropped": (get("cifar_wrn16_8", **SMALL, dropout=0.4, drop_path=0.5), (16, 12)),
    "three kernels": (get("msresnet_1d", num_classes=5), (64,)),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One mistake, and what the comparison has to say of it."""

    name: str
    trap: int | None  # of docs/traps.md's list
    says: str  # what the mistake is
    net: str  # of NETS
    first: tuple[str, str] | None  # (check, name) of the first array that differs; None where counts differ alone
    inject: Inject
    checks: tuple[str, ...] = ("forward",)
    dtypes: tuple[str, ...] = ("float64",)
    verdict: str = "different"
    size: tuple[int, ...] = field(default=())  # another size than the net's

    def images(self) -> np.ndarray:
        arch, size = NETS[self.net]
        return np.random.default_rng(3).standard_normal((4, arch.in_channels, *(self.size or size)))


def fault(name: str, says: str, net: str, first: tuple[str, str] | None, trap: int | None = None, **more):
    """Registers the function below as the injection of a fault."""

    def register(inject: Inject) -> Inject:
        FAULTS[name] = Fault(name, trap, says, net, first, inject, **more)
        return inject

    return register


TRAIN = dict(checks=("forward", "train"))
GRADIENTS = dict(checks=("forward", "train", "gradients"))
STEPS = dict(checks=("forward", "train", "gradients", "steps"))


def built(mp: pytest.MonkeyPatch, change: Callable) -> None:
    """Every net that Keras builds is changed after it was built."""
    import keras_impl

    make = keras_impl.create_model

    def made(*args, **kwargs):
        net = make(*args, **kwargs)
        change(net)
        return net

    mp.setattr(keras_impl, "create_model", made)


def carried(mp: pytest.MonkeyPatch, change: Callable) -> None:
    """The weights are changed on their way into Keras: `change` gets a dict of copies."""
    import keras_impl

    make = keras_impl.create_model

    def made(arch, *, weights, **kwargs):
        weights = {name: w.copy() for name, w in weights.items()}
        change(weights)
        return make(arch, weights=weights, **kwargs)

    mp.setattr(keras_impl, "create_model", made)


def layer(net, path: str):
    for part in path.split("."):
        net = net.members[int(part)] if part.isdigit() else getattr(net, part)
    return net


def norms(net):
    from keras_impl.layers import BatchNorm
    from keras_impl.weights import named_layers

    return [x for _, x in named_layers(net) if isinstance(x, BatchNorm)]


# ---- what a layer computes


@fault("same padding", 'padding="same" at stride 2, for PyTorch\'s k // 2 on both sides', "basic",
       ("forward", "layer2.0.conv1"), 1)  # fmt: skip
def _(mp):
    def same(net):
        conv = layer(net, "layer2.0.conv1")
        conv.before, conv.padding = None, "same"

    built(mp, same)


@fault("same padding in the stem", 'padding="same" in the 7x7 convolution', "bottleneck", ("forward", "conv1"), 1)
def _(mp):
    def same(net):
        net.conv1.before, net.conv1.padding = None, "same"

    built(mp, same)


@fault(
    "stride on the first 1x1", "v1 for v1.5: same shapes, same count", "bottleneck", ("forward", "layer2.0.conv1"), 6
)
def _(mp):
    def v1(net):
        a, b = layer(net, "layer2.0.conv1"), layer(net, "layer2.0.conv2")
        a.strides, a.padding = (2, 2), "valid"
        b.strides, b.before, b.padding = (1, 1), None, "same"

    built(mp, v1)


@fault("epsilon 1e-3", "Keras' BatchNorm epsilon for PyTorch's 1e-5", "basic", ("forward", "bn1"), 5)
def _(mp):
    built(mp, lambda net: [setattr(n, "epsilon", 1e-3) for n in norms(net)])


@fault("epsilon 1.001e-5", "keras.applications' epsilon for PyTorch's 1e-5", "basic", ("forward", "bn1"), 5,
       verdict="suspicious")  # fmt: skip
def _(mp):
    built(mp, lambda net: [setattr(n, "epsilon", 1.001e-5) for n in norms(net)])


@fault("max pool same", 'max pooling with "same"', "bottleneck", ("forward", "maxpool"), 12)
def _(mp):
    from keras import ops

    from keras_impl.layers import MaxPool

    mp.setattr(MaxPool, "call", lambda self, x: ops.max_pool(x, 3, 2, "same", "channels_last"))


@fault("max pool with zeros", "a border of zeros where the stem can be negative", "pre-activation",
       ("forward", "maxpool"), 12)  # fmt: skip
def _(mp):
    from keras import ops

    from keras_impl.layers import MaxPool

    mp.setattr(MaxPool, "call", lambda self, x: ops.max_pool(ops.pad(x, self.before), 3, 2, "valid", "channels_last"))


@fault("average pool counts padding", "ResNet-D's pool divides by its full width at the border of odd sizes", "D",
       ("forward", "layer2.0.downsample.0"), 25)  # fmt: skip
def _(mp):
    from keras import ops

    from keras_impl import blocks
    from keras_impl.model import Module

    class Counting(Module):
        def call(self, x):
            h, w = ops.shape(x)[1:3]
            if h is None:  # a graph of symbols: of the same shape as the honest pooling's
                return ops.average_pool(x, 2, 2, "same", "channels_last")
            return ops.average_pool(
                ops.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0))), 2, 2, "valid", "channels_last"
            )

    pool = blocks.pool
    mp.setattr(blocks, "pool", lambda p: Counting() if p and p.stride == 2 else pool(p))


@fault("one position for the mean", "the first position is taken for global average pooling", "basic",
       ("forward", "fc"), 26)  # fmt: skip
def _(mp):
    from keras_impl import resnet

    mp.setattr(resnet, "spatial_mean", lambda x, dims: x[:, 0, 0, :])


@fault("float32 inside", "one operation of a float64 net in float32, as Keras' own mean on JAX and torch", "basic",
       ("forward", "fc"), None, verdict="suspicious")  # fmt: skip
def _(mp):
    from keras import ops

    from keras_impl import resnet

    mp.setattr(resnet, "spatial_mean", lambda x, dims: ops.cast(ops.mean(ops.cast(x, "float32"), (1, 2)), x.dtype))


@fault("fewer bits", "float32 products of operands with 10 bits, as TF32 has them", "basic", ("forward", "conv1"), 18,
       dtypes=("float64", "float32"))  # fmt: skip
def _(mp):
    from keras_impl.layers import _Conv

    call = _Conv.call

    def rounded(self, x):
        if self.compute_dtype == "float32":
            scale = np.float32(2.0**13 + 1)  # Veltkamp's splitting keeps the upper bits
            x = x * scale - (x * scale - x)
        return call(self, x)

    mp.setattr(_Conv, "call", rounded)


@fault("groups interleaved", "group g takes channels g, g + groups, ... and not a run of them", "groups",
       ("forward", "layer1.0.conv2"), 19)  # fmt: skip
def _(mp):
    from keras import ops

    from keras_impl.layers import _Conv

    call = _Conv.call

    def interleaved(self, x):
        if self.groups > 1:
            n, h, w, c = x.shape
            x = ops.reshape(
                ops.transpose(ops.reshape(x, (n, h, w, c // self.groups, self.groups)), (0, 1, 2, 4, 3)), x.shape
            )
        return call(self, x)

    mp.setattr(_Conv, "call", interleaved)


@fault("hard sigmoid", "squeeze-and-excitation with a hard sigmoid", "SE", ("forward", "layer1.0.se"))
def _(mp):
    from keras import ops

    from keras_impl import blocks

    mp.setattr(blocks, "sigmoid", ops.hard_sigmoid)


# ---- how layers are put together


@fault("option A at the end", "zero channels behind, and not on both sides", "option A",
       ("forward", "layer2.0.downsample"), 23)  # fmt: skip
def _(mp):
    def behind(net):
        for stage in (net.layer2, net.layer3):
            s = stage.members[0].downsample
            s.before, s.after = 0, s.before + s.after

    built(mp, behind)


@fault("identity after BN-ReLU", "a pre-activation block adds relu(bn1(x)), and not x", "pre-activation",
       ("forward", "layer2.1"), 24)  # fmt: skip
def _(mp):
    built(mp, lambda net: setattr(layer(net, "layer2.1"), "of_preactivation", True))


@fault("projection of the raw input", "a pre-activation projection reads x, and not relu(bn1(x))", "pre-activation",
       ("forward", "layer3.0.downsample.0"), 24)  # fmt: skip
def _(mp):
    built(mp, lambda net: setattr(layer(net, "layer3.0"), "of_preactivation", False))


@fault("no last BN-ReLU", "a pre-activation net without the norm after its last stage", "pre-activation",
       ("forward", "norm"), 24)  # fmt: skip
def _(mp):
    from keras_impl import resnet

    call = resnet.ResNet.pooled

    def pooled(self, trunk, x):
        import dataclasses

        return call(self, dataclasses.replace(trunk, norm=None), x)

    mp.setattr(resnet.ResNet, "pooled", pooled)


@fault(
    "ReLU before the addition",
    "a block's last ReLU on its branch, and not on the sum",
    "basic",
    ("forward", "layer1.0"),
)
def _(mp):
    from keras_impl import blocks

    mp.setattr(blocks, "add", lambda y, s: y if s is None else blocks.relu(y) + s)


@fault("trunks in another order", "the features of several kernels are joined the other way round", "three kernels",
       ("forward", "fc"))  # fmt: skip
def _(mp):
    from keras_impl import resnet

    concat = resnet.concat
    mp.setattr(resnet, "concat", lambda xs: concat(xs[::-1]))


@fault("height and width swapped", "the input comes as N W H C", "basic", ("forward", "conv1"), 8, size=(12, 12))
def _(mp):
    from keras import ops

    from keras_impl.resnet import ResNet

    stem = ResNet.stem
    mp.setattr(ResNet, "stem", lambda self, x: stem(self, ops.swapaxes(x, 1, 2)))


@fault("channels the other way round", "BGR for RGB", "basic", ("forward", "conv1"), 4)
def _(mp):
    from keras_impl.resnet import ResNet

    stem = ResNet.stem
    mp.setattr(ResNet, "stem", lambda self, x: stem(self, x[..., ::-1]))


@fault("softmax in the net", "the net ends with a softmax", "basic", ("forward", "logits"), 13)
def _(mp):
    from keras import ops

    from keras_impl.resnet import ResNet

    logits = ResNet.logits
    mp.setattr(ResNet, "logits", lambda self, x: ops.softmax(logits(self, x)))


@fault("bias before BatchNorm", "convolutions with a bias, which the norm takes away: nothing in the output", "basic",
       None, 21)  # fmt: skip
def _(mp):
    _other_row(mp, conv_bias=True)


@fault(
    "projection in the first stage",
    "a convolution where the shapes need none",
    "projection",
    ("forward", "layer1.0"),
    22,
)
def _(mp):
    _other_row(mp, shortcut="project_all")


def _other_row(mp, **change) -> None:
    import dataclasses

    import keras_impl
    from common.init import initial

    make = keras_impl.create_model

    def made(arch, *, weights, **kwargs):
        other = dataclasses.replace(arch, **change)
        return make(other, weights={**initial(other, 0), **weights}, **kwargs)

    mp.setattr(keras_impl, "create_model", made)


# ---- how weights are carried


@fault("kernel height and width swapped", "a transpose that fits all the same", "basic", ("forward", "conv1"), 8)
def _(mp):
    carried(mp, lambda w: w.update({n: v.swapaxes(2, 3) for n, v in w.items() if v.ndim == 4}))


@fault(
    "kernel in and out swapped", "a transpose that fits where both are equal", "basic", ("forward", "layer1.0.conv1"), 8
)
def _(mp):
    square = {"layer1.0.conv1.weight", "layer1.0.conv2.weight"}
    carried(mp, lambda w: w.update({n: w[n].swapaxes(0, 1) for n in square}))


@fault("gamma and beta swapped", "scale for shift, in every norm", "basic", ("forward", "bn1"), 8)
def _(mp):
    def swap(w):
        for name in [n for n in w if n.endswith("running_mean")]:
            a, b = (name.replace("running_mean", leaf) for leaf in ("weight", "bias"))
            w[a], w[b] = w[b], w[a]

    carried(mp, swap)


@fault("mean and variance swapped", "running_mean for running_var, made positive", "basic", ("forward", "bn1"), 8)
def _(mp):
    def swap(w):
        for name in [n for n in w if n.endswith("running_mean")]:
            other = name.replace("mean", "var")
            w[name], w[other] = w[other], np.abs(w[name])

    carried(mp, swap)


@fault("memory in another order", "a transposed view saved as if it were contiguous (safetensors issue 825)", "basic",
       ("forward", "conv1"), 7)  # fmt: skip
def _(mp):
    def reordered(w):
        for n, v in w.items():
            if v.ndim == 4:  # Keras' order of memory under PyTorch's shape
                w[n] = np.ascontiguousarray(v.transpose(2, 3, 1, 0)).reshape(v.shape)

    carried(mp, reordered)


@fault("layers swapped", "two layers of one class and shape change places, as in a file that has order and no names",
       "basic", ("forward", "layer1.0.conv1"), 14)  # fmt: skip
def _(mp):
    def swap(w):
        a, b = "layer1.0.conv1.weight", "layer1.0.conv2.weight"
        w[a], w[b] = w[b], w[a]

    carried(mp, swap)


@fault("norms swapped", "bn1 for bn2: nothing at all in a fresh net", "basic", ("forward", "layer1.0.bn1"), 14)
def _(mp):
    def swap(w):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            a, b = (f"layer1.0.{n}.{leaf}" for n in ("bn1", "bn2"))
            w[a], w[b] = w[b], w[a]

    carried(mp, swap)


@fault(
    "classes in another order", "the same logits, sorted: hidden from a checker that sorts", "basic", ("forward", "fc")
)
def _(mp):
    def reversed_(w):
        w["fc.weight"], w["fc.bias"] = w["fc.weight"][::-1].copy(), w["fc.bias"][::-1].copy()

    carried(mp, reversed_)


@fault("a constant on all logits", "hidden from a checker that compares the softmax", "basic", ("forward", "fc"))
def _(mp):
    carried(mp, lambda w: w.update({"fc.bias": w["fc.bias"] + 0.1}))


@fault("two logits off, the mean alike", "hidden from a checker that compares means", "basic", ("forward", "fc"))
def _(mp):
    carried(mp, lambda w: w.update({"fc.bias": w["fc.bias"] + np.array([0.1, -0.1] + [0.0] * 5, np.float32)}))


# ---- training mode


@fault("momentum 0.99", "Keras' default for PyTorch's 0.1", "basic", ("train", "bn1.running_mean"), 2, **TRAIN)
def _(mp):
    from keras_impl import layers

    mp.setattr(layers, "MOMENTUM", 0.01)


@fault(
    "momentum 0.1 for 0.9", "PyTorch's number under Keras' meaning", "basic", ("train", "bn1.running_mean"), 2, **TRAIN
)
def _(mp):
    from keras_impl import layers

    mp.setattr(layers, "MOMENTUM", 0.9)


@fault(
    "biased variance",
    "Keras' running variance, without n / (n - 1)",
    "basic",
    ("train", "bn1.running_var"),
    11,
    **TRAIN,
)
def _(mp):
    from keras_impl.layers import MOMENTUM, BatchNorm
    from keras_impl.model import is_training

    call = BatchNorm.call

    def biased(self, x, training=None, mask=None):
        n, before = np.prod(x.shape[:-1]), np.asarray(self.moving_variance)
        y = call(self, x, training)
        if is_training(training):
            kept = before * (1 - MOMENTUM)
            self.moving_variance.assign(kept + (np.asarray(self.moving_variance) - kept) * (n - 1) / n)
        return y

    mp.setattr(BatchNorm, "call", biased)


@fault("statistics stand still", "the batch normalises, and nothing is kept of it", "basic",
       ("train", "bn1.running_mean"), 3, **TRAIN)  # fmt: skip
def _(mp):
    from keras_impl import layers

    mp.setattr(layers, "MOMENTUM", 0.0)


@fault(
    "frozen norms",
    "a norm that runs in evaluation mode while the net trains",
    "basic",
    ("train", "layer2.0.bn1"),
    3,
    **TRAIN,
)
def _(mp):
    built(mp, lambda net: setattr(layer(net, "layer2.0.bn1"), "trainable", False))


@fault(
    "dropout unscaled", "what survives dropout isn't scaled up", "dropped", ("train", "layer1.0.dropout"), None, **TRAIN
)
def _(mp):
    from keras_impl.layers import Dropout

    call = Dropout.call

    def unscaled(self, x, training=None):
        y = call(self, x, training)
        return y * (1 - self.rate) if y is not x else y

    mp.setattr(Dropout, "call", unscaled)


@fault("stochastic depth by element", "a mask for each element, and not for each example", "dropped",
       ("train", "layer1.0.drop_path"), None, **TRAIN)  # fmt: skip
def _(mp):
    from keras_impl.layers import Dropout, DropPath

    mp.setattr(DropPath, "call", Dropout.call)


@fault("softmax in the loss", "the loss takes a softmax for logits", "basic", ("train", "loss"), 13, **TRAIN)
def _(mp):
    from keras import ops

    from keras_impl import autodiff

    loss_of = autodiff.loss_of
    mp.setattr(autodiff, "loss_of", lambda logits, labels: loss_of(ops.softmax(ops.convert_to_tensor(logits)), labels))


@fault(
    "loss of a sum", "the loss is summed over the batch, and not averaged", "basic", ("train", "loss"), None, **TRAIN
)
def _(mp):
    from keras_impl import autodiff

    loss_of = autodiff.loss_of
    mp.setattr(autodiff, "loss_of", lambda logits, labels: loss_of(logits, labels) * 4)


# ---- gradients


@fault("statistics without gradient", "nothing is differentiated through the batch's mean and variance", "basic",
       ("gradients", "conv1.weight"), None, **GRADIENTS)  # fmt: skip
def _(mp):
    from keras import ops

    from keras_impl import engines

    mean = engines.mean
    mp.setattr(
        engines,
        "mean",
        lambda x, axes, keepdims=False: ops.stop_gradient(mean(x, axes)) if 0 in axes else mean(x, axes, keepdims),
    )


@fault(
    "gradient of the last bias lost",
    "one gradient is that of nothing",
    "basic",
    ("gradients", "fc.bias"),
    None,
    **GRADIENTS,
)
def _(mp):
    from keras import ops

    from keras_impl.layers import Dense

    mp.setattr(
        Dense, "call", lambda self, x, training=None: x @ ops.convert_to_tensor(self.kernel)
        + ops.stop_gradient(ops.convert_to_tensor(self.bias))
    )  # fmt: skip


# ---- steps


def stepping(mp, rule, attribute: str, value: Callable) -> None:
    """The rule's step runs with `value(optimizer, variable, rate)` for one of its numbers."""
    step = rule.update_step

    def changed(self, gradient, variable, learning_rate):
        before = getattr(self, attribute)
        setattr(self, attribute, value(self, variable, learning_rate))
        step(self, gradient, variable, learning_rate)
        setattr(self, attribute, before)

    mp.setattr(rule, "update_step", changed)


@fault("decoupled weight decay", "Keras' rule in SGD: ten times weaker under momentum 0.9", "basic",
       ("steps sgd 1", "conv1.weight momentum"), 9, **STEPS)  # fmt: skip
def _(mp):
    from keras_impl import optim

    def apart(self, variable, learning_rate):
        self.assign(variable, self._wide(variable, variable) * (1 - self._wide(learning_rate, variable) * self.decay))
        return 0.0

    stepping(mp, optim.SGD, "decay", apart)


@fault("momentum holds the rate", "Keras' SGD: equal until the learning rate changes", "basic",
       ("steps sgd 3", "conv1.weight"), 10, **STEPS)  # fmt: skip
def _(mp):
    from keras_impl import optim

    def held(self, gradient, variable, learning_rate):
        g, p, rate = (self._wide(value, variable) for value in (gradient, variable, learning_rate))
        g = g + self.decay * p
        buffer = self.momenta[self._get_variable_index(variable)]
        scale = getattr(self, "scale", None) or float(rate)  # the buffer, told in PyTorch's unit of the first rate
        self.scale = scale
        v = self.momentum * self._wide(buffer, variable) + g * (rate / scale)
        self.assign(buffer, v)
        step = self.momentum * v + g * (rate / scale) if self.nesterov else v
        self.assign(variable, p - scale * step)

    mp.setattr(optim.SGD, "update_step", held)


@fault(
    "no Nesterov",
    "plain momentum where Nesterov's was asked for",
    "basic",
    ("steps nesterov 1", "conv1.weight"),
    None,
    **STEPS,
)
def _(mp):
    from keras_impl import optim

    make = optim.SGD.__init__

    def plain(self, rate, momentum=0.0, nesterov=False, weight_decay=0.0, **kwargs):
        make(self, rate, momentum, False, weight_decay, **kwargs)

    mp.setattr(optim.SGD, "__init__", plain)


@fault("decay spares norms", "no weight decay on scales and biases, as many recipes have it", "basic",
       ("steps sgd 1", "bn1.weight"), None, **STEPS)  # fmt: skip
def _(mp):
    from keras_impl import optim

    stepping(mp, optim.SGD, "decay", lambda self, variable, rate: self.decay if len(variable.shape) > 1 else 0.0)


@fault("Adam's epsilon inside", "Keras' Adam adds epsilon before the bias correction", "basic",
       ("steps adam 1", "conv1.weight"), 20, **STEPS)  # fmt: skip
def _(mp):
    from keras_impl import optim

    def early(self, variable, learning_rate):
        return self.epsilon / (1 - self.beta_2 ** (float(self.iterations) + 1)) ** 0.5

    stepping(mp, optim.Adam, "epsilon", early)


@fault(
    "AdamW coupled",
    "AdamW's decay in the gradient, as Adam has it",
    "basic",
    ("steps adamw 1", "conv1.weight"),
    9,
    **STEPS,
)
def _(mp):
    from keras_impl import optim

    mp.setattr(optim.AdamW, "coupled", True)


def measure(fault: Fault, inject: bool = True):
    """The comparison of the fault's net with PyTorch's, with the fault or without it."""
    from common.parity import comparison as parity
    from common.parity.backends import Here

    with pytest.MonkeyPatch.context() as mp:
        if inject:
            fault.inject(mp)
        return parity.compare(
            NETS[fault.net][0],
            fault.images(),
            backends=(Here("torch"), Here("keras:tensorflow")),
            checks=fault.checks,
            dtypes=fault.dtypes,
        )


def first(result):
    """(check, name, figure) of the first array that differs, in the first dtype that has one; None if none does."""
    for dtype in result.dtypes:
        over = result.first_over("keras:tensorflow", dtype)
        if over:
            return over
    return None


def figure(relative: float) -> str:
    return f"{relative:.1e}" if relative < float("inf") else "no such array, or another shape"


def main(path: Path) -> None:
    """Writes the table of docs/traps.md, between its marks."""
    begin, end = "<!-- faults: make traps -->", "<!-- end of faults -->"
    lines = [
        "| trap | fault | what is wrong | first that differs | by | logits | verdict |",
        "|--:|---|---|---|--:|--:|---|",
    ]
    for f in FAULTS.values():
        result = measure(f)
        over = first(result)
        rows = result.rows["keras:tensorflow", f.dtypes[-1]]
        logits = next(d for d in rows if (d.check, d.part) == ("forward", "logits")).relative
        after = [d.relative for d in rows if d.part == "logits after"]
        said = f"{logits:.1e}" if logits > 1e-12 or not after else f"{logits:.0e}; {max(after):.1e} after 3 steps"
        what = (f"`{over.name}` ({over.check})", figure(over.relative)) if over else ("the count", "")
        lines.append(f"| {f.trap or ''} | {f.name} | {f.says} | {what[0]} | {what[1]} | {said} | {result.verdict} |")
    before, rest = path.read_text().split(begin)
    path.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "docs/traps.md"))
