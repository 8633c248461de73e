"""The training itself: the Trainer of a framework is stepped through a run, from its last checkpoint on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common import weights as canonical
from common.errors import RosettaError
from common.parity import engines
from common.training.curves import draw_run
from common.training.data import Data
from common.training.recipe import balanced
from common.training.record import LAST, Listener, Progress, Writer, alone
from common.training.run import CONFIG, Run, check, start
from common.weights import Weights


def implementation(framework: str) -> Any:
    """torch_impl or keras_impl, its module `train` loaded."""
    return engines.implementation(framework, ("train",))


def trainer_of(run: Run, data: Data, weights: Weights | None = None, place: Any = None) -> Any:
    """The framework's Trainer of a run on its data, the net on PyTorch's device `place`, or where the framework itself
    puts it."""
    impl = implementation(run.framework)
    dtype = run.recipe.precision  # in PyTorch a mixed one is a context that the Trainer makes
    if run.framework == "torch" and dtype.startswith("mixed"):
        dtype = "float32"
    net = impl.create_model(run.arch, dtype=dtype, weights=start(run) if weights is None else weights)
    net = net if place is None else net.to(place)
    classes = balanced(data.train.labels, len(data.classes)) if run.recipe.balance else None
    return impl.train.Trainer(net, run.recipe, run.frozen, run.rates, classes)


def train(
    folder: Path,
    *,
    listener: Listener = lambda what, progress: None,
    stop: Callable[[], bool] = lambda: False,
    save_every: float = 60.0,
    data: Data | None = None,
    limit: int | None = None,
    device: str = "auto",
) -> Progress:
    """Trains the run of `folder` to its end, from its last checkpoint on if there is one, on the CPU ("cpu"), a GPU
    ("gpu"), or on a GPU where there is one.

    A checkpoint is written after each epoch, after each `save_every` seconds, and when `stop` says so, which is asked
    after each step; `limit` steps of this call are enough. Raises RosettaError where the folder can't be written, or
    the device isn't there.
    """
    run = Run.load(folder)
    data = run.load_data() if data is None else data
    check(run.arch, data)
    with alone(folder):
        about = {**engines.versions(run.framework, device, default=False), "threads": engines.threads(run.framework)}
        with implementation(run.framework).train.distributed(run.devices, device) as place:
            # a call of its own: when several processes part, nothing holds the net any more
            return _trained(folder, run, data, place, about, listener, stop, save_every, limit)


def _trained(
    folder: Path, run: Run, data: Data, place: Any, about: dict[str, str], listener: Listener,
    stop: Callable[[], bool], save_every: float, limit: int | None,
) -> Progress:  # fmt: skip
    trainer, progress = _begun(folder, run, data, place, about)
    with Writer(folder, run, data, trainer, progress, listener) as writer:
        _step(writer, stop, save_every, limit)
    if trainer.rank == 0:
        draw_run(folder)
    if progress.step >= progress.steps:
        writer.tell("done")
    return progress


def _begun(folder: Path, run: Run, data: Data, place: Any, about: dict[str, str]) -> tuple[Any, Progress]:
    """The Trainer of a run, and how far it is: as its last checkpoint has them, if there is one."""
    progress, last = Progress(run, len(run.batches(data, True)), about=about), folder / LAST
    weights: Weights | None = None
    if last.exists():
        row, weights, meta = canonical.load(last)
        if row != run.arch:
            raise RosettaError(f"{last} is of another net than {folder / CONFIG}")
        if meta.get("labels", "\n".join(data.classes)) != "\n".join(data.classes):
            raise RosettaError(f"{folder} was trained on other classes than {data.name} has")
        state, said = canonical.load_training(last)
        progress.go_on(said, last)
        if (had := said.get("examples", len(data.train))) != len(data.train):
            raise RosettaError(f"{folder} was trained on {had:,} examples, and {data.name} has {len(data.train):,}")
    trainer = trainer_of(run, data, weights, place)
    if weights is not None:
        try:
            trainer.restore(weights, state)
        except RosettaError as e:
            raise RosettaError(f"{last} can't be gone on with: {e}") from None
    if 0 < (rest := len(data.train) % run.recipe.batch) < trainer.world:
        raise RosettaError(f"a last batch of {rest} can't be shared by {trainer.world} processes: take another --batch")
    return trainer, progress


def _step(writer: Writer, stop: Callable[[], bool], save_every: float, limit: int | None) -> None:
    """To the end of the run, or until `stop` says so or `limit` steps are done."""
    run, data, trainer, progress = writer.run, writer.data, writer.trainer, writer.progress
    batches, tests = run.batches(data, True), run.batches(data, False)
    begun, ended = time.perf_counter() - progress.seconds, progress.step + limit if limit else progress.steps
    while progress.step < min(progress.steps, ended):
        done = progress.step % progress.steps_per_epoch
        for x, labels in batches.epoch(progress.epoch, done):
            rate = progress.rate
            loss, right = trainer.step(x, labels, rate, progress.seed)
            if not np.isfinite(loss) and trainer.scale is None:
                there = (writer.folder / LAST).exists()
                kept = "is as it was at its last checkpoint" if there else "has no checkpoint"
                raise RosettaError(
                    f"the loss is {loss} at step {progress.step + 1}: the rate {rate:g} is too high for this net, "
                    f"perhaps; {writer.folder} {kept}"
                )
            progress.step += 1
            progress.loss += loss * len(x)
            progress.right += right
            progress.seen += len(x)
            progress.seconds = time.perf_counter() - begun
            over = progress.step % progress.steps_per_epoch == 0
            stopped = trainer.agreed(stop() or progress.step >= ended)
            writer.step(loss, rate)
            if over:
                writer.epoch(tests, rate)
            if over or stopped or writer.due(save_every):
                writer.last()
            if over:
                writer.tell("epoch")
            if over or stopped:
                break
        if stopped and progress.step < progress.steps:
            writer.tell("stopped")
            break
