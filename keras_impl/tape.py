"""The tape of a Keras net: what it calls when it runs, and the net as a thing to hold a proof against.

The twin of torch_impl/tape.py, on TensorFlow. The net runs eagerly, and TensorFlow tells of each operation as it is
executed: so Functional, Sequential and subclassed nets, Lambda layers, `tf.nn` in somebody's `call` and control flow
are recorded as they run, and no layer's configuration is trusted.
"""

from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np

from common.diagnosis.tape import Arrays, Ran, Tape, tensors_of
from common.errors import RosettaError
from common.weights import channels_first, channels_last
from keras_impl.functions import of_format, turned
from keras_impl.play import play
from keras_impl.recorder import Recorder, deep_first, for_now, patched

# tried where nothing says what a net takes
SHAPES = ((64, 64, 3), (224, 224, 3), (32, 32, 3), (28, 28, 1), (256, 1), (256, 12))


class Live:
    """A net, which runs in float64 with arrays of its own; hers are in their place again whenever it doesn't run
    (`common.diagnosis.tape.Live`). Raises RosettaError unless Keras runs on TensorFlow."""

    def __init__(self, model):
        engine = keras.backend.backend()
        if engine != "tensorflow":
            raise RosettaError(
                f"Keras runs on {engine} here, and a diagnosis needs TensorFlow: set KERAS_BACKEND=tensorflow and "
                "build the net again"
            )
        if not isinstance(model, keras.layers.Layer):
            raise RosettaError(f"{type(model).__name__} is no layer of Keras {keras.__version__}: build it with keras")
        import tensorflow as tf

        self.model = model
        _build(model)
        self.layers = _every_layer(model)
        formats = [f for x in self.layers if (f := getattr(x, "data_format", None))]
        self.last = (formats or [keras.config.image_data_format()])[0] == "channels_last"
        depthwise = {id(v) for x in self.layers if "Depthwise" in type(x).__name__ for v in x.weights}
        self.variables: dict[str, Any] = {}
        for v in model.variables:
            if keras.backend.is_float_dtype(v.dtype):
                path = v.path.removeprefix(f"{model.name}/")
                copies = sum(n == path or n.startswith(f"{path} ") for n in self.variables)
                self.variables[f"{path} {copies + 1}" if copies else path] = v
        self.deep = {name for name, v in self.variables.items() if id(v) in depthwise}
        self.tensors = {n: tf.Variable(_numpy(v), dtype="float64", trainable=v.trainable)
                        for n, v in self.variables.items()}  # fmt: skip
        self.constants: Arrays = {}  # kernels that are no variables, as a recording finds them
        self.size = self._size()

    play = staticmethod(play)

    def name_of(self, layer) -> str:
        """Her name of a layer; empty for the net itself."""
        return "" if layer is self.model else (layer.path or layer.name).removeprefix(f"{self.model.name}/")

    def _size(self) -> tuple[int | None, ...] | None:
        """(channels, *sizes) of the input, None where it is free; None where nothing is known. Sizes that are only
        said, and that no layer needs, are free."""
        try:
            shape = self.model.input_shape
        except (AttributeError, ValueError):
            return None
        if not isinstance(shape, tuple) or len(shape) < 3 or not all(isinstance(n, int | None) for n in shape):
            return None
        size = turned(shape, of_format(len(shape), self.last))[1:]
        if not size[0]:
            return None
        if all(size):
            try:
                self.run(np.zeros((1, size[0], *(n * 3 // 4 if n < 64 else n // 2 for n in size[1:]))))
            except Exception:
                return size
        return size[0], *(None,) * (len(size) - 1)

    def arrays(self) -> Arrays:
        return {name: self.to_torch(name, t.numpy()) for name, t in self.tensors.items()} | self.constants

    def put(self, arrays: Arrays) -> None:
        for name, value in arrays.items():
            if name in self.tensors:
                self.tensors[name].assign(self.from_torch(name, np.asarray(value, np.float64)))

    def to_torch(self, name: str, value: np.ndarray) -> np.ndarray:
        if name in self.deep and value.ndim > 2:
            return deep_first(value)
        return np.ascontiguousarray(channels_first(value))

    def from_torch(self, name: str, value: np.ndarray) -> np.ndarray:
        if name in self.deep and value.ndim > 2:  # (C M, 1, *K) from (*K, C, M)
            *kernel, channels, each = self.tensors[name].shape
            return np.moveaxis(value.reshape(channels, each, *kernel), (0, 1), (-2, -1))
        return channels_last(value)

    def record(self, x: np.ndarray, training: bool = False) -> Tape:
        with self.doubled() as hers, Recorder(self) as recorder:
            import tensorflow as tf

            tensor = tf.constant(hers(x))
            recorder.track(tensor, of_format(x.ndim, self.last))
            outputs, names = tensors_of(self.model(tensor, training=training), keras.ops.is_tensor)
        return Tape(recorder.done(), tuple(map(recorder.number, outputs)), tuple(x.shape), names)

    def run(self, x: np.ndarray, training: bool = False) -> Ran:
        import tensorflow as tf

        with self.doubled() as hers, patched():
            tensor = tf.constant(hers(x))
            if not training:
                return Ran(self.ours(tensors_of(self.model(tensor, training=False), keras.ops.is_tensor)[0][0]), {}, {})
            leaves = {"": tensor} | {n: self.tensors[n] for n, v in self.variables.items() if v.trainable}
            with tf.GradientTape(watch_accessed_variables=False) as gradients:
                gradients.watch(list(leaves.values()))
                output = tensors_of(self.model(tensor, training=True), keras.ops.is_tensor)[0][0]
                loss = tf.reduce_mean(tf.square(output)) / 2
            found = gradients.gradient(loss, leaves, unconnected_gradients="zero")
            arrays = {n: self.to_torch(n, g.numpy()) if n else self.ours(g) for n, g in found.items()}
            statistics = {n: self.to_torch(n, t.numpy()) for n, t in self.tensors.items() if n not in leaves}
            return Ran(self.ours(output), statistics, arrays)

    def ours(self, y) -> np.ndarray:
        """A tensor of hers as N C *S."""
        return np.transpose(y.numpy(), np.argsort(of_format(len(y.shape), self.last)))

    @contextmanager
    def doubled(self):
        """The net in float64 with the arrays of this object, which are as they were when it ends. Gives what turns an
        array N C *S into her axes."""
        import tensorflow as tf

        before = {name: t.numpy() for name, t in self.tensors.items()}
        counters = [(v, _numpy(v)) for v in self.model.variables if not keras.backend.is_float_dtype(v.dtype)]
        floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
        eagerly, float64 = tf.config.functions_run_eagerly(), keras.dtype_policies.get("float64")
        with ExitStack() as stack:
            for name, v in self.variables.items():
                stack.enter_context(for_now(v, _value=self.tensors[name], _dtype="float64"))
            for layer in self.layers:
                stack.enter_context(for_now(layer, _dtype_policy=float64))
                own = [layer] if isinstance(layer, keras.layers.InputLayer) else []
                for given in own + list(getattr(layer, "_inputs", None) or ()):
                    if keras.backend.is_float_dtype(given.dtype):
                        stack.enter_context(for_now(given, _dtype="float64"))
                    if isinstance(given, keras.KerasTensor) and len(given.shape) > 2:
                        stack.enter_context(for_now(given, _shape=(None,) * len(given.shape)))
            try:
                keras.config.set_floatx("float64")
                keras.config.set_dtype_policy(float64)
                tf.config.run_functions_eagerly(True)
                yield lambda x: np.transpose(np.asarray(x, np.float64), of_format(x.ndim, self.last))
            finally:
                tf.config.run_functions_eagerly(eagerly)
                keras.config.set_floatx(floatx)
                keras.config.set_dtype_policy(policy)
                for name, value in before.items():
                    self.tensors[name].assign(value)
                for v, value in counters:
                    v.assign(value)


def _numpy(v) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(v))


def _every_layer(model) -> list[keras.layers.Layer]:
    """With the graphs that Sequential nets keep apart."""
    layers = list(model._flatten_layers())
    inner = [f for x in layers if isinstance(f := getattr(x, "_functional", None), keras.layers.Layer)]
    return layers + [x for f in inner for x in f._flatten_layers() if not any(x is y for y in layers)]


def _build(model) -> None:
    """Layers without arrays yet get them from a first run, of whatever the net takes."""
    if model.built and all(x.built for x in model._flatten_layers()):
        return
    failure: Exception | None = None
    for shape in SHAPES:
        try:
            model(keras.ops.zeros((1, *shape)))
            return
        except Exception as e:
            failure = failure or e
    assert failure is not None
    raise failure
