"""Data in numpy, the same bytes for either framework: `load("fashion-mnist")`, then `Batches`."""

from common.training.data.batches import Batches
from common.training.data.sources import Data, Examples, load

__all__ = ["Batches", "Data", "Examples", "load"]
