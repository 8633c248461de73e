"""Counts, to the last digit, against implementations that nobody here wrote, and against the papers' tables."""

import csv
import math

import pytest
from conftest import ROOT

from common.arch import VARIANTS, get
from common.names import count, multiply_adds, parameters, sections
from common.plan import make_plan

ROWS = list(csv.DictReader((ROOT / "tests/data/published.csv").read_text().splitlines()))


def row_of(published: dict[str, str]):
    """Our row for a published net, or None where no row of ours says it."""
    library, name = published["library"], published["name"]
    if library.startswith("akamaster"):
        return VARIANTS["cifar_" + name.split()[0]]
    if library.startswith("derived (akamaster"):
        plain = name.split("_")[0]
        return VARIANTS.get(f"cifar_{plain}") or get(f"cifar_resnet{plain[5:]}", shortcut="none")
    if library.startswith("derived (torchvision"):
        return VARIANTS[name.replace("-", "").replace(" option ", "_").split(" ")[0].lower()]
    if library == "keras.applications":
        return VARIANTS[f"{name.lower()}_keras"]
    if library == "transformers":
        ours = name.removeprefix("hf-").replace("-v1(downsample_in_bottleneck)", "_v1").replace("resnet-", "resnet")
        return get("resnet50_v1", depths=(2, 2, 2, 2)) if ours == "resnet26_v1" else VARIANTS.get(ours)
    return VARIANTS.get(name)


KNOWN = [(r, row_of(r)) for r in ROWS if row_of(r)]


@pytest.mark.parametrize(("published", "arch"), KNOWN, ids=[f"{r['library'][:12]}-{r['name']}" for r, _ in KNOWN])
def test_published_counts_are_exact(published, arch):
    shapes = parameters(arch)
    assert count(shapes) == int(published["trainable_parameters"])
    assert count(shapes, statistics=True) == int(published["parameters_with_batchnorm_statistics"])
    assert multiply_adds(arch, int(published["input_size"])) == int(published["multiply_adds"])


def test_no_published_net_is_left_out():
    assert not {r["name"] for r in ROWS} - {r["name"] for r, _ in KNOWN}
    assert len(KNOWN) == len(ROWS) == 132


@pytest.mark.parametrize(
    ("name", "millions", "source"),
    [
        ("cifar_resnet20", "0.27", "He 2015, Table 6"),
        ("cifar_resnet32", "0.46", "He 2015, Table 6"),
        ("cifar_resnet44", "0.66", "He 2015, Table 6"),
        ("cifar_resnet56", "0.85", "He 2015, Table 6"),
        ("cifar_resnet110", "1.7", "He 2015, Table 6"),
        ("cifar_resnet1202", "19.4", "He 2015, Table 6"),
        ("cifar_resnet110_sd", "1.7", "Huang 2016, section 4"),
        ("cifar_preresnet110", "1.7", "He 2016, Table 4"),
        ("cifar_preresnet164", "1.7", "He 2016, Table 4"),
        ("cifar_preresnet1001", "10.3", "He 2016, Table 4 says 10.2"),
        ("cifar_resnext29_8x64d", "34.4", "Xie 2016, Table 7"),
        ("cifar_resnext29_16x64d", "68.2", "Xie 2016, Table 7 says 68.1"),
        ("cifar_wrn16_8", "11.0", "Zagoruyko 2016, Table 4"),
        ("cifar_wrn40_4", "8.9", "Zagoruyko 2016, Table 4"),
        ("cifar_wrn28_10", "36.5", "Zagoruyko 2016, Table 4"),
    ],
)
def test_the_papers_counts(name, millions, source):
    digits = len(millions.split(".")[1])
    assert f"{count(parameters(VARIANTS[name])) / 1e6:.{digits}f}" == millions, source


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("resnet18", 1.8),
        ("resnet34", 3.6),
        ("plain34", 3.6),
        ("resnet50_v1", 3.8),
        ("resnet101_v1", 7.6),
        ("resnet152_v1", 11.3),
    ],
)
def test_the_papers_multiply_adds(name, giga):
    """He et al. 2015, Table 1, which now rounds and now truncates: 3.66 to 3.6, 11.28 to 11.3."""
    exact = multiply_adds(VARIANTS[name]) / 1e8
    assert round(giga * 10) in (math.floor(exact), round(exact))


def test_multi_scale_net_by_hand():
    """geekfeiw/Multi-Scale-1D-ResNet: three trunks of three blocks with 64, 128, 256 channels, layer by layer."""
    total = 64 * 1 * 7 + 2 * 64  # stem
    for kernel in (3, 5, 7):
        for cin, cout in ((64, 64), (64, 128), (128, 256)):
            total += kernel * cin * cout + kernel * cout * cout + 2 * 2 * cout  # two convolutions, two norms
            total += cin * cout + 2 * cout  # projection
    total += 3 * 256 * 6 + 6
    assert count(parameters(VARIANTS["msresnet_1d"])) == total == 2_114_502


def test_sections_add_up():
    for arch in VARIANTS.values():
        parts = sections(arch)
        assert sum(s.parameters for s in parts) == count(parameters(arch))
        assert sum(s.parameters + s.statistics for s in parts) == count(parameters(arch), statistics=True)
        assert [s.name for s in parts] == [name for name, _ in make_plan(arch).sections()]
