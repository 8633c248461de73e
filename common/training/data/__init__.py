"""Data in numpy, the same bytes for either framework: `load("fashion-mnist")`, then `Batches`."""

from common.training.data.batches import Batches
from common.training.data.examples import Data, Examples
from common.training.data.sources import load

__all__ = ["Batches", "Data", "Examples", "load"]
