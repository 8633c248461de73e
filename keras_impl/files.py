"""Checkpoints in Keras' own formats, .keras and .weights.h5, with the row inside. The twin of torch_impl/files.py."""

from pathlib import Path

import h5py
import keras
import numpy as np

from common.arch import Arch
from common.errors import RosettaError
from keras_impl.resnet import ResNet, create_model
from keras_impl.weights import export_weights

KEY = "resnet_rosetta"  # an attribute of the HDF5 file's root, which Keras ignores


def write(path: Path, arch: Arch, weights: dict[str, np.ndarray], dtype: str) -> None:
    """A file that `keras.saving.load_model` (.keras) or a model's `load_weights` (.weights.h5) takes."""
    model = create_model(arch, dtype=dtype, weights=weights)
    if path.name.endswith(".keras"):
        model.save(path)
        return
    model.save_weights(path)
    with h5py.File(path, "a") as f:
        f.attrs[KEY] = arch.to_json()
        f.attrs["dtype"] = dtype


def read(path: Path, arch: Arch | None = None) -> tuple[Arch, dict[str, np.ndarray]]:
    """(row, canonical weights) of either format; `arch` is needed where a .weights.h5 doesn't name its row.

    Raises RosettaError for a file that is damaged, not of this project's nets, or doesn't fit the row.
    """
    try:
        if path.name.endswith(".keras"):
            model = keras.saving.load_model(path, compile=False)
            if not isinstance(model, ResNet):
                raise RosettaError(f"{path} holds a {type(model).__name__}: expected this project's ResNet")
            if arch not in (None, model.plan.arch):
                raise RosettaError(f"{path} is another net than --arch names")
        else:
            with h5py.File(path, "r") as f:
                said, dtype = f.attrs.get(KEY), f.attrs.get("dtype", "float32")
            arch = arch or (Arch.from_json(said) if said else None)
            if arch is None:
                raise RosettaError(f"{path} doesn't say which net it is; name it with --arch")
            model = create_model(arch, dtype=dtype)
            model.load_weights(path)
    except RosettaError:
        raise
    except Exception as e:  # Keras documents none: OSError, ValueError, KeyError, BadZipFile, TypeError, ... were seen
        reason = str(e).strip().split("\n")[0] or type(e).__name__
        raise RosettaError(f"{path} is not a whole Keras checkpoint of this net: {reason}") from None
    return model.plan.arch, export_weights(model)
