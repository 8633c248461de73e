"""Every variant: the same names, the same function, the same training-mode statistics, weights that go round
bit-exact."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import relative

import keras_impl
import torch_impl
from common import noise
from common.arch import FAMILIES, VARIANTS, Arch, get
from common.init import initial, randomised
from common.names import STATISTICS, count, parameters
from common.plan import make_plan

FIRST = {next(iter(variants)) for variants in FAMILIES.values()}
# every variant is compared whole under `make test-slow` and in the atlas; here those that begin a family and are tiny
WHOLE = [n for n in FIRST if count(parameters(VARIANTS[n])) < 4e6 and sum(VARIANTS[n].depths) <= 20]


def small(arch: Arch) -> Arch:
    """At most two blocks a stage, which is where every kind of layer is, and a quarter as wide: one net for many."""
    narrow = arch.widths[0] >= 64 and arch.shortcut != "pad"  # padding only adds channels to the stem's
    by = 1 if not narrow else arch.widths[0] // 32 if arch.norm_groups else 4  # 32 channels for as many groups
    return replace(arch, depths=tuple(min(n, 2) for n in arch.depths), widths=tuple(w // by for w in arch.widths))


def sizes(arch: Arch) -> list[tuple[int, ...]]:
    """An even, an odd and a non-square size (for signals, a third length) that the strides leave something of."""
    if arch.dims == 1:
        return [(64,), (49,), (90,)]
    return [(32, 32), (33, 33), (40, 27)] if make_plan(arch).total_stride > 8 else [(16, 16), (15, 15), (18, 13)]


def images(arch: Arch, size: tuple[int, ...], n: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, arch.in_channels, *size))


def run_torch(model, x: np.ndarray, training: bool = False) -> np.ndarray:
    model.train(training)
    with torch.no_grad():
        return model(torch.from_numpy(x).to(next(model.parameters()).dtype)).numpy()


def run_keras(model, x: np.ndarray, training: bool = False) -> np.ndarray:
    return np.asarray(model(np.moveaxis(x, 1, -1), training=training))


def bits(w: np.ndarray) -> np.ndarray:
    return w.view(np.int64 if w.dtype == np.float64 else np.int32)


def check_variant(arch: Arch, single: bool = True) -> None:
    """With `single` in float32, too."""
    weights = randomised(arch, seed=1)
    spec = list(parameters(arch).items())

    for dtype in ("float32",) * single + ("float64",):
        # names, shapes and order; PyTorch to Keras to PyTorch, bit for bit
        ours = torch_impl.create_model(arch, dtype=dtype, weights=weights)
        there = torch_impl.export_weights(ours)
        twin = keras_impl.create_model(arch, dtype=dtype, weights=there)
        back = keras_impl.export_weights(twin)
        assert [(n, w.shape) for n, w in there.items()] == [(n, w.shape) for n, w in back.items()] == spec
        assert all(np.array_equal(bits(back[n]), bits(w.astype(dtype))) for n, w in weights.items())
        del there, back
        if dtype == "float32":
            x = images(arch, sizes(arch)[2])
            assert relative(run_torch(ours, x), run_keras(twin, x)) <= 1e-5

    for size in sizes(arch):
        x = images(arch, size)
        found = relative(run_torch(ours, x), run_keras(twin, x))
        assert found <= 1e-13, (size, found)

    # BatchNorm folded into the convolutions: the same function
    folded = torch_impl.create_model(arch, dtype="float64", weights=weights, folded=True)
    found = relative(run_torch(ours, x), run_torch(folded, x))
    assert found <= 1e-13, ("folded", found)
    del folded

    # one pass in training mode: the same logits, and the same statistics after it
    x = images(arch, sizes(arch)[2], n=4, seed=2)
    with noise.shared(0):
        y = run_torch(ours, x, training=True)
    with noise.shared(0):
        z = run_keras(twin, x, training=True)
    assert relative(y, z) <= 1e-10
    after, after_twin = dict(torch_impl.weights.named_tensors(ours)), dict(keras_impl.weights.named_variables(twin))
    for name, before in weights.items():
        if name.endswith(STATISTICS):
            a, b = after[name].numpy(), np.asarray(after_twin[name])
            assert not np.array_equal(a, before), f"{name} did not move"
            assert relative(a, b) <= 1e-12, name


def test_float64_weights_that_float32_cannot_hold_go_round_too():
    arch = small(get("seresnext50_32x4d"))
    exact = {n: w * np.float64(np.pi) for n, w in randomised(arch).items()}
    ours, twin = torch_impl.create_model(arch, dtype="float64"), keras_impl.create_model(arch, dtype="float64")
    torch_impl.import_weights(ours, exact)
    keras_impl.import_weights(twin, torch_impl.export_weights(ours))
    again = torch_impl.create_model(arch, dtype="float64", weights=keras_impl.export_weights(twin))
    assert all(np.array_equal(bits(w), bits(exact[n])) for n, w in torch_impl.export_weights(again).items())


@pytest.mark.parametrize("name", [n if n in WHOLE else pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS])
def test_variant(name):
    """In float32 one of each family; `make atlas` has them all."""
    check_variant(VARIANTS[name], single=name in FIRST)


SMALL = {small(arch): name for name, arch in reversed(VARIANTS.items())}
for name in WHOLE:  # has these blocks
    del SMALL[small(VARIANTS[name])]


@pytest.mark.parametrize("name", SMALL.values())
def test_small_variant(name):
    check_variant(small(VARIANTS[name]), single=name in FIRST)


@pytest.mark.parametrize(
    "change",
    [
        dict(groups=8, width_per_group=16, se_ratio=8, num_classes=7, in_channels=1),
        dict(shortcut="pad", conv_bias=True, first_stride=2),
        dict(preact=True, shortcut="pool", se_ratio=4, drop_path=0.3, dropout=0.2, conv_bias=True),
        dict(preact=True, shortcut="project_all", stride_in=1, num_classes=0),
        dict(kernels=(5, 1), preact=True, shortcut="none", dims=1, in_channels=2, dropout=0.5),
        dict(dims=1, groups=4, kernels=(7,), in_channels=5, norm_eps=1e-3),
    ],
    ids=lambda c: "-".join(c),
)
def test_composed_rows(change):
    check_variant(
        get(
            "resnet50",
            depths=(1, 2, 1),
            widths=(16, 32, 64),
            stem={"convs": [[8, 3, 2], [16, 5, 1]], "pool": True},
            **change,
        )
    )


@pytest.mark.parametrize(
    "name", ["resnet18", "resnetv2_18", "resnet18d", "resnext50_32x4d", "resnet18_1d", "msresnet_1d"]
)
def test_tiny_inputs_work_as_long_as_something_is_left(name):
    arch = replace(small(get(name)), num_classes=3)
    weights = randomised(arch)
    ours, twin = torch_impl.create_model(arch, dtype="float64"), keras_impl.create_model(arch, dtype="float64")
    torch_impl.import_weights(ours, weights)
    keras_impl.import_weights(twin, weights)
    for n in (1, 2, 3, 5):
        x = images(arch, (n,) * arch.dims)
        assert relative(run_torch(ours, x), run_keras(twin, x)) <= 1e-13, n


def test_features_are_the_named_stages_in_both():
    for name in ("resnet18", "resnetv2_18", "msresnet_1d"):
        arch = small(get(name))
        weights = randomised(arch)
        ours, twin = (
            torch_impl.create_model(arch, dtype="float64").eval(),
            keras_impl.create_model(arch, dtype="float64"),
        )
        torch_impl.import_weights(ours, weights)
        keras_impl.import_weights(twin, weights)
        x = images(arch, sizes(arch)[2])
        with torch.no_grad():
            a = ours.features(torch.from_numpy(x))
        b = twin.features(np.moveaxis(x, 1, -1))
        assert list(a) == list(b) == [n for n, _ in make_plan(arch).sections()][:-1]
        for stage in a:
            assert relative(a[stage].numpy(), np.moveaxis(np.asarray(b[stage]), -1, 1)) <= 1e-13, stage


def test_random_statistics_see_what_fresh_ones_hide():
    """Swapping every bn1 with bn2 changes nothing in a fresh net: the reason for `randomised`. This check can fail."""
    arch = small(get("resnet18"))
    for weights, hidden in (
        (torch_impl.export_weights(torch_impl.create_model(arch, seed=0)), True),
        (randomised(arch), False),
    ):
        swapped = dict(weights)
        for name in weights:
            if ".bn1." in name:
                other = name.replace(".bn1.", ".bn2.")
                swapped[name], swapped[other] = weights[other], weights[name]
        ours, twin = torch_impl.create_model(arch, dtype="float64"), keras_impl.create_model(arch, dtype="float64")
        torch_impl.import_weights(ours, weights)
        keras_impl.import_weights(twin, swapped)
        x = images(arch, (64, 64))
        assert (relative(run_torch(ours, x), run_keras(twin, x)) <= 1e-13) is hidden


@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnetv2_50", "resnet18_d2l", "seresnet18", "msresnet_1d"])
def test_the_same_seed_is_the_same_net_in_both_in_any_dtype(name):
    arch = small(get(name))
    nets = [
        export
        for p in (torch_impl, keras_impl)
        for export in (p.export_weights(p.create_model(arch, seed=3, dtype=d)) for d in ("float32", "float64"))
    ]
    for other in nets[1:]:
        assert list(other) == list(nets[0])
        assert all(np.array_equal(other[n], w) for n, w in nets[0].items())


def test_a_seed_is_a_net_and_the_frameworks_own_seeds_govern_without_one():
    import keras

    a, b = (
        torch_impl.export_weights(torch_impl.create_model("cifar_resnet20", seed=s))["conv1.weight"] for s in (1, 2)
    )
    assert not np.array_equal(a, b)
    ours, twins = [], []
    for _ in range(2):
        torch.manual_seed(7)
        keras.utils.set_random_seed(7)
        ours.append(torch_impl.export_weights(torch_impl.create_model("cifar_resnet20"))["fc.weight"])
        twins.append(keras_impl.export_weights(keras_impl.create_model("cifar_resnet20"))["fc.weight"])
    assert np.array_equal(*ours) and np.array_equal(*twins)
    assert not np.array_equal(
        ours[0], torch_impl.export_weights(torch_impl.create_model("cifar_resnet20"))["fc.weight"]
    )


def test_xaviers_initialisation_is_pytorchs_in_its_distribution():
    """Bounds and deviations of torch.nn.init.xavier_uniform_, and the same net in both frameworks."""
    arch = get("resnet18_d2l")
    weights = initial(arch, 0, "xavier")
    torch.manual_seed(0)
    for name, w in weights.items():
        if w.ndim > 1:
            theirs = torch.nn.init.xavier_uniform_(torch.empty(w.shape)).numpy()
            assert np.abs(w).max() == pytest.approx(np.abs(theirs).max(), rel=5e-3), name
            assert w.std() == pytest.approx(theirs.std(), rel=0.03) and abs(w.mean()) < 0.1 * w.std(), name
        else:
            assert (w == name.endswith(("bn1.weight", "bn2.weight", "running_var"))).all(), name
    ours, twin = (p.create_model(arch, weights=weights) for p in (torch_impl, keras_impl))
    found, other = torch_impl.export_weights(ours), keras_impl.export_weights(twin)
    assert all(np.array_equal(found[n], w) and np.array_equal(other[n], w) for n, w in weights.items())


def test_initialisation_is_he_fan_out_untruncated():
    weights = torch_impl.export_weights(torch_impl.create_model("resnext50_32x4d", seed=0))
    for name, w in weights.items():
        if w.ndim > 1 and w.size > 20_000:
            fan_in, fan_out = w[0].size, w.shape[0] * w[0, 0].size
            expected = np.sqrt(1 / fan_in if name == "fc.weight" else 2 / fan_out)
            assert w.std() / expected == pytest.approx(1, abs=0.02), name
            assert abs(w).max() > 3.5 * w.std(), name  # a truncated normal ends at 2
        elif name.endswith("running_var") or (name.endswith("weight") and w.ndim == 1):
            assert (w == 1).all(), name
        elif w.ndim == 1:
            assert (w == 0).all(), name
