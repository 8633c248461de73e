"""What a trained net says of examples: in one framework or in both, each in a process of its own."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.arch import Arch
from common.checkpoints.preprocessing import LARGEST, Preprocessing, imagenet
from common.checkpoints.recognised import Recognised
from common.errors import RosettaError
from common.parity.backends import Elsewhere
from common.parity.checks import Item
from common.parity.difference import EPSILON
from common.tools.figures import figure
from common.training.data import Batches, Data, Examples, folder
from common.training.data.images import fault
from common.training.run import check, prepared
from common.training.scores import Scores, scores
from common.weights import Weights


@dataclass(frozen=True)
class Predict:
    """A job for a backend: the logits of examples."""

    arch: Arch
    weights: Weights
    examples: Examples
    preprocessing: Preprocessing
    dtype: str = "float32"
    batch: int = 250
    workers: int = 1

    def through(self, impl: Any) -> Iterator[Item]:
        """The logits (N classes) of each batch."""
        net = impl.create_model(self.arch, dtype=self.dtype, weights=self.weights)
        wide = "float64" if self.dtype == "float64" else "float32"
        batches = Batches(
            self.examples, self.batch, self.preprocessing, channels=self.arch.in_channels, dtype=wide,
            workers=self.workers,
        )  # fmt: skip
        for x, _ in batches.epoch():
            yield Item("predict", "logits", "logits", impl.trace.trace(net, x))


@dataclass
class Answers:
    """Logits (N classes) by backend, of a checkpoint."""

    found: Recognised
    logits: dict[str, np.ndarray]
    preprocessing: Preprocessing
    notes: list[str]

    @property
    def apart(self) -> float | None:
        """How far the backends' logits are apart, over the largest; None of one backend."""
        if len(self.logits) < 2:
            return None
        a, *others = self.logits.values()
        return max(float(np.abs(a - b).max() / np.abs(a).max()) for b in others)

    @property
    def same_classes(self) -> int:
        """Of how many examples all backends say the same class."""
        said = np.stack([y.argmax(1) for y in self.logits.values()])
        return int((said == said[0]).all(0).sum())


def answers(
    found: Recognised, examples: Examples, framework: str = "torch", *, preprocessing: Preprocessing | None = None,
    dtype: str = "float32", device: str = "auto", workers: int = 1,
) -> Answers:  # fmt: skip
    """What a checkpoint says of `examples`. `framework` is a backend, or "both".

    The weights' own preprocessing is taken, else `preprocessing`, else ImageNet's, and that is noted. Raises
    RosettaError for weights that can't be read and where a backend is missing.
    """
    if dtype not in EPSILON:
        raise RosettaError(f"dtype {dtype!r} can't be: expected {', '.join(EPSILON)}")
    notes = list(found.notes)
    if mine := [f for f, why in found.told.items() if why in ("named", "set") and hasattr(found.arch, f)]:
        notes.append(f"taken on your word: {', '.join(f'{f} = {getattr(found.arch, f)!r}' for f in mine)}")
    how = found.preprocessing
    if how is None:
        which = "the data's" if preprocessing else "ImageNet's"
        how = preprocessing or imagenet(found.arch.input_shape()[-1])
        notes.append(f"the weights say nothing of their preprocessing; {which} is taken: {how}")
    if not found.arch.num_classes:
        raise RosettaError(f"{found.held.path} has no classifier: it can't say classes")
    if examples.files and how.size > LARGEST:
        raise RosettaError(
            f"{found.held.path} says that its images are {how.size} x {how.size}: expected at most {LARGEST}"
        )
    job = Predict(found.arch, found.weights(), examples, how, dtype, workers=workers)
    logits: dict[str, np.ndarray] = {}
    with ExitStack() as stack:
        names = ("torch", "keras") if framework == "both" else (framework,)
        running = [stack.enter_context(closing(Elsewhere(b, device))) for b in names]
        for backend in running:
            logits[backend.spec] = np.concatenate([item.value for item in backend.run(job)])
    return Answers(found, logits, how, notes)


def evaluate(
    found: Recognised, data: Data, framework: str = "torch", *, size: int | None = None, **options: Any
) -> tuple[Answers, dict[str, Scores]]:
    """The scores of a checkpoint on the test examples, by backend; `size` is what images of files are cut to, instead
    of what the checkpoint says. Raises RosettaError as `answers` does, and where net
    and data don't fit."""
    check(found.arch, data)
    if found.preprocessing is not None and data.test.x is not None:  # arrays have their size, and may be no pixels
        fitted = prepared(data, found.preprocessing, found.held.path.name)
        notes = fitted.notes[len(data.notes) :] if fitted.preprocessing == data.preprocessing else []
        if len(data.shape) == 3 and (at := found.preprocessing.size) != data.preprocessing.size:
            notes.append(f"the weights are of images of {at} x {at}: --size {at} makes these as large")
        found = dataclasses.replace(found, preprocessing=fitted.preprocessing, notes=[*found.notes, *notes])
    elif found.preprocessing is not None and size is not None:
        found = dataclasses.replace(found, preprocessing=found.preprocessing.fitted(size))
    if found.labels and tuple(found.labels) != data.classes:
        differ = next((a, b) for a, b in zip(found.labels, data.classes, strict=True) if a != b)
        raise RosettaError(f"the weights' classes are not {data.name}'s: {differ[0]!r} there is {differ[1]!r} here")
    got = answers(found, data.test, framework, preprocessing=data.preprocessing, **options)
    return got, {b: scores(y, data.test.labels) for b, y in got.logits.items()}


def pictures(paths: Sequence[str | os.PathLike], skip_corrupt: bool = False) -> tuple[Examples, list[str]]:
    """(the images of files and folders, notes). Raises RosettaError for what is missing or no image."""
    files: list[Path] = []
    notes: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = list(folder.images(path))
            if not inside:
                raise RosettaError(f"{path} has no images")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise RosettaError(f"no such image: {path}")
    broken = {f: why for f in files if (why := fault(f))}
    if broken and (not skip_corrupt or len(broken) == len(files)):
        rows = "\n".join(f"  {f} ({why})" for f, why in list(broken.items())[:20])
        raise RosettaError(f"{len(broken)} of {len(files)} images can't be read\n{rows}")
    notes += [f"left out: {f} ({why})" for f, why in broken.items()]
    kept = [f for f in files if f not in broken]
    return Examples(np.zeros(len(kept), np.int64), None, kept), notes


MOST_DRAWN = 100  # classes whose labels and counts can be read on one picture


def draw_confusion(path: str | os.PathLike, found: Scores, classes: Sequence[str], title: str) -> list[str]:
    """The confusion matrix as a PNG: rows are true classes, shares of a row as colour, counts as text. Of more classes
    than can be read, those with the most errors. Returns notes: what isn't drawn as it was meant."""
    counts, notes = found.confusion, []
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    if len(classes) > MOST_DRAWN:
        wrong = counts.sum(1) + counts.sum(0) - 2 * np.diag(counts)
        kept = np.sort(np.argsort(-wrong, kind="stable")[:MOST_DRAWN])
        counts, share = counts[np.ix_(kept, kept)], share[np.ix_(kept, kept)]
        notes.append(f"{path} has the {MOST_DRAWN} of {len(classes)} classes with the most errors")
        title, classes = f"{title}\nthe {MOST_DRAWN} of {len(classes)} classes with the most errors", [
            classes[i] for i in kept
        ]  # fmt: skip
    k = len(classes)
    many = k > 40
    side = min(4 + 0.45 * k, 30)
    with figure(path, 1, 1, (side, side)) as (drawn, axes):
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(k), classes, rotation=90 if many else 45, ha="center" if many else "right")
        axes.set_yticks(range(k), classes)
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour, fontsize=6 if many else 8)
        axes.set(xlabel="said", ylabel="true", title=title)
    if drawn.unwritable:
        some = drawn.unwritable[:10] + "..." * (len(drawn.unwritable) > 10)
        notes.append(
            f"no font of this machine has {some}, so {path} has boxes there: install such a font (Noto has all)"
        )
    return notes
