"""The tape of a PyTorch net: what it calls when it runs, and the net as a thing to hold a proof against.

The twin of keras_impl/tape.py. Calls are seen by a TorchFunctionMode, so that `F.relu`, `+`, `cat`, `view`, calls in
place and control flow are recorded as they run, and by hooks, which know the layers.
"""

import copy
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from common.diagnosis.tape import INPUT, Arrays, Call, Ran, Tape
from torch_impl.layers import to_numpy

_PRODUCT = (str(Path(torch.__file__).parent), __file__)
MEANT = ("logits", "out", "pooler_output")  # which of several outputs a net's user reads


class Live:
    """A copy of `model` in float64 on the CPU (`common.diagnosis.tape.Live`)."""

    def __init__(self, model: nn.Module):
        self.model = copy.deepcopy(model).to("cpu", torch.float64).eval()
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.is_floating_point()}
        self.tensors = self.parameters | {n: b for n, b in self.model.named_buffers() if b.is_floating_point()}

    def arrays(self) -> Arrays:
        return {name: to_numpy(t.detach()).copy() for name, t in self.tensors.items()}

    def put(self, arrays: Arrays) -> None:
        with torch.no_grad():
            for name, value in arrays.items():
                self.tensors[name].copy_(torch.from_numpy(np.asarray(value, np.float64)))

    def record(self, x: np.ndarray, training: bool = False) -> Tape:
        state = copy.deepcopy(self.model.state_dict())
        try:
            with torch.no_grad(), _Layers(self.model) as layers, _Recorder(self, layers) as recorder:
                tensor = torch.from_numpy(np.asarray(x, np.float64))
                recorder.number(tensor)
                outputs, names = _outputs(self.model.train(training)(tensor))
            numbers = tuple(recorder.numbers.get(id(t), -1) for t in outputs)
            return Tape(tuple(recorder.calls), numbers, tuple(x.shape), names)
        finally:
            self.model.load_state_dict(state)
            self.model.eval()

    def run(self, x: np.ndarray, training: bool = False) -> Ran:
        state = copy.deepcopy(self.model.state_dict())
        try:
            with _Unmasked(), torch.set_grad_enabled(training):
                tensor = torch.from_numpy(np.asarray(x, np.float64)).requires_grad_(training)
                output = _outputs(self.model.train(training)(tensor))[0][0]
            gradients = {}
            if training:
                leaves = {"": tensor} | {n: p for n, p in self.parameters.items() if p.requires_grad}
                found = torch.autograd.grad(output.square().mean() / 2, list(leaves.values()), allow_unused=True)
                gradients = {n: to_numpy(g) for n, g in zip(leaves, found, strict=True) if g is not None}
            buffers = {n: t for n, t in self.tensors.items() if n not in self.parameters}
            statistics = {n: to_numpy(t).copy() for n, t in buffers.items()} if training else {}
            return Ran(to_numpy(output.detach()), statistics, gradients)
        finally:
            self.model.load_state_dict(state)
            self.model.eval()


def _outputs(result: Any) -> tuple[list[torch.Tensor], tuple[str, ...]]:
    """All tensors of a result with their names, the one that is meant first."""
    found: list[tuple[str, torch.Tensor]] = []

    def walk(value: Any, name: str) -> None:
        if isinstance(value, torch.Tensor):
            found.append((name, value))
        elif isinstance(value, dict):
            for key, part in value.items():
                walk(part, str(key))
        elif isinstance(value, list | tuple):
            for part in value:
                walk(part, name)

    walk(result, "")
    if not found:
        raise TypeError(f"the net gives {type(result).__name__}, where a tensor is expected")
    found.sort(key=lambda item: MEANT.index(item[0]) if item[0] in MEANT else len(MEANT))
    return [t for _, t in found], tuple(n for n, _ in found)


class _Layers:
    """Knows, while a net runs, which of its layers is being called."""

    def __init__(self, model: nn.Module):
        self.names = {id(m): name for name, m in model.named_modules()}
        self.stack = [""]

    def __enter__(self):
        before = hooks.register_module_forward_pre_hook(lambda m, x: self.stack.append(self.names.get(id(m), "")))
        after = hooks.register_module_forward_hook(lambda m, x, y: (self.stack.pop(), None)[1])
        self.handles = [before, after]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


class _Unmasked(TorchFunctionMode):
    """Runs a net without drawing masks: dropout passes its input through."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").rstrip("_")
        if name in _DROPOUTS:
            x = args[0]
            return x if kwargs.get("inplace") else x.view_as(x)
        if name == "bernoulli" and args[1:]:  # a mask, which is divided by this rate later on
            return args[0].fill_(args[1])
        return func(*args, **kwargs)


_DROPOUTS = {"dropout": (), "alpha_dropout": (), "dropout1d": (2,), "dropout2d": (2, 3), "feature_dropout": (2, 3)}
# new tensors like one that there is, whose values they don't have
_MADE = {f"{what}_like" for what in ("ones", "zeros", "empty", "full", "rand")} | {
    f"new_{what}" for what in ("ones", "zeros", "empty", "full", "tensor")
}


class _Recorder(_Unmasked):
    def __init__(self, live: Live, layers: _Layers):
        super().__init__()
        self.layers = layers
        self.calls: list[Call] = []
        self.numbers: dict[int, int] = {}  # of tensors that depend on the input, by id
        self.named = {id(t): name for name, t in live.tensors.items()}
        self.tensors = live.tensors
        self.kept: list[torch.Tensor] = list(live.tensors.values())  # an id is somebody else's once its object is gone
        self.computed: set[int] = set()  # what was made of parameters: no tensor of hers has its values
        self.masks: dict[int, float] = {}  # what drops whole examples or channels, with its rate
        self.last = INPUT - 1

    def number(self, tensor: torch.Tensor) -> int:
        self.last += 1
        self.kept.append(tensor)
        self.numbers[id(tensor)] = self.last
        return self.last

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [a for a in _flat((args, kwargs)) if isinstance(a, torch.Tensor)]
        name = getattr(func, "__name__", str(func)).strip("_")
        inputs = () if name in _MADE else tuple(self.numbers[id(t)] for t in given if id(t) in self.numbers)
        result = super().__torch_function__(func, types, args, kwargs)
        results = [r for r in _flat(result) if isinstance(r, torch.Tensor)]
        if not results:
            return result
        if inputs:
            self.write(name, args, kwargs, inputs, results)
        else:
            if name in _DROPOUTS or name == "bernoulli":
                rate = (args[1] if args[1:] else kwargs.get("p", 0.5)) if name in _DROPOUTS else 1 - args[1]
                self.masks[id(results[0])] = rate
            self.derive(given, results)
        return result

    def derive(self, given: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """What is made of parameters alone: the same values in another shape keep their name."""
        sources = [t for t in given if id(t) in self.named or id(t) in self.computed]
        self.kept += results
        for r in results if sources else ():
            name = self.named.get(id(sources[0])) if len(sources) == 1 else None
            if name and r.numel() == sources[0].numel() and torch.equal(r.reshape(-1), sources[0].reshape(-1)):
                self.named[id(r)] = name
            elif id(r) not in self.named:
                self.computed.add(id(r))

    def write(self, name: str, args, kwargs, inputs: tuple[int, ...], results: list[torch.Tensor]) -> None:
        name = name[1:] if name in ("iadd", "imul", "isub", "radd", "rmul") else name
        handler = _HANDLERS.get(name)
        # the numbers of the inputs are looked up before the outputs get theirs: in place, both are one object
        steps = None
        if handler:
            try:
                steps = handler(self, *args, **kwargs)
            except (_Unknown, TypeError):
                steps = None
        if steps is None:
            steps = [(f"?{name}", inputs, {}, {})]
        where = _where()
        for i, (op, sources, attributes, arrays, *shapes) in enumerate(steps):
            if i < len(steps) - 1:
                self.last += 1
                outputs = (self.last,)
            else:
                outputs = tuple(self.number(r) for r in results)
            sources = tuple(s if s is not None else self.last - 1 for s in sources) if i else sources
            shape = tuple(shapes[0] if shapes else results[0].shape)
            self.calls.append(Call(op, sources, outputs, shape, attributes, arrays, self.layers.stack[-1], where))

    def of(self, tensor: torch.Tensor) -> int:
        if not isinstance(tensor, torch.Tensor) or id(tensor) not in self.numbers:
            raise _Unknown
        return self.numbers[id(tensor)]

    def arrays(self, **tensors: torch.Tensor | None) -> dict[str, str]:
        if any(t is not None and id(t) not in self.named for t in tensors.values()):
            raise _Unknown  # computed from parameters, or no tensor of hers
        return {leaf: self.named[id(t)] for leaf, t in tensors.items() if t is not None}


class _Unknown(Exception):
    """A call that the vocabulary has no words for."""


def _flat(value: Any):
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, list | tuple) or hasattr(value, "__next__") or type(value).__name__ == "dict_values":
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _where() -> str:
    frame = sys._getframe(1)
    while frame:
        file = frame.f_code.co_filename
        if not file.startswith(_PRODUCT) and not file.startswith("<"):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _each(value: Any, n: int) -> tuple[int, ...]:
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
    return [("conv", (r.of(input),), attributes, r.arrays(weight=weight, bias=bias))]


def _norm(r, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    attributes = dict(eps=eps, momentum=momentum, batch=bool(training), unbiased=True)
    arrays = r.arrays(weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    return [("norm", (r.of(input),), attributes, arrays)]


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
        raise _Unknown
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
        raise _Unknown
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
            raise _Unknown
        dims = tuple(sorted(d % input.ndim for d in _each(dim, 1)))
        return [(op, (r.of(input),), dict(axes=dims, keepdims=bool(kwargs.get("keepdims", keepdim))), {})]

    return handler


def _pad(r, input, pad, mode="constant", value=None):
    if mode != "constant" or min(pad) < 0:
        raise _Unknown
    before, after = [0] * input.ndim, [0] * input.ndim
    for i in range(len(pad) // 2):
        before[-1 - i], after[-1 - i] = pad[2 * i], pad[2 * i + 1]
    return [("pad", (r.of(input),), dict(before=tuple(before), after=tuple(after), value=float(value or 0.0)), {})]


def _getitem(r, input, index):
    parts = list(index) if isinstance(index, tuple) else [index]
    if all(p is None or p is Ellipsis or p == slice(None) for p in parts):  # axes of length 1, and nothing else
        return _reshape(r, input, torch.empty(input.shape, device="meta")[index].shape)
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
            raise _Unknown
        source = None if steps else source  # each step reads what the one before gave
    return steps or _same(r, input)


def _flip(r, input, *dims):
    dims = _each(dims[0], 1) if dims and isinstance(dims[0], list | tuple) else dims
    if len(dims) != 1:
        raise _Unknown
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
        raise _Unknown
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
            raise _Unknown
        known = [isinstance(t, torch.Tensor) and id(t) in r.numbers for t in (input, other)]
        if all(known):
            return [(op, (r.of(input), r.of(other)), {}, {})]
        x, constant = (input, other) if known[0] else (other, input)
        if id(constant) in r.computed or (op in ("sub", "div") and not known[0]):
            raise _Unknown
        if name := r.named.get(id(constant)):
            if op not in ("add", "mul") or constant.numel() != (x.shape[1] if constant.numel() > 1 else 1):
                raise _Unknown
            return [("affine", (r.of(x),), {}, {"weight" if op == "mul" else "bias": name})]
        if (rate := r.masks.get(id(constant))) is not None and op == "mul":
            shared = tuple(i for i in range(1, x.ndim) if constant.shape[i] == 1)
            return [("dropout", (r.of(x),), dict(rate=rate, shared=shared), {})]
        by = to_numpy(constant.double()) if isinstance(constant, torch.Tensor) else float(constant)
        if isinstance(by, np.ndarray) and by.size == 1:
            by = float(by.reshape(()))
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


_HANDLERS = {
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
    **dict.fromkeys(("clone", "contiguous", "detach", "view_as", "alias", "requires_grad", "cpu", "double"), _same),
    **dict.fromkeys(("to", "type", "type_as"), _cast),
    **{name: _dropout(shared) for name, shared in _DROPOUTS.items()},
    "add": _binary("add"),
    "batch_norm": _norm,
    "linear": _linear,
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
