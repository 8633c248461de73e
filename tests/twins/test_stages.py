"""What users of model libraries expect of a backbone: stages by name, known before; no more than they need; another
head. The same names in both frameworks."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch
from conftest import relative

import keras_impl
import torch_impl
from common.arch import get
from common.errors import RosettaError
from common.init import initial, randomised
from common.names import feature_info

NETS = ["resnetv2_18", "cifar_resnet20", "msresnet_1d"]
NETS += [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18d", "resnetaa50d")]


def small(name: str, **changes):
    return get(name, depths=(1,) * len(get(name).depths), widths=(16, 16, 24, 32)[: len(get(name).depths)], **changes)


def both(arch):
    weights = randomised(arch)
    ours, twin = (p.create_model(arch, dtype="float64", weights=weights) for p in (torch_impl, keras_impl))
    x = np.random.default_rng(0).standard_normal((2, arch.in_channels, *(64, 96)[: arch.dims]))
    return ours.eval(), twin, torch.from_numpy(x), np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_stages_are_known_before_and_computed_as_far_as_they_are_asked_for(name):
    arch = small(name, num_classes=3)
    ours, twin, x, images = both(arch)
    everything, info = ours.features(x), feature_info(arch)
    assert list(everything) == list(info) and ours.feature_info == twin.feature_info == info
    for stage, y in everything.items():
        sizes = [n // info[stage].stride for n in x.shape[2:]]
        assert y.shape == (2, info[stage].channels, *sizes), stage
    *_, before, last = everything
    for names in ((before,), (before, "stem"), ("stem",), (last, before)):
        ran: list = []
        hooks = [m.register_forward_hook(lambda m, i, y, n=n, ran=ran: ran.append(n)) for n, m in ours.named_children()]
        found = ours.features(x, *names)
        for hook in hooks:
            hook.remove()
        assert list(found) == list(names) and ("layer1" not in ran or names != ("stem",))
        assert last in names or last not in ran
        for stage, y in found.items():
            assert torch.equal(y, everything[stage])
            theirs = np.moveaxis(np.asarray(twin.features(images, *names)[stage]), -1, 1)
            assert relative(y.numpy(), theirs) < 1e-13
    with pytest.raises(RosettaError, match="no stage 'layer9'; did you mean layer|no stage 'layer9'; it has stem"):
        ours.features(x, "layer9")


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_a_backbone_holds_what_its_stages_need(tmp_path, name):
    arch = small(name, num_classes=3)
    ours, twin, x, images = both(arch)
    *_, before, last = ours.feature_info
    names = ("stem", before)
    part, theirs = ours.backbone(*names), twin.backbone(*names)
    weights = torch_impl.export_weights(part)
    assert weights.keys() < randomised(arch).keys()
    assert not any(n.startswith(("fc.", f"{last}.")) or n.startswith("norm") for n in weights)
    assert sum(w.size for w in weights.values()) == sum(v.numpy().size for v in theirs.variables)
    wanted = ours.features(x, *names)
    theirs.save(tmp_path / "m.keras")
    for made in (part, copy.deepcopy(part), pickle.loads(pickle.dumps(part)), torch.export.export(part, (x,)).module()):
        found = made(x)
        assert list(found) == list(names) and all(torch.equal(found[n], wanted[n]) for n in names)
    for made in (theirs, keras.saving.load_model(tmp_path / "m.keras")):
        found = made(images)
        assert list(found) == list(names)
        assert all(relative(wanted[n].numpy(), np.moveaxis(np.asarray(found[n]), -1, 1)) < 1e-13 for n in names)
    with pytest.raises(RosettaError, match="in the net that it is made of"):
        keras_impl.export_weights(theirs)
    for package, model, images_of in ((keras_impl, theirs, images), (torch_impl, torch.nn.Flatten(), x)):
        with pytest.raises(RosettaError, match="a fast net is made from the row"):
            package.optimize(model, images_of)
    assert next(part.parameters()) is next(ours.parameters()) and theirs.variables[0] is twin.variables[0]
    assert not part.training and part.train().training and ours.conv1.training  # the layers are the net's own


# 2026-11-25, PyTorch 2.13: it is about to give up TorchScript, which says a word about torch.fx's own annotations
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The TorchScript type system")
@torch.no_grad()
def test_a_backbone_can_be_scripted_traced_and_compiled():
    ours, _, x, _ = both(small("resnet18d"))
    part = ours.backbone("layer2", "layer3")
    wanted = part(x)
    scripted, traced = torch.jit.script(part), torch.jit.trace(part, x, strict=False)
    for made in (scripted, traced, torch.compile(part, backend="eager")):
        assert all(torch.equal(made(x)[name], wanted[name]) for name in wanted)
    with pytest.raises(RosettaError):
        torch_impl.optimize(part, x)


@pytest.mark.parametrize("name", ["cifar_resnet20", pytest.param("resnetv2_18", marks=pytest.mark.slow)])
@torch.no_grad()
def test_another_head_is_the_same_in_both(tmp_path, name):
    arch = small(name, num_classes=3)
    ours, twin, x, images = both(arch)
    features, body = ours.features(x), {n: w for n, w in randomised(arch).items() if not n.startswith("fc.")}
    for classes in (7, 0, 4):
        for net in (ours, twin):
            net.reset_classifier(classes, seed=5)
            assert net.plan.arch == get(arch, num_classes=classes)
        drawn = initial(get(arch, num_classes=classes), 5)
        held = {n: w.astype(np.float64) for n, w in (drawn | body).items()}
        for package, net in ((torch_impl, ours), (keras_impl, twin)):
            found = package.export_weights(net)
            assert found.keys() == held.keys() and all(np.array_equal(found[n], w) for n, w in held.items())
            fresh = package.create_model(net.plan.arch, dtype="float64", weights=held)
            if package is torch_impl:
                assert torch.equal(net(x), fresh.eval()(x))
            else:
                assert np.array_equal(net(images), fresh(images))
                assert len(net.variables) == len(fresh.variables)
        assert relative(ours(x).numpy(), np.asarray(twin(images))) < 1e-13
        assert all(torch.equal(y, features[n]) for n, y in ours.features(x).items())
    twin.save(tmp_path / "m.keras")
    assert np.array_equal(keras.saving.load_model(tmp_path / "m.keras")(images), twin(images))
    assert twin.output.shape == (None, 4) and ours.fc.weight.requires_grad
    for net in (ours, twin):
        with pytest.raises(RosettaError):
            net.reset_classifier(-1)
        assert net.plan.arch.num_classes == 4


def test_a_compiled_net_of_keras_forgets_its_old_head():
    arch = small("cifar_resnet20", num_classes=3)
    net, x = keras_impl.create_model(arch), np.ones((2, 16, 16, 3), np.float32)
    net.compile("sgd", "mse")
    assert net.predict(x, verbose=0).shape == (2, 3)
    net.reset_classifier(4)
    assert net.predict(x, verbose=0).shape == (2, 4)
    with pytest.raises(ValueError, match="compile"):
        net.fit(x, np.zeros((2, 4)), verbose=0)
    net.compile("sgd", "mse")
    before = net.fc.kernel.numpy()
    net.fit(x, np.ones((2, 4)), verbose=0)
    assert not np.array_equal(net.fc.kernel.numpy(), before)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")  # Keras', of an input
def test_a_functional_model_of_keras_has_a_net_for_a_layer(tmp_path):
    import tensorflow as tf

    net = keras_impl.create_model(small("cifar_resnet20", num_classes=0), seed=0)
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, keras.layers.Dense(2)(net(keras.layers.Rescaling(1 / 255)(images))))
    x = np.random.default_rng(0).random((4, 16, 16, 3), np.float32) * 255
    assert model.get_layer(net.name) is net
    model.compile("sgd", "mse")
    before = net.bn1.moving_mean.numpy()
    model.fit(x, np.zeros((4, 2)), verbose=0)
    assert np.abs(net.bn1.moving_mean.numpy() - before).max() > 1e-3
    wanted = np.asarray(model(x))
    model.save(tmp_path / "m.keras")
    assert np.array_equal(keras.saving.load_model(tmp_path / "m.keras")(x), wanted)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert np.array_equal(clone(x), wanted) and clone.get_layer(net.name) is not net
    model.export(tmp_path / "saved", verbose=False)
    assert relative(wanted, tf.saved_model.load(tmp_path / "saved").serve(x).numpy()) < 1e-6
    model.quantize("int8")  # her own layer; Keras has nothing for a convolution, its own neither, and says so
    assert model.layers[-1].kernel.dtype == "int8" and 0 < relative(wanted, np.asarray(model(x))) < 0.05
    net.reset_classifier(3)
    with pytest.raises(RosettaError, match="can't quantize"):
        keras.Model(images, net(images)).quantize("int8")


def test_a_fresh_head_is_the_generators_where_no_seed_is_given():
    ours, twin = (p.create_model(small("cifar_resnet20"), dtype="float64") for p in (torch_impl, keras_impl))
    for net, seed, package in ((ours, torch.manual_seed, torch_impl), (twin, keras.utils.set_random_seed, keras_impl)):
        found = []
        for number in (1, 1, 2):
            seed(number)
            net.reset_classifier(5)
            found.append(package.export_weights(net)["fc.weight"])
        assert np.array_equal(found[0], found[1]) and not np.array_equal(found[1], found[2])
    assert ours.train().fc.training and ours.fc.weight.dtype == torch.float64
