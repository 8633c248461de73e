"""What a pass in training mode gives: the same thing from either framework."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Differentiated:
    """Loss, logits (N classes), {canonical name: gradient} in PyTorch's layout, and the input's gradient (N C *S)."""

    loss: float
    logits: np.ndarray
    gradients: dict[str, np.ndarray]
    by_input: np.ndarray
