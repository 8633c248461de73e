"""The canonical names themselves, and what Keras makes of them in its files: no dots."""

from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.torchvision import RULES as _SINGLE

# parallel trunks have stages of their own: layer1_k3, layer1_k5
_CANONICAL = (
    *(pair[:2] for pair in _SINGLE),
    ("norm", "norm"),
    ("norm_k{k}", "norm_k{k}"),
    *(
        (f"layer{{s}}_k{{k}}.{rest}",) * 2
        for rest in ("{b}.conv{i}", "{b}.bn{i}", "{b}.se.fc{i}", "{b}.se.conv", "{b}.downsample.{i}")
    ),
)

OURS = Library("resnet-rosetta", _CANONICAL)
OURS_KERAS = Library(
    "resnet-rosetta", tuple((ours, theirs.replace(".", "_")) for ours, theirs in _CANONICAL), keras=True
)
