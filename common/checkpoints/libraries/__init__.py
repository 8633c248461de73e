"""Other libraries' names for the canonical weights: one rule list a library, none a model."""

from common.checkpoints.libraries.cifar import AKAMASTER, KUANGLIU
from common.checkpoints.libraries.detectron2 import DETECTRON2, FROM_TORCHVISION
from common.checkpoints.libraries.keras_applications import RESNET, RESNET_V2
from common.checkpoints.libraries.keras_hub import KERAS_HUB
from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.sequential import CHILDREN, OPENMMLAB
from common.checkpoints.libraries.timm import BIT, RESNETRS, RESNETV2, RESNETV2_DEEP
from common.checkpoints.libraries.torchvision import TIMM, TORCHVISION
from common.checkpoints.libraries.transformers import RT_DETR, TRANSFORMERS, TRANSFORMERS_BIT

# in the order in which they are asked whose a file is
LIBRARIES: tuple[Library, ...] = (
    TORCHVISION, TIMM, RESNETRS, RESNETV2, BIT, RESNETV2_DEEP, TRANSFORMERS, TRANSFORMERS_BIT, RT_DETR, AKAMASTER,
    KUANGLIU, RESNET, RESNET_V2, KERAS_HUB, CHILDREN, OPENMMLAB, FROM_TORCHVISION, DETECTRON2,
)  # fmt: skip
