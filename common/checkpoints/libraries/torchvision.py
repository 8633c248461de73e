"""torchvision's names, which are the canonical ones; timm's ResNets (plain, D, SE, ResNeXt, wide) have them too."""

import dataclasses

from common.arch import Arch, Stem
from common.checkpoints.libraries.library import Library
from common.checkpoints.preprocessing import IMAGENET

RULES = (
    ("conv1", "conv1", "single"),
    ("bn1", "bn1", "postact"),
    ("conv1.{i}", "conv1.{i}", "deep"),
    ("layer{s}.{b}.conv{i}", "layer{s}.{b}.conv{i}"),
    ("layer{s}.{b}.bn{i}", "layer{s}.{b}.bn{i}"),
    ("layer{s}.{b}.se.fc{i}", "layer{s}.{b}.se.fc{i}"),
    ("layer{s}.{b}.se.conv", "layer{s}.{b}.se.conv"),
    ("layer{s}.{b}.downsample.{i}", "layer{s}.{b}.downsample.{i}"),
    ("fc", "fc"),
)
CONVENTIONS = {"stride_in": 2, "norm_eps": 1e-5}


def imagenet(arch: Arch) -> bool:
    """A net of images with the 7x7 stem and learned projections."""
    usual = arch.dims == 2 and arch.kernels == (3,) and arch.shortcut_norm and not arch.conv_bias
    return usual and arch.stem == Stem() and arch.shortcut == "project"


def _torchvision(arch: Arch) -> bool:
    return imagenet(arch) and not arch.se_ratio and not arch.eca


def _timm(arch: Arch) -> bool:
    """Those with attention, and ResNet-C's and D's stem and shortcut, too."""
    deep = arch.dims == 2 and len(arch.stem.convs) > 1
    return arch.shortcut == "pool" or imagenet(arch) or (deep and imagenet(dataclasses.replace(arch, stem=Stem())))


TORCHVISION = Library("torchvision", RULES, conventions=CONVENTIONS, preprocessing=IMAGENET, claims=_torchvision)
TIMM = Library(
    "timm", RULES, conventions=CONVENTIONS, claims=_timm, unseen=("antialias", "output_stride"),
    preprocessing=dataclasses.replace(IMAGENET, interpolation="bicubic"),
)  # fmt: skip
