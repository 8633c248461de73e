"""Hugging Face Transformers' names: ResNetForImageClassification, and ResNetModel without "resnet."; BiT; the ResNet in
RT-DETR. And the configuration of a ResNet in a larger net."""

import dataclasses
from typing import Any

from common.arch import Arch
from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.timm import BIT
from common.checkpoints.libraries.torchvision import imagenet
from common.checkpoints.preprocessing import IMAGENET, Preprocessing

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


# BiT, pre-activated and with standardised weights (its modeling_bit.py, layer_type "preactivation")
_BIT = (
    ("conv1", "embedder.convolution"),
    ("layer{s}.{b}.conv{i}", "encoder.stages.{s-1}.layers.{b}.conv{i}"),
    ("layer{s}.{b}.bn{i}", "encoder.stages.{s-1}.layers.{b}.norm{i}"),
    ("layer{s}.{b}.downsample.0", "encoder.stages.{s-1}.layers.{b}.downsample.conv"),
    ("norm", "norm"),
)
TRANSFORMERS_BIT = Library(
    "transformers-bit", (
        *((ours, "bit." + theirs, "headed") for ours, theirs in _BIT),
        *((ours, theirs, "bare") for ours, theirs in _BIT),
        ("fc", "classifier.1"),
    ), traits=(frozenset({"preact", "single", "headed"}), frozenset({"preact", "single", "bare"})),
    conventions=BIT.conventions, claims=BIT.claims, preprocessing=BIT.preprocessing,
)  # fmt: skip

# of RT-DETR (modeling_rt_detr_resnet.py), which are ResNet-D's but for the first block of basic ones, which projects
_STEM = tuple(
    (ours, f"embedder.embedder.{i}.{leaf}")
    for i, pair in enumerate((("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")))
    for ours, leaf in zip(pair, ("convolution", "normalization"), strict=True)
)
_SHORT = tuple(
    (f"layer{s}.{b}.downsample.{i}", f"encoder.stages.{t}.layers.{b}.shortcut.{at}{leaf}")
    for s, b, t, at in (("1", "0", "0", ""), ("{s}", "{b}", "{s-1}", "1."))
    for i, leaf in ((1, "convolution"), (2, "normalization"))
)
RT_DETR = Library(
    "rt-detr", (*_STEM, *_BODY[2:4], *_SHORT), traits=(frozenset({"postact", "deep", "pooled", "bare"}),),
    conventions=TRANSFORMERS.conventions, claims=lambda arch: arch.dims == 2 and len(arch.stem.convs) == 3,
    preprocessing=Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), size=640, resize=640),
)  # fmt: skip
KINDS = {"transformers": "resnet", "transformers-bit": "bit", "rt-detr": "rt_detr_resnet"}  # their model_type


def of_backbone(config: dict[str, Any]) -> dict[str, Any]:
    """What the configuration of a larger net, such as a detector's, says of the ResNet in it; itself, of any other.
    That of timm's nets is as timm itself has it."""
    inner = config.get("backbone_config")
    inner = inner if isinstance(inner, dict) else config if config.get("model_type") == "timm_backbone" else {}
    name = inner.get("backbone", config.get("backbone"))
    if isinstance(name, str) and "/" not in name and "architecture" not in config:
        more = config.get("backbone_kwargs")
        said = dict(more) if isinstance(more, dict) else {}
        said = {key: value for key, value in said.items() if key not in ("in_chans", "out_indices")}
        stride = inner.get("output_stride") or said.get("output_stride") or (16 if config.get("dilation") else 32)
        return {"architecture": name, "model_args": {**said, "output_stride": stride}}
    return inner or config


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
