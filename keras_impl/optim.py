"""PyTorch's update rules as Keras optimizers, for `compile`, `fit` and loops of one's own; torch.optim is their twin.

Keras' own part from PyTorch's three ways, none of which shows in the first step: its momentum holds the learning
rate that was, so that the two differ from the first change of the rate; its weight decay is decoupled, under momentum
0.9 ten times weaker than PyTorch's; and its Adam adds epsilon before the bias correction.
"""

import keras
from keras import ops


class _Rule(keras.optimizers.Optimizer):
    """Weight decay as each rule has it, and a rate in float64 where the backend has that: float32 rounds 0.1 by 1.5e-8,
    and the parameters after it by as much. `**kwargs` are those of Keras' optimizers: clipping, EMA, loss scaling."""

    def __init__(self, learning_rate: float, weight_decay: float, **kwargs):
        wide = keras.backend.standardize_dtype(ops.convert_to_tensor(0.0, "float64").dtype) == "float64"
        before = keras.config.floatx()
        keras.config.set_floatx("float64" if wide else before)
        try:
            super().__init__(learning_rate=learning_rate, **kwargs)
        finally:
            keras.config.set_floatx(before)
        self.decay = weight_decay  # the base class' `weight_decay` is Keras' rule, and stays off

    def get_config(self):
        return {**super().get_config(), "weight_decay": self.decay}

    def _values(self, gradient, variable, learning_rate):
        """All three as tensors of the variable's dtype: on two backends Keras' operators make float32 of float64."""
        dtype = variable.dtype
        return ops.cast(gradient, dtype), ops.convert_to_tensor(variable), ops.cast(learning_rate, dtype)


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
        g, p, rate = self._values(gradient, variable, learning_rate)
        g = g + self.decay * p
        if self.momentum:
            buffer = self.momenta[self._get_variable_index(variable)]
            v = self.momentum * ops.convert_to_tensor(buffer) + g
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
        g, p, rate = self._values(gradient, variable, learning_rate)
        if self.coupled:
            g = g + self.decay * p
        else:
            p = p * (1 - rate * self.decay)
        i = self._get_variable_index(variable)
        m = self.beta_1 * ops.convert_to_tensor(self.means[i]) + (1 - self.beta_1) * g
        v = self.beta_2 * ops.convert_to_tensor(self.squares[i]) + (1 - self.beta_2) * g * g
        self.assign(self.means[i], m)
        self.assign(self.squares[i], v)
        t = ops.cast(self.iterations + 1, variable.dtype)
        b1, b2 = (
            ops.cast(ops.convert_to_tensor(b, variable.dtype) ** t, variable.dtype) for b in (self.beta_1, self.beta_2)
        )
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
