"""The pickles that CIFAR's Python version and torchvision keep it in, read without running what is in them."""

from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoints.arrays import unpickled
from common.errors import RosettaError


def read(path: Path) -> dict[str, Any]:
    """What the dictionary of such a file says: arrays, lists, words. Raises RosettaError for any other."""
    try:
        return unpickled(path)
    except OSError as e:
        raise RosettaError(f"{path} can't be read: {e.strerror}") from None
    except Exception as e:  # whatever a damaged file makes of it
        raise RosettaError(f"{path} is no batch of CIFAR: {str(e)[:100] or type(e).__name__}") from None


def examples(path: Path, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(images N 3 32 32, labels) of a batch; `key` is what it calls its labels."""
    found = read(path)
    x, y = found.get("data"), found.get(key)
    images = isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 2 and x.shape[1] == 3072
    if not isinstance(x, np.ndarray) or not images or not isinstance(y, list):
        raise RosettaError(f"{path} is no batch of CIFAR: expected data of N x 3072 bytes, and {key}")
    if len(y) != len(x) or not all(type(label) is int and 0 <= label < classes for label in y):
        raise RosettaError(f"{path} is no batch of CIFAR: expected {len(x)} {key} from 0 to {classes - 1}")
    return x.reshape(-1, 3, 32, 32), np.array(y, np.int64)
