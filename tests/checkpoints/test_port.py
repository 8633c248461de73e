"""Checkpoints of every library, there and back: recognised without a hint, bit-identical, with the library's own
logits."""

import argparse
import dataclasses
import functools
import json
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy
import torch
from conftest import relative
from test_referees import TIMM, TIMM_LARGE, TORCHVISION, TORCHVISION_LARGE, randomise

import keras_impl
import keras_impl.originals
import keras_impl.trace
import torch_impl
from common.arch import VARIANTS, Arch, get
from common.checkpoints import claims, files, port, writers
from common.checkpoints.containers import Container, Entry
from common.checkpoints.libraries import LIBRARIES, RT_DETR, TRANSFORMERS
from common.checkpoints.libraries import timm as timm_rules
from common.checkpoints.libraries.transformers import transformers_config
from common.checkpoints.recognise import recognise
from common.checkpoints.writers import cannot_hold
from common.errors import RosettaError, nearest
from common.init import initial, randomised
from common.tools import frameworks

SMALL = get("resnet18", depths=(1, 1), widths=(16, 32), num_classes=7)


def shapes_only(state, config=None) -> Container:
    """A container of names and shapes: what recognition sees."""
    entries = {
        n: Entry(tuple(t.shape), str(t.dtype).removeprefix("torch."), lambda: np.empty(0)) for n, t in state.items()
    }
    return Container(Path("x"), "PyTorch checkpoint", entries, {"config": config} if config else {})


@pytest.mark.parametrize(
    ("library", "name"),
    [("torchvision", n) for n in TORCHVISION + TORCHVISION_LARGE] + [("timm", n) for n in TIMM + TIMM_LARGE],
)
def test_every_net_of_torchvision_and_timm_is_recognised(referees, library, name):
    models, timm = referees
    with torch.device("meta"):
        theirs = models.get_model(name, weights=None) if library == "torchvision" else timm.create_model(name)
    found = recognise(shapes_only(theirs.state_dict()))
    assert found.arch == VARIANTS[name]
    assert found.library.name in (library, f"{library}-resnetv2", "torchvision")


@pytest.fixture(scope="module")
def transformers(referees):
    """Hugging Face Transformers, which imports torchvision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


@pytest.mark.parametrize("name", [n for n, a in VARIANTS.items() if not cannot_hold(TRANSFORMERS, a)])
def test_every_net_of_transformers_is_recognised(transformers, name):
    config = transformers.ResNetConfig(**transformers_config(VARIANTS[name], ()))
    for kind, classes in ((transformers.ResNetForImageClassification, 1000), (transformers.ResNetModel, 0)):
        with torch.device("meta"):
            theirs = kind(config)
        found = recognise(shapes_only(theirs.state_dict(), config.to_dict()))
        assert found.arch == get(name, num_classes=classes) and found.library is TRANSFORMERS


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda lib: f"{lib.name} {' '.join(sorted(lib.traits[0]))}")
def test_every_net_that_a_library_can_hold_is_recognised_from_its_names(library):
    """From the names that our own rules give, so a rule that is no inverse of itself shows."""
    classes = 0 if library is RT_DETR else 11  # a detector has no classifier
    held = [n for n, arch in VARIANTS.items() if not cannot_hold(library, get(arch, num_classes=classes))]
    assert held
    for name in held:
        arch = get(name, num_classes=classes)
        entries = {s.theirs: Entry(s.shape, "float32", lambda: np.empty(0)) for s in library.slots(arch)}
        file = Container(Path("x"), "", entries)
        if library is TRANSFORMERS:
            file.metadata["config"] = transformers_config(arch, ())
        found = recognise(file)
        same = get(found.arch, **{f: getattr(arch, f) for f in ("drop_path", "dropout", *library.unseen)})
        assert same == arch and [s.canonical for s in found.slots] == [s.canonical for s in library.slots(arch)]


def test_every_variant_of_ours_is_recognised_from_canonical_names_alone():
    """Without metadata, what no shape tells is as is usual, and everything else as it is."""
    told = {"stride_in", "norm_eps", "first_stride", "shortcut", "stem", "stride_block", "drop_path", "dropout"}
    told |= {"antialias", "output_stride", "norm_groups", "weight_std"}
    for name, arch in VARIANTS.items():
        found = recognise(shapes_only({n: torch.empty(s, device="meta") for n, s in port.parameters(arch).items()}))
        differ = {f.name for f in dataclasses.fields(Arch) if getattr(found.arch, f.name) != getattr(arch, f.name)}
        assert differ <= told, (name, differ)


# -- there and back with values: (a net that the library makes, the files it is saved in)


def torch_nets(library, referees, transformers):
    models, timm = referees
    if library == "torchvision":
        return [
            models.resnet18(weights=None, num_classes=7),
            models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=32),
        ]
    if library == "timm":
        r = timm.models.resnet
        se = dict(attn_layer="se")
        narrow = dict(channels=(32, 64, 96, 128))
        return [
            r.ResNet(r.BasicBlock, (1, 1, 2, 1), num_classes=5, block_args=se, **narrow),
            r.ResNet(r.Bottleneck, (1, 2, 1, 1), stem_width=32, stem_type="deep", avg_down=True, **narrow),
            r.ResNet(r.Bottleneck, (1, 1, 1, 1), num_classes=0, in_chans=1, cardinality=16, base_width=8, **narrow),
        ]
    if library == "timm-resnetv2":
        return [timm.create_model("resnetv2_18", num_classes=9)]
    config = transformers.ResNetConfig
    small = dict(embedding_size=64, depths=[1, 2, 1, 1], hidden_sizes=[64, 128, 256, 512])
    return [
        transformers.ResNetForImageClassification(config(num_labels=5, **small)),
        transformers.ResNetForImageClassification(config(downsample_in_bottleneck=True, **small)),
        transformers.ResNetModel(config(layer_type="basic", **small)),
    ]


@pytest.mark.parametrize("library", ["torchvision", "timm", "timm-resnetv2", "transformers"])
def test_pytorch_libraries_there_and_back(tmp_path, referees, transformers, library, here):
    for i, theirs in enumerate(torch_nets(library, referees, transformers)):
        randomise(theirs)
        theirs.eval()
        if library == "transformers":
            source = tmp_path / f"{i}"
            theirs.save_pretrained(source)
            out, kind = tmp_path / f"{i} again", "folder"
        else:
            source, out, kind = tmp_path / f"{i}.pth", tmp_path / f"{i}.again.safetensors", "file"
            torch.save(theirs.state_dict() if i else {"model": theirs.state_dict(), "epoch": 3, "args": None}, source)
        middle = tmp_path / f"{i}.weights.h5"
        done = port.port(source, middle, probe=False)
        x = torch.randn(2, done.arch.in_channels, 65, 48, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected, exact = logits_of(theirs, x), logits_of(theirs.double(), x.double())
            theirs.float()
            ours = torch_impl.load(source).eval()
            assert torch.equal(ours(x), expected), done.name
        twin = keras_impl.load(middle, dtype="float64")
        assert relative(exact.numpy(), keras_impl.trace.trace(twin, x.numpy().astype(np.float64))) <= 1e-12
        back = port.port(middle, out, to=library, library=None)
        assert back.arch == done.arch
        state = safetensors.numpy.load_file(out / "model.safetensors" if kind == "folder" else out)
        if kind == "folder":
            again = type(theirs).from_pretrained(out)
        else:
            again = type(theirs).__new__(type(theirs))
            again = theirs
            again.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in state.items()}, strict=True)
        for name, tensor in torch_state(source).items():
            assert torch.equal(again.state_dict()[name], tensor), name


def torch_state(source):
    if source.is_dir():
        return {n: torch.from_numpy(a) for n, a in safetensors.numpy.load_file(source / "model.safetensors").items()}
    held = torch.load(source, weights_only=True)
    return held.get("model", held)


def logits_of(model, x):
    y = model(x)
    if isinstance(y, torch.Tensor):
        return y
    return y.logits if hasattr(y, "logits") else y.pooler_output.flatten(1)


def keras_nets(library, name):
    """Nets of the library, with values that show a swap."""
    import keras

    if library == "keras-hub":
        hub = pytest.importorskip("keras_hub")
        body = dict(stackwise_num_filters=[64, 128], stackwise_num_blocks=[1, 2], stackwise_num_strides=[1, 2])
        rows = [
            ([64], [7], "basic_block", False),
            ([64], [7], "bottleneck_block", True),
            ([32, 32, 64], [3, 3, 3], "bottleneck_block_vd", False),
            ([32, 32, 64], [3, 3, 3], "basic_block_vd", False),
        ]
        nets = []
        for filters, kernels, block, preact in rows:
            b = hub.models.ResNetBackbone(
                input_conv_filters=filters, input_conv_kernel_sizes=kernels, block_type=block,
                use_pre_activation=preact, **body,
            )  # fmt: skip
            nets.append(
                hub.models.ResNetImageClassifier(backbone=b, num_classes=5) if preact or len(kernels) > 1 else b
            )
    else:
        make = getattr(keras.applications, name)
        nets = [make(weights=None, classes=9, classifier_activation=None, input_shape=(65, 48, 3))]
    rng = np.random.default_rng(0)
    for net in nets:
        for v in net.variables:
            low, high = {"gamma": (0.2, 0.6), "moving_variance": (0.5, 1.5)}.get(v.path.split("/")[-1], (-0.2, 0.2))
            if v.path.split("/")[-1] != "kernel" and "seed" not in v.path:
                v.assign(rng.uniform(low, high, v.shape))
    return nets


@pytest.mark.parametrize(
    "library, name",
    [
        pytest.param("keras.applications", "ResNet50", marks=pytest.mark.slow),  # 16 s, the ways are V2's
        ("keras.applications", "ResNet50V2"),
        ("keras-hub", ""),
    ],
)
def test_keras_libraries_there_and_back(tmp_path, library, name):
    import keras

    with keras_impl.originals.in_dtype("float64"):
        nets = keras_nets(library, name)
    for i, theirs in enumerate(nets):
        files = [tmp_path / f"{i}.weights.h5", tmp_path / f"{i}.keras"]
        theirs.save_weights(files[0])
        theirs.save(files[1])
        if library == "keras.applications":
            files.append(tmp_path / f"{i}.h5")
            theirs.save(files[2])
        x = np.random.default_rng(1).standard_normal((2, 3, 65, 48))
        y = np.asarray(theirs(np.moveaxis(x, 1, -1), training=False))
        y = y if y.ndim == 2 else y.mean((1, 2))
        found = [port.inspect(f) for f in files]
        assert [bool(f.claim) for f in found] == [False, True, True][: len(files)]  # what a whole model says
        assert len({f.arch for f in found}) == 1 and {f.library.name for f in found} == {library}
        ours = torch_impl.load(files[0], dtype="float64").eval()
        assert relative(y, ours(torch.from_numpy(x)).detach().numpy()) <= 1e-12
        twin = keras_impl.load(files[1], dtype="float64")
        assert relative(y, keras_impl.trace.trace(twin, x)) <= 1e-12

        middle = tmp_path / f"{i}.safetensors"
        port.port(files[0], middle)
        expected = [np.asarray(v) for v in theirs.weights]
        outs = [tmp_path / f"{i} again.weights.h5"] + [tmp_path / f"{i} again.h5"] * (library == "keras.applications")
        for out in outs:
            port.port(middle, out, to=library, probe=False)
            for v in theirs.weights:
                if "seed" not in v.path:
                    v.assign(np.zeros(v.shape))
            theirs.load_weights(out)
            for v, w in zip(theirs.weights, expected, strict=True):
                assert np.array_equal(np.asarray(v), w), (out.name, v.path)
        if library == "keras.applications":
            port.port(middle, tmp_path / f"{i} again.keras", to=library, probe=False)
            again = keras.saving.load_model(tmp_path / f"{i} again.keras")
            for v, w in zip(again.weights, expected, strict=True):
                assert np.array_equal(np.asarray(v), w), v.path

        # as a Keras of before it kept names beside its arrays would have written it
        bare = tmp_path / f"{i} bare.weights.h5"
        shutil.copy(files[0], bare)
        with h5py.File(bare, "a") as f:
            f.visititems(lambda _, o: o.attrs.pop("name", None) and None)
        if library == "keras.applications":
            by_order = port.inspect(bare)
            assert by_order.arch == found[0].arch and "by class and position" in " ".join(by_order.notes)
            a, b = by_order.weights(), found[0].weights()
            assert all(np.array_equal(a[n], b[n]) for n in b)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101, 152])
@pytest.mark.parametrize("version", ["", "V2"])
def test_every_net_of_keras_applications_is_recognised_from_its_files(tmp_path, depth, version):
    import keras

    theirs = getattr(keras.applications, f"ResNet{depth}{version}")(weights=None, classifier_activation=None)
    theirs.save_weights(tmp_path / "a.weights.h5")
    theirs.save(tmp_path / "a.h5")
    theirs.save(tmp_path / "a.keras")
    shutil.copy(tmp_path / "a.weights.h5", tmp_path / "bare.weights.h5")
    with h5py.File(tmp_path / "bare.weights.h5", "a") as f:
        f.visititems(lambda _, o: o.attrs.pop("name", None) and None)
    for file in sorted(tmp_path.iterdir()):
        found = port.inspect(file)
        assert found.name == f"resnet{depth}{version.lower()}_keras" and found.library.name == "keras.applications"
        weights = found.weights()
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype("float32")
    logits = torch_impl.create_model(found.arch, weights=weights).eval()(torch.from_numpy(x)).detach().numpy()
    assert relative(np.asarray(theirs(np.moveaxis(x, 1, -1), training=False)), logits) <= 1e-4


HUBS = {  # what KerasHub's presets are built from: blocks, kind, pre-activation, stem
    "resnet18": ([2, 2, 2, 2], "basic_block", False, ([64], [7])),
    "resnet34": ([3, 4, 6, 3], "basic_block", False, ([64], [7])),
    "resnet50": ([3, 4, 6, 3], "bottleneck_block", False, ([64], [7])),
    "resnet101": ([3, 4, 23, 3], "bottleneck_block", False, ([64], [7])),
    "resnet152": ([3, 8, 36, 3], "bottleneck_block", False, ([64], [7])),
    "resnetv2_50": ([3, 4, 6, 3], "bottleneck_block", True, ([64], [7])),
    "resnetv2_101": ([3, 4, 23, 3], "bottleneck_block", True, ([64], [7])),
    "resnet18_vd": ([2, 2, 2, 2], "basic_block_vd", False, ([32, 32, 64], [3, 3, 3])),
    "resnet101d": ([3, 4, 23, 3], "bottleneck_block_vd", False, ([32, 32, 64], [3, 3, 3])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HUBS)
def test_kerashubs_nets_are_recognised_from_their_files(tmp_path, name):
    hub = pytest.importorskip("keras_hub")
    depths, block, preact, (filters, kernels) = HUBS[name]
    body = hub.models.ResNetBackbone(
        input_conv_filters=filters, input_conv_kernel_sizes=kernels, stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=depths, stackwise_num_strides=[1, 2, 2, 2], block_type=block, use_pre_activation=preact,
    )  # fmt: skip
    theirs = hub.models.ResNetImageClassifier(backbone=body, num_classes=1000)
    theirs.save_weights(tmp_path / "a.weights.h5")
    theirs.save(tmp_path / "a.keras")
    for file in sorted(tmp_path.iterdir()):
        found = port.inspect(file)
        assert found.name == name and found.library.name == "keras-hub", found.name
        found.weights()


# -- real checkpoints


@pytest.mark.parametrize("name", ["resnet20-12fca82f", pytest.param("resnet56-4bfd9763", marks=pytest.mark.slow)])
def test_real_checkpoints_in_keras_classify_real_images_as_they_do_in_pytorch(tmp_path, shared, name):
    data = np.load(shared / "cifar10_test1000.npz")
    expected = np.load(shared / f"{name.split('-')[0]}_expected.npz")["logits_float64"]
    done = port.port(shared / f"{name}.th", tmp_path / "a.weights.h5", probe=False)
    assert done.name == f"cifar_{name.split('-')[0]}" and done.source.library.name == "akamaster"
    assert done.source.preprocessing.mean == tuple(data["mean"]) and len(done.source.labels) == 10
    assert "shortcut" in done.source.told
    x = (data["x"] / np.float32(255) - data["mean"]) / data["std"]  # in float32, as theirs
    x = np.moveaxis(x.astype(np.float64), -1, 1)
    logits = keras_impl.trace.trace(keras_impl.load(tmp_path / "a.weights.h5", dtype="float64"), x)
    assert relative(expected, logits) <= 1e-12
    assert (logits.argmax(1) == expected.argmax(1)).all()
    assert (logits.argmax(1) == data["y"]).mean() == (expected.argmax(1) == data["y"]).mean() > 0.75


def test_the_name_of_a_file_must_be_its_checksum(tmp_path, shared):
    wrong = tmp_path / "resnet20-12fca82e.th"
    shutil.copy(shared / "resnet20-12fca82f.th", wrong)
    with pytest.raises(RosettaError, match="SHA-256 begins with 12fca82f"):
        port.inspect(wrong)


# -- our own containers


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".weights.h5", ".keras"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_our_own_files_in_every_container(tmp_path, suffix, dtype):
    weights = {n: w.astype(dtype) for n, w in randomised(SMALL).items()}
    first = tmp_path / "a.safetensors"
    port.canonical.save(first, SMALL, weights)
    out = tmp_path / f"b{suffix}"
    done = port.port(first, out, probe=False)
    assert done.dtype == dtype
    found = port.inspect(out)
    assert found.arch == SMALL and not found.told
    again = found.weights()
    assert all(port.canonical.same(again[n], weights[n]) for n in weights)


def test_keras_itself_reads_what_is_written_without_it(tmp_path):
    import keras

    for family, arch in {
        "deep": get("resnet50d", depths=(1, 2), widths=(16, 32), se_ratio=4, num_classes=3),
        "preact": get("resnetv2_50", depths=(1, 2), widths=(16, 32), kernels=(3, 5)),
        "signal": get("resnet18_1d", depths=(1, 1), widths=(8, 16)),
    }.items():
        weights = randomised(arch)
        port.canonical.save(tmp_path / "a.safetensors", arch, weights)
        for suffix in (".weights.h5", ".keras"):
            port.port(tmp_path / "a.safetensors", tmp_path / f"a{suffix}", probe=False, force=True)
        fresh = keras_impl.create_model(arch, seed=5)
        fresh.load_weights(tmp_path / "a.weights.h5")
        loaded = keras.saving.load_model(tmp_path / "a.keras")
        fresh.save_weights(tmp_path / "theirs.weights.h5")
        for model in (fresh, loaded, keras_impl.load(tmp_path / "theirs.weights.h5") if family == "x" else fresh):
            found = keras_impl.export_weights(model)
            assert all(np.array_equal(found[n], weights[n]) for n in weights), family
        # and what Keras writes is read without it, row or no row
        found = port.inspect(tmp_path / "theirs.weights.h5", arch=arch).weights()
        assert all(np.array_equal(found[n], weights[n]) for n in weights)


def test_pytorch_files_of_ours_load_strictly_in_torchvision(tmp_path, referees):
    models, _ = referees
    arch = get("resnet18", num_classes=7)
    port.canonical.save(tmp_path / "a.safetensors", arch, randomised(arch))
    port.port(tmp_path / "a.safetensors", tmp_path / "a.pt")
    models.resnet18(num_classes=7).load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True), strict=True)


def test_bfloat16_is_widened_exactly(tmp_path):
    state = {n: torch.from_numpy(w).bfloat16() for n, w in randomised(SMALL).items()}
    import safetensors.torch

    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        found = port.inspect(tmp_path / name)
        assert "widened" in " ".join(found.notes)
        assert all(np.array_equal(w, state[n].float().numpy()) for n, w in found.weights().items())


@pytest.mark.parametrize("package", [torch_impl, keras_impl])
def test_mixed_dtypes_are_loaded_as_the_widest(tmp_path, package):
    """Convolutions in float16 come first, and norms in float32 must not be rounded to them."""
    weights = {n: w.astype("float16" if w.ndim > 1 else "float32") for n, w in randomised(SMALL).items()}
    safetensors.numpy.save_file(weights, tmp_path / "a.safetensors")
    found = port.inspect(tmp_path / "a.safetensors")
    assert found.read_as == "float32" and "float16, float32" in " ".join(found.notes)
    loaded = package.export_weights(package.load(tmp_path / "a.safetensors"))
    assert all(w.dtype == np.float32 and np.array_equal(w, weights[n]) for n, w in loaded.items())
    port.port(tmp_path / "a.safetensors", tmp_path / "b.safetensors", probe=False)
    assert all(
        port.canonical.same(w, weights[n]) for n, w in port.inspect(tmp_path / "b.safetensors").weights().items()
    )


# -- edits


@pytest.mark.parametrize("package", [torch_impl, keras_impl])
def test_a_file_goes_into_a_net_that_is_there(tmp_path, package):
    arch = get("resnet18", depths=(1, 1, 1, 1), widths=(8, 8, 8, 8), num_classes=5)
    weights = randomised(arch)
    port.canonical.save(tmp_path / "a.safetensors", arch, weights)
    port.port(tmp_path / "a.safetensors", tmp_path / "a.weights.h5", probe=False)
    for suffix, dtype in ((".safetensors", "float32"), (".weights.h5", "float64")):
        net = package.create_model(arch, dtype=dtype, seed=1)
        assert package.load(tmp_path / f"a{suffix}", into=net) is net
        found = package.export_weights(net)
        assert all(found[n].dtype == dtype and np.array_equal(found[n], w) for n, w in weights.items())
    folded, loaded = (
        package.create_model(arch, seed=1, folded=True),
        package.load(tmp_path / "a.safetensors", folded=True),
    )
    package.load(tmp_path / "a.safetensors", into=folded)
    loaded = package.export_weights(loaded)
    assert all(np.array_equal(w, loaded[n]) for n, w in package.export_weights(folded).items())

    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    data[-100] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(data)
    for file, other, words in (
        ("damaged", arch, "its checksum is"),
        ("a", get(arch, norm_eps=1e-3), "another net than the one that was named: norm_eps"),
        ("a", get(arch, num_classes=6), "misshapen"),
    ):
        net = package.create_model(other, seed=1)
        before = package.export_weights(net)
        with pytest.raises(RosettaError, match=words):
            package.load(tmp_path / f"{file}.safetensors", into=net)
        assert all(np.array_equal(w, before[n]) for n, w in package.export_weights(net).items())


@pytest.mark.parametrize("how", ["together", "mapped"])
def test_a_system_that_gives_less_than_it_was_asked_for(tmp_path, monkeypatch, how):
    weights, path = randomised(SMALL), tmp_path / "a.safetensors"
    port.canonical.save(path, SMALL, weights)
    found, real = port.inspect(path), os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: real(fd, [parts[0][: len(parts[0]) // 2]], at))
    assert all(np.array_equal(w, weights[n]) for n, w in found.weights(how).items())
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(RosettaError, match="can't be read any more"):
        found.weights(how)


def test_heads_and_channels(tmp_path):
    weights = randomised(SMALL)
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    port.canonical.save(source, SMALL, weights)
    done = port.port(source, out, num_classes=3, in_channels=1)
    found = port.inspect(out)
    assert found.arch == get(SMALL, num_classes=3, in_channels=1) and len(done.notes) == 2
    new = found.weights()
    assert new["fc.weight"].shape == (3, 32) and not new["fc.bias"].any() and new["fc.weight"].std() > 0.1
    assert np.array_equal(new["conv1.weight"], weights["conv1.weight"].sum(1, keepdims=True))
    port.port(source, tmp_path / "c.safetensors", num_classes=3, in_channels=1)
    assert (tmp_path / "c.safetensors").read_bytes() == out.read_bytes()
    port.port(source, tmp_path / "d.safetensors", num_classes=3, seed=1)
    drawn = initial(get(SMALL, num_classes=3), 1)["fc.weight"]
    assert np.array_equal(port.inspect(tmp_path / "d.safetensors").weights()["fc.weight"], drawn)
    assert not np.array_equal(drawn, new["fc.weight"])
    # grey images as one channel, or three times the same: the same net
    grey = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    one = torch_impl.load(out, dtype="float64").eval()
    three = torch_impl.load(tmp_path / "d.safetensors", dtype="float64").eval()
    one.fc, three.fc = torch.nn.Identity(), torch.nn.Identity()
    assert relative(one(grey).detach().numpy(), three(grey.expand(-1, 3, -1, -1)).detach().numpy()) <= 1e-6
    port.port(source, tmp_path / "e.safetensors", num_classes=0)
    assert port.inspect(tmp_path / "e.safetensors").arch.num_classes == 0


def test_preprocessing_and_labels_travel(tmp_path, shared):
    port.port(shared / "resnet20-12fca82f.th", tmp_path / "a.safetensors")
    port.port(tmp_path / "a.safetensors", tmp_path / "b.keras", probe=False)
    port.port(tmp_path / "b.keras", tmp_path / "c.pt", probe=False)
    found = port.inspect(tmp_path / "c.pt")
    assert found.labels[:2] == ("airplane", "automobile")
    assert found.preprocessing.size == 32 and found.preprocessing.std == (0.229, 0.224, 0.225)


def test_hugging_face_says_its_images_and_labels(tmp_path, transformers):
    config = transformers.ResNetConfig(depths=[1, 1, 1, 1], embedding_size=64, id2label={0: "cat", 1: "dog"})
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]})
    )
    found = port.inspect(tmp_path / "m")
    assert found.labels == ("cat", "dog") and found.preprocessing.mean == (0.5, 0.5, 0.5)


# -- verification


@pytest.mark.parametrize(
    ("library", "name", "suffix"),
    [
        ("torchvision", "resnet18", ".pth"),
        ("timm", "seresnet18", ".safetensors"),
        ("timm-resnetv2", "resnetv2_18", ".safetensors"),
        ("transformers", "resnet18", ""),
        ("keras-hub", "resnet18", ".weights.h5"),
    ],
)
def test_the_source_library_itself_is_asked(tmp_path, transformers, library, name, suffix):
    arch = get(name, num_classes=5)
    source = tmp_path / f"a{suffix}"
    writers.write(source, writers.target_of(source, library, arch), arch, randomised(arch))
    done = port.port(source, tmp_path / "b.safetensors", verify_with_source=True, probe=False)
    ((of, apart, _),) = done.probes
    assert library in of and apart <= 1e-12


def test_a_library_that_cannot_be_imported_is_not_said_to_lack_the_model(tmp_path, monkeypatch):
    arch = get("resnet18", widths=(8, 8, 8, 8), num_classes=5)
    source = tmp_path / "a.safetensors"
    writers.write(source, writers.target_of(source, "torchvision", arch), arch, randomised(arch))
    with pytest.raises(RosettaError, match="no name that torchvision knows"):
        port.port(source, tmp_path / "b.safetensors", verify_with_source=True, probe=False)

    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(frameworks.importlib, "import_module", broken)
    monkeypatch.setattr(frameworks, "_kept", ["declared already"])
    with pytest.raises(RosettaError, match="can't import torchvision.*: operator torchvision::nms does not exist"):
        frameworks.peer("torchvision")


def test_what_is_not_the_same_is_not_kept(tmp_path, monkeypatch, referees):
    from torch_impl import originals

    arch = get("resnet18", num_classes=5)
    source, out = tmp_path / "a.pth", tmp_path / "b.safetensors"
    writers.write(source, writers.target_of(source, "torchvision", arch), arch, randomised(arch))
    real = originals.logits
    monkeypatch.setattr(originals, "logits", lambda found, x: real(found, x) + 1e-9)
    with pytest.raises(port.NotTheSame, match="not kept"):
        port.port(source, out, verify_with_source=True, probe=False)
    assert not out.exists()
    with pytest.raises(port.NotTheSame, match="is kept"):
        port.port(source, out, verify_with_source=True, probe=False, keep=True)
    assert port.inspect(out).arch == arch


def test_an_error_in_writing_is_found_when_the_file_is_read_back(tmp_path, monkeypatch):
    source, out = tmp_path / "a.safetensors", tmp_path / "b.weights.h5"
    port.canonical.save(source, SMALL, randomised(SMALL))
    real = writers.stored

    def wrong(slots, weights):
        arrays = real(slots, weights)
        arrays["conv1/kernel"] = arrays["conv1/kernel"].swapaxes(0, 1)
        return arrays

    monkeypatch.setattr(writers, "stored", wrong)
    with pytest.raises(RosettaError, match="reads back otherwise than written, at conv1.weight"):
        port.port(source, out)
    assert not out.exists()


def test_the_dry_run_shows_every_tensor_and_writes_nothing(tmp_path):
    from click.testing import CliRunner

    from common.cli import cli

    arch = get("resnet18", num_classes=7)
    source = tmp_path / "a.pth"
    writers.write(source, writers.target_of(source, "torchvision", arch), arch, randomised(arch))
    done = CliRunner().invoke(cli, ["port", str(source), str(tmp_path / "b.weights.h5"), "--dry-run"])
    assert done.exit_code == 0 and "nothing was written" in done.output and not (tmp_path / "b.weights.h5").exists()
    rows = {line.split()[1]: line for line in done.output.splitlines() if len(line.split()) > 3}
    assert set(port.parameters(arch)) <= set(rows)
    assert "layer2/members/basic_block/downsample/members/conv2d/vars/0" in rows["layer2.0.downsample.0.weight"]
    assert "OIHW to HWIO" in rows["layer2.0.downsample.0.weight"]
    assert "num_batches_tracked" in done.output and "nothing reads" in done.output


# -- what isn't there, and what is there and means something else


def spoil(arch, **changes) -> Container:
    state = {n: torch.empty(s, device="meta") for n, s in port.parameters(arch).items()}
    for name, shape in changes.items():
        name = name.replace("__", ".")
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.empty(shape, device="meta")
    return shapes_only(state)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer2__1__conv2__weight": None}, r"- layer2\.1\.conv2\.weight"),
        ({"layer1__0__se__conv__weight": (1, 1, 5)}, r"\+ layer1\.0\.se\.conv\.weight"),
        (
            {"layer3__0__conv1__weight": (256, 128, 5, 5)},
            r"(?s)- layer3.*\+ layer3\.0\.conv1\.weight \(256, 128, 5, 5\)",
        ),
        ({"layer2__0__bn1__running_mean": None}, "running_mean"),
        ({"conv1__weight": None}, "no first convolution"),
    ],
)
def test_another_net_with_the_right_names_is_refused_with_what_broke_it(changes, words):
    with pytest.raises(RosettaError, match=words) as error:
        recognise(spoil(VARIANTS["resnet18"], **changes))
    assert any(w in str(error.value) for w in ("recognised as resnet18", "first convolution", "ECA"))


def test_a_net_without_a_norm_after_its_stem_is_told_what_it_lacks():
    with pytest.raises(
        RosettaError, match=r"no norm follows its first convolution \(bn1\), nor its last block \(norm\)$"
    ):
        recognise(
            spoil(VARIANTS["resnet18"], **{f"bn1__{n}": None for n in "weight bias running_mean running_var".split()})
        )
    bare = {n: torch.empty(s, device="meta") for n, s in port.parameters(VARIANTS["resnet18"]).items()}
    with pytest.raises(RosettaError, match="were they folded"):
        recognise(shapes_only({n: t for n, t in bare.items() if "bn" not in n and "downsample.1" not in n}))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "best_acc1": torch.tensor(71.5), "epoch": 3, "arch": "resnet18"},
        lambda s: {"loss": torch.tensor(0.1), "model": s},
        lambda s: {"rng": torch.zeros(5000, dtype=torch.uint8), "net": {f"module.{n}": t for n, t in s.items()}},
        lambda s: {"state_dict": {f"model.{n}": t for n, t in s.items()} | {"loss.weight": torch.ones(7)}},
        lambda s: {"n_averaged": torch.tensor(5)} | {f"module.{n}": t for n, t in s.items()},
        lambda s: {f"_orig_mod.module.{n}": t for n, t in s.items()},
    ],
)
def test_state_dicts_as_training_scripts_keep_them(tmp_path, wrap):
    weights = randomised(SMALL)
    torch.save(wrap({n: torch.from_numpy(w) for n, w in weights.items()}), tmp_path / "a.pth")
    found = port.inspect(tmp_path / "a.pth")
    assert found.arch == SMALL and all(np.array_equal(w, weights[n]) for n, w in found.weights().items())


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.", "model.timm_model."])
def test_prefixes_go_in_every_container(tmp_path, prefix):
    weights = randomised(SMALL)
    named = {f"{prefix}{n}": w for n, w in weights.items()} | {"criterion.weight": np.ones(7, np.float32)}
    safetensors.numpy.save_file(named, tmp_path / "a.safetensors")
    found = port.inspect(tmp_path / "a.safetensors")
    assert found.arch == SMALL and found.where(found.slots[0]) == f"{prefix}conv1.weight"
    assert "not one of those under" in found.unused["criterion.weight"]
    assert all(np.array_equal(w, weights[n]) for n, w in found.weights().items())


def test_names_of_nobody():
    with pytest.raises(RosettaError, match="names that no library here gives a ResNet: blocks.0.attn.qkv.weight"):
        recognise(shapes_only({"blocks.0.attn.qkv.weight": torch.empty(3, 3), "pos_embed": torch.empty(3)}))


def test_what_was_named_must_be_what_is_there():
    held = spoil(VARIANTS["resnet50"])
    assert recognise(held, arch=VARIANTS["resnet50_v1"]).arch == VARIANTS["resnet50_v1"]
    assert recognise(held, overrides={"stride_in": 1}).arch == VARIANTS["resnet50_v1"]
    with pytest.raises(RosettaError, match=r"depths is \(3, 4, 6, 3\) in the file and \(3, 4, 23, 3\)"):
        recognise(held, arch=VARIANTS["resnet101"])
    with pytest.raises(RosettaError, match="--set contradicts"):
        recognise(held, overrides={"groups": 2})
    with pytest.raises(RosettaError, match="did you mean timm"):
        recognise(held, library="tim")


def test_a_variant_is_named_whatever_its_classes(tmp_path):
    port.canonical.save(
        tmp_path / "a.safetensors", get("resnet18", num_classes=4), randomised(get("resnet18", num_classes=4))
    )
    assert port.inspect(tmp_path / "a.safetensors", arch=VARIANTS["resnet18"]).arch.num_classes == 4
    with pytest.raises(RosettaError, match="depths is"):
        port.inspect(tmp_path / "a.safetensors", arch=VARIANTS["resnet34"])


def test_keras_hubs_own_archives_and_folders(tmp_path):
    hub = pytest.importorskip("keras_hub")
    import keras

    arch = get("resnetv2_18", num_classes=4)
    weights = randomised(arch)
    port.canonical.save(tmp_path / "a.safetensors", arch, weights)
    port.port(tmp_path / "a.safetensors", tmp_path / "hub", to="keras-hub", probe=False)
    port.port(tmp_path / "hub", tmp_path / "b.keras", to="keras-hub", probe=False)
    x = np.random.default_rng(0).standard_normal((1, 65, 48, 3)).astype(np.float32)
    expected = np.asarray(keras_impl.create_model(arch, weights=weights)(x))
    folder = hub.models.ImageClassifier.from_preset(str(tmp_path / "hub"))
    archive = keras.saving.load_model(tmp_path / "b.keras", compile=False)
    for model in (folder, archive):
        assert relative(expected, np.asarray(model(x))) <= 1e-5
    found = port.inspect(tmp_path / "b.keras")
    assert found.arch == arch and all(np.array_equal(w, weights[n]) for n, w in found.weights().items())
    with pytest.raises(RosettaError, match="there already"):
        port.port(tmp_path / "a.safetensors", tmp_path / "hub", to="keras-hub")


def test_kuanglius_checkpoints(tmp_path):
    """As its training writes them: {"net": state_dict under DataParallel, "acc", "epoch"}; shortcut and linear."""
    arch = get("cifar_resnet50", widths=(8, 16, 32, 64), stem={"convs": [[8, 3, 1]], "pool": False})
    weights = randomised(arch)
    state = {}
    for name, w in weights.items():
        theirs = name.replace("downsample", "shortcut").replace("fc.", "linear.")
        state[f"module.{theirs}"] = torch.from_numpy(w)
    torch.save({"net": state, "acc": 95.4, "epoch": 199}, tmp_path / "ckpt.pth")
    found = port.inspect(tmp_path / "ckpt.pth")
    assert found.library.name == "kuangliu" and found.arch == arch and set(found.unused) == {"acc", "epoch"}
    assert found.preprocessing.std == (0.2023, 0.1994, 0.2010) and found.labels[3] == "cat"
    assert found.where(found.slots[0]) == "module.conv1.weight"
    port.port(tmp_path / "ckpt.pth", tmp_path / "again.pth", to="kuangliu")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["net"]
    assert all(torch.equal(again[n], t) for n, t in state.items())


def test_the_command_ends_with_1_where_outputs_differ(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from common.cli import cli

    port.canonical.save(tmp_path / "a.safetensors", SMALL, randomised(SMALL))
    monkeypatch.setattr(port, "_probe", lambda done, weights: "float64: conv1 (forward) is 1e-3 apart")
    for extra, kept in (([], False), (["--keep"], True)):
        command = ["port", str(tmp_path / "a.safetensors"), str(tmp_path / "b.pt"), "--probe", *extra]
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 1 and "1e-3 apart" in done.stderr and (tmp_path / "b.pt").exists() == kept


# -- what a file says of itself


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"architecture": "resnet50", "model_args": {"output_stride": 4}}, "output_stride = '4'"),
        ({"architecture": "resnet50", "model_args": {"act_layer": "silu"}}, "act_layer = 'silu'"),
        ({"architecture": "resnet50", "model_args": {"global_pool": "max"}}, "global_pool = 'max'"),
        ({"architecture": "resnet50", "global_pool": "avgmax"}, "global_pool = 'avgmax'"),
        ({"architecture": "resnet50", "model_args": {"block_args": {"attn_layer": "eca"}}}, "eca would"),
        ({"architecture": "resnet50", "model_args": {"aa_layer": "blurpc"}}, "aa_layer = 'blurpc'"),
        ({"architecture": "resnet50", "model_args": {"of_tomorrow": 1}}, "of_tomorrow = '1'"),
        ({"architecture": "resnet101"}, "depths would be otherwise"),
        ({"architecture": "resnext50_32x4d"}, "groups, width_per_group would"),
        ({"architecture": "seresnet50"}, "se_ratio would"),
        ({"architecture": "resnet50d"}, "shortcut, stem would"),
        ({"architecture": "efficientnet_b0"}, "timm's efficientnet_b0"),
        ({"architecture": "resnet50", "model_args": [1]}, "no object"),
    ],
)
def test_a_timm_configuration_that_no_row_says(said, words):
    held = spoil(VARIANTS["resnet50"])
    held.metadata["config"] = said
    with pytest.raises(RosettaError, match=words):
        recognise(held)


def test_a_timm_configuration_that_a_row_says():
    held = spoil(get("resnet50", num_classes=5))
    arguments = {"drop_path_rate": 0.1, "num_classes": 5, "output_stride": 32, "act_layer": None, "global_pool": "avg"}
    held.metadata["config"] = {"architecture": "resnet50.a1_in1k", "model_args": arguments, "global_pool": "avg"}
    assert recognise(held).arch == get("resnet50", num_classes=5)
    with pytest.raises(RosettaError, match="stride_in would be otherwise"):
        recognise(held, overrides={"stride_in": 1})
    held.metadata["config"]["model_args"] |= {"aa_layer": "blur", "output_stride": 8}
    assert recognise(held).arch == get("resnetblur50", num_classes=5, output_stride=8)
    held.metadata["config"] = {"architecture": "resnetaa50.a1h_in1k"}
    assert recognise(held).arch == get("resnetaa50", num_classes=5)
    held.metadata.clear()
    assert "anti-aliasing" in recognise(held).told["the rest"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"model_type": "rt_detr_resnet"}, "a rt_detr_resnet of Transformers"),
        ({"depths": [3, 4, 23, 3]}, "depths"),
    ],
)
def test_a_transformers_configuration_that_no_row_says(changes, words):
    arch = VARIANTS["resnet50"]
    state = {s.theirs: torch.empty(s.shape, device="meta") for s in TRANSFORMERS.slots(arch)}
    config = transformers_config(arch, ())
    assert recognise(shapes_only(state, config)).claim
    with pytest.raises(RosettaError, match=words):
        recognise(shapes_only(state, config | changes))


def test_a_timm_training_checkpoint_says_its_arguments(tmp_path):
    arch = get("resnet18", widths=(8, 16, 16, 16), num_classes=3)
    state = {n: torch.from_numpy(w) for n, w in randomised(arch).items()}
    for gp, good in ((None, True), ("avg", True), ("max", False)):
        arguments = argparse.Namespace(model="resnet18", gp=gp, model_kwargs={"channels": [8, 16, 16, 16]}, lr=0.1)
        torch.save({"arch": "resnet18", "state_dict": state, "args": arguments}, tmp_path / "a.pth.tar")
        if good:
            assert port.inspect(tmp_path / "a.pth.tar").claim == "timm's resnet18"
        else:
            with pytest.raises(RosettaError, match="global_pool = 'max'"):
                port.inspect(tmp_path / "a.pth.tar")


def test_the_proof_is_of_what_the_file_says(tmp_path, referees, monkeypatch):
    """timm's own net of the folder's name and arguments is built, whatever we recognised."""
    _, timm = referees
    arguments = {"channels": [64, 64, 64, 64], "global_pool": "max"}
    theirs = timm.create_model("resnet18", num_classes=5, **arguments)
    randomise(theirs)
    timm.models.save_for_hf(theirs, tmp_path / "m", model_args=arguments)
    with pytest.raises(RosettaError, match="global_pool"):
        port.port(tmp_path / "m", tmp_path / "b.safetensors")
    with monkeypatch.context() as m:  # even if the recogniser let it through, the proof would not
        m.setitem(timm_rules._VALUES, "global_pool", ("avg", "max"))
        with pytest.raises(port.NotTheSame, match="timm itself"):
            port.port(tmp_path / "m", tmp_path / "b.safetensors", verify_with_source=True, probe=False)
    said = json.loads((tmp_path / "m" / "config.json").read_text())
    said["global_pool"] = said["model_args"]["global_pool"] = "avg"
    (tmp_path / "m" / "config.json").write_text(json.dumps(said))
    done = port.port(tmp_path / "m", tmp_path / "c.safetensors", verify_with_source=True, probe=False)
    ((of, apart, _),) = done.probes
    assert "timm's resnet18" in of and apart <= 1e-12


def of_applications(name, **more):
    """keras.applications' ResNet50 or ResNet50V2 with three stages of two narrow blocks."""
    from keras.src.applications import resnet

    preact = name.endswith("V2")

    def stages(x):
        stack = resnet.stack_residual_blocks_v2 if preact else resnet.stack_residual_blocks_v1
        x = stack(x, 24, 2, **({} if preact else {"stride1": 1}), name="conv2")
        x = stack(x, 32, 2, name="conv3")
        return stack(x, 48, 2, **({"stride1": 1} if preact else {}), name="conv4")

    return resnet.ResNet(stages, preact, True, weights=None, name=name.lower(), **more)


@pytest.fixture(scope="module")
def applications(tmp_path_factory):
    """keras.applications' ResNet50V2 and V1, small, as archives."""
    folder = tmp_path_factory.mktemp("applications")
    for name in ("ResNet50", "ResNet50V2"):
        net = of_applications(name, classes=3, input_shape=(64, 64, 3))
        net.save(folder / f"{name}.keras")
    return folder


def rewritten(source, target, change):
    """A Keras archive with another configuration."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            new.writestr(name, data)


def _layer(config, name, **changes):
    """A layer of a configuration, changed."""
    (layer,) = [layer for layer in config["config"]["layers"] if layer["config"]["name"] == name]
    layer["class_name"] = changes.pop("class_name", layer["class_name"])
    layer["config"] |= changes


@pytest.mark.parametrize(
    ("net", "change", "words"),
    [
        ("ResNet50", ("conv3_block2_1_relu", {"activation": "silu"}), "activation = 'silu'"),
        ("ResNet50V2", ("post_relu", {"activation": "silu"}), "activation = 'silu'"),
        ("ResNet50", ("avg_pool", {"class_name": "GlobalMaxPooling2D"}), "a GlobalMaxPooling2D"),
        ("ResNet50", ("conv4_block2_2_conv", {"dilation_rate": [2, 2]}), "dilation_rate"),
        ("ResNet50", ("conv4_block1_1_conv", {"strides": [1, 1]}), "strides"),
        ("ResNet50", ("conv4_block2_2_conv", {"padding": "valid"}), "padded"),
        ("ResNet50", ("conv4_block2_2_conv", {"activation": "relu"}), "activation"),
        ("ResNet50", ("conv1_pad", {"padding": [[2, 3], [2, 3]]}), "conv1_conv isn't padded by 3"),
        ("ResNet50V2", ("conv4_block2_2_pad", {"padding": [[0, 2], [0, 2]]}), "isn't padded by 1"),
        ("ResNet50", ("pool1_pad", {"padding": [[0, 1], [0, 1]]}), "isn't padded by 1"),
        ("ResNet50", ("pool1_pool", {"class_name": "AveragePooling2D"}), "a AveragePooling2D"),
        ("ResNet50", ("pool1_pool", {"pool_size": [2, 2]}), "pool_size"),
        ("ResNet50", ("conv3_block1_1_bn", {"epsilon": 1e-3}), "epsilon"),
        ("ResNet50", ("predictions", {"activation": "sigmoid"}), "sigmoid"),
        ("ResNet50", ("conv1_relu", {"class_name": "Lambda"}), "a Lambda"),
    ],
)
def test_a_keras_configuration_that_no_row_says(applications, net, change, words):
    held = files.read(applications / f"{net}.keras")
    assert recognise(held).claim
    _layer(held.metadata["config"], change[0], **change[1])
    with pytest.raises(RosettaError, match=f"says that it is another net.*{words}"):
        recognise(held)


@pytest.mark.parametrize(
    "nodes",
    [
        [{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": ["a", 0, 0]}}], "kwargs": {}}],
        [[["a", 0, 0, {}]]],
    ],
)
def test_what_a_layer_reads_as_keras_3_and_2_say_it(nodes):
    assert list(claims._inputs(nodes)) == ["a"]


def test_keras_itself_is_asked_by_its_own_configuration(tmp_path, applications, monkeypatch):
    monkeypatch.setattr(port, "probe_image", lambda arch: np.random.default_rng(0).standard_normal((1, 3, 64, 64)))
    done = port.port(
        applications / "ResNet50V2.keras", tmp_path / "b.safetensors", verify_with_source=True, probe=False
    )
    assert "layer by layer" in done.probes[0][0] and done.probes[0][1] <= 1e-12
    # even if the recogniser let it through, the proof would not
    change = functools.partial(_layer, name="post_relu", activation="silu")
    rewritten(applications / "ResNet50V2.keras", tmp_path / "a.keras", change)
    monkeypatch.setattr(claims, "_otherwise", lambda *_: iter(()))
    with pytest.raises(port.NotTheSame, match="itself gives logits"):
        port.port(tmp_path / "a.keras", tmp_path / "c.safetensors", verify_with_source=True, probe=False)


def test_a_softmax_is_said_and_kept(tmp_path):
    import keras

    source = tmp_path / "ResNet50V2.keras"
    keras.applications.ResNet50V2(weights=None, classes=3, input_shape=(64, 64, 3)).save(source)
    assert "it ends in softmax" in " ".join(port.inspect(source).notes)
    done = port.port(source, tmp_path / "a.safetensors", probe=False)
    assert done.source.head == "softmax"
    for start, activation in ((source, "softmax"), (tmp_path / "a.safetensors", "linear")):
        done = port.port(start, tmp_path / f"{activation}.keras", to="keras.applications", probe=False)
        assert "ends in" in " ".join(done.notes)
        with zipfile.ZipFile(tmp_path / f"{activation}.keras") as z:
            layers = json.loads(z.read("config.json"))["config"]["layers"]
        assert layers[-1]["config"]["activation"] == activation
        assert port.inspect(tmp_path / f"{activation}.keras").head == activation.replace("linear", "")
    keras.saving.load_model(source).save_weights(tmp_path / "b.weights.h5")
    assert "softmax unless told otherwise" in " ".join(port.inspect(tmp_path / "b.weights.h5").notes)


def test_keras_hubs_pooling_is_held_against_the_row(tmp_path):
    hub = pytest.importorskip("keras_hub")
    arch = get("resnet18", depths=(1, 1), widths=(64, 64), num_classes=3)
    body = hub.models.ResNetBackbone(**keras_impl.originals.backbone_config(arch))
    for pooling in ("avg", "max"):
        theirs = hub.models.ResNetImageClassifier(backbone=body, num_classes=3, pooling=pooling)
        theirs.save(tmp_path / f"{pooling}.keras")
        theirs.save_to_preset(str(tmp_path / pooling))
    for suffix in ("", ".keras"):
        done = port.port(
            tmp_path / f"avg{suffix}", tmp_path / f"{suffix}b.safetensors", verify_with_source=True, probe=False
        )
        assert "KerasHub's ResNet" in done.probes[0][0]
        with pytest.raises(RosettaError, match="pooling = 'max'"):
            port.inspect(tmp_path / f"max{suffix}")


# -- heads, names, and what a machine lacks


@pytest.mark.parametrize("package", [torch_impl, keras_impl])
def test_a_net_is_loaded_with_another_classifier(tmp_path, package):
    weights = randomised(SMALL)
    port.canonical.save(tmp_path / "a.safetensors", SMALL, weights)
    net = package.load(tmp_path / "a.safetensors", num_classes=3, seed=1)
    found = package.export_weights(net)
    port.port(tmp_path / "a.safetensors", tmp_path / "b.safetensors", num_classes=3, seed=1)
    expected = port.inspect(tmp_path / "b.safetensors").weights()
    assert found["fc.weight"].shape == (3, 32) and all(np.array_equal(w, expected[n]) for n, w in found.items())
    folded = package.load(tmp_path / "a.safetensors", num_classes=3, seed=1, folded=True)
    assert folded.plan.arch == get(SMALL, num_classes=3, folded=True)
    assert "fc.weight" not in package.export_weights(package.load(tmp_path / "a.safetensors", num_classes=0))
    with pytest.raises(RosettaError, match="with into"):
        package.load(tmp_path / "a.safetensors", num_classes=3, into=net)


def test_inspect_says_what_matters_first_and_tensors_when_asked(tmp_path):
    from click.testing import CliRunner

    from common.cli import cli

    arch = get("cifar_resnet20")
    state = {n: torch.from_numpy(w) for n, w in randomised(arch).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    brief = CliRunner().invoke(cli, ["inspect", str(tmp_path / "a.pth")]).output
    assert len(brief.splitlines()) <= 14 and "not used: epoch" in brief and "layer1.0.conv1" not in brief
    whole = CliRunner().invoke(cli, ["inspect", str(tmp_path / "a.pth"), "--tensors"]).output
    assert whole.startswith(brief) and "layer1.0.conv1.weight" in whole


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("resnext50", "resnext50_32x4d"),
        ("seresnext50", "seresnext50_32x4d"),
        ("resnet20", "cifar_resnet20"),
        ("resnet56", "cifar_resnet56"),
        ("resnet50v2", "resnet50v2_keras"),
        ("resnet5O", "resnet50"),
    ],
)
def test_whoever_types_a_part_of_a_name_is_offered_the_whole(typed, meant):
    assert meant in nearest(typed, VARIANTS)


def test_what_a_machine_lacks_is_one_sentence(tmp_path, monkeypatch):
    import importlib.util

    from common.checkpoints import export

    find, absent = importlib.util.find_spec, {"h5py"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in absent else find(n, *a))
    source = tmp_path / "a.safetensors"
    port.canonical.save(source, SMALL, randomised(SMALL))
    for name in ("b.weights.h5", "b.keras"):
        with pytest.raises(
            RosettaError, match=r"needs h5py, which is not installed: pip install 'resnet-rosetta\[keras\]'"
        ):
            port.port(source, tmp_path / name, probe=False)
    absent = {"torch", "tensorflow"}
    with pytest.raises(RosettaError, match=r"needs torch, which is not .*rosetta\[torch,onnx\]"):
        export.export(source, tmp_path / "b.onnx", "torch")
    with pytest.raises(RosettaError, match="torch and tensorflow"):
        port.port(source, tmp_path / "b.weights.h5", probe=True)
    done = port.port(source, tmp_path / "b.weights.h5", fold=True)
    said = " ".join(done.notes)
    assert not done.probes and "no framework is installed" in said
    done = port.port(tmp_path / "b.weights.h5", tmp_path / "c.pt", dry_run=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.weights.h5"]
    with pytest.raises(RosettaError, match="needs a1 and b1, which are not installed: pip install a1 b1$"):
        frameworks.require("this", ("a1", "b1"), "")


@pytest.mark.parametrize(
    "said",
    [
        {"mean": ["a"] * 3}, {"mean": 0.5}, {"std": [0.2, 0.2]}, {"std": [0.2, 0.2, 0]}, {"mean": [True, False, True]},
        {"crop_pct": "x"}, {"crop_pct": 1e-9}, {"crop_pct": {"a": 1}}, {"input_size": 224}, {"input_size": ["x"]},
        {"input_size": [3, 224, 10**400]}, {"input_size": [3, 0, 0]}, {"mean": [10**400, 1, 1]},
        {"mean": [float("nan")] * 3},
    ],
)  # fmt: skip
def test_a_folder_whose_images_cannot_be_so(said):
    held = spoil(VARIANTS["resnet18"])
    held.metadata["config"] = {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}}
    assert recognise(held).preprocessing.mean == (0.5,) * 3
    held.metadata["config"]["pretrained_cfg"] |= said
    with pytest.raises(RosettaError, match="says of its images what can't be"):
        recognise(held)


@pytest.mark.parametrize("changes", [{"drop_path": 10**400}, {"norm_eps": 10**400}, {"width_per_group": 10**400 + 1}])
def test_numbers_beyond_all_arrays(changes):
    row = json.loads(get("resnet50", widths=(10, 20, 30, 40), width_per_group=64).to_json()) | changes
    with pytest.raises(RosettaError, match=next(iter(changes))):
        Arch.from_json(json.dumps(row))


# -- a file is called what it is, and a target is told what it is for


def archive(path, *names):
    with zipfile.ZipFile(path, "w") as z:
        for name in names:
            z.writestr(name, b"")


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.pth", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        ("a.safetensors", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        ("a.pth", lambda p: p.write_text("\n<!DOCTYPE html><html><head>"), "a web page"),
        ("a.pth", lambda p: p.write_bytes(b"\x80\x02garbage"), "PyTorch"),
        ("a.pt", lambda p: archive(p, "a/data.pkl", "a/constants.pkl", "a/code/a.py"), "not a whole TorchScript file"),
        ("a.pt2", lambda p: archive(p, "a/archive_format", "a/models/model.json"), "before 2.8.*torch.export.load"),
        ("a.pkl", lambda p: p.write_bytes(b"\x80\x04garbage"), "not a whole pickle of numpy's arrays"),
        ("m", lambda p: (p.mkdir(), (p / "saved_model.pb").write_bytes(b"")), "SavedModel"),
        ("m", lambda p: (p.mkdir(), (p / "config.json").write_text("{}"),
                         (p / "model.safetensors.index.json").write_text("{}")), "which files beside it"),
        ("a.pth", lambda p: torch.save({
            k: {n: torch.from_numpy(w) for n, w in randomised(SMALL).items()} for k in ("online_model", "ema_model")
         }, p), r"several sets of weights, each a net: under ema_model.*, such as --prefix online_model"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises(RosettaError, match=words) as error:
        port.inspect(tmp_path / name)
    assert "weights_only" not in str(error.value) and name in str(error.value)


def test_whoever_gets_a_keras_file_is_told_how_it_is_loaded(tmp_path):
    arch = get("resnet18", depths=(1, 1, 1, 1), num_classes=2)
    source = tmp_path / "a.safetensors"
    port.canonical.save(source, arch, randomised(arch))
    assert "import keras_impl" in " ".join(port.port(source, tmp_path / "a.keras", probe=False).notes)
    done = port.port(source, tmp_path / "a.h5", to="keras-hub", probe=False)
    assert "by_name=True" in " ".join(done.notes)
    with pytest.raises(RosettaError, match=r"end in .weights.h5, .h5 or .keras, not b.safetensors"):
        port.port(source, tmp_path / "b.safetensors", to="keras.applications")
    with pytest.raises(RosettaError, match="can't hold this net.*there is --as keras-hub$"):
        port.port(source, tmp_path / "b.keras", to="keras.applications")


# -- nothing is lost


def test_the_source_is_never_written_over(tmp_path):
    source = tmp_path / "a.pth"
    state = {n: torch.from_numpy(w) for n, w in randomised(SMALL).items()}
    torch.save({"state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, source)
    before = source.read_bytes()
    os.link(source, tmp_path / "hard.pth")
    os.symlink(source, tmp_path / "soft.pth")
    for target in (source, tmp_path / "hard.pth", tmp_path / "soft.pth", tmp_path / "." / "a.pth"):
        for force in (False, True):
            with pytest.raises(RosettaError, match="itself or a part of it"):
                port.port(source, target, force=force)
    with pytest.raises(RosettaError, match="itself or a part of it"):
        port.port(source, tmp_path, to="transformers", force=True)
    assert source.read_bytes() == before and (tmp_path / "soft.pth").is_symlink()


def test_a_folder_that_is_read_is_not_written_into(tmp_path):
    arch = get("resnet18", depths=(1, 1, 1, 1), num_classes=2)
    port.canonical.save(tmp_path / "a.safetensors", arch, randomised(arch))
    port.port(tmp_path / "a.safetensors", tmp_path / "m", to="transformers")
    with pytest.raises(RosettaError, match="itself or a part of it"):
        port.port(tmp_path / "m", tmp_path / "m" / "model.safetensors", force=True)
    port.port(tmp_path / "m", tmp_path / "m" / "beside.safetensors")


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path):
    port.canonical.save(tmp_path / "a.safetensors", SMALL, randomised(SMALL))
    (tmp_path / "b.pt").write_text("somebody's")
    with pytest.raises(RosettaError, match="there already; --force"):
        port.port(tmp_path / "a.safetensors", tmp_path / "b.pt")
    assert (tmp_path / "b.pt").read_text() == "somebody's"
    port.port(tmp_path / "a.safetensors", tmp_path / "b.pt", force=True)
    assert port.inspect(tmp_path / "b.pt").arch == SMALL


# -- the checks of the way itself, each broken once


@pytest.mark.parametrize("suffix", [".safetensors", ".weights.h5", ".pt", ".keras"])
def test_every_tensor_is_read_back(tmp_path, monkeypatch, suffix):
    """One bit, in each kind of tensor in turn."""
    source, out, real = tmp_path / "a.safetensors", tmp_path / f"b{suffix}", writers.stored
    port.canonical.save(source, SMALL, randomised(SMALL))
    for name in ("conv1.weight", "layer2.0.bn1.bias", "layer2.0.bn2.running_mean", "bn1.running_var", "fc.bias"):

        def wrong(slots, weights, name=name):
            changed = weights[name].copy()
            changed.view(np.uint8).reshape(-1)[-4] ^= 1  # of the mantissa
            return real(slots, {**weights, name: changed})

        with monkeypatch.context() as m:
            m.setattr(writers, "stored", wrong)
            with pytest.raises(RosettaError, match=f"reads back otherwise than written, at {name}"):
                port.port(source, out, probe=False)
        assert not out.exists()


def test_what_is_saved_is_compared_with_what_was_to_be_saved(tmp_path, monkeypatch):
    weights, real = randomised(SMALL), port.canonical.write_safetensors

    def wrong(path, arrays, metadata):
        real(path, {n: a * 2 if n == "bn1.running_var" else a for n, a in arrays.items()}, metadata)

    monkeypatch.setattr(port.canonical, "write_safetensors", wrong)
    with pytest.raises(RosettaError, match="reads back otherwise than it was written, at bn1.running_var"):
        port.canonical.save(tmp_path / "a.safetensors", SMALL, weights)
    assert not list(tmp_path.iterdir())


def test_a_probe_that_frameworks_answer_otherwise_fails(tmp_path, monkeypatch):
    """Two backends, of which one computes another function."""
    import contextlib

    from common.parity import backends

    class Off(backends.Here):
        def run(self, job):
            weights = {n: w * (1 + self.off) if n == "bn1.running_var" else w for n, w in job.weights.items()}
            return super().run(dataclasses.replace(job, weights=weights))

    @contextlib.contextmanager
    def started(specs, device="cpu"):
        first, second = backends.Here("torch"), Off("torch")
        second.spec, second.off = "keras:tensorflow", off
        yield [first, second]

    monkeypatch.setattr(backends, "started", started)
    monkeypatch.setattr(port, "probe_image", lambda arch: np.random.default_rng(0).standard_normal((1, 3, 64, 64)))
    arch = get(SMALL, depths=(1, 1))
    source = tmp_path / "a.safetensors"
    port.canonical.save(source, arch, {n: w.astype(np.float64) for n, w in randomised(arch).items()})
    for off, good in ((0.0, True), (1e-9, False), (1e-2, False)):
        out = tmp_path / f"{off}.weights.h5"
        if good:
            done = port.port(source, out, probe=True)
            assert [apart <= most for (_, apart, _), most in zip(done.probes, (1e-12, 1e-5), strict=True)] == [True] * 2
        else:
            with pytest.raises(port.NotTheSame, match="float64.*not kept"):
                port.port(source, out, probe=True)
        assert out.exists() == good


@pytest.mark.parametrize("batch", [1, 3])
def test_a_graph_that_is_wrong_at_one_size_is_not_kept(tmp_path, monkeypatch, batch):
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    from common.checkpoints import export
    from common.parity import graphs

    port.canonical.save(tmp_path / "a.safetensors", SMALL, randomised(SMALL))
    run, seen = graphs.run, []

    def wrong(path, x):
        seen.append(len(x))
        return run(path, x) * (1.001 if len(x) == batch else 1)

    monkeypatch.setattr(graphs, "run", wrong)
    with pytest.raises(RosettaError, match="other logits than torch"):
        export.export(tmp_path / "a.safetensors", tmp_path / "x.onnx", "torch")
    assert seen[-1] == batch and not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("suffix", [".pt", ".weights.h5", ".keras"])
def test_a_changed_value_in_a_file_of_ours_has_another_checksum(tmp_path, suffix):
    port.canonical.save(tmp_path / "a.safetensors", SMALL, randomised(SMALL))
    path = tmp_path / f"b{suffix}"
    port.port(tmp_path / "a.safetensors", path, probe=False)
    path = Path(shutil.copy(path, tmp_path / f"c{suffix}"))  # the reader of HDF5 has the other open
    if suffix == ".pt":
        state = torch.load(path, weights_only=True)
        state["bn1.running_var"][3] *= 1.0001
        torch.save(state, path)
    elif suffix == ".weights.h5":
        with h5py.File(path, "a") as f:
            f["bn1/vars/3"][3] *= 1.0001
    else:
        with zipfile.ZipFile(path) as z:
            held = {n: z.read(n) for n in z.namelist()}
        (tmp_path / "w.h5").write_bytes(held["model.weights.h5"])
        with h5py.File(tmp_path / "w.h5", "a") as f:
            f["bn1/vars/3"][3] *= 1.0001
        with zipfile.ZipFile(path, "w") as z:
            for name, data in held.items():
                z.writestr(name, (tmp_path / "w.h5").read_bytes() if name == "model.weights.h5" else data)
    with pytest.raises(RosettaError, match="its checksum is"):
        port.inspect(path).weights()


def test_transformers_stride_in_the_first_stage(tmp_path, transformers):
    """Which no shape tells, only the configuration."""
    small = dict(embedding_size=64, depths=[1, 1], hidden_sizes=[16, 32], layer_type="basic", num_labels=3)
    for first in (False, True):
        theirs = transformers.ResNetForImageClassification(
            transformers.ResNetConfig(downsample_in_first_stage=first, **small)
        )
        randomise(theirs)
        theirs.eval().save_pretrained(tmp_path / f"{first}")
        found = port.inspect(tmp_path / f"{first}")
        assert found.arch.first_stride == 1 + first and found.claim and not found.told
        x = torch.randn(2, 3, 65, 48, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.equal(torch_impl.load(tmp_path / f"{first}").eval()(x), theirs(x).logits)
        port.port(tmp_path / f"{first}", tmp_path / f"{first} again", to="transformers", probe=False)
        assert port.inspect(tmp_path / f"{first} again").arch == found.arch


def test_labels_and_images_travel_through_every_container(tmp_path):
    """Twelve labels, in an order that is nobody's alphabet, and numbers that are no library's."""
    labels = [
        f"{word} {i}" for i, word in enumerate("zebra ape yak bat xerus cat whale dog vole elk urial fox".split())
    ]
    arch = get("resnet18", depths=(1, 1, 1, 1), num_classes=12)
    port.canonical.save(tmp_path / "a.safetensors", arch, randomised(arch))
    port.port(tmp_path / "a.safetensors", tmp_path / "m", to="transformers", probe=False)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["id2label"] = dict(reversed([(str(i), label) for i, label in enumerate(labels)]))
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]})
    )
    way = ["m", "b.safetensors", "c.weights.h5", "d.pt", "e.keras", "f", "g.safetensors"]
    for source, target in zip(way, way[1:], strict=False):
        to = "transformers" if target == "f" else None
        port.port(tmp_path / source, tmp_path / target, to=to, probe=False)
        found = port.inspect(tmp_path / target)
        assert found.labels == tuple(labels), target
        assert found.preprocessing.mean == (0.1, 0.2, 0.3) and found.preprocessing.std == (0.4, 0.5, 0.6), target
    port.port(tmp_path / "d.pt", tmp_path / "h.pt", num_classes=3, probe=False)
    assert not port.inspect(tmp_path / "h.pt").labels
