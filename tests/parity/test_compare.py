"""The comparison itself: what it says of arrays that are equal, apart, missing, misshapen or not finite."""

import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import by_default, relative

import keras_impl
import torch_impl
from common import parity
from common.arch import FAMILIES, VARIANTS, get
from common.errors import RosettaError
from common.init import randomised
from common.names import count, parameters
from common.parity import report
from common.parity.backends import Here, started
from common.parity.checks import CHECKS, Item, Job, run
from common.parity.comparison import WORDS, worst_of
from common.parity.difference import DIFFERENT, ROUNDING, SUSPICIOUS, added_up
from common.plan import make_plan
from common.tools.frameworks import load


class Told:
    """A backend that gives what it is told to."""

    device = "cpu"

    def __init__(self, spec: str, items: dict[str, list[Item]]):
        self.spec, self.items = spec, items

    def versions(self):
        return {"device": "CPU"}

    def run(self, job: Job):
        counts = {"parameters": 269_722, "statistics": 1_376, "exact": 1}  # cifar_resnet20's
        yield from (Item("net", "counts", name, np.array(n)) for name, n in counts.items())
        yield from (i for i in self.items[job.dtype] if i.check.split()[0] in job.checks)


def told(a: list[Item], b: list[Item], checks=("forward",), **more) -> parity.Comparison:
    x = np.zeros((1, 3, 8, 8))
    return parity.compare(
        VARIANTS["cifar_resnet20"], x, backends=(Told("torch", {"float64": a}), Told("keras:jax", {"float64": b})),
        checks=checks, dtypes=("float64",), **more,
    )  # fmt: skip


def layers(**values) -> list[Item]:
    return [Item("forward", "layers", name, np.asarray(v, float)) for name, v in values.items()]


@pytest.mark.parametrize(
    ("apart", "verdict"),
    [(0.0, ROUNDING), (5e-14, ROUNDING), (2e-13, SUSPICIOUS), (9e-6, SUSPICIOUS), (1e-3, DIFFERENT), (1e9, DIFFERENT),
     (math.nan, DIFFERENT), (math.inf, DIFFERENT), (-math.inf, DIFFERENT)],
)  # fmt: skip
def test_the_verdict_in_float64(apart, verdict):
    result = told(layers(a=[1, -2, 0.5], b=[1, 1, 1]), layers(a=[1, -2, 0.5 + 2 * apart], b=[1, 1, 1]))
    assert result.verdict == verdict and result.equal is (verdict == ROUNDING)
    over = result.first_over("keras:jax", "float64")
    assert over is None if verdict == ROUNDING else over.name == "a" and over.index == (2,)


def test_nothing_is_equal_to_what_is_not_finite():
    for bad in (math.nan, math.inf):
        result = told(layers(a=[1, bad]), layers(a=[1, bad]))
        assert result.verdict == DIFFERENT and "not a finite number" in result.why("keras:jax", "float64")


def test_what_one_side_lacks_is_a_difference():
    for a, b, name in (
        (layers(a=[1.0], b=[1.0], c=[1.0]), layers(a=[1.0], c=[1.0]), "b"),
        (layers(a=[1.0]), layers(a=[1.0], z=[1.0]), "z"),
        (layers(a=[1.0, 2.0]), layers(a=[[1.0, 2.0]]), "a"),  # another shape of the same size: never reshaped
    ):
        result = told(a, b)
        over = result.first_over("keras:jax", "float64")
        assert over.name == name and math.isinf(over.relative) and result.verdict == DIFFERENT
        assert "doesn't have it, or in another shape" in result.why("keras:jax", "float64")


def test_another_order_is_no_difference():
    assert told(layers(a=[1.0], b=[2.0], c=[3.0]), layers(c=[3.0], a=[1.0], b=[2.0])).equal


@pytest.mark.parametrize("blind", [np.sort, np.mean, lambda y: np.exp(y) / np.exp(y).sum()])
def test_what_blind_checkers_miss(blind):
    """Sorted outputs, means and softmaxes: each hides a difference that the comparison finds."""
    y = np.array([0.1, 0.9, -0.4, 0.2])
    z = {np.sort: y[::-1], np.mean: y + [0.1, -0.1, 0, 0]}.get(blind, y + 1)
    assert np.allclose(blind(y), blind(z), atol=1e-12)
    assert told(layers(fc=y), layers(fc=z)).verdict == DIFFERENT


def test_a_gradient_that_is_zero_is_measured_by_the_largest():
    def gradients(noise: float) -> list[Item]:
        return [
            Item("gradients", "gradients", "conv1.weight", np.array([1.0, 2.0])),
            Item("gradients", "gradients", "conv1.bias", np.array([noise, -noise])),
        ]

    assert told(gradients(1e-17), gradients(3e-17), ("gradients",)).equal
    assert not told(gradients(1e-17), gradients(3e-9), ("gradients",)).equal


def test_counts_and_weights_that_change_are_a_difference():
    a, b = Told("torch", {"float64": layers(a=[1.0])}), Told("keras:jax", {"float64": layers(a=[1.0])})
    inner = b.run
    for name, n in (("parameters", 269_723), ("exact", 0)):
        b.run = lambda job, name=name, n=n: (
            Item("net", "counts", name, np.array(n)) if i.check == "net" and i.name == name else i for i in inner(job)
        )
        result = parity.compare(
            VARIANTS["cifar_resnet20"],
            np.zeros((1, 3, 8, 8)),
            backends=(a, b),
            checks=("forward",),
            dtypes=("float64",),
        )
        assert result.verdict == DIFFERENT and result.first_over("keras:jax", "float64") is None


def test_nan_is_named_before_anything_runs():
    arch, x = get("cifar_resnet20", depths=(1, 1, 1)), np.zeros((2, 3, 8, 8))
    weights = randomised(arch)
    weights["layer2.0.bn1.running_var"][0] = math.inf
    with pytest.raises(RosettaError, match="layer2.0.bn1.running_var"):
        parity.compare(arch, x, weights, backends=())
    x[1, 0, 2, 3] = math.nan
    with pytest.raises(RosettaError, match=r"the input holds nan at \[1, 0, 2, 3\]"):
        parity.compare(arch, x, backends=())


def test_float32_is_judged_by_its_floor_and_gradients_by_both():
    """A difference of ten floors is rounding, of thirty suspicious, and in float64 nothing of the kind is allowed."""
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 13))
    result = parity.compare(
        get("cifar_resnet20", depths=(1, 1, 1)), x, backends=(Here("torch"), Here("keras:tensorflow")),
        checks=tuple(CHECKS),
    )  # fmt: skip
    assert result.equal, [result.why(*key) for key in result.rows]
    rows = result.rows["keras:tensorflow", "float32"]
    assert all(d.floor >= 2**-24 and d.relative <= d.tolerance for d in rows)
    floors = [d.floor for d in rows if (d.check, d.part) == ("forward", "layers")]
    assert floors == sorted(floors) and floors[-1] < 1e-5
    logits = next(d for d in rows if (d.check, d.part) == ("forward", "logits"))
    assert logits.tolerance == min(1e-5, 3 * logits.floor)
    assert all(d.floor is None for d in result.rows["keras:tensorflow", "float64"])


def test_checks_by_dtype_and_the_state_after_the_last_step_alone():
    arch, x = get("cifar_resnet20", depths=(1, 1, 1)), np.random.default_rng(0).standard_normal((2, 3, 16, 13))
    result = parity.compare(
        arch, x, backends=(Here("torch"), Here("keras:tensorflow")), every=False,
        checks={"float64": ("steps",), "float32": ("forward",)},
    )  # fmt: skip
    assert {d.check for d in result.rows["keras:tensorflow", "float32"]} == {"forward"}
    found = {(d.check, d.part) for d in result.rows["keras:tensorflow", "float64"]}
    assert ("steps adam 3", "parameters") in found and ("steps adam 2", "parameters") not in found
    assert ("steps adam 2", "loss") in found


def test_items_are_copies_that_later_steps_leave_alone():
    arch, x = get("cifar_resnet20", depths=(1, 1, 1)), np.random.default_rng(0).standard_normal((2, 3, 16, 13))
    for framework, impl in (("torch", torch_impl), ("keras", keras_impl)):
        for module in ("trace", "autodiff", "optim"):
            load(framework, module)
        items, before = [], []
        for item in run(impl, Job(arch, x, checks=tuple(CHECKS))):
            items.append(item.value)
            before.append(item.value.copy())
        assert all(np.array_equal(a, b) for a, b in zip(items, before, strict=True))


SMALLEST = {f: min(of, key=lambda n: count(parameters(of[n]))) for f, of in FAMILIES.items()}


# each has an operator, or a way to use one, that the others don't have
OPERATORS = "resnet shortcut_options preact resnext resnet_d se keras_v2 signal".split()


@pytest.mark.parametrize("family", by_default(FAMILIES, OPERATORS))
def test_onnx_runs_both_exports_of_every_family(family, tmp_path):
    """Two stages of a block, for time; whole nets in docs/atlas.md. ONNX Runtime in float32, ONNX's evaluator in
    float64."""
    pytest.importorskip("onnxruntime")
    from common.parity import graphs

    whole = VARIANTS[SMALLEST[family]]
    narrow = 1 if whole.shortcut == "pad" else 4  # padding only adds channels to the stem's
    widths = tuple(max(16, whole.norm_groups, w // narrow) for w in whole.widths[:2])
    arch = get(SMALLEST[family], depths=(1, 1), widths=widths)
    weights = randomised(arch)
    reference = torch_impl.create_model(arch, dtype="float64", weights=weights)
    stride = make_plan(arch).total_stride
    x = np.random.default_rng(0).standard_normal((3, arch.in_channels, *(2 * stride + 1, stride + 6)[: arch.dims]))
    expected = load("torch", "trace").trace(reference, x)
    dtypes = {"float32": 1e-5, "float64": 1e-12} if family in ("resnext", "signal") else {"float32": 1e-5}
    for framework, impl in (("torch", torch_impl), ("keras", keras_impl)):
        for dtype, limit in dtypes.items():
            path = tmp_path / f"{framework}-{dtype}.onnx"
            load(framework, "onnx").export(impl.create_model(arch, dtype=dtype, weights=weights), path)
            assert relative(expected, graphs.run(path, x)) <= limit, (framework, dtype)


def test_the_page_sorts_in_a_browser(tmp_path):
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if browser is None:
        pytest.skip("no Chromium here")
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 13))
    result = parity.compare(
        get("cifar_resnet20", depths=(1, 1, 1)), x, backends=(Here("torch"), Here("keras:tensorflow"))
    )
    page = report.write(tmp_path, result)
    rows = [d for d in result.rows["keras:tensorflow", "float64"] if d.check == "forward"]
    script = """<script>const t = document.querySelector("table.sortable");
    const b = t.tHead.rows[0].cells[1].querySelector("button");
    const names = () => [...t.tBodies[0].rows].map(r => r.cells[0].textContent.trim()).join(" ");
    const said = [names()]; b.click(); said.push(names()); b.click(); said.push(names()); b.click(); said.push(names());
    document.title = said.join("|");</script>"""
    (tmp_path / "t.html").write_text(page.read_text().replace("</body>", script + "</body>"))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", (tmp_path / "t.html").as_uri()],
        capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    given, down, up, again = done.stdout.split("<title>")[1].split("</title>")[0].split("|")
    assert given == again == " ".join(d.name for d in rows)
    by_size = {d.name: d.relative for d in rows}
    for names, turned in ((down, True), (up, False)):
        sizes = [by_size[n] for n in names.split()]
        assert sizes == sorted(sizes, reverse=turned)


def test_the_folder_of_a_report_is_made_or_refused(tmp_path):
    assert report.prepare(tmp_path / "new").is_dir() and not list((tmp_path / "new").iterdir())
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file", tmp_path / "no" / "folder", Path("/proc/report")):
        with pytest.raises(RosettaError, match="can't write into"):
            report.prepare(bad)


def test_a_net_that_magnifies_rounding_is_measured_by_its_own_drift():
    """A plain net of 56 layers moves by a millionth in three steps where its input moves by 1e-15: no other rule."""
    arch = get("cifar_plain56")
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16))
    with started(["torch", "keras:torch"]) as running:
        r = parity.compare(arch, x, backends=running, checks=("steps",), dtypes=("float64",), every=False)
    worst = worst_of(r.rows["keras:torch", "float64"])
    assert worst.relative > 1e-8 and r.verdict == "rounding", r.why("keras:torch", "float64")
    assert "torch is from itself" in r.why("keras:torch", "float64")


@pytest.mark.parametrize("whole", [False, True])
def test_white_areas_are_rounding_in_float32(whole):
    """TensorFlow adds up a batch's values one after another: on white they are all rounded the same way, 1e-5 where
    PyTorch is 4e-7 from itself, and float64 agrees. What the sums of this input can be off is allowed, and no more."""
    from keras_impl import layers

    image = np.full((32, 32, 3), 255.0)
    if not whole:
        image[4:28, 4:28][np.eye(24, dtype=bool)] = (8, 48, 107)  # a confusion matrix
    arch = VARIANTS["cifar_resnet20"]
    x = np.moveaxis((image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], -1, 0)[None]
    backends = [Here("torch", "cpu"), Here("keras:tensorflow", "cpu")]
    for seed in range(2):
        result = parity.compare(arch, x, randomised(arch, seed), backends=backends)
        over = result.first_over("keras:tensorflow", "float32")
        assert result.equal, over

    normed = layers.BatchNorm.call

    def coarse(self, x, training=None, mask=None):
        y = normed(self, x, training)
        return y * (1 + 4e-4) if training and self.compute_dtype == "float32" else y

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers.BatchNorm, "call", coarse)
        result = parity.compare(arch, x, randomised(arch), backends=backends, checks=("forward", "train"))
    assert result.verdict_of("keras:tensorflow", "float64") == ROUNDING
    assert result.first_over("keras:tensorflow", "float32").name == "bn1"


def test_what_sums_can_be_off_is_small_for_photographs():
    from common.training.data import images

    arch = VARIANTS["cifar_resnet20"]
    assert added_up(np.zeros((1, 3, 8, 8))) == 0
    assert added_up(images.read(images.photographs(), make_plan(arch), 32)) < 2e-6
    assert 1e-6 < added_up(np.ones((1, 3, 32, 32))) < 1e-4


def test_a_report_explains_itself(tmp_path):
    """Its headline is a sentence and not the word "rounding"; the words are explained where they stand; no path of this
    machine is in it; names on the axis have room."""
    import json

    result = told(layers(conv1=[1.0, 2.0], bn1=[1.0, 1.0]), layers(conv1=[1.0, 2.0], bn1=[1.0, 1.0]))
    result.inputs = ["/home/somebody/pictures/cat.jpg"]
    page = report.write(tmp_path, result).read_text()
    assert "<title>cifar_resnet20: the same function, to rounding</title>" in page
    assert "keras:jax against torch, with the same weights and input" in page
    for word, meaning in WORDS.items():
        assert f">{word}</dt><dd>" in page and meaning.replace("'", "&#39;") in page
    said = (tmp_path / "report.json").read_text()
    assert json.loads(said)["inputs"] == ["cat.jpg"] and "/home" not in said + page
    far = told(layers(conv1=[1.0, 2.0]), layers(conv1=[1.0, 2.1]))
    assert "cifar_resnet20: not the same function" in report.page(far)
    for name in ("resnet50", "resnet18", "cifar_resnet20", "resnet152"):
        names = [layer.name for layer in make_plan(VARIANTS[name]).layers()]
        for width, inches in ((9.6, 0.5), (4.4, 0.25)):
            ticks = report._stages(names, -(-len(names) * inches // width))
            at = list(ticks)
            assert all(b - a >= len(names) * inches / width for a, b in zip(at, at[1:], strict=False)), ticks
            assert list(ticks.values())[-1] == "fc" and "layer1" in ticks.values() and "layer2" in ticks.values()


def test_compare_prints_what_it_found_though_the_disk_is_full(monkeypatch, tmp_path):
    """What was computed in a minute is not lost with the file."""
    import contextlib

    from click.testing import CliRunner

    from common.cli import cli
    from common.cli import compare as command
    from common.parity import backends

    items = layers(conv1=[1.0, 2.0])

    @contextlib.contextmanager
    def started(specs, device):
        yield [Told(spec, {"float64": items}) for spec in specs]

    def full(path):
        raise RosettaError(f"can't write {path}: No space left on device")

    monkeypatch.setattr(backends, "started", started)
    monkeypatch.setattr(command, "atomic", full)
    words = ["compare", "cifar_resnet20", "--dtype", "float64", "--checks", "forward", "--json"]
    out = CliRunner().invoke(cli, [*words, str(tmp_path / "r.json")])
    assert out.exit_code == 2 and "No space left" in out.stderr and "the same function" in out.stdout, out.output
