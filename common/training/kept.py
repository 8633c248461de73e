"""What a Trainer of either framework gives to a checkpoint and takes back, under canonical names."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from common.errors import RosettaError
from common.tools.memory import keep_memory
from common.training.recipe import LossScale, Recipe, learning
from common.weights import Weights


class Kept:
    """A framework's Trainer is one, and says how its tensors become canonical arrays and back.

    `frozen` and `rates` are by section: which don't learn, and what multiplies the rate of the others. `classes` are
    how much each class counts in the loss (recipe.py: `balanced`). The process keeps the memory that it frees from
    now on: new pages would cost more than what is computed in them.
    """

    optimizer: Any
    scale: LossScale | None
    average: dict[str, Any]  # the mean of the weights by name, as tensors; empty where the recipe keeps none
    optim: Any  # the framework's module
    store: Any  # its module of export_weights and import_weights

    def __init__(
        self, model: Any, recipe: Recipe, frozen: tuple[str, ...] = (), rates: Mapping[str, float] | None = None,
        classes: np.ndarray | None = None,
    ):  # fmt: skip
        keep_memory()
        self.model, self.recipe, self.classes, self.steps = model, recipe, classes, 0
        self.parts = learning(model.plan.arch, recipe, frozen, rates)  # the parameters that learn
        self.begin(frozen)

    def begin(self, frozen: tuple[str, ...]) -> None:
        """Freezes those sections, and makes what the framework needs: the optimizer, the scale, the average."""
        raise NotImplementedError

    def share(self, some: np.ndarray, labels: np.ndarray) -> float:
        """What part the examples of `some` of a batch's `labels` have in its loss."""
        if self.classes is None:
            return len(some) / len(labels)
        return float(self.classes[some].sum() / self.classes[labels].sum())

    def to_canonical(self, tensor: Any) -> np.ndarray:
        """A tensor of the framework's as an array of its own, in PyTorch's layout."""
        raise NotImplementedError

    def from_canonical(self, array: np.ndarray) -> Any:
        """Such an array as a tensor of its own."""
        raise NotImplementedError

    def weights(self) -> Weights:
        """The canonical weights; their average where the recipe keeps one."""
        if self.average:
            return {name: self.to_canonical(t) for name, t in self.average.items()}
        return self.store.export_weights(self.model)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the net has the average of its weights, where the recipe keeps one."""
        now = self.store.export_weights(self.model) if self.average else None
        if now:
            self.store.import_weights(self.model, self.weights())
        try:
            yield
        finally:
            if now:
                self.store.import_weights(self.model, now)

    def state(self) -> dict[str, np.ndarray]:
        """Everything else that the next step depends on, by name."""
        kept = dict(self.optim.moments(self.model, self.optimizer))
        kept["steps"] = np.array([self.steps, *(self.scale.state() if self.scale else ())], np.float64)
        now = self.store.export_weights(self.model) if self.average else {}
        return kept | {f"{name} now": w for name, w in now.items()}

    def restore(self, weights: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray]) -> None:
        """Back to where `weights` and `state` were taken. Raises RosettaError where something is missing or of another
        shape: a moment that isn't there would be zero without a word."""
        size = 3 if self.scale else 1
        if (kept := state.get("steps")) is None or kept.ndim != 1 or len(kept) < size or not np.isfinite(kept).all():
            raise RosettaError("it doesn't say how many steps its optimizer has made")
        wanted = {f"{n} {kind}": n for n in self.parts for kind in self.recipe.rule.keeps} if kept[0] > 0 else {}
        wanted |= {f"{n} now": n for n in weights} if self.recipe.ema else {}
        for name, of in wanted.items():
            if name not in state:
                raise RosettaError(f"it lacks {name}, which the next step needs")
            if state[name].shape != weights[of].shape or state[name].dtype.kind != "f":
                raise RosettaError(
                    f"its {name} is {state[name].dtype} {state[name].shape}: expected floats {weights[of].shape}"
                )
        now = {n.removesuffix(" now"): w for n, w in state.items() if n.endswith(" now")}
        self.store.import_weights(self.model, now or weights)
        self.average = {name: self.from_canonical(weights[name]) for name in self.average}
        self.steps = int(state["steps"][0])
        if self.scale:
            self.scale.restore(state["steps"][1:])
        self.optim.restore(self.model, self.optimizer, state, self.steps)
