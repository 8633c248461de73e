"""Training: the same run in either framework, and a run that goes on as if it had never stopped."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, relative

import keras_impl
import keras_impl.train
import torch_impl
import torch_impl.train
from common import weights as canonical
from common.arch import get
from common.checkpoints.port import inspect
from common.cli import cli
from common.errors import RosettaError
from common.init import initial, randomised
from common.parity.backends import Here
from common.parity.rules import Rule
from common.training import evaluation, race, recipe, record
from common.training import run as training
from common.training.data import load, sources
from common.training.race import Trained
from common.training.recipe import LossScale, Recipe

IMPLS = {"torch": torch_impl, "keras": keras_impl}


def trainer(framework, arch, how: Recipe, weights=None, **options):
    dtype = how.precision if framework == "keras" else {"float64": "float64"}.get(how.precision, "float32")
    net = IMPLS[framework].create_model(arch, dtype=dtype, weights=initial(arch, 0) if weights is None else weights)
    return IMPLS[framework].train.Trainer(net, how, **options)


def steps(t, n=4, dtype="float64", classes=5):
    rng, losses = np.random.default_rng(0), []
    for step in range(n):
        x, y = rng.standard_normal((6, 3, 13, 10)).astype(dtype), rng.integers(0, classes, 6)
        losses.append(t.step(x, y, t.recipe.rate(step, 2), seed=step)[0])
    return losses


def row(**changes):
    return get("cifar_resnet20", depths=(1, 1, 1), num_classes=5, **changes)


SGD = Rule("SGD", 0.05, momentum=0.9, nesterov=True, weight_decay=1e-2)
RECIPES = {
    "plain": {},
    "smoothing": {"smoothing": 0.1},
    "accumulate": {"accumulate": 4},
    "clip": {"clip": 0.5},
    "ema": {"ema": 0.9},
    "no decay of norms": {"decay_norms": False},
    "adamw": {"rule": Rule("AdamW", 1e-3, weight_decay=0.1, epsilon=1e-6)},
    "all": {"smoothing": 0.1, "accumulate": 3, "clip": 0.5, "ema": 0.5, "decay_norms": False, "warmup": 1.0},
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_steps_in_both_frameworks(name):
    arch = row(shortcut="project")
    how = recipe.get("cifar", precision="float64", epochs=2)
    how = dataclasses.replace(how, rule=SGD, schedule="cosine")
    how = dataclasses.replace(how, **RECIPES[name])
    weights = randomised(arch)
    options = {"frozen": ("stem",), "rates": {"layer2": 0.1, "head": 3.0}} if name == "all" else {}
    a, b = (trainer(f, arch, how, weights, **options) for f in IMPLS)
    assert np.abs(np.array(steps(a)) - steps(b)).max() < 1e-10
    for key, w in a.weights().items():
        assert relative(w, b.weights()[key]) < 1e-9, key
    ours, theirs = a.state(), b.state()
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert relative(value, theirs[key]) < 1e-8, key


def test_every_option_does_something():
    arch, plain = row(), None
    for name, changes in RECIPES.items():
        how = dataclasses.replace(recipe.get("cifar", precision="float64"), rule=SGD)
        t = trainer("torch", arch, dataclasses.replace(how, **changes), randomised(arch))
        steps(t, 2)
        found = np.concatenate([w.ravel() for w in t.weights().values()])
        plain = found if plain is None else plain
        assert (name == "plain") == np.array_equal(found, plain), name


@pytest.mark.parametrize("framework", IMPLS)
def test_frozen_sections_keep_everything_and_the_others_move(framework):
    arch = row(dropout=0.0)
    how = dataclasses.replace(recipe.get("cifar", precision="float64"), rule=SGD)
    weights = randomised(arch)
    t = trainer(framework, arch, how, weights, frozen=("stem", "layer1", "layer2"))
    steps(t)
    for name, w in t.weights().items():
        frozen = name.startswith(("conv1", "bn1", "layer1", "layer2"))
        assert np.array_equal(w, weights[name]) == frozen, name


def test_rates_multiply():
    arch, weights = row(), randomised(row())
    how = dataclasses.replace(recipe.get("cifar", precision="float64"), rule=Rule("SGD", 0.1))
    moves = []
    for times in (1.0, 0.25):
        t = trainer("torch", arch, how, weights, rates={"layer2": times})
        steps(t, 1)
        moves.append(t.weights()["layer2.0.conv1.weight"] - weights["layer2.0.conv1.weight"])
    assert relative(moves[0], moves[1] * 4) < 1e-9


@pytest.mark.parametrize("framework", IMPLS)
@pytest.mark.parametrize("name", ["all", "adamw", "dropout", "float16"])
def test_restored_training_goes_on_to_the_bit(framework, name):
    arch = row(drop_path=0.3) if name == "dropout" else row()
    how = dataclasses.replace(recipe.get("cifar"), rule=SGD)
    how = dataclasses.replace(how, **RECIPES.get(name, {}))
    if name == "float16":
        how = dataclasses.replace(how, precision="mixed_float16", ema=0.9)
    whole = trainer(framework, arch, how)
    if whole.scale:
        whole.scale.value, whole.scale.good = 2.0**15, 1997  # which doubles in the third step: the first after the stop
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((6, 3, 12, 12)).astype("float32"), rng.integers(0, 5, 6)) for _ in range(5)]
    for k, (x, y) in enumerate(batches):
        if k == 2:
            weights, state = whole.weights(), whole.state()
        whole.step(x, y, 0.01, seed=k)
    second = trainer(framework, arch, how, initial(arch, 9))
    second.restore(weights, state)
    for k, (x, y) in list(enumerate(batches))[2:]:
        second.step(x, y, 0.01, seed=k)
    assert whole.scale is None or whole.scale.state() == second.scale.state() == (2.0**16, 2)
    for of in ("weights", "state"):
        a, b = getattr(whole, of)(), getattr(second, of)()
        assert list(a) == list(b) and all(canonical.same(a[n], b[n]) for n in a)


@pytest.mark.parametrize("framework", IMPLS)
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_in_float32_weights(framework, precision):
    t = trainer(framework, row(), recipe.get("cifar", precision=precision, rate=0.05))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3, 12, 12)).astype("float32"), rng.integers(0, 5, 20)
    losses = [t.step(x, y, 0.02)[0] for _ in range(15)]
    assert losses[-1] < 0.6 * losses[0]
    assert {w.dtype.name for w in t.weights().values()} == {"float32"}
    wide = trainer(framework, row(), recipe.get("cifar", rate=0.05))
    loss = wide.step(x, y, 0.02)[0]
    assert loss != losses[0] and abs(loss - losses[0]) < 0.05


def test_a_loss_scale_that_is_too_high_costs_a_step_and_is_halved():
    t = trainer("torch", row(), recipe.get("cifar", precision="mixed_float16"))
    t.scale.value = 2.0**60
    before = t.weights()
    x, y = np.ones((4, 3, 12, 12), "float32"), np.arange(4)
    t.step(x, y, 0.1)
    assert t.scale.value == 2.0**59 and t.steps == 0
    after = t.weights()
    assert all(np.array_equal(after[n], before[n]) for n in before if not n.endswith(("mean", "var")))


def test_the_scale_doubles_after_so_many_good_steps():
    scale = LossScale()
    assert all(scale.update(True) for _ in range(2000)) and scale.value == 2.0**17
    assert not scale.update(False) and scale.value == 2.0**16 and scale.good == 0


def test_keras_own_fit_with_our_rule_is_the_same_run():
    """`compile` and `fit` do what the Trainer does, on the same batches."""
    from keras_impl import optim

    arch, how = row(), dataclasses.replace(recipe.get("cifar"), rule=dataclasses.replace(SGD, rate=0.01))
    t = trainer("keras", arch, how)
    model = keras_impl.create_model(arch, weights=initial(arch, 0))
    model.compile(optim.optimizer(model, how.rule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 3, 12, 12)).astype("float32"), rng.integers(0, 5, 12)
    for k in range(0, 12, 4):
        t.step(x[k : k + 4], y[k : k + 4], 0.01)
    model.fit(np.moveaxis(x, 1, -1), y, batch_size=4, shuffle=False, verbose=0)
    found = keras_impl.export_weights(model)
    assert all(relative(w, found[n]) < 1e-4 for n, w in t.weights().items())


def test_keras_own_fit_of_a_whole_run_is_the_trainers():
    """Data, augmentation, order and rates of two epochs, in Keras' own loop and in ours."""
    from keras_impl import optim
    from keras_impl.train import Rates, feed

    how = recipe.get("small", epochs=2, batch=300, precision="float64")
    run, data = training.plan("cifar_resnet20", "digits", how, {"depths": (1, 1, 1)})
    batches, start = run.batches(data, True), initial(run.arch, 0)
    t = trainer("keras", run.arch, how)
    for step in range(2 * len(batches)):
        epoch, k = divmod(step, len(batches))
        t.step(*batches.batch(epoch, k, batches.order(epoch)), how.rate(step, len(batches)))
    model = keras_impl.create_model(run.arch, weights=start, dtype="float64")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    model.compile(optim.optimizer(model, how.rule), loss)
    model.fit(feed(batches), steps_per_epoch=len(batches), epochs=2, callbacks=[Rates(how)], shuffle=False, verbose=0)
    found, wanted = keras_impl.export_weights(model), t.weights()
    assert all(relative(w, found[n]) < 1e-11 for n, w in wanted.items())
    assert any(relative(w, start[n]) > 0.1 for n, w in wanted.items())


@pytest.mark.parametrize("name", recipe.RECIPES)
def test_a_recipe_is_read_as_it_was_written(name):
    made = dataclasses.replace(recipe.RECIPES[name], accumulate=2, ema=0.5, drops=(0.1, 0.7))
    assert Recipe.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"rate": -1.0}, "rate is -1.0"),
        ({"schedule": "stairs"}, "expected steps, cosine or constant"),
        ({"precision": "float8"}, "expected float32"),
        ({"smoothing": 1.0}, "smoothing is 1.0"),
        ({"accumulate": 999}, "more than the 128"),
        ({"kind": "Lion"}, "expected SGD, Adam or AdamW"),
        ({"smothing": 0.1}, "did you mean.*smoothing"),
        ({"drops": (2.0,)}, "parts of the training"),
        ({"epochs": "many"}, "epochs is 'many'"),
    ],
)
def test_recipes_that_can_not_be(fields, expected):
    with pytest.raises(RosettaError, match=expected):
        recipe.get("cifar", **fields)


def test_sections_that_are_not_there():
    with pytest.raises(RosettaError, match="no section 'layer4'.*layer1, layer2, layer3, head"):
        recipe.learning(row(), recipe.get("cifar"), ("layer4",))
    with pytest.raises(RosettaError, match="nothing is left"):
        recipe.learning(row(), recipe.get("cifar"), ("stem", "layer1", "layer2", "layer3", "head"))


# -- runs


def rosetta(*words, code=0):
    done = CliRunner().invoke(cli, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


SETS = ("--set", "depths=[1,1,1]")


def small(folder, *more, code=0):
    return rosetta(
        "train", "cifar_resnet20", *SETS, "--data", "digits", "--epochs", 2, "--batch", 128, "--out", folder, *more,
        code=code,
    )  # fmt: skip


def events(folder):
    """(tag, step, value) as TensorFlow, which checks their checksums, reads TensorBoard's files."""
    import tensorflow as tf
    from tensorboardX.proto.event_pb2 import Event

    for example in tf.data.TFRecordDataset([str(p) for p in folder.iterdir()]):
        event = Event.FromString(example.numpy())
        yield from ((v.tag, event.step, v.simple_value) for v in event.summary.value)


def test_a_run_and_what_it_leaves(tmp_path):
    said = small(tmp_path / "run")
    assert "done: " in said
    there = {p.name for p in (tmp_path / "run").iterdir()}
    assert there >= {"config.json", "metrics.jsonl", "last.safetensors", "best.safetensors", "curve.png"}
    rows = record.read_metrics(tmp_path / "run")
    tagged = {tag: value for tag, step, value in events(tmp_path / "run" / "log") if step == rows[-1]["step"]}
    assert tagged["test/accuracy"] == pytest.approx(rows[-1]["test_accuracy"]) and "train/loss" in tagged
    assert [r["step"] for r in rows] == [10, 12, 20, 24]
    found = json.loads(rosetta("evaluate", tmp_path / "run", "--framework", "both", "--dtype", "float64", "--json"))
    assert found["same_classes"] == 359 and found["relative"] < 1e-12
    for of in found["backends"].values():
        assert of["accuracy"] == pytest.approx(rows[-1]["test_accuracy"], abs=1 / 359)
        assert np.sum(of["confusion"]) == 359
    said = rosetta("inspect", tmp_path / "run" / "last.safetensors")
    assert "what the training needs to go on" in said and "labels         0, 1, 2, 3" in said
    rosetta("port", tmp_path / "run" / "last.safetensors", tmp_path / "net.weights.h5")
    said = rosetta("evaluate", tmp_path / "net.weights.h5", "--data", "digits", "--confusion", tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 5000 and "most often taken for" in said


@pytest.mark.parametrize("first", IMPLS)
def test_a_run_that_stops_goes_on_to_the_bit(tmp_path, first):
    """With everything that a checkpoint keeps: momenta, the average of weights, the loss' scale."""
    words = ("--framework", first, "--quiet", "--with", "precision=mixed_float16", "--with", "ema=0.9")
    small(tmp_path / "whole", *words)
    small(tmp_path / "run", *words, "--steps", 5)
    assert len(record.read_metrics(tmp_path / "run")) == 0
    rosetta("train", "--resume", tmp_path / "run", "--steps", 9, "--quiet")
    rosetta("train", "--resume", tmp_path / "run", "--quiet")
    for of in ("best", "last"):
        a, b = (canonical.load(tmp_path / n / f"{of}.safetensors")[1] for n in ("whole", "run"))
        assert all(canonical.same(a[n], b[n]) for n in a)
    a, b = (canonical.load_training(tmp_path / n / "last.safetensors")[0] for n in ("whole", "run"))
    assert list(a) == list(b) and all(canonical.same(a[n], b[n]) for n in a)
    rows = [record.read_metrics(tmp_path / n) for n in ("whole", "run")]
    for one, two in zip(*rows, strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


@pytest.mark.parametrize("first", IMPLS)
def test_a_run_goes_on_in_the_other_framework(tmp_path, first):
    """In float64, where nothing but rounding is between them: weights, their average, momenta, what was measured."""
    words = ("--quiet", "--with", "precision=float64", "--with", "ema=0.9")
    small(tmp_path / "whole", *words, "--framework", "torch")
    small(tmp_path / "mixed", *words, "--framework", first, "--steps", 13)
    rosetta("train", "--resume", tmp_path / "mixed", "--framework", next(f for f in IMPLS if f != first), "--quiet")
    files = [tmp_path / n / "last.safetensors" for n in ("whole", "mixed")]
    for a, b in ([canonical.load(f)[1] for f in files], [canonical.load_training(f)[0] for f in files]):
        assert list(a) == list(b) and max(relative(a[n], b[n]) for n in a) < 1e-9
    for one, two in zip(*(record.read_metrics(tmp_path / n) for n in ("whole", "mixed")), strict=True):
        assert {**one, "seconds": 0} == pytest.approx({**two, "seconds": 0}, rel=1e-9)


def test_transfer_takes_what_fits_and_draws_a_new_head(tmp_path):
    arch = row(in_channels=1)
    weights = randomised(arch)
    canonical.save(tmp_path / "given.safetensors", arch, {n: w.astype("float32") for n, w in weights.items()})
    small(
        tmp_path / "run", "--init", tmp_path / "given.safetensors", "--freeze", "stem,layer1", "--quiet", "--steps", 2
    )
    found = canonical.load(tmp_path / "run" / "last.safetensors")[1]
    for name, w in found.items():
        if name.startswith(("conv1", "bn1", "layer1")):
            assert np.array_equal(w, weights[name].astype("float32")), name
    assert found["fc.weight"].shape == (10, 64)


def test_predictions_of_files_folders_and_standard_input(tmp_path, monkeypatch):
    from PIL import Image

    small(tmp_path / "run", "--quiet")
    digits = load("digits")
    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.fromarray(digits.test.x[i, 0]).save(tmp_path / "in" / f"{i}.png")
    found = json.loads(
        rosetta("predict", tmp_path / "in", "--weights", tmp_path / "run", "--framework", "both", "--json", "--top", 2)
    )
    assert len(found["images"]) == 3 and found["relative"] < 1e-5
    assert all({"label", "class", "torch", "keras:tensorflow"} == set(t) for i in found["images"] for t in i["top"])
    done = CliRunner().invoke(
        cli, ["predict", "-", "--weights", str(tmp_path / "run")], input=(tmp_path / "in" / "0.png").read_bytes()
    )
    assert done.exit_code == 0 and done.output.splitlines()[0] == "-"
    assert str(found["images"][0]["top"][0]["label"]) in done.output.splitlines()[1]


def test_a_race_is_even_and_an_unequal_one_is_seen(tmp_path, monkeypatch):
    words = ("race", "cifar_resnet20", *SETS, "--data", "digits", "--steps", 8, "--with", "precision=float64")
    said = rosetta(*words, "--out", tmp_path, "--with", "batch=32", "--measure", 50)
    assert "the same training, to rounding" in said
    found = json.loads((tmp_path / "race.json").read_text())
    a, b = found["losses"].values()
    assert found["equal"] and np.abs(np.array(a) / b - 1).max() < 1e-10
    assert (tmp_path / "race.png").stat().st_size > 10_000

    steps = Trained.through

    def scaled(self, impl):  # as if one framework's batches were 1e-7 brighter from the seventh on
        for i, item in enumerate(steps(self, impl), 1):
            grown = 1 + 1e-7 * (i > 6 and item.part == "step" and self.run.framework == "keras:tensorflow")
            yield dataclasses.replace(item, value=item.value * grown)

    monkeypatch.setattr(Trained, "through", scaled)
    monkeypatch.setattr(race, "started", lambda specs, device: contextlib.nullcontext([Here(s, device) for s in specs]))
    said = rosetta(*words, "--with", "batch=32", "--measure", 50, code=1)
    assert "step 7" in said, said


MANY = {
    "torchrun": (["torch.distributed.run", "--nproc-per-node", "2"], []),
    "keras.distribution": (["common.cli"], ["--framework", "keras:jax", "--devices", "2"]),
    "tf.distribute": (["common.cli"], ["--framework", "keras", "--devices", "2"]),
}


# PyTorch's threads must have ended when Python does: one that lets a tensor go after that aborts the process
ENDED = """
import atexit, os, runpy
def left():
    names = [open(f"/proc/self/task/{t}/comm").read() for t in os.listdir("/proc/self/task")]
    if gloo := [n for n in names if "gloo" in n]:
        print("still there:", gloo, flush=True)
        os._exit(3)
if os.path.exists("/proc/self/task"):
    atexit.register(left)
runpy.run_module("common.cli", run_name="__main__")
"""


# Keras' two ways start JAX and TensorFlow anew, 16 s of one processor each
@pytest.mark.parametrize("way", ["torchrun", *(pytest.param(w, marks=pytest.mark.slow) for w in MANY if "." in w)])
def test_two_processes_or_devices_are_one(tmp_path, way):
    """At the same global batch, through batch normalisation, clipping and a last batch of an odd number."""
    words = ["train", "cifar_resnet20", *SETS, "--data", "digits", "--epochs", "1", "--batch", "358", "--quiet"]
    words += ["--with", "precision=float64", "--with", "clip=1.0", "--with", "warmup=0", "--no-augment"]
    words += ["--hold-out", "0.002"]  # 1,435 are left
    rosetta(*words, "--out", tmp_path / "one", "--steps", 5)
    launch, options = MANY[way]
    if way == "torchrun":
        (tmp_path / "ended.py").write_text(ENDED)
        launch = [*launch, str(tmp_path / "ended.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *launch, *words, *options, "--out", str(tmp_path / "many"), "--steps", "5"],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    a, b = (canonical.load(tmp_path / n / "last.safetensors")[1] for n in ("one", "many"))
    assert max(relative(a[n], b[n]) for n in a) < 1e-9
    a, b = (canonical.load_training(tmp_path / n / "last.safetensors") for n in ("one", "many"))
    assert a[1]["right"] == b[1]["right"] and a[1]["loss"] == pytest.approx(b[1]["loss"], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("framework", IMPLS)
def test_twenty_kills_lose_nothing(tmp_path, framework):
    words = [
        sys.executable, "-m", "common.cli", "train", "cifar_resnet20", *SETS, "--data", "digits", "--epochs", "12",
        "--batch", "64", "--framework", framework, "--save-every", "0.3", "--quiet",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*words, "--out", str(tmp_path / "whole")], check=True, env=env, cwd=ROOT)
    rng, again = (
        np.random.default_rng(0),
        [*words[:4], "--resume", str(tmp_path / "run"), "--save-every", "0.3", "--quiet"],
    )
    kills, command = 0, [*words, "--out", str(tmp_path / "run")]
    while True:
        running = subprocess.Popen(command, env=env, cwd=ROOT)
        config, wait = tmp_path / "run" / "config.json", rng.uniform(0.2, 2.0) if kills < 20 else 600
        while not config.exists():
            time.sleep(0.01)
        begun = time.time() + (0 if framework == "torch" else 3) + 2
        while running.poll() is None and time.time() < begun + wait:
            time.sleep(0.01)
        if running.poll() is not None:
            break
        running.send_signal(signal.SIGKILL)
        running.wait()
        kills, command = kills + 1, again
    assert running.returncode == 0 and kills >= 20
    a, b = (canonical.load(tmp_path / n / "last.safetensors")[1] for n in ("whole", "run"))
    assert all(canonical.same(a[n], b[n]) for n in a)


def test_ctrl_c_stops_after_the_step_with_a_checkpoint(tmp_path):
    words = ["train", "cifar_resnet20", *SETS, "--data", "digits", "--epochs", "500", "--batch", "64"]
    running = subprocess.Popen(
        [sys.executable, "-m", "common.cli", *words, "--out", str(tmp_path / "run")], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.jsonl"
    until = time.time() + 60
    while not (metrics.exists() and metrics.read_text()) and time.time() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 130 and "rosetta train --resume" in said
    step = canonical.load_training(tmp_path / "run" / "last.safetensors")[1]["step"]
    assert step >= 10


def test_fashion_mnist_is_the_same_run_in_float64(tmp_path):
    if not sources._DEBIAN.is_dir():
        pytest.skip("Fashion-MNIST isn't there: Debian's package dataset-fashion-mnist has it")
    said = rosetta(
        "race", "cifar_resnet20", *SETS, "--data", "fashion-mnist", "--recipe", "cifar", "--with", "precision=float64",
        "--with", "warmup=1", "--with", "batch=32", "--steps", 20, "--measure", 64, "--out", tmp_path,
    )  # fmt: skip
    found = json.loads((tmp_path / "race.json").read_text())
    a, b = (np.array(v) for v in found["losses"].values())
    assert np.abs(a / b - 1)[:5].max() < 1e-8, said
    assert found["equal"], said


COMMITTED = ROOT / "docs" / "cifar_resnet20-fashion-mnist"


@pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_committed_run_says_the_same_in_both_frameworks(n):
    """Trained in PyTorch by `rosetta train cifar_resnet20 --data fashion-mnist --epochs 30`."""
    if not sources._DEBIAN.is_dir():
        pytest.skip("Fashion-MNIST isn't there: Debian's package dataset-fashion-mnist has it")
    run = training.Run.load(COMMITTED)
    data = run.load_data()
    data.test = data.test.subset(np.arange(n))
    got, by_backend = evaluation.evaluate(inspect(record.model_of(COMMITTED)), data, "both", dtype="float64")
    assert got.same_classes == n and got.apart < 1e-12
    for found in by_backend.values():
        assert found.accuracy >= (0.935 if n == 10_000 else 0.91)
        if n == 10_000:
            assert found.accuracy == pytest.approx(record.read_metrics(COMMITTED)[-1]["test_accuracy"], abs=2e-4)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cifar_resnet20"], "needs a NAME and --data"),
        (["cifar_resnet2O", "--data", "digits"], "did you mean"),
        (["cifar_resnet20", "--data", "digit"], "did you mean"),
        (["resnet18_1d", "--data", "digits"], "1 axes"),
        (["cifar_resnet20", "--data", "digits", "--set", "num_classes=7"], "the net has 7 classes, and digits has 10"),
        (["cifar_resnet20", "--data", "digits", "--freeze", "layer9"], "no section 'layer9'"),
        (["cifar_resnet20", "--data", "digits", "--times", "layer1"], "expected SECTION=NUMBER"),
        (["cifar_resnet20", "--data", "digits", "--recipe", "cifr"], "did you mean.*cifar"),
        (["cifar_resnet20", "--data", "digits", "--framework", "onnx:torch"], "doesn't train"),
        (["cifar_resnet20", "--data", "digits", "--framework", "jax"], "unknown backend"),
        (["cifar_resnet20", "--data", "digits", "--init", "missing.safetensors"], "no such file"),
        (["cifar_resnet20", "--data", "digits", "--with", "batch=-3"], "batch is -3"),
        (["cifar_resnet20", "--data", "digits", "--devices", "2"], "torchrun --nproc-per-node 2"),
        (["--resume", "nowhere"], "is no run"),
        (["--resume", "nowhere", "--seed", "3"], "without seed"),
        (["cifar_resnet20", "--data", "cifar10", "--data-dir", "nowhere"], "no such file"),
    ],
)
def test_bad_input(words, expected, tmp_path, monkeypatch):
    import re

    monkeypatch.chdir(tmp_path)
    said = rosetta("train", *words, code=2)
    assert re.search(expected, said) and len(said.strip().splitlines()) <= 3, said
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_a_run_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    assert "is there already" in small(tmp_path / "run", code=2)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_weights_of_other_classes_are_refused(tmp_path):
    arch = row(in_channels=1)
    canonical.save(tmp_path / "five.safetensors", arch, initial(arch, 0))
    assert "5 classes" in rosetta("evaluate", tmp_path / "five.safetensors", "--data", "digits", code=2)
    ten = dataclasses.replace(arch, num_classes=10)
    canonical.save(tmp_path / "ten.safetensors", ten, initial(ten, 0), {"labels": "\n".join("abcdefghij")})
    assert "'a' there is '0' here" in rosetta("evaluate", tmp_path / "ten.safetensors", "--data", "digits", code=2)
    assert "is no run" in rosetta("evaluate", tmp_path / "ten.safetensors", code=2)


def test_a_damaged_checkpoint_is_not_gone_on_with(tmp_path):
    small(tmp_path / "run", "--steps", 3, "--quiet")
    path = tmp_path / "run" / "last.safetensors"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    assert "damaged" in rosetta("train", "--resume", tmp_path / "run", code=2)


def test_a_full_disk_leaves_the_checkpoint_before_whole(tmp_path, monkeypatch):
    small(tmp_path / "run", "--steps", 3, "--quiet")
    before = (tmp_path / "run" / "last.safetensors").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(canonical, "write_safetensors", full)
    said = rosetta("train", "--resume", tmp_path / "run", "--quiet", code=2)
    assert "No space left" in said and "nothing was written" in said
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before


def test_a_disk_that_is_really_full_or_read_only_is_one_line(small_disk):
    """Metrics and TensorBoard's events too, in a process that ends."""
    disk = small_disk("900k")

    def resumed():
        words = [sys.executable, "-m", "common.cli", "train", "--resume", disk / "run", "--quiet"]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)

    last = disk / "run" / "last.safetensors"
    small(disk / "run", "--steps", 3, "--quiet")
    before = last.read_bytes()
    with contextlib.suppress(OSError), open(disk / "fill", "wb", buffering=0) as f:
        while f.write(bytes(1024)):
            pass
    done = resumed()
    assert done.returncode == 2 and "No space left on device" in done.stderr and "Traceback" not in done.stderr
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = resumed()
    assert done.returncode == 2 and "Read-only file system" in done.stderr and "Traceback" not in done.stderr
    assert "can't write into" in rosetta("race", "cifar_resnet20", "--data", "digits", "--out", disk / "r", code=2)
    assert last.read_bytes() == before


def test_a_rate_that_is_too_high_is_said_to_be(tmp_path):
    assert "too high" in small(tmp_path / "run", "--rate", 1e6, "--with", "warmup=0", "--epochs", 9, code=2)


def test_torch_draws_masks_from_the_seed_alone():
    arch = row(drop_path=0.5)
    losses = []
    for _ in range(2):
        torch.rand(7)
        t = trainer("torch", arch, recipe.get("cifar"))
        losses.append(steps(t, 2, "float32"))
    assert losses[0] == losses[1]
