"""The engines of `optimize`: graphs of our own export in ONNX Runtime and OpenVINO, and the fastest by measurement."""

import importlib.util

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
from common.speed import runners
from common.speed.fast import Optimized
from common.speed.sides import sides_of

ARCH = get("cifar_resnet20", depths=(1, 1, 1), shortcut="project")
MAKES = {"torch": torch_impl, "keras": keras_impl}


@pytest.fixture(scope="module")
def nets():
    weights = randomised(ARCH)
    return {make: impl.create_model(ARCH, weights=weights) for make, impl in MAKES.items()}


EXPORTED = runners.exported


@pytest.fixture(scope="module", autouse=True)
def exported_once():
    """The graph of each framework's net is made once: most of an engine's time is PyTorch's exporter."""
    made: dict = {}

    def exported(export, net):
        if export not in made:
            made[export] = EXPORTED(export, net)
        return made[export]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runners, "exported", exported)
        yield


def images(make: str, n: int = 3, channels: int = 3, size=(17, 22)):
    x = np.random.default_rng(n).standard_normal((n, channels, *size), np.float32)
    return torch.from_numpy(x) if make == "torch" else np.ascontiguousarray(np.moveaxis(x, 1, -1))


def plain(net, x) -> np.ndarray:
    with torch.no_grad():
        return net.eval()(x).numpy() if isinstance(net, torch.nn.Module) else np.asarray(net(x, training=False))


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize(("engine", "dtype", "limit"), [
    ("onnxruntime", "float32", 2e-6), ("openvino", "float32", 2e-6), ("openvino", "bfloat16", 0.05),
])  # fmt: skip
def test_a_graphs_engine(nets, make, engine, dtype, limit):
    pytest.importorskip(engine)
    net, x = nets[make], images(make)
    made = MAKES[make].optimize(net, x, dtype=dtype, engine=engine)
    assert made.engine == engine and made.dtype == dtype and f"in {engine}" in str(made)
    assert 0 < made.difference <= 10 * made.floor <= 10 * limit
    assert relative(plain(net, x), np.asarray(made(x))) == made.difference
    for other in (images(make, 1), images(make, 7), images(make, 2, size=(32, 25))):  # the engine itself, not the net
        y = made(other)
        assert type(y) is type(net(x)) and keras.backend.standardize_dtype(y.numpy().dtype) == "float32"
        assert relative(plain(net, other), np.asarray(y)) <= limit
    if dtype == "bfloat16":  # it was computed in fewer bits, for other shapes too
        assert relative(plain(net, other), np.asarray(made(other))) > 1e-5
    with pytest.raises(RosettaError, match="takes 3 channels"):
        made(images(make, channels=4))


@pytest.mark.parametrize("make", MAKES)
def test_a_graph_that_differs_is_not_handed_out(nets, make, monkeypatch):
    real = runners.runner

    def wrong(*given):
        run = real(*given)
        return lambda x: run(x) * np.float32(1.001)

    monkeypatch.setattr(runners, "runner", wrong)
    with pytest.raises(RosettaError, match="from the plain one's, where .* is rounding"):
        MAKES[make].optimize(nets[make], images(make), engine="onnxruntime")


def fake(name: str, seconds: float, log: list) -> Optimized:
    return Optimized(lambda x: log.append((name, seconds)) or x, "float32", ("a step",), 1e-7, 2e-7, name)


@pytest.fixture
def clock(monkeypatch):
    """Time that only runs of fakes take; and the log of these."""
    log: list = []
    monkeypatch.setattr(runners.time, "perf_counter", lambda: sum(s for _, s in log))
    return log


def test_the_fastest_is_taken_and_the_rest_is_told(clock):
    def made(engine):
        if engine == "onnxruntime":
            raise RosettaError("onnxruntime differs")
        return fake(engine, {"compiler": 0.3, "openvino": 0.2}[engine], clock)

    best = runners.chosen("auto", made, "x", lambda y: y)
    assert best.engine == "openvino" and best.run("x") == "x"
    assert best.seconds == pytest.approx({"compiler": 0.3, "openvino": 0.2})
    assert best.left_out == {"onnxruntime": "onnxruntime differs"}
    assert "openvino is the fastest here: 0.2 s, 1.50 times as fast as compiler (0.3 s)" in str(best)
    assert str(best).endswith("without onnxruntime: onnxruntime differs")
    counted = [name for name, _ in clock[:-1]]
    turns = [n for i, n in enumerate(counted) if i == 0 or counted[i - 1] != n]
    assert len(turns) >= 2 * runners.ROUNDS - runners.ROUNDS // 2  # one after the other, and not one at a time

    def none(engine):
        raise RosettaError(f"no {engine}")

    with pytest.raises(RosettaError, match="no compiler; no onnxruntime; no openvino"):
        runners.chosen("auto", none, "x", lambda y: y)
    alone = runners.chosen("auto", lambda e: fake(e, 1.0, clock) if e == "compiler" else none(e), "x", lambda y: y)
    assert alone.engine == "compiler" and not alone.seconds and "fastest" not in str(alone)


def test_the_machines_drift_meets_all_alike(clock, monkeypatch):
    """Medians of turns: whoever is measured while the machine is slow would lose else."""
    slow = [1.0] * 10 + [3.0] * 1000

    def run(name, seconds):
        return lambda x: clock.append((name, seconds * slow[len(clock)]))

    found = runners.in_turns({"a": run("a", 0.1), "b": run("b", 0.11)}, None, lambda y: y)
    assert found["b"] == pytest.approx(1.1 * found["a"])


@pytest.mark.parametrize("make", MAKES)
def test_auto(nets, make, monkeypatch):
    monkeypatch.setattr("torch_impl.fast._compiled", lambda net, x, steps: net)  # Inductor takes seconds
    x = images(make)
    made = MAKES[make].optimize(nets[make], x, engine="auto")
    there = {"compiler", *(e for e in runners.DTYPES if importlib.util.find_spec(e))}
    assert set(made.seconds) == there and made.seconds[made.engine] == min(made.seconds.values())
    assert set(made.left_out) == set(runners.ENGINES) - there
    assert relative(plain(nets[make], x[:2]), np.asarray(made(x[:2]))) <= 2e-6
    if make == "torch":
        half = torch_impl.optimize(nets[make], x, engine="auto", dtype="bfloat16")
        assert "onnxruntime has no bfloat16 here, only float32" in str(half) and half.engine in ("compiler", "openvino")


@pytest.mark.parametrize(("engine", "dtype", "words"), [
    ("openvin", None, "unknown engine 'openvin'; did you mean openvino?"),
    ("tvm", None, "there are compiler, onnxruntime, openvino, auto"),
    ("ort", None, "did you mean onnxruntime"),
    ("onnxruntime", "bfloat16", "onnxruntime has no bfloat16 here, only float32"),
    ("openvino", "float64", "openvino has no float64"),
])  # fmt: skip
@pytest.mark.parametrize("make", MAKES)
def test_bad_engines(nets, make, engine, dtype, words, monkeypatch):
    monkeypatch.setattr(runners, "require", lambda *given: None)
    with pytest.raises(RosettaError, match=words.replace("?", "[?]")):
        MAKES[make].optimize(nets[make], images(make), engine=engine, dtype=dtype)


def test_an_engine_that_is_not_there_or_can_not(nets, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else real(name, *a))
    for make, impl in MAKES.items():
        with pytest.raises(RosettaError, match=rf"pip install 'resnet-rosetta\[{make},openvino\]'"):
            impl.optimize(nets[make], images(make), engine="openvino")
    assert runners.installed("torch", "float32") == ["compiler", "onnxruntime"]
    with pytest.raises(RosettaError, match="the net is on cuda; engine='compiler' runs there"):
        runners.check("onnxruntime", "torch", "float32", "cuda")
    with pytest.raises(RosettaError, match="onnxruntime can't run the graph: "):
        runners.runner("onnxruntime", b"no graph", "float32", 1, [])

    def export(net, path):
        raise ValueError("an operator\nand more")

    with pytest.raises(RosettaError, match="the net can't be exported: an operator$"):
        EXPORTED(export, None)


def test_a_processor_without_the_dtype_says_so(monkeypatch):
    monkeypatch.setitem(runners._RUNNERS, "openvino", lambda graph, dtype, threads: (None, "float32"))
    monkeypatch.setattr(runners, "version", lambda name: "1")
    steps: list[str] = []
    runners.runner("openvino", b"", "bfloat16", 1, steps)
    assert steps == ["in openvino 1", "which computes in float32 on this processor"]


def test_the_benchmarks_sides(monkeypatch):
    monkeypatch.setattr(runners, "installed", lambda framework, dtype: ["compiler", "openvino"])
    arch = get("resnet18")

    def sides(engines, *backends, modes=("optimised",)):
        found = sides_of("resnet18", arch, False, backends, (), modes, ("float32",), (224, 224), engines)
        return [str(s).removesuffix(", float32") for s in found]

    assert sides(None, "torch", modes=("eager", "optimised")) == [
        "torch, eager", "torch, optimised", "torch, optimised by openvino"
    ]  # fmt: skip
    assert sides(None, "keras:jax") == ["keras:jax, optimised"]
    assert sides(["auto"], "keras:jax", "torch") == ["keras:jax, optimised by auto", "torch, optimised by auto"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["--engines", "onnxrutime"], "did you mean onnxruntime"),
    (["--engines", "onnxruntime", "--dtype", "bfloat16"], "onnxruntime has no bfloat16"),
    (["--engines", "onnxruntime", "--device", "gpu"], "onnxruntime runs on the CPU here"),
    (["--engines", "onnxruntime", "--backends", "keras:jax"], "and not keras:jax"),
])  # fmt: skip
def test_bench_bad_engines(arguments, words):
    found = rosetta("bench", "resnet18", "--modes", "optimised", "--backends", "torch", *arguments)
    assert found.exit_code == 2 and words in found.output, found.output


@pytest.mark.slow
def test_bench_shows_the_engines_side_by_side(tmp_path):
    found = rosetta(
        "bench", "cifar_resnet20", "--set", "depths=[1,1,1]", "--modes", "optimised", "--engines",
        "compiler,onnxruntime,auto", "--backends", "torch", "--threads", "1", "--rounds", "2",
        "--plot", tmp_path / "b.png",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "optimised by onnxruntime" in found.output and "is the fastest here" in found.output, found.output
