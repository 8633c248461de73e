"""A real nn.Module and a real keras.Model: each framework trains, shows, saves, loads and clones it as it does any
other."""

import copy
import io

import keras
import numpy as np
import pytest
import torch
from conftest import relative

import keras_impl
import torch_impl
from common.arch import get
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


def small(name: str):
    return get(name, depths=(1,) * len(get(name).depths), num_classes=3)


def batch(arch, n: int = 4) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, *((25, 30)[: arch.dims]), arch.in_channels)).astype(np.float32)


def both(arch):
    weights = randomised(arch)
    ours, twin = torch_impl.create_model(arch).eval(), keras_impl.create_model(arch)
    torch_impl.import_weights(ours, weights)
    keras_impl.import_weights(twin, weights)
    return ours, twin


@pytest.mark.parametrize("name", NETS)
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


@pytest.mark.parametrize("name", NETS)
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


def test_keras_takes_symbolic_inputs():
    model = keras_impl.create_model(small("resnet18d"))
    inputs = keras.Input((None, None, 3))
    probabilities = keras.Model(inputs, keras.layers.Softmax()(model(inputs)))
    x = batch(model.plan.arch)
    assert probabilities.output_shape == (None, 3)
    assert np.allclose(np.asarray(probabilities(x)).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_pytorch_saves_loads_and_clones(name):
    arch = small(name)
    model, _ = both(arch)
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(batch(arch), -1, 1)))
    with torch.no_grad():
        expected = model(x)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        buffer.seek(0)
        fresh = torch_impl.create_model(arch).eval()
        fresh.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(fresh(x), expected)
        assert torch.equal(copy.deepcopy(model)(x), expected)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        assert torch.equal(torch.load(buffer, weights_only=False)(x), expected)  # a whole model of our own making


@pytest.mark.parametrize("name", NETS)
def test_pytorch_trains(name):
    model = torch_impl.create_model(small(name), seed=0).train()
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(batch(model.plan.arch), -1, 1)))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimizer.step()
    assert loss.isfinite() and all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnetv2_18", "seresnet18", "msresnet_1d"])
def test_pytorch_exports_with_a_dynamic_batch(name):
    model, _ = both(small(name))
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(batch(model.plan.arch), -1, 1)))
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=64)},))
    more = torch.cat([x, x])
    with torch.no_grad():
        assert torch.allclose(program.module()(more), model(more), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_goes_through_both(dtype):
    arch = small("resnet18")
    weights = randomised(arch)
    x = batch(arch)
    exact, _ = both(arch)
    with torch.no_grad():
        expected = exact(torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))).numpy()
    ours, twin = torch_impl.create_model(arch, dtype=dtype).eval(), keras_impl.create_model(arch, dtype=dtype)
    for package, model in ((torch_impl, ours), (keras_impl, twin)):
        package.import_weights(model, weights)
        back = package.export_weights(model)
        assert all(w.dtype == ("float32" if dtype == "bfloat16" else "float16") for w in back.values())
        assert max(relative(w, back[n]) for n, w in weights.items()) < (5e-3 if dtype == "bfloat16" else 6e-4)
    with torch.no_grad():
        y = (
            ours(torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))).to(getattr(torch, dtype)))
            .float()
            .numpy()
        )
    z = np.asarray(keras.ops.cast(twin(x), "float32"))
    assert relative(expected, y) < 0.1 and relative(expected, z) < 0.1


def test_dropout_and_stochastic_depth_are_off_in_evaluation_and_random_in_training():
    for arch in (small("cifar_resnet110_sd"), get("cifar_wrn16_8", depths=(1, 1, 1), dropout=0.5)):
        ours, twin = both(arch)
        x = batch(arch, 8)
        t = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
        with torch.no_grad():
            assert torch.equal(ours.eval()(t), ours(t))
            assert not torch.equal(ours.train()(t), ours(t))
        assert np.array_equal(np.asarray(twin(x)), np.asarray(twin(x)))
        assert not np.array_equal(np.asarray(twin(x, training=True)), np.asarray(twin(x, training=True)))
