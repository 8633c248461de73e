"""Every way in which Keras differs from PyTorch, one function or class a difference.

The twin of torch_impl/layers.py: the same names in the same order. Axes are N *S C (images: N H W C), whatever
keras.config says. What serves one engine alone is in engines.py, what a whole net has beyond its layers in model.py.

he, identity, nothing, add, relu, sigmoid, concat      arithmetic without weights
spatial_mean, along_channels, of_channels              means over positions, and a convolution along them
conv                                                   padded as PyTorch pads
norm                                                   PyTorch's running statistics
linear                                                 in its own dtype
pool                                                   borders of -inf or 0, blur, windows that hang over
PadShortcut                                            option A
dropout, drop_path                                     with masks that two frameworks can share
"""

import math

import keras
import numpy as np
from keras import ops

from common import noise
from common.plan import MOMENTUM, Conv, Linear, Norm, Pool, Shortcut
from keras_impl import engines
from keras_impl.model import Module, Part, from_source, is_training, keras_name, refuse_quantization


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
    return engines.mean(x, tuple(range(1, dims + 1)), keepdims)


def along_channels(v):
    """Vectors (N, C) as signals of one channel, along which a convolution goes."""
    return ops.expand_dims(v, -1)


def of_channels(signal, dims: int):
    """Such signals as numbers of channels, (N, 1, 1, C)."""
    return ops.expand_dims(ops.squeeze(signal, -1), tuple(range(1, dims + 1)))


class _Conv(Part):
    """A convolution that pads k // 2 on both sides at every stride, as PyTorch does. Keras' "same" does that at
    stride 1 alone: at stride 2 it pads (0, 1) or (2, 3) at even sizes, and the output is unrelated."""

    def __init__(self, c: Conv):
        explicit = c.stride > 1 and c.padding > 0
        super().__init__(
            c.out_channels, c.kernel, c.stride, "valid" if explicit else "same", data_format="channels_last",
            dilation_rate=c.dilation, groups=c.groups, use_bias=c.bias,
            kernel_initializer=from_source(f"{c.name}.weight", he()), bias_initializer=from_source(f"{c.name}.bias"),
            name=keras_name(c.name),
        )  # fmt: skip
        self.before = ((0, 0), *((c.padding, c.padding),) * c.dims, (0, 0)) if explicit else None
        # TensorFlow and Keras' torch backend have no other layout, and no other way to stride
        self.every = c.stride if c.breaks_onednn else 1
        self.std_eps = c.std_eps
        self.build((None, *(None,) * c.dims, c.in_channels))

    def call(self, x):
        strides = self.strides
        kernel = self._standardised() if self.std_eps else self.kernel
        if self.before:
            x = ops.pad(x, self.before)
        if self.every > 1:
            x, strides = x[(slice(None), *(slice(None, None, self.every),) * self.rank)], 1
        y = engines.convolve(x, kernel, strides, self.padding, self.groups, self.dilation_rate)
        return engines.add_bias(y, self.bias) if self.use_bias else y

    def _standardised(self):
        """The kernel with mean 0 and variance 1 for each output channel, the variance biased."""
        half = self.compute_dtype in ("float16", "bfloat16")
        kernel = ops.cast(self.kernel, "float32" if half else self.compute_dtype)
        axes = tuple(range(self.rank + 1))
        kernel = kernel - engines.mean(kernel, axes, keepdims=True)
        kernel = kernel / ops.sqrt(engines.mean(ops.square(kernel), axes, keepdims=True) + self.std_eps)
        return ops.cast(kernel, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        if self.before:
            input_shape = tuple(n and n + sum(pad) for n, pad in zip(input_shape, self.before, strict=True))
        return super().compute_output_shape(input_shape)


class Conv1D(_Conv, keras.layers.Conv1D):
    pass


class Conv2D(_Conv, keras.layers.Conv2D):
    pass


def conv(c: Conv) -> keras.layers.Layer:
    return Conv1D(c) if c.dims == 1 else Conv2D(c)


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
        if is_training(training) and self.trainable:
            y, mean, variance = self._by_batch(x, gamma, beta, dtype)
            self.moving_mean.assign((1 - MOMENTUM) * running_mean + MOMENTUM * mean)
            self.moving_variance.assign((1 - MOMENTUM) * running_var + MOMENTUM * variance)
        else:
            y = self._normalised(ops.cast(x, dtype), running_mean, running_var, gamma, beta)
        return ops.cast(y, self.compute_dtype)

    def _by_batch(self, x, gamma, beta, dtype: str):
        """(y, mean, unbiased variance), the latter two of the batch."""
        axes = tuple(range(len(x.shape) - 1))
        n = engines.count(x, axes)
        if isinstance(n, int) and n < 2:  # PyTorch's check, in its words
            raise ValueError(
                f"expected more than 1 value per channel when training, got input of shape {tuple(x.shape)}"
            )
        replicas = engines.replicas()
        if keras.backend.backend() == "tensorflow" and replicas is None and dtype == "float32" and len(axes) < 4:
            return engines.fused_batch_norm(x, gamma, beta, self.epsilon)
        x = ops.cast(x, dtype)
        if replicas is None:
            mean = engines.mean(x, axes)
            variance = engines.mean(ops.square(x - mean), axes)
        else:
            n = replicas(ops.cast(n, dtype))
            mean = replicas(ops.sum(x, axes)) / n
            variance = replicas(ops.sum(ops.square(x - mean), axes)) / n
        return self._normalised(x, mean, variance, gamma, beta), mean, variance * n / (n - 1)

    def _normalised(self, x, mean, variance, gamma, beta):
        return ops.batch_normalization(x, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=self.epsilon)


class GroupNorm(Part, keras.layers.Layer):
    """Group normalisation in the layer's own dtype: Keras' takes float64 for float32 (Keras 3.15), and its epsilon is
    1e-3."""

    def __init__(self, n: Norm):
        super().__init__(name=keras_name(n.name))
        self.groups, self.epsilon = n.groups, n.eps
        self.gamma = self.add_weight((n.channels,), from_source(f"{n.name}.weight", "ones"), name="gamma")
        self.beta = self.add_weight((n.channels,), from_source(f"{n.name}.bias"), name="beta")
        self.built = True

    def call(self, x):
        dtype = "float32" if self.compute_dtype in ("float16", "bfloat16") else self.compute_dtype
        shape, channels = ops.shape(x), x.shape[-1]
        y = ops.reshape(ops.cast(x, dtype), (*shape[:-1], self.groups, channels // self.groups))
        axes = (*range(1, len(shape) - 1), len(shape))  # positions, and the channels of a group
        y = y - engines.mean(y, axes, keepdims=True)
        y = y / ops.sqrt(engines.mean(ops.square(y), axes, keepdims=True) + self.epsilon)
        y = ops.reshape(y, shape) * ops.cast(self.gamma, dtype) + ops.cast(self.beta, dtype)
        return ops.cast(y, self.compute_dtype)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, self.compute_dtype)


def norm(n: Norm | None) -> keras.layers.Layer:
    """The norm, or nothing where it is folded into the convolution before it."""
    if n is None:
        return keras.layers.Identity()
    return GroupNorm(n) if n.groups else BatchNorm(n)


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
        refuse_quantization()


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


class MeanPool(Module):
    """With zeros behind the last position, which count."""

    def __init__(self, p: Pool):
        super().__init__(p.name)
        self.behind, self.window = ((0, 0), *((0, p.behind),) * p.dims, (0, 0)), (p.kernel, p.stride)

    def call(self, x):
        return ops.average_pool(ops.pad(x, self.behind), *self.window, "valid", "channels_last")


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
    if p.behind:
        return MeanPool(p)
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
        if not is_training(training):
            return x
        n, *s, c = x.shape
        mask = noise.mask((n, c, *s), self.rate)
        return (
            keras.layers.Dropout.call(self, x, training=True)
            if mask is None
            else x * ops.convert_to_tensor(np.moveaxis(mask, 1, -1), x.dtype)
        )


class DropPath(keras.layers.Dropout):
    """Stochastic depth: zeroes whole examples. Survivors are scaled up while training, where Huang et al. 2016
    scale down in evaluation: the same expectation, and evaluation needs no rate."""

    def call(self, x, training=None):
        if not is_training(training):
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
