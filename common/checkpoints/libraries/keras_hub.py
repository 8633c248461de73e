"""KerasHub's names: ResNetBackbone and ResNetImageClassifier, after, before and with the D variant ("vd")."""

from typing import Any

from common.arch import Arch
from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.torchvision import imagenet
from common.checkpoints.preprocessing import IMAGENET

RULES = (  # a shortcut is number 0, and so comes before the rules of all numbers
    ("conv1", "conv1_conv", "single"),
    ("bn1", "conv1_bn", "single"),
    ("conv1.0", "conv1_conv", "deep"),
    ("conv1.1", "conv1_bn", "deep"),
    ("conv1.3", "conv2_conv", "deep"),
    ("conv1.4", "conv2_bn", "deep"),
    ("conv1.6", "conv3_conv", "deep"),
    ("bn1", "conv3_bn", "deep"),
    ("layer{s}.{b}.downsample.1", "stack{s-1}_block{b}_0_conv", "pooled"),
    ("layer{s}.{b}.downsample.2", "stack{s-1}_block{b}_0_bn", "pooled"),
    ("layer{s}.{b}.downsample.0", "stack{s-1}_block{b}_0_conv"),
    ("layer{s}.{b}.downsample.1", "stack{s-1}_block{b}_0_bn", "postact"),
    ("layer{s}.{b}.conv{i}", "stack{s-1}_block{b}_{i}_conv"),
    ("layer{s}.{b}.bn{i}", "stack{s-1}_block{b}_{i}_bn", "postact"),
    ("layer{s}.{b}.bn1", "stack{s-1}_block{b}_pre_activation_bn", "preact"),
    ("layer{s}.{b}.bn{i}", "stack{s-1}_block{b}_{i-1}_bn", "preact"),
    ("norm", "post_bn", "preact"),
    ("fc", "predictions"),
)


def _built(arch: Arch) -> bool:
    if arch.groups > 1 or arch.width_per_group != 64 or arch.se_ratio or arch.conv_bias or arch.widths[0] != 64:
        return False
    if arch.norm_groups or arch.weight_std:
        return False
    if arch.shortcut.startswith("pool"):  # its first blocks project, which only a row of basic blocks tells
        return arch.shortcut == ("pool" if arch.block == "bottleneck" else "pool_first")
    return imagenet(arch)


KERAS_HUB = Library(
    "keras-hub", RULES, claims=_built, keras=True, nested="layers/res_net_backbone/", preprocessing=IMAGENET,
    conventions={"stride_in": 2, "norm_eps": 1e-5},
    traits=(
        frozenset({"postact", "single"}),
        frozenset({"preact", "single"}),
        frozenset({"postact", "deep", "pooled"}),
    ),
)  # fmt: skip


def backbone_config(arch: Arch) -> dict[str, Any]:
    """What KerasHub's ResNetBackbone of a row is built with, but for the shape of the image."""
    return {
        "input_conv_filters": [c for c, _, _ in arch.stem.convs],
        "input_conv_kernel_sizes": [k for _, k, _ in arch.stem.convs],
        "stackwise_num_filters": list(arch.widths),
        "stackwise_num_blocks": list(arch.depths),
        "stackwise_num_strides": [arch.first_stride] + [2] * (len(arch.depths) - 1),
        "block_type": ("basic_block" if arch.block == "basic" else "bottleneck_block")
        + ("_vd" if arch.shortcut.startswith("pool") else ""),
        "use_pre_activation": arch.preact,
    }
