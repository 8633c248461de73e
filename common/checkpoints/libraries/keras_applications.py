"""keras.applications' names: ResNet50, 101, 152, and their V2."""

from common.arch import Arch, nearly
from common.checkpoints.libraries.library import Library
from common.checkpoints.preprocessing import Preprocessing

RULES = (  # a shortcut is number 0, and so comes before the rules of all numbers
    ("conv1", "conv1_conv"),
    ("bn1", "conv1_bn", "postact"),
    ("layer{s}.{b}.downsample.0", "conv{s+1}_block{b+1}_0_conv"),
    ("layer{s}.{b}.downsample.1", "conv{s+1}_block{b+1}_0_bn", "postact"),
    ("layer{s}.{b}.conv{i}", "conv{s+1}_block{b+1}_{i}_conv"),
    ("layer{s}.{b}.bn{i}", "conv{s+1}_block{b+1}_{i}_bn", "postact"),
    ("layer{s}.{b}.bn1", "conv{s+1}_block{b+1}_preact_bn", "preact"),
    ("layer{s}.{b}.bn{i}", "conv{s+1}_block{b+1}_{i-1}_bn", "preact"),
    ("norm", "post_bn", "preact"),
    ("fc", "predictions"),
)
CAFFE = Preprocessing(
    (103.939, 116.779, 123.68), (1.0, 1.0, 1.0), scale=1.0, size=224, resize=224, channel_order="BGR"
)  # fmt: skip
HALVES = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), size=224, resize=224)  # -1 to 1


def _built(arch: Arch) -> bool:
    """The six nets that it has."""
    return nearly(arch).endswith("_keras")


RESNET = Library(
    "keras.applications", RULES, claims=_built, keras=True,
    preprocessing=CAFFE, traits=(frozenset({"postact", "single"}),),
    conventions={"stride_in": 1, "norm_eps": 1.001e-5},
)  # fmt: skip
RESNET_V2 = Library(
    "keras.applications", RULES, claims=_built, keras=True,
    preprocessing=HALVES, traits=(frozenset({"preact", "single"}),),
    conventions={"stride_in": 2, "norm_eps": 1.001e-5, "stride_block": "last", "stem.pool": "zeros"},
)  # fmt: skip
