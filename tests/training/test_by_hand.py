"""Small things that both frameworks share, so that no comparison sees them: each worked out by hand."""

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch

import torch_impl.autodiff
from common import weights
from common.arch import get
from common.checkpoints import port
from common.errors import RosettaError
from common.init import initial, randomised
from common.names import section_of
from common.training import recipe
from common.training.scores import scores, softmax

SMALL = get("cifar_preresnet164", depths=(1, 1, 1))


@pytest.mark.parametrize("draw", [initial, randomised])
def test_no_two_tensors_of_a_net_are_drawn_alike(draw):
    """Each has a stream of its own: what two begin with is uncorrelated."""
    n = 200
    drawn = {name: w.ravel()[:n] for name, w in draw(get("resnet18d"), 3).items() if w.size >= n and w.std() > 0}
    assert len(drawn) > 20
    for (a, u), (b, v) in itertools.combinations(drawn.items(), 2):
        assert abs(np.corrcoef(u, v)[0, 1]) < 6 / math.sqrt(n), (a, b)


def test_what_belongs_to_which_section():
    sections = {
        "conv1.weight": "stem", "conv1.3.weight": "stem", "bn1.bias": "stem", "layer1.0.bn1.weight": "layer1",
        "layer3.2.downsample.0.weight": "layer3", "layer2_k5.0.conv1.weight": "layer2_k5", "norm.weight": "head",
        "norm_k3.running_mean": "head", "fc.bias": "head",
    }  # fmt: skip
    assert {name: section_of(name) for name in sections} == sections
    learns = recipe.learning(get("resnetv2_18"), recipe.get("cifar"), frozen=("head",))
    assert "layer4.1.conv2.weight" in learns and not {"norm.weight", "norm.bias", "fc.weight"} & set(learns)


def test_the_same_bits():
    a = np.array([0.0, math.nan, 1.5])
    assert weights.same(a, a.copy()) and weights.same(a[::-1], a[::-1].copy())
    assert not weights.same(a, a.astype(np.float32)) and not weights.same(a, a.reshape(1, 3))
    assert not weights.same(np.array([0.0]), np.array([-0.0])) and not weights.same(a, a + np.spacing(a))


def test_a_file_that_names_another_net_of_the_same_shapes_is_refused(tmp_path):
    """Version 1 and 1.5 differ in no shape."""
    path, other = tmp_path / "a.safetensors", get(SMALL, stride_in=1)
    weights.save(path, SMALL, randomised(SMALL))
    with pytest.raises(RosettaError, match="stride_in is 2 in the file and 1"):
        port.inspect(path, arch=other)
    before = {n: w.copy() for n, w in randomised(other, 1).items()}
    net = torch_impl.create_model(other, weights=before)
    with pytest.raises(RosettaError, match="stride_in"):
        torch_impl.load(path, into=net)
    assert all(np.array_equal(w, before[n]) for n, w in torch_impl.export_weights(net).items())


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_changed_bit_of_our_weights_is_seen(tmp_path, place):
    """safetensors has no checksum, so ours is over every array: the first, one in the middle, the last."""
    path = tmp_path / "a.safetensors"
    weights.save(path, SMALL, randomised(SMALL))
    content = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    content[begin + round(place * (len(content) - begin - 4))] ^= 1  # a low bit of a number: it stays finite
    path.write_bytes(content)
    for read in (lambda: weights.load(path), lambda: port.inspect(path).weights()):
        with pytest.raises(RosettaError, match="is damaged: its checksum is"):
            read()


def test_a_name_that_ends_with_digits_of_a_checksum_is_held_to_it(tmp_path):
    path = tmp_path / "a.safetensors"
    weights.save(path, SMALL, randomised(SMALL))
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    path = path.rename(tmp_path / f"resnet-{digits}.safetensors")
    assert port.inspect(path).arch == SMALL
    path = path.rename(tmp_path / "resnet-0123abcd.safetensors")
    with pytest.raises(RosettaError, match=f"SHA-256 begins with {digits}, and its name says 0123abcd"):
        port.inspect(path)


def test_smoothed_labels():
    """Szegedy et al. 2015, section 7: of K classes each gets smoothing / K, the true one what is left beside."""
    z, label, smoothing = np.array([[2.0, -1.0, 0.5, 0.0]]), np.array([1]), 0.2
    p = np.exp(z[0]) / np.exp(z[0]).sum()
    target = [0.05, 0.85, 0.05, 0.05]
    expected = -sum(t * math.log(q) for t, q in zip(target, p, strict=True))
    assert float(torch_impl.autodiff.loss_of(torch.from_numpy(z), label, smoothing)) == pytest.approx(expected)
    assert float(torch_impl.autodiff.loss_of(torch.from_numpy(z), label)) == pytest.approx(-math.log(p[1]))


def test_the_loss_of_a_net_that_is_very_sure():
    """e to the 1,000 is no number: the largest logit comes out of the sum before."""
    found = scores(np.array([[1000.0, 0.0], [-1000.0, 0.0], [0.0, 0.0]]), np.array([1, 1, 0]))
    assert found.loss == pytest.approx((1000 + 0 + math.log(2)) / 3)
    assert softmax(np.array([[1000.0, 1000.0 - math.log(3)]])) == pytest.approx(np.array([[0.75, 0.25]]))
