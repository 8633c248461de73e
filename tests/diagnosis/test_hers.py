"""Somebody's file, executed in a process of its own; and what she may have written in it."""

import sys

import pytest
from click.testing import CliRunner

from common.cli import cli
from common.diagnosis.hers import diagnose_file, find
from common.errors import RosettaError

torch_impl = pytest.importorskip("torch_impl")

NET = """
from common.arch import get
from torch import nn
import torch_impl

def small(num_classes=5):
    row = get("cifar_resnet20", widths=(16, 18, 20), depths=(1, 1, 1), num_classes=num_classes)
    net = torch_impl.create_model(row, seed=1)
    return nn.Sequential(net, nn.Softmax(1))
def wants(a, b=1): pass
def raises(): raise KeyError("weights")
def downloads():
    import urllib.request
    urllib.request.urlopen("http://example.com/resnet.pth")
def forever():
    while True: pass
def leaves(): raise SystemExit(3)
text = "resnet"
if __name__ == "__main__": raise ValueError
"""


@pytest.fixture
def her_file(tmp_path):
    path = tmp_path / "her_net.py"
    path.write_text(NET)
    yield path
    sys.modules.pop("her_net", None)
    sys.path[:] = [p for p in sys.path if p != str(tmp_path)]
    assert [p.name for p in tmp_path.iterdir() if p.name != "__pycache__"] == ["her_net.py"]


def test_the_command(her_file):
    """The whole way once: a process, a net, what is said, and the exit code."""
    done = CliRunner().invoke(cli, ["diagnose", f"{her_file}:small", "--like", "cifar_resnet20"])
    assert done.exit_code == 1, done.output
    assert f"executing {her_file}" in done.output.splitlines()[0]
    assert "the net ends in a softmax" in done.output and "proof" in done.output
    assert list(her_file.parent.iterdir()) == [her_file]


def test_a_time_limit(her_file):
    with pytest.raises(RosettaError, match="still running after 2 s"):
        diagnose_file(str(her_file), "forever", limit=2)


@pytest.mark.parametrize(
    ("name", "call", "words"),
    [
        ("wants", None, r"wants wants a: give them by --call \"wants\(a=...\)\""),
        ("raises", None, r"raises\(\) can't be made: KeyError: 'weights' \(her_net.py:11\)"),
        ("leaves", None, r"leaves\(\) can't be made: SystemExit: 3"),
        ("smal", None, "has no 'smal'; did you mean small"),
        (None, None, "needs a name"),
        (None, "small(", r"--call 'small\(' is no expression"),
        (None, "small(depth=3)", "TypeError: .*depth"),
    ],
)
def test_bad_input(her_file, monkeypatch, name, call, words):
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(RosettaError, match=words):
        find(str(her_file), name, call)


@pytest.mark.parametrize(
    ("argument", "words"),
    [("none.py:net", "no such file"), ("net", "expected FILE.py:NAME"), ("a.toml:net", "expected FILE.py:NAME")],
)
def test_no_file(argument, words):
    done = CliRunner().invoke(cli, ["diagnose", argument])
    assert done.exit_code == 2 and words in done.output


def test_an_unknown_row_before_anything_is_executed(her_file):
    done = CliRunner().invoke(cli, ["diagnose", f"{her_file}:small", "--like", "resnet51"])
    assert done.exit_code == 2 and "resnet50" in done.output and "executing" not in done.output


@pytest.mark.parametrize("kind", ["text", "mlp", "vgg"])
def test_what_is_no_resnet(kind):
    from torch import nn

    from common.diagnosis import diagnose

    convs = [x for c in (8, 8, 16, 16) for x in (nn.LazyConv2d(c, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))]
    nets = {
        "text": ("resnet50", "str is no net"),
        "mlp": (nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU()), "it has no convolution"),
        "vgg": (nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)), "no ResNet: .*4 conv"),
    }
    net, words = nets[kind]
    with pytest.raises(RosettaError, match=words):
        diagnose(net)
