"""Checkpoints in PyTorch's own format, .pt: the state_dict, with the row among its metadata. The twin of
keras_impl/files.py."""

from pathlib import Path

import numpy as np
import torch

from common.arch import Arch
from common.errors import RosettaError
from common.names import parameters
from common.weights import check
from torch_impl.resnet import create_model

KEY = "resnet_rosetta"  # beside the versions that PyTorch keeps in a state_dict's _metadata


def write(path: Path, arch: Arch, weights: dict[str, np.ndarray], dtype: str) -> None:
    """A state_dict that `load_state_dict` takes, here and, for its models, in torchvision."""
    model = create_model(arch, dtype=dtype, weights=weights)
    state = model.state_dict()
    state._metadata[KEY] = {"arch": arch.to_json()}
    try:
        torch.save(state, path)
    except RuntimeError as e:  # how PyTorch's writer reports a full disk
        raise RosettaError(f"can't write {path.name}: {str(e).strip().splitlines()[0]}; nothing was written") from None


def read(path: Path, arch: Arch | None = None) -> tuple[Arch, dict[str, np.ndarray]]:
    """(row, canonical weights) of a state_dict; `arch` is needed where the file doesn't name its row.

    Raises RosettaError for a file that is damaged, would run code, or doesn't fit the row.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # PyTorch documents none: RuntimeError, UnpicklingError, EOFError, KeyError, ... were seen
        reason = str(e).strip().split("\n")[0] or type(e).__name__
        raise RosettaError(f"{path} is not a whole PyTorch checkpoint of tensors alone: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise RosettaError(f"{path} holds no state_dict: expected {{name: tensor}}")
    said = getattr(state, "_metadata", {}).get(KEY)
    arch = arch or (Arch.from_json(said["arch"]) if said else None)
    if arch is None:
        raise RosettaError(f"{path} doesn't say which net it is; name it with --arch")
    weights = {
        n: t.float() if t.dtype == torch.bfloat16 else t
        for n, t in state.items()
        if not n.endswith("num_batches_tracked")
    }
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    check(arch, arrays)
    return arch, {name: arrays[name] for name in parameters(arch)}
