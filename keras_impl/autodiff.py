"""One pass in training mode with its gradients. The twin of torch_impl/autodiff.py."""

import keras
import numpy as np
from keras import ops

from common.parity.differentiated import Differentiated
from keras_impl.model import to_numpy, to_torch
from keras_impl.weights import named_variables


def loss_of(logits, labels: np.ndarray | None, smoothing: float = 0.0, weights: np.ndarray | None = None):
    """The mean cross-entropy against `labels` (N integers), of which `smoothing` is spread over all classes, and where
    each class counts by its `weights`; or without labels half the mean square of the logits (N classes; a tensor or an
    array)."""
    logits = ops.convert_to_tensor(logits)
    if labels is None:
        return ops.sum(ops.square(logits)) / (2 * np.prod(logits.shape).item())
    one_hot = ops.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    z = logits - ops.stop_gradient(ops.max(logits, 1, keepdims=True))
    log_p = z - ops.log(ops.sum(ops.exp(z), 1, keepdims=True))
    kinds = None if weights is None else ops.cast(ops.convert_to_tensor(weights), logits.dtype)
    total = len(labels) if weights is None else ops.sum(one_hot * kinds)
    if smoothing:
        one_hot = one_hot * (1 - smoothing) + smoothing / logits.shape[1]
    return -ops.sum(log_p * (one_hot if weights is None else one_hot * kinds)) / total


def gradients_of(model, x: np.ndarray, labels: np.ndarray | None):
    """(loss, logits, gradient by the input, [gradient by each parameter]): tensors, in the order of
    `model.trainable_variables`."""
    tensor = ops.convert_to_tensor(np.moveaxis(x, 1, -1), model.compute_dtype)
    return _GRADIENTS[keras.backend.backend()](model, tensor, labels)


def differentiate(model, x: np.ndarray, labels: np.ndarray | None) -> Differentiated:
    """Loss, logits and gradients of one training-mode pass of `x` (N C *S), which moves the running statistics.

    The loss is `loss_of`. Gradients are by canonical name, in PyTorch's layout, that of the input N C *S; as arrays,
    bfloat16, which numpy lacks, as float32.
    """
    loss, logits, by_input, by_variable = gradients_of(model, x, labels)
    found = {id(v): g for v, g in zip(model.trainable_variables, by_variable, strict=True)}
    gradients = {name: to_torch(to_numpy(found[id(v)])) for name, v in named_variables(model) if id(v) in found}
    return Differentiated(float(loss), to_numpy(logits), gradients, np.moveaxis(to_numpy(by_input), -1, 1))


def _tensorflow(model, x, labels):
    import tensorflow as tf

    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, *variables])
        logits = model(x, training=True)
        loss = loss_of(logits, labels)
    by_input, *by_variable = tape.gradient(loss, [x, *variables])
    return loss, logits, by_input, by_variable


def _jax(model, x, labels):
    run = vars(model).get("_differentiated") or _jax_pass(model)
    trainable, other = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    (loss, (logits, other)), (by_input, by_variable) = run(x, trainable, other, labels)
    for variable, value in zip(model.non_trainable_variables, other, strict=True):
        variable.assign(value)
    return loss, logits, by_input, by_variable


def _jax_pass(model):
    import jax

    def pure(x, trainable, other, labels):
        logits, other = model.stateless_call(trainable, other, x, training=True)
        return loss_of(logits, labels), (logits, other)

    run = jax.value_and_grad(pure, argnums=(0, 1), has_aux=True)
    if not model.plan.random and len(list(model.plan.layers())) < _MANY:
        # compiling takes a third of the time in which JAX would compile each operator by itself; a mask, which is drawn
        # when the pass is traced, would be the same in every later pass. The model keeps it: it holds the model, and
        # both go together
        run = jax.jit(run)
        object.__setattr__(model, "_differentiated", run)
    return run


def _torch(model, x, labels):
    import torch

    x = x.detach().requires_grad_()
    variables = [v.value for v in model.trainable_variables]
    logits = model(x, training=True)
    loss = loss_of(logits, labels)
    by_input, *by_variable = torch.autograd.grad(loss, [x, *variables])
    return loss.detach(), logits.detach(), by_input, by_variable


_MANY = 1000  # convolutions and norms: XLA took more than 8 minutes and 12 GB to compile 2,403 of them
_GRADIENTS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
