"""Writes down what a Keras net calls: what TensorFlow tells of each operation as it is executed, as records.

Functions that say more than their operations are written down as a whole (functions.py), the rest by operation
(calls.py). Variables are known by their handles, and running statistics by what becomes of them.
"""

import inspect
import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np

from common.diagnosis import tape
from common.diagnosis.tape import INPUT, Arrays, Call
from keras_impl import layers
from keras_impl.calls import OPERATIONS, STILL
from keras_impl.functions import FUNCTIONS, OF_KERAS, Unknown, dropout, group_normalization, matmul, of_format, turned
from keras_impl.play import by_groups

_RUNS = str(Path(__file__).parent / "tape.py")
# files that are nobody's net: Keras' and TensorFlow's own, and those that record
_NOT_HERS = (
    *(f"{Path(keras.__file__).parents[1] / name}{os.sep}" for name in ("keras", "tensorflow", "optree")),
    __file__,
    _RUNS,
    str(Path(tape.__file__).parent),
)
EQUAL = 1e-9  # relative, of statistics that are told by their values


@contextmanager
def for_now(owner, **values):
    """Attributes for the time being, past whatever watches over them."""
    put = setattr if isinstance(owner, type | ModuleType) else object.__setattr__
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            put(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            put(owner, name, value)


def deep_first(kernel: np.ndarray) -> np.ndarray:
    """A depthwise kernel (*K, C, M) as PyTorch has it, (C M, 1, *K)."""
    turned = np.moveaxis(kernel, (-2, -1), (0, 1))
    return np.ascontiguousarray(turned.reshape(-1, 1, *kernel.shape[:-2]))


_OF_KERAS = keras.layers.GroupNormalization.call


def group_normed(layer, inputs):
    """What Keras' own layer gives, in the dtype of its input: Keras takes float64 for float32 (3.15)."""
    import tensorflow as tf

    if layer.axis not in (-1, len(inputs.shape) - 1):
        return _OF_KERAS(layer, inputs)
    x = by_groups(inputs, layer.groups if layer.groups > 0 else inputs.shape[-1], layer.epsilon)
    x = x * tf.cast(layer.gamma, x.dtype) if layer.scale else x
    return x + tf.cast(layer.beta, x.dtype) if layer.center else x


@contextmanager
def patched(around=lambda f, handler: f):
    """Functions as a diagnosis has them: no dropout draws a mask, and convolutions run that TensorFlow has no CPU
    kernel for. `around` gets each function with its handler, and gives what stands for it."""
    import tensorflow as tf
    from keras.src.backend.tensorflow import nn, random
    from keras.src.backend.tensorflow import numpy as arrays

    def unmasked(inputs, rate, noise_shape=None, *args, **kwargs):
        return tf.identity(inputs)

    def anywhere(f):
        """A window's function in the way that TensorFlow's CPU has for every dtype: channels last, group by group."""
        signature = inspect.signature(f)

        def run(*args, **kwargs):
            given = signature.bind(*args, **kwargs).arguments
            x, rank, filters = given["input"], len(given["input"].shape), given.get("filters")
            first = str(given.get("data_format") or "").startswith("NC")
            if first:
                x = tf.transpose(x, (0, *range(2, rank), 1))
                del given["data_format"]
            groups = x.shape[-1] // filters.shape[-2] if filters is not None else 1
            if groups > 1:
                parts = zip(tf.split(x, groups, -1), tf.split(filters, groups, -1), strict=True)
                y = tf.concat([f(**{**given, "input": p, "filters": k}) for p, k in parts], -1)
            else:
                y = f(**{**given, "input": x})
            return tf.transpose(y, (0, rank - 1, *range(1, rank - 1))) if first else y

        return run

    made = {}
    for name, handler in FUNCTIONS.items():
        f = getattr(tf.nn, name)
        made[name] = around(anywhere(f) if name in ("convolution", "max_pool", "avg_pool") else f, handler)
    with ExitStack() as stack:
        stack.enter_context(for_now(tf.nn, **made, dropout=around(unmasked, dropout)))
        stack.enter_context(for_now(tf.nn.experimental, stateless_dropout=around(unmasked, dropout)))
        stack.enter_context(for_now(random, dropout=around(unmasked, dropout)))
        stack.enter_context(for_now(nn, **{name: around(getattr(nn, name), h) for name, h in OF_KERAS.items()}))
        stack.enter_context(for_now(arrays, matmul=around(arrays.matmul, matmul)))
        for layer, call in ((layers.GroupNorm, layers.GroupNorm.call), (keras.layers.GroupNormalization, group_normed)):
            stack.enter_context(for_now(layer, call=around(call, group_normalization)))
        yield


class Recorder:
    def __init__(self, live: Any):
        self.live, self.last = live, live.last
        self.calls: list[Call] = []
        self.tracked: dict[int, tuple[int, tuple[int, ...]]] = {}  # what depends on the input: number and labels, by id
        self.names: dict[int, str] = {}  # of tensors with a variable's values
        self.computed: set[int] = set()  # what was made of variables: no array of hers has its values
        self.stopped: set[int] = set()  # what no gradient goes through
        self.masks: dict[int, float] = {}  # what drops whole examples or channels, with its rate
        self.handles = {id(t.handle): name for name, t in live.tensors.items()}
        self.kept: list[Any] = []  # an id is somebody else's once its object is gone
        self.highest = INPUT - 1
        self.muted = 0  # within a function that is written down as a whole
        self.shape: tuple[int, ...] = ()  # of the result that is being written down, hers
        # of the layers that call: name, which call it is, and where it was written
        self.stack: list[tuple[str, int, str]] = [("", 0, "")]
        self.entries = 0
        self.owners: dict[int, Any] = {}  # the layer of each call
        self.values = {name: t.numpy() for name, t in live.tensors.items()}  # of variables, so far
        self.assigned: list[tuple[int, str, np.ndarray, np.ndarray]] = []  # by which layer's call, name, from, to
        # by call: which layer's call, the batch's mean, variance and size
        self.batches: dict[int, tuple[int, np.ndarray, np.ndarray, int]] = {}

    # ---- what handlers ask

    def depends(self, tensor) -> bool:
        return id(tensor) in self.tracked

    def number(self, tensor) -> int:
        return self.tracked.get(id(tensor), (-1, ()))[0]

    def of(self, tensor) -> int:
        if id(tensor) not in self.tracked:
            raise Unknown
        return self.tracked[id(tensor)][0]

    def labels(self, tensor) -> tuple[int, ...]:
        self.of(tensor)
        return self.tracked[id(tensor)][1]

    def named(self, tensor) -> str | None:
        if id(tensor) in self.names:
            return self.names[id(tensor)]
        tensor = getattr(tensor, "value", tensor) if isinstance(tensor, keras.Variable) else tensor
        return self.handles.get(id(getattr(tensor, "handle", None)))

    def rate(self, tensor) -> float | None:
        return self.masks.get(id(tensor))

    def constant(self, tensor) -> np.ndarray:
        if self.depends(tensor) or self.named(tensor) or id(tensor) in self.computed:
            raise Unknown
        return tensor.numpy() if hasattr(tensor, "numpy") else np.asarray(tensor)

    def arrays(self, **tensors) -> dict[str, str]:
        names = {leaf: self.named(t) for leaf, t in tensors.items() if t is not None}
        if None in names.values():
            raise Unknown  # computed from variables, or no tensor of hers
        return {leaf: name for leaf, name in names.items() if name}

    def still(self, **tensors) -> dict[str, Any]:
        """{"still": those leaves that no gradient reaches}, or nothing."""
        leaves = tuple(leaf for leaf, t in tensors.items() if id(t) in self.stopped)
        return {"still": leaves} if leaves else {}

    def depthwise(self, kernel) -> dict[str, str]:
        """{"weight": the name}, one of its own for a kernel that is no variable."""
        name = self.named(kernel)
        if name is None:
            value = deep_first(np.asarray(self.constant(kernel), np.float64))
            name = f"constant {len(self.live.constants)}"
            name = next((n for n, v in self.live.constants.items() if np.array_equal(v, value)), name)
            self.live.constants[name] = value
        elif name not in self.live.deep:
            raise Unknown
        return {"weight": name}

    def standardised(self, kernel) -> tuple[str, float] | None:
        """The name and epsilon of a kernel (*K, I, O) that is a variable's standardised weights."""
        if id(kernel) not in self.computed:
            return None
        return tape.standardised(np.moveaxis(kernel.numpy(), (-1, -2), (0, 1)), self.kernels)

    @cached_property
    def kernels(self) -> Arrays:
        """Hers, which no run changes."""
        return {name: array for name, array in self.live.arrays().items() if array.ndim > 2}

    def normalised(self, x, mean, variance, labels: tuple[int, ...]) -> None:
        """A norm whose mean and variance are those of the batch; raises Unknown where they aren't."""
        axes = tuple(i for i, label in enumerate(labels) if label != 1)
        value, n = x.numpy(), int(np.prod([x.shape[i] for i in axes]))
        batch = value.mean(axes), value.var(axes)
        for given, own in zip((mean, variance), batch, strict=True):
            if given.numpy().size != own.size or not _close(given.numpy().reshape(-1), own):
                raise Unknown
        self.batches[len(self.calls)] = (self.stack[-1][1], *batch, n)

    # ---- what runs

    def track(self, tensor, labels: tuple[int, ...]) -> int:
        self.highest += 1
        self.kept.append(tensor)
        self.tracked[id(tensor)] = self.highest, labels
        return self.highest

    def operation(self, op, inputs, attrs, outputs, op_name=None, graph=None) -> None:
        """TensorFlow's own callback, after each operation."""
        op = op.decode() if isinstance(op, bytes) else op
        self.kept += [*inputs, *outputs]
        if op == "ReadVariableOp":
            if name := self.handles.get(id(inputs[0])):
                self.names[id(outputs[0])] = name
        elif op.startswith("Assign") and (name := self.handles.get(id(inputs[0]))):
            before, value = self.values[name], inputs[1].numpy()
            self.values[name] = {"AssignAddVariableOp": np.add, "AssignSubVariableOp": np.subtract}.get(
                op, lambda old, new: new
            )(before, value)
            self.assigned.append((self.stack[-1][1], name, before, self.values[name]))
        elif self.muted or not outputs or op in STILL:
            return
        elif any(map(self.depends, inputs)):
            attributes = dict(zip(attrs[::2], attrs[1::2], strict=True))
            handler = OPERATIONS.get(op)
            self.write(op, (lambda: handler(self, inputs, attributes)) if handler else None, inputs, outputs)
        else:
            self.derive(op, inputs, outputs)
        if op == "StopGradient":
            self.stopped.add(id(outputs[0]))

    def around(self, f, handler):
        """`f`, written down as a whole wherever its input depends on the net's."""

        def run(*args, **kwargs):
            import tensorflow as tf

            if self.muted:
                return f(*args, **kwargs)
            given = [t for t in (*args, *kwargs.values()) if isinstance(t, tf.Tensor)]
            if not any(map(self.depends, given)):
                y = f(*args, **kwargs)
                if handler is dropout:
                    self.masks[id(y)] = float(args[1] if args[1:] else kwargs["rate"])
                    self.kept.append(y)
                return y
            try:
                steps = handler(self, *args, **kwargs)
            except (Unknown, TypeError):
                return f(*args, **kwargs)
            self.muted += 1
            try:
                y = f(*args, **kwargs)
            finally:
                self.muted -= 1
            self.write("", lambda: steps, given, [y])
            return y

        return run

    def write(self, op: str, handler, inputs, outputs) -> None:
        self.shape = tuple(outputs[0].shape)
        try:
            if handler is None:
                raise Unknown
            steps, labels = handler()
        except (Unknown, TypeError):
            known = [t for t in inputs if self.depends(t)]
            rank = len(self.shape)
            labels = next((self.labels(t) for t in known if len(t.shape) == rank), of_format(rank, self.last))
            steps = [(f"?{op}", tuple(map(self.of, known)), {}, {})]
        where = _where() or self.stack[-1][2]
        for i, (word, sources, attributes, arrays, *shapes) in enumerate(steps):
            sources = tuple(self.highest if s is None else s for s in sources)
            if i < len(steps) - 1:
                self.highest += 1
                numbers = (self.highest,)
            else:
                numbers = tuple(self.track(y, labels if len(y.shape) == len(labels) else of_format(len(y.shape), True))
                                for y in outputs)  # fmt: skip
            shape = tuple(shapes[0]) if shapes else turned(self.shape, labels)
            shape = tuple(map(int, shape))
            self.calls.append(Call(word, sources, numbers, shape, attributes, arrays, self.stack[-1][0], where))

    def derive(self, op: str, inputs, outputs) -> None:
        """What is made of variables alone: the same values in another shape keep their name, parts have one."""
        sources = [t for t in inputs if self.named(t) or id(t) in self.computed]
        name = self.named(sources[0]) if len(sources) == 1 else None
        for i, y in enumerate(outputs if sources else ()):
            x = sources[0]
            if name and op in ("Split", "SplitV") and _joined(outputs, x):
                self.names[id(y)] = f"{name}[{i}/{len(outputs)}]"
            elif name and y.dtype == x.dtype and np.array_equal(y.numpy().reshape(-1), x.numpy().reshape(-1)):
                self.names[id(y)] = name
            else:
                self.computed.add(id(y))
        mask = [self.masks[id(t)] for t in inputs if id(t) in self.masks]
        if mask and not sources:
            self.masks.update({id(y): mask[0] for y in outputs})

    def done(self) -> tuple[Call, ...]:
        """The calls, each norm of a batch with what its layer makes of running statistics."""
        for at, (entry, mean, variance, n) in self.batches.items():
            by_name: dict[str, tuple[np.ndarray, np.ndarray]] = {}
            for by, name, old, new in self.assigned:
                if by == entry:
                    by_name[name] = by_name.get(name, (old,))[0], new
            made = [(name, *values) for name, values in by_name.items()]
            call = self.calls[at]
            momentum, unbiased, names = 0.0, True, dict[str, str]()
            for name, old, new in made:
                if (share := _share(old, new, mean)) is not None:
                    names["running_mean"], momentum = name, share
                    break
            for name, old, new in made:
                for more in (n / (n - 1), 1.0) if n > 1 and name not in names.values() else ():
                    share = _share(old, new, variance * more)
                    if share is not None and abs(share - momentum) < EQUAL:
                        names["running_var"], unbiased = name, more > 1
                        break
            own = getattr(type(self.owners.get(entry)), "call", None) is keras.layers.BatchNormalization.call
            kept = None if own and not unbiased else unbiased
            attributes = {**call.attributes, "momentum": round(momentum, 12), "unbiased": kept}
            self.calls[at] = replace(call, attributes=attributes, arrays={**call.arrays, **names})
        return tuple(self.calls)

    def __enter__(self):
        from tensorflow.python.framework import op_callbacks

        call, recorder = keras.layers.Layer.__call__, self

        def called(layer, *args, **kwargs):
            recorder.entries += 1
            where = _lines.get(id(layer), recorder.stack[-1][2])
            recorder.owners[recorder.entries] = layer
            recorder.stack.append((recorder.live.name_of(layer), recorder.entries, where))
            try:
                return call(layer, *args, **kwargs)
            finally:
                recorder.stack.pop()

        self.entered = ExitStack()
        self.entered.enter_context(patched(self.around))
        self.entered.enter_context(for_now(keras.layers.Layer, __call__=called))
        op_callbacks.add_op_callback(self.operation)
        self.entered.callback(op_callbacks.remove_op_callback, self.operation)
        return self

    def __exit__(self, *_):
        self.entered.close()


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() <= EQUAL * np.abs(b).max())


def _share(old: np.ndarray, new: np.ndarray, batch: np.ndarray) -> float | None:
    """The share of a batch's statistics in new ones; None where they are no such mixture."""
    if old.shape != batch.shape:
        return None
    if np.array_equal(old, new):
        return 0.0
    way = batch - old
    share = float((new - old) @ way / (way @ way))
    return share if _close(old + share * way, new) else None


def _joined(parts, whole) -> bool:
    try:
        return np.array_equal(np.concatenate([p.numpy() for p in parts], -1), whole.numpy())
    except ValueError:
        return False


_lines: dict[int, str] = {}  # where layers of graphs were called, by id: the layers live as long as their graph


def note_lines() -> None:
    """From now on, in this process, it is kept where a layer is called while a graph of symbols is built: when such a
    net runs, no line of hers does."""
    call = keras.layers.Layer.__call__

    def called(layer, *args, **kwargs):
        if any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten((args, kwargs))) and (where := _where()):
            _lines.setdefault(id(layer), where)
        return call(layer, *args, **kwargs)

    keras.layers.Layer.__call__ = called


def _where() -> str:
    frame = sys._getframe(1)
    while frame:
        file = frame.f_code.co_filename
        if file == _RUNS:
            break
        if not file.startswith(_NOT_HERS) and not file.startswith("<"):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
