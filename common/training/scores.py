"""How well logits say the classes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.training.data import Batches


class PerClass(NamedTuple):
    """Of one class; None where there is nothing to divide by."""

    examples: int
    recall: float | None  # the part of its examples that are said to be it
    precision: float | None  # the part of what is said to be it that is
    f1: float | None  # the harmonic mean of the two


@dataclass(frozen=True)
class Scores:
    """What logits (N classes) score against labels (N)."""

    loss: float  # mean cross-entropy, without smoothing
    accuracy: float  # parts of 1
    top5: float
    confusion: np.ndarray  # (true class, said class): how many

    @property
    def per_class(self) -> list[PerClass]:
        """What is true of each class by itself."""
        rows = []
        for i, hits in enumerate(np.diag(self.confusion).tolist()):
            of, said = int(self.confusion[i].sum()), int(self.confusion[:, i].sum())
            rows.append(
                PerClass(of, hits / of if of else None, hits / said if said else None,
                         2 * hits / (of + said) if of + said else None)
            )  # fmt: skip
        return rows

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean recall of the classes that have examples: a rare class counts as much as a common one."""
        return _mean(c.recall for c in self.per_class)

    @property
    def macro_f1(self) -> float | None:
        """Mean F1 of the classes that have examples or are said."""
        return _mean(c.f1 for c in self.per_class)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def scores(logits: np.ndarray, labels: np.ndarray) -> Scores:
    z = logits.astype(np.float64)
    k = z.shape[1]
    said = z.argmax(1)
    top = np.argsort(-z, 1, kind="stable")[:, :5] == labels[:, None]
    confusion = np.bincount(labels * k + said, minlength=k * k).reshape(k, k)
    return Scores(losses(z, labels).mean().item(), float((said == labels).mean()), float(top.any(1).mean()), confusion)


def losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy of each example."""
    top = logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return log_sum - logits[np.arange(len(labels)), labels]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N classes)."""
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def measure(forward: Callable[[np.ndarray], np.ndarray], batches: Batches) -> Scores:
    """The scores of a net on batches."""
    logits = np.concatenate([forward(x) for x, _ in batches.epoch()])
    return scores(logits, batches.examples.labels)
