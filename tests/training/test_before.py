"""What was written before the code moved into its wings, by commit 08dd31b, is read as it was (tests/data/08dd31b)."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT

import torch_impl
from common.checkpoints.port import inspect
from common.names import parameters
from common.training import loop, record
from common.training.run import Run

BEFORE = ROOT / "tests" / "data" / "08dd31b"
FILES = ("run/best.safetensors", "ours.pth", "ours.keras", "ours.weights.h5")


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_its_net(file):
    """Its parameters and its logits, which the old code computed in float64 of the numbers below."""
    run = Run.load(BEFORE / "run")
    assert parameters(inspect(BEFORE / file).arch) == parameters(run.arch)  # one stage: no shape tells its shortcut
    net = torch_impl.load(BEFORE / file, dtype="float64").eval()
    with torch.no_grad():
        logits = net(torch.linspace(-1, 1, 128, dtype=torch.float64).reshape(2, 1, 8, 8)).numpy()
    expected = np.array(json.loads((BEFORE / "logits.json").read_text()))
    assert np.abs(logits - expected).max() <= 1e-13 * np.abs(expected).max()


def test_a_run_goes_on(tmp_path):
    """It was stopped after 15 of its 24 steps."""
    folder = shutil.copytree(BEFORE / "run", tmp_path / "run")
    assert record.model_of(folder) == folder / "last.safetensors"
    done = loop.train(folder, device="cpu")
    assert (done.step, done.epoch) == (24, 2)
    rows = record.read_metrics(folder)
    assert [row["step"] for row in rows if "test_loss" in row] == [12, 24]
    assert rows[:2] == record.read_metrics(BEFORE / "run")
