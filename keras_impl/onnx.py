"""A Keras net as an ONNX graph. The twin of torch_impl/onnx.py."""

import os
from unittest import mock

import keras

from common.errors import RosettaError
from common.graphs import INPUT, LOGITS, OPSET, axes


def export(model, path: str | os.PathLike) -> None:
    """Writes `model` in evaluation mode to `path`: one file, any batch and image size, N C *S in, logits out.

    The exporter is tf2onnx. It takes the grouped convolutions of layers.py as they are, in float64 group by group;
    Keras' own, an XLA call, it writes as an invalid graph.
    """
    if keras.backend.backend() != "tensorflow":
        raise RosettaError(
            f"Keras runs on {keras.backend.backend()} here, and ONNX comes from TensorFlow's graphs: set "
            "KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf
    import tf2onnx

    arch = model.plan.arch
    spec = tf.TensorSpec((None, arch.in_channels, *(None,) * arch.dims), model.compute_dtype, name=INPUT)

    @tf.function(input_signature=[spec])
    def logits(x):
        last = tf.transpose(x, (0, *range(2, arch.dims + 2), 1))  # N C *S -> N *S C
        return {LOGITS: model(last, training=False)}

    # an optimiser that fails should say so; and it needs no copy of the whole graph, in case, before each of them
    with mock.patch.dict(os.environ, TF2ONNX_CATCH_ERRORS="FALSE"):
        graph, _ = tf2onnx.convert.from_function(logits, input_signature=[spec], opset=OPSET)
    _name_axes(graph, arch)
    with open(path, "wb") as f:
        f.write(graph.SerializeToString())


def _name_axes(graph, arch) -> None:
    """tf2onnx numbers the free axes, throughout: call them what the other exporter does."""
    (x,), (y,) = graph.graph.input, graph.graph.output
    for value, names in ((x, ("N", None, *axes(arch))), (y, ("N", None))):
        for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name:
                axis.dim_param = name
