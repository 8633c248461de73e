"""No net of ours calls what oneDNN does wrongly: the gradient of a strided 1x1 of few channels, channels last."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from conftest import ROOT

import keras_impl.layers
import torch_impl
from common.arch import VARIANTS, Arch, get
from common.plan import Conv, make_plan
from common.training import recipe
from torch_impl.train import Trainer

CHECKER = "libc_malloc_debug.so.0"  # glibc's: it looks at the borders of each array when it is freed


def few(**fields) -> Arch:
    """Projections, and a bottleneck's first 1x1, stride over 8 channels."""
    return get("resnet50_v1", depths=(1, 1), widths=(2, 8), num_classes=10, **fields)


def strided(arch: Arch) -> list[Conv]:
    return [c for c in make_plan(arch).layers() if isinstance(c, Conv) and c.breaks_onednn]


def test_which_layers_they_are():
    assert [c.name for c in strided(few())] == ["layer2.0.conv1", "layer2.0.downsample.0"]
    assert not strided(get(few(), widths=(4, 8)))
    assert not any(strided(arch) for arch in VARIANTS.values())


def weight_gradients(capfd, step) -> list[tuple[str, int, int, int]]:
    """What oneDNN says of each convolution's weight gradient: the input's layout, its channels, kernel and stride."""
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        step()
    ctypes.CDLL(None).fflush(None)
    lines = [line for line in capfd.readouterr().out.splitlines() if "backward_weights" in line]
    said = [re.search(r"src:\w+:\w*:blocked:(\w+):.*ic(\d+)oc.*kh(\d+)sh(\d+)", line) for line in lines]
    return [(m[1], *map(int, m.groups()[1:])) for m in said if m]


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
def test_torch_strides_over_few_channels_in_another_layout(capfd):
    """Seen by what is called and not by the crash, which the checks of the C library alone make sure of."""
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    calls = {}
    for row in (few(), get(few(), widths=(4, 8))):
        trainer = Trainer(torch_impl.create_model(row, seed=0), recipe.get("d2l", batch=2))
        calls[row.widths] = weight_gradients(capfd, lambda t=trainer: t.step(x, np.arange(2), 0.1))
    assert ("acdb", 16, 1, 2) in calls[4, 8]  # which is fast, and right
    assert [c[1:] for c in calls[2, 8]].count((8, 1, 2)) == 2 and ("acdb", 8, 1, 2) not in calls[2, 8]


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("channels", [8, 16])
def test_keras_takes_the_positions_first(monkeypatch, channels, dims):
    """Keras has one layout. Odd sizes and even ones, against their sum in numpy."""
    layer = keras_impl.layers.conv(Conv("a", channels, 5, 1, stride=2, dims=dims))
    kernel, seen, own = np.array(layer.kernel), [], keras.ops.conv
    monkeypatch.setattr(keras_impl.layers.ops, "conv", lambda x, k, s, *rest: seen.append(s) or own(x, k, s, *rest))
    for n in (7, 8):
        x = np.random.default_rng(0).standard_normal((2, *(n,) * dims, channels), np.float32)
        y = np.array(layer(x))
        expected = x[(slice(None), *(slice(None, None, 2),) * dims)] @ kernel.reshape(channels, 5)
        assert np.allclose(y, expected, atol=1e-5) and y.shape == layer.compute_output_shape(x.shape)
    assert all(np.all(np.array(s) == (1 if channels == 8 else 2)) for s in seen) and seen


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "keras:tensorflow", "keras:torch"])
def test_training_under_the_checks_of_the_c_library(engine):
    """A crash of the whole process where it is wrong, at the latest in the third step."""
    found = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True).stdout if sys.platform == "linux" else ""
    if CHECKER not in found:
        pytest.skip(f"no {CHECKER} here")
    framework, _, backend = engine.partition(":")
    code = f"""
import numpy as np, {framework}_impl as impl
from {framework}_impl.train import Trainer
from common.training import recipe
from common.arch import get
row = get("resnet18", depths=(1, 1, 1, 1), widths=(8, 16, 16, 32), num_classes=10)
trainer = Trainer(impl.create_model(row, seed=0), recipe.get("d2l", batch=10))
x = np.random.default_rng(0).standard_normal((10, 3, 224, 224), np.float32)
print(all(np.isfinite(trainer.step(x, np.arange(10), 0.01)[0]) for _ in range(20)))
"""
    checked = {"LD_PRELOAD": CHECKER, "MALLOC_CHECK_": "3", "KERAS_BACKEND": backend or "tensorflow"}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **checked}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=Path("/"))
    assert done.returncode == 0 and done.stdout.split() == ["True"], (done.returncode, done.stderr[-500:])
