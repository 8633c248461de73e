"""What each layer of a Keras net puts out. The twin of torch_impl/trace.py."""

from collections.abc import Callable

import numpy as np

from keras_impl.model import to_numpy
from keras_impl.weights import named_layers

See = Callable[[str, np.ndarray], None]


def trace(model, x: np.ndarray, see: See | None = None, training: bool = False) -> np.ndarray:
    """One pass of `x` (N C *S): `see(name, output)` for each layer in the order in which they end, if there is
    a `see`.

    Outputs are N C *S; they are views, good only until `see` returns. Gives the logits (N classes). In training mode
    the running statistics move.
    """

    def watched(name, call):  # Keras has no hooks: the layer's own `call`, for the time being
        def call_and_see(*args, **kwargs):
            y = call(*args, **kwargs)
            see(name, _numpy(y))
            return y

        return call_and_see

    layers = list(named_layers(model)) if see else []
    try:
        for name, layer in layers:
            object.__setattr__(layer, "call", watched(name, layer.call))
        return _numpy(model(np.moveaxis(x, 1, -1), training=training))
    finally:
        for _, layer in layers:
            layer.__dict__.pop("call", None)


def _numpy(y) -> np.ndarray:
    return np.moveaxis(to_numpy(y), -1, 1)
