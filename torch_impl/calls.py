"""What each of PyTorch's functions is on a tape (`common/diagnosis/tape.py`): the vocabulary's word and its attributes.

A handler takes the recorder and the call's own arguments and gives a list of (op, numbers of the inputs, attributes,
arrays, the shape where it isn't the result's); None for an input is what the step before gave. It raises `Unknown`
where the vocabulary has no words.
"""

import math

import numpy as np
import torch

from torch_impl.model import to_numpy

DROPOUTS = {"dropout": (), "alpha_dropout": (), "dropout1d": (2,), "dropout2d": (2, 3), "feature_dropout": (2, 3)}


class Unknown(Exception):
    """A call that the vocabulary has no words for."""


def _each(value, n: int) -> tuple[int, ...]:
    """A number, or one for each of `n` axes."""
    values = tuple(value) if isinstance(value, list | tuple | torch.Size) else (value,)
    return values * n if len(values) == 1 else values


def _conv(r, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    n = weight.ndim - 2
    kernel, dilation = tuple(weight.shape[2:]), _each(dilation, n)
    if padding in ("same", "valid"):
        total = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        before, after = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    else:
        before = after = _each(padding, n)
    attributes = dict(
        kernel=kernel, stride=_each(stride, n), before=before, after=after, dilation=dilation, groups=groups
    )
    if found := r.standardised(weight):
        attributes["standardised"] = found[1]
        return [("conv", (r.of(input),), attributes, {"weight": found[0], **r.arrays(bias=bias)})]
    r.note(weight)
    return [("conv", (r.of(input),), attributes, r.arrays(weight=weight, bias=bias))]


def _norm(r, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    attributes = dict(eps=eps, momentum=momentum, batch=bool(training), unbiased=True)
    arrays = r.arrays(weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    return [("norm", (r.of(input),), attributes, arrays)]


def _group_norm(r, input, num_groups, weight=None, bias=None, eps=1e-5):
    return [("group_norm", (r.of(input),), dict(eps=eps, groups=num_groups), r.arrays(weight=weight, bias=bias))]


def _instance_norm(r, input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True,
                   momentum=0.1, eps=1e-5):  # fmt: skip
    if running_mean is not None or not use_input_stats:
        raise Unknown
    return _group_norm(r, input, input.shape[1], weight, bias, eps)


def _linear(r, input, weight, bias=None):
    return [("linear", (r.of(input),), {}, r.arrays(weight=weight, bias=bias))]


def _activation(op: str, **defaults: float):
    def handler(r, input, *args, inplace=False, **kwargs):
        values = dict(zip(defaults, args, strict=False)) | {k: v for k, v in kwargs.items() if k in defaults}
        return [(op, (r.of(input),), {**defaults, **values} if defaults else {}, {})]

    return handler


def _max_pool(r, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    n = input.ndim - 2
    if set(_each(dilation, n)) != {1} or return_indices:
        raise Unknown
    kernel, pad = _each(kernel_size, n), _each(padding, n)
    attributes = dict(
        kernel=kernel, stride=_each(stride or kernel_size, n), before=pad, after=pad, ceil=bool(ceil_mode)
    )
    return [("max_pool", (r.of(input),), attributes | dict(value=-math.inf), {})]


def _avg_pool(
    r, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    n = input.ndim - 2
    if divisor_override:
        raise Unknown
    kernel, pad = _each(kernel_size, n), _each(padding, n)
    attributes = dict(kernel=kernel, stride=_each(stride or kernel_size, n), before=pad, after=pad)
    return [("avg_pool", (r.of(input),), attributes | dict(ceil=bool(ceil_mode), counts=bool(count_include_pad)), {})]


def _adaptive(kind: str):
    def handler(r, input, output_size, return_indices=False):
        sizes = _each(output_size, input.ndim - 2)
        given = zip(sizes, input.shape[2:], strict=True)
        return [("adaptive_pool", (r.of(input),), dict(size=tuple(s or n for s, n in given), kind=kind), {})]

    return handler


def _reduced(op: str):
    def handler(r, input, dim=None, keepdim=False, **kwargs):
        if dim is None or (op == "max" and not isinstance(dim, list | tuple)):
            raise Unknown
        dims = tuple(sorted(d % input.ndim for d in _each(dim, 1)))
        return [(op, (r.of(input),), dict(axes=dims, keepdims=bool(kwargs.get("keepdims", keepdim))), {})]

    return handler


def _pad(r, input, pad, mode="constant", value=None):
    if min(pad) < 0:
        raise Unknown
    before, after = [0] * input.ndim, [0] * input.ndim
    for i in range(len(pad) // 2):
        before[-1 - i], after[-1 - i] = pad[2 * i], pad[2 * i + 1]
    attributes = dict(before=tuple(before), after=tuple(after), value=float(value or 0.0))
    return [("pad", (r.of(input),), attributes | ({} if mode == "constant" else dict(mode=mode)), {})]


def _getitem(r, input, index):
    parts = list(index) if isinstance(index, tuple) else [index]
    if all(p is None or p is Ellipsis or isinstance(p, slice | int) for p in parts):
        shape = torch.empty(input.shape, device="meta")[index].shape
        if shape.numel() == input.numel():  # axes of length 1 come or go, and nothing else
            return _reshape(r, input, shape)
    if any(p is None for p in parts):
        raise Unknown
    if any(p is Ellipsis for p in parts):
        at = next(i for i, p in enumerate(parts) if p is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (input.ndim - len(parts) + 1)
    steps, axis, source, shape = [], 0, r.of(input), list(input.shape)
    for part in parts:
        n = shape[axis]
        if isinstance(part, slice):
            start, stop, step = part.indices(n)
            shape[axis] = len(range(start, stop, step))
            if (start, stop, step) != (0, n, 1):
                attributes = dict(axis=axis, start=start, stop=stop, step=step)
                steps.append(("slice", (source,), attributes, {}, tuple(shape)))
            axis += 1
        elif isinstance(part, int):
            del shape[axis]
            steps.append(("index", (source,), dict(axis=axis, at=part % n), {}, tuple(shape)))
        elif isinstance(part, list | torch.Tensor | np.ndarray) and id(part) not in r.numbers:
            indices = tuple(int(p) for p in part)
            shape[axis] = len(indices)
            steps.append(("take", (source,), dict(axis=axis, indices=indices), {}, tuple(shape)))
            axis += 1
        else:
            raise Unknown
        source = None if steps else source  # each step reads what the one before gave
    return steps or _same(r, input)


def _flip(r, input, *dims):
    dims = _each(dims[0], 1) if dims and isinstance(dims[0], list | tuple) else dims
    if len(dims) != 1:
        raise Unknown
    axis = dims[0] % input.ndim
    return [("take", (r.of(input),), dict(axis=axis, indices=tuple(range(input.shape[axis]))[::-1]), {})]


def _index_select(r, input, dim, index):
    return [("take", (r.of(input),), dict(axis=dim % input.ndim, indices=tuple(int(i) for i in index)), {})]


def _split(r, input, split_size_or_sections, dim=0, **kwargs):
    n, size = input.shape[dim], kwargs.get("split_size", split_size_or_sections)
    sizes = [min(size, n - i) for i in range(0, n, size)] if isinstance(size, int) else list(size)
    return [("split", (r.of(input),), dict(axis=dim % input.ndim, sizes=tuple(sizes)), {})]


def _chunk(r, input, chunks, dim=0):
    return _split(r, input, -(-input.shape[dim] // chunks), dim)


def _concat(r, tensors, dim=0, **kwargs):
    dim = kwargs.get("axis", dim) % tensors[0].ndim
    known = [t for t in tensors if id(t) in r.numbers]
    if len(known) == len(tensors):
        return [("concat", tuple(r.of(t) for t in tensors), dict(axis=dim), {})]
    zeros = [t for t in tensors if id(t) not in r.numbers]
    if len(known) != 1 or any(t.count_nonzero() for t in zeros):
        raise Unknown
    at = next(i for i, t in enumerate(tensors) if id(t) in r.numbers)
    before, after = [0] * known[0].ndim, [0] * known[0].ndim
    before[dim] = sum(t.shape[dim] for t in tensors[:at])
    after[dim] = sum(t.shape[dim] for t in tensors[at + 1 :])
    return [("pad", (r.of(known[0]),), dict(before=tuple(before), after=tuple(after), value=0.0), {})]


def _reshape(r, input, *shape, **kwargs):
    y = torch.empty(input.shape, device="meta").reshape(*(shape or kwargs.values()))
    return [("reshape", (r.of(input),), dict(shape=tuple(y.shape), order="CS"), {})]


def _flatten(r, input, start_dim=0, end_dim=-1):
    return _reshape(r, input, torch.empty(input.shape, device="meta").flatten(start_dim, end_dim).shape)


def _squeeze(r, input, *dim):
    return _reshape(r, input, torch.empty(input.shape, device="meta").squeeze(*dim).shape)


def _unsqueeze(r, input, dim):
    return _reshape(r, input, torch.empty(input.shape, device="meta").unsqueeze(dim).shape)


def _permute(r, input, *dims):
    dims = tuple(dims[0]) if dims and isinstance(dims[0], list | tuple) else dims
    return [("transpose", (r.of(input),), dict(axes=tuple(d % input.ndim for d in dims)), {})]


def _transpose(r, input, dim0, dim1):
    axes = list(range(input.ndim))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return _permute(r, input, axes)


def _binary(op: str):
    """Of two tensors; with a constant a shift or a scale; with a parameter an affine map of the channels."""

    def handler(r, input, other, alpha=1, **kwargs):
        if alpha != 1 or kwargs:
            raise Unknown
        known = [isinstance(t, torch.Tensor) and id(t) in r.numbers for t in (input, other)]
        if all(known):
            return [(op, (r.of(input), r.of(other)), {}, {})]
        x, constant = (input, other) if known[0] else (other, input)
        if id(constant) in r.computed or (op in ("sub", "div") and not known[0]):
            raise Unknown
        if name := r.named.get(id(constant)):
            if op not in ("add", "mul") or constant.numel() != (x.shape[1] if constant.numel() > 1 else 1):
                raise Unknown
            return [("affine", (r.of(x),), {}, {"weight" if op == "mul" else "bias": name})]
        if (rate := r.masks.get(id(constant))) is not None and op == "mul":
            shared = tuple(i for i in range(1, x.ndim) if constant.shape[i] == 1)
            return [("dropout", (r.of(x),), dict(rate=rate, shared=shared), {})]
        by = to_numpy(constant.double()) if isinstance(constant, torch.Tensor) else float(constant)
        if isinstance(by, np.ndarray) and (by == by.flat[0]).all():
            by = float(by.flat[0])
        by = {"sub": np.negative, "div": np.reciprocal}.get(op, lambda c: c)(by)
        return [("shift" if op in ("add", "sub") else "scale", (r.of(x),), dict(by=by), {})]

    return handler


def _softmax(op: str):
    def handler(r, input, dim=None, **kwargs):
        axis = dim if dim is not None else (0 if input.ndim in (0, 1, 3) else 1)  # PyTorch's own old guess
        return [(op, (r.of(input),), dict(axis=axis % input.ndim), {})]

    return handler


def _dropout(shared: tuple[int, ...]):
    def handler(r, input, p=0.5, training=True, inplace=False):
        active = training and p > 0
        return [("dropout", (r.of(input),), dict(rate=p, shared=shared), {}) if active else _same(r, input)[0]]

    return handler


def _same(r, input, *args, **kwargs):
    return [("identity", (r.of(input),), {}, {})]


def _cast(r, input, *args, **kwargs):
    wanted = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)]
    if not wanted or wanted[0] == input.dtype:
        return _same(r, input)
    return [("cast", (r.of(input),), dict(dtype=str(wanted[0]).removeprefix("torch.")), {})]


CASTS = {"float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16}


def _cast_to(dtype: torch.dtype):
    return lambda r, input: _cast(r, input, dtype)


HANDLERS = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "boolean_dispatch.<locals>.fn"), _max_pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), _avg_pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d"), _adaptive("mean")),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d"), _adaptive("max")),
    **dict.fromkeys(("view", "reshape"), _reshape),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concat),
    **dict.fromkeys(("multiply", "mul"), _binary("mul")),
    **dict.fromkeys(("div", "truediv", "divide", "true_divide"), _binary("div")),
    **dict.fromkeys(("sub", "subtract"), _binary("sub")),
    **dict.fromkeys(("amax",), _reduced("max")),
    **dict.fromkeys(("clone", "contiguous", "detach", "view_as", "alias", "requires_grad", "cpu", "as_tensor"), _same),
    **dict.fromkeys(("to", "type", "type_as"), _cast),
    **{name: _cast_to(dtype) for name, dtype in CASTS.items()},
    **{name: _dropout(shared) for name, shared in DROPOUTS.items()},
    "add": _binary("add"),
    "batch_norm": _norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "linear": _linear,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _same),  # what multiplies or adds spreads by itself
    "mean": _reduced("mean"),
    "pad": _pad,
    "getitem": _getitem,
    "flip": _flip,
    "index_select": _index_select,
    "split": _split,
    "chunk": _chunk,
    "flatten": _flatten,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "permute": _permute,
    "transpose": _transpose,
    "softmax": _softmax("softmax"),
    "log_softmax": _softmax("log_softmax"),
    "leaky_relu": _activation("leaky_relu", negative_slope=0.01),
    "elu": _activation("elu", alpha=1.0),
    "hardsigmoid": _activation("hard_sigmoid"),
    "hardswish": _activation("hard_swish"),
    "hardtanh": _activation("hardtanh", min_val=-1.0, max_val=1.0),
    **{name: _activation(name) for name in ("relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "mish", "softplus")},
}
