"""Training a PyTorch net by a recipe: one step, and what to keep of it. The twin of keras_impl/train.py.

trainer = Trainer(create_model("cifar_resnet20", seed=0), recipe)
for step, (x, labels) in enumerate(batches):
    loss, logits = trainer.step(x, labels, recipe.rate(step, len(batches)))
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from common.names import section_of
from common.recipe import LossScale, Recipe, learning
from torch_impl import optim
from torch_impl.autodiff import loss_of
from torch_impl.layers import BatchNorm, to_numpy, to_tensor
from torch_impl.weights import export_weights, import_weights, named_tensors


def freeze(model, sections: tuple[str, ...]) -> None:
    """Neither the parameters of these sections (stem, layer1, ..., head) nor their running statistics move any more,
    and their norms normalise by those. PyTorch's `requires_grad` alone would let the statistics move."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(section_of(name) not in sections)
    model.frozen = [m for name, m in model.named_modules() if isinstance(m, BatchNorm) and section_of(name) in sections]


class Trainer:
    """A model, its optimizer, and what a recipe keeps beside them.

    `frozen` and `rates` are by section: which don't learn, and what multiplies the rate of the others.
    """

    def __init__(self, model, recipe: Recipe, frozen: tuple[str, ...] = (), rates: Mapping[str, float] | None = None):
        self.model, self.recipe, self.steps = model, recipe, 0
        parts = learning(model.plan.arch, recipe, frozen, rates)
        freeze(model, frozen)
        # channels last: a third faster on a CPU (benchmarks/train.py), but for float64, which oneDNN doesn't have
        images = model.plan.arch.dims == 2 and recipe.precision != "float64"
        self.layout = torch.channels_last if images else torch.contiguous_format
        model.to(memory_format=self.layout)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = optim.optimizer(model, recipe.rule, parts)
        half = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}.get(recipe.precision)
        self.autocast = torch.autocast(self.device.type, half, enabled=half is not None)
        self.scale = LossScale() if half == torch.float16 else None
        self.average = {n: t.clone() for n, t in named_tensors(model)} if recipe.ema else {}
        self.random = model.plan.random

    def step(self, x: np.ndarray, labels: np.ndarray, rate: float, seed: int = 0) -> tuple[float, np.ndarray]:
        """One step of the optimizer on a batch (N C *S; N). Gives the loss and the logits (N classes) before it. Masks
        of dropout are drawn from `seed`."""
        self.model.train()
        for m in self.model.frozen:
            m.eval()
        if self.random:
            torch.manual_seed(seed)
        loss, outputs, scale = 0.0, [], self.scale.value if self.scale else 1.0
        for rows in np.array_split(np.arange(len(x)), self.recipe.accumulate):
            share = len(rows) / len(x)
            with self.autocast:
                logits = self.model(self._tensor(x[rows]))
            logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
            part = loss_of(logits, labels[rows], self.recipe.smoothing) * share
            (part * scale).backward()
            loss += float(part.detach())
            outputs.append(logits.detach())
        if self._unscaled(scale):
            if self.recipe.clip:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
            optim.step(self.model, self.optimizer, [p.grad for p in self.parameters], rate)
            self.steps += 1
            self._averaged()
        else:
            self.optimizer.zero_grad()
        return loss, to_numpy(torch.cat(outputs))

    def _unscaled(self, scale: float) -> bool:
        """Takes the loss' scale out of the gradients; whether they are finite."""
        if self.scale is None:
            return True
        for p in self.parameters:
            p.grad /= scale
        return self.scale.update(all(bool(p.grad.isfinite().all()) for p in self.parameters))

    @torch.no_grad()
    def _averaged(self) -> None:
        for name, tensor in named_tensors(self.model) if self.average else ():
            self.average[name].lerp_(tensor, 1 - self.recipe.ema)

    @torch.no_grad()
    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits (N classes) of a batch in evaluation mode, from the weights as they are."""
        self.model.eval()
        with self.autocast:
            y = self.model(self._tensor(x))
        return to_numpy(y)

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x).to(self.device, memory_format=self.layout)

    def weights(self) -> dict[str, np.ndarray]:
        """The canonical weights; their average where the recipe keeps one."""
        if self.average:
            return {name: to_numpy(t).copy() for name, t in self.average.items()}
        return export_weights(self.model)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the net has the average of its weights, where the recipe keeps one."""
        now = export_weights(self.model) if self.average else None
        if now:
            import_weights(self.model, self.weights())
        try:
            yield
        finally:
            if now:
                import_weights(self.model, now)

    def state(self) -> dict[str, np.ndarray]:
        """Everything else that the next step depends on, by name."""
        kept = dict(optim.moments(self.model, self.optimizer))
        kept["steps"] = np.array([self.steps, *(self.scale.state() if self.scale else ())], np.float64)
        return kept | ({f"{n} now": w for n, w in export_weights(self.model).items()} if self.average else {})

    def restore(self, weights: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray]) -> None:
        """Back to where `weights` and `state` were taken."""
        now = {n.removesuffix(" now"): w for n, w in state.items() if n.endswith(" now")}
        import_weights(self.model, now or weights)
        self.average = {n: to_tensor(weights[n].copy()).to(self.device) for n in self.average}
        self.steps = int(state["steps"][0])
        if self.scale:
            self.scale.restore(state["steps"][1:])
        optim.restore(self.model, self.optimizer, state, self.steps)
