"""One --device for both frameworks, without a GPU: PyTorch's meta device, which has shapes and no numbers, stands for
one, and what the frameworks say of their cards is made up."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner

import torch_impl.train
from common import weights as canonical
from common.arch import get
from common.cli import cli
from common.errors import RosettaError
from common.init import initial
from common.parity import engines
from common.parity.backends import NO_GPU, Here, device_of, environment_of
from common.parity.rules import Rule
from common.training import loop, recipe, record
from common.training import run as training
from common.training.data import load

DIGITS = get("cifar_resnet20", depths=(1, 1, 1), in_channels=1, num_classes=10, drop_path=0.2, dropout=0.1)


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_everything_of_a_trainer_is_where_its_net_is(kind):
    how = recipe.get("small", ema=0.9, clip=1.0)
    how = dataclasses.replace(how, rule=Rule(kind, 0.1, momentum=0.9), accumulate=2)
    run = training.Run("net", DIGITS, "digits", how)
    data = load("digits")
    there = loop.trainer_of(run, data, place="meta")
    x, labels = np.zeros((6, 1, 8, 8), np.float32), np.arange(6)
    seen = []
    for module in there.model.modules():
        module.register_forward_hook(lambda m, inputs, y: seen.extend([*inputs, y]))
    with pytest.raises(RuntimeError, match="meta"):  # only the loss can't be told, at the very end
        there.step(x, labels, 0.1)
    tensors = [*there.model.parameters(), *there.model.buffers(), *there.average.values(), *seen]
    tensors += [t for kept in there.optimizer.state.values() for name, t in kept.items() if name != "step"]
    assert len(seen) > 20 and len(there.optimizer.state) == len(there.parameters)
    assert {t.device.type for t in tensors if t is not None} == {"meta"}

    here = loop.trainer_of(run, data)  # which is on the CPU, and whose checkpoint goes on there
    here.step(x, labels, 0.1)
    there = loop.trainer_of(run, data, place="meta")
    there.restore(here.weights(), here.state())
    kept = [t for kept in there.optimizer.state.values() for name, t in kept.items() if name != "step"]
    assert kept and {t.device.type for t in [*kept, *there.average.values()]} == {"meta"}


@pytest.fixture
def cards(monkeypatch):
    """So many cards, as PyTorch sees them; gives the groups of processes that were begun."""
    begun = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda place: begun.append(str(place)))
    monkeypatch.setattr(dist, "init_process_group", begun.append)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)

    def made(n, **environment):
        begun.clear()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        return begun

    return made


TWO = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": 1}


@pytest.mark.parametrize(
    ("n", "environment", "device", "expected", "group"),
    [
        (0, {}, "auto", "cpu", []),
        (1, {}, "auto", "cuda:0", ["cuda:0"]),
        (1, {}, "gpu", "cuda:0", ["cuda:0"]),
        (1, {}, "cpu", "cpu", []),
        (2, TWO, "auto", "cuda:1", ["cuda:1", "nccl"]),
        (1, TWO, "auto", "cpu", ["gloo"]),  # nccl takes a card a process
        (2, TWO, "cpu", "cpu", ["gloo"]),
        (0, TWO, "auto", "cpu", ["gloo"]),
    ],
)
def test_where_pytorch_trains(cards, n, environment, device, expected, group):
    begun = cards(n, **environment)
    with torch_impl.train.distributed(1, device) as place:
        assert (str(place), begun) == (expected, group)


def test_a_gpu_for_each_process_or_a_refusal(cards):
    cards(1, **TWO)
    with pytest.raises(RosettaError, match="2 processes here and 1 GPUs"), torch_impl.train.distributed(1, "gpu"):
        pass


def test_a_run_is_trained_where_it_is_said(tmp_path, monkeypatch):
    """The device that `distributed` gives is the net's."""
    run, data = training.plan("cifar_resnet20", "digits", recipe.get("small"), {"depths": (1, 1, 1)})
    record.new(tmp_path / "run", run)
    asked, real = [], loop.trainer_of
    monkeypatch.setattr(loop, "trainer_of", lambda *given: asked.append(given[3]) or real(*given))
    loop.train(tmp_path / "run", data=data, limit=1, device="cpu")
    assert [str(place) for place in asked] == ["cpu"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(tmp_path, monkeypatch, framework, command):
    monkeypatch.chdir(tmp_path)
    canonical.save("net.safetensors", DIGITS, initial(DIGITS, 0))
    words = {"train": ["cifar_resnet20", "--out", "run"], "evaluate": ["net.safetensors"]}[command]
    done = CliRunner().invoke(cli, [command, *words, "--data", "digits", "--framework", framework, "--device", "gpu"])
    assert done.exit_code == 2 and "finds no GPU" in done.output, done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "race"])
def test_the_option_is_the_same_everywhere(command):
    (option,) = [p for p in cli.commands[command].params if p.name == "device"]
    assert tuple(option.type.choices) == ("auto", "cpu", "gpu") and option.default == "auto"


def test_a_gpu_is_hidden_or_seen_before_a_framework_is_imported(monkeypatch):
    for spec in ("torch", "keras:jax"):
        assert NO_GPU.items() <= environment_of(spec, "cpu").items()
        for device in ("auto", "gpu"):
            assert not NO_GPU.keys() & environment_of(spec, device).keys()
    assert device_of("onnx:torch", "auto") == "cpu" and device_of("torch", "auto") == "auto"
    assert Here("torch", "auto").device == "auto"
    for name in NO_GPU:
        monkeypatch.delenv(name, raising=False)
    import os

    training.prepare("torch", "float32", 1, "cpu")
    assert not NO_GPU.keys() & os.environ.keys()  # PyTorch is told by its own means
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    training.prepare("keras", "float32", 1, "cpu")
    assert NO_GPU.items() <= os.environ.items()


def test_tensorflows_cards_are_used_hidden_or_missed(monkeypatch):
    import tensorflow as tf

    hidden = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["card"] if kind == "GPU" else ["cpu"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: hidden.append((devices, kind)))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda card: {"device_name": card})
    assert engines.versions("keras:tensorflow", "auto")["device"] == "card" and not hidden
    assert engines.versions("keras:tensorflow", "gpu")["device"] == "card"
    assert engines.versions("keras:tensorflow", "cpu")["device"] == "CPU" and hidden == [([], "GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert engines.versions("keras:tensorflow", "auto")["device"] == "CPU"
    with pytest.raises(RosettaError, match="finds no GPU"):
        engines.versions("keras:tensorflow", "gpu")


def test_pytorchs_default_device_is_left_alone_by_a_training(monkeypatch):
    put = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "card")
    monkeypatch.setattr(torch, "set_default_device", put.append)
    assert engines.versions("torch", "auto", default=False)["device"] == "card" and not put
    assert engines.versions("torch", "cpu")["device"] == "CPU" and not put
    assert engines.versions("torch", "auto")["device"] == "card" and put == ["cuda"]
