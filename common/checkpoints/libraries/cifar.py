"""Two repositories of CIFAR nets whose checkpoints are about: akamaster/pytorch_resnet_cifar10 and
kuangliu/pytorch-cifar."""

import dataclasses

from common.arch import Arch
from common.checkpoints.libraries.library import Library
from common.checkpoints.preprocessing import CIFAR10, IMAGENET

RULES = (
    ("conv1", "conv1"),
    ("bn1", "bn1"),
    ("layer{s}.{b}.conv{i}", "layer{s}.{b}.conv{i}"),
    ("layer{s}.{b}.bn{i}", "layer{s}.{b}.bn{i}"),
    ("layer{s}.{b}.downsample.{i}", "layer{s}.{b}.shortcut.{i}"),
    ("fc", "linear"),
)
CONVENTIONS = {"stride_in": 2, "norm_eps": 1e-5}
SMALL = dataclasses.replace(IMAGENET, size=32, resize=32)


def _akamaster(arch: Arch) -> bool:
    return arch.shortcut in ("pad", "none") and arch.block == "basic" and not arch.stem.pool


def _kuangliu(arch: Arch) -> bool:
    return arch.shortcut == "project" and not arch.stem.pool and arch.groups == 1


AKAMASTER = Library(
    "akamaster", RULES, conventions=CONVENTIONS, preprocessing=SMALL, wraps="state_dict", module="module.",
    claims=_akamaster, labels=CIFAR10,
)  # fmt: skip
KUANGLIU = Library(
    "kuangliu", RULES, conventions=CONVENTIONS, claims=_kuangliu, wraps="net", module="module.", labels=CIFAR10,
    preprocessing=dataclasses.replace(SMALL, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
)  # fmt: skip
