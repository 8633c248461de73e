"""A run: a net trained by a recipe on data, in either framework, in a folder that can go on where it stopped.

config.json         what is trained, on what, how
metrics.jsonl       a line of JSON each few steps and each epoch
last.safetensors    the net, and what the training needs to go on: no framework's own
best.safetensors    the net as it was when it measured best
curve.png           the curves; for TensorBoard, events in log/
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from common import names
from common import weights as canonical
from common.arch import Arch, get
from common.checkpoints.containers import OF_FOLDERS
from common.checkpoints.port import inspect
from common.checkpoints.preprocessing import Preprocessing
from common.checkpoints.recognise import CONFIGURED, Recognised, differing, gap
from common.errors import RosettaError
from common.init import initial
from common.parity import engines
from common.parity.backends import NO_GPU, check_spec
from common.tools.figures import figure, logarithmic
from common.tools.files import atomic
from common.tools.typed import check_fields
from common.training import data as datasets
from common.training.data import Batches, Data, counters
from common.training.data.augment import NOTHING
from common.training.data.examples import held_out
from common.training.recipe import Recipe, balanced, frozen_sections, learning
from common.training.scores import Scores, scores
from common.weights import Weights

LOG_EVERY = 10  # steps to a line of metrics.jsonl
LOCK = ".lock"
CONFIG, METRICS, LAST, BEST = "config.json", "metrics.jsonl", "last.safetensors", "best.safetensors"


@dataclass(frozen=True)
class Run:
    """What config.json says."""

    name: str
    arch: Arch
    data: str
    recipe: Recipe
    framework: str = "torch"  # a backend: torch, keras:tensorflow, ...
    data_dir: str | None = None
    size: int | None = None  # of a folder's images
    skip_corrupt: bool = False
    layout: str | None = None  # of a .npz: channels-first or channels-last
    hold_out: float = 0.0  # part of the training examples that is measured on instead of the test's
    seed: int = 0
    init: str | None = None  # a checkpoint to begin with
    frozen: tuple[str, ...] = ()
    rates: dict[str, float] = field(default_factory=dict)
    augment: bool = True
    workers: int = 1
    devices: int = 1  # of one process: Keras on JAX or TensorFlow
    preprocessing: Preprocessing | None = None  # that of the images which `init` was trained on
    recipe_name: str = ""  # of the row in common/training/recipe.py that `recipe` was made from

    def to_json(self) -> dict[str, Any]:
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        how = dataclasses.asdict(self.preprocessing) if self.preprocessing else None
        return said | {
            "arch": json.loads(self.arch.to_json()), "recipe": self.recipe.to_json(), "preprocessing": how
        }  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Raises RosettaError where the folder holds no run."""
        path = folder / CONFIG
        try:
            said = json.loads(path.read_text())
            row, recipe = Arch.from_json(json.dumps(said.pop("arch"))), Recipe.from_json(said.pop("recipe"))
            how = said.pop("preprocessing", None)
            how = Preprocessing.from_json(json.dumps(how)) if how is not None else None
            said |= {"frozen": tuple(said["frozen"]), "arch": row, "recipe": recipe, "preprocessing": how}
            check_fields(cls, said, str(path))
            for name, least in (("size", 1), ("workers", 1), ("devices", 1), ("hold_out", 0)):
                if said.get(name) is not None and said[name] < least:
                    raise RosettaError(f"{path} has {name} = {said[name]}: expected {least} or more")
            return cls(**said)
        except (FileNotFoundError, NotADirectoryError):
            raise RosettaError(f"{folder} is no run: it has no {CONFIG}") from None
        except RosettaError as e:
            raise RosettaError(str(e) if str(path) in str(e) else f"{path} can't be read: {e}") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as e:
            raise RosettaError(f"{path} can't be read: {str(e)[:200]}") from None

    def read_data(self) -> Data:
        """Its data, whether or not the net can take them."""
        data = datasets.load(
            self.data, self.data_dir, size=self.size, skip_corrupt=self.skip_corrupt, layout=self.layout,
            hold_out=self.hold_out > 0,
        )  # fmt: skip
        data = held_out(data, self.hold_out, self.seed) if self.hold_out else data
        return data if self.preprocessing is None else prepared(data, self.preprocessing, str(self.init))

    def load_data(self) -> Data:
        """Its data. Raises RosettaError where the net can't take them."""
        data = self.read_data()
        check(self.arch, data)
        return data

    def batches(self, data: Data, training: bool) -> Batches:
        wide = "float64" if self.recipe.precision == "float64" else "float32"
        common: dict[str, Any] = {"channels": self.arch.in_channels, "dtype": wide, "workers": self.workers}
        if not training:
            return Batches(data.test, max(self.recipe.batch, 250), data.preprocessing, **common)
        how = data.augment if self.augment else NOTHING
        return Batches(data.train, self.recipe.batch, data.preprocessing, seed=self.seed, how=how, **common)


def trains(framework: str) -> str:
    """The backend's full name. Raises RosettaError for one that is unknown, isn't installed or only evaluates."""
    spec = check_spec(framework)
    if spec.startswith("onnx"):
        raise RosettaError(f"{spec} doesn't train: expected torch, keras, keras:jax or keras:torch")
    return spec


def prepare(framework: str, precision: str, devices: int = 1, device: str = "auto") -> str:
    """As `trains`, the environment being set for its import in this process. `device` is "cpu", "gpu", or "auto", a
    GPU where there is one.

    Raises RosettaError also for `devices` that the framework doesn't take.
    """
    spec = trains(framework)
    if devices > 1 and spec in ("torch", "keras:torch"):
        how = f"takes a process a device: torchrun --nproc-per-node {devices} -m common.cli train ..."
        raise RosettaError(f"--devices is for keras:jax and keras:tensorflow; PyTorch {how}")
    if spec.startswith("keras"):
        os.environ["KERAS_BACKEND"] = spec.split(":")[1]
        if device == "cpu":
            os.environ |= NO_GPU
    if spec == "keras:jax" and precision == "float64":
        os.environ["JAX_ENABLE_X64"] = "1"
    if spec == "keras:jax" and devices > 1:  # as many as are asked for, where there are only CPUs
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}".strip()
    return spec


def plan(
    name: str, data: str, recipe: Recipe, overrides: Mapping[str, Any] | None = None, **options: Any
) -> tuple[Run, Data]:
    """The run of a variant on data, whose classes and channels the net gets, and the data.

    Raises RosettaError where they can't be, and for an unknown section.
    """
    overrides = overrides or {}
    for key in ("data_dir", "init"):  # a run is found from wherever one is
        if options.get(key) is not None:
            options[key] = from_root(options[key])
    run = Run(name, get(name, **overrides), placed(data), recipe, **options)
    found = run.read_data()
    edges: dict[str, Any] = {"num_classes": len(found.classes), "in_channels": found.shape[0]}
    run = dataclasses.replace(run, arch=get(name, **{**edges, **overrides}))
    check(run.arch, found)
    run = dataclasses.replace(run, frozen=frozen_sections(run.arch, run.frozen))
    if run.init is not None:
        given = inspect(run.init)
        found.notes += begins(run, given)
        run = dataclasses.replace(run, preprocessing=given.preprocessing)
        if run.preprocessing is not None:
            found = prepared(found, run.preprocessing, str(run.init))
        else:
            found.notes.append(f"{run.init} says nothing of its preprocessing; the data's is taken")
    return run, found


def from_root(path: str | os.PathLike) -> str:
    """A path from the root on."""
    return os.path.abspath(os.path.expanduser(path))


def placed(data: str) -> str:
    """The name of data, with a path from the root on where it is one."""
    if data.startswith("folder:"):
        return "folder:" + from_root(data.removeprefix("folder:"))
    return from_root(data) if data.endswith(".npz") else data


def prepared(data: Data, how: Preprocessing, whose: str) -> Data:
    """The data prepared as the images that a checkpoint was trained on: their order of channels, scale, mean, deviation
    and interpolation, at the size that the data have. `whose` is the checkpoint, for the note.

    Numbers that are no pixels stay as they are where `how` is of pixels.
    """
    x = data.train.x
    if x is not None and x.dtype != np.uint8 and (how.scale != 1 or how.channel_order == "BGR"):
        note = f"the preprocessing of {whose} is of pixels, and {data.name} has other numbers, which keep their own"
        return dataclasses.replace(data, notes=[*data.notes, note])
    how = how.fitted(data.preprocessing.size, whole=x is not None)
    return dataclasses.replace(data, preprocessing=how, notes=[*data.notes, f"prepared as {whose} has it: {how}"])


def replaced(folder: Path, **fields: Any) -> Run:
    """A run with other fields in its config."""
    run = dataclasses.replace(Run.load(folder), **fields)
    with atomic(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(run.to_json(), indent=1) + "\n")
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


def free(folder: Path, name: str) -> Path:
    """folder/name, or with a number behind it the first that isn't there."""
    names = (name, *(f"{name}-{i}" for i in range(2, 10_000)))
    return next(folder / n for n in names if not (folder / n).exists())


def check(net: Arch, data: Data) -> None:
    """Raises RosettaError where a net can't take such data."""
    if net.num_classes != len(data.classes):
        raise RosettaError(
            f"the net has {net.num_classes} classes, and {data.name} has {len(data.classes)}: "
            f"{', '.join(data.classes[:5])}{', ...' * (len(data.classes) > 5)}"
        )
    if net.in_channels != data.shape[0] or net.dims != len(data.shape) - 1:
        raise RosettaError(
            f"the net takes {net.in_channels} channels and {net.dims} axes, and {data.name} has inputs of "
            f"{' x '.join(map(str, data.shape))}"
        )


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
        """Of the masks of the next step."""
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


def new(folder: Path, run: Run) -> None:
    """Makes the folder of a run. Raises RosettaError where something is there already."""
    learning(run.arch, run.recipe, run.frozen, run.rates)  # which sections there are
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RosettaError(f"{folder} is there already: --resume {folder} goes on with it, --out makes another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise RosettaError(f"can't write {folder}: {e.strerror}") from None
    with atomic(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(run.to_json(), indent=1) + "\n")


def appears(folder: Path, seconds: float = 60.0) -> None:
    """Waits until another process has made the run. Raises RosettaError where none does."""
    until = time.monotonic() + seconds
    while not (folder / CONFIG).exists():
        if time.monotonic() > until:
            raise RosettaError(f"{folder} has not been made by the first process")
        time.sleep(0.05)


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


def start(run: Run) -> Weights:
    """The weights that a run begins with: fresh ones, the same in either framework, or those of a checkpoint; its
    classifier, if it has another number of classes, is fresh. Raises RosettaError where it is of another net."""
    weights = initial(run.arch, run.seed, run.recipe.init)
    if run.init is None:
        return weights
    found = inspect(run.init)
    begins(run, found)
    return weights | {n: w for n, w in found.weights().items() if n in weights and w.shape == weights[n].shape}


def begins(run: Run, found: Recognised) -> list[str]:
    """What is to be known of a run that begins with the weights of a checkpoint. Raises RosettaError where that is of
    another net: by its shapes, its own word or its library's convention. But for the classes, and for the rates of
    training."""
    own = dataclasses.replace(
        run.arch, num_classes=found.arch.num_classes, drop_path=found.arch.drop_path, dropout=found.arch.dropout
    )
    differ = differing(found.arch, own)
    known = {key.partition(".")[0] for key in found.library.conventions}
    known |= {key for key, why in found.told.items() if why.endswith(CONFIGURED)}
    says = "arch" in found.held.metadata or bool(found.claim)  # our own files name their row
    fits = names.parameters(own) == names.parameters(found.arch)
    if differ and (says or known & set(differ) or not fits):
        whose = "its own word" if says else f"the {'conventions' if fits else 'shapes'} of {found.library.name}"
        way = (
            f"; if it is {run.name} all the same, `rosetta port {run.init} NEW.safetensors --arch {run.name}` makes a "
            "file that says so"
        ) * (fits and not says)
        raise RosettaError(
            f"{run.init} is another net than {run.name}: {gap(found.arch, own)}. It is {found.described}, by "
            f"{whose}{way}"
        )
    notes = [f"taken on trust, {run.init} doesn't say it: {f} = {getattr(own, f)!r}" for f in differ]
    fresh = found.arch.num_classes != run.arch.num_classes
    had = f"instead of its own of {found.arch.num_classes}" if found.arch.num_classes else "which it lacks"
    notes.append(f"begins with {run.init}, {'and a fresh classifier, ' + had if fresh else 'its classifier too'}")
    return notes


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
        return _placed(folder, run, data, listener, stop, save_every, limit, device)


def _placed(
    folder: Path, run: Run, data: Data, listener: Listener, stop: Callable[[], bool], save_every: float,
    limit: int | None, device: str,
) -> Progress:  # fmt: skip
    about = {**engines.versions(run.framework, device, default=False), "threads": engines.threads(run.framework)}
    with implementation(run.framework).train.distributed(run.devices, device) as place:
        return _train(folder, run, data, listener, stop, save_every, limit, place, about)


def _train(
    folder: Path, run: Run, data: Data, listener: Listener, stop: Callable[[], bool], save_every: float,
    limit: int | None, place: Any, about: dict[str, str],
) -> Progress:  # fmt: skip
    batches, tests = run.batches(data, True), run.batches(data, False)
    progress = Progress(run, len(batches), about=about)
    weights: Weights | None = None
    if (folder / LAST).exists():
        row, weights, meta = canonical.load(folder / LAST)
        if row != run.arch:
            raise RosettaError(f"{folder / LAST} is of another net than {folder / CONFIG}")
        if meta.get("labels", "\n".join(data.classes)) != "\n".join(data.classes):
            raise RosettaError(f"{folder} was trained on other classes than {data.name} has")
        state, said = canonical.load_training(folder / LAST)
        progress.go_on(said, folder / LAST)
        if (had := said.get("examples", len(data.train))) != len(data.train):
            raise RosettaError(f"{folder} was trained on {had:,} examples, and {data.name} has {len(data.train):,}")
    trainer = trainer_of(run, data, weights, place)
    if weights is not None:
        try:
            trainer.restore(weights, state)
        except RosettaError as e:
            raise RosettaError(f"{folder / LAST} can't be gone on with: {e}") from None
    if 0 < (last := len(data.train) % run.recipe.batch) < trainer.world:
        raise RosettaError(f"a last batch of {last} can't be shared by {trainer.world} processes: take another --batch")
    writer = Writer(folder, run, data, trainer, progress, listener)
    begun, ended = time.perf_counter() - progress.seconds, progress.step + limit if limit else progress.steps
    with writer:
        while progress.step < min(progress.steps, ended):
            done = progress.step % progress.steps_per_epoch
            for x, labels in batches.epoch(progress.epoch, done):
                rate = progress.rate
                loss, right = trainer.step(x, labels, rate, progress.seed)
                if not np.isfinite(loss) and trainer.scale is None:
                    kept = "is as it was at its last checkpoint" if (folder / LAST).exists() else "has no checkpoint"
                    raise RosettaError(
                        f"the loss is {loss} at step {progress.step + 1}: the rate {rate:g} is too high for this net, "
                        f"perhaps; {folder} {kept}"
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
    if trainer.rank == 0:
        draw(folder)
    if progress.step >= progress.steps:
        writer.tell("done")
    return progress


def measure(forward: Callable[[np.ndarray], np.ndarray], batches: Batches) -> Scores:
    """The scores of a net on batches."""
    logits = np.concatenate([forward(x) for x, _ in batches.epoch()])
    return scores(logits, batches.examples.labels)


class Writer:
    """Writes what a run leaves in its folder, from the first of its processes: checkpoints, metrics.jsonl, and the same
    for TensorBoard where tensorboardX is installed."""

    def __init__(
        self, folder: Path, run: Run, data: Data, trainer: Any, progress: Progress, listener: Listener
    ):  # fmt: skip
        self.folder, self.run, self.trainer, self.progress = folder, run, trainer, progress
        self.first, self.listener, self.board = trainer.rank == 0, listener, cast(Any, None)
        self.saved, self.trained_on = time.perf_counter(), data.train
        self.said = {
            "preprocessing": data.preprocessing.to_json(),
            "labels": "\n".join(data.classes),
            "trained": f"{run.recipe.epochs} epochs on {data.name}, seed {run.seed}, {run.framework}",
        }

    def __enter__(self) -> None:
        if not self.first:
            return
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
        """After each step."""
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
        """A line of metrics.jsonl."""
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
        """A checkpoint to go on from."""
        if self.first:
            examples = {"examples": len(self.trained_on)}
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


def draw(folder: Path) -> None:
    """curve.png, where matplotlib is installed and there is anything to draw."""
    rows = read_metrics(folder)
    if not rows:
        return
    if importlib.util.find_spec("matplotlib") is None:
        return
    run = Run.load(folder)
    steps, epochs = [r for r in rows if "loss" in r], [r for r in rows if "test_loss" in r]
    with figure(folder / "curve.png", 1, 2, (10, 4)) as (whole, (left, right)):
        left.plot([r["step"] for r in steps], [r["loss"] for r in steps], color="0.75", lw=0.8, label="batch")
        for key, label, colour in (("train_loss", "training", "C0"), ("test_loss", "test", "C1")):
            left.plot([r["step"] for r in epochs], [r[key] for r in epochs], color=colour, marker=".", label=label)
        for key, label, colour in (("train_accuracy", "training", "C0"), ("test_accuracy", "test", "C1")):
            right.plot(
                [r["step"] for r in epochs], [100 * (1 - r[key]) for r in epochs], color=colour, marker=".", label=label
            )
        left.set(xlabel="step", ylabel="loss")
        right.set(xlabel="step", ylabel="error, %")
        if epochs:
            right.axhline(100 * (1 - epochs[-1]["test_accuracy"]), color="C1", lw=0.5, ls=":")
        for axes in (left, right):
            logarithmic(axes)
            axes.grid(alpha=0.3, which="both")
            axes.legend(frameon=False)
        whole.suptitle(f"{run.name} on {os.path.basename(run.data)}, {run.framework}")


def model_of(source: str | os.PathLike) -> Path:
    """The weights of a run's folder, or the checkpoint itself."""
    path = Path(source)
    others = any((path / name).is_file() for name in OF_FOLDERS)  # whose folders have a config.json, too
    return path / LAST if (path / CONFIG).is_file() and not others else path
