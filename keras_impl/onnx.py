"""A Keras net as an ONNX graph. The twin of torch_impl/onnx.py."""

import os
from unittest import mock

import keras
import numpy as np

from common.errors import RosettaError
from common.parity.graphs import INPUT, LOGITS, OPSET, axes
from keras_impl.model import to_numpy


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
    import onnx
    import tensorflow as tf
    import tf2onnx

    arch = model.plan.arch
    # kernels are the graph's inputs until it is finished: the converter copies its constants some forty times
    kernels = {f"kernel_{i}": v for i, v in enumerate(w for w in model.weights if w.path.endswith("kernel"))}
    spec = tf.TensorSpec((None, arch.in_channels, *(None,) * arch.dims), model.compute_dtype, name=INPUT)
    specs = [spec, *(tf.TensorSpec(v.shape, v.dtype, name=name) for name, v in kernels.items())]

    @tf.function(input_signature=specs)
    def logits(x, *values):
        last = tf.transpose(x, (0, *range(2, arch.dims + 2), 1))  # N C *S -> N *S C
        with keras.StatelessScope(state_mapping=list(zip(kernels.values(), values, strict=True))):
            return {LOGITS: model(last, training=False)}

    # an optimiser that fails should say so; and it needs no copy of the whole graph, in case, before each of them
    with mock.patch.dict(os.environ, TF2ONNX_CATCH_ERRORS="FALSE"):
        made, _ = tf2onnx.convert.from_function(logits, input_signature=specs, opset=OPSET)
    _fill(made.graph, {name: to_numpy(v) for name, v in kernels.items()})
    _name_axes(made, arch)
    onnx.save(made, path)


def _fill(graph, arrays) -> None:
    """Inputs become constants, and so does all that is computed from constants only: a kernel's transposition."""
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer} | arrays
    given, left = set(known) - set(arrays), []
    for node in graph.node:
        if all(name in known for name in node.input if name):
            found = ReferenceEvaluator(node).run(None, {name: known[name] for name in node.input if name})
            known |= dict(zip(node.output, found, strict=True))
        else:
            left.append(node)
    used = {name for node in left for name in node.input} | {y.name for y in graph.output}
    inputs = [x for x in graph.input if x.name not in arrays]
    kept = [t for t in graph.initializer if t.name in used]
    kept += [numpy_helper.from_array(np.ascontiguousarray(known[n]), n) for n in known if n in used and n not in given]
    for field, values in ((graph.node, left), (graph.input, inputs), (graph.initializer, kept)):
        del field[:]
        field.extend(values)


def _name_axes(graph, arch) -> None:
    """tf2onnx numbers the free axes, throughout: call them what the other exporter does."""
    (x,), (y,) = graph.graph.input, graph.graph.output
    for value, names in ((x, ("N", None, *axes(arch))), (y, ("N", None))):
        for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name:
                axis.dim_param = name
