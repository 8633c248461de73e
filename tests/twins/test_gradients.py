"""Gradients of the loss by every parameter and by the input, in training mode, float64: the same in both frameworks."""

import numpy as np
import pytest
from conftest import relative
from test_parity import small

import keras_impl
import torch_impl
from common import noise
from common.arch import VARIANTS, Arch, get
from common.init import randomised
from common.names import STATISTICS, is_trainable, parameters
from keras_impl.autodiff import differentiate as by_keras
from torch_impl.autodiff import differentiate as by_torch

# one of each thing that has a gradient of its own, small; the rest are these at other depths and widths
NETS = [
    "resnet18", "resnet50_v1", "plain18", "resnet18_a", "resnet18_c", "resnetv2_50", "resnext50_32x4d", "resnet26d",
    "seresnext50_32x4d", "resnet50_keras", "resnet18_d2l", "cifar_resnet56", "cifar_plain20", "cifar_preresnet110",
    "cifar_resnet110_sd", "cifar_wrn28_10", "resnet18_1d", "msresnet_1d",
]  # fmt: skip


def check_gradients(arch: Arch, size: tuple[int, ...], limit: float = 1e-10) -> None:
    weights = randomised(arch)
    ours = torch_impl.create_model(arch, dtype="float64", weights=weights)
    twin = keras_impl.create_model(arch, dtype="float64", weights=weights)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, arch.in_channels, *size[: arch.dims]))
    labels = rng.integers(0, arch.num_classes, 4) if arch.num_classes else None
    with noise.shared(0):
        a = by_torch(ours, x, labels)
    with noise.shared(0):
        b = by_keras(twin, x, labels)
    assert abs(a.loss - b.loss) <= 1e-12 * a.loss
    assert relative(a.logits, b.logits) <= 1e-10 and relative(a.by_input, b.by_input) <= limit
    assert list(a.gradients) == list(b.gradients) == [n for n in parameters(arch) if is_trainable(n)]
    largest = max(np.abs(g).max() for g in a.gradients.values())
    for name, g in a.gradients.items():
        if arch.conv_bias and name.endswith(".bias") and np.abs(g).max() < 1e-12 * largest:
            assert np.abs(b.gradients[name]).max() < 1e-12 * largest, name  # BatchNorm takes a bias before it away
        else:
            assert np.abs(g).max() > 1e-9 * largest and relative(g, b.gradients[name]) <= limit, name
    after, after_twin = torch_impl.export_weights(ours), keras_impl.export_weights(twin)
    assert all(relative(after[n], after_twin[n]) <= 1e-11 for n in after if n.endswith(STATISTICS))


@pytest.mark.parametrize("name", NETS)
def test_gradients(name):
    check_gradients(small(get(name)), (33, 26))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_of_every_variant(name):
    check_gradients(VARIANTS[name], (33, 26), 1e-9 if name in ("cifar_resnet1202", "cifar_preresnet1001") else 1e-10)


def test_the_comparison_can_fail():
    arch = get("cifar_resnet20", depths=(1, 1, 1))
    weights = randomised(arch)
    a, b = (keras_impl.create_model(arch, dtype="float64", weights=weights) for _ in range(2))
    b.layer2.members[0].bn1.epsilon = 1.001e-5  # keras.applications' for PyTorch's
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16))
    a, b = (by_keras(model, x, np.arange(4)).gradients for model in (a, b))
    assert relative(a["layer2.0.conv1.weight"], b["layer2.0.conv1.weight"]) > 1e-10
