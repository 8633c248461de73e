"""Hugging Face Transformers' names: ResNetForImageClassification, and ResNetModel without "resnet."."""

import dataclasses
from typing import Any

from common.arch import Arch
from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.torchvision import imagenet
from common.checkpoints.preprocessing import IMAGENET

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
    batches = not arch.norm_groups and not arch.weight_std
    return imagenet(arch) and batches and arch.groups == 1 and arch.width_per_group == 64


TRANSFORMERS = Library(
    "transformers", RULES, claims=_plain, traits=(
        frozenset({"postact", "single", "headed"}), frozenset({"postact", "single", "bare"}),
    ), conventions={"stride_in": 2, "norm_eps": 1e-5},
    preprocessing=dataclasses.replace(IMAGENET, interpolation="bicubic"),
)  # fmt: skip


def transformers_config(arch: Arch, labels: tuple[str, ...]) -> dict[str, Any]:
    """Hugging Face's config.json of a row."""
    config: dict[str, Any] = {
        "architectures": ["ResNetForImageClassification" if arch.num_classes else "ResNetModel"],
        "model_type": "resnet", "num_channels": arch.in_channels, "embedding_size": arch.stem.convs[-1][0],
        "hidden_sizes": [w * arch.expansion for w in arch.widths], "depths": list(arch.depths),
        "layer_type": arch.block, "hidden_act": "relu", "downsample_in_first_stage": arch.first_stride == 2,
        "downsample_in_bottleneck": arch.stride_in == 1,
    }  # fmt: skip
    if arch.num_classes:
        words = labels or tuple(f"LABEL_{i}" for i in range(arch.num_classes))
        config |= {
            "id2label": {str(i): w for i, w in enumerate(words)}, "label2id": {w: i for i, w in enumerate(words)}
        }  # fmt: skip
    return config
