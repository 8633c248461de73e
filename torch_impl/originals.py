"""The libraries that checkpoints come from, with their own models, as witnesses. Twin: keras_impl/originals.py."""

import numpy as np
import torch

from common.arch import Arch
from common.checkpoints.claims import timm_claim
from common.checkpoints.libraries.transformers import transformers_config
from common.checkpoints.recognised import Recognised
from common.errors import RosettaError
from common.tools.frameworks import peer
from torch_impl.model import to_numpy


def build(library: str, name: str, arch: Arch) -> torch.nn.Module:
    """The library's own model of a row that is the variant `name` but for its classes and channels.

    Raises RosettaError where it has none, or isn't installed.
    """
    package = {"timm-resnetv2": "timm"}.get(library, library)
    if package not in ("torchvision", "timm", "transformers"):
        raise RosettaError(f"{library} is no library that can be installed: there is nothing to verify with")
    if package != "transformers" and name == "custom":
        raise RosettaError(f"the net has no name that {package} knows: there is nothing to verify with")
    theirs = peer(package)
    if package == "transformers":
        kind = theirs.ResNetForImageClassification if arch.num_classes else theirs.ResNetModel
        return kind(theirs.ResNetConfig(**transformers_config(arch, ())))
    try:
        if package == "timm":
            return theirs.create_model(name, num_classes=arch.num_classes, in_chans=arch.in_channels)
        model = theirs.models.get_model(name, weights=None, num_classes=arch.num_classes or 1000)
    except (ValueError, RuntimeError):
        raise RosettaError(f"{package} has no model {name!r}: there is nothing to verify with") from None
    if not arch.num_classes:
        model.fc = torch.nn.Identity()
    if arch.in_channels != 3:
        model.conv1 = torch.nn.Conv2d(arch.in_channels, 64, 7, 2, 3, bias=False)
    return model


def claimed(found: Recognised) -> torch.nn.Module | None:
    """The net that the file itself says, made by its library; None where it says nothing.

    Raises RosettaError where the library isn't installed, or can't make it.
    """
    arch, timm = found.arch, timm_claim(found.held)
    try:
        if timm:
            usual = {"num_classes": arch.num_classes, "in_chans": arch.in_channels}
            kept = {k: v for k, v in timm[1].items() if not k.startswith("pretrained")}  # nothing is downloaded
            return peer("timm").create_model(timm[0], **(usual | kept))
        if found.claim:
            theirs = peer("transformers")
            kind = theirs.ResNetForImageClassification if arch.num_classes else theirs.ResNetModel
            return kind(theirs.ResNetConfig.from_dict(found.held.metadata["config"]))
    except RosettaError:
        raise
    except Exception as e:  # of whatever kind: the configuration is a stranger's
        reason = str(e).strip().split("\n")[0][:200] or type(e).__name__
        raise RosettaError(f"{found.library.name} can't make what {found.held.path} says: {reason}") from None
    return None


def logits(found: Recognised, x: np.ndarray) -> np.ndarray:
    """What the library's own model computes from the checkpoint (N classes), in float64; `x` is N C H W."""
    model = claimed(found)
    model = (model or build(found.library.name, found.name, found.arch)).double().eval()
    counters = {n: t for n, t in model.state_dict().items() if n.endswith("num_batches_tracked")}
    weights = {s.theirs: torch.from_numpy(found.held.entries[s.theirs].read()) for s in found.slots}
    model.load_state_dict({**counters, **weights}, strict=True)
    with torch.no_grad():
        y = model(torch.from_numpy(x))
    y = y if isinstance(y, torch.Tensor) else getattr(y, "logits", None) if found.arch.num_classes else y.pooler_output
    return to_numpy(y.flatten(1))
