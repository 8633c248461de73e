"""The folder of a run, which one process at a time writes, and either framework goes on from.

config.json         what is trained, on what, how (run.py)
metrics.jsonl       a line of JSON each few steps and each epoch
last.safetensors    the net, and what the training needs to go on: no framework's own
best.safetensors    the net as it was when it measured best
curve.png           the curves; for TensorBoard, events in log/
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from common import weights as canonical
from common.checkpoints.files import OF_FOLDERS
from common.errors import RosettaError
from common.tools.files import atomic
from common.tools.typed import check_fields
from common.training.data import Batches, Data, counters
from common.training.recipe import learning
from common.training.run import CONFIG, Run
from common.training.scores import measure

LOG_EVERY = 10  # steps to a line of metrics.jsonl
LOCK = ".lock"
METRICS, LAST, BEST = "metrics.jsonl", "last.safetensors", "best.safetensors"


def new(folder: Path, run: Run) -> None:
    """Makes the folder of a run. Raises RosettaError where something is there already."""
    learning(run.arch, run.recipe, run.frozen, run.rates)  # which sections there are
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RosettaError(f"{folder} is there already: --resume {folder} goes on with it, --out makes another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise RosettaError(f"can't write {folder}: {e.strerror}") from None
    configure(folder, run)


def replaced(folder: Path, **fields: Any) -> Run:
    """Changes fields in the config of a run's folder, and gives that run."""
    run = dataclasses.replace(Run.load(folder), **fields)
    configure(folder, run)
    return run


def longer(folder: Path, epochs: int, data: Data) -> str:
    """Gives a run that goes on so many epochs in all; what its rate does then, in words. Raises RosettaError where it
    has as many already."""
    run = Run.load(folder)
    changed = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, epochs=epochs))
    an_epoch = len(run.batches(data, True))
    step = int(canonical.load_training(folder / LAST)[1].get("step", 0)) if (folder / LAST).exists() else 0
    if epochs * an_epoch <= step:
        raise RosettaError(
            f"{folder} has {step / an_epoch:g} epochs behind it already: --epochs {epochs} is too few to go on with"
        )
    replaced(folder, recipe=changed.recipe)
    how = {"cosine": "is stretched: it falls to 0", "steps": "is stretched: its drops move"}
    before, after = (r.recipe.rate(min(step, r.recipe.epochs * an_epoch - 1), an_epoch) for r in (run, changed))
    return (
        f"{epochs} epochs instead of {run.recipe.epochs}: the {run.recipe.schedule} schedule "
        f"{how.get(run.recipe.schedule, 'stays')}{' over all of them' * (run.recipe.schedule in how)}, and the rate of "
        f"the next step is {after:.3g}, where it would have been {before:.3g}"
    )


def free(folder: Path, name: str) -> Path:
    """folder/name, or with a number behind it the first that isn't there."""
    names = (name, *(f"{name}-{i}" for i in range(2, 10_000)))
    return next(folder / n for n in names if not (folder / n).exists())


def configure(folder: Path, run: Run) -> None:
    """Writes config.json."""
    with atomic(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(run.to_json(), indent=1) + "\n")


def appears(folder: Path, seconds: float = 60.0) -> None:
    """Waits until another process has made the run. Raises RosettaError where none does."""
    until = time.monotonic() + seconds
    while not (folder / CONFIG).exists():
        if time.monotonic() > until:
            raise RosettaError(f"{folder} has not been made by the first process")
        time.sleep(0.05)


def model_of(source: str | os.PathLike) -> Path:
    """The weights of a run's folder, or the checkpoint itself."""
    path = Path(source)
    others = any((path / name).is_file() for name in OF_FOLDERS)  # whose folders have a config.json, too
    return path / LAST if (path / CONFIG).is_file() and not others else path


_locked: set[Path] = set()  # by this process


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other process trains the run: the lock falls with the process, however that ends. Of torchrun's
    processes the first holds it. Raises RosettaError where another has it, or the folder can't be written."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    key = folder.resolve()
    if os.environ.get("RANK", "0") != "0" or key in _locked:
        yield
        return
    try:
        file = open(folder / LOCK, "a")
    except OSError as e:
        raise RosettaError(f"can't write {folder}: {e.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RosettaError(f"{folder} is being trained by another process: wait for it, or end it") from None
        except OSError:  # a file system without locks
            pass
        _locked.add(key)
        try:
            yield
        finally:
            _locked.remove(key)


@dataclass
class Progress:
    """How far a run is."""

    run: Run
    steps_per_epoch: int
    step: int = 0  # that are done
    loss: float = 0.0  # sum over the examples of this epoch
    right: float = 0.0
    seen: float = 0.0
    best: float = -1.0
    seconds: float = 0.0  # of training, in all sessions
    last: dict[str, float] = field(default_factory=dict)  # the last epoch's line
    about: dict[str, str] = field(default_factory=dict)  # versions of what runs it, "device" and "threads"
    notes: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def steps(self) -> int:
        return self.run.recipe.epochs * self.steps_per_epoch

    @property
    def rate(self) -> float:
        return self.run.recipe.rate(self.step, self.steps_per_epoch)

    @property
    def seed(self) -> int:
        """The seed of the next step's masks."""
        return int(counters.raw(1, self.run.seed, counters.MASKS, self.step)[0] % 2**31)

    def state(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in _KEPT} | {"about": self.about}

    def go_on(self, said: Any, path: Path) -> None:
        """From where `state` was taken. Raises RosettaError where `said` is none; notes what runs the training now and
        ran it then, which rounds otherwise."""
        said = said if isinstance(said, dict) else {}
        if missing := [key for key in _KEPT if key not in said]:
            raise RosettaError(f"{path} lacks {', '.join(missing)} of how far its training is")
        check_fields(Progress, {key: said[key] for key in _KEPT}, str(path))
        if said["step"] < 0 or (said["step"] >= self.steps_per_epoch and _LINE - said["last"].keys()):
            raise RosettaError(f"{path} says of its last epoch {sorted(said['last'])} at step {said['step']}")
        for key in _KEPT:
            setattr(self, key, said[key])
        before = said.get("about")
        if isinstance(before, dict) and (
            keys := [k for k in self.about if before.get(k, self.about[k]) != self.about[k]]
        ):
            then, now = (", ".join(f"{k} {str(of[k])[:40]}" for k in keys) for of in (before, self.about))
            self.notes.append(f"until now it ran with {then}; with {now} the last bits are others")


_LINE = {"epoch", "rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"}
_KEPT = ("step", "loss", "right", "seen", "best", "seconds", "last")

Listener = Callable[[str, Progress], None]  # "step", "epoch", "stopped" or "done"


class Writer:
    """Writes what a run leaves in its folder, from the first of its processes: checkpoints, metrics.jsonl, and the same
    for TensorBoard where tensorboardX is installed."""

    def __init__(
        self, folder: Path, run: Run, data: Data, trainer: Any, progress: Progress, listener: Listener
    ):  # fmt: skip
        self.folder, self.run, self.data, self.trainer, self.progress = folder, run, data, trainer, progress
        self.first, self.listener, self.board = trainer.rank == 0, listener, cast(Any, None)
        self.saved = time.perf_counter()
        self.said = {
            "preprocessing": data.preprocessing.to_json(),
            "labels": "\n".join(data.classes),
            "trained": f"{run.recipe.epochs} epochs on {data.name}, seed {run.seed}, {run.framework}",
        }

    def __enter__(self) -> "Writer":
        if self.first:
            self.begin()
        return self

    def begin(self) -> None:
        """Takes away what the run will write again, and opens TensorBoard's file."""
        cut(self.folder / METRICS, self.progress.step)
        with contextlib.suppress(ImportError):
            from tensorboardX.event_file_writer import EventsWriter  # SummaryWriter's threads outlive a full disk

            with self.writing(self.folder / "log"):
                (self.folder / "log").mkdir(exist_ok=True)
                self.board = EventsWriter(str(self.folder / "log" / "events"), f".{os.getpid()}")

    def __exit__(self, *_: object) -> None:
        if self.board:
            with contextlib.suppress(OSError):  # what is left of a line that couldn't be written, and was told
                self.board.close()

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Raises RosettaError where `path` can't be written inside."""
        try:
            yield
        except OSError as e:
            raise RosettaError(f"can't write {path}: {e.strerror}") from None

    def tell(self, what: str) -> None:
        if self.first:
            self.listener(what, self.progress)

    def step(self, loss: float, rate: float) -> None:
        """To be called after each step."""
        p = self.progress
        self.tell("step")
        if p.step % LOG_EVERY == 0:
            self.line({"step": p.step, "epoch": p.epoch, "loss": loss, "rate": rate})

    def epoch(self, tests: Batches, rate: float) -> None:
        """The end of an epoch: what it came to, measured on the test examples."""
        p = self.progress
        if self.first:
            with self.trainer.averaged():
                found = measure(self.trainer.logits, tests)
            p.last = {
                "step": p.step, "epoch": p.epoch, "rate": rate,
                "train_loss": p.loss / p.seen, "train_accuracy": p.right / p.seen,
                "test_loss": found.loss, "test_accuracy": found.accuracy, "test_top5": found.top5,
                "seconds": round(p.seconds, 3),
            }  # fmt: skip
            self.line(p.last)
            if found.accuracy > p.best:
                p.best = found.accuracy
                canonical.save(self.folder / BEST, self.run.arch, self.trainer.weights(), self.said)
        p.loss = p.right = p.seen = 0.0

    def line(self, row: dict[str, float]) -> None:
        """Writes a line of metrics.jsonl."""
        if not self.first:
            return
        with self.writing(self.folder / METRICS), open(self.folder / METRICS, "a") as f:
            f.write(json.dumps(row) + "\n")
        if self.board:
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.summary import scalar

            with self.writing(self.folder / "log"):
                for key in row.keys() - {"step", "epoch", "seconds"}:
                    said = scalar(key.replace("_", "/", 1), row[key])
                    self.board.write_event(Event(wall_time=time.time(), step=int(row["step"]), summary=said))
                self.board.flush()

    def due(self, seconds: float) -> bool:
        """Whether the last checkpoint is so old."""
        return time.perf_counter() - self.saved > seconds

    def last(self) -> None:
        """Writes a checkpoint to go on from."""
        if self.first:
            examples = {"examples": len(self.data.train)}
            state = {"progress": self.progress.state() | examples, "arrays": self.trainer.state()}
            canonical.save(self.folder / LAST, self.run.arch, self.trainer.weights(), self.said, state)
        self.saved = time.perf_counter()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics; one that was cut off, or is none that a training writes, is left out."""
    rows = []
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / METRICS).read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict) and all(type(row.get(k)) is int for k in ("step", "epoch")):
                    if all(isinstance(value, int | float) for value in row.values()):
                        rows.append(row)
    return rows


def cut(path: Path, step: int) -> None:
    """Takes away the lines of steps that the checkpoint doesn't have: they come again."""
    rows = [row for row in read_metrics(path.parent) if row["step"] <= step]
    with atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
