"""Training curves: of several runs on one picture and in words, and of one, as its folder has them."""

import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import RosettaError
from common.tools.figures import figure, logarithmic
from common.training.record import read_metrics
from common.training.run import Run


@dataclass(frozen=True)
class Curve:
    """One run's epochs."""

    label: str
    folder: Path
    run: Run
    rows: list[dict[str, float]]  # a dict an epoch: epoch, train_loss, train_accuracy, test_loss, test_accuracy, ...

    @property
    def last(self) -> dict[str, float]:
        return self.rows[-1]

    @property
    def best(self) -> dict[str, float]:
        """The epoch that measured best."""
        return max(self.rows, key=lambda row: row["test_accuracy"])

    def to_json(self) -> dict[str, Any]:
        run = self.run
        said = {"run": str(self.folder), "label": self.label, "name": run.name, "data": run.data}
        return said | {"framework": run.framework, "epochs": self.rows}


def read(folders: Sequence[str | os.PathLike]) -> list[Curve]:
    """The curves of runs. Raises RosettaError for what is no run, and for one that hasn't ended an epoch."""
    runs = []
    for folder in map(Path, folders):
        run = Run.load(folder)
        rows = [row for row in read_metrics(folder) if "test_accuracy" in row]
        if not rows:
            raise RosettaError(f"{folder} has no epoch that is over yet: rosetta train --resume {folder} goes on")
        runs.append((folder, run, rows))
    names = [(run.name, run.framework, str(folder)) for folder, run, _ in runs]
    # the net alone where that tells the runs apart; else the framework beside it; else the folder
    labels = next(
        found for found in ([n[:1] for n in names], [n[:2] for n in names], [n[2:] for n in names], names)
        if len(set(found)) == len(found) or found is names
    )  # fmt: skip
    return [Curve(", ".join(label), *run) for label, run in zip(labels, runs, strict=True)]


def error(accuracy: float) -> float:
    """The error in percent."""
    return 100 * (1 - accuracy)


def epochs_shown(curves: Sequence[Curve], most: int = 12) -> list[int]:
    """Of all epochs that a run has, so many, evenly, with the first and the last."""
    there = sorted({int(row["epoch"]) for c in curves for row in c.rows})
    count = min(most, len(there))
    return sorted({there[round(i * (len(there) - 1) / max(1, count - 1))] for i in range(count)})


def draw(path: str | os.PathLike, curves: Sequence[Curve], title: str = "") -> None:
    """Loss of the training left; right the error, bold of the test examples and thin of the training ones, as in
    He et al. 2015, figures 1, 4 and 6. Raises RosettaError as `common.tools.figures.figure`."""
    with figure(path, 1, 2, (11, 4.4)) as (whole, (left, right)):
        for i, c in enumerate(curves):
            epochs, colour = [row["epoch"] for row in c.rows], f"C{i}"
            left.plot(epochs, [row["train_loss"] for row in c.rows], color=colour, marker=".", label=c.label)
            right.plot(
                epochs, [error(row["train_accuracy"]) for row in c.rows], color=colour, lw=1, ls=(0, (4, 2)),
                marker=".", markersize=3,
            )  # fmt: skip
            right.plot(epochs, [error(row["test_accuracy"]) for row in c.rows], color=colour, lw=2.4, marker=".")
        right.plot([], [], color="0.4", lw=1, ls=(0, (4, 2)), label="training")
        right.plot([], [], color="0.4", lw=2.4, label="test")
        left.set(xlabel="epoch", ylabel="training loss")
        right.set(xlabel="epoch", ylabel="error, %")
        shown = [error(row[key]) for c in curves for row in c.rows for key in ("test_accuracy", "train_accuracy")]
        if all(math.isfinite(v) for c in curves for row in c.rows for v in [row["train_loss"]]):
            logarithmic(left)
        right.set_ylim(0, 1.05 * max(shown))
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3, which="both")
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = left.get_legend_handles_labels()
        more, words = right.get_legend_handles_labels()
        whole.legend(handles + more, labels + words, loc="outside upper center", ncols=4, frameon=False)
        if title:
            whole.suptitle(title)


def draw_run(folder: Path) -> None:
    """curve.png, where matplotlib is installed and there is anything to draw."""
    rows = read_metrics(folder)
    if not rows or importlib.util.find_spec("matplotlib") is None:
        return
    run = Run.load(folder)
    steps, epochs = [r for r in rows if "loss" in r], [r for r in rows if "test_loss" in r]
    with figure(folder / "curve.png", 1, 2, (10, 4)) as (whole, (left, right)):
        left.plot([r["step"] for r in steps], [r["loss"] for r in steps], color="0.75", lw=0.8, label="batch")
        for key, label, colour in (("train_loss", "training", "C0"), ("test_loss", "test", "C1")):
            left.plot([r["step"] for r in epochs], [r[key] for r in epochs], color=colour, marker=".", label=label)
        for key, label, colour in (("train_accuracy", "training", "C0"), ("test_accuracy", "test", "C1")):
            right.plot(
                [r["step"] for r in epochs], [error(r[key]) for r in epochs], color=colour, marker=".", label=label
            )
        left.set(xlabel="step", ylabel="loss")
        right.set(xlabel="step", ylabel="error, %")
        if epochs:
            right.axhline(error(epochs[-1]["test_accuracy"]), color="C1", lw=0.5, ls=":")
        for axes in (left, right):
            logarithmic(axes)
            axes.grid(alpha=0.3, which="both")
            axes.legend(frameon=False)
        whole.suptitle(f"{run.name} on {os.path.basename(run.data)}, {run.framework}")
