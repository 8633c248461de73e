"""One pass in training mode with its gradients. The twin of keras_impl/autodiff.py."""

import numpy as np
import torch
from torch.nn import functional as F

from common.differentiated import Differentiated


def differentiate(model, x: np.ndarray, labels: np.ndarray | None) -> Differentiated:
    """Loss, logits and gradients of one training-mode pass of `x` (N C *S), which moves the running statistics.

    The loss is the mean cross-entropy against `labels` (N integers), or without them half the mean square. Gradients
    are by canonical name, in PyTorch's layout, that of the input N C *S.
    """
    parameters = dict(model.named_parameters())
    tensor = torch.from_numpy(np.ascontiguousarray(x)).to(next(iter(parameters.values()))).requires_grad_()
    logits = model.train()(tensor)
    if labels is None:
        loss = logits.square().mean() / 2
    else:
        loss = F.cross_entropy(logits, torch.from_numpy(np.asarray(labels, np.int64)).to(logits.device))
    found = torch.autograd.grad(loss, [tensor, *parameters.values()])
    by_input, *by_parameter = (g.cpu().numpy() for g in found)
    gradients = dict(zip(parameters, by_parameter, strict=True))
    return Differentiated(loss.item(), logits.detach().cpu().numpy(), gradients, by_input)
