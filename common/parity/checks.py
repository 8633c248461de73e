"""What is compared: the same sequence of named arrays from whichever net runs it.

`run` is written once, over the names that torch_impl and keras_impl share, so that no two backends can mean different
things by a check.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import noise
from common.arch import Arch
from common.init import randomised
from common.names import STATISTICS
from common.parity.rules import PROVEN, rate
from common.weights import Weights

CHECKS = {
    "forward": "each layer's output and the logits, in evaluation mode",
    "train": "the same in training mode, the loss, and the running statistics after it",
    "gradients": "of the loss, by every parameter and by the input",
    "steps": "parameters, moments and statistics after each step of SGD, Nesterov, Adam and AdamW, across a change of "
    "the rate; then the logits in evaluation mode",
}


@dataclass(frozen=True)
class Job:
    """One net, one input, one dtype."""

    arch: Arch
    x: np.ndarray  # float64, N C *S
    dtype: str = "float64"
    checks: tuple[str, ...] = ("forward",)
    weights: Weights | None = None  # by default `randomised`
    steps: int = 3  # of each optimizer
    seed: int = 0  # of labels and masks
    every: bool = True  # the state after every step, or after the last alone

    def given(self) -> Weights:
        """The weights to run with."""
        return randomised(self.arch) if self.weights is None else self.weights

    def labels(self) -> np.ndarray | None:
        """A class for each image; None for a net without a classifier."""
        if not self.arch.num_classes:
            return None
        return np.random.default_rng(self.seed).integers(0, self.arch.num_classes, len(self.x))

    def through(self, impl: Any) -> "Iterator[Item]":
        """Everything that is asked of one implementation: `run`."""
        return run(impl, self)

    def batch(self, step: int) -> np.ndarray:
        """The images of a step: the same moved sideways, the rest of the way round."""
        return np.roll(self.x, 3 * step, -1)


@dataclass(frozen=True)
class Item:
    """One array of a check. `part` is what it belongs to: layers, logits, loss, statistics, parameters, ..."""

    check: str  # or for steps "steps sgd 1"
    part: str
    name: str
    value: np.ndarray


def run(impl: Any, job: Job) -> Iterator[Item]:
    """Everything that `job` asks of one implementation, `impl` being the package, whose modules are loaded.

    First come, as the check "net", its number of parameters and statistics and whether its weights read back as they
    were given, to the bit.
    """
    dtype = {"bfloat16": "float32"}.get(job.dtype, job.dtype)  # what numpy has
    weights = job.given()
    net = impl.create_model(job.arch, dtype=job.dtype, weights=weights)
    back = impl.export_weights(net)
    sizes = {kind: 0 for kind in ("parameters", "statistics")}
    for name, w in back.items():
        sizes["statistics" if name.endswith(STATISTICS) else "parameters"] += w.size
    if job.dtype != "bfloat16":
        given = (weights[name].astype(dtype) for name in back)
        same = list(back) == list(weights) and all(
            np.array_equal(a, b) for a, b in zip(given, back.values(), strict=True)
        )
        sizes["exact"] = int(same)
    for name, value in sizes.items():
        yield Item("net", "counts", name, np.array(value))
    del back

    def see(check: str, training: bool) -> Iterator[Item]:
        kept: list[Item] = []
        with noise.shared(job.seed):
            logits = impl.trace.trace(
                net, job.x, lambda name, y: kept.append(Item(check, "layers", name, y.copy())), training
            )
        yield from kept
        yield Item(check, "logits", "logits", logits)

    def state(check: str, *parts: str) -> Iterator[Item]:
        for name, w in impl.export_weights(net).items():
            part = "statistics" if name.endswith(STATISTICS) else "parameters"
            if part in parts:
                yield Item(check, part, name, w)

    if "forward" in job.checks:
        yield from see("forward", False)
    if "train" in job.checks:
        *layers, logits = see("train", True)
        yield from [*layers, logits]
        yield Item("train", "loss", "loss", np.array(float(impl.autodiff.loss_of(logits.value, job.labels()))))
        del layers
        yield from state("train", "statistics")
    if "gradients" in job.checks:
        impl.import_weights(net, weights)
        with noise.shared(job.seed):
            found = impl.autodiff.differentiate(net, job.x, job.labels())
        for name, g in found.gradients.items():
            yield Item("gradients", "gradients", name, g)
        yield Item("gradients", "input", "input", found.by_input)
        del found
    if "steps" in job.checks:
        impl.import_weights(net, weights)

        def differentiated(step: int) -> tuple[float, Any]:
            with noise.shared(job.seed + step):
                loss, _, _, gradients = impl.autodiff.gradients_of(net, job.batch(step), job.labels())
            return float(loss), gradients

        begin = differentiated(0)  # every rule's first step has these gradients, and leaves these statistics
        moved = {name: w for name, w in impl.export_weights(net).items() if name.endswith(STATISTICS)}
        for name, rule in PROVEN.items():
            impl.import_weights(net, {**weights, **moved})
            optimizer = impl.optim.optimizer(net, rule)
            for step in range(job.steps):
                check = f"steps {name} {step + 1}"
                loss, gradients = differentiated(step) if step else begin
                impl.optim.step(net, optimizer, gradients, rate(rule, step, job.steps))
                yield Item(check, "loss", "loss", np.array(loss))
                if job.every or step == job.steps - 1:
                    yield from state(check, "parameters", "statistics")
                    for moment, value in impl.optim.moments(net, optimizer):
                        yield Item(check, "moments", moment, value)
            yield Item(check, "logits after", "logits", impl.trace.trace(net, job.x))
