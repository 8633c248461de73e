"""Lowers for CUDA all that JAX compiles of so many small nets: `python lowered.py 3`, with KERAS_BACKEND=jax. One line
for each kind of function that was lowered. Nothing is compiled or run: what a function gives are zeros."""

import collections
import sys

import jax
import jax.export
import numpy as np

import keras_impl
from common.arch import get
from common.parity.rules import Rule
from common.training import recipe
from keras_impl import autodiff, fast, optim
from keras_impl.train import Trainer

SEEN: collections.Counter = collections.Counter()
real = jax.jit


def lowered(function, **how):
    """jax.jit's, lowered and not run."""
    made = real(function, **how)

    def call(*given, **named):
        found = jax.export.export(made, platforms=["cuda"])(*given, **named)
        assert found.platforms == ("cuda",)
        SEEN[f"{function.__module__} {function.__qualname__}"] += 1
        return jax.tree.unflatten(found.out_tree, [np.zeros(a.shape, a.dtype) for a in found.out_avals])

    return call


def everything(arch) -> None:
    """The fast path, gradients, the optimizers' steps and a trainer's, each of which JAX compiles as a whole."""
    x, labels = np.zeros((4, *(17, 22)[: arch.dims], arch.in_channels), np.float32), np.arange(4)
    net = keras_impl.create_model(arch, seed=0)
    folded = keras_impl.create_model(arch, seed=0, dtype="bfloat16", folded=True)
    for made, dtype in ((net, "float32"), (folded, "bfloat16")):
        jax.block_until_ready(fast._jax(made, x.shape, dtype, [])(x))
    first = np.moveaxis(x, -1, 1)
    for kind in ("SGD", "Adam"):
        *_, gradients = autodiff.gradients_of(net, first, labels)
        optim.step(net, optim.optimizer(net, Rule(kind, 0.1, momentum=0.9)), gradients, 0.1)
    trainer = Trainer(net, recipe.get("small", clip=1.0))
    trainer.step(first, labels, 0.1)
    trainer.logits(first)


def planted() -> None:
    """An operator that has code for CPUs alone is refused: this check can fail."""
    from jax.extend.core import Primitive
    from jax.interpreters import mlir

    alone = Primitive("of_cpus_alone")
    alone.def_abstract_eval(lambda x: x)
    mlir.register_lowering(alone, lambda context, x: [x], platform="cpu")
    jax.export.export(real(alone.bind), platforms=["cpu"])(np.zeros(3, np.float32))
    try:
        lowered(lambda x: alone.bind(x))(np.zeros(3, np.float32))
    except NotImplementedError as e:
        print(f"refused: {str(e).splitlines()[0]}")


if __name__ == "__main__":
    jax.jit = lowered
    edges = dict(num_classes=5, depths=(1, 1), widths=(16, 32))
    rows = [
        get("resnext50_32x4d", shortcut="pool", se_ratio=16, **edges),
        get("resnet18_1d", eca=True, preact=True, **edges),
        get("resnet18", antialias="blur", drop_path=0.5, **edges),
        get("resnetv2_50x1_bit", **edges | dict(widths=(32, 64))),
    ]  # fmt: skip
    for arch in rows[: int(sys.argv[1])]:
        everything(arch)
    for name, times in SEEN.items():
        print(f"{times} {name}")
    planted()
