"""How parameters are updated: PyTorch's rules, as rows that both frameworks read."""

from collections.abc import Mapping
from dataclasses import dataclass

Parts = Mapping[str, tuple[float, float]]  # of parameters, by name: what multiplies the rate, and the weight decay


@dataclass(frozen=True)
class Rule:
    """An optimizer and its numbers: torch.optim's names, but Adam's betas as two."""

    kind: str  # SGD, Adam or AdamW
    rate: float  # learning rate
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0  # coupled (added to the gradient) in SGD and Adam, decoupled in AdamW
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    @property
    def keeps(self) -> tuple[str, ...]:
        """What an optimizer keeps of each parameter, by its name in a checkpoint."""
        return ("momentum",) * bool(self.momentum) if self.kind == "SGD" else ("mean", "square")


# What `rosetta compare --checks steps` takes: every part of each rule is switched on, and the decay is large enough to
# show in three steps. SGD's rate is one under which a net with random statistics doesn't run away. Adam's epsilon is
# not PyTorch's 1e-8: where a gradient is smaller, a step magnifies its rounding by rate / epsilon, so by 1e5, which is
# a fact of Adam and not of the two frameworks (2.4e-8 in the parameters of resnet101); an epsilon in another place
# shows the more.
PROVEN = {
    "sgd": Rule("SGD", 0.02, momentum=0.9, weight_decay=1e-2),
    "nesterov": Rule("SGD", 0.02, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": Rule("Adam", 3e-5, weight_decay=1e-2, epsilon=1e-6),
    "adamw": Rule("AdamW", 3e-5, weight_decay=1e-1, epsilon=1e-6),
}


def rate(rule: Rule, step: int, steps: int) -> float:
    """The rate of a step, from 0: a tenth from the last third on, since rules part where it changes."""
    return rule.rate * (0.1 if step >= max(1, steps - steps // 3) else 1.0)
