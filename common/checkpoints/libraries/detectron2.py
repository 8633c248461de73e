"""detectron2's names of its ResNet backbones, which began as MSRA's in Caffe: strides in the first 1x1, images in BGR
of 0 to 255 minus a mean (its config/defaults.py, MODEL.PIXEL_MEAN and MODEL.RESNETS.STRIDE_IN_1X1)."""

from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.torchvision import imagenet
from common.checkpoints.preprocessing import Preprocessing

DETECTRON2 = Library(
    "detectron2",
    (
        ("conv1", "stem.conv1"), ("bn1", "stem.conv1.norm"),
        ("layer{s}.{b}.conv{i}", "res{s+1}.{b}.conv{i}"), ("layer{s}.{b}.bn{i}", "res{s+1}.{b}.conv{i}.norm"),
        ("layer{s}.{b}.downsample.0", "res{s+1}.{b}.shortcut"),
        ("layer{s}.{b}.downsample.1", "res{s+1}.{b}.shortcut.norm"),
        ("fc", "linear"),
    ),
    conventions={"stride_in": 1, "norm_eps": 1e-5}, claims=imagenet, traits=(frozenset({"postact", "single"}),),
    preprocessing=Preprocessing(
        (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), scale=1.0, size=224, resize=256, channel_order="BGR"
    ),
)  # fmt: skip
