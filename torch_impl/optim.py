"""torch.optim's update rules, by the rows of common/rules.py. The twin of keras_impl/optim.py."""

from collections.abc import Iterator

import numpy as np
import torch

from common.rules import Rule
from torch_impl.layers import to_numpy


def optimizer(model, rule: Rule) -> torch.optim.Optimizer:
    """torch.optim's optimizer of `model`'s parameters that follows `rule`."""
    if rule.kind == "SGD":
        return torch.optim.SGD(
            model.parameters(), rule.rate, rule.momentum, weight_decay=rule.weight_decay, nesterov=rule.nesterov
        )
    kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[rule.kind]
    betas = (rule.beta_1, rule.beta_2)
    return kind(model.parameters(), rule.rate, betas, rule.epsilon, weight_decay=rule.weight_decay)


def step(model, optimizer: torch.optim.Optimizer, gradients, rate: float) -> None:
    """One step at `rate`; `gradients` are tensors in the order of `model.parameters()`."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()


def moments(model, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, np.ndarray]]:
    """("conv1.weight momentum", array) of everything that the optimizer keeps of each parameter; Adam's are its mean
    and square. Arrays in PyTorch's layout."""
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        for key, kind in _KEPT.items():
            if state.get(key) is not None:
                yield f"{name} {kind}", to_numpy(state[key]).copy()  # which the next step changes in place


_KEPT = {"momentum_buffer": "momentum", "exp_avg": "mean", "exp_avg_sq": "square"}
