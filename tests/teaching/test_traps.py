"""The suite, tested: every fault is found on either side, with the right array as the first that differs."""

import importlib.util
import json

import pytest
from click.testing import CliRunner
from conftest import ROOT

from common.cli import cli
from common.errors import RosettaError
from common.parity.backends import Here
from common.teaching import measured
from common.teaching.faults import FAULTS, NETS, SIDES, Fault, named
from common.teaching.measured import first, measure


def test_there_are_enough():
    assert len(FAULTS) >= 52


# PyTorch's optimizers against a whole pass of Keras each: seconds, for seven faults of which Keras' side is run anyway
CASES = [
    pytest.param(
        fault, side, id=f"{fault.name.replace(' ', '-')}-{side}",
        marks=[pytest.mark.slow] if side == "torch" and "steps" in fault.checks else [],
    )
    for fault in FAULTS.values() for side in SIDES
]  # fmt: skip
MEASURED = json.loads((ROOT / "docs" / "traps.json").read_text())


@pytest.mark.parametrize(("fault", "side"), CASES)
def test_fault_is_found(fault: Fault, side: str):
    result = measure(fault, side)
    assert not result.equal and result.verdict == fault.verdict, result.verdict
    over = first(result)
    if fault.first is None:
        assert over is None and not result.same_counts
    else:
        assert over is not None and (over.check, over.name) == fault.first
        assert over.name in result.why(result.others[0], fault.dtypes[-1])
    committed = MEASURED[fault.name][side]  # what the documents say of it
    assert (committed["check"], committed["first"]) == (fault.first or ("counts", ""))
    if over is not None and committed["by"] is not None:
        assert committed["by"] / 2 <= over.relative <= committed["by"] * 2
    rows = [d for d in result.rows[result.others[0], fault.dtypes[-1]] if d.check == "forward"]
    drift = {d.name: d.relative for d in rows if d.part == "layers"}
    assert list(drift) == list(committed["layers"])
    drift["logits"] = next(d.relative for d in rows if d.part == "logits")
    for name, figure in {**committed["layers"], "logits": committed["logits"]}.items():
        figure = float("inf") if figure is None else figure
        assert figure / 2 <= drift[name] <= figure * 2 or max(figure, drift[name]) <= 1e-12, name


def test_the_measurements_are_of_these_faults_and_the_page_is_of_the_measurements():
    assert list(MEASURED) == list(FAULTS)
    script = importlib.util.spec_from_file_location("traps_script", ROOT / "benchmarks" / "traps.py")
    traps = importlib.util.module_from_spec(script)
    script.loader.exec_module(traps)
    text = (ROOT / "docs" / "traps.md").read_text()
    assert traps.page(MEASURED, text) == text


@pytest.mark.parametrize("net", NETS)
def test_without_a_fault_nothing_is_found(net):
    fault = max((f for f in FAULTS.values() if f.net == net), key=lambda f: len(f.checks))
    result = measure(None, of=fault)
    assert result.equal and first(result) is None, result.why("keras:tensorflow", "float64")


def test_a_fault_is_gone_when_it_ends():
    import keras_impl
    import torch_impl

    for framework, impl in (("torch", torch_impl), ("keras", keras_impl)):
        was = impl.create_model
        with named("same padding").injected(framework):
            assert impl.create_model is not was
        assert impl.create_model is was


def test_an_unknown_fault_is_offered_the_nearest():
    with pytest.raises(RosettaError, match="unknown fault 'same paddin'.*same padding"):
        named("same paddin")
    with pytest.raises(RosettaError, match="unknown side 'kreas'.*keras"), named("same padding").injected("kreas"):
        pass


def test_the_command_lists_them_and_shows_one():
    listed = CliRunner().invoke(cli, ["traps"])
    assert listed.exit_code == 0 and all(name in listed.output for name in FAULTS)
    one = CliRunner().invoke(cli, ["traps", "epsilon 1e-3"])
    assert one.exit_code == 0 and "rosetta compare resnet18 --with-fault 'epsilon 1e-3'" in one.output
    wrong = CliRunner().invoke(cli, ["traps", "epsilon 1e3"])
    assert wrong.exit_code == 2 and "did you mean epsilon 1e-3" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--with-fault", "same padding"], 1, "first over tolerance: layer2.0.conv1"),
        (["--with-fault", "hard sigmoid"], 2, "'hard sigmoid' does nothing to cifar_resnet20 here"),
        (["--with-fault", "hard sigmoid", "--with-fault", "same padding"], 1, "first over tolerance: layer2.0.conv1"),
        (["--with-fault", "same padding", "--with-fault", "gamma and beta swapped"], 1, "first over tolerance: bn1"),
        (["--with-fault", "epsilon 1e-3", "--with-fault", "epsilon 1.001e-5"], 2, "would undo 'epsilon 1e-3'"),
        (
            ["--with-fault", "momentum 0.99", "--with-fault", "biased variance"],
            1,
            "first over tolerance: bn1.running_mean",
        ),
        (["--with-fault", "momentum 0.99", "--with-fault", "momentum 0.1 for 0.9"], 2, "would undo 'momentum 0.99'"),
        (["--with-fault", "same padding", "--with-fault", "epsilon 1e3"], 2, "did you mean epsilon 1e-3"),
        (["--with-fault", "same padding", "--backends", "torch", "keras:jax", "keras:torch"], 2, "exactly one backend"),
    ],
)
def test_compare_with_a_fault(words, code, said, monkeypatch):
    class InThisProcess(Here):
        def close(self):
            pass

    monkeypatch.setattr(measured, "Elsewhere", InThisProcess)
    small = ["--set", "depths=1,1,1", "--checks", "forward", "--dtype", "float64"]
    out = CliRunner().invoke(cli, ["compare", "cifar_resnet20", *small, *words])
    assert out.exit_code == code and said in out.output, out.output
