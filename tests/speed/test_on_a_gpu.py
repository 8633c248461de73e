"""`pytest -m gpu`: what needs a card. Nothing here imports Keras: on a machine without it the rest is still tested."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from common import parity
from common.arch import FAMILIES, VARIANTS
from common.cli import cli
from common.names import count, parameters
from common.parity.backends import started
from common.parity.checks import CHECKS
from common.plan import make_plan


@pytest.fixture
def card():
    """PyTorch, which sees a GPU."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return torch


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_the_twins_agree(family, card):
    """PyTorch (CUDA) against Keras on JAX (CUDA), TF32 off, every check: each family's smallest net."""
    for package in ("keras", "jax"):
        pytest.importorskip(package)
    of = FAMILIES[family]
    arch = VARIANTS[min(of, key=lambda n: count(parameters(of[n])))]
    size = (33, 26) if make_plan(arch).total_stride > 8 else (13, 10)
    x = np.random.default_rng(0).standard_normal((8, arch.in_channels, *size[: arch.dims]))
    with started(("torch", "keras:jax"), "gpu") as running:
        result = parity.compare(arch, x, backends=running, checks=dict.fromkeys(("float64", "float32"), tuple(CHECKS)),
                                every=False)  # fmt: skip
    assert result.equal, [result.why(*key) for key in result.rows]


@pytest.mark.gpu
def test_bench(card, tmp_path):
    """Also that the fast path's logits are the plain net's: without that it isn't handed out."""
    words = ["bench", "resnet18", "--set", "depths=[1,1,1,1]", "--batch", "2", "--size", "40", "--rounds", "2"]
    words += ["--backends", "torch", "--device", "gpu", "--modes", "eager,optimised,train"]
    done = CliRunner().invoke(cli, [*words, "--json", str(tmp_path / "b.json")])
    assert done.exit_code == 0, done.output
    sides = json.loads((tmp_path / "b.json").read_text())["sides"]
    assert len(sides) == 3 and all(s["fraction_of_product"] > 0 for s in sides)
