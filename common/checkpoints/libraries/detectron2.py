"""detectron2's names of its ResNet backbones, which began as MSRA's in Caffe: strides in the first 1x1, images in BGR
of 0 to 255 minus a mean (its config/defaults.py, MODEL.PIXEL_MEAN and MODEL.RESNETS.STRIDE_IN_1X1)."""

import dataclasses
import functools
import re

import numpy as np

from common.checkpoints.containers import Container, Entry
from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.torchvision import CONVENTIONS, imagenet
from common.checkpoints.preprocessing import IMAGENET, Preprocessing

_RULES = (
    ("conv1", "stem.conv1"), ("bn1", "stem.conv1.norm"),
    ("layer{s}.{b}.conv{i}", "res{s+1}.{b}.conv{i}"), ("layer{s}.{b}.bn{i}", "res{s+1}.{b}.conv{i}.norm"),
    ("layer{s}.{b}.downsample.0", "res{s+1}.{b}.shortcut"),
    ("layer{s}.{b}.downsample.1", "res{s+1}.{b}.shortcut.norm"),
)  # fmt: skip
DETECTRON2 = Library(
    "detectron2", (*_RULES, ("fc", "linear")),
    conventions={"stride_in": 1, "norm_eps": 1e-5}, claims=imagenet, traits=(frozenset({"postact", "single"}),),
    preprocessing=Preprocessing(
        (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), scale=1.0, size=224, resize=256, channel_order="BGR"
    ),
)  # fmt: skip

# torchvision's weights as detectron2's tools/convert-torchvision-to-d2.py writes them: by its classifier's name
FROM_TORCHVISION = Library(
    "detectron2", (*_RULES, ("fc", "stem.fc")), conventions=CONVENTIONS, preprocessing=IMAGENET,
    claims=lambda arch: imagenet(arch) and arch.num_classes > 0, traits=(frozenset({"postact", "single", "headed"}),),
)  # fmt: skip

_CAFFE = (
    ("_", "."), (r"\.w$", ".weight"), (r"\.b$", ".bias"), (r"\.bn\.s$", ".norm.weight"),
    (r"\.bn\.bias$", ".norm.bias"), (r"^(res\.)?conv1\.", "stem.conv1."), (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."), (r"\.branch2b\.", ".conv2."), (r"\.branch2c\.", ".conv3."),
    (r"^(fc1000|pred)\.", "linear."),
)  # fmt: skip


def from_caffe(held: Container) -> Container:
    """A container of the names that MSRA's nets had in Caffe2 (`res2_0_branch2a_bn_s`), under detectron2's; any other
    as it is. There a norm is a scale and a shift alone, into which its statistics went: they are those that change
    nothing, but for a bias of the convolution before it."""
    begin = next((n.removesuffix("res2_0_branch2a_w") for n in held.entries if n.endswith("res2_0_branch2a_w")), None)
    if begin is None:
        return held
    entries: dict[str, Entry] = {}
    unused = {n: "of the training, not of the net" for n in held.entries if n.endswith("_momentum")}
    for name, entry in held.entries.items():
        if name in unused:
            continue
        ours = name.removeprefix(begin)
        for pattern, words in _CAFFE:
            ours = re.sub(pattern, words, ours)
        entries[ours] = dataclasses.replace(entry, where=name)
    for name in [n for n in entries if n.endswith(".norm.weight")]:
        shape, before = entries[name].shape, entries.pop(name.replace("norm.weight", "bias"), None)
        shift = functools.partial(_negative, before) if before else functools.partial(np.zeros, shape, "float32")
        variance = functools.partial(np.full, shape, 1 - 1e-5, "float32")  # and epsilon is 1
        for leaf, read in (("running_mean", shift), ("running_var", variance)):
            entries[name.replace("weight", leaf)] = Entry(shape, "float32", read, f"none, for {entries[name].where}")
    notes = [*held.notes, "norms of Caffe's have no statistics: 0 and 1 - epsilon, which leave scale and shift alone"]
    return dataclasses.replace(held, entries=entries, notes=notes, unused=held.unused | unused)


def _negative(entry: Entry) -> np.ndarray:
    return -entry.read()
