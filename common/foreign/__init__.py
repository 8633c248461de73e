"""Other libraries' names for the canonical weights: one rule list a library, none a model."""

from common.foreign.cifar import AKAMASTER, KUANGLIU
from common.foreign.keras_applications import RESNET, RESNET_V2
from common.foreign.keras_hub import KERAS_HUB
from common.foreign.library import Library
from common.foreign.timm import RESNETV2
from common.foreign.torchvision import TIMM, TORCHVISION
from common.foreign.transformers import TRANSFORMERS

# in the order in which they are asked whose a file is
LIBRARIES: tuple[Library, ...] = (
    TORCHVISION, TIMM, RESNETV2, TRANSFORMERS, AKAMASTER, KUANGLIU, RESNET, RESNET_V2, KERAS_HUB
)  # fmt: skip
