"""What a data set is: examples, their classes, and how they become a net's input."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.checkpoints.preprocessing import Preprocessing
from common.errors import RosettaError
from common.training.data import counters
from common.training.data.augment import Augment


@dataclass
class Examples:
    """Examples and their classes. `x` is N C *S, uint8 of 0 to 255 or float32; or None, and `files` are images. Those
    of `x` are resized to `size` batch by batch, as photographs are; None: they stay as they are."""

    labels: np.ndarray  # N, int64
    x: np.ndarray | None = None
    files: list[Path] = field(default_factory=list)
    size: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: np.ndarray) -> "Examples":
        """The examples of these rows, in this order."""
        x = None if self.x is None else self.x[rows]
        return Examples(self.labels[rows], x, [self.files[i] for i in rows] if self.files else [], self.size)


@dataclass
class Data:
    """A data set: what to train on, what to measure on, and how both become a net's input."""

    name: str
    train: Examples
    test: Examples
    classes: tuple[str, ...]
    shape: tuple[int, ...]  # of one input, C *S
    preprocessing: Preprocessing
    augment: Augment = Augment()
    notes: list[str] = field(default_factory=list)
    part: str = "test"  # what `test` is


def held_out(data: Data, share: float, seed: int) -> Data:
    """The data with the last `share` of a drawn order of the training examples in the test's place."""
    order = counters.permutation(len(data.train), seed, 2**32)
    kept = len(order) - round(share * len(order))
    if not 0 < kept < len(order):
        raise RosettaError(
            f"{share:g} of {len(order)} training examples can't be held out: expected at least one, and not all of them"
        )
    return dataclasses.replace(
        data,
        train=data.train.subset(order[:kept]),
        test=data.train.subset(order[kept:]),
        part="held-out part of the training examples",
    )
