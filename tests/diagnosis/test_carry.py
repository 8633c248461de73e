"""Somebody's own net as a source: carried over by what its tensors do, whatever their names are, or refused."""

import numpy as np
import pytest
from conftest import relative

from common.checkpoints import port
from common.diagnosis import carry, diagnose, tensors
from common.diagnosis.examine import living
from common.errors import RosettaError

torch = pytest.importorskip("torch")
plain = pytest.importorskip("plain")
ROW = plain.ROWS["basic"]


@pytest.fixture
def hers(tmp_path):
    """A net whose names are its own, and its weights behind a prefix, as DataParallel leaves them."""
    net = plain.net(ROW, "epsilon 1e-3").float().eval()
    generator = torch.Generator().manual_seed(3)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) / 2 + 0.1 * ("norm" in name or "bn" in name))
    file = tmp_path / "hers.pth"
    torch.save({"state_dict": {f"module.{n}": t for n, t in net.state_dict().items()}, "epoch": 3}, file)
    return net, file


def test_a_net_of_hers_is_carried_into_the_other_framework(hers, here, tmp_path):
    keras_impl = pytest.importorskip("keras_impl")
    net, file = hers
    found = carry.carried(plain.net(ROW, "epsilon 1e-3").float(), str(file), ROW, str(tmp_path))
    assert found["apart"] < 1e-13 and "norm_eps = 0.001" in found["row"]
    assert set(found["names"].values()) == {n for n in net.state_dict() if not n.endswith("tracked")}
    port.port(found["file"], tmp_path / "ours.weights.h5")
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 24))
    with torch.no_grad():
        theirs = net.double()(torch.from_numpy(x)).numpy()
    ours = keras_impl.load(tmp_path / "ours.weights.h5", dtype="float64")
    assert relative(theirs, np.asarray(ours(x.transpose(0, 2, 3, 1)))) < 1e-12


def test_a_softmax_is_left_out_and_said(tmp_path):
    found = carry.carried(plain.net(ROW, "softmax in the net").float(), None, ROW, str(tmp_path))
    assert found["apart"] < 1e-13 and any("softmax" in note for note in found["notes"])


@pytest.mark.parametrize("mistake", ["same padding", "option A at the end", "channels the other way round"])
def test_what_no_row_says_is_refused_by_name(mistake, tmp_path):
    row = plain.ROWS[plain.MISTAKES.get(mistake, "basic")]
    with pytest.raises(RosettaError, match="no field of a row can say"):
        carry.carried(plain.net(row, mistake).float(), None, row, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_weights_of_another_net_are_refused(hers, tmp_path):
    _, file = hers
    with pytest.raises(RosettaError, match="don't fit the model"):
        carry.carried(plain.net(plain.ROWS["bottleneck"]).float(), str(file), None, str(tmp_path))


def test_the_file_is_executed_and_ported(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch_impl\n\ndef build():\n    return torch_impl.create_model('cifar_resnet20', seed=2)\n"
    )
    done = carry.port_file(str(tmp_path / "mine.py"), tmp_path / "out.safetensors", "build")
    assert done.name == "cifar_resnet20" and done.probes[0][1] < 1e-13
    assert port.inspect(tmp_path / "out.safetensors").name == "cifar_resnet20"
    with pytest.raises(RosettaError, match="no such file"):
        carry.port_file(str(tmp_path / "mine.py"), tmp_path / "b.pt", "build", weights=tmp_path / "none.pt")
    assert not (tmp_path / "b.pt").exists()


def test_each_tensor_is_held_against_a_reference(hers, tmp_path):
    """One mistake of each kind in the weights, each told by itself."""
    net, file = hers
    found = carry.carried(plain.net(ROW).float(), str(file), ROW, str(tmp_path))
    names = {canonical: net.state_dict()[name] for canonical, name in found["names"].items()}
    with torch.no_grad():
        names["conv1.weight"].copy_(names["conv1.weight"].flip(1))
        names["layer1.0.conv1.weight"].copy_(names["layer1.0.conv1.weight"].transpose(2, 3).clone())
        names["layer1.0.bn1.bias"].copy_(names["layer1.0.bn1.running_mean"])
        names["layer1.0.conv2.weight"].copy_(names["layer1.1.conv2.weight"])
        names["layer2.0.bn2.running_var"].mul_(1.5)
        names["fc.bias"][0] += 1
    diagnosis = diagnose(net, ROW)
    assert tensors.against(diagnosis, living(net).arrays(), found["file"]) == [
        f"{len(names) - 6} of {len(names)} tensors are those of hers.pt",
        "conv1.weight has its input channels the other way round (BGR for RGB)",
        "layer1.0.conv1.weight has its axes in another order, (0, 1, 3, 2)",
        "layer1.0.bn1.bias is that layer's running_mean",
        "layer1.0.conv2.weight is layer1.1.conv2.weight",
        "layer2.0.bn2.running_var is 1.5 times as large",
        "fc.bias is different",
    ]
