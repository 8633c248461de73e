"""Every way in which Keras differs from PyTorch, one function or class a difference.

The twin of torch_impl/layers.py: the same names in the same order. Axes are N *S C (images: N H W C), whatever
keras.config says. Every layer is built when it is made, since the plan knows its shapes: a composite Keras layer
without a `build` of its own is traced at every level, which makes a ResNet-152 three times as slow to build.
"""

import math
import random
from contextlib import contextmanager
from contextvars import ContextVar

import keras
import numpy as np
from keras import ops

from common import noise
from common.arch import Arch
from common.errors import RosettaError
from common.init import Source, draw_ahead, given
from common.plan import MOMENTUM, Conv, Linear, Norm, Plan, Pool, Shortcut, make_plan
from common.weights import channels_first, channels_last


class Part:
    """What is saved as a row and its name there: a whole net, or a layer of one in somebody's model."""

    row: Arch | None = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable("resnet_rosetta")(cls)

    def get_config(self):
        if self.row is None:  # made alone
            return super().get_config()
        own = {"dtype": self.dtype_policy.name, "name": self.name, "trainable": self.trainable}
        return {"arch": self.row.to_json(), **own}

    @classmethod
    def from_config(cls, config):
        arch = Arch.from_json(config["arch"])
        with _policy(dtype_named(config["dtype"])):
            layer = cls.planned(make_plan(arch), config)
        layer.row, layer.name = arch, config["name"]
        if not config["trainable"]:  # True would unfreeze what is inside
            layer.trainable = False
        return layer

    @classmethod
    def planned(cls, plan: Plan, config):
        """The layer of that name."""
        parts = (*plan.layers(), *plan.pools(), *plan.blocks())
        return cls(next(part for part in parts if keras_name(part.name) == config["name"]))


class Module(Part, keras.layers.Layer):
    """A layer of layers, each of which is built already. The name is for Keras' summaries."""

    def __init__(self, name: str = ""):
        super().__init__(name=keras_name(name))
        self.built = True

    def compute_output_spec(self, x):
        y = self.call(x)  # Keras' own way is to trace each level anew
        return keras.KerasTensor(y.shape, y.dtype)


def keras_name(name: str) -> str | None:
    """A canonical name as Keras' torch backend accepts it, without dots."""
    return name.replace(".", "_") or None


_training: ContextVar[bool | None] = ContextVar("training", default=None)


def _is_training(training: bool | None) -> bool:
    return bool(_training.get() if training is None else training)


class Model(Part, keras.Model):
    """What a whole net has beyond its layers: the plan that it was built from, and what Keras' users expect."""

    row = property(lambda self: self.plan.arch)

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.built = True

    def connect(self) -> None:
        """Makes the net a graph of Keras' symbolic tensors, too: `inputs`, `get_layer("layer4").output` and what is
        made of them, such as keras.Model(net.input, net.get_layer("layer4").output), have the net's own layers."""
        for layer in self._flatten_layers(include_self=False):
            layer.row = self.plan.arch
        shape = (*(None,) * self.plan.arch.dims, self.plan.arch.in_channels)
        self._input = keras.Input(shape, dtype=self.compute_dtype, name="images")
        self._output = self.logits(self._input)

    input = property(lambda self: self._input)
    output = property(lambda self: self._output)
    inputs = property(lambda self: [self._input])
    outputs = property(lambda self: [self._output])

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        return super().export(filepath, format, verbose, input_signature or self.inputs, **kwargs)

    def save(self, filepath, *args, **kwargs):
        if str(filepath).endswith((".h5", ".hdf5")):
            raise RosettaError(
                f"{filepath}: Keras' older format has no place for such a net, and nothing could read it: save() to a "
                ".keras, or save_weights() to a .weights.h5"
            )
        return super().save(filepath, *args, **kwargs)

    def quantize(self, *args, **kwargs):
        _refuse_quantization()

    def call(self, x, training=None):
        # `fit` would train in evaluation mode if this `call` didn't name `training`. Keras hands it down to the layers
        # inside, except where JAX's trainer calls `call` itself, past the context in which it is handed down.
        token = _training.set(training)
        try:
            return self.logits(x)
        finally:
            _training.reset(token)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = construct(cls, make_plan(Arch.from_json(config["arch"])), config["dtype"])
        model.name, model.trainable = config["name"], config["trainable"]
        return model

    def compute_output_shape(self, input_shape):
        fc = self.plan.fc
        return (input_shape[0], fc.out_features if fc else self.plan.features)


def construct(cls, plan: Plan, dtype: str | None, seed: int | None = None, weights=None, copy: bool = True) -> Model:
    """The net in `dtype` with `weights`, or what they give when called, or fresh ones; the seed is Keras' own where
    none is given. Keras copies them in any case."""
    policy = dtype_named(dtype)
    if weights is not None:
        source = given(plan.arch, weights() if callable(weights) else weights, to_keras)
    else:  # keras.utils.set_random_seed governs this generator
        source = draw_ahead(plan.arch, random.getrandbits(62) if seed is None else seed, to_keras)
    token = _source.set(source)
    try:
        with _policy(policy):
            model = cls(plan)
            model.connect()
    finally:
        _source.reset(token)
    kind = keras.backend.standardize_dtype(model.trainable_variables[0].value.dtype)
    if kind != policy.variable_dtype:  # JAX cuts float64 down to float32 without a word
        raise RosettaError(
            f"{keras.backend.backend()} made {kind} of {policy.variable_dtype}; with JAX, set JAX_ENABLE_X64=1"
        )
    return model


@contextmanager
def _policy(policy: keras.DTypePolicy):
    """Layers made inside have it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def dtype_named(dtype: str | None) -> keras.DTypePolicy:
    """Keras' policy of that name; the global one for None. Raises RosettaError where it is none of floats."""
    try:
        policy = keras.dtype_policies.get(dtype) if dtype is None or isinstance(dtype, str) else None
    except (ValueError, TypeError):
        policy = None
    if policy is None or not keras.backend.is_float_dtype(policy.compute_dtype):
        raise RosettaError(
            f"dtype {dtype!r} can't be: expected float32, float64, bfloat16 or float16, or a Keras policy of them"
        )
    return policy


class Sequential(Module):
    """Layers one after another. keras.Sequential would trace them into a graph of its own at each level."""

    def __init__(self, members, name: str = ""):
        super().__init__(name)
        self.members = list(members)

    def call(self, x):
        for layer in self.members:
            x = layer(x)
        return x

    def get_config(self):
        members = [keras.saving.serialize_keras_object(layer) for layer in self.members]
        return {**super().get_config(), "members": members}

    @classmethod
    def planned(cls, plan, config):
        return cls([keras.saving.deserialize_keras_object(member) for member in config["members"]], config["name"])


def sequential(*layers, name: str = "") -> Sequential:
    return Sequential(layers, name)


def to_keras(weight: np.ndarray) -> np.ndarray:
    """A kernel (out, in / groups, *k) as Keras has it, (*k, in / groups, out)."""
    return np.ascontiguousarray(channels_last(weight))


def to_torch(weight: np.ndarray) -> np.ndarray:
    """The way back."""
    return np.ascontiguousarray(channels_first(weight))


def to_numpy(tensor) -> np.ndarray:
    """The tensor or variable as an array; bfloat16, which numpy lacks, as float32."""
    array = ops.convert_to_numpy(tensor)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


_source: ContextVar[Source | None] = ContextVar("source", default=None)  # of the net under construction


def from_source(name: str, alone="zeros"):
    """An initialiser: the tensor of that name in the net under construction; `alone` in a layer outside one."""

    def initialise(shape, dtype):
        source = _source.get()
        if source is None:
            return keras.initializers.get(alone)(shape, dtype)
        return ops.convert_to_tensor(source[name](), dtype)

    return initialise


def he() -> keras.initializers.Initializer:
    """What common/init.py draws. Keras' default is glorot_uniform, its HeNormal is truncated and fan-in."""
    return keras.initializers.VarianceScaling(2, "fan_out", "untruncated_normal")


def identity(x):
    return x


def nothing(x) -> None:
    """A plain net's shortcut."""


def add(y, shortcut):
    return y if shortcut is None else y + shortcut


def relu(x):
    return ops.relu(x)


def relu_layer() -> keras.layers.Layer:
    return keras.layers.ReLU()


def sigmoid(x):
    return ops.sigmoid(x)


def concat(xs):
    """Joins vectors (N, C) along their channels."""
    return xs[0] if len(xs) == 1 else ops.concatenate(xs, 1)


def spatial_mean(x, dims: int, keepdims: bool = False):
    """Mean over all positions: (N, C), or (N, 1, 1, C) with `keepdims`."""
    return _mean(x, tuple(range(1, dims + 1)), keepdims)


def along_channels(v):
    """Vectors (N, C) as signals of one channel, along which a convolution goes."""
    return ops.expand_dims(v, -1)


def of_channels(signal, dims: int):
    """Such signals as numbers of channels, (N, 1, 1, C)."""
    return ops.expand_dims(ops.squeeze(signal, -1), tuple(range(1, dims + 1)))


def _mean(x, axes: tuple[int, ...], keepdims: bool = False):
    """ops.mean, which on the JAX and torch backends takes a float64's mean in float32 (Keras 3.15)."""
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return ops.mean(x, axes, keepdims=keepdims)
    if isinstance(x, keras.KerasTensor):  # which doesn't know its sizes
        return ops.sum(x, axes, keepdims=keepdims) / ops.sum(ops.ones_like(x), axes, keepdims=keepdims)
    return ops.sum(x, axes, keepdims=keepdims) / _count(x, axes)


def _count(x, axes: tuple[int, ...]):
    """How many values a mean over `axes` has: a number, or a tensor where a size is known only when it runs."""
    sizes = [ops.shape(x)[axis] for axis in axes]
    if all(isinstance(s, int) for s in sizes):
        return math.prod(sizes)
    n = ops.cast(1, x.dtype)
    for s in sizes:
        n = n * ops.cast(s, x.dtype)
    return n


class _Conv(Part):
    """A convolution that pads k // 2 on both sides at every stride, as PyTorch does. Keras' "same" does that at
    stride 1 alone: at stride 2 it pads (0, 1) or (2, 3) at even sizes, and the output is unrelated."""

    def __init__(self, c: Conv):
        explicit = c.stride > 1 and c.padding > 0
        super().__init__(
            c.out_channels, c.kernel, c.stride, "valid" if explicit else "same", data_format="channels_last",
            groups=c.groups, use_bias=c.bias, kernel_initializer=from_source(f"{c.name}.weight", he()),
            bias_initializer=from_source(f"{c.name}.bias"), name=keras_name(c.name),
        )  # fmt: skip
        self.before = ((0, 0), *((c.padding, c.padding),) * c.dims, (0, 0)) if explicit else None
        # TensorFlow and Keras' torch backend have no other layout, and no other way to stride
        self.every = c.stride if c.breaks_onednn else 1
        self.build((None, *(None,) * c.dims, c.in_channels))

    def call(self, x):
        strides = self.strides
        if self.before:
            x = ops.pad(x, self.before)
        if self.every > 1:
            x, strides = x[(slice(None), *(slice(None, None, self.every),) * self.rank)], 1
        if self.groups > 1 and keras.backend.backend() == "tensorflow":
            y = _grouped_tensorflow(x, self.kernel, strides, self.padding.upper(), self.groups)
        else:
            y = ops.conv(x, self.kernel, strides, self.padding, "channels_last")
        return _add_bias(y, self.bias) if self.use_bias else y

    def compute_output_shape(self, input_shape):
        if self.before:
            input_shape = tuple(n and n + sum(pad) for n, pad in zip(input_shape, self.before, strict=True))
        return super().compute_output_shape(input_shape)


def _add_bias(y, bias):
    """TensorFlow puts a BiasAdd into the convolution, and after it the sum and the ReLU; a sum of several it puts
    together first, and then into nothing."""
    if keras.backend.backend() != "tensorflow":
        return y + bias
    import tensorflow as tf

    return tf.nn.bias_add(y, ops.convert_to_tensor(bias))


class Conv1D(_Conv, keras.layers.Conv1D):
    pass


class Conv2D(_Conv, keras.layers.Conv2D):
    pass


def conv(c: Conv) -> keras.layers.Layer:
    return Conv1D(c) if c.dims == 1 else Conv2D(c)


_raw_gradients: dict[str, bool] = {}  # dtype: whether TensorFlow can differentiate a grouped convolution here


def _grouped_tensorflow(x, kernel, strides, padding: str, groups: int):
    """Keras sends grouped convolutions through an XLA function that it makes anew, so recompiles, at each eager call:
    22 ms for a forward pass of 4 and 2.6 s with its gradient for 12. TensorFlow's own kernel is right, and lacks a
    gradient only where oneDNN doesn't serve the dtype (float64); there the groups are convolved one by one."""
    import tensorflow as tf

    name = x.dtype.name
    if name not in _raw_gradients:
        with tf.init_scope():
            # the operator itself: init_scope stops every tape, a new one too
            k, y = tf.zeros((3, 3, 2, 4), name), tf.zeros((1, 2, 2, 4), name)
            try:
                tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=(1, 4, 4, 4), filter=k, out_backprop=y, strides=[1] * 4, padding="VALID"
                )
                _raw_gradients[name] = True
            except (tf.errors.OpError, ValueError):
                _raw_gradients[name] = False
    if _raw_gradients[name]:
        return tf.nn.convolution(x, kernel, strides, padding)
    pairs = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([tf.nn.convolution(a, k, strides, padding) for a, k in pairs], -1)


def _replicas():
    """What adds up a tensor over TensorFlow's replicas, where there are several: a batch is normalised as a whole, as
    JAX does by itself. Keras' `synchronized` takes the variance as a difference of two large numbers."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    here = tf.distribute.get_replica_context()
    if here is None or here.num_replicas_in_sync == 1:
        return None
    return lambda x: here.all_reduce(tf.distribute.ReduceOp.SUM, x)


def _fused_batch_norm(x, gamma, beta, eps: float):
    """(y, mean, unbiased variance) of a batch by TensorFlow's own kernel, which has a gradient in one piece too, where
    Keras makes a dozen passes over the activations and keeps half of them. All but `x` are in float32."""
    import tensorflow as tf

    signals = len(x.shape) == 3
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.expand_dims(x, 1) if signals else x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=eps
    )
    return tf.squeeze(y, 1) if signals else y, mean, variance


class BatchNorm(Part, keras.layers.BatchNormalization):
    """Batch normalisation with PyTorch's running statistics: the batch is normalised by its biased variance, but the
    running variance is the unbiased one, n / (n - 1) times as large. Keras 3 keeps the biased one, so that a net
    trained here and evaluated in PyTorch would differ (twice as much variance at n = 2, 1 % more at n = 98).
    Momentum 0.1 for the new value is Keras' 0.9 for the old; epsilon is 1e-5 and not Keras' 1e-3."""

    def __init__(self, n: Norm):
        super().__init__(
            axis=-1, momentum=1 - MOMENTUM, epsilon=n.eps, name=keras_name(n.name),
            gamma_initializer=from_source(f"{n.name}.weight", "ones"), beta_initializer=from_source(f"{n.name}.bias"),
            moving_mean_initializer=from_source(f"{n.name}.running_mean"),
            moving_variance_initializer=from_source(f"{n.name}.running_var", "ones"),
        )  # fmt: skip
        self.build((None, n.channels))
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: n.channels})  # any rank

    def call(self, x, training=None, mask=None):
        # half precision can't hold the sums; keras.backend.result_type would, on JAX and torch, make float32 of float64
        dtype = "float32" if self.compute_dtype in ("float16", "bfloat16") else self.compute_dtype
        gamma, beta = ops.cast(self.gamma, dtype), ops.cast(self.beta, dtype)
        running_mean, running_var = ops.cast(self.moving_mean, dtype), ops.cast(self.moving_variance, dtype)
        if _is_training(training) and self.trainable:
            y, mean, variance = self._by_batch(x, gamma, beta, dtype)
            self.moving_mean.assign((1 - MOMENTUM) * running_mean + MOMENTUM * mean)
            self.moving_variance.assign((1 - MOMENTUM) * running_var + MOMENTUM * variance)
        else:
            y = self._normalised(ops.cast(x, dtype), running_mean, running_var, gamma, beta)
        return ops.cast(y, self.compute_dtype)

    def _by_batch(self, x, gamma, beta, dtype: str):
        """(y, mean, unbiased variance), the latter two of the batch."""
        axes = tuple(range(len(x.shape) - 1))
        n = _count(x, axes)
        if isinstance(n, int) and n < 2:  # PyTorch's check, in its words
            raise ValueError(
                f"expected more than 1 value per channel when training, got input of shape {tuple(x.shape)}"
            )
        replicas = _replicas()
        if keras.backend.backend() == "tensorflow" and replicas is None and dtype == "float32" and len(axes) < 4:
            return _fused_batch_norm(x, gamma, beta, self.epsilon)
        x = ops.cast(x, dtype)
        if replicas is None:
            mean = _mean(x, axes)
            variance = _mean(ops.square(x - mean), axes)
        else:
            n = replicas(ops.cast(n, dtype))
            mean = replicas(ops.sum(x, axes)) / n
            variance = replicas(ops.sum(ops.square(x - mean), axes)) / n
        return self._normalised(x, mean, variance, gamma, beta), mean, variance * n / (n - 1)

    def _normalised(self, x, mean, variance, gamma, beta):
        return ops.batch_normalization(x, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=self.epsilon)


def norm(n: Norm | None) -> keras.layers.Layer:
    """The norm, or nothing where it is folded into the convolution before it."""
    return BatchNorm(n) if n else keras.layers.Identity()


class Dense(Part, keras.layers.Dense):
    """A linear layer that multiplies in its own dtype: ops.matmul takes float64 for float32 on the torch backend
    (Keras 3.15)."""

    def __init__(self, c: Linear):
        super().__init__(
            c.out_features,
            kernel_initializer=from_source(f"{c.name}.weight", "lecun_normal"),
            bias_initializer=from_source(f"{c.name}.bias"),
            name=keras_name(c.name),
        )
        self.build((None, c.in_features))

    def call(self, x, training=None):
        return x @ ops.convert_to_tensor(self.kernel) + ops.convert_to_tensor(self.bias)

    def quantize(self, *args, **kwargs):
        _refuse_quantization()


def _refuse_quantization():
    """Keras passes over layers that aren't just its own, without a word."""
    raise RosettaError(
        "Keras can't quantize these layers: export() the net and quantize what it wrote, or take torch_impl's net to "
        "PyTorch's quantization"
    )


def linear(c: Linear) -> Dense:
    return Dense(c)


class MaxPool(Module):
    """ "same" would be lopsided; the border counts as -inf, since the stem of a pre-activation net can be negative, or
    as 0."""

    def __init__(self, p: Pool):
        super().__init__(p.name)
        # with zeros padded by one too many and cut: ONNX Runtime takes a padding that comes right before a pooling for
        # the pooling's own, whose border is -inf, and is 1e-2 off without a word
        self.before = ((0, 0), *((p.padding + p.zeros,) * 2,) * p.dims, (0, 0))
        self.cut = (slice(None), *(slice(1, -1),) * p.dims) if p.zeros else ()
        self.border, self.window = 0.0 if p.zeros else -math.inf, (p.kernel, p.stride)

    def call(self, x):
        x = ops.pad(x, self.before, constant_values=self.border)
        x = x[self.cut] if self.cut else x
        return ops.max_pool(x, *self.window, "valid", "channels_last")


class Blur(Module):
    """1-2-1 along each axis, each channel by itself, with the border reflected (Zhang 2019)."""

    def __init__(self, p: Pool):
        super().__init__(p.name)
        line = np.array([0.25, 0.5, 0.25], np.float32)
        window = (line if p.dims == 1 else line[:, None] * line)[..., None, None]
        self.filter = np.repeat(window, p.channels, -2)  # *k, C, 1
        self.before, self.stride = ((0, 0), *((p.padding,) * 2,) * p.dims, (0, 0)), p.stride

    def call(self, x):
        x = ops.pad(x, self.before, "reflect")
        return ops.depthwise_conv(x, ops.cast(self.filter, x.dtype), self.stride, "valid", "channels_last")


def pool(p: Pool | None):
    """Nothing where there is none. A mean's last window, where it hangs over, is that of "same": the mean of what there
    is."""
    if p is None:
        return identity
    if p.kind == "blur":
        return Blur(p)
    if p.kind == "max":
        return MaxPool(p)
    if p.kernel == 1:
        return keras.layers.Identity(name=keras_name(p.name))
    layer = keras.layers.AveragePooling1D if p.dims == 1 else keras.layers.AveragePooling2D
    padding = "same" if p.ceil else "valid"
    return layer(p.kernel, p.stride, padding, data_format="channels_last", name=keras_name(p.name))


class PadShortcut(Module):
    """Option A of He et al. 2015: each `stride`-th position, zero channels on both sides."""

    def __init__(self, s: Shortcut):
        super().__init__()
        self.stride, self.before, self.after, self.dims = s.stride, s.before, s.after, s.dims

    def call(self, x):
        x = x[(slice(None), *(slice(None, None, self.stride),) * self.dims, slice(None))]
        return ops.pad(x, ((0, 0), *((0, 0),) * self.dims, (self.before, self.after)))


class Dropout(keras.layers.Dropout):
    """Zeroes elements at `rate` while training, and scales the others up; the mask can be shared (common/noise.py)."""

    def call(self, x, training=None):
        if not _is_training(training):
            return x
        n, *s, c = x.shape
        mask = noise.mask((n, c, *s), self.rate)
        return (
            super().call(x, training=True)
            if mask is None
            else x * ops.convert_to_tensor(np.moveaxis(mask, 1, -1), x.dtype)
        )


class DropPath(keras.layers.Dropout):
    """Stochastic depth: zeroes whole examples. Survivors are scaled up while training, where Huang et al. 2016
    scale down in evaluation: the same expectation, and evaluation needs no rate."""

    def call(self, x, training=None):
        if not _is_training(training):
            return x
        shape = (ops.shape(x)[0], *(1,) * (len(x.shape) - 1))
        mask = noise.mask(shape, self.rate)
        if mask is None:
            return x * keras.random.dropout(ops.ones(shape, x.dtype), self.rate, seed=self.seed_generator)
        return x * ops.convert_to_tensor(mask, x.dtype)


def dropout(rate: float):
    return Dropout(rate) if rate else identity


def drop_path(rate: float):
    return DropPath(rate) if rate else identity
