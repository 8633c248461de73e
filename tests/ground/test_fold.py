"""BatchNorm folded into convolutions: the same function, in both frameworks, whatever the row."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import relative
from test_parity import images, run_keras, run_torch, sizes, small

import common.weights as store
import keras_impl
import torch_impl
from common.arch import FAMILIES, VARIANTS, Arch, get
from common.checkpoints import port
from common.errors import RosettaError
from common.fold import fold, kept, unfolded
from common.init import initial, randomised
from common.names import STATISTICS, parameters
from common.plan import Norm, foldable, make_plan
from common.training.recipe import get as recipe
from torch_impl.train import Trainer

SMALL = get("cifar_resnet20", depths=(1, 1, 1))
FIRST = [next(iter(variants)) for variants in FAMILIES.values()]


def check(arch: Arch, module, run) -> None:
    weights = randomised(arch, seed=1)
    plain = module.create_model(arch, dtype="float64", weights=weights)
    folded = module.create_model(arch, dtype="float64", weights=weights, folded=True)
    for size in sizes(arch):
        x = images(arch, size)
        found = relative(run(plain, x), run(folded, x))
        assert found <= 1e-13, (size, found)


@pytest.mark.parametrize("name", FIRST)
def test_every_family_is_the_same_function(name):
    """In Keras; every variant in PyTorch is tests/twins/test_parity.py's."""
    check(get(small(get(name)), depths=(1,) * len(get(name).depths)), keras_impl, run_keras)


@pytest.mark.parametrize(
    "change",
    [
        dict(shortcut="pad", conv_bias=True, first_stride=2),
        dict(preact=True, shortcut="pool", se_ratio=4, conv_bias=True, stem={"convs": [[8, 3, 2], [16, 5, 1]]}),
        dict(shortcut_norm=False, num_classes=0, norm_eps=1e-3, stem={"convs": [[8, 3, 2], [16, 5, 1]]}),
        dict(kernels=(5, 1), preact=True, shortcut="none", dims=1, in_channels=2),
    ],
    ids=lambda c: "-".join(c),
)
def test_composed_rows(change):
    arch = get("resnet50", depths=(1, 2), widths=(16, 32), **change)
    check(arch, torch_impl, run_torch)
    check(arch, keras_impl, run_keras)


def test_every_norm_is_folded_or_named_as_kept():
    for name, arch in VARIANTS.items():
        norms = {layer.name for layer in make_plan(arch).layers() if isinstance(layer, Norm)}
        gone = {norm.name for _, norm in foldable(make_plan(arch))}
        assert gone | set(kept(arch)) == norms and not gone & set(kept(arch)), name
        assert bool(kept(arch)) == bool(arch.preact or arch.norm_groups), name
        left = parameters(dataclasses.replace(arch, folded=True))
        assert bool(kept(arch) and not arch.norm_groups) == any(n.endswith(STATISTICS) for n in left), name
    assert kept(get("resnetv2_18"))[:2] == ["layer1.0.bn1", "layer1.1.bn1"] and kept(get("resnetv2_18"))[-1] == "norm"


def test_a_norm_of_its_own_folds_by_hand():
    """One channel: 3 x + 1, minus 4, over sqrt(0.25 + eps), times 2, plus 5."""
    arch = get(SMALL, stem={"convs": [[1, 1, 1]], "pool": False}, widths=(1, 1, 1), in_channels=1, conv_bias=True)
    weights = randomised(arch)
    for leaf, value in {"weight": 2.0, "bias": 5.0, "running_mean": 4.0, "running_var": 0.25}.items():
        weights[f"bn1.{leaf}"][:] = value
    weights["conv1.weight"][:], weights["conv1.bias"][:] = 3.0, 1.0
    found, scale = fold(arch, weights), 2 / np.sqrt(0.25 + 1e-5)
    assert found["conv1.weight"].item() == 3 * scale and found["conv1.bias"].item() == 5 + (1 - 4) * scale
    assert "bn1.weight" not in found and found["fc.weight"] is not None


def test_a_folded_net_takes_both_kinds_of_weights_and_no_others():
    weights = randomised(SMALL)
    folded = fold(SMALL, weights)
    x = images(SMALL, (16, 16))
    for module, run in ((torch_impl, run_torch), (keras_impl, run_keras)):
        a, b, c = (module.create_model(SMALL, dtype="float64", folded=True, weights=w) for w in (weights, folded, None))
        module.import_weights(c, weights)
        assert np.array_equal(run(a, x), run(b, x)) and np.array_equal(run(a, x), run(c, x))
        assert list(module.export_weights(a)) == list(folded)
        for wrong in ({n: w for n, w in weights.items() if n != "bn1.bias"}, {**folded, "x": weights["fc.bias"]}):
            with pytest.raises(RosettaError, match="don't fit"):
                module.import_weights(c, wrong)


def test_the_same_seed_is_the_same_net_with_norms_and_without():
    x = images(SMALL, (16, 16))
    both = [torch_impl.create_model(SMALL, seed=3, folded=f).double() for f in (False, True)]
    assert relative(*(run_torch(m, x) for m in both)) <= 1e-6  # drawn in float32
    for draw in (initial, randomised):
        w = draw(dataclasses.replace(SMALL, folded=True), 3)
        assert list(w) == list(parameters(dataclasses.replace(SMALL, folded=True)))
        assert {v.dtype for v in w.values()} == {np.dtype("float32")}


def test_a_folded_net_is_not_trained():
    with pytest.raises(RosettaError, match="for inference"):
        Trainer(torch_impl.create_model(SMALL, folded=True), recipe("cifar"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".weights.h5", ".keras"])
def test_port_folds_into_any_container_of_ours(tmp_path, suffix):
    source, target = tmp_path / "a.safetensors", tmp_path / f"b{suffix}"
    weights = randomised(SMALL)
    store.save(source, SMALL, weights)
    done = port.port(source, target, fold=True, probe=False)
    assert done.arch == dataclasses.replace(SMALL, folded=True) and done.name == "custom"
    assert "7 norms folded" in done.notes[0] and "stay" not in done.notes[0]
    row = {r.canonical: r for r in done.rows}["conv1.bias"]
    assert (row.source, row.transform) == ("bn1.bias", "bn1 folded in")
    again = port.inspect(target)
    assert again.arch.folded and unfolded(again.arch) == SMALL and "BatchNorm folded" in again.described
    x = images(SMALL, (15, 15))
    net = torch_impl.load(target, dtype="float64")
    assert relative(run_torch(net, x), run_torch(torch_impl.load(source, dtype="float64"), x)) <= 1e-6
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())


def test_port_proves_what_it_folds(tmp_path, monkeypatch):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    arch = get("resnetv2_18", depths=(1, 1, 1, 1))
    store.save(source, arch, randomised(arch))
    done = port.port(source, target, fold=True, num_classes=5)
    assert "stay, since others read what they normalise: layer1.0.bn1" in done.notes[0]
    [(what, apart, _)] = done.probes
    assert "with its norms" in what and 0 < apart < 1e-6
    target.unlink()
    monkeypatch.setattr("common.fold._bias", lambda source, conv, norm: source[f"{norm.name}.bias"]().astype(float))
    with pytest.raises(port.NotTheSame, match="folding moves the logits"):
        port.port(source, target, fold=True)
    assert not target.exists()


def test_other_libraries_hold_no_folded_net(tmp_path):
    store.save(tmp_path / "a.safetensors", get("resnet18"), randomised(get("resnet18")))
    with pytest.raises(RosettaError, match="torchvision can't hold this net: its nets have the norms"):
        port.port(tmp_path / "a.safetensors", tmp_path / "b.pth", to="torchvision", fold=True)
    assert not (tmp_path / "b.pth").exists()
