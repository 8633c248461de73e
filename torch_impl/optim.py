"""torch.optim's update rules, by the rows of common/parity/rules.py. The twin of keras_impl/optim.py."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from common.parity.rules import Parts, Rule
from torch_impl.model import to_numpy


def optimizer(model, rule: Rule, parts: Parts | None = None) -> torch.optim.Optimizer:
    """torch.optim's optimizer of `model`'s parameters that follows `rule`; `parts` are what multiplies the rate and
    the weight decay of those that differ, by canonical name."""
    alike: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            alike.setdefault((parts or {}).get(name, (1.0, rule.weight_decay)), []).append(parameter)
    groups = [{"params": of, "weight_decay": decay, "times": times} for (times, decay), of in alike.items()]
    if rule.kind == "SGD":
        return torch.optim.SGD(groups, rule.rate, rule.momentum, nesterov=rule.nesterov)
    kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[rule.kind]
    return kind(groups, rule.rate, (rule.beta_1, rule.beta_2), rule.epsilon)


def step(model, optimizer: torch.optim.Optimizer, gradients, rate: float) -> None:
    """One step at `rate`; `gradients` are tensors in the order of those of `model.parameters()` that learn."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["times"]
    learning = (p for p in model.parameters() if p.requires_grad)
    for parameter, gradient in zip(learning, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()


def moments(model, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, np.ndarray]]:
    """("conv1.weight momentum", array) of everything that the optimizer keeps of each parameter; Adam's are its mean
    and square. Arrays in PyTorch's layout."""
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for key, kind in _KEPT.items():
            if state.get(key) is not None:
                yield f"{name} {kind}", to_numpy(state[key]).copy()  # which the next step changes in place


def restore(model, optimizer: torch.optim.Optimizer, kept: Mapping[str, np.ndarray], steps: int) -> None:
    """Gives the optimizer what `moments` gave after `steps` steps."""
    back = {kind: key for key, kind in _KEPT.items()}
    for name, parameter in model.named_parameters():
        found = {key: kept[f"{name} {kind}"] for kind, key in back.items() if f"{name} {kind}" in kept}
        if parameter.requires_grad and found:
            state = {key: torch.from_numpy(value.copy()).to(parameter) for key, value in found.items()}
            if "exp_avg" in state:
                state["step"] = torch.tensor(float(steps))
            optimizer.state[parameter] = state


_KEPT = {"momentum_buffer": "momentum", "exp_avg": "mean", "exp_avg_sq": "square"}
