"""keras_impl on TensorFlow, JAX and torch as Keras' backends: the same numbers, in a process each."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT, by_default

import keras_impl
from common.errors import RosettaError


# what is asked on TensorFlow here, the whole suite asks in its own process
@pytest.mark.parametrize("backend", by_default(["tensorflow", "jax", "torch"], ["jax", "torch"]))
def test_backend(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    env = {**os.environ, "KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiling takes longer than running
    done = subprocess.run(
        [sys.executable, "tests/parity/backend_parity.py"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found.pop("backend") == backend
    for check, value in found.items():
        limit = 1e-13 if check.endswith("evaluation") else 1e-12 if check.endswith("statistics") else 1e-10
        assert value <= limit, (check, value)


def test_jax_without_x64_says_so():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    code = "import keras_impl; keras_impl.create_model('cifar_resnet20', dtype='float64')"
    env = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode and "JAX_ENABLE_X64=1" in done.stderr


def test_keras_own_batch_norm_would_part():
    """What the layer of ours is for: Keras 3 keeps the biased variance, n / (n - 1) times too small for PyTorch."""
    from common.plan import Norm
    from keras_impl.layers import BatchNorm

    x = np.random.default_rng(0).standard_normal((2, 1, 1, 8)).astype(np.float32)  # n = 2: twice
    theirs, ours = keras.layers.BatchNormalization(momentum=0.9), BatchNorm(Norm("bn", 8, 1e-3))
    for layer in (theirs, ours):
        layer(x, training=True)
    moved = [np.asarray(layer.moving_variance) - 0.9 for layer in (theirs, ours)]
    assert np.allclose(moved[1], 2 * moved[0], rtol=1e-4)


@pytest.mark.parametrize("dtype, limit", [("float32", 3e-6), ("bfloat16", 2e-2), ("float16", 2e-3)])
@pytest.mark.parametrize("shape", [(3, 5, 6, 4), (3, 7, 4), (2, 1, 1, 4), (5, 31, 33, 2)])
def test_tensorflows_own_batch_norm_is_what_float64_has_without_it(shape, dtype, limit):
    """Output, gradients and running statistics: TensorFlow has no kernel of its own in float64."""
    import tensorflow as tf

    from common.plan import Norm
    from keras_impl.layers import BatchNorm

    rng = np.random.default_rng(0)
    x, out = rng.normal(3, 2, shape), rng.standard_normal(shape)
    gamma, beta = rng.standard_normal(shape[-1]), rng.standard_normal(shape[-1])

    def passed(dtype: str) -> list[np.ndarray]:
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(f"mixed_{dtype}" if dtype.endswith("float16") else dtype)
        try:
            layer = BatchNorm(Norm("bn", shape[-1], 1e-5))
        finally:
            keras.config.set_dtype_policy(before)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
        images = tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(images)
            y = layer(images, training=True)
            loss = tf.reduce_sum(y * tf.constant(out, dtype))
        grads = tape.gradient(loss, [images, layer.gamma.value, layer.beta.value])
        return [np.asarray(tf.cast(t, "float64")) for t in (y, *grads, layer.moving_mean, layer.moving_variance)]

    for ours, exact in zip(passed(dtype), passed("float64"), strict=True):
        assert np.abs(ours - exact).max() <= limit * max(1, np.abs(exact).max())


def test_one_value_a_channel_is_refused_in_training_as_in_pytorch():
    model = keras_impl.create_model("cifar_resnet20")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(np.zeros((1, 1, 1, 3), np.float32), training=True)
    assert np.isfinite(np.asarray(model(np.zeros((1, 1, 1, 3), np.float32)))).all()


@pytest.mark.parametrize("dtype", ["int32", "float65", "mixed_int8", 3])
def test_a_dtype_that_cannot_be_is_refused(dtype):
    import torch_impl

    for package in (torch_impl, keras_impl):
        with pytest.raises(RosettaError, match="dtype"):
            package.create_model("cifar_resnet20", dtype=dtype)
    assert keras.config.dtype_policy().name == "float32"
