"""What TensorFlow's functions are on a tape, those that say more than the operations that they are made of.

Axes are told by labels: for each axis of her tensor the axis of N C *S that it is, so (0, 2, 3, 1) for N H W C. A
handler takes the recorder and the function's own arguments, and gives its steps, each (op, numbers of the inputs,
attributes, arrays, shape in N C *S where it isn't the result's), and the labels of the results. None for an input is
what the step before gave. It raises `Unknown` where the vocabulary has no words.
"""

import math

import numpy as np


class Unknown(Exception):
    """A call that the vocabulary has no words for."""


def of_format(rank: int, last: bool) -> tuple[int, ...]:
    """The labels of a tensor whose channels are last, or second."""
    return (0, *range(2, rank), 1) if last and rank > 2 else tuple(range(rank))


def turned(values, labels: tuple[int, ...]):
    """One value an axis of hers, in the order of N C *S."""
    return tuple(values[labels.index(axis)] for axis in range(len(labels)))


def ints(values) -> list[int]:
    return [int(v) for v in np.asarray(values).reshape(-1)]


def text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _each(value, n: int) -> tuple[int, ...]:
    """A number for each of `n` axes, from one, n, or n + 2 with those of N and C."""
    values = ints(value)
    if len(values) == n + 2:
        values = values[1:-1] if values[-1] == 1 else values[2:]
    return tuple(values * n if len(values) == 1 else values)


def borders(padding, x, labels, kernel, stride, dilation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(before, after) of a window: TensorFlow's "same" has a window for each `stride`, and the odd one behind."""
    sizes = turned(x.shape, labels)[2:]
    if not isinstance(padding, str | bytes):  # explicit: pairs, an axis of hers each
        pairs = turned(np.asarray(padding).reshape(-1, 2).tolist(), labels)[2:]
        return tuple(b for b, _ in pairs), tuple(a for _, a in pairs)
    if text(padding).upper() != "SAME":
        return (0,) * len(sizes), (0,) * len(sizes)
    sides = zip(sizes, kernel, stride, dilation, strict=True)
    total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sides]
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


def format_of(x, data_format) -> tuple[int, ...]:
    return of_format(len(x.shape), not (data_format and text(data_format).startswith("NC")))


def in_format(r, x, data_format) -> tuple[int, ...]:
    labels = r.labels(x)
    if labels != format_of(x, data_format):
        raise Unknown
    return labels


def convolution(r, input, filters, strides=None, padding="VALID", data_format=None, dilations=None, name=None):
    attributes, labels = window(r, input, filters, strides, padding, data_format, dilations)
    attributes["groups"] = int(turned(input.shape, labels)[1]) // int(filters.shape[-2])
    if found := r.standardised(filters):
        attributes["standardised"] = found[1]
        return [("conv", (r.of(input),), attributes, {"weight": found[0]})], labels
    return [("conv", (r.of(input),), attributes, r.arrays(weight=filters))], labels


def window(r, input, filters, strides, padding, data_format, dilations):
    labels, n = in_format(r, input, data_format), len(input.shape) - 2
    kernel = tuple(filters.shape[:n])
    stride, dilation = _each(1 if strides is None else strides, n), _each(1 if dilations is None else dilations, n)
    before, after = borders(padding, input, labels, kernel, stride, dilation)
    return dict(kernel=kernel, stride=stride, before=before, after=after, dilation=dilation), labels


def pooling(op: str):
    def handler(r, input, ksize, strides=None, padding="VALID", data_format=None, name=None):
        labels, n = in_format(r, input, data_format), len(input.shape) - 2
        kernel, stride = _each(ksize, n), _each(ksize if strides is None else strides, n)
        before, after = borders(padding, input, labels, kernel, stride, (1,) * n)
        same = isinstance(padding, str | bytes) and text(padding).upper() == "SAME"
        hangs = same and max(kernel) < 3 and all(k <= s for k, s in zip(kernel, stride, strict=True))
        if hangs:  # which is PyTorch's `ceil_mode`, whatever the size
            before = after = (0,) * n
        own = dict(counts=False) if op == "avg_pool" else dict(value=-math.inf)
        attributes = dict(kernel=kernel, stride=stride, before=before, after=after, ceil=hangs) | own
        return [(op, (r.of(input),), attributes, {})], labels

    return handler


def batch_normalization(r, x, mean, variance, offset, scale, variance_epsilon, name=None):
    labels = r.labels(x)
    attributes = dict(eps=float(variance_epsilon), momentum=None, batch=r.depends(mean), unbiased=None)
    if attributes["batch"] and id(mean) in r.stopped:
        attributes["gradient"] = False
    leaves = dict(weight=scale, bias=offset)
    if attributes["batch"]:
        r.normalised(x, mean, variance, labels)
    else:
        leaves |= dict(running_mean=mean, running_var=variance)
    return [("norm", (r.of(x),), attributes, r.arrays(**leaves))], labels


def group_normalization(r, layer, inputs):
    """A layer's call as a whole, Keras' own or ours."""
    labels = r.labels(inputs)
    if labels[getattr(layer, "axis", -1)] != 1:
        raise Unknown
    leaves = dict(weight=getattr(layer, "gamma", None), bias=getattr(layer, "beta", None))
    groups = layer.groups if layer.groups > 0 else int(inputs.shape[labels.index(1)])
    return [("group_norm", (r.of(inputs),), dict(eps=float(layer.epsilon), groups=groups), r.arrays(**leaves))], labels


def matmul(r, x1, x2):
    """With a matrix of parameters, over the channels: a linear layer, or at each position a 1x1 convolution."""
    labels, arrays, n = r.labels(x1), r.arrays(weight=x2), len(x1.shape) - 2
    if len(x2.shape) != 2 or labels[-1] != 1:
        raise Unknown
    if not n:
        return [("linear", (r.of(x1),), {}, arrays)], labels
    one, none = (1,) * n, (0,) * n
    attributes = dict(kernel=one, stride=one, before=none, after=none, dilation=one, groups=1)
    return [("conv", (r.of(x1),), attributes, arrays)], labels


def dropout(r, inputs, rate, noise_shape=None, **kwargs):
    labels = r.labels(inputs)
    shape = list(inputs.shape) if noise_shape is None else [
        n if s is None else int(s) for s, n in zip(list(noise_shape), inputs.shape, strict=True)
    ]  # fmt: skip
    sizes = zip(turned(shape, labels), turned(inputs.shape, labels), strict=True)
    shared = tuple(i for i, (s, n) in enumerate(sizes) if i and s == 1 and n > 1)
    return [("dropout", (r.of(inputs),), dict(rate=float(rate), shared=shared), {})], labels


def activation(op: str, **given):
    """`given`: attributes of ours, each a number, or the name of hers."""

    def handler(r, x, *args, **kwargs):
        if args or kwargs.get("beta", 1.0) != 1.0:
            raise Unknown
        values = {ours: float(kwargs[v] if isinstance(v, str) else v) for ours, v in given.items()}
        return [(op, (r.of(x),), values, {})], r.labels(x)

    return handler


def gelu(r, x, approximate=False, **kwargs):
    return [("gelu", (r.of(x),), dict(approximate="tanh") if approximate else {}, {})], r.labels(x)


FUNCTIONS = {  # of tf.nn
    "batch_normalization": batch_normalization,
    "convolution": convolution,
    "max_pool": pooling("max_pool"),
    "avg_pool": pooling("avg_pool"),
    "silu": activation("silu"),
    "swish": activation("silu"),
    "gelu": gelu,
}
OF_KERAS = {  # of its backend's nn
    "hard_sigmoid": activation("hard_sigmoid"),
    "hard_silu": activation("hard_swish"),
    "hard_tanh": activation("hardtanh", min_val=-1.0, max_val=1.0),
}
