"""PyTorch's update rules as Keras optimizers, for `compile`, `fit` and loops of one's own; torch.optim is their twin.

Keras' own part from PyTorch's three ways, none of which shows in the first step: its momentum holds the learning
rate that was, so that the two differ from the first change of the rate; its weight decay is decoupled, under momentum
0.9 ten times weaker than PyTorch's; and its Adam adds epsilon before the bias correction.
"""

import warnings
from collections.abc import Iterator, Mapping

import keras
import numpy as np
from keras import ops

from common.parity.rules import Parts, Rule
from keras_impl.model import to_keras, to_numpy, to_torch
from keras_impl.weights import named_variables


class _Rule(keras.optimizers.Optimizer):
    """Weight decay as each rule has it, and a rate in float64 where the backend has that: float32 rounds 0.1 by 1.5e-8,
    and the parameters after it by as much. `**kwargs` are those of Keras' optimizers: clipping, EMA, loss scaling."""

    def __init__(self, learning_rate: float, weight_decay: float, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX's, where it has no float64
            wide = keras.backend.standardize_dtype(ops.convert_to_tensor(0.0, "float64").dtype) == "float64"
        before = keras.config.floatx()
        keras.config.set_floatx("float64" if wide else before)
        try:
            super().__init__(learning_rate=learning_rate, **kwargs)
        finally:
            keras.config.set_floatx(before)
        self.decay = weight_decay  # the base class' `weight_decay` is Keras' rule, and stays off
        self.parts: dict[
            int, tuple[float, float]
        ] = {}  # by a variable's place: what multiplies the rate, and the decay

    def get_config(self):
        return {**super().get_config(), "weight_decay": self.decay}

    def _of(self, variable, learning_rate):
        """(rate, weight decay) of a variable."""
        rate = self._wide(learning_rate, variable)
        times, decay = self.parts.get(self._get_variable_index(variable), (1.0, self.decay))
        return rate if times == 1 else rate * times, decay

    def _wide(self, value, variable):
        """`value` as a tensor to compute in: the variable's dtype, and for half precision, which has no 0.999, float32.
        On two backends Keras' operators would make float32 of float64."""
        half = variable.dtype in ("float16", "bfloat16")
        return ops.cast(ops.convert_to_tensor(value), "float32" if half else variable.dtype)


@keras.saving.register_keras_serializable("resnet_rosetta")
class SGD(_Rule):
    """torch.optim.SGD: g += decay * p; v = momentum * v + g; p -= rate * v, with Nesterov rate * (g + momentum * v)."""

    def __init__(self, learning_rate=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, **kwargs):
        super().__init__(learning_rate, weight_decay, **kwargs)
        self.momentum, self.nesterov = momentum, nesterov

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.momenta = self.add_optimizer_variables(variables, "momentum") if self.momentum else []

    def update_step(self, gradient, variable, learning_rate):
        g, p = self._wide(gradient, variable), self._wide(variable, variable)
        rate, decay = self._of(variable, learning_rate)
        g = g + decay * p
        if self.momentum:
            buffer = self.momenta[self._get_variable_index(variable)]
            v = self.momentum * self._wide(buffer, variable) + g
            self.assign(buffer, v)
            g = g + self.momentum * v if self.nesterov else v
        self.assign(variable, p - rate * g)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


@keras.saving.register_keras_serializable("resnet_rosetta")
class Adam(_Rule):
    """torch.optim.Adam: coupled decay; p -= rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)."""

    coupled = True

    def __init__(self, learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.0, **kwargs):
        super().__init__(learning_rate, weight_decay, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.means, self.squares = self.add_optimizer_variables(variables, ["mean", "square"])

    def update_step(self, gradient, variable, learning_rate):
        g, p = self._wide(gradient, variable), self._wide(variable, variable)
        rate, decay = self._of(variable, learning_rate)
        if self.coupled:
            g = g + decay * p
        else:
            p = p * (1 - rate * decay)
        i = self._get_variable_index(variable)
        m = self.beta_1 * self._wide(self.means[i], variable) + (1 - self.beta_1) * g
        v = self.beta_2 * self._wide(self.squares[i], variable) + (1 - self.beta_2) * g * g
        self.assign(self.means[i], m)
        self.assign(self.squares[i], v)
        t = self._wide(self.iterations + 1, variable)
        b1, b2 = (ops.cast(ops.convert_to_tensor(b, t.dtype) ** t, t.dtype) for b in (self.beta_1, self.beta_2))
        self.assign(variable, p - rate / (1 - b1) * m / (v**0.5 / (1 - b2) ** 0.5 + self.epsilon))

    def get_config(self):
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("resnet_rosetta")
class AdamW(Adam):
    """torch.optim.AdamW: Adam with decoupled decay, p *= 1 - rate * decay first."""

    coupled = False

    def __init__(self, learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=1e-2, **kwargs):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **kwargs)


def optimizer(model, rule: Rule, parts: Parts | None = None) -> keras.optimizers.Optimizer:
    """The optimizer of `model`'s variables that follows `rule`; `parts` are what multiplies the rate and the weight
    decay of those that differ, by canonical name."""
    if rule.kind == "SGD":
        made = SGD(rule.rate, rule.momentum, rule.nesterov, rule.weight_decay)
    else:
        kind = {"Adam": Adam, "AdamW": AdamW}[rule.kind]
        made = kind(rule.rate, rule.beta_1, rule.beta_2, rule.epsilon, rule.weight_decay)
    places = {id(v): i for i, v in enumerate(model.trainable_variables)}
    names = named_variables(model) if parts else ()
    made.parts = {places[id(v)]: parts[name] for name, v in names if name in parts}
    made.build(model.trainable_variables)
    return made


def step(model, optimizer: keras.optimizers.Optimizer, gradients, rate: float) -> None:
    """One step at `rate`; `gradients` are tensors in the order of `model.trainable_variables`."""
    optimizer.learning_rate = rate
    if keras.backend.backend() == "jax":
        _jax_step(optimizer, gradients, model.trainable_variables)
    else:
        optimizer.apply(gradients, model.trainable_variables)


def _jax_step(optimizer: keras.optimizers.Optimizer, gradients, variables) -> None:
    """Compiled: one by one, JAX' operators on each parameter take three times as long as all gradients."""
    import jax

    run = vars(optimizer).get("_compiled")
    if run is None:
        run = jax.jit(optimizer.stateless_apply)
        object.__setattr__(optimizer, "_compiled", run)  # which goes with it
    parameters, kept = run([v.value for v in optimizer.variables], gradients, [v.value for v in variables])
    for variable, value in zip([*variables, *optimizer.variables], [*parameters, *kept], strict=True):
        variable.assign(value)


def moments(model, optimizer: keras.optimizers.Optimizer) -> Iterator[tuple[str, np.ndarray]]:
    """("conv1.weight momentum", array) of everything that the optimizer keeps of each parameter; Adam's are its mean
    and square. Arrays in PyTorch's layout."""
    places = {id(v): i for i, v in enumerate(model.trainable_variables)}
    for name, variable in named_variables(model):
        if id(variable) in places:
            for attribute, kind in _KEPT.items():
                if kept := getattr(optimizer, attribute, None):
                    yield f"{name} {kind}", to_torch(to_numpy(kept[places[id(variable)]]))


def restore(model, optimizer: keras.optimizers.Optimizer, kept: Mapping[str, np.ndarray], steps: int) -> None:
    """Gives the optimizer what `moments` gave after `steps` steps."""
    places = {id(v): i for i, v in enumerate(model.trainable_variables)}
    for name, variable in named_variables(model):
        for attribute, kind in _KEPT.items():
            if id(variable) in places and f"{name} {kind}" in kept:
                getattr(optimizer, attribute)[places[id(variable)]].assign(to_keras(kept[f"{name} {kind}"]))
    optimizer.iterations.assign(steps)


_KEPT = {"momenta": "momentum", "means": "mean", "squares": "square"}
