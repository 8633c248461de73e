"""The fast path for inference in one call. The twin of torch_impl/fast.py.

fast = optimize(model, images, dtype="bfloat16")
logits = fast(images)
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from common import fast
from common.memory import keep_memory
from keras_impl.layers import to_numpy
from keras_impl.resnet import create_model
from keras_impl.trace import trace
from keras_impl.weights import export_weights


def optimize(model, example, *, dtype: str | None = None) -> fast.Optimized:
    """A callable that computes what `model` does in evaluation mode, as fast as the backend can.

    BatchNorm is folded, and the graph compiled in `dtype` (by default the model's): on TensorFlow with frozen weights,
    and by XLA where there is a GPU and it is faster; on JAX by `jit`; on torch it runs as it comes. `example` (N *S C)
    is the shape that it is made for, and what it is held against the model on. The model stays as it is, and the
    process keeps what memory it frees. Raises RosettaError for an example that the model can't take, and where the
    logits differ by more than the dtype's noise.
    """
    own = model.compute_dtype
    name = dtype or own
    fast.check_example(example, model.plan.arch, hasattr(example, "shape"), "an array N *S C", -1)
    keep_memory()
    first = np.moveaxis(to_numpy(example), -1, 1)
    plain = trace(model, first)

    def in_bits(bits: str):
        return trace(create_model(model.plan.arch, dtype=bits, weights=export_weights(model)), first[:2])

    floor = fast.noise(plain[:2], name, in_bits)  # first: its memory is used again
    net = create_model(dataclasses.replace(model.plan.arch, folded=True), dtype=name, weights=export_weights(model))
    steps = ["BatchNorm folded", name]
    shape = tuple(example.shape)
    compiled = _COMPILED[keras.backend.backend()](net, shape, own, steps)

    def run(x):
        return compiled(x) if tuple(x.shape) == shape else model(x, training=False)

    return fast.proven(run, to_numpy(run(example)), plain, name, steps, floor)


def _tensorflow(net, shape: tuple[int, ...], returned: str, steps: list[str]):
    """A graph whose weights are constants: only then does TensorFlow give a convolution its bias and ReLU, and order
    its kernel once."""
    import tensorflow as tf

    values = [[v.numpy() for v in vs] for vs in (net.trainable_variables, net.non_trainable_variables)]

    def forward(x):
        constants = ([tf.constant(v) for v in of] for of in values)
        y, _ = net.stateless_call(*constants, tf.cast(x, net.compute_dtype), training=False)
        return tf.cast(y, returned)

    def like(x):
        return tf.convert_to_tensor(x, returned)

    graph = tf.function(forward).get_concrete_function(tf.TensorSpec(shape, returned))

    def frozen(x):
        return graph(like(x))

    candidates = {"compiled by TensorFlow with frozen weights": frozen}
    if tf.config.list_physical_devices("GPU"):  # on a CPU it takes a tenth more than TensorFlow, and minutes to compile
        xla = tf.function(forward, jit_compile=True)
        candidates["compiled by XLA"] = lambda x: xla(like(x))
    best = next(iter(candidates))
    if len(candidates) > 1:
        best = min(candidates, key=lambda name: _seconds(candidates[name], tf.zeros(shape, returned)))
    steps.append(best)
    return candidates[best]


def _seconds(run, x) -> float:
    """Of the third of three runs."""
    import time

    for _ in range(3):
        start = time.perf_counter()
        to_numpy(run(x))
    return time.perf_counter() - start


def _jax(net, shape: tuple[int, ...], returned: str, steps: list[str]):
    import jax

    parameters, others = ([v.value for v in vs] for vs in (net.trainable_variables, net.non_trainable_variables))

    @jax.jit
    def forward(parameters, others, x):
        y, _ = net.stateless_call(parameters, others, ops.cast(x, net.compute_dtype), training=False)
        return ops.cast(y, returned)

    steps.append("compiled by JAX' jit")
    return lambda x: forward(parameters, others, x)


def _torch(net, shape: tuple[int, ...], returned: str, steps: list[str]):
    import torch

    def forward(x):
        with torch.inference_mode():
            return ops.cast(net(ops.cast(x, net.compute_dtype), training=False), returned)

    return forward


_COMPILED = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
