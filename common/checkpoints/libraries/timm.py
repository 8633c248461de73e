"""timm's names of its pre-activation nets, `resnetv2`; those of its other ResNets are the canonical ones."""

import dataclasses

from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.torchvision import imagenet
from common.checkpoints.preprocessing import IMAGENET

RULES = (
    ("conv1", "stem.conv"),
    ("layer{s}.{b}.bn{i}", "stages.{s-1}.blocks.{b}.norm{i}"),
    ("layer{s}.{b}.conv{i}", "stages.{s-1}.blocks.{b}.conv{i}"),
    ("layer{s}.{b}.downsample.0", "stages.{s-1}.blocks.{b}.downsample.conv"),
    ("norm", "norm"),
    ("fc", "head.fc"),
)

RESNETV2 = Library(
    "timm-resnetv2", RULES, claims=imagenet, conventions={"stride_in": 2, "norm_eps": 1e-5},
    linear="1x1 convolution to matrix",
    preprocessing=dataclasses.replace(IMAGENET, interpolation="bicubic"), traits=(frozenset({"preact", "single"}),),
)  # fmt: skip
