"""What each layer of a PyTorch net puts out. The twin of keras_impl/trace.py."""

from collections.abc import Callable

import numpy as np
import torch

from torch_impl.model import to_numpy

See = Callable[[str, np.ndarray], None]


def trace(model, x: np.ndarray, see: See | None = None, training: bool = False) -> np.ndarray:
    """One pass of `x` (N C *S): `see(name, output)` for each layer in the order in which they end, if there is
    a `see`.

    Outputs are N C *S; they are views, good only until `see` returns. Gives the logits (N classes). In training mode
    the running statistics move.
    """
    tensor = next(model.parameters())
    hooks, before = [], model.training
    for name, module in model.named_modules() if see else ():
        if name:
            hooks.append(module.register_forward_hook(lambda m, i, y, name=name: see(name, to_numpy(y))))
    try:
        with torch.no_grad():
            return to_numpy(model.train(training)(torch.from_numpy(x).to(tensor))).copy()
    finally:
        model.train(before)
        for hook in hooks:
            hook.remove()
