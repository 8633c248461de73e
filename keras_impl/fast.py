"""The fast path for inference in one call. The twin of torch_impl/fast.py.

fast = optimize(model, images, dtype="bfloat16")
logits = fast(images)
"""

import dataclasses
import gc
import itertools
from functools import cache

import keras
import numpy as np
from keras import ops

from common.speed import fast, runners
from common.tools.memory import cpus, keep_memory
from keras_impl.model import to_numpy
from keras_impl.onnx import export
from keras_impl.resnet import ResNet, create_model
from keras_impl.trace import trace
from keras_impl.weights import export_weights


class InParts(ResNet):
    """The same net, which takes a batch through the stem and the first `early` stages in `parts`, one after another, so
    that what one layer writes is near when the next one reads it (`common.speed.fast.in_parts`)."""

    parts, early = 1, 0

    def logits(self, x):
        (trunk,) = self.plan.trunks
        y = ops.concatenate([self.begun(part, trunk.stages[: self.early]) for part in ops.split(x, self.parts)])
        return self.fc(self.pooled(dataclasses.replace(trunk, stages=trunk.stages[self.early :]), y))

    def begun(self, x, stages):
        x = self.stem(x)
        for stage in stages:
            x = getattr(self, stage.name)(x)
        return x


def optimize(model, example, *, dtype: str | None = None, engine: str = "compiler") -> fast.Optimized:
    """A callable that computes what `model` does in evaluation mode, as fast as the backend can.

    BatchNorm is folded, and the graph compiled in `dtype` (by default the model's): on TensorFlow with frozen weights,
    and by XLA where there is a GPU and it is faster; on JAX by `jit`; on torch it runs as it comes. `example` (N *S C)
    is the shape that it is made for, and what it is held against the model on. The model stays as it is, and the
    process keeps what memory it frees.

    `engine` "onnxruntime" or "openvino" runs the folded net's ONNX graph there, on the CPU, where Keras runs on
    TensorFlow; "auto" makes it in every engine that is installed, times them in turns on the example and takes the
    fastest, which the result tells.

    Raises RosettaError for an example that the model can't take, for a model that was changed so that it computes
    something else than its row says, for an engine that isn't there or lacks the dtype, and where the logits differ by
    more than the dtype's noise.
    """
    fast.check_row(model)
    own = model.compute_dtype
    name = dtype or own
    runners.check(engine, "keras", name, _place())
    fast.check_example(example, model.plan.arch, hasattr(example, "shape"), "an array N *S C", -1)
    keep_memory()
    first = np.moveaxis(to_numpy(example), -1, 1)
    fast.check_names(model.plan.arch, {n: w.shape for n, w in export_weights(model).items()})

    @cache
    def of_row(bits: str):
        return trace(create_model(model.plan.arch, dtype=bits, weights=export_weights(model)), first[:2])

    # before all else: the memory of these nets is used again. A Keras net has its dtype for life
    two = trace(model, first[:2])
    fast.check_same(two, of_row(model.dtype_policy.name), own)
    gc.collect()  # a Keras net refers to itself
    floor = fast.noise(two, own, name, of_row)
    gc.collect()
    plain = trace(model, first)
    folded = dataclasses.replace(model.plan.arch, folded=True)

    @cache
    def graph() -> bytes:
        return runners.exported(export, create_model(folded, weights=export_weights(model)))

    def by_compiler() -> fast.Optimized:
        net = create_model(folded, dtype=name, weights=export_weights(model))
        steps = ["BatchNorm folded", name]
        shape = tuple(example.shape)
        compiled = _COMPILED[keras.backend.backend()](net, shape, own, steps)

        def run(x):
            return compiled(x) if tuple(x.shape) == shape else model(x, training=False)

        return fast.proven(run, to_numpy(run(example)), plain, name, steps, floor)

    def by_graph(engine: str) -> fast.Optimized:
        runners.check(engine, "keras", name, _place())
        steps = ["BatchNorm folded", name]
        logits = runners.runner(engine, graph(), name, cpus(), steps)

        def run(x):
            fast.check_example(x, model.plan.arch, hasattr(x, "shape"), "an array N *S C", -1)
            first = np.ascontiguousarray(np.moveaxis(to_numpy(x), -1, 1), np.float32)
            return ops.convert_to_tensor(logits(first), own)

        return fast.proven(run, to_numpy(run(example)), plain, name, steps, floor, engine)

    def made(engine: str) -> fast.Optimized:
        return by_compiler() if engine == runners.COMPILER else by_graph(engine)

    return runners.chosen(engine, made, example, to_numpy)


def _place() -> str:
    """The kind of device that TensorFlow computes on, as PyTorch calls it; of another engine "cpu", whose export
    refuses by itself."""
    if keras.backend.backend() != "tensorflow":
        return "cpu"
    import tensorflow as tf

    return "cuda" if tf.config.list_logical_devices("GPU") else "cpu"


def _tensorflow(net, shape: tuple[int, ...], returned: str, steps: list[str]):
    import tensorflow as tf

    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    if not on_gpu:
        channels_first = (shape[0], shape[-1], *shape[1:-1])
        parts, early = fast.in_parts(net.plan.arch, channels_first, net.compute_dtype, steps)
        if parts > 1:
            net.__class__, net.parts, net.early = InParts, parts, early
    weights = [tf.convert_to_tensor(v) for v in (*net.trainable_variables, *net.non_trainable_variables)]
    learned = len(net.trainable_variables)

    def forward(x):
        y, _ = net.stateless_call(weights[:learned], weights[learned:], tf.cast(x, net.compute_dtype), training=False)
        return tf.cast(y, returned)

    compiled = tf.function(forward, [tf.TensorSpec(shape, returned)])
    ways = {"compiled by TensorFlow": compiled.get_concrete_function()}
    if on_gpu:  # on a CPU it takes a tenth more than TensorFlow, and minutes to compile
        ways["compiled by XLA"] = tf.function(forward, [tf.TensorSpec(shape, returned)], jit_compile=True)
    elif frozen := _frozen(ways["compiled by TensorFlow"]):
        ways = {"compiled by TensorFlow with frozen weights": frozen}
    x = tf.zeros(shape, returned)
    best = min(ways, key=lambda way: _seconds(ways[way], x)) if len(ways) > 1 else next(iter(ways))
    steps.append(best)
    return lambda x: ways[best](tf.convert_to_tensor(x, returned))


def _frozen(function):
    """The concrete function of one input with the tensors that it captures for constants, so that oneDNN orders a
    kernel once and not at every call. None where TensorFlow doesn't make one graph with oneDNN's operators of it.

    TensorFlow tells oneDNN so of constants in the graph alone, and makes a dozen copies of those: 1.5 GB for a
    ResNet-50. So the graph that it makes of the function is told here, and run in its place.
    """
    import tensorflow as tf
    from tensorflow.python.eager import context

    x = tf.zeros(function.inputs[0].shape, function.inputs[0].dtype)
    context.enable_graph_collection()
    try:
        function(x)
        graphs = context.export_run_metadata().partition_graphs
    finally:
        context.disable_graph_collection()
    constant = [
        n.attr[a] for g in graphs for n in g.node for a in ("is_filter_const", "is_weight_const") if a in n.attr
    ]
    if len(graphs) != 1 or not constant:
        return None
    for attribute in constant:
        attribute.b = True
    (graph,) = graphs
    _one_by_one(graph)
    arguments = {n.attr["index"].i: n for n in graph.node if n.op == "_Arg"}
    (logits,) = (n for n in graph.node if n.op == "_Retval")
    for node, op, key in [*((n, "Placeholder", "dtype") for n in arguments.values()), (logits, "Identity", "T")]:
        kind = node.attr["T"].type
        node.attr.clear()
        node.op, node.attr[key].type = op, kind

    def imported(x):
        given = [x, *map(tf.identity, function.captured_inputs)]
        inputs = {node.name: given[i] for i, node in arguments.items()}
        return tf.import_graph_def(graph, inputs, [f"{logits.name}:0"], name="")[0]

    # of no shape: TensorFlow has its own operators' outputs wrong where they pad
    return tf.compat.v1.wrap_function(imported, [tf.TensorSpec(None, x.dtype)])


def _one_by_one(graph) -> None:
    """Has each convolution wait for the one before: two at once, as at the entry of a stage, share cores and cache. A
    part of the batch is done before the next."""
    nodes = {n.name: n for n in graph.node}
    inputs = {n.name: [i.removeprefix("^").split(":")[0] for i in n.input] for n in graph.node}
    order: dict[str, None] = {}  # a node after its inputs, and with them all that one input needs before the next
    waiting = [n.name for n in graph.node if n.op == "_Retval"]
    while waiting:
        if missing := [i for i in inputs[waiting[-1]] if i not in order]:
            waiting.append(missing[0])
        else:
            order[waiting.pop()] = None
    for one, next_one in itertools.pairwise([n for n in order if "Conv2D" in nodes[n].op]):
        nodes[next_one].input.append(f"^{one}")


def _seconds(run, x) -> float:
    """Seconds of the third of three runs."""
    import time

    for _ in range(3):
        start = time.perf_counter()
        to_numpy(run(x))
    return time.perf_counter() - start


def _jax(net, shape: tuple[int, ...], returned: str, steps: list[str]):
    import jax

    parameters, others = ([v.value for v in vs] for vs in (net.trainable_variables, net.non_trainable_variables))

    @jax.jit
    def forward(parameters, others, x):
        y, _ = net.stateless_call(parameters, others, ops.cast(x, net.compute_dtype), training=False)
        return ops.cast(y, returned)

    steps.append("compiled by JAX' jit")
    return lambda x: forward(parameters, others, x)


def _torch(net, shape: tuple[int, ...], returned: str, steps: list[str]):
    import torch

    def forward(x):
        with torch.inference_mode():
            return ops.cast(net(ops.cast(x, net.compute_dtype), training=False), returned)

    return forward


_COMPILED = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
