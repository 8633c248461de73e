"""Names of nets that others took apart or put together: `nn.Sequential(*list(resnet.children())[:-1])`, whose numbers
fastai, lightly, RadImageNet and many scripts have; and OpenMMLab's deep stems, whose other names are torchvision's."""

import dataclasses

from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.torchvision import CONVENTIONS, imagenet
from common.checkpoints.preprocessing import IMAGENET

_BLOCKS = ("conv{i}", "bn{i}", "downsample.{i}")

# 2 and 3 are the ReLU and the pooling of the stem, 8 is the pooling behind the stages, 9 has to flatten
CHILDREN = Library(
    "children",
    (("conv1", "0"), ("bn1", "1"), ("fc", "10"), *((f"layer{{s}}.{{b}}.{x}", f"{{s+3}}.{{b}}.{x}") for x in _BLOCKS)),
    conventions=CONVENTIONS, preprocessing=IMAGENET, claims=imagenet, traits=(frozenset({"postact", "single"}),),
)  # fmt: skip

OPENMMLAB = Library(
    "openmmlab",
    (
        ("bn1", "stem.7"), ("conv1.{i}", "stem.{i}"), ("fc", "head.fc"),
        *((f"layer{{s}}.{{b}}.{x}",) * 2 for x in _BLOCKS),
    ),
    conventions=CONVENTIONS, preprocessing=dataclasses.replace(IMAGENET, interpolation="bilinear"),
    claims=lambda arch: arch.dims == 2, traits=(frozenset({"postact", "deep"}),),
)  # fmt: skip
