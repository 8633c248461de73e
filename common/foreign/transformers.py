"""Hugging Face Transformers' names: ResNetForImageClassification, and ResNetModel without "resnet."."""

import dataclasses

from common.arch import Arch
from common.foreign.library import Library
from common.foreign.torchvision import imagenet
from common.preprocessing import IMAGENET

_BODY = (
    ("conv1", "embedder.embedder.convolution"),
    ("bn1", "embedder.embedder.normalization"),
    ("layer{s}.{b}.conv{i}", "encoder.stages.{s-1}.layers.{b}.layer.{i-1}.convolution"),
    ("layer{s}.{b}.bn{i}", "encoder.stages.{s-1}.layers.{b}.layer.{i-1}.normalization"),
    ("layer{s}.{b}.downsample.0", "encoder.stages.{s-1}.layers.{b}.shortcut.convolution"),
    ("layer{s}.{b}.downsample.1", "encoder.stages.{s-1}.layers.{b}.shortcut.normalization"),
)
RULES = (
    *((ours, "resnet." + theirs, "headed") for ours, theirs in _BODY),
    *((ours, theirs, "bare") for ours, theirs in _BODY),
    ("fc", "classifier.1"),
)


def _plain(arch: Arch) -> bool:
    return imagenet(arch) and arch.groups == 1 and arch.width_per_group == 64


TRANSFORMERS = Library(
    "transformers", RULES, claims=_plain, traits=(
        frozenset({"postact", "single", "headed"}), frozenset({"postact", "single", "bare"}),
    ), conventions={"stride_in": 2, "norm_eps": 1e-5},
    preprocessing=dataclasses.replace(IMAGENET, interpolation="bicubic"),
)  # fmt: skip
