"""A run's folder: found from anywhere, gone on with by one process at a time, for longer, and after any signal."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, relative

from common import weights as canonical
from common.arch import get
from common.cli import cli
from common.cli import train as command
from common.errors import RosettaError
from common.init import initial
from common.training import loop, recipe, record
from common.training import run as training

SETS = ("--set", "depths=[1,1,1]")


def rosetta(*words, code=0):
    done = CliRunner().invoke(cli, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def small(folder, *more, data="digits", code=0):
    return rosetta("train", "cifar_resnet20", *SETS, "--data", data, "--batch", 240, "--out", folder, *more, code=code)


@pytest.fixture
def examples(tmp_path):
    """mine.npz in a folder of its own, of 40 examples in two classes."""
    (tmp_path / "here").mkdir()
    x, y = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "here" / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return tmp_path / "here"


def test_a_run_of_relative_paths_is_found_from_any_folder(tmp_path, examples, monkeypatch):
    monkeypatch.chdir(examples)
    net = get("cifar_resnet20", depths=(1, 1, 1), in_channels=1)
    canonical.save("net.safetensors", net, initial(net, 0))
    (examples / "set").mkdir()
    small("run", "--init", "net.safetensors", "--data-dir", "set", "--steps", 1, "--quiet", data="mine.npz")
    said = json.loads((examples / "run" / "config.json").read_text())
    assert said["data"] == str(examples / "mine.npz") and said["data_dir"] == str(examples / "set")
    assert said["init"] == str(examples / "net.safetensors") and said["recipe_name"] == "transfer"
    assert training.placed("folder:x") == f"folder:{examples / 'x'}" and training.placed("digits") == "digits"
    monkeypatch.chdir(tmp_path)
    rosetta("train", "--resume", "here/run", "--steps", 1, "--quiet", "--workers", 2)
    assert training.Run.load(examples / "run").workers == 2
    assert json.loads(rosetta("evaluate", "here/run", "--json"))["examples"] == 40


def test_data_that_moved_are_named_once(tmp_path, examples, monkeypatch):
    small(examples / "run", "--steps", 1, "--quiet", data=examples / "mine.npz")
    shutil.move(examples / "mine.npz", tmp_path / "moved.npz")
    assert "no such file" in rosetta("train", "--resume", examples / "run", code=2)
    monkeypatch.chdir(tmp_path)
    rosetta("train", "--resume", examples / "run", "--data", "moved.npz", "--steps", 1, "--quiet")
    assert training.Run.load(examples / "run").data == str(tmp_path / "moved.npz")
    rosetta("train", "--resume", examples / "run", "--steps", 1, "--quiet")
    before = (examples / "run" / "config.json").read_text()
    assert "the net has" in rosetta("train", "--resume", examples / "run", "--data", "digits", code=2)
    assert (examples / "run" / "config.json").read_text() == before
    with np.load(tmp_path / "moved.npz") as kept:
        fewer = {k: v[:30] for k, v in kept.items()}
    np.savez(tmp_path / "fewer.npz", **fewer)
    said = rosetta("train", "--resume", examples / "run", "--data", tmp_path / "fewer.npz", code=2)
    assert "was trained on 40 examples, and fewer has 30" in said
    np.savez(tmp_path / "others.npz", **fewer, classes=np.array(["x", "y"]))
    said = rosetta("train", "--resume", examples / "run", "--data", tmp_path / "others.npz", code=2)
    assert "other classes" in said


def test_a_second_process_is_refused_while_the_first_trains(tmp_path):
    small(tmp_path / "run", "--steps", 1, "--quiet")
    holds = (
        "import sys; from common.training.record import alone; from pathlib import Path\nwith alone(Path(sys.argv[1])):"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", holds + " print('held', flush=True); sys.stdin.read()", tmp_path / "run"], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout.readline() == "held\n"
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    for more in ((), ("--epochs", 99)):
        said = rosetta("train", "--resume", tmp_path / "run", *more, code=2)
        assert f"{tmp_path / 'run'} is being trained by another process" in said.replace("\n", " ")
    with pytest.raises(RosettaError, match="another process"):
        loop.train(tmp_path / "run")
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    first.kill()  # the lock falls with it
    first.communicate()
    rosetta("train", "--resume", tmp_path / "run", "--steps", 1, "--quiet")
    assert not record._locked


def test_only_the_first_of_torchruns_processes_locks(tmp_path, monkeypatch):
    with record.alone(tmp_path):
        monkeypatch.setenv("RANK", "1")
        record._locked.clear()  # as in a process of its own
        with record.alone(tmp_path):
            record._locked.add(tmp_path.resolve())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_with_a_checkpoint(tmp_path, monkeypatch, number):
    """In this process: the signal comes in the middle of the third step."""
    from torch_impl.train import Trainer

    steps, plain = [], Trainer.step

    def step(self, *given):
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), number)
        return plain(self, *given)

    monkeypatch.setattr(Trainer, "step", step)
    said = small(tmp_path / "run", code=128 + number)
    assert "stopped after step 3 of" in said and f"rosetta train --resume {tmp_path / 'run'}" in said
    assert canonical.load_training(tmp_path / "run" / "last.safetensors")[1]["step"] == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_run_goes_on_for_longer(tmp_path):
    small(tmp_path / "run", "--epochs", 1, "--quiet", "--no-augment")
    said = rosetta("train", "--resume", tmp_path / "run", "--epochs", 2)
    assert "2 epochs instead of 1: the cosine schedule is stretched: it falls to 0 over all of them" in said
    run = training.Run.load(tmp_path / "run")
    assert run.recipe.epochs == 2
    rates = [float(x) for x in re.search(r"next step is (\S+), where it would have been (\S+)", said).groups()]
    assert rates[0] == pytest.approx(run.recipe.rate(6, 6), rel=1e-2) and rates[1] == pytest.approx(0.05, rel=1e-2)
    found = record.read_metrics(tmp_path / "run")
    assert [r["step"] for r in found if "test_loss" in r] == [6, 12]
    assert "2 epochs behind it already: --epochs 2" in rosetta(
        "train", "--resume", tmp_path / "run", "--epochs", 2, code=2
    )
    assert "epochs is 0" in rosetta("train", "--resume", tmp_path / "run", "--epochs", 0, code=2)
    # what was trained for two epochs from the beginning, the first at another rate, is another run; but going on with
    # as many is the same
    small(tmp_path / "whole", "--epochs", 3, "--quiet")
    small(tmp_path / "parts", "--epochs", 3, "--quiet", "--steps", 4)
    rosetta("train", "--resume", tmp_path / "parts", "--epochs", 3, "--quiet")
    a, b = (canonical.load(tmp_path / n / "last.safetensors")[1] for n in ("whole", "parts"))
    assert all(relative(a[n], b[n]) == 0 for n in a)


@pytest.mark.parametrize(
    ("examples", "begins", "expected"),
    [(36, False, "small"), (1438, False, "small"), (60_000, False, "short"), (36, True, "transfer")],
)
def test_the_recipe_suits_the_number_of_examples(examples, begins, expected):
    assert recipe.suited(examples, begins) == expected


def test_the_header_says_what_is_trained_on_what_and_how(tmp_path, examples):
    said = small(tmp_path / "run", "--steps", 1)
    assert "input 1 x 8 x 8 (C H W), 10 classes: 0, 1, 2, 3, 4, 5, ..." in said
    assert "recipe small: batch 240, SGD with a rate of up to 0.05 (cosine), 15 epochs" in said
    assert "6 steps of 240 an epoch" in said and "fewer than 10 steps moves a net little" in said
    assert re.search(r"stopped after step 1 of 90, loss \d\.\d{4}: rosetta", said)
    said = small(tmp_path / "one", "--steps", 1, "--epochs", 1, data=examples / "mine.npz")
    assert "1 step of 240 an epoch" in said and "2 classes: 0, 1\n" in said


def test_off_a_terminal_a_line_comes_every_half_minute(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now.__setitem__(0, now[0] + 11.0) or now[0])
    said = small(tmp_path / "run", "--epochs", 1)
    lines = re.findall(r"step (\d) of 6, epoch 1: loss \d\.\d+ +accuracy +[\d.]+% +rate", said)
    assert 1 <= len(lines) <= 2, said
    assert command.SAY_EVERY == 30


def test_a_loss_that_is_none_before_there_is_a_checkpoint(tmp_path):
    said = small(tmp_path / "run", "--rate", 1e30, "--with", "warmup=0", code=2)
    assert "too high" in said and "has no checkpoint" in said and "last checkpoint" not in said


def test_all_but_the_head_is_frozen(tmp_path):
    small(tmp_path / "run", "--steps", 2, "--quiet", "--freeze", "all-but-head")
    run = training.Run.load(tmp_path / "run")
    assert run.frozen == ("stem", "layer1", "layer2", "layer3")
    before, after = initial(run.arch, 0), canonical.load(tmp_path / "run" / "last.safetensors")[1]
    assert {n for n in before if not np.array_equal(before[n], after[n])} == {"fc.weight", "fc.bias"}
    two_trunks = get("msresnet_1d")
    assert recipe.frozen_sections(two_trunks, ("all-but-head", "head"))[-1] == "head"
    assert recipe.frozen_sections(two_trunks, ("layer9",)) == ("layer9",)  # which `learning` refuses
    said = small(tmp_path / "no", "--freeze", "all-but-heads", code=2)
    assert "did you mean all-but-head" in said


# -- folders of others


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that stopped in its second epoch, of every kind of state."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    small(folder, "--steps", 8, "--quiet", "--with", "ema=0.9", "--epochs", 3)
    return folder


def changed(stopped, folder, config=None, progress=None, arrays=None):
    """The run with something else in its config, its progress or its arrays."""
    shutil.copytree(stopped, folder)
    if config:
        said = json.loads((folder / "config.json").read_text())
        config(said)
        (folder / "config.json").write_text(json.dumps(said))
    last = folder / "last.safetensors"
    row, weights, meta = canonical.load(last)
    state, said = canonical.load_training(last)
    said = progress(said) or said if progress else said
    if arrays:
        arrays(state)
    canonical.save(last, row, weights, meta, {"progress": said, "arrays": state})
    return folder


MOMENT = "layer1.0.conv1.weight momentum"
BROKEN = {
    "size": (dict(config=lambda c: c.update(size="large")), "size = 'large'"),
    "workers": (dict(config=lambda c: c.update(workers=0)), "workers = 0"),
    "data": (dict(config=lambda c: c.update(data=[1])), "data = '\\[1\\]'"),
    "rates": (dict(config=lambda c: c.update(rates={"stem": "fast"})), "rates = "),
    "frozen": (dict(config=lambda c: c.update(frozen=[3])), "frozen = "),
    "hold_out": (dict(config=lambda c: c.update(hold_out=None)), "hold_out = 'None'"),
    "seed": (dict(config=lambda c: c.update(seed=1.5)), "seed = '1.5'"),
    "framework": (dict(config=lambda c: c.update(framework="jax")), "unknown backend"),
    "batch": (dict(config=lambda c: c["recipe"].update(batch=[3])), "batch = "),
    "rate": (dict(config=lambda c: c["recipe"]["rule"].update(rate="x")), "rate = 'x'"),
    "kind": (dict(config=lambda c: c["recipe"]["rule"].update(kind="Lion")), "unknown optimizer 'Lion'"),
    "warmup": (dict(config=lambda c: c["recipe"].update(warmup=True)), "warmup = 'True'"),
    "preprocessing": (dict(config=lambda c: c.update(preprocessing=[1])), "preprocessing"),
    "a list": (dict(progress=lambda p: [1, 2]), "is no JSON object"),
    "no step": (dict(progress=lambda p: p.pop("step") and None), "lacks step"),
    "a word for a step": (dict(progress=lambda p: p.update(step="two")), "step = 'two'"),
    "a step before the first": (dict(progress=lambda p: p.update(step=-3)), "at step -3"),
    "an epoch without its line": (dict(progress=lambda p: p.update(last={})), "of its last epoch"),
    "a line of words": (dict(progress=lambda p: p.update(last={"epoch": "x"})), "last = "),
    "no moment": (dict(arrays=lambda a: a.pop(MOMENT)), f"lacks {MOMENT}"),
    "another shape": (dict(arrays=lambda a: a.update({MOMENT: a[MOMENT][:3]})), f"{MOMENT} is float32 \\(3, "),
    "whole numbers": (dict(arrays=lambda a: a.update({MOMENT: a[MOMENT].astype(int)})), f"{MOMENT} is int64"),
    "no average": (dict(arrays=lambda a: a.pop("fc.bias now")), "lacks fc.bias now"),
    "no steps": (dict(arrays=lambda a: a.pop("steps")), "how many steps"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_folder_that_is_no_whole_run_is_refused(tmp_path, stopped, case):
    how, expected = BROKEN[case]
    changed(stopped, tmp_path / "run", **how)
    said = rosetta("train", "--resume", tmp_path / "run", "--quiet", code=2)
    assert re.search(expected, said) and "Traceback" not in said and len(said) < 600, said


def test_a_run_of_an_older_version_is_read(tmp_path, stopped):
    """Its config has fewer fields, and its progress says nothing of versions and examples."""
    run = training.Run.load(ROOT / "docs" / "cifar_resnet20-fashion-mnist")
    assert run.recipe.epochs == 30 and run.preprocessing is None and run.recipe_name == ""

    def older(said):
        for field in ("preprocessing", "recipe_name", "layout"):
            del said[field]
        for field in ("balance", "init"):
            del said["recipe"][field]

    def silent(said):
        del said["about"], said["examples"]

    changed(stopped, tmp_path / "run", config=older, progress=silent)
    rosetta("train", "--resume", tmp_path / "run", "--steps", 1, "--quiet")


def test_strange_lines_of_metrics_cost_nothing_else(tmp_path, stopped):
    changed(stopped, tmp_path / "run")
    with open(tmp_path / "run" / "metrics.jsonl", "a") as f:
        f.write('[1]\n3\n{"loss": 1}\n{"step": "x", "epoch": 1}\n{"step"')
    rosetta("train", "--resume", tmp_path / "run", "--quiet")
    assert [r["step"] for r in record.read_metrics(tmp_path / "run") if "test_loss" in r] == [6, 12, 18]


def test_what_else_runs_it_is_said(tmp_path, stopped):
    about = canonical.load_training(stopped / "last.safetensors")[1]["about"]
    assert about["threads"].isdigit() and about["device"] and about["torch"]
    changed(stopped, tmp_path / "run", progress=lambda p: p["about"].update(threads="99"))
    said = rosetta("train", "--resume", tmp_path / "run", "--steps", 1)
    assert f"until now it ran with threads 99; with threads {about['threads']} the last bits are others" in said
    assert "until now" not in rosetta("train", "--resume", tmp_path / "run", "--steps", 1)


def test_tensorflow_says_nothing_of_its_own(tmp_path, monkeypatch):
    """AutoGraph warns, through its log, of what it can't read."""
    import logging

    from tensorflow.python.eager.polymorphic_function import polymorphic_function as of

    # TensorFlow counts a process's graphs by their source, and those of the tests before are none of this run's
    monkeypatch.setattr(of, "_frequent_tracing_detector_manager", type(of._frequent_tracing_detector_manager)())
    heard = []
    handler = logging.Handler()
    handler.emit = heard.append
    logging.getLogger("tensorflow").addHandler(handler)
    try:
        small(tmp_path / "run", "--framework", "keras", "--steps", 2, "--quiet", "--with", "clip=1.0")
    finally:
        logging.getLogger("tensorflow").removeHandler(handler)
    assert not [r.getMessage() for r in heard if r.levelno >= logging.WARNING]
