"""What one of Keras' engines needs and the others don't: ways around what TensorFlow, JAX or torch does otherwise.

mean, count          float64 where Keras' JAX and torch backends compute in float32
convolve             TensorFlow's own grouped convolution
add_bias             one that TensorFlow puts together with the convolution before it
replicas             a batch over several of TensorFlow's devices
fused_batch_norm     TensorFlow's own kernel
"""

import math

import keras
from keras import ops


def mean(x, axes: tuple[int, ...], keepdims: bool = False):
    """ops.mean, which on the JAX and torch backends takes a float64's mean in float32 (Keras 3.15)."""
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return ops.mean(x, axes, keepdims=keepdims)
    if isinstance(x, keras.KerasTensor):  # which doesn't know its sizes
        return ops.sum(x, axes, keepdims=keepdims) / ops.sum(ops.ones_like(x), axes, keepdims=keepdims)
    return ops.sum(x, axes, keepdims=keepdims) / count(x, axes)


def count(x, axes: tuple[int, ...]):
    """How many values a mean over `axes` has: a number, or a tensor where a size is known only when it runs."""
    sizes = [ops.shape(x)[axis] for axis in axes]
    if all(isinstance(s, int) for s in sizes):
        return math.prod(sizes)
    n = ops.cast(1, x.dtype)
    for s in sizes:
        n = n * ops.cast(s, x.dtype)
    return n


_raw_gradients: dict[str, bool] = {}  # dtype: whether TensorFlow can differentiate a grouped convolution here


def convolve(x, kernel, strides, padding: str, groups: int, dilation=1):
    """ops.conv, channels last. On TensorFlow Keras sends groups through an XLA function that it makes anew, so
    recompiles, at each eager call: 22 ms for a forward pass of 4 and 2.6 s with its gradient for 12. TensorFlow's own
    kernel is right, and lacks a gradient only where oneDNN doesn't serve the dtype (float64); there the groups are
    convolved one by one."""
    if groups == 1 or keras.backend.backend() != "tensorflow":
        return ops.conv(x, kernel, strides, padding, "channels_last", dilation)
    padding = padding.upper()
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
        return tf.nn.convolution(x, kernel, strides, padding, dilations=dilation)
    pairs = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([tf.nn.convolution(a, k, strides, padding, dilations=dilation) for a, k in pairs], -1)


def add_bias(y, bias):
    """TensorFlow puts a BiasAdd into the convolution, and after it the sum and the ReLU; a sum of several it puts
    together first, and then into nothing."""
    if keras.backend.backend() != "tensorflow":
        return y + bias
    import tensorflow as tf

    return tf.nn.bias_add(y, ops.convert_to_tensor(bias))


def replicas():
    """What adds up a tensor over TensorFlow's replicas, where there are several: a batch is normalised as a whole, as
    JAX does by itself. Keras' `synchronized` takes the variance as a difference of two large numbers."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    here = tf.distribute.get_replica_context()
    if here is None or here.num_replicas_in_sync == 1:
        return None
    return lambda x: here.all_reduce(tf.distribute.ReduceOp.SUM, x)


def fused_batch_norm(x, gamma, beta, eps: float):
    """(y, mean, unbiased variance) of a batch by TensorFlow's own kernel, which has a gradient in one piece too, where
    Keras makes a dozen passes over the activations and keeps half of them. All but `x` are in float32."""
    import tensorflow as tf

    signals = len(x.shape) == 3
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.expand_dims(x, 1) if signals else x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=eps
    )
    return tf.squeeze(y, 1) if signals else y, mean, variance
