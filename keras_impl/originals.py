"""The libraries that checkpoints come from, with their own models, as witnesses. Twin: torch_impl/originals.py."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from common.arch import Arch
from common.checkpoints.claims import keras_before
from common.checkpoints.libraries.keras_hub import backbone_config
from common.checkpoints.recognised import Recognised
from common.errors import RosettaError
from common.tools.frameworks import require
from keras_impl.model import to_numpy


def build(library: str, name: str, arch: Arch, dtype: str = "float32", head: str | None = None) -> keras.Model:
    """The library's own model of a row that is the variant `name` but for its classes and channels; `head` is the
    activation after its classifier.

    Raises RosettaError where it has none, or isn't installed.
    """
    with in_dtype(dtype):
        return (_application if library == "keras.applications" else _hub)(name, arch, head or None)


@contextlib.contextmanager
def in_dtype(dtype: str) -> Iterator[None]:
    """Layers that are made inside have this dtype, and inputs too, which Keras would cut to float32."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def _application(name: str, arch: Arch, head: str | None) -> keras.Model:
    made = getattr(
        keras.applications, name.removesuffix("_keras").replace("resnet", "ResNet").replace("v2", "V2"), None
    )
    if made is None:
        raise RosettaError(f"keras.applications has no model {name!r}")
    top = {"classes": arch.num_classes, "classifier_activation": head} if arch.num_classes else {"pooling": "avg"}
    return made(weights=None, include_top=bool(arch.num_classes), input_shape=(224, 224, arch.in_channels), **top)


def _hub(name: str, arch: Arch, head: str | None) -> keras.Model:
    require("KerasHub's own model", ("keras_hub",), "")
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(**backbone_config(arch), image_shape=(None, None, arch.in_channels))
    if not arch.num_classes:
        return backbone
    return keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=arch.num_classes, activation=head)


def fill(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Sets every variable from {"layer/variable": array}; nothing may be left, on either side."""
    layers = {layer.name: layer for layer in model._flatten_layers()}
    left = {id(v) for layer in layers.values() for v in layer.variables if "seed" not in v.name}
    for name, array in arrays.items():
        layer, leaf = name.split("/")
        variable = getattr(layers[layer], leaf)
        variable.assign(array)
        left.discard(id(variable))
    if left:
        raise RosettaError(f"{model.name} has {len(left)} variables that the weights don't fill")


def claimed(found: Recognised, dtype: str) -> keras.Model | None:
    """The net that the file itself says, made by its library, for images of any size and without an activation after
    its classifier; None where it says nothing.

    Raises RosettaError where the library isn't installed, or can't make it.
    """
    if not found.claim:
        return None
    said = found.held.metadata["config"]
    if found.arch.num_classes:
        said = found.held.metadata.get("task.json", said)
    if found.library.name == "keras-hub":
        require("KerasHub's own model", ("keras_hub",), "")
        import keras_hub  # noqa: F401  its classes register themselves

    def changed(value: Any) -> Any:
        if isinstance(value, list):
            return [changed(v) for v in value]
        if not isinstance(value, dict):
            return value
        made = {k: changed(v) for k, v in value.items() if k not in ("compile_config", "build_config")}
        made |= {"dtype": dtype} if "dtype" in made else {}
        for key in ("batch_shape", "image_shape"):
            if isinstance(made.get(key), list):
                made[key] = [None] * (len(made[key]) - 1) + made[key][-1:]
        return made | ({"activation": "linear"} if made.get("activation") == "softmax" else {})

    try:
        with in_dtype(dtype):
            return keras.models.model_from_json(json.dumps(changed(said)))
    except Exception as e:  # of whatever kind: the configuration is a stranger's
        reason = str(e).strip().split("\n")[0][:200] or type(e).__name__
        raise RosettaError(f"{found.library.name} can't make what {found.held.path} says: {reason}") from None


def logits(found: Recognised, x: np.ndarray) -> np.ndarray:
    """What the library's own model computes from the checkpoint (N classes), in float64; `x` is N C H W."""
    arch = found.arch
    if before := keras_before(found.held):
        raise RosettaError(f"{found.held.path} has {before[0]} before its net: its logits are of other images")
    model = claimed(found, "float64") or build(found.library.name, found.name, arch, "float64")
    dense = [layer.name for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dense)]
    if len(dense) != bool(arch.num_classes):
        raise RosettaError(f"{found.held.path} has a head that was left out: its logits aren't the net's")
    arrays = dict(zip((s.theirs for s in found.library.slots(arch)), (s.theirs for s in found.slots), strict=True))
    head = found.library.layer("fc", arch) if dense else ""  # which may have a name of its own in the file
    named = {name.replace(f"{head}/", f"{dense[0]}/") if head else name: held for name, held in arrays.items()}
    fill(model, {name: found.held.entries[held].read() for name, held in named.items()})
    y = model(np.moveaxis(x, 1, -1), training=False)
    return to_numpy(y if len(y.shape) == 2 else keras.ops.mean(y, (1, 2)))


def save(
    path: Path, library: str, name: str, arch: Arch, arrays: Mapping[str, np.ndarray], head: str = ""
) -> None:  # fmt: skip
    """The library's own model with these weights, as it saves itself: a .keras, or KerasHub's folder."""
    model = build(library, name, arch, str(np.result_type(*arrays.values())), head)
    fill(model, arrays)
    if path.name.endswith(".keras"):
        model.save(path)
    else:
        model.save_to_preset(str(path))
