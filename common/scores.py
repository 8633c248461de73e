"""How well logits say the classes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Of logits (N classes) against labels (N)."""

    loss: float  # mean cross-entropy, without smoothing
    accuracy: float  # parts of 1
    top5: float
    confusion: np.ndarray  # (true class, said class): how many

    @property
    def per_class(self) -> list[tuple[int, float, float]]:
        """(examples, recall, precision) of each class; nan where there are none."""
        rows = []
        for i, hits in enumerate(np.diag(self.confusion)):
            of, said = int(self.confusion[i].sum()), int(self.confusion[:, i].sum())
            rows.append((of, hits / of if of else np.nan, hits / said if said else np.nan))
        return rows


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
