"""A run: what is trained, on what and how. `plan` works one out; config.json in its folder says it."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common import names
from common.arch import Arch, get
from common.checkpoints import hubs
from common.checkpoints.port import inspect
from common.checkpoints.preprocessing import Preprocessing
from common.checkpoints.recognised import Recognised, differing, gap
from common.checkpoints.shapes import CONFIGURED
from common.errors import RosettaError
from common.init import initial
from common.parity.backends import NO_GPU, check_spec
from common.tools.typed import check_fields
from common.training import data as datasets
from common.training.data import Batches, Data
from common.training.data.augment import NOTHING
from common.training.data.examples import held_out
from common.training.recipe import Recipe, frozen_sections
from common.weights import Weights

CONFIG = "config.json"


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
    """A path from the root on; the name of a hub's checkpoint as it is."""
    return str(path) if hubs.named(path) else os.path.abspath(os.path.expanduser(path))


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
