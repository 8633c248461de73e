"""timm's names of its pre-activation nets and of ResNet-RS; those of its other ResNets are the canonical ones
(torchvision.py). And what its configurations say."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from common.arch import VARIANTS, Arch
from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.torchvision import CONVENTIONS, RULES, TIMM, imagenet
from common.checkpoints.preprocessing import IMAGENET
from common.errors import RosettaError

# -- ResNet-RS: the pooling of its stem is one convolution more, under the pooling's name

_REPLACED = (("conv1.9", "maxpool.0"), ("conv1.7", "bn1"), ("bn1", "maxpool.1"))

RESNETRS = dataclasses.replace(
    TIMM, rules=_REPLACED + RULES, claims=lambda arch: arch.dims == 2 and arch.shortcut == "pool",
    conventions={**CONVENTIONS, "stem.pool": False}, traits=(frozenset({"postact", "deep", "replaced"}),),
)  # fmt: skip

# -- pre-activation

_BLOCKS = (
    ("layer{s}.{b}.bn{i}", "stages.{s-1}.blocks.{b}.norm{i}"),
    ("layer{s}.{b}.conv{i}", "stages.{s-1}.blocks.{b}.conv{i}"),
    ("layer{s}.{b}.downsample.1", "stages.{s-1}.blocks.{b}.downsample.conv", "pooled"),
    ("layer{s}.{b}.downsample.0", "stages.{s-1}.blocks.{b}.downsample.conv"),
    ("norm", "norm"),
    ("fc", "head.fc"),
)
_DEEP = (
    ("conv1.0", "stem.conv1"), ("conv1.1", "stem.norm1"), ("conv1.3", "stem.conv2"), ("conv1.4", "stem.norm2"),
    ("conv1.6", "stem.conv3"),
)  # fmt: skip

RESNETV2 = Library(
    "timm-resnetv2", (("conv1", "stem.conv"), *_BLOCKS), conventions=CONVENTIONS,
    claims=lambda arch: imagenet(arch) and not arch.norm_groups,
    linear="1x1 convolution to matrix", unseen=TIMM.unseen,
    preprocessing=dataclasses.replace(IMAGENET, interpolation="bicubic"), traits=(frozenset({"preact", "single"}),),
)  # fmt: skip
# BiT's convolutions are standardised, and its stem is padded with zeros; what tells it is that no norm has statistics
BIT = dataclasses.replace(
    RESNETV2,
    conventions={**CONVENTIONS, "stem.pool": "zeros", "weight_std": 1e-8, "norm_groups": 32},
    claims=lambda arch: arch.dims == 2 and arch.norm_groups == 32,
)
RESNETV2_DEEP = dataclasses.replace(
    RESNETV2, rules=_DEEP + _BLOCKS, claims=RESNETRS.claims, traits=(frozenset({"preact", "deep", "pooled"}),)
)

# -- what a configuration says: arguments of timm's create_model

_SHAPED = (  # what names and shapes of tensors tell, and so the fields that such an argument leaves open
    "layers", "channels", "cardinality", "base_width", "stem_width", "stem_type", "stem_chs", "avg_down",
    "block_reduce_first", "width_factor", "bottle_ratio", "basic",
)  # fmt: skip
_OPEN = ("depths", "widths", "block", "groups", "width_per_group", "stem", "shortcut")
_EDGES = ("num_classes", "in_chans")
_TRAINED = ("drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last", "pretrained", "pretrained_cfg")
_UNSAID = ("in_channels", "num_classes", "drop_path", "dropout", "folded")
_BATCH = ("batchnorm", "batchnorm2d", "BatchNorm2d")
_VALUES: dict[str, tuple[Any, ...]] = {  # of other arguments: those that a row says
    "output_stride": (8, 16, 32), "global_pool": ("avg",), "act_layer": ("relu",), "aa_layer": ("avg", "blur"),
    "norm_layer": (*_BATCH, "groupnorm"), "replace_stem_pool": (False,),
    "block_args": ({}, {"attn_layer": "se"}, {"attn_layer": "eca"}),
    "down_kernel_size": (1,), "preact": (True,), "bn_eps": (1e-5,),
}  # fmt: skip
# the architectures of timm's resnet.py and resnetv2.py that aren't in the table, and what they need
NEEDS = {
    **dict.fromkeys(("ecaresnet50d_pruned", "ecaresnet101d_pruned"), "another width in each convolution"),
    "senet154": "projections of 3x3, and first convolutions of half the width",
    "test_resnet": "stages of different kinds of blocks",
    "resnetv2_50d_evos": "EvoNorm", "resnetv2_50d_frn": "filter response normalisation",
}  # fmt: skip


def claimed(architecture: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the row that timm's create_model(architecture, **arguments) builds; without those that an argument
    leaves to the shapes. Raises RosettaError, in a few words, where no row says that."""
    row = VARIANTS.get(architecture.split(".")[0])
    if row is None:
        raise RosettaError(f"timm's {architecture[:60]}")
    for key, value in arguments.items():
        if key not in _EDGES + _SHAPED + _TRAINED and value not in _VALUES.get(key, ()):
            raise RosettaError(f"timm's {architecture[:60]} with {key} = {str(value)[:60]!r}")
    shaped = _OPEN if set(arguments) & set(_SHAPED) else ()
    said = {f.name: getattr(row, f.name) for f in dataclasses.fields(Arch) if f.name not in (*shaped, *_UNSAID)}
    if "aa_layer" in arguments:
        said["antialias"] = arguments["aa_layer"]
    if "output_stride" in arguments:
        said["output_stride"] = arguments["output_stride"] % 32  # which is as it comes
    if "norm_layer" in arguments:
        said["norm_groups"] = 0 if arguments["norm_layer"] in _BATCH else 32
    if attention := arguments.get("block_args"):
        said |= {"se_ratio": 16 if attention["attn_layer"] == "se" else 0, "eca": attention["attn_layer"] == "eca"}
    return said
