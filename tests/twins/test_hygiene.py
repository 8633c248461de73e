"""What would fail on a GPU, without one: PyTorch's nets on its meta device, where a tensor that something makes on the
CPU is an error; and what JAX compiles, lowered for CUDA."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

import torch_impl
from common.arch import FAMILIES, get
from common.errors import RosettaError
from common.names import count, parameters
from common.parity.rules import Rule
from common.speed.runners import ENGINES
from common.training import recipe
from torch_impl import autodiff, fast, optim
from torch_impl.trace import trace
from torch_impl.train import Trainer

# the smallest net of every family; by default the fast path of those that differ in more than their stem or widths
NAMES = [min(of, key=lambda n: count(parameters(of[n]))) for of in FAMILIES.values()]
SOME = ("cifar_resnet20", "resnetv2_18", "seresnet18", "resnext50_32x4d", "resnet50_gn", "resnetv2_50x1_bit")
HALF = SOME[2]  # in bfloat16, too


def row(name: str):
    """One block a stage, few channels, something at random in training."""
    arch = get(name)
    changes: dict = {"depths": (1,) * len(arch.depths), "num_classes": 5, "drop_path": 0.5}
    if arch.groups == 1 and arch.shortcut != "pad":
        first = 32 if arch.norm_groups else 16
        changes["widths"] = tuple(first * 2**i for i in range(len(arch.widths)))
    return get(name, **changes)


def there(arch, dtype: str = "float32"):
    """A net on a device that is not the CPU, and images and labels, which are still at home."""
    net = torch_impl.create_model(arch, seed=0, dtype=dtype).to("meta")
    size = (4, arch.in_channels, *(33, 26)[: arch.dims])
    return net, np.zeros(size, np.float32), np.arange(4)


@pytest.fixture
def back(monkeypatch):
    """Tensors come back from the device as ones."""
    home = torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda t: torch.ones(t.shape, dtype=t.dtype, device="cpu") if t.is_meta else home(t)
    )


@pytest.fixture
def uncompiled(monkeypatch):
    """PyTorch's graph as it is exported, and not Inductor's of it, which makes nothing for that device."""
    monkeypatch.setattr(torch, "compile", lambda graph, **how: graph)


def passes(name: str, dtype: str = "float32") -> None:
    """All that a comparison does with a net of PyTorch's."""
    net, x, labels = there(row(name), dtype)
    seen = []
    trace(net, x, lambda layer, y: seen.append(layer))
    assert len(seen) > 10
    loss, logits, by_input, by_parameter = autodiff.gradients_of(net, x, labels)
    images = torch.from_numpy(x).to(by_input)
    tensors = [loss, logits, by_input, *by_parameter, *net.features(images).values()]
    assert {t.device.type for t in tensors} == {"meta"} and logits.shape == (4, 5)
    for kind in ("SGD", "Adam"):
        made = optim.optimizer(net, Rule(kind, 0.1, momentum=0.9))
        optim.step(net, made, by_parameter, 0.1)
        kept = dict(optim.moments(net, made))
        optim.restore(net, made, kept, 1)
        assert kept and all(v.device.type == "meta" for s in made.state.values() for k, v in s.items() if k != "step")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_net_is_made_on_the_cpu(name, back):
    passes(name)


@pytest.mark.parametrize(("name", "dtype"), [
    *((name, None) for name in SOME), (HALF, "bfloat16"),
    *(pytest.param(name, None, marks=pytest.mark.slow) for name in NAMES if name not in SOME),
])  # fmt: skip
def test_nothing_of_a_fast_net_is_made_on_the_cpu(name, dtype, back, uncompiled):
    net, x, _ = there(row(name))
    example = torch.from_numpy(x)
    made = fast.optimize(net, example, dtype=dtype)  # the images may be where they were
    assert "compiled by Inductor with frozen weights" in made.steps
    for images in (example, example.to("meta"), example.to("meta")[:2]):
        y = made(images)
        assert y.is_meta and y.dtype == torch.float32 and y.shape == (len(images), 5)


def test_a_trainer_predicts_and_learns_where_its_net_is(back, monkeypatch):
    """With all but the head frozen, too."""
    net, x, labels = there(row(HALF))
    trainer = Trainer(
        net, recipe.get("small", clip=1.0, ema=0.9), frozen=("stem", "layer1", "layer2", "layer3", "layer4")
    )
    assert trainer.logits(x).shape == (4, 5)
    with pytest.raises(RuntimeError, match="meta"):  # only the loss can't be told, at the very end
        trainer.step(x, labels, 0.1)
    assert len(trainer.optimizer.state) == 2
    assert {t.device.type for t in [*trainer.parameters, *trainer.average.values()]} == {"meta"}


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_what_runs_on_the_cpu_alone_says_so(engine, monkeypatch):
    monkeypatch.setattr("common.speed.runners.require", lambda *given: None)
    net, x, _ = there(row("cifar_resnet20"))
    with pytest.raises(RosettaError, match=f"{engine} runs on the CPU here, and the net is on meta"):
        fast.optimize(net, torch.from_numpy(x), engine=engine)


@pytest.mark.parametrize(("where", "name"), [
    ("torch_impl.blocks.add", "a net"), ("torch_impl.autodiff.F.cross_entropy", "a loss"),
    ("torch_impl.blocks.add", "a fast net"),
])  # fmt: skip
def test_what_is_made_on_the_cpu_is_seen(where, name, back, uncompiled, monkeypatch):
    """The check can fail: something that is planted makes a tensor where it shouldn't."""
    if name == "a loss":
        real = torch.nn.functional.cross_entropy
        monkeypatch.setattr(
            where, lambda logits, target, *a, **k: real(logits, target.new_zeros(4, device="cpu"), *a, **k)
        )
    else:
        monkeypatch.setattr(where, lambda y, shortcut: y + torch.zeros(y.shape, dtype=y.dtype, device="cpu"))
    with pytest.raises(RuntimeError, match="device|meta"):
        if name == "a fast net":
            net, x, _ = there(row(HALF))
            fast.optimize(net, torch.from_numpy(x))
        else:
            passes(HALF)


@pytest.mark.parametrize("nets", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_what_jax_compiles_is_lowered_for_cuda(nets):
    """In float32 and bfloat16: inference, gradients, optimizers and a trainer's step; and what has no code for CUDA is
    refused."""
    env = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "twins" / "lowered.py", str(nets)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    functions = ("train _jax.<locals>.weighted", "autodiff _jax_pass", "stateless_apply", "_clipped")
    for words in (f"{2 * nets} keras_impl.fast", *functions, "refused: MLIR translation rule for primitive"):
        assert words in done.stdout, done.stdout
