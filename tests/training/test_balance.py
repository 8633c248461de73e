"""Balanced training: each class counts as much as any other in the loss, as PyTorch's weighted cross-entropy has it."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import relative
from test_training import IMPLS, SGD, row, trainer

import keras_impl.autodiff
import torch_impl.autodiff
from common.init import randomised
from common.training import data, loop, recipe
from common.training import run as training
from common.training.recipe import balanced


def test_the_weights_are_inverse_to_the_number_of_examples():
    assert balanced(np.array([0, 0, 0, 1]), 2).tolist() == [4 / 6, 2.0]
    assert balanced(np.array([0, 2, 2]), 3).tolist() == [1.5, 0.0, 0.75]  # a class without examples has none to weigh
    labels = np.array([0] * 90 + [1] * 9 + [2])
    assert np.allclose(balanced(labels, 3) * np.bincount(labels), 100 / 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_pytorchs_weighted_one_in_both_frameworks(smoothing):
    rng = np.random.default_rng(0)
    logits, labels, classes = rng.standard_normal((7, 4)), rng.integers(0, 4, 7), np.array([0.5, 3.0, 1.0, 0.2])
    witness = torch.nn.CrossEntropyLoss(torch.from_numpy(classes), label_smoothing=smoothing)
    wanted = float(witness(torch.from_numpy(logits), torch.from_numpy(labels)))
    for impl in (torch_impl, keras_impl):
        found = float(impl.autodiff.loss_of(logits, labels, smoothing, classes))
        assert found == pytest.approx(wanted, rel=1e-13)
        assert abs(float(impl.autodiff.loss_of(logits, labels, smoothing)) - wanted) > 1e-2


def test_balanced_steps_are_the_same_in_both_frameworks_and_in_parts():
    """And a whole step is that of the witness's gradients: a batch's parts weigh what their classes do."""
    arch, weights = row(), randomised(row())
    plain = dataclasses.replace(recipe.get("cifar", precision="float64", balance=True), rule=SGD, smoothing=0.1)
    rng = np.random.default_rng(0)
    # a frozen net's norms don't look at the batch, so that its parts give what the whole does
    options = {"frozen": ("stem", "layer1", "layer2", "layer3"), "classes": np.array([0.5, 3.0, 1.0, 0.2, 2.0])}
    x, y = rng.standard_normal((9, 3, 12, 12)), rng.integers(0, 5, 9)
    found = {}
    for accumulate in (1, 4):
        for framework in IMPLS:
            how = dataclasses.replace(plain, accumulate=accumulate)
            t = trainer(framework, arch, how, weights, **options)
            losses = [t.step(x, y, 0.1)[0] for _ in range(3)]
            found[framework, accumulate] = losses, t.weights()
    net = torch_impl.create_model(arch, dtype="float64", weights=weights)
    torch_impl.train.freeze(net, options["frozen"])
    optimizer = torch.optim.SGD(
        net.fc.parameters(), 0.1, momentum=SGD.momentum, nesterov=SGD.nesterov, weight_decay=SGD.weight_decay
    )
    loss_of = torch.nn.CrossEntropyLoss(torch.from_numpy(options["classes"]), label_smoothing=0.1)
    net.eval()
    losses = []
    for _ in range(3):
        loss = loss_of(net(torch.from_numpy(x)), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    for got, after in found.values():
        assert np.abs(np.array(got) / losses - 1).max() < 1e-12
        assert relative(net.fc.weight.detach().numpy(), after["fc.weight"]) < 1e-12


def test_a_run_is_balanced_by_its_training_examples(tmp_path):
    x = np.zeros((20, 8, 8, 1), np.uint8)
    y = np.array([0] * 15 + [1] * 5)
    np.savez(tmp_path / "rare.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    for balance in (True, False):
        how = recipe.get("small", balance=balance)
        run, found = training.plan("cifar_resnet20", str(tmp_path / "rare.npz"), how, {"depths": (1, 1, 1)})
        classes = loop.trainer_of(run, found).classes
        assert (classes is None) != balance
        assert not balance or classes.tolist() == [20 / 30, 2.0]
    assert recipe.Recipe.from_json(how.to_json()) == how and data.load("digits")
