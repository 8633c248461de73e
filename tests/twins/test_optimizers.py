"""Optimizer steps across a change of the rate: PyTorch's rule in both frameworks, in float64."""

import keras
import numpy as np
import pytest
import torch
from conftest import relative

import keras_impl
import keras_impl.autodiff
import keras_impl.model
import torch_impl
from common.arch import get
from common.init import randomised
from keras_impl import optim
from keras_impl.weights import named_variables

RULES = {
    "SGD": (dict(), dict()),
    "SGD with momentum and decay": (dict(momentum=0.9, weight_decay=1e-2), dict(momentum=0.9, weight_decay=1e-2)),
    "SGD with Nesterov and decay": (
        dict(momentum=0.9, nesterov=True, weight_decay=5e-4), dict(momentum=0.9, nesterov=True, weight_decay=5e-4)
    ),
    "Adam": (dict(), dict()),
    "Adam with decay": (dict(weight_decay=1e-2, betas=(0.8, 0.99)), dict(weight_decay=1e-2, beta_1=0.8, beta_2=0.99)),
    "AdamW": (dict(), dict()),
}  # fmt: skip


def train(arch, rule: str, steps: int = 6):
    """Yields both sides' parameters after each step; the rate drops tenfold in the middle."""
    kind, (theirs, ours) = rule.split()[0], RULES[rule]
    weights = randomised(arch)
    net = torch_impl.create_model(arch, dtype="float64", weights=weights).train()
    twin = keras_impl.create_model(arch, dtype="float64", weights=weights)
    a = getattr(torch.optim, kind)(net.parameters(), lr=0.1 if kind == "SGD" else 1e-2, **theirs)
    b = getattr(optim, kind)(0.1 if kind == "SGD" else 1e-2, **ours)
    rng = np.random.default_rng(0)
    for step in range(steps):
        if step == steps // 2:
            a.param_groups[0]["lr"] *= 0.1
            b.learning_rate = a.param_groups[0]["lr"]
        x, y = rng.standard_normal((4, 3, 12, 12)), rng.integers(0, 3, 4)
        a.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        a.step()
        found = keras_impl.autodiff.differentiate(twin, x, y).gradients
        names = dict(named_variables(twin))
        b.apply(
            [keras.ops.convert_to_tensor(keras_impl.model.to_keras(g)) for g in found.values()],
            [names[n] for n in found],
        )
        yield torch_impl.export_weights(net), keras_impl.export_weights(twin)


@pytest.mark.parametrize("rule", RULES)
def test_steps(rule):
    for step, (a, b) in enumerate(train(get("cifar_resnet20", depths=(1, 1, 1), num_classes=3), rule), 1):
        worst = max(relative(a[n], b[n]) for n in a)
        assert worst <= 1e-8, (step, worst)


def test_keras_own_sgd_parts_at_the_rate_change(monkeypatch):
    """What the rules of ours are for: equal to rounding until the rate changes, 1e-3 apart at the next step."""
    monkeypatch.setattr(optim, "SGD", lambda rate, momentum, weight_decay: keras.optimizers.SGD(rate, momentum))
    monkeypatch.setitem(RULES, "SGD with momentum", (dict(momentum=0.9), dict(momentum=0.9, weight_decay=0.0)))
    apart = [
        max(relative(a[n], b[n]) for n in a)
        for a, b in train(get("cifar_resnet20", depths=(1, 1, 1), num_classes=3), "SGD with momentum")
    ]
    assert max(apart[:3]) < 1e-6 < 1e-3 < apart[3]


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_a_compiled_model_trains_and_saves_with_them(tmp_path, kind):
    model = keras_impl.create_model("cifar_resnet20", depths=(1, 1, 1), num_classes=3, seed=0)
    model.compile(getattr(optim, kind)(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.random.default_rng(0).standard_normal((8, 12, 12, 3), np.float32), np.arange(8) % 3
    losses = model.fit(x, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.optimizer) is getattr(optim, kind) and int(again.optimizer.iterations) == 8
    assert again.optimizer.get_config() == model.optimizer.get_config()
