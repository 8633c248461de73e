"""A tree of `common/diagnosis/parse.py` computed. The twin of torch_impl/play.py, on TensorFlow.

The tree's axes are N C *S, those of the tensors here N *S C, since TensorFlow's CPU has no other convolution. This is
written from what each operation means, and shares nothing with the nets in `layers.py`.
"""

import math

import numpy as np
import tensorflow as tf

from common.diagnosis.parse import Chain, Join, Layer
from common.diagnosis.tape import Arrays, Ran


def play(chain: Chain, arrays: Arrays, x: np.ndarray, training: bool = False) -> Ran:
    """What `chain` puts out for `x`, as `Live.run` does. Raises NotImplementedError for an op that it doesn't know."""
    tensors = {n: tf.constant(np.asarray(a, np.float64)) for n, a in arrays.items()}
    statistics = ("running_mean", "running_var", "moving_mean", "moving_variance")
    leaves = {n: t for n, t in tensors.items() if not n.endswith(statistics)} if training else {}
    player = Player(tensors, training)
    tensor = tf.constant(np.moveaxis(np.asarray(x, np.float64), 1, -1))
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        if training:
            tape.watch([tensor, *leaves.values()])
        output = player.chain(chain, tensor)
        loss = tf.reduce_mean(tf.square(output)) / 2
    gradients = {}
    if training:
        found = tape.gradient(loss, {"": tensor, **leaves}, unconnected_gradients="zero")
        gradients = {n: (g if n else first(g)).numpy() for n, g in found.items()}
    return Ran(first(output).numpy(), {n: t.numpy() for n, t in player.statistics.items()}, gradients)


def first(x):
    """N C *S from N *S C."""
    return tf.transpose(x, (0, x.ndim - 1, *range(1, x.ndim - 1))) if x.ndim > 2 else x


def last(x):
    """The way back."""
    return tf.transpose(x, (0, *range(2, x.ndim), 1)) if x.ndim > 2 else x


class Player:
    """`tensors` are the arrays by name; `statistics` are those that a pass in training mode leaves."""

    def __init__(self, tensors, training: bool):
        self.tensors, self.training = tensors, training
        self.statistics: dict = {}

    def chain(self, chain: Chain, x):
        for item in chain:
            x = self.join(item, x) if isinstance(item, Join) else self.layer(item, x)
        return x

    def join(self, join: Join, x):
        y, *others = [self.chain(branch, x) for branch in join.branches]
        if join.op == "concat":
            return tf.concat([y, *others], -1)
        if join.op not in ("add", "mul"):
            raise NotImplementedError(join.op)
        for other in others:
            y = y + other if join.op == "add" else y * other
        return y

    def layer(self, layer: Layer, x):
        compute = getattr(self, layer.op, None)
        if compute is None or layer.op.startswith("_"):
            raise NotImplementedError(layer.op)
        arrays = {leaf: self.array(name) for leaf, name in layer.arrays.items()}
        arrays |= {leaf: tf.stop_gradient(arrays[leaf]) for leaf in layer.attributes.get("still", ())}
        return compute(x, layer.attributes, arrays, layer)

    def array(self, names: str):
        parts = [self.statistics[n] if n in self.statistics else self.tensors[n] for n in names.split("+")]
        return parts[0] if len(parts) == 1 else tf.concat(parts, 0)

    def conv(self, x, a, w, layer):
        x, n = padded(x, a, 0.0), x.ndim - 2
        kernel = tf.reshape(w["weight"], (*w["weight"].shape[:2], *a["kernel"]))
        if (eps := a.get("standardised")) is not None:
            kernel = normed(kernel, tuple(range(1, n + 2)), eps)
        kernel = tf.transpose(kernel, (*range(2, n + 2), 1, 0))
        pairs = zip(tf.split(x, a["groups"], -1), tf.split(kernel, a["groups"], -1), strict=True)
        if kernel.shape[-2] == 1 and a["groups"] > 1:
            raise NotImplementedError("convolution of each channel by itself")
        parts = [tf.nn.convolution(p, k, list(a["stride"]), "VALID", dilations=list(a["dilation"])) for p, k in pairs]
        y = parts[0] if len(parts) == 1 else tf.concat(parts, -1)
        return y + w["bias"] if "bias" in w else y

    def linear(self, x, a, w, layer):
        y = tf.matmul(x, tf.reshape(w["weight"], (w["weight"].shape[0], -1)), transpose_b=True)
        return y + w["bias"] if "bias" in w else y

    def norm(self, x, a, w, layer):
        axes = tuple(range(x.ndim - 1))
        if a["batch"] == "always" or (a["batch"] == "in training" and self.training) or "running_mean" not in w:
            mean = tf.reduce_mean(x, axes)
            var = tf.reduce_mean(tf.square(x - mean), axes)
            if a.get("gradient") is False:
                mean, var = tf.stop_gradient(mean), tf.stop_gradient(var)
            n = math.prod(x.shape[:-1])
            batch = {"running_mean": mean, "running_var": var * (n / (n - 1) if a["unbiased"] else 1.0)}
            for leaf in batch if self.training else ():
                if leaf in w:
                    self.statistics[layer.arrays[leaf]] = (1 - a["momentum"]) * w[leaf] + a["momentum"] * batch[leaf]
        else:
            mean, var = w["running_mean"], w["running_var"]
        return self.affine((x - mean) / tf.sqrt(var + a["eps"]), a, w, layer)

    def group_norm(self, x, a, w, layer):
        return self.affine(by_groups(x, a["groups"], a["eps"]), a, w, layer)

    def affine(self, x, a, w, layer):
        x = x * tf.reshape(w["weight"], (-1,)) if "weight" in w else x
        return x + tf.reshape(w["bias"], (-1,)) if "bias" in w else x

    def max_pool(self, x, a, w, layer):
        return windows(tf.nn.max_pool, hanging(padded(x, a, a["value"]), a, -math.inf), a)

    def avg_pool(self, x, a, w, layer):
        """Sums over how much there is: of the input, and of its border too where that counts."""
        ones, x = padded(tf.ones_like(x[:1, ..., :1]), a, float(a["counts"])), padded(x, a, 0.0)
        x, ones = (hanging(t, a, 0.0) for t in (x, ones))
        return windows(tf.nn.avg_pool, x, a) / windows(tf.nn.avg_pool, ones, a)

    def mean(self, x, a, w, layer):
        if a["at"]:
            kernel, stride = a["at"]
            return tf.nn.avg_pool(x, list(kernel), list(stride), "VALID")
        return tf.reduce_mean(x, tuple(range(1, x.ndim - 1)), keepdims=True)

    def max(self, x, a, w, layer):
        return last(tf.reduce_max(first(x), a["axes"], keepdims=a["keepdims"]))

    def flatten(self, x, a, w, layer):
        return tf.reshape(x if a["order"] == "SC" else first(x), (x.shape[0], -1))

    def unflatten(self, x, a, w, layer):
        return x[:, None, None, :]

    def along_channels(self, x, a, w, layer):
        return tf.reshape(x, (x.shape[0], -1, 1))

    def of_channels(self, x, a, w, layer):
        return tf.reshape(x, (x.shape[0], *(1,) * a["axes"], -1))

    def subsample(self, x, a, w, layer):
        return x[(slice(None), *(slice(None, None, s) for s in a["stride"]))]

    def pad_channels(self, x, a, w, layer):
        return tf.pad(x, (*((0, 0),) * (x.ndim - 1), (a["before"], a["after"])))

    def pad(self, x, a, w, layer):
        return pad(x, a["before"][2:], a["after"][2:], a["value"], a.get("mode", "constant"))

    def blur(self, x, a, w, layer):
        line = np.array([0.25, 0.5, 0.25])
        if x.ndim == 3:
            raise NotImplementedError("blur of signals")
        window = np.repeat((line[:, None] * line)[..., None, None], x.shape[-1], -2)
        return tf.nn.depthwise_conv2d(x, window, (1, *a["stride"], 1), "VALID")

    def slice(self, x, a, w, layer):
        index = [slice(None)] * x.ndim
        index[a["axis"]] = slice(a["start"], a["stop"], a["step"])
        return last(first(x)[tuple(index)])

    def index(self, x, a, w, layer):
        return last(tf.gather(first(x), a["at"], axis=a["axis"]))

    def take(self, x, a, w, layer):
        return last(tf.gather(first(x), tf.constant(a["indices"]), axis=a["axis"]))

    def transpose(self, x, a, w, layer):
        return last(tf.transpose(first(x), a["axes"]))

    def shift(self, x, a, w, layer):
        return last(first(x) + a["by"])

    def scale(self, x, a, w, layer):
        return last(first(x) * a["by"])

    def cast(self, x, a, w, layer):
        return tf.cast(x, a["dtype"])

    def dropout(self, x, a, w, layer):
        return x * (1 - a["rate"]) if self.training and a.get("scaled") is False else x  # no run draws masks

    def softmax(self, x, a, w, layer):
        return last(tf.nn.softmax(first(x), a["axis"]))

    def log_softmax(self, x, a, w, layer):
        return last(tf.nn.log_softmax(first(x), a["axis"]))

    def relu(self, x, a, w, layer):
        return tf.nn.relu(x)

    def relu6(self, x, a, w, layer):
        return tf.nn.relu6(x)

    def sigmoid(self, x, a, w, layer):
        return tf.nn.sigmoid(x)

    def hard_sigmoid(self, x, a, w, layer):
        return tf.nn.relu6(x + 3) / 6

    def tanh(self, x, a, w, layer):
        return tf.nn.tanh(x)

    def gelu(self, x, a, w, layer):
        return tf.nn.gelu(x, a.get("approximate") == "tanh")

    def silu(self, x, a, w, layer):
        return tf.nn.silu(x)

    def leaky_relu(self, x, a, w, layer):
        return tf.nn.leaky_relu(x, a["negative_slope"])

    def elu(self, x, a, w, layer):
        return tf.where(x > 0, x, a["alpha"] * tf.math.expm1(tf.minimum(x, 0)))


def windows(of, x, a):
    return of(x, list(a["kernel"]), list(a["stride"]), "VALID")


def normed(x, axes: tuple[int, ...], eps: float):
    """With mean 0 and variance 1 over these axes."""
    x = x - tf.reduce_mean(x, axes, keepdims=True)
    return x / tf.sqrt(tf.reduce_mean(tf.square(x), axes, keepdims=True) + eps)


def by_groups(x, groups: int, eps: float):
    """Normed over each example's positions and each group's channels."""
    return tf.reshape(normed(tf.reshape(x, (x.shape[0], -1, groups, x.shape[-1] // groups)), (1, 3), eps), x.shape)


def padded(x, a, value: float):
    """Padded as the attributes say; "same" so that there is a window for each `stride`, the odd one behind."""
    if a["before"] != "same":
        return pad(x, a["before"], a["after"], value)
    sides = list(zip(x.shape[1:-1], a["kernel"], a["stride"], a.get("dilation", (1,) * len(a["kernel"])), strict=True))
    total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sides]
    return pad(x, [t // 2 for t in total], [t - t // 2 for t in total], value)


def hanging(x, a, value: float):
    """With what a last window that hangs over needs."""
    if not a["ceil"]:
        return x
    sides = zip(x.shape[1:-1], a["kernel"], a["stride"], a["after"], strict=True)
    more = [-(n - k) % s if -(-(n - k) // s) * s < n - e else 0 for n, k, s, e in sides]
    return pad(x, (0,) * len(more), more, value)


def pad(x, before, after, value: float, mode: str = "constant"):
    if not any((*before, *after)):
        return x
    return tf.pad(x, ((0, 0), *zip(before, after, strict=True), (0, 0)), mode, value)
