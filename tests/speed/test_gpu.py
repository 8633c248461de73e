"""`make gpu` without a GPU: what it says, how it goes on, and that a rehearsal's figures can't be taken for results."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT

from common.errors import RosettaError

sys.path.append(str(ROOT / "benchmarks"))
import atlas
import gpu
import gpu_parts
from gpu_parts import Part, Place


def run(*arguments):
    return CliRunner().invoke(gpu.main, [str(a) for a in arguments])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line():
    done = run()
    assert done.exit_code == 2 and done.output.count("\n") == 1 and "torch finds no GPU" in done.output, done.output


OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"


def test_a_driver_that_does_not_fit_is_one_line(monkeypatch):
    def refuse(*given):
        raise RuntimeError(OLD)

    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = run()  # as PyTorch has it: no card is seen, and why is known where it is asked for
    assert done.exit_code == 2 and done.output.count("\n") == 1 and f"no CUDA device ({OLD})" in done.output
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", refuse)
    done = run()
    assert done.exit_code == 2 and done.output.count("\n") == 1 and "can't be used: The NVIDIA driver" in done.output


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Three parts, of which the second fails while `broken`; run in this process."""
    broken, asked = [True], []

    def part(name):
        def find(place):
            asked.append(name)
            if name == "b" and broken:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.\nSee the manual")
            return {"figure": 1}

        return Part(name, "device", find, most=100)

    def attempt(p, place, seconds):
        try:
            gpu.one(p.name, place)
        except SystemExit as e:
            return str(e)
        return ""

    made = [part(name) for name in "abc"]
    monkeypatch.setattr(gpu, "parts", lambda place: made)
    monkeypatch.setattr(gpu, "attempt", attempt)
    monkeypatch.setattr(gpu, "written", lambda place: "")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return broken, asked


def test_a_part_that_fails_leaves_the_others_and_is_tried_again(three, tmp_path):
    broken, asked = three
    done = run("--rehearse", "--root", tmp_path)
    assert done.exit_code == 1 and asked == ["a", "b", "c"]
    assert "REHEARSAL: 2 of 3 parts are done" in done.output
    assert "failed: b: too little memory: 3 GiB was asked for. " in done.output.splitlines()[-1], done.output
    (file,) = (tmp_path / "build" / "gpu-rehearsal").glob("*.json")
    assert file.name == "device-gpu-rehearsal.json" and json.loads(file.read_text())["rehearsal"] is True
    broken.clear()
    done = run("--rehearse", "--root", tmp_path)  # goes on with what is missing
    assert done.exit_code == 0 and asked == ["a", "b", "c", "b"] and "3 of 3" in done.output
    assert run("--rehearse", "--root", tmp_path).exit_code == 0 and len(asked) == 4
    assert run("--rehearse", "--root", tmp_path, "--again").exit_code == 0 and len(asked) == 7


def test_killed_half_way_and_started_again_it_goes_on(three, tmp_path, monkeypatch):
    broken, asked = three
    broken.clear()
    real = gpu.attempt

    def killed(part, place, seconds):
        if part.name == "b":
            raise KeyboardInterrupt
        return real(part, place, seconds)

    monkeypatch.setattr(gpu, "attempt", killed)
    assert run("--rehearse", "--root", tmp_path).exit_code == 1 and asked == ["a"]
    monkeypatch.setattr(gpu, "attempt", real)
    done = run("--rehearse", "--root", tmp_path)
    assert done.exit_code == 0 and asked == ["a", "b", "c"] and "3 of 3" in done.output, done.output


def test_what_was_measured_on_another_card_is_measured_again(three, tmp_path, monkeypatch):
    _, asked = three
    run("--rehearse", "--root", tmp_path)
    asked.clear()
    monkeypatch.setattr(gpu_parts, "versions", lambda *given, **more: {"torch": "9", "device": "another card"})
    run("--rehearse", "--root", tmp_path)
    assert asked == ["a", "b", "c"]


def test_the_budget_ends_it_and_says_what_is_left(three, tmp_path):
    done = run("--rehearse", "--root", tmp_path, "--minutes", 0.1)
    assert done.exit_code == 1 and "not finished in 0.1 minutes" in done.output and "a; b; c" in done.output


def test_a_part_that_hangs_is_ended_with_its_children(tmp_path, monkeypatch):
    script = tmp_path / "hangs.py"
    child = "import time; time.sleep(60)"
    script.write_text(
        f"import subprocess, sys\nc = subprocess.Popen([sys.executable, '-c', '{child}'])\nprint(c.pid, flush=True)\n"
        "c.wait()"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    begin = time.monotonic()
    why = gpu.attempt(Part("a", "device", print), Place(True, tmp_path), 1.0)
    pid = int(why.split("last: ")[1])
    assert why.startswith("took more than 1 s") and time.monotonic() - begin < 20
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except OSError:
            break
        if state == "Z":
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the child goes on")
    script.write_text("raise SystemExit('why')")
    assert gpu.attempt(Part("a", "device", print), Place(True, tmp_path), 20.0) == "why"


def test_a_rehearsals_figures_are_no_results(tmp_path):
    """Neither is read for the other, nor made a page of, whatever the file is called."""
    rehearsal, real = Place(True, tmp_path), Place(False, tmp_path)
    for stem in ("device", "speed", "race", "tests", "atlas"):
        there, here = rehearsal.results(stem), real.results(stem)
        assert "rehearsal" in there.name and "rehearsal" not in str(here.relative_to(tmp_path))
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_text(json.dumps({"rehearsal": True, "variants": {}, "versions": {}}))
        with pytest.raises(RosettaError, match="was written by a rehearsal"):
            gpu.written(real)
        with pytest.raises(RosettaError, match="was written by a rehearsal"):
            atlas.load(here)
        here.write_text("{}")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text("{}")
        with pytest.raises(RosettaError, match="was written by no rehearsal"):
            gpu.written(rehearsal)
        there.unlink()
    assert "none of this is a result" in gpu.written(rehearsal) and "rehearsal" not in gpu.written(real).lower()


def test_what_was_left_out_is_named(tmp_path, monkeypatch):
    """And what a part's processes get of this one's environment is what a user's have."""
    place, said = Place(True, tmp_path), "the backend keras:jax needs keras, which is not installed"
    monkeypatch.setattr(gpu_parts, "found_engines", lambda place: ([], {"keras:jax": said}))
    monkeypatch.setattr(gpu_parts, "matrix_product", lambda *given: {"torch.matmul": 1e12})
    monkeypatch.setattr(gpu_parts.importlib.util, "find_spec", lambda package: None)
    before = dict(os.environ)
    monkeypatch.setattr(os, "environ", dict(before))
    gpu.one("device", place)
    assert {k for k, v in os.environ.items() if before.get(k) != v} <= {"KERAS_BACKEND"}
    page = gpu.written(place)
    assert f"Left out is keras:jax: {said}." in page and "Left out is timm: it isn't installed." in page


def test_the_most_worth_comes_first():
    made = gpu_parts.parts(Place(False))
    names = [p.name for p in made]
    assert len(set(names)) == len(names) and names[:2] == ["device", "parity, begun"]
    dtypes = {p.arguments["dtype"] for p in made if p.stem == "speed"}
    nets = {p.arguments["net"] for p in made if p.stem == "speed"}
    assert dtypes == {"bfloat16", "tf32", "float32"} and len(nets) == 5
    assert set(atlas.SMALLEST) <= {n for p in made if p.stem == "atlas" for n in p.arguments["names"]}


WITHOUT = """
import functools, importlib.machinery
HIDDEN = "tensorflow tf2onnx openvino onnx onnxruntime onnxscript keras_hub transformers matplotlib hypothesis".split()
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, *given):
    return None if str(name).split(".")[0] in HIDDEN else real(name, *given)
importlib.machinery.PathFinder.find_spec = functools.partial(find_spec)
"""


@pytest.mark.slow
def test_the_rehearsal_runs_every_part(tmp_path):
    """As on a machine that has PyTorch and JAX, and of Keras' wheels Keras alone: `make rehearse`, in CI. Two minutes
    are what it may take, and half of that what it does on two cores that have nothing else to do."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "KERAS_BACKEND": "jax"}
    check = "import importlib.util as u; assert u.find_spec('jax') and not u.find_spec('tensorflow')"
    subprocess.run([sys.executable, "-c", check], env=env, check=True)
    command = [sys.executable, "benchmarks/gpu.py", "--rehearse", "--minutes", "4", "--root", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "6 of 6 parts are done" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "docs").exists() and not (tmp_path / "benchmarks").exists()
    page = (tmp_path / "build" / "gpu-rehearsal" / "performance-gpu-rehearsal.md").read_text()
    for words in (
        "none of this is a result",
        "torchvision, optimised",
        "timm, train",
        "keras:jax",
        "Parity: 2 runs, 0",
        "the curves aren't drawn",
    ):
        assert words in page, page
