"""What each layer of a PyTorch net puts out. The twin of keras_impl/trace.py."""

from collections.abc import Callable

import numpy as np
import torch

See = Callable[[str, np.ndarray], None]


def trace(model, x: np.ndarray, see: See) -> np.ndarray:
    """One evaluation-mode pass of `x` (N C *S): `see(name, output)` for each layer in the order in which they end.

    Outputs are N C *S; they are views, good only until `see` returns. Gives the logits (N classes).
    """
    tensor = next(model.parameters())
    hooks, training = [], model.training
    for name, module in model.named_modules():
        if name:
            hooks.append(module.register_forward_hook(lambda m, i, y, name=name: see(name, _numpy(y))))
    try:
        with torch.no_grad():
            return _numpy(model.eval()(torch.from_numpy(x).to(tensor))).copy()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


def _numpy(y) -> np.ndarray:
    return (y.float() if y.dtype == torch.bfloat16 else y).cpu().numpy()
