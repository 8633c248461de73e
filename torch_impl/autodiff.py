"""One pass in training mode with its gradients. The twin of keras_impl/autodiff.py."""

import numpy as np
import torch
from torch.nn import functional as F

from common.parity.differentiated import Differentiated
from torch_impl.model import to_numpy


def loss_of(logits, labels: np.ndarray | None, smoothing: float = 0.0, weights: np.ndarray | None = None):
    """The mean cross-entropy against `labels` (N integers), of which `smoothing` is spread over all classes, and where
    each class counts by its `weights`; or without labels half the mean square of the logits (N classes; a tensor or an
    array)."""
    logits = torch.as_tensor(logits)
    if labels is None:
        return logits.square().mean() / 2
    target = torch.as_tensor(np.asarray(labels, np.int64), device=logits.device)
    kinds = None if weights is None else torch.as_tensor(weights, dtype=logits.dtype, device=logits.device)
    return F.cross_entropy(logits, target, kinds, label_smoothing=smoothing)


def gradients_of(model, x: np.ndarray, labels: np.ndarray | None):
    """(loss, logits, gradient by the input, [gradient by each parameter]): tensors, in the order of
    `model.parameters()`."""
    parameters = list(model.parameters())
    tensor = torch.from_numpy(np.ascontiguousarray(x)).to(parameters[0]).requires_grad_()
    logits = model.train()(tensor)
    loss = loss_of(logits, labels)
    by_input, *by_parameter = torch.autograd.grad(loss, [tensor, *parameters])
    return loss.detach(), logits.detach(), by_input, by_parameter


def differentiate(model, x: np.ndarray, labels: np.ndarray | None) -> Differentiated:
    """Loss, logits and gradients of one training-mode pass of `x` (N C *S), which moves the running statistics.

    The loss is `loss_of`. Gradients are by canonical name, in PyTorch's layout, that of the input N C *S; as arrays,
    bfloat16, which numpy lacks, as float32.
    """
    loss, logits, by_input, by_parameter = gradients_of(model, x, labels)
    names = [name for name, _ in model.named_parameters()]
    gradients = {name: to_numpy(g) for name, g in zip(names, by_parameter, strict=True)}
    return Differentiated(float(loss), to_numpy(logits), gradients, to_numpy(by_input))
