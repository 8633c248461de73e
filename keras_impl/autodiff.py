"""One pass in training mode with its gradients. The twin of torch_impl/autodiff.py."""

import keras
import numpy as np
from keras import ops

from common.differentiated import Differentiated
from keras_impl.layers import to_torch
from keras_impl.weights import named_variables


def loss_of(logits, labels: np.ndarray | None):
    """The mean cross-entropy against `labels` (N integers), or without them half the mean square of the
    logits (N classes; a tensor or an array)."""
    logits = ops.convert_to_tensor(logits)
    if labels is None:
        return ops.sum(ops.square(logits)) / (2 * np.prod(logits.shape).item())
    one_hot = np.eye(logits.shape[1])[labels]
    z = logits - ops.stop_gradient(ops.max(logits, 1, keepdims=True))
    log_p = z - ops.log(ops.sum(ops.exp(z), 1, keepdims=True))
    return -ops.sum(log_p * ops.convert_to_tensor(one_hot, logits.dtype)) / len(labels)


def gradients_of(model, x: np.ndarray, labels: np.ndarray | None):
    """(loss, logits, gradient by the input, [gradient by each parameter]): tensors, in the order of
    `model.trainable_variables`."""
    tensor = ops.convert_to_tensor(np.moveaxis(x, 1, -1), model.compute_dtype)
    return _GRADIENTS[keras.backend.backend()](model, tensor, lambda logits: loss_of(logits, labels))


def differentiate(model, x: np.ndarray, labels: np.ndarray | None) -> Differentiated:
    """Loss, logits and gradients of one training-mode pass of `x` (N C *S), which moves the running statistics.

    The loss is `loss_of`. Gradients are by canonical name, in PyTorch's layout, that of the input N C *S; as arrays,
    bfloat16, which numpy lacks, as float32.
    """
    loss, logits, by_input, by_variable = gradients_of(model, x, labels)
    found = {id(v): g for v, g in zip(model.trainable_variables, by_variable, strict=True)}
    gradients = {name: to_torch(_numpy(found[id(v)])) for name, v in named_variables(model) if id(v) in found}
    return Differentiated(float(loss), _numpy(logits), gradients, np.moveaxis(_numpy(by_input), -1, 1))


def _numpy(y) -> np.ndarray:
    y = ops.convert_to_numpy(y)
    return y.astype(np.float32) if y.dtype.name == "bfloat16" else y


def _tensorflow(model, x, loss_of):
    import tensorflow as tf

    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, *variables])
        logits = model(x, training=True)
        loss = loss_of(logits)
    by_input, *by_variable = tape.gradient(loss, [x, *variables])
    return loss, logits, by_input, by_variable


def _jax(model, x, loss_of):
    import jax

    def pure(x, trainable, other):
        logits, other = model.stateless_call(trainable, other, x, training=True)
        return loss_of(logits), (logits, other)

    trainable, other = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    run = jax.value_and_grad(pure, argnums=(0, 1), has_aux=True)
    (loss, (logits, other)), (by_input, by_variable) = run(x, trainable, other)
    for variable, value in zip(model.non_trainable_variables, other, strict=True):
        variable.assign(value)
    return loss, logits, by_input, by_variable


def _torch(model, x, loss_of):
    import torch

    x = x.detach().requires_grad_()
    variables = [v.value for v in model.trainable_variables]
    logits = model(x, training=True)
    loss = loss_of(logits)
    by_input, *by_variable = torch.autograd.grad(loss, [x, *variables])
    return loss.detach(), logits.detach(), by_input, by_variable


_GRADIENTS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
