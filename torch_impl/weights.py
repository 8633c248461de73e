"""Weights out of and into a PyTorch net. The twin of keras_impl/weights.py."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from common.init import given
from torch_impl.model import to_numpy, to_tensor


def named_tensors(model) -> Iterator[tuple[str, torch.Tensor]]:
    """(canonical name, tensor) in canonical order. PyTorch's names are the canonical ones; its counter of batches,
    which nothing reads at a fixed momentum, is no weight."""
    return ((name, t) for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked"))


def export_weights(model) -> dict[str, np.ndarray]:
    """{canonical name: array} in PyTorch's layout: copies, in the model's dtype (bfloat16, which numpy lacks, as
    float32)."""
    weights = {}
    for name, tensor in named_tensors(model):
        weights[name] = np.array(to_numpy(tensor), order="C")
    return weights


def import_weights(model, weights: Mapping[str, np.ndarray]) -> None:
    """Sets every parameter and statistic from `weights`, cast to the model's dtype; a folded net takes the
    weights of the net with norms, too.

    Raises RosettaError, the model untouched, unless names and shapes are just the model's and all are floats.
    """
    source = given(model.plan.arch, weights)
    with torch.no_grad():
        for name, tensor in named_tensors(model):
            tensor.copy_(to_tensor(source[name]()))
