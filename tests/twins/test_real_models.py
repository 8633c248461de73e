"""A real nn.Module and a real keras.Model: each framework trains, shows, saves, loads and clones it as it does any
other."""

import copy
import io
import pickle

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import by_default, relative

import keras_impl
import torch_impl
from common.arch import get
from common.errors import RosettaError
from common.init import randomised

NETS = [
    "cifar_resnet20",
    "resnetv2_18",
    "resnext50_32x4d",
    "resnet18d",
    "seresnet18",
    "cifar_resnet110_sd",
    "cifar_wrn16_8",
    "msresnet_1d",
]
TAKEN = ("cifar_resnet20", "resnetv2_18", "seresnet18", "msresnet_1d")  # a kind of block each


def small(name: str):
    return get(name, depths=(1,) * len(get(name).depths), num_classes=3)


def batch(arch, n: int = 4) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, *((25, 30)[: arch.dims]), arch.in_channels)).astype(np.float32)


def nchw(arch, n: int = 4) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(batch(arch, n), -1, 1)))


def both(arch):
    weights = randomised(arch)
    ours, twin = torch_impl.create_model(arch).eval(), keras_impl.create_model(arch)
    torch_impl.import_weights(ours, weights)
    keras_impl.import_weights(twin, weights)
    return ours, twin


@pytest.mark.parametrize("name", by_default(NETS, TAKEN))
def test_keras_saves_loads_and_clones(tmp_path, name):
    arch = small(name)
    _, model = both(arch)
    x = batch(arch)
    expected = np.asarray(model(x))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.plan.arch == arch and np.array_equal(np.asarray(again(x)), expected)
    model.save_weights(tmp_path / "m.weights.h5")
    fresh = keras_impl.create_model(arch)
    fresh.load_weights(tmp_path / "m.weights.h5")
    assert np.array_equal(np.asarray(fresh(x)), expected)
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model) and clone.plan == model.plan
    assert not np.array_equal(np.asarray(clone(x)), expected)  # fresh weights, as Keras' clones have
    clone.set_weights(model.get_weights())
    assert np.array_equal(np.asarray(clone(x)), expected)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert again.plan.arch == arch


def test_keras_keeps_dtype_and_frozenness_through_its_configuration(tmp_path):
    model = keras_impl.create_model(small("cifar_resnet20"), dtype="mixed_bfloat16")
    model.trainable = False
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert (
        again.dtype_policy.name == "mixed_bfloat16" and again.conv1.compute_dtype == "bfloat16" and not again.trainable
    )
    assert again(batch(model.plan.arch)).dtype == "bfloat16"


@pytest.mark.parametrize("name", by_default(NETS, TAKEN))
def test_keras_fits_evaluates_and_predicts(name):
    arch = small(name)
    model = keras_impl.create_model(arch, seed=0)
    x, y = batch(arch, 6), np.array([0, 1, 2, 0, 1, 2])
    model.compile(
        keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    losses = model.fit(x, y, batch_size=4, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    logits = model.predict(x, batch_size=4, verbose=0)
    assert logits.shape == (6, 3) and relative(np.asarray(model(x)), logits) < 1e-5
    assert np.isfinite(model.evaluate(x, y, verbose=0)).all()


def test_keras_summarises_and_counts(capsys):
    model = keras_impl.create_model("resnet50")
    model.summary()
    out = capsys.readouterr().out
    assert "25,557,032" in out and "layer4" in out
    assert model.count_params() == 25_610_152 and model.compute_output_shape((None, 224, 224, 3)) == (None, 1000)


def shape_of(arch, n: int | None = None) -> tuple:
    return (n, *((32, 40)[: arch.dims]), arch.in_channels)


def test_keras_knows_every_shape(capsys):
    net = keras_impl.create_model("resnet50", num_classes=10)
    assert net.conv1.compute_output_shape((None, 224, 223, 3)) == (None, 112, 112, 64)
    assert net.get_layer("layer4").output.shape == (None, None, None, 2048) and net.outputs[0].shape == (None, 10)
    net.summary()
    assert "(None, 10)" in (out := capsys.readouterr().out) and "?" not in out
    for name in TAKEN:
        arch = small(name)
        net = keras_impl.create_model(arch)
        images = keras.Input(shape_of(arch)[1:])
        for what, symbol in net.features(images).items():
            assert symbol.shape[1:] == net.features(np.zeros(shape_of(arch, 1), np.float32))[what].shape[1:], (
                name,
                what,
            )


@pytest.mark.parametrize(
    "name", by_default([*NETS, "resnet50_keras", "resnet50v2_keras", "folded"], [*TAKEN, "resnet50_keras", "folded"])
)
def test_keras_models_of_parts_of_a_net(tmp_path, name):
    """Grad-CAM's, and a new head on a stage: the net's own layers, saved with the model and loaded again."""
    arch = get(small("resnet18"), folded=True) if name == "folded" else small(name)
    net = keras_impl.create_model(arch, weights=randomised(arch))
    x = batch(arch)
    _, first, *_, stage = net.features(x)
    cam = keras.Model(net.input, [net.get_layer(stage).output, net.output])
    images = keras.Input((None,) * arch.dims + (arch.in_channels,))
    pooled = (keras.layers.GlobalAveragePooling1D if arch.dims == 1 else keras.layers.GlobalAveragePooling2D)()
    head = keras.Model(images, keras.layers.Dense(2)(pooled(net.features(images)[stage])))
    features, logits = cam(x)
    assert np.array_equal(features, net.features(x)[stage]) and np.array_equal(logits, net(x))
    net.get_layer(stage).trainable = net.get_layer(first).members[0].trainable = False
    for model in (cam, head):
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        for a, b in zip(keras.tree.flatten(model(x)), keras.tree.flatten(again(x)), strict=True):
            assert np.array_equal(a, b)
        assert not again.get_layer(stage).trainable and len(again.trainable_variables) == len(model.trainable_variables)
        assert len(again.variables) == len(model.variables)


def test_keras_trains_what_is_made_of_a_net():
    net = keras_impl.create_model(small("resnet18"), seed=0)
    before = net.bn1.moving_mean.numpy()
    images = keras.Input((25, 30, 3))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(net.features(images)["layer2"])))
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(model.fit(batch(net.plan.arch), np.array([0, 1, 2, 0]), verbose=0).history["loss"]).all()
    assert np.abs(net.bn1.moving_mean.numpy() - before).max() > 0.001


def test_gradients_of_a_class_by_a_stage():
    """Grad-CAM, before its ReLU, in both frameworks."""
    import tensorflow as tf

    arch = small("resnet18")
    net, x = keras_impl.create_model(arch, weights=randomised(arch)), batch(arch, 1)
    cam = keras.Model(net.input, [net.get_layer("layer3").output, net.output])
    with tf.GradientTape() as tape:
        features, logits = cam(x)
        score = logits[:, 1]
    weights = tf.reduce_mean(tape.gradient(score, features), (1, 2))
    heat = tf.einsum("nhwc,nc->nhw", features, weights).numpy()
    twin = torch_impl.create_model(arch, weights=randomised(arch)).eval()
    seen = []
    twin.layer3.register_forward_hook(lambda m, i, y: seen.append(y))
    logits = twin(nchw(arch, 1))
    (gradient,) = torch.autograd.grad(logits[0, 1], seen[0], retain_graph=True)
    expected = (seen[0] * gradient.mean((2, 3), keepdim=True)).sum(1).detach().numpy()
    assert relative(expected, heat) < 1e-4


@pytest.mark.parametrize("when", ["fresh", "trained", "loaded"])
def test_keras_exports(tmp_path, when):
    import tensorflow as tf

    arch = small("cifar_resnet20")
    net, x = keras_impl.create_model(arch, weights=randomised(arch)), batch(arch)
    if when == "trained":
        net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        net.fit(x, np.array([0, 1, 2, 0]), verbose=0)
    elif when == "loaded":
        net.save(tmp_path / "m.keras")
        net = keras.saving.load_model(tmp_path / "m.keras")
    net.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    assert relative(np.asarray(net(x)), served.serve(x).numpy()) < 1e-6
    assert relative(np.asarray(net(x[:1, 5:])), served.serve(x[:1, 5:]).numpy()) < 1e-6  # of any size


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")  # Keras', of an input
def test_what_keras_would_do_wrong_without_a_word(tmp_path):
    net = keras_impl.create_model(small("cifar_resnet20"))
    with pytest.raises(RosettaError, match=r"save\(\) to a \.keras"):
        net.save(tmp_path / "x.h5")
    for model in (net, keras.Model(net.get_layer("layer3").output, net.output)):
        with pytest.raises(RosettaError, match="can't quantize"):
            model.quantize("int8")
    assert not list(tmp_path.iterdir())


def test_a_net_has_the_frameworks_default_dtype():
    arch, before = small("cifar_resnet20"), keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        torch.set_default_dtype(torch.float64)
        net = keras_impl.create_model(arch)
        assert net.dtype_policy.name == net.conv1.dtype_policy.name == "mixed_bfloat16"
        assert torch_impl.create_model(arch).fc.weight.dtype == torch.float64
        assert keras_impl.create_model(arch, dtype="float32").conv1.compute_dtype == "float32"
        assert torch_impl.create_model(arch, dtype="float32").fc.weight.dtype == torch.float32
    finally:
        keras.config.set_dtype_policy(before)
        torch.set_default_dtype(torch.float32)


def test_keras_takes_symbolic_inputs():
    model = keras_impl.create_model(small("resnet18d"))
    inputs = keras.Input((None, None, 3))
    probabilities = keras.Model(inputs, keras.layers.Softmax()(model(inputs)))
    x = batch(model.plan.arch)
    assert probabilities.output_shape == (None, 3)
    assert np.allclose(np.asarray(probabilities(x)).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("name", by_default(NETS, TAKEN))
def test_pytorch_saves_loads_and_clones(name):
    arch = small(name)
    model, _ = both(arch)
    x = nchw(arch)
    with torch.no_grad():
        expected = model(x)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        buffer.seek(0)
        fresh = torch_impl.create_model(arch).eval()
        fresh.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(fresh(x), expected)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        assert torch.equal(torch.load(buffer, weights_only=False)(x), expected)  # a whole model of our own making


@pytest.mark.parametrize("name", by_default(NETS, TAKEN))
def test_pytorch_trains(name):
    model = torch_impl.create_model(small(name), seed=0).train()
    x = nchw(model.plan.arch)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimizer.step()
    assert loss.isfinite() and all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", TAKEN)
def test_pytorch_exports_with_a_dynamic_batch(name):
    model, _ = both(small(name))
    x = nchw(model.plan.arch)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=64)},))
    more = torch.cat([x, x])
    with torch.no_grad():
        assert torch.allclose(program.module()(more), model(more), atol=1e-5)


def through_a_file(net):
    buffer = io.BytesIO()
    pickle.dump(net, buffer)
    buffer.seek(0)
    return pickle.load(buffer)


def scripted(net):
    """As it is saved and loaded, and not by this project."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(net), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


TOOLS = {
    "pickle": lambda net, x: through_a_file(net),
    "deepcopy": lambda net, x: copy.deepcopy(net),
    "torch.jit.script": lambda net, x: scripted(net),
    "torch.jit.script of what holds it": lambda net, x: scripted(torch.nn.Sequential(net, torch.nn.Identity())),
    "torch.jit.trace": lambda net, x: torch.jit.trace(net, x),
    "torch.fx": lambda net, x: torch.fx.symbolic_trace(net),
    "torch.export": lambda net, x: torch.export.export(net, (x,)).module(),
    "torch.compile": lambda net, x: torch.compile(net, backend="aot_eager"),
}


# 2026-11-25, PyTorch 2.13: it is about to give up TorchScript, which says a word about torch.fx's own annotations
script_warns = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The TorchScript type system")


@script_warns
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", by_default(NETS, TAKEN))
def test_pytorchs_tools_make_the_same_net(name, tool):
    """A scripted one in both modes, where there are no masks to draw: a batch moves the statistics of both alike."""
    arch = small(name)
    ours, _ = both(arch)
    x = nchw(arch)
    made = TOOLS[tool](ours, x)
    with torch.no_grad():
        assert torch.equal(made(x), ours(x))
        if tool == "torch.fx":
            assert torch.isfinite(torch.fx.symbolic_trace(ours.train())(x)).all()
        if tool == "torch.jit.script" and not arch.drop_path and not arch.dropout:
            assert torch.equal(made.train()(x), ours.train()(x)) and torch.equal(made.eval()(x), ours.eval()(x))


@script_warns
def test_masks_are_drawn_in_a_scripted_net_too():
    for rate in ("drop_path", "dropout"):
        arch = get("cifar_resnet20", depths=(1, 1, 1), **{rate: 0.5})
        net = torch_impl.create_model(arch, weights=randomised(arch))
        made, x = torch.jit.script(net), nchw(arch, 8)
        for mine in (net, made):
            y = [mine.train()(x), mine(x), mine.eval()(x), mine(x)]
            assert not torch.equal(y[0], y[1]) and torch.equal(y[2], y[3]), arch


def test_stochastic_depth_drops_whole_examples_at_its_rate():
    from torch_impl.layers import DropPath

    y = DropPath(0.25).train()(torch.ones(4000, 2, 3))
    assert np.allclose(y.unique(), [0, 1 / 0.75]) and torch.equal(y.amin((1, 2)), y.amax((1, 2)))
    assert abs(float(y.mean()) - 1) < 0.05


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", by_default(["resnet18", "resnetv2_18", "seresnet18", "resnet18_1d"], ["resnet18"]))
def test_torchvisions_features_and_pytorchs_quantization(name, referees):
    from torch.ao.quantization import fuse_modules, get_default_qconfig_mapping, quantize_fx
    from torchvision.models.feature_extraction import create_feature_extractor

    arch = small(name)
    ours, _ = both(arch)
    x = nchw(arch)
    with torch.no_grad():
        expected, found = ours.features(x), create_feature_extractor(ours, ["layer1", "layer4", "fc"])(x)
        assert torch.equal(found["layer4"], expected["layer4"]) and torch.equal(found["fc"], ours(x))
        prepared = quantize_fx.prepare_fx(copy.deepcopy(ours), get_default_qconfig_mapping("fbgemm"), (x,))
        prepared(x)
        made = quantize_fx.convert_fx(prepared)
        assert 0 < relative(ours(x).numpy(), made(x).numpy()) < 0.1 and "torch.ao.nn" in str(type(made.conv1))
        if not arch.preact:
            fused = fuse_modules(ours, [["conv1", "bn1"], ["layer1.0.conv1", "layer1.0.bn1"]])
            assert torch.allclose(fused(x), ours(x), atol=1e-5) and isinstance(fused.bn1, torch.nn.Identity)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_goes_through_both(dtype):
    arch = small("resnet18")
    weights = randomised(arch)
    x = batch(arch)
    exact, _ = both(arch)
    with torch.no_grad():
        expected = exact(nchw(arch)).numpy()
    ours, twin = torch_impl.create_model(arch, dtype=dtype).eval(), keras_impl.create_model(arch, dtype=dtype)
    for package, model in ((torch_impl, ours), (keras_impl, twin)):
        package.import_weights(model, weights)
        back = package.export_weights(model)
        assert all(w.dtype == ("float32" if dtype == "bfloat16" else "float16") for w in back.values())
        assert max(relative(w, back[n]) for n, w in weights.items()) < (5e-3 if dtype == "bfloat16" else 6e-4)
    with torch.no_grad():
        y = ours(nchw(arch).to(getattr(torch, dtype))).float().numpy()
    z = np.asarray(keras.ops.cast(twin(x), "float32"))
    assert relative(expected, y) < 0.1 and relative(expected, z) < 0.1


def test_dropout_and_stochastic_depth_are_off_in_evaluation_and_random_in_training():
    for arch in (small("cifar_resnet110_sd"), get("cifar_wrn16_8", depths=(1, 1, 1), dropout=0.5)):
        ours, twin = both(arch)
        x = batch(arch, 8)
        t = nchw(arch, 8)
        with torch.no_grad():
            assert torch.equal(ours.eval()(t), ours(t))
            assert not torch.equal(ours.train()(t), ours(t))
        assert np.array_equal(np.asarray(twin(x)), np.asarray(twin(x)))
        assert not np.array_equal(np.asarray(twin(x, training=True)), np.asarray(twin(x, training=True)))


def test_grouped_convolutions_are_resnexts_paths():
    """Xie et al. 2016, figure 3: (a), 32 paths of 1x1, 3x3 and 1x1 whose outputs are added up, is (c), one 3x3 in 32
    groups, which is what both frameworks have."""
    arch = small("resnext50_32x4d")
    weights = randomised(arch)
    w = {
        name.removeprefix("layer1.0."): torch.from_numpy(v).double()
        for name, v in weights.items()
        if "layer1.0" in name
    }

    def normed(x, bn, at=slice(None)):
        statistics = (w[f"{bn}.{leaf}"][at] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *statistics, eps=arch.norm_eps)

    def path(x, at):
        x = normed(F.conv2d(x, w["conv1.weight"][at]), "bn1", at).relu()
        x = normed(F.conv2d(x, w["conv2.weight"][at], padding=1), "bn2", at).relu()
        return F.conv2d(x, w["conv3.weight"][:, at])

    ours, twin = (p.create_model(arch, dtype="float64", weights=weights) for p in (torch_impl, keras_impl))
    x = nchw(arch).double()
    with torch.no_grad():
        found = ours.eval().features(x)
        y = sum(path(found["stem"], slice(4 * i, 4 * i + 4)) for i in range(32))
        shortcut = normed(F.conv2d(found["stem"], w["downsample.0.weight"]), "downsample.1")
        expected = (normed(y, "bn3") + shortcut).relu().numpy()
    assert relative(expected, found["layer1"].numpy()) < 1e-14
    theirs = twin.features(keras.ops.convert_to_tensor(np.moveaxis(x.numpy(), 1, -1)))["layer1"]
    assert relative(expected, np.moveaxis(np.asarray(theirs), -1, 1)) < 1e-14
