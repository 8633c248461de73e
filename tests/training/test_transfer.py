"""Training that begins with a checkpoint: its images are prepared as that checkpoint's were, and it is the net that is
trained."""

import json
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import relative
from PIL import Image
from test_referees import randomise

from common import weights as canonical
from common.arch import get
from common.checkpoints import port
from common.checkpoints.port import inspect
from common.checkpoints.preprocessing import Preprocessing
from common.cli import cli
from common.errors import RosettaError
from common.init import initial, randomised
from common.parity.backends import Here
from common.training import evaluation, recipe
from common.training import run as training
from common.training.data import Batches, Examples
from common.training.evaluation import Predict

BODY = "stem,layer1,layer2,layer3,layer4"


def rosetta(*words, code=0):
    done = CliRunner().invoke(cli, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def photographs(folder, size):
    """A folder of two classes, of images that are smooth enough to be resized."""
    rng = np.random.default_rng(0)
    for half in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / half / name).mkdir(parents=True)
            for i in range(2):
                coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8))
                coarse.resize(size, Image.Resampling.BICUBIC).save(folder / half / name / f"{i}.png")
    return folder


def of_keras_applications(folder, referees):
    """(its file, our variant, its features in float64 of an image file), as its documents have it."""
    import keras

    net = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    for v in net.variables:
        low, high = {"gamma": (0.2, 0.6), "moving_variance": (0.5, 1.5)}.get(v.path.split("/")[-1], (-0.2, 0.2))
        if v.path.split("/")[-1] != "kernel":
            v.assign(rng.uniform(low, high, v.shape))
    net.save_weights(folder / "net.weights.h5")
    from keras_impl.originals import in_dtype

    with in_dtype("float64"):
        wide = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3))
    wide.set_weights(net.get_weights())

    def features(file):
        image = keras.utils.load_img(file, target_size=(64, 64), interpolation="bilinear")
        x = keras.applications.resnet.preprocess_input(np.asarray(image, np.float64)[None])
        return np.asarray(wide(x, training=False))

    return folder / "net.weights.h5", ["resnet50_keras"], features


def of_timm(folder, referees):
    timm = referees[1]
    net = timm.create_model("resnet18")
    randomise(net)
    (folder / "net").mkdir()
    timm.models.save_for_hf(net, folder / "net", model_config={})
    net.reset_classifier(0)
    net.double().eval()
    how = timm.data.resolve_data_config({"input_size": (3, 64, 64)}, model=net, use_test_size=True)  # as it validates
    assert how["interpolation"] == "bicubic" and how["crop_pct"] == 1.0
    resize, crop, *_ = timm.data.create_transform(**how).transforms

    def features(file):
        pixels = np.asarray(crop(resize(Image.open(file).convert("RGB"))), np.float64)
        x = (pixels / 255 - how["mean"]) / how["std"]
        with torch.no_grad():
            return net(torch.from_numpy(np.moveaxis(x, -1, 0)[None])).numpy()

    return folder / "net", ["resnet18"], features


def of_transformers(folder, referees):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at import
        transformers = pytest.importorskip("transformers")
        from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    net = transformers.ResNetModel(transformers.ResNetConfig(depths=[1, 1, 1, 1]))
    randomise(net)
    net.save_pretrained(folder / "net")
    # what its ResNets are published with (microsoft/resnet-50), with a mean and a deviation of our own
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    processor = ConvNextImageProcessorPil(
        size={"shortest_edge": 64}, crop_pct=0.875, resample=3, image_mean=mean, image_std=std
    )
    processor.save_pretrained(folder / "net")
    net.double().eval()

    def features(file):
        image = Image.open(file).convert("RGB")
        pixels = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
        x = (pixels.astype(np.float64) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
        with torch.no_grad():
            return net(torch.from_numpy(x)).pooler_output.flatten(1).numpy()

    return folder / "net", ["resnet50", "--set", "depths=[1,1,1,1]"], features


@pytest.mark.parametrize(
    "library",
    [pytest.param(of_keras_applications, marks=pytest.mark.slow), of_timm, of_transformers],  # 16 s, 5 s, 5 s
    ids=lambda f: f.__name__[3:],
)
def test_frozen_features_are_the_librarys_own_from_the_file_on(tmp_path, referees, library):
    """Seen: 1e-14 in float64 and 2e-6 in float32; 94 % where red and blue were exchanged and the means ImageNet's."""
    file, variant, features = library(tmp_path, referees)
    # keras.applications' documents squeeze an image into a square
    pictures = photographs(tmp_path / "photographs", (96, 96) if library is of_keras_applications else (97, 80))
    words = ["--data", f"folder:{pictures}", "--size", 64, "--batch", 4, "--epochs", 2, "--freeze", BODY]
    said = rosetta("train", *variant, *words, "--init", file, "--steps", 1, "--out", tmp_path / "run")
    assert f"prepared as {file} has it" in said
    rosetta("train", "--resume", tmp_path / "run", "--quiet")
    found = inspect(tmp_path / "run" / "last.safetensors")
    assert found.preprocessing == inspect(file).preprocessing.fitted(64)
    images = sorted((pictures / "val").rglob("*.png"))
    theirs = np.concatenate([features(image) for image in images])
    bare, body = get(found.arch, num_classes=0), {n: w for n, w in found.weights().items() if not n.startswith("fc.")}
    examples = Examples(np.zeros(len(images), np.int64), None, images)
    for dtype, allowed in (("float64", 1e-12), ("float32", 1e-5)):
        for framework in ("torch", "keras:tensorflow"):
            job = Predict(bare, body, examples, found.preprocessing, dtype)
            ours = np.concatenate([item.value for item in Here(framework).run(job)])
            assert relative(theirs, ours) < allowed, (framework, dtype)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_arrays_are_prepared_as_files_are(tmp_path, order):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
    for i, image in enumerate(x):
        Image.fromarray(np.moveaxis(image, 0, -1)).save(tmp_path / f"{i}.png")
    how = Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 7.0, 8, 8, channel_order=order)
    labels, files = np.zeros(3, np.int64), [tmp_path / f"{i}.png" for i in range(3)]
    (a, _), *_ = Batches(Examples(labels, x), 3, how).epoch()
    (b, _), *_ = Batches(Examples(labels, None, files), 3, how).epoch()
    assert np.array_equal(a, b)
    first = (x[0, 0 if order == "RGB" else 2] / 7.0 - 1.0) / 4.0
    assert relative(first, a[0, 0]) < 1e-6


def test_named_data_are_prepared_as_the_checkpoint_has_it(tmp_path):
    """Pixels by its scale, mean, deviation and order; numbers that are none by their own."""
    net = get("cifar_resnet20", depths=(1, 1, 1), num_classes=2)
    how = Preprocessing((10.0, 20.0, 30.0), (2.0, 3.0, 4.0), 1.0, 224, 256, "bicubic", "BGR")
    canonical.save(tmp_path / "net.safetensors", net, initial(net, 0), {"preprocessing": how.to_json()})
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 12, 12, 3)).astype(np.uint8)
    for name, x in (("pixels", pixels), ("numbers", pixels / 255)):
        y = np.arange(8) % 2
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        rosetta(
            "train", "cifar_resnet20", "--set", "depths=[1,1,1]", "--data", tmp_path / f"{name}.npz", "--steps", 1,
            "--init", tmp_path / "net.safetensors", "--batch", 8, "--quiet", "--out", tmp_path / name,
        )  # fmt: skip
        run = training.Run.load(tmp_path / name)
        data = run.load_data()
        (got, _), *_ = run.batches(data, False).epoch()
        _, begun = training.plan(
            "cifar_resnet20", str(tmp_path / f"{name}.npz"), run.recipe, {"depths": (1, 1, 1)},
            init=str(tmp_path / "net.safetensors"),
        )  # fmt: skip
        assert begun.preprocessing == data.preprocessing  # what a run begins with is what it goes on with
        if name == "pixels":
            wanted = (np.moveaxis(pixels, -1, 1)[:, ::-1] - np.reshape(how.mean, (3, 1, 1))) / np.reshape(
                how.std, (3, 1, 1)
            )
            assert data.preprocessing == how.fitted(12, whole=True)
            assert json.loads(rosetta("evaluate", tmp_path / name, "--json"))["examples"] == 8
        else:
            spread = x.mean((0, 1, 2)).reshape(3, 1, 1), x.std((0, 1, 2)).reshape(3, 1, 1)
            wanted = (np.moveaxis(x, -1, 1) - spread[0]) / spread[1]
            assert "other numbers" in " ".join(data.notes)
        assert relative(wanted, got) < 1e-3


V15 = get("resnet50", depths=(1, 1, 1, 1), widths=(16, 16, 16, 16), width_per_group=64, num_classes=10)
ROWS = {
    "v1 from v1.5": ({"stride_in": 1}, {}, "stride_in is 2 in the file and 1 in what was named"),
    "epsilon": ({"norm_eps": 1e-3}, {}, "norm_eps is 1e-05 in the file"),
    "no squeeze-and-excitation": ({}, {"se_ratio": 16}, "se_ratio is 16 in the file and 0"),
    "no biases": ({}, {"conv_bias": True}, "conv_bias is True in the file and False"),
    "another depth": ({"depths": (1, 1, 2, 1)}, {}, "depths is"),
    "colours": ({"in_channels": 1}, {}, "in_channels is 3 in the file and 1"),
    "another plain net": ({"shortcut": "none", "block": "basic"}, {"block": "basic"}, "shortcut is"),
}


def run_of(arch, init):
    return training.Run("mine", arch, "digits", recipe.get("small"), init=str(init))


@pytest.mark.parametrize("named", [True, False], ids=["our file", "torchvision's names"])
@pytest.mark.parametrize("case", ROWS)
def test_another_nets_weights_are_refused(tmp_path, case, named):
    mine, theirs, expected = ROWS[case]
    given = get(V15, **theirs)
    weights = initial(given, 0)
    if named:
        canonical.save(tmp_path / "net.safetensors", given, weights)
    else:
        canonical.write_safetensors(tmp_path / "net.safetensors", weights, {})
    run = run_of(get(V15, **mine), tmp_path / "net.safetensors")
    with pytest.raises(RosettaError, match=f"is another net than mine: .*{expected}") as refused:
        training.start(run)
    assert ("rosetta port" in str(refused.value)) == (not named and case in ("v1 from v1.5", "epsilon"))


def test_the_way_that_a_refusal_names_is_one(tmp_path):
    """Of a v1 net with torchvision's names, which mean v1.5."""
    net = get(V15, stride_in=1)
    canonical.write_safetensors(tmp_path / "bare.safetensors", initial(net, 0), {})
    with pytest.raises(RosettaError, match="--arch mine"):
        training.start(run_of(net, tmp_path / "bare.safetensors"))
    port.port(tmp_path / "bare.safetensors", tmp_path / "new.safetensors", arch=net, probe=False)
    assert training.start(run_of(net, tmp_path / "new.safetensors"))["fc.weight"].shape == (10, 64)


def test_what_a_checkpoint_does_not_say_is_taken_on_trust_and_said(tmp_path):
    """`cifar_resnet20` and its plain twin have the same names and shapes."""
    plain = get("cifar_plain20", num_classes=10)
    canonical.write_safetensors(tmp_path / "bare.safetensors", initial(get("cifar_resnet20"), 0), {})
    run = run_of(plain, tmp_path / "bare.safetensors")
    assert any("on trust" in n and "shortcut = 'none'" in n for n in training.begins(run, inspect(run.init)))
    canonical.save(tmp_path / "named.safetensors", get("cifar_resnet20"), initial(get("cifar_resnet20"), 0))
    with pytest.raises(RosettaError, match="shortcut is 'pad' in the file and 'none' in what was named.*its own word"):
        training.start(run_of(plain, tmp_path / "named.safetensors"))


def test_classes_and_rates_of_training_are_no_other_net(tmp_path):
    net = get("cifar_resnet20", depths=(1, 1, 1), in_channels=1)
    weights = randomised(net)
    canonical.save(tmp_path / "ten.safetensors", net, weights)
    run = run_of(get(net, num_classes=7, drop_path=0.1, dropout=0.2), tmp_path / "ten.safetensors")
    found = training.start(run)
    assert found["fc.weight"].shape == (7, 64) and np.array_equal(found["conv1.weight"], weights["conv1.weight"])
    assert "fresh classifier, instead of its own of 10" in training.begins(run, inspect(run.init))[-1]
    same = training.start(run_of(net, tmp_path / "ten.safetensors"))
    assert np.array_equal(same["fc.weight"], weights["fc.weight"])


def test_what_evaluate_takes_from_arch_alone_is_said(tmp_path):
    net = get("cifar_resnet20", in_channels=1)
    canonical.write_safetensors(tmp_path / "bare.safetensors", initial(net, 0), {})
    said = rosetta("evaluate", tmp_path / "bare.safetensors", "--data", "digits", "--arch", "cifar_plain20")
    assert "taken on your word: shortcut = 'none'" in said


def test_a_size_is_not_swallowed_where_the_checkpoint_says_another(tmp_path, monkeypatch):
    net = get("cifar_resnet20", depths=(1, 1, 1), num_classes=2)
    how = Preprocessing((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), size=24, resize=30)
    canonical.save(tmp_path / "net.safetensors", net, initial(net, 0), {"preprocessing": how.to_json()})
    pictures = f"folder:{photographs(tmp_path / 'photographs', (40, 40))}"
    asked, real = [], evaluation.answers

    def answers(found, *given, **options):
        asked.append(found.preprocessing)
        return real(found, *given, **options)

    monkeypatch.setattr(evaluation, "answers", answers)
    for more in ((), ("--size", 32)):
        rosetta("evaluate", tmp_path / "net.safetensors", "--data", pictures, *more)
    assert [(h.size, h.resize) for h in asked] == [(24, 30), (32, 40)]
