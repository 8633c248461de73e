"""The fast path for inference, and the benchmark that times it."""

import contextlib
import json
import logging

import keras
import numpy as np
import pytest
import torch
from conftest import relative
from test_cli import rosetta

import keras_impl
import torch_impl
from common.arch import get
from common.errors import RosettaError
from common.init import randomised
from common.parity.difference import TOLERANCE
from common.speed import bench, sides
from common.speed.bench import Measured, ratio
from common.speed.fast import in_parts
from common.speed.sides import Side
from keras_impl import fast as keras_fast
from torch_impl import fast
from torch_impl.fast import InParts

ARCH = get("cifar_resnet20", depths=(1, 1, 1), shortcut="project")


@pytest.fixture(scope="module")
def nets():
    weights = randomised(ARCH)
    return torch_impl.create_model(ARCH, weights=weights), keras_impl.create_model(ARCH, weights=weights)


@pytest.fixture
def uncompiled(monkeypatch):
    """Without Inductor, which takes seconds."""
    monkeypatch.setattr(fast, "_compiled", lambda net, x, steps: net)


def images(n: int = 3, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((n, channels, 17, 22), np.float32))


def last(x: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x.numpy(), 1, -1))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("resnet50", (8, 3, 224, 224), (4, 2)),  # 2 images of 64 -> 256 channels at 56 x 56 are 6.1 MiB
        ("resnet50", (16, 3, 224, 224), (8, 2)),
        ("resnet50", (7, 3, 224, 224), (7, 2)),
        ("resnet50", (1, 3, 224, 224), (1, 0)),  # fits
        ("resnet50", (64, 3, 224, 224), (1, 0)),  # 32 parts: too much to compile
        ("resnet152", (8, 3, 224, 224), (4, 2)),
        ("cifar_resnet1202", (64, 3, 32, 32), (1, 0)),
        ("msresnet_1d", (64, 1, 65536), (1, 0)),
    ],
)
def test_parts_of_a_batch(name, shape, expected):
    steps: list[str] = []
    assert in_parts(get(name), shape, "float32", steps) == expected
    assert len(steps) == (expected != (1, 0))
    assert in_parts(get(name), shape, "bfloat16", steps) == (1, 0)


@pytest.mark.parametrize("fields, expected", [({}, (2, 3)), ({"kernels": (3, 5)}, (1, 0)), ({"dims": 1}, (1, 0))])
def test_images_and_one_trunk_alone_go_in_parts(fields, expected):
    arch = get("cifar_resnet20", **fields)
    assert in_parts(arch, (4, 3, 256, 256) if arch.dims == 2 else (4, 3, 256 * 256), "float32", []) == expected


def test_a_batch_in_parts_gives_the_same_logits():
    """In float64, early stages of 0 to all, and in a net of other stages than these; parts of one and of several."""
    arch = get(ARCH, widths=(8, 16, 24))
    weights = randomised(arch)
    x = images(12).double()
    assert len({float(i) for i in x[:, 0, 0, 0]}) == 12  # no two are alike
    for net, batch in (
        (torch_impl.create_model(arch, dtype="float64", weights=weights).eval(), x),
        (keras_impl.create_model(arch, dtype="float64", weights=weights), last(x)),
    ):
        whole = logits(net(batch))
        net.__class__ = InParts if isinstance(net, torch.nn.Module) else keras_fast.InParts
        for n, net.parts, net.early in ((4, 2, 0), (4, 4, 1), (4, 2, 3), (12, 2, 0), (12, 3, 1), (12, 12, 2)):
            assert relative(whole[:n], logits(net(batch[:n]))) <= TOLERANCE["forward"]


def logits(y) -> np.ndarray:
    return y.detach().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)


@pytest.mark.parametrize("make", [torch_impl, keras_impl])
def test_early_stages_in_parts(nets, make, monkeypatch):
    monkeypatch.setattr("common.speed.fast.CACHED", 30_000)  # bytes: a third of the first stage's
    net, x = (nets[0].eval(), images()) if make is torch_impl else (nets[1], last(images()))
    made = make.optimize(net, x)
    assert "the batch in 3 parts as far as stage 1" in made.steps and made.difference < 2e-6, str(made)
    assert relative(logits(net(x + 1)), logits(made(x + 1))) <= 2e-6
    assert "parts" not in str(make.optimize(net, x, dtype="bfloat16")) and type(net) is make.ResNet


@pytest.mark.parametrize("dtype, limit", [(None, 2e-6), ("bfloat16", 0.1)])
def test_pytorch_compiled(nets, dtype, limit, caplog):
    net, x = nets[0], images()
    before = {n: w.copy() for n, w in torch_impl.export_weights(net).items()}
    with caplog.at_level(logging.WARNING):
        made = torch_impl.optimize(net, x, dtype=dtype)
    assert made.dtype == (dtype or "float32") and "compiled by Inductor with frozen weights" in made.steps, str(made)
    assert 0 < made.difference <= 10 * made.floor <= 10 * limit and f"{made.difference:.1e}" in str(made)
    y, plain = made(x), net.eval()(x).detach().numpy()
    assert y.dtype == torch.float32 and not y.requires_grad
    assert relative(plain, y.numpy()) == made.difference
    assert np.array_equal(made(x[:2]).numpy(), net(x[:2]).detach().numpy())  # another shape: the plain net
    assert all(np.array_equal(w, before[n]) for n, w in torch_impl.export_weights(net).items())
    x2 = x + 1  # and not what was seen when it was made
    assert relative(net(x2).detach().numpy(), made(x2).numpy()) <= limit
    assert not caplog.records


def test_the_model_keeps_its_mode(nets, uncompiled):
    x = images()
    made = torch_impl.optimize(nets[0].train(), x)
    assert nets[0].training
    other = made(x[:2])  # another shape: the plain net
    assert nets[0].training and np.array_equal(other.numpy(), nets[0].eval()(x[:2]).detach().numpy())


def test_pytorch_without_a_compiler_says_so(nets, monkeypatch):
    def no_compiler(*args, **kwargs):
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    made = torch_impl.optimize(nets[0], images())
    assert "not compiled (No working C++ compiler found)" in made.steps and made.difference < 1e-6


def test_float64_and_signals(uncompiled):
    for name, shape in (("cifar_resnet20", (2, 3, 15, 18)), ("resnet18_1d", (2, 1, 90))):
        arch = get(name, depths=(1,) * len(get(name).depths))
        x = torch.from_numpy(np.random.default_rng(0).standard_normal(shape))
        made = torch_impl.optimize(torch_impl.create_model(arch, dtype="float64", weights=randomised(arch)), x)
        assert made.dtype == "float64" and made.difference <= 1e-13 and made.floor is None
    made = torch_impl.optimize(torch_impl.create_model(arch, weights=randomised(arch)), x.float(), dtype="float64")
    assert made.difference <= 1e-5


@pytest.mark.parametrize("dtype, limit", [(None, 2e-6), ("bfloat16", 0.1)])
def test_keras_on_tensorflow(nets, dtype, limit):
    net, x = nets[1], last(images())
    made = keras_impl.optimize(net, x, dtype=dtype)
    assert "compiled by TensorFlow with frozen weights" in made.steps and made.dtype == (dtype or "float32")
    assert 0 < made.difference <= 10 * made.floor <= 10 * limit
    y, x2 = made(x), x + 1  # and not what was seen when it was made
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    assert relative(np.asarray(net(x2, training=False)), np.asarray(made(x2))) <= limit
    assert relative(np.asarray(net(x, training=False)), np.asarray(y)) <= limit
    assert np.array_equal(np.asarray(made(x[:2])), np.asarray(net(x[:2], training=False)))
    assert np.array_equal(np.asarray(made(keras.ops.convert_to_tensor(x))), np.asarray(y))


def test_a_fast_net_that_differs_is_not_handed_out(nets, uncompiled, monkeypatch):
    monkeypatch.setattr("common.fold._bias", lambda source, conv, norm: source[f"{norm.name}.bias"]().astype(float))
    for net, x, make in zip(nets, (images(), last(images())), (torch_impl, keras_impl), strict=True):
        with pytest.raises(RosettaError, match="from the plain one's, where .* is rounding"):
            make.optimize(net, x)


def hooked(net):
    net.layer2.register_forward_hook(lambda module, x, y: 1.01 * y)


def its_own_forward(net):
    plain = net.forward  # of a net that a copy can't replace
    net.forward = lambda x: 1.1 * plain(x)


EDITS = {
    "a module replaced": (
        lambda net: setattr(net, "maxpool", torch.nn.MaxPool2d(2)),
        lambda net: setattr(net, "maxpool", keras.layers.MaxPooling2D(2)),
    ),
    "a border": (
        lambda net: setattr(net.layer2[0].conv1, "padding_mode", "reflect"),
        lambda net: setattr(net.layer3.members[0].conv1, "before", ((0, 0), (0, 2), (0, 2), (0, 0))),
    ),
    "an epsilon": (
        lambda net: setattr(net.layer1[0].bn1, "eps", 1.1e-5),
        lambda net: setattr(net.layer1.members[0].bn1, "epsilon", 1e-3),
    ),
    "a hook": (hooked, lambda net: setattr(net.layer2, "call", lambda x, call=net.layer2.call: 1.01 * call(x))),
    "a forward": (its_own_forward, lambda net: setattr(net, "logits", lambda x, f=net.logits: 1.1 * f(x))),
    "a head": (
        lambda net: setattr(net, "fc", torch.nn.Linear(24, 5)),
        lambda net: setattr(net, "fc", keras.layers.Dense(5)),
    ),
    "a parametrization": (
        lambda net: torch.nn.utils.parametrizations.weight_norm(net.conv1),
        lambda net: setattr(net, "bn1", keras.layers.Identity()),
    ),
}


@pytest.mark.parametrize("what", EDITS)
@pytest.mark.parametrize("make", [torch_impl, keras_impl])
def test_a_net_that_was_changed_is_not_made_fast(make, what, uncompiled):
    """The floor used to be taken from a net made from the row, and so was as large as the difference."""
    arch = get(ARCH, widths=(8, 16, 24))
    net, edit = make.create_model(arch, weights=randomised(arch)), EDITS[what][make is keras_impl]
    x = images() if make is torch_impl else last(images())
    if make is keras_impl:
        net._tracker.unlock()
    edit(net)
    if what == "a head" and make is keras_impl:
        net(x)
    with pytest.raises(RosettaError, match="the net isn't its row any more"):
        make.optimize(net, x)


def test_hooks_that_change_nothing_and_half_a_dtype(uncompiled):
    net, seen = torch_impl.create_model(ARCH, weights=randomised(ARCH)), []
    net.layer1.register_forward_hook(lambda module, x, y: seen.append(y.sum().requires_grad_()))
    assert torch_impl.optimize(net.to(memory_format=torch.channels_last), images()).difference < 2e-6 and seen
    net.seen = seen[-1] * 2  # no leaf of a graph: this net can't be copied
    assert torch_impl.optimize(net, images()).difference < 2e-6
    net.maxpool = torch.nn.MaxPool2d(2)
    with pytest.raises(RosettaError, match="in float32, where"):
        torch_impl.optimize(net, images())
    for make, x in ((torch_impl, images()), (keras_impl, last(images()))):
        half = make.create_model(ARCH, weights=randomised(ARCH), dtype="bfloat16")
        made = make.optimize(half, x.bfloat16() if make is torch_impl else x)
        assert 1e-4 < made.floor < 0.05 and made.difference <= 10 * made.floor


@pytest.mark.parametrize("wrong, words", [("array", "tensor N C"), ("flat", "3 x 3"), ("channels", "takes 3 channels")])
def test_wrong_examples_and_dtypes(nets, wrong, words):
    x = {"array": [1.0], "flat": images()[0, 0, :3, :3], "channels": images(channels=4)}[wrong]
    with pytest.raises(RosettaError, match=words):
        torch_impl.optimize(nets[0], x)
    with pytest.raises(RosettaError, match=words.replace("tensor N C", "array N")):
        keras_impl.optimize(nets[1], last(x) if wrong == "channels" else x)
    for net, make, x in zip(nets, (torch_impl, keras_impl), (images(), last(images())), strict=True):
        with pytest.raises(RosettaError, match="int8"):
            make.optimize(net, x, dtype="int8")


# -- the benchmark


def test_a_ratio_is_of_rounds_and_says_when_it_is_noise():
    drifting = [1.0, 2.0, 4.0, 8.0]  # the machine slows down for both
    r = ratio(drifting, [1.5 * s for s in drifting])
    assert (r.median, r.low, r.high, r.noise) == (1.5, 1.5, 1.5, False)
    assert ratio([1.0, 1.0, 1.0, 1.0], [0.8, 0.9, 1.1, 1.2]).noise
    assert ratio([2.0], [3.0]).median == 1.5


def test_what_a_ratio_is_to():
    def side(who, mode, dtype, ours=False):
        return Measured(Side(who, mode, dtype, ours, 2_000), 4, [0.5, 0.5])

    rows = [
        side("torch", "eager", "bfloat16", True), side("torch", "eager", "float32", True),
        side("timm", "eager", "bfloat16"), side("timm", "eager", "float32"),
        side("torch", "optimised", "float32", True), side("torch", "train", "float32", True),
    ]  # fmt: skip
    result = bench.Result("x", (4, 3, 8, 8), "cpu", 1, {}, rows, {"float32": {"numpy": 32_000.0, "torch": 8_000.0}}, 2)
    assert all(result.base(m) is rows[3] for m in rows[:5]) and result.base(rows[5]) is rows[5]
    assert rows[0].per_second == 8 and rows[0].multiply_adds_per_second == 16_000
    assert result.fraction(rows[1]) == 0.5 and result.fraction(rows[0]) is None
    written = result.to_json()["sides"][4]["times_as_fast_as"]
    assert "timm, eager, float32" in written and "torch, train, float32" not in written


def bench_small(tmp_path, *more: str) -> list[dict]:
    """The sides that `rosetta bench` writes of a small net."""
    found = rosetta(
        "bench", "resnet18", "--set", "depths=[1,1,1,1]", "--set", "widths=[8,8,16,16]", "--batch", "2", "--size", "40",
        "--threads", "1", "--rounds", "2", "--json", tmp_path / "b.json", "--plot", tmp_path / "b.png", *more,
    )  # fmt: skip
    assert found.exit_code == 0 and "1 (the base)" in found.output, found.output
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    sides = json.loads((tmp_path / "b.json").read_text())["sides"]
    assert all(len(s["rounds"]) == 2 and min(s["rounds"]) > 0 and s["peak_bytes"] > 2**25 for s in sides)
    return sides


def test_bench_end_to_end(tmp_path):
    eager, step = bench_small(tmp_path, "--backends", "torch", "--modes", "eager,train-optimised")
    assert (eager["mode"], step["mode"]) == ("eager", "train-optimised") and eager["fraction_of_product"] > 0
    assert step["multiply_adds"] == 3 * eager["multiply_adds"]


def test_a_product_that_a_net_outruns_is_measured_again(monkeypatch):
    products = [2.0, 3.0, 1.0, 9.0]

    class Fake:
        def __init__(self, said, *_):
            self.said = said

        def answer(self):
            return {"numpy": products.pop(0)} if "product" in self.said else {"built": 0, "first": 0, "device": ""}

        def ready(self):
            return self.answer()

        def run(self, times):
            return {"seconds": [1e-3] * times, "peak": 1}

        def close(self):
            pass

    monkeypatch.setattr(bench, "Process", Fake)
    asked = dict(backends=["torch"], modes=["eager"], rounds=1)
    assert bench.bench("cifar_resnet20", **asked).products == {"float32": {"numpy": 3.0}} and products == [9.0]
    products[:] = [1e15, 1e16]
    assert bench.bench("cifar_resnet20", **asked).products == {"float32": {"numpy": 1e15}} and products == [1e16]
    products[:] = [1e15, 1.0]  # of a dtype that no side computes in, once
    monkeypatch.setattr(bench, "_files", lambda arch, sides: contextlib.nullcontext({}))
    asked = dict(backends=[], against=["onnxruntime"], modes=["optimised"], dtypes=["float32", "bfloat16"], rounds=1)
    assert bench.bench("cifar_resnet20", **asked).products == {"float32": {"numpy": 1e15}, "bfloat16": {"numpy": 1.0}}


@pytest.mark.slow
def test_bench_of_everything(tmp_path):
    modes = ("eager", "optimised", "train", "train-optimised")
    sides = bench_small(tmp_path, "--against", "onnxruntime", "--modes", ",".join(modes), "--dtype", "float32")
    ours = [(who, mode) for mode in modes for who in ("torch", "keras:tensorflow")]
    assert [(s["who"], s["mode"]) for s in sides] == [*ours[:4], ("onnxruntime", "optimised"), *ours[4:]]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["resnet55"], "did you mean resnet50"),
        (["resnet50", "--against", "torchvsion"], "did you mean torchvision"),
        (["resnet50", "--against"], "--against needs names"),
        (["--against", "timm", "cifar_resnet20"], "timm has no cifar_resnet20"),
        (["resnet50", "--against", "timm", "--set", "groups=2"], "timm has no resnet50 with other fields"),
        (["resnet50", "--against", "onnxruntime", "--modes", "train"], "onnxruntime has none of train"),
        (["resnet50", "--against", "onnxruntime", "--dtype", "bfloat16"], "in bfloat16: it has optimised in float32"),
        (["resnet50", "--against", "onnxruntime", "--device", "gpu"], "onnxruntime runs on the CPU here"),
        (["resnet50", "--modes", "egaer"], "did you mean eager"),
        (["resnet50", "--backends", "onnx:torch"], "unknown backend 'onnx:torch'"),
        (["resnet50", "--threads", "4096"], "this process may use 1 to"),
        (["resnet50", "--json", "/nowhere/x.json"], "can't write /nowhere/x.json"),
    ],
)
def test_bench_bad_input(arguments, words, monkeypatch):
    monkeypatch.setattr(sides, "require", lambda *what: None)
    found = rosetta("bench", *arguments)
    assert found.exit_code == 2 and words in found.output, found.output


def test_bench_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sides.PEERS, "openvino", (("nowhere_to_be_found",), ("optimised",)))
    found = rosetta("bench", "resnet50", "--against", "openvino")
    assert found.exit_code == 2 and "pip install nowhere-to-be-found" in found.output


def test_bench_without_a_gpu_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = rosetta("bench", "cifar_resnet20", "--backends", "torch", "--modes", "eager", "--device", "gpu")
    assert found.exit_code == 2 and "torch finds no GPU" in found.output, found.output


def test_a_side_that_fails_is_one_line(monkeypatch):
    monkeypatch.setattr(bench, "_files", lambda arch, sides: contextlib.nullcontext({"weights": "gone"}))
    found = rosetta("bench", "cifar_resnet20", "--backends", "torch", "--modes", "eager", "--batch", "1")
    assert found.exit_code == 2 and "torch, eager: no such file: gone" in found.output, found.output
