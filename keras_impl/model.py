"""What every net has in Keras, whatever its layers: how it is made, saved, and in which dtype; its arrays and Keras'.

The twin of torch_impl/model.py: the same names in the same order. Every layer is built when it is made, since the plan
knows its shapes: a composite Keras layer without a `build` of its own is traced at every level, which makes a
ResNet-152 three times as slow to build.
"""

import random
from contextlib import contextmanager
from contextvars import ContextVar

import keras
import numpy as np
from keras import ops

from common.arch import Arch, get
from common.errors import RosettaError
from common.init import Source, classifier, draw_ahead, given
from common.names import feature_info
from common.plan import Plan, make_plan
from common.weights import channels_first, channels_last


class Part:
    """What is saved as a row and its name there: a whole net, or a layer of one in somebody's model."""

    row: Arch | None = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable("resnet_rosetta")(cls)

    def get_config(self):
        if self.row is None:  # made alone
            return super().get_config()
        own = {"dtype": self.dtype_policy.name, "name": self.name, "trainable": self.trainable}
        return {"arch": self.row.to_json(), **own}

    @classmethod
    def from_config(cls, config):
        arch = Arch.from_json(config["arch"])
        with _making(dtype_named(config["dtype"])):
            layer = cls.planned(make_plan(arch), config)
        layer.row, layer.name = arch, config["name"]
        if not config["trainable"]:  # True would unfreeze what is inside
            layer.trainable = False
        return layer

    @classmethod
    def planned(cls, plan: Plan, config):
        """The layer of that name."""
        parts = (*plan.layers(), *plan.pools(), *plan.blocks())
        return cls(next(part for part in parts if keras_name(part.name) == config["name"]))


def keras_name(name: str) -> str | None:
    """A canonical name as Keras' torch backend accepts it, without dots."""
    return name.replace(".", "_") or None


class Module(Part, keras.layers.Layer):
    """A layer of layers, each of which is built already. The name is for Keras' summaries."""

    def __init__(self, name: str = ""):
        super().__init__(name=keras_name(name))
        self.built = True

    def compute_output_spec(self, x):
        y = self.call(x)  # Keras' own way is to trace each level anew
        return keras.KerasTensor(y.shape, y.dtype)


_training: ContextVar[bool | None] = ContextVar("training", default=None)


def is_training(training: bool | None) -> bool:
    return bool(_training.get() if training is None else training)


class Model(Part, keras.Model):
    """What a whole net has beyond its layers: the plan that it was built from, and what Keras' users expect."""

    row = property(lambda self: self.plan.arch)

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.built = True

    def connect(self) -> None:
        """Makes the net a graph of Keras' symbolic tensors, too: `inputs`, `get_layer("layer4").output` and what is
        made of them, such as keras.Model(net.input, net.get_layer("layer4").output), have the net's own layers."""
        for layer in self._flatten_layers(include_self=False):
            layer.row = self.plan.arch
        shape = (*(None,) * self.plan.arch.dims, self.plan.arch.in_channels)
        self._input = keras.Input(shape, dtype=self.compute_dtype, name="images")
        self._output = self.logits(self._input)

    input = property(lambda self: self._input)
    output = property(lambda self: self._output)
    inputs = property(lambda self: [self._input])
    outputs = property(lambda self: [self._output])

    feature_info = property(lambda self: feature_info(self.plan.arch))

    def backbone(self, *names) -> keras.Model:
        """The net as far as these stages need it, without a classifier: from images to {name: what the stage puts out}.
        The layers are this net's own; keras.models.clone_model gives it its own."""
        return keras.Model(self.input, self.features(self.input, *names))

    def reset_classifier(self, num_classes: int, seed: int | None = None) -> None:
        """Puts a fresh classifier, drawn from `seed` or by Keras' generator, in the place of the net's own; with 0 the
        net gives its pooled features. The other layers stay as they are; a compiled net is to be compiled again. Raises
        RosettaError for such a number."""
        plan = make_plan(get(self.plan.arch, num_classes=num_classes))
        with _making(self.dtype_policy, classifier(plan.arch, fresh(seed), to_keras)):
            head = self.head(plan)
        self._tracker.untrack(self.fc)  # Keras would keep the old one's variables
        del self.fc
        self.plan, self.fc = plan, head
        self.connect()
        self.compiled = False
        self.train_function = self.test_function = self.predict_function = None  # graphs of the old one

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        return super().export(filepath, format, verbose, input_signature or self.inputs, **kwargs)

    def save(self, filepath, *args, **kwargs):
        if str(filepath).endswith((".h5", ".hdf5")):
            raise RosettaError(
                f"{filepath}: Keras' older format has no place for such a net, and nothing could read it: save() to a "
                ".keras, or save_weights() to a .weights.h5"
            )
        return super().save(filepath, *args, **kwargs)

    def quantize(self, *args, **kwargs):
        refuse_quantization()

    def call(self, x, training=None):
        # `fit` would train in evaluation mode if this `call` didn't name `training`. Keras hands it down to the layers
        # inside, except where JAX's trainer calls `call` itself, past the context in which it is handed down.
        token = _training.set(training)
        try:
            return self.logits(x)
        finally:
            _training.reset(token)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = construct(cls, make_plan(Arch.from_json(config["arch"])), config["dtype"])
        model.name, model.trainable = config["name"], config["trainable"]
        return model

    def compute_output_shape(self, input_shape):
        fc = self.plan.fc
        return (input_shape[0], fc.out_features if fc else self.plan.features)


def refuse_quantization():
    """Keras passes over layers that aren't just its own, without a word."""
    raise RosettaError(
        "Keras can't quantize these layers: export() the net and quantize what it wrote, or take torch_impl's net to "
        "PyTorch's quantization"
    )


def construct(cls, plan: Plan, dtype: str | None, seed: int | None = None, weights=None, copy: bool = True) -> Model:
    """The net in `dtype` with `weights`, or what they give when called, or fresh ones; the seed is Keras' own where
    none is given. Keras copies them in any case."""
    policy = dtype_named(dtype)
    if weights is not None:
        source = given(plan.arch, weights() if callable(weights) else weights, to_keras)
    else:  # keras.utils.set_random_seed governs this generator
        source = draw_ahead(plan.arch, fresh(seed), to_keras)
    with _making(policy, source):
        model = cls(plan)
        model.connect()
    kind = keras.backend.standardize_dtype(model.trainable_variables[0].value.dtype)
    if kind != policy.variable_dtype:  # JAX cuts float64 down to float32 without a word
        raise RosettaError(
            f"{keras.backend.backend()} made {kind} of {policy.variable_dtype}; with JAX, set JAX_ENABLE_X64=1"
        )
    return model


def fresh(seed: int | None) -> int:
    return random.getrandbits(62) if seed is None else seed


@contextmanager
def _making(policy: keras.DTypePolicy, source: Source | None = None):
    """Layers made inside have that policy, and their weights from `source`."""
    before, token = keras.config.dtype_policy(), _source.set(source)
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
        _source.reset(token)


def dtype_named(dtype: str | None) -> keras.DTypePolicy:
    """Keras' policy of that name; the global one for None. Raises RosettaError where it is none of floats."""
    try:
        policy = keras.dtype_policies.get(dtype) if dtype is None or isinstance(dtype, str) else None
    except (ValueError, TypeError):
        policy = None
    if policy is None or not keras.backend.is_float_dtype(policy.compute_dtype):
        raise RosettaError(
            f"dtype {dtype!r} can't be: expected float32, float64, bfloat16 or float16, or a Keras policy of them"
        )
    return policy


_source: ContextVar[Source | None] = ContextVar("source", default=None)  # of the net under construction


def from_source(name: str, alone="zeros"):
    """An initialiser: the tensor of that name in the net under construction; `alone` in a layer outside one."""

    def initialise(shape, dtype):
        source = _source.get()
        if source is None:
            return keras.initializers.get(alone)(shape, dtype)
        return ops.convert_to_tensor(source[name](), dtype)

    return initialise


class Sequential(Module):
    """Layers one after another. keras.Sequential would trace them into a graph of its own at each level."""

    def __init__(self, members, name: str = ""):
        super().__init__(name)
        self.members = list(members)

    def call(self, x):
        for layer in self.members:
            x = layer(x)
        return x

    def get_config(self):
        members = [keras.saving.serialize_keras_object(layer) for layer in self.members]
        return {**super().get_config(), "members": members}

    @classmethod
    def planned(cls, plan, config):
        return cls([keras.saving.deserialize_keras_object(member) for member in config["members"]], config["name"])


def sequential(*layers, name: str = "") -> Sequential:
    return Sequential(layers, name)


def to_keras(weight: np.ndarray) -> np.ndarray:
    """A kernel (out, in / groups, *k) as Keras has it, (*k, in / groups, out)."""
    return np.ascontiguousarray(channels_last(weight))


def to_torch(weight: np.ndarray) -> np.ndarray:
    """The way back."""
    return np.ascontiguousarray(channels_first(weight))


def to_numpy(tensor) -> np.ndarray:
    """The tensor or variable as an array; bfloat16, which numpy lacks, as float32."""
    array = ops.convert_to_numpy(tensor)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
