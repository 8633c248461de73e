"""The same training in several frameworks side by side, and how far they come apart, beside how far each comes from
itself."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.parity.backends import started
from common.parity.checks import Item
from common.parity.difference import EPSILON, difference
from common.plan import make_plan
from common.tools.figures import figure, logarithmic
from common.tools.files import atomic
from common.tools.text import to_json
from common.training.data import Data
from common.training.loop import trainer_of
from common.training.record import Progress
from common.training.run import Run, trains
from common.training.scores import measure

MOVED = {"float64": 1e-15, "float32": 1e-7}  # of the input, relatively: another draw of rounding
BEGIN = 5  # steps in which nothing has been magnified yet
TOLERANCE = {"float64": 1e-8, "float32": 1e-2}  # of the loss, relatively, in those
DRIFTS, LEAST = 10.0, {"float64": 1e-13, "float32": 1e-5}  # later: times the drift; and what a single loss' rounding is


@dataclass(frozen=True)
class Trained:
    """A job for a backend: some steps of a run."""

    run: Run
    steps: int
    moved: float = 0.0  # by how much of itself each number of the input is, at random; then batches change order too
    measured: int = 1000  # test examples at the end

    def through(self, impl: Any) -> Iterator[Item]:
        """Loss and correct answers of each step, then scores on the test examples and the weights."""
        data = self.run.load_data()
        data.test = data.test.subset(np.arange(min(self.measured, len(data.test))))
        batches, tests = self.run.batches(data, True), self.run.batches(data, False)
        trainer = trainer_of(self.run, data)
        progress = Progress(self.run, len(batches))
        rng, masks = np.random.default_rng(0), make_plan(self.run.arch).random
        while progress.step < self.steps:
            for x, labels in batches.epoch(progress.epoch):
                if self.moved:
                    x = (x * (1 + self.moved * rng.standard_normal(x.shape))).astype(x.dtype)
                    if not masks:
                        order = rng.permutation(len(x))  # sums come in another order, and round otherwise
                        x, labels = x[order], labels[order]
                loss, right = trainer.step(x, labels, progress.rate, progress.seed)
                progress.step += 1
                yield Item("race", "step", str(progress.step), np.array([loss, right / len(x)]))
                if progress.step == self.steps:
                    break
        with trainer.averaged():
            found = measure(trainer.logits, tests)
        yield Item("race", "test", "test", np.array([found.loss, found.accuracy]))
        for name, w in trainer.weights().items():
            yield Item("race", "weights", name, w)


@dataclass
class Race:
    """What `race` found. Losses by backend, a number a step; `again` are those of the same backend, moved."""

    run: Run
    data: str
    steps: int
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    again: dict[str, list[float]] = field(default_factory=dict)
    test: dict[str, tuple[float, float]] = field(default_factory=dict)  # loss, accuracy
    weights: dict[str, float] = field(default_factory=dict)  # the worst tensor's distance from the first backend's
    weights_again: dict[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return "float64" if self.run.recipe.precision == "float64" else "float32"

    @property
    def first(self) -> str:
        return next(iter(self.losses))

    def apart(self, backend: str) -> np.ndarray:
        """How far a backend's loss is from the first one's, relatively, at each step."""
        a, b = np.array(self.losses[self.first]), np.array(self.losses[backend])
        return np.abs(a - b) / np.abs(a)

    def drift(self, backend: str) -> np.ndarray:
        """How far a backend's loss is from its own, moved."""
        a, b = np.array(self.losses[backend]), np.array(self.again[backend])
        return np.abs(a - b) / np.abs(a)

    def allowed(self) -> np.ndarray:
        """At each step, what is rounding: in the first few the tolerance; then some times the largest drift of any
        backend up to there, since a drift is a single draw of what it might have been."""
        most = np.maximum.accumulate(np.max([self.drift(b) for b in self.losses], 0))
        allowed = np.maximum(DRIFTS * most, LEAST[self.dtype])
        allowed[:BEGIN] = TOLERANCE[self.dtype]
        return allowed

    def over(self, backend: str) -> int | None:
        """The first step, from 1, at which a backend is farther off than rounding."""
        far = ~(self.apart(backend) <= self.allowed())
        return int(far.argmax()) + 1 if far.any() else None

    @property
    def equal(self) -> bool:
        return all(self.over(b) is None for b in self.losses)

    def to_json(self) -> dict[str, Any]:
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return said | {
            "run": self.run.to_json(), "equal": self.equal, "first_over": {b: self.over(b) for b in self.losses},
            "allowed": self.allowed().tolist(),
        }  # fmt: skip


def race(
    run: Run, data: Data, backends: Sequence[str], steps: int, *, measured: int = 1000, device: str = "auto",
    progress: Callable[[str], None] = lambda what: None,
) -> Race:  # fmt: skip
    """Trains `run` for `steps` steps on each backend, and once more on each with an input moved in its last bits.

    At the end the nets are `measured` on that many test examples.
    Raises RosettaError where a backend is missing or fewer than two are named.
    """
    for name in backends:
        trains(name)
    result = Race(run, data.name, steps)
    ends: dict[tuple[str, bool], dict[str, np.ndarray]] = {}
    with started(backends, device) as running:
        names = [backend.spec for backend in running]
        for backend, again in ((b, again) for again in (False, True) for b in running):
            name, kept = backend.spec, []
            ends[name, again] = {}
            result.versions[name] = backend.versions()
            mine = dataclasses.replace(run, framework=name)
            for item in backend.run(Trained(mine, steps, MOVED[result.dtype] if again else 0.0, measured)):
                if item.part == "step":
                    kept.append(float(item.value[0]))
                    if len(kept) % max(1, steps // 5) == 0:
                        progress(f"{name}{' once more, moved' * again}: step {len(kept)} of {steps}")
                elif item.part == "test" and not again:
                    result.test[name] = (float(item.value[0]), float(item.value[1]))
                elif item.part == "weights":
                    ends[name, again][item.name] = item.value
            (result.again if again else result.losses)[name] = kept

    def farthest(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
        return max((difference("race", "weights", n, a[n], b[n]).relative for n in a), default=math.nan)

    for name in names:
        result.weights[name] = farthest(ends[names[0], False], ends[name, False])
        result.weights_again[name] = farthest(ends[name, False], ends[name, True])
    return result


def draw(path: Path, r: Race) -> None:
    """The curves on each other, and below them how far apart they are; of many steps the median of each few."""
    few = max(1, r.steps // 100)
    with figure(path, 2, 1, (8, 8), sharex=True) as (_, (top, bottom)):

        def plot(axes: Any, values: np.ndarray, **style: Any) -> None:
            blocks = values[: len(values) // few * few].reshape(-1, few)
            axes.plot(few * (np.arange(len(blocks)) + 0.5) + 0.5, np.median(blocks, 1), **style)

        for i, (name, losses) in enumerate(r.losses.items()):  # the wider line shows under the next
            plot(top, np.array(losses), color=f"C{i}", lw=6 / (i + 1), alpha=0.8, label=name)
        tiny = EPSILON[r.dtype] / 8
        for i, name in enumerate(r.losses):
            if i:
                label = f"{name} from {r.first}"
                plot(bottom, np.maximum(r.apart(name), tiny), color=f"C{i}", lw=2, label=label)
            label = f"{name} from itself, rounding drawn anew"
            plot(bottom, np.maximum(r.drift(name), tiny), color=f"C{i}", lw=1, ls="--", label=label)
        plot(bottom, r.allowed(), color="0.6", lw=1, ls=":", label="allowed")
        top.set(ylabel="loss", title=f"{r.run.name} on {r.data}, {r.run.recipe.precision}")
        steps = "step" if few == 1 else f"step (the median of each {few})"
        bottom.set(xlabel=steps, ylabel="distance of the losses, relative", yscale="log")
        logarithmic(top)
        bottom.xaxis.get_major_locator().set_params(integer=True)
        for axes in (top, bottom):
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)


def write(folder: Path, r: Race) -> None:
    """race.json and race.png in `folder`."""
    with atomic(folder / "race.json") as temporary:
        temporary.write_text(to_json(r.to_json()) + "\n")
    draw(folder / "race.png", r)
