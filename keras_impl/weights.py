"""Weights out of and into a Keras net. The twin of torch_impl/weights.py."""

from collections.abc import Iterator, Mapping

import keras
import numpy as np

from common.errors import RosettaError
from common.init import given
from keras_impl.model import Sequential, to_keras, to_numpy, to_torch

LEAVES = {
    "kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


def named_layers(layer, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """(attribute path, layer) of every layer inside, outermost first, in the order in which they were assigned."""
    if isinstance(layer, Sequential):
        children = {str(i): member for i, member in enumerate(layer.members)}
    else:
        # on Keras' torch backend a layer is an nn.Module, which keeps its children apart
        children = {**vars(layer), **vars(layer).get("_modules", {})}
    for name, child in children.items():
        if isinstance(child, keras.layers.Layer):
            yield prefix + name, child
            yield from named_layers(child, f"{prefix}{name}.")


def named_variables(model) -> Iterator[tuple[str, keras.Variable]]:
    """(canonical name, variable) in canonical order."""
    for path, layer in named_layers(model):
        for leaf, canonical in LEAVES.items():
            variable = getattr(layer, leaf, None)
            if isinstance(variable, keras.Variable):
                yield f"{path}.{canonical}", variable


def export_weights(model) -> dict[str, np.ndarray]:
    """{canonical name: array} in PyTorch's layout: copies, in the model's dtype (bfloat16, which numpy lacks, as
    float32). Raises RosettaError for a functional model around our layers, such as a backbone."""
    weights = {}
    for name, variable in named_variables(model):
        value = to_torch(to_numpy(variable))
        weights[name] = value if value.flags.owndata else value.copy()
    if not weights and model.variables:
        raise RosettaError(
            f"{model.name} is a model of Keras' own: the weights have names in the net that it is made of"
        )
    return weights


def import_weights(model, weights: Mapping[str, np.ndarray]) -> None:
    """Sets every parameter and statistic from `weights`, cast to the model's dtype; a folded net takes the
    weights of the net with norms, too.

    Raises RosettaError, the model untouched, unless names and shapes are just the model's and all are floats.
    """
    source = given(model.plan.arch, weights, to_keras)
    for name, variable in named_variables(model):
        variable.assign(source[name]())
