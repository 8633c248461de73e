"""`rosetta show --layers`: what the plan says of every layer, against what both frameworks' layers put out."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import keras_impl
import torch_impl
from common.arch import VARIANTS, Stem, get
from common.cli import cli
from common.names import count, layers, parameters, section_of, sections
from keras_impl import trace as keras_trace
from torch_impl import trace as torch_trace

TINY = {"depths": (2, 1), "widths": (8, 16), "num_classes": 5}
ROWS = {
    "bottleneck": get("resnext50_32x4d", **TINY, groups=4, width_per_group=16),
    "se, dropped, pooled": get("seresnet18", **TINY, drop_path=0.2, dropout=0.1, shortcut="pool", norm_eps=0.1),
    "deep stem": get("resnet50d", **TINY),
    "preact": get("resnetv2_50", **TINY),
    "keras' V2": get("resnet50v2_keras", **TINY),
    "option A": get("resnet18_a", **TINY, stem=Stem(((8, 3, 2),))),
    "plain": get("plain18", **TINY),
    "no norm in the shortcut": get("resnet18_d2l", **TINY),
    "signals": get("msresnet_1d", **{**TINY, "kernels": (3, 5)}),
    "folded": get("resnet50d", **TINY, folded=True),
    "folded preact": get("resnetv2_18", **TINY, folded=True, stem=Stem(((8, 3, 1), (8, 3, 2)))),
    "no classifier": get("resnet18", **{**TINY, "num_classes": 0}),
}


@pytest.mark.parametrize("what", ROWS)
def test_every_layer_is_what_both_frameworks_trace(what):
    arch = ROWS[what]
    size = (37, 50)[: arch.dims]
    x = np.random.default_rng(0).standard_normal((1, arch.in_channels, *size)).astype(np.float32)
    expected = [(row.name, row.output) for row in layers(arch, size)]
    assert len(dict(expected)) == len(expected)
    for impl, trace in ((torch_impl, torch_trace), (keras_impl, keras_trace)):
        seen = []
        trace.trace(impl.create_model(arch, seed=0), x, lambda name, y, seen=seen: seen.append((name, y.shape[1:])))
        assert seen == expected, impl.__name__


def test_parameters_are_counted_once_and_multiply_adds_as_pytorch_would():
    """PyTorch counts each convolution's multiply-adds by itself; every parameter has one row."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    for name in ("seresnet18", "resnet50d", "cifar_preresnet110", "resnext50_32x4d"):
        arch = get(name, depths=(1, 1, 1), widths=(16, 32, 64))
        rows, shapes = layers(arch, 64), parameters(arch)
        assert sum(r.parameters for r in rows) == count(shapes)
        assert sum(r.parameters + r.statistics for r in rows) == count(shapes, statistics=True)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            torch_impl.create_model(arch).eval()(torch.zeros(1, arch.in_channels, 64, 64))
        assert sum(r.multiply_adds for r in rows) * 2 == counter.get_total_flops()


def test_sections_are_sums_of_layers():
    for arch in VARIANTS.values():
        if sum(arch.depths) < 60:
            rows = layers(arch)
            for part in sections(arch):
                own = [r for r in rows if section_of(r.name) == part.name]
                for key in ("parameters", "statistics", "multiply_adds"):
                    assert sum(getattr(r, key) for r in own) == getattr(part, key), (arch, part)


def test_show_layers():
    out = CliRunner().invoke(cli, ["show", "resnet50", "--layers"])
    assert out.exit_code == 0, out.output
    assert "112 x 112 x 64" in out.output and "64 x 112 x 112" in out.output and "4,089,184,256" in out.output
    assert out.output.count("batch norm") == 53 and "conv 7x7/2" in out.output and "25,557,032" in out.output
    said = json.loads(CliRunner().invoke(cli, ["show", "resnet50", "--layers", "--size", "64", "--json"]).output)
    conv1, *_, fc = said["layers"]
    assert conv1 == {
        "name": "conv1", "kind": "conv 7x7/2", "channels_first": [64, 32, 32], "channels_last": [32, 32, 64],
        "parameters": 9408, "statistics": 0, "multiply_adds": 9408 * 32 * 32,
    }  # fmt: skip
    assert fc["channels_first"] == [1000] and fc["kind"] == "linear"
    assert "layers" not in json.loads(CliRunner().invoke(cli, ["show", "resnet50", "--json"]).output)
