"""What TensorFlow's operations are on a tape (`common/diagnosis/tape.py`): the vocabulary's word and its attributes.

The twin of torch_impl/calls.py. A handler takes the recorder, an operation's inputs and its attributes; what it gives
is what those of functions.py do, which says how axes are told.
"""

import math

import numpy as np

from keras_impl.functions import (
    Unknown,
    activation,
    convolution,
    in_format,
    ints,
    matmul,
    of_format,
    pooling,
    text,
    turned,
    window,
)

STILL = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")  # what says nothing of their input's values


def _pointwise(op: str, **given):
    handler = activation(op, **given)
    return lambda r, inputs, a: handler(r, inputs[0], **a)


def _same(r, inputs, a):
    return [("identity", (r.of(inputs[0]),), {}, {})], r.labels(inputs[0])


def _cast(r, inputs, a):
    x = inputs[0]
    wanted = np.dtype(a["DstT"].as_numpy_dtype) if hasattr(a["DstT"], "as_numpy_dtype") else None
    if wanted is None or wanted.kind != "f":
        raise Unknown
    return [("cast", (r.of(x),), dict(dtype=wanted.name), {})], r.labels(x)


def _conv(r, inputs, a):
    x, kernel = inputs
    padding = a["explicit_paddings"] if text(a["padding"]) == "EXPLICIT" else a["padding"]
    return convolution(r, x, kernel, a["strides"], padding, a["data_format"], a["dilations"])


def _depthwise(r, inputs, a):
    x, kernel = inputs
    arrays = r.depthwise(kernel)
    padding = a["explicit_paddings"] if text(a["padding"]) == "EXPLICIT" else a["padding"]
    attributes, labels = window(r, x, kernel, a["strides"], padding, a["data_format"], a["dilations"])
    return [("conv", (r.of(x),), {**attributes, "groups": int(kernel.shape[2])}, arrays)], labels


def _pool(op: str):
    handler = pooling(op)

    def of_operation(r, inputs, a):
        padding = a["explicit_paddings"] if text(a["padding"]) == "EXPLICIT" else a["padding"]
        return handler(r, inputs[0], a["ksize"], a["strides"], padding, a["data_format"])

    return of_operation


def _bias(r, inputs, a):
    x, bias = inputs
    in_format(r, x, a.get("data_format"))
    return [("affine", (r.of(x),), r.still(bias=bias), r.arrays(bias=bias))], r.labels(x)


def _matmul(r, inputs, a):
    if any(a.get(name) for name in ("transpose_a", "transpose_b", "adj_x", "adj_y")):
        raise Unknown
    return matmul(r, *inputs)


def _binary(op: str):
    """Of two tensors; with a constant a shift or a scale; with a parameter an affine map of the channels."""

    def handler(r, inputs, a):
        known = [r.depends(t) for t in inputs]
        if all(known):
            labels = r.labels(inputs[0])
            if labels != r.labels(inputs[1]):
                raise Unknown
            return [(op, tuple(map(r.of, inputs)), {}, {})], labels
        x, other = inputs if known[0] else inputs[::-1]
        labels, rank = r.labels(x), len(x.shape)
        if op in ("sub", "div") and not known[0]:
            raise Unknown
        shape = (*(1,) * (rank - len(other.shape)), *other.shape)
        if len(shape) > rank:
            raise Unknown
        shape = turned(shape, labels)
        rate = r.rate(other)
        if rate is not None and op == "mul":
            shared = tuple(i for i in range(1, rank) if shape[i] == 1 and turned(x.shape, labels)[i] > 1)
            return [("dropout", (r.of(x),), dict(rate=rate, shared=shared), {})], labels
        if r.named(other):
            if op not in ("add", "mul") or any(n > 1 for i, n in enumerate(shape) if i != 1):
                raise Unknown
            leaf = "weight" if op == "mul" else "bias"
            return [("affine", (r.of(x),), r.still(**{leaf: other}), r.arrays(**{leaf: other}))], labels
        by = np.asarray(r.constant(other), np.float64)
        by = {"sub": np.negative, "div": np.reciprocal}.get(op, lambda c: c)(by)
        if (by == by.flat[0]).all():
            by = float(by.flat[0])
        else:
            by = by.reshape((1,) * (rank - by.ndim) + by.shape).transpose([labels.index(axis) for axis in range(rank)])
        return [("shift" if op in ("add", "sub") else "scale", (r.of(x),), dict(by=by), {})], labels

    return handler


def _maximum(r, inputs, a):
    x, other = inputs if r.depends(inputs[0]) else inputs[::-1]
    if r.depends(other) or np.any(r.constant(other)):
        raise Unknown
    return [("relu", (r.of(x),), {}, {})], r.labels(x)


def _reduced(op: str):
    def handler(r, inputs, a):
        x, labels = inputs[0], r.labels(inputs[0])
        axes = [axis % len(labels) for axis in ints(r.constant(inputs[1]))]
        kept = [label for axis, label in enumerate(labels) if axis not in axes]
        keepdims = bool(a["keep_dims"])
        after = labels if keepdims else tuple(sorted(kept).index(label) for label in kept)
        attributes = dict(axes=tuple(sorted(labels[axis] for axis in axes)), keepdims=keepdims)
        if op != "sum":
            return [(op, (r.of(x),), attributes, {})], after
        count = float(math.prod(x.shape[axis] for axis in axes))
        return [("mean", (r.of(x),), attributes, {}), ("scale", (None,), dict(by=count), {})], after

    return handler


def _reshape(r, inputs, a, shape=None):
    x, labels = inputs[0], r.labels(inputs[0])
    old, new = tuple(x.shape), tuple(shape)
    behind = _channels_behind(labels)
    ahead = len(old) - behind
    order = "CS"
    if not behind or len(old) < 3:
        after = of_format(len(new), r.last and len(old) < 3)
    elif new[-1] == old[-1] and behind == 1 and len(new) > 2:  # positions are
        after = of_format(len(new), True)
    elif new[:ahead] == old[:ahead]:  # channels are put together, or apart
        n = len(new) - ahead
        after = (0, *range(n + 1, len(new)), *range(1, n + 1)) if ahead > 1 else tuple(range(len(new)))
    elif len(new) == 2 and new[0] == old[0] and behind == 1:
        after, order = (0, 1), "SC"
    else:
        raise Unknown
    return [("reshape", (r.of(x),), dict(shape=turned(new, after), order=order), {})], after


def _channels_behind(labels: tuple[int, ...]) -> int:
    """How many axes at the end are channels: N H W C has one, N H W C D has two; 0 where the channels come second."""
    n = len(labels)
    fitting = [k for k in range(1, n) if labels == (0, *range(k + 1, n), *range(1, k + 1))]
    return 0 if labels == tuple(range(n)) or not fitting else fitting[0]


def _transpose(r, inputs, a):
    x, labels = inputs[0], r.labels(inputs[0])
    order = ints(r.constant(inputs[1]))
    moved = tuple(labels[axis] for axis in order)
    if len(order) > 2 and moved in (of_format(len(order), False), of_format(len(order), True)):
        return [("identity", (r.of(x),), {}, {})], moved  # the same N C *S, held otherwise
    axes = [0] * len(order)
    for here, label in enumerate(labels):
        axes[label] = moved[here]
    return [("transpose", (r.of(x),), dict(axes=tuple(axes)), {})], labels


def _padding(r, inputs, a):
    x, labels = inputs[0], r.labels(inputs[0])
    pairs = turned(np.asarray(r.constant(inputs[1])).tolist(), labels)
    value = float(np.asarray(r.constant(inputs[2]))) if len(inputs) > 2 else 0.0
    attributes = dict(before=tuple(b for b, _ in pairs), after=tuple(e for _, e in pairs), value=value)
    if mode := a.get("mode"):
        attributes["mode"] = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}[text(mode)]
    return [("pad", (r.of(x),), attributes, {})], labels


def _strided_slice(r, inputs, a):
    """A slice an axis, one behind the other, as her brackets have them."""
    x, labels, shape = inputs[0], list(r.labels(inputs[0])), list(inputs[0].shape)
    begin, end, step = (ints(r.constant(t)) for t in inputs[1:])
    bit = {name: lambda i, name=name: bool(a[f"{name}_mask"] >> i & 1)
           for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}  # fmt: skip
    spec = range(len(begin))
    if any(bit["new_axis"](i) for i in spec):
        full = all(bit["new_axis"](i) or bit["ellipsis"](i) or (bit["begin"](i) and bit["end"](i) and step[i] == 1)
                   for i in spec)  # fmt: skip
        if not full:
            raise Unknown
        return _reshape(r, inputs, a, r.shape)
    if any(bit["shrink_axis"](i) for i in spec) and math.prod(r.shape) == math.prod(shape):  # axes of length 1 go
        return _reshape(r, inputs, a, r.shape)
    steps, axis, source = [], 0, r.of(x)
    for i in spec:
        if bit["ellipsis"](i):
            axis += len(shape) - axis - sum(1 for j in spec if j > i)
            continue
        n = shape[axis]
        if bit["shrink_axis"](i):
            label = labels.pop(axis)
            del shape[axis]
            labels = [other - (other > label) for other in labels]
            steps.append(("index", (source,), dict(axis=label, at=begin[i] % n), {}, turned(shape, tuple(labels))))
        else:
            cut = slice(None if bit["begin"](i) else begin[i], None if bit["end"](i) else end[i], step[i])
            taken = range(n)[cut]
            if len(taken) == 0:
                raise Unknown
            shape[axis] = len(taken)
            if step[i] < 0:
                words = ("take", dict(axis=labels[axis], indices=tuple(taken)))
            else:
                words = ("slice", dict(axis=labels[axis], start=taken.start, stop=taken.stop, step=step[i]))
            if taken != range(n):
                steps.append((words[0], (source,), words[1], {}, turned(shape, tuple(labels))))
            axis += 1
        source = None if steps else source
    return steps or _same(r, inputs, a)[0], tuple(labels)


def _concat(r, inputs, a):
    *tensors, axis = inputs
    known = [t for t in tensors if r.depends(t)]
    labels = r.labels(known[0])
    axis = labels[ints(r.constant(axis))[0] % len(labels)]
    if any(r.labels(t) != labels for t in known):
        raise Unknown
    if len(known) == len(tensors):
        return [("concat", tuple(map(r.of, tensors)), dict(axis=axis), {})], labels
    if len(known) != 1 or any(np.any(r.constant(t)) for t in tensors if not r.depends(t)):
        raise Unknown
    at = next(i for i, t in enumerate(tensors) if r.depends(t))
    sizes = [turned(t.shape, labels)[axis] for t in tensors]
    before, after = [0] * len(labels), [0] * len(labels)
    before[axis], after[axis] = sum(sizes[:at]), sum(sizes[at + 1 :])
    return [("pad", (r.of(known[0]),), dict(before=tuple(before), after=tuple(after), value=0.0), {})], labels


def _split(r, inputs, a):
    """Split has (axis, x), SplitV (x, sizes, axis)."""
    axis, x = inputs if len(inputs) == 2 else (inputs[2], inputs[0])
    labels = r.labels(x)
    axis = ints(r.constant(axis))[0] % len(labels)
    n = x.shape[axis]
    sizes = ints(r.constant(inputs[1])) if len(inputs) == 3 else [n // a["num_split"]] * a["num_split"]
    sizes = [n - sum(s for s in sizes if s >= 0) if s < 0 else s for s in sizes]
    return [("split", (r.of(x),), dict(axis=labels[axis], sizes=tuple(sizes)), {})], labels


def _softmax(op: str):
    return lambda r, inputs, a: ([(op, (r.of(inputs[0]),), dict(axis=r.labels(inputs[0])[-1]), {})],
                                 r.labels(inputs[0]))  # fmt: skip


def _gather(r, inputs, a):
    x, indices, axis = inputs
    labels = r.labels(x)
    axis = labels[ints(r.constant(axis))[0] % len(labels)]
    if len(indices.shape) != 1:
        raise Unknown
    return [("take", (r.of(x),), dict(axis=axis, indices=tuple(ints(r.constant(indices)))), {})], labels


def _reverse(r, inputs, a):
    x, labels = inputs[0], r.labels(inputs[0])
    (axis,) = ints(r.constant(inputs[1]))
    indices = tuple(range(x.shape[axis]))[::-1]
    return [("take", (r.of(x),), dict(axis=labels[axis % len(labels)], indices=indices), {})], labels


def _shaped(r, inputs, a):
    return _reshape(r, inputs, a, r.shape)


OPERATIONS = {
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _depthwise,
    "MaxPool": _pool("max_pool"),
    "AvgPool": lambda r, inputs, a: _pool("avg_pool")(r, inputs, {"explicit_paddings": (), **a}),
    "BiasAdd": _bias,
    **dict.fromkeys(("MatMul", "BatchMatMulV2"), _matmul),
    **dict.fromkeys(("Add", "AddV2"), _binary("add")),
    **dict.fromkeys(("Sub",), _binary("sub")),
    **dict.fromkeys(("Mul",), _binary("mul")),
    **dict.fromkeys(("RealDiv", "Div"), _binary("div")),
    **dict.fromkeys(("Identity", "StopGradient", "Snapshot", "PreventGradient", "CheckNumerics", "EnsureShape"), _same),
    "Cast": _cast,
    "Maximum": _maximum,
    "Mean": _reduced("mean"),
    "Max": _reduced("max"),
    "Sum": _reduced("sum"),
    **dict.fromkeys(("Reshape", "ExpandDims", "Squeeze"), _shaped),
    "Transpose": _transpose,
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), _padding),
    "StridedSlice": _strided_slice,
    "ConcatV2": _concat,
    **dict.fromkeys(("Split", "SplitV"), _split),
    "Softmax": _softmax("softmax"),
    "LogSoftmax": _softmax("log_softmax"),
    "GatherV2": _gather,
    "ReverseV2": _reverse,
    "LeakyRelu": _pointwise("leaky_relu", negative_slope="alpha"),
    "Elu": _pointwise("elu", alpha=1.0),
    **{op: _pointwise(op.lower()) for op in ("Relu", "Relu6", "Sigmoid", "Tanh", "Selu", "Softplus")},
}
