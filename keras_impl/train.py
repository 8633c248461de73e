"""Training a Keras net by a recipe: one step, and what to keep of it. The twin of torch_impl/train.py.

    trainer = Trainer(create_model("cifar_resnet20", seed=0), recipe)
    for step, (x, labels) in enumerate(batches):
        loss, right = trainer.step(x, labels, recipe.rate(step, len(batches)))

Or the same in Keras' own loop:

    model.compile(optim.optimizer(model, recipe.rule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    epochs = {"epochs": recipe.epochs, "steps_per_epoch": len(batches), "shuffle": False}
    model.fit(feed(batches), callbacks=[Rates(recipe)], **epochs)
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
from keras import ops

from common.errors import RosettaError
from common.names import section_of
from common.training.data import Batches
from common.training.kept import Kept
from common.training.recipe import LossScale, Recipe
from keras_impl import optim
from keras_impl import weights as store
from keras_impl.autodiff import loss_of
from keras_impl.model import to_keras, to_numpy, to_torch
from keras_impl.weights import named_layers, named_variables


def freeze(model, sections: tuple[str, ...]) -> None:
    """Neither the parameters of these sections (stem, layer1, ..., head) nor their running statistics move any more,
    and their norms normalise by those: what `trainable` means in Keras."""
    for name, layer in named_layers(model):
        if not list(layer._flatten_layers(include_self=False)):
            layer.trainable = section_of(name) not in sections


@contextmanager
def distributed(devices: int = 1, device: str = "auto") -> Iterator[None]:
    """Inside, nets are made for so many devices, each of which takes its part of every batch: keras.distribution on
    JAX, tf.distribute on TensorFlow. Where there is no GPU, or none is to be used (`device` "cpu"), the CPU counts as
    so many. Raises RosettaError where there are fewer."""
    backend = keras.backend.backend()
    if devices == 1:
        yield
    elif backend == "jax":
        there = keras.distribution.list_devices()
        if len(there) < devices:
            raise RosettaError(f"--devices {devices} can't be: JAX sees {len(there)}")
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=there[:devices]))
        try:
            yield
        finally:
            keras.distribution.set_distribution(None)
    else:
        import tensorflow as tf

        cards = tf.config.list_physical_devices("GPU") if device != "cpu" else []
        cpus = tf.config.list_physical_devices("CPU")
        if not cards:
            tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * devices)
        there = tf.config.list_logical_devices("GPU" if cards else "CPU")
        if len(there) < devices:
            raise RosettaError(f"--devices {devices} can't be: TensorFlow sees {len(there)}")
        with tf.distribute.MirroredStrategy([d.name for d in there[:devices]]).scope():
            yield


class Trainer(Kept):
    """A model, its optimizer, and what a recipe keeps beside them; `Kept` says what it is made of."""

    optim, store = optim, store

    def begin(self, frozen: tuple[str, ...]) -> None:
        model, recipe = self.model, self.recipe
        self.rank, self.world = 0, 1
        freeze(model, frozen)
        self.parameters = model.trainable_variables
        self.optimizer = optim.optimizer(model, recipe.rule, self.parts)
        self.scale = LossScale() if recipe.precision == "mixed_float16" else None
        self.average = {n: ops.copy(v.value) for n, v in named_variables(model)} if recipe.ema else {}
        self.random = [v for v in model.non_trainable_variables if "seed" in v.path]
        self.forward, self.gradients, self.update = _COMPILED[keras.backend.backend()](self)

    def step(self, x: np.ndarray, labels: np.ndarray, rate: float, seed: int = 0) -> tuple[float, int]:
        """One step of the optimizer on a batch (N C *S; N), of which each device takes its part. Gives the loss before
        it, and how many classes were right. Masks of dropout are drawn from `seed`."""
        for i, state in enumerate(self.random):
            # a layer counts its own up by one at each mask: with i alone its second would be the next layer's first
            state.assign(np.array([seed, i << 16], "uint32"))
        loss, right, total, scale = 0.0, 0, None, self.scale.value if self.scale else 1.0
        for rows in np.array_split(np.arange(len(x)), min(self.recipe.accumulate, len(x))):
            share = self.share(labels[rows], labels)
            images = np.ascontiguousarray(np.moveaxis(x[rows], 1, -1))
            part, said, found = self.gradients(images, labels[rows], share * scale)
            total = list(found) if total is None else [a + b for a, b in zip(total, found, strict=True)]
            loss += float(part) * share
            right += int((said == labels[rows]).sum())
        if self._unscaled(total, scale):
            self.update(total, rate)
            self.steps += 1
            self._averaged()
        return loss, right

    def _unscaled(self, gradients: list, scale: float) -> bool:
        """Takes the loss' scale out of the gradients; whether they are finite."""
        if self.scale is None:
            return True
        for i, g in enumerate(gradients):
            gradients[i] = g / scale
        return self.scale.update(all(bool(ops.all(ops.isfinite(g))) for g in gradients))

    def _averaged(self) -> None:
        for name, variable in named_variables(self.model) if self.average else ():
            old = self.average[name]
            self.average[name] = old + (1 - self.recipe.ema) * (variable.value - old)

    def agreed(self, stop: bool) -> bool:
        """As in PyTorch, where there are several processes."""
        return stop

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits (N classes) of a batch in evaluation mode, from the weights as they are."""
        return to_numpy(self.forward(np.ascontiguousarray(np.moveaxis(x, 1, -1))))

    def to_canonical(self, tensor) -> np.ndarray:
        return to_torch(to_numpy(tensor))

    def from_canonical(self, array: np.ndarray):
        return ops.convert_to_tensor(to_keras(array))

    def _loss(self, logits, labels):
        half = keras.backend.standardize_dtype(logits.dtype) in ("float16", "bfloat16")
        wide = ops.cast(logits, "float32") if half else logits
        return loss_of(wide, labels, self.recipe.smoothing, self.classes), wide

    def _clipped(self, gradients: list) -> list:
        """torch.nn.utils.clip_grad_norm_'s rule: times clip over what is larger, the norm or clip."""
        clip = self.recipe.clip  # not inside the condition: AutoGraph can't read that, and warns
        if not clip:
            return gradients
        norm = ops.sqrt(sum(ops.sum(ops.square(g)) for g in gradients)) + 1e-6
        # no ops.minimum with a number: on Keras' torch backend it makes float32 of float64
        times = clip / (clip + ops.relu(norm - clip))
        return [g * times for g in gradients]


def feed(batches: Batches) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches that the Trainer gets, N *S C, one epoch after the other, for Keras' `fit`."""
    for epoch in itertools.count():
        for x, labels in batches.epoch(epoch):
            yield np.moveaxis(x, 1, -1), labels


class Rates(keras.callbacks.Callback):
    """The recipe's learning rate of every step of Keras' `fit`."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe, self.step = recipe, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = self.recipe.rate(self.step, self.params["steps"])
        self.step += 1


def _tensorflow(t: Trainer):
    """(forward pass, loss with gradients, update), each a graph."""
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()  # the default one has one replica

    def mine(x, labels, weight):
        everyone = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            loss, logits = t._loss(t.model(x, training=True), labels)
            weighted = loss * weight
        found = tape.gradient(weighted, [v.value for v in t.parameters])
        if strategy.num_replicas_in_sync > 1:
            found = everyone.all_reduce(tf.distribute.ReduceOp.SUM, found)
        return weighted, tf.argmax(logits, 1), found

    @tf.function
    def every(x, labels, weight):
        return strategy.run(mine, (x, labels, weight))

    def gradients(x, labels, weight):
        rows = np.array_split(np.arange(len(x)), strategy.num_replicas_in_sync)

        def parts(of):
            return strategy.experimental_distribute_values_from_function(
                lambda replica: tf.convert_to_tensor(of(rows[replica.replica_id_in_sync_group]))
            )

        shares = parts(lambda r: np.array(weight * t.share(labels[r], labels), x.dtype))
        losses, said, found = every(parts(lambda r: x[r]), parts(lambda r: labels[r]), shares)
        of = strategy.experimental_local_results
        loss = sum(map(float, of(losses))) / weight
        return loss, np.concatenate([s.numpy() for s in of(said)]), [of(g)[0] for g in found]

    def all_update(gradients):
        # Keras' optimizer adds up what the replicas give it, who all have the whole sum already
        shares = [g / strategy.num_replicas_in_sync for g in t._clipped(gradients)]
        t.optimizer.apply(shares, t.parameters)

    @tf.function
    def update(gradients):
        strategy.run(all_update, (gradients,))

    def apply(gradients, rate):
        t.optimizer.learning_rate = rate
        update(gradients)

    return tf.function(lambda x: t.model(x, training=False)), gradients, apply


def _jax(t: Trainer):
    """The same, compiled; JAX' functions are given every variable and give back what has changed."""
    import jax

    trainable, others = t.model.trainable_variables, t.model.non_trainable_variables

    def values(variables):
        return [v.value for v in variables]

    def put(variables, found):
        for variable, value in zip(variables, found, strict=True):
            variable.assign(value)

    def weighted(parameters, other, x, labels, weight):
        logits, other = t.model.stateless_call(parameters, other, x, training=True)
        loss, logits = t._loss(logits, labels)
        return loss * weight, (loss, ops.argmax(logits, 1), other)

    differentiated = jax.jit(jax.grad(weighted, has_aux=True))

    distribution = keras.distribution.distribution()

    def spread(array):
        """Over the devices; a batch that they can't share alike is everybody's whole."""
        if distribution is None or len(array) % distribution.num_model_replicas:
            return array
        return keras.distribution.distribute_tensor(array, distribution.get_data_layout(array.shape))

    def gradients(x, labels, weight):
        weight = np.array(weight, x.dtype)
        found, (loss, said, other) = differentiated(
            values(trainable), values(others), spread(x), spread(labels), weight
        )
        put(others, other)
        return loss, np.asarray(said), found

    clipped = jax.jit(t._clipped)

    def update(found, rate):
        optim.step(t.model, t.optimizer, clipped(found), rate)

    evaluated = jax.jit(lambda a, b, x: t.model.stateless_call(a, b, x, training=False)[0])
    return lambda x: evaluated(values(trainable), values(others), x), gradients, update


def _torch(t: Trainer):
    """The same, as it comes."""
    import torch

    def gradients(x, labels, weight):
        loss, logits = t._loss(t.model(x, training=True), labels)
        found = torch.autograd.grad(loss * weight, [v.value for v in t.parameters])
        return loss.detach(), logits.argmax(1).cpu().numpy(), found

    @torch.no_grad()
    def update(found, rate):
        optim.step(t.model, t.optimizer, t._clipped(found), rate)

    @torch.no_grad()
    def forward(x):
        return t.model(x, training=False)

    return forward, gradients, update


_COMPILED = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
