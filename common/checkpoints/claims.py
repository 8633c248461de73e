"""What a file says of its net beside the arrays: a configuration names layers that have no parameters, such as an
activation or a dilation. It is held against the row, so that nothing is taken for the plain net that it resembles."""

from collections.abc import Iterator
from typing import Any

from common.arch import Arch
from common.checkpoints.containers import Container
from common.checkpoints.libraries.keras_hub import backbone_config
from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.timm import NEEDS, claimed
from common.checkpoints.libraries.transformers import KINDS, transformers_config
from common.errors import RosettaError, printable
from common.plan import Conv, Norm, make_plan

SILENT = (
    "as in the plain net: nothing tells dilation, anti-aliasing (timm's resnetaa* and resnetblur*), another activation "
    "or another pooling, which have no parameters"
)


def check(held: Container, library: Library, arch: Arch) -> str:
    """What the configuration says that the net is, in words; empty where there is none that is known.

    Raises RosettaError where it says another function than the row.
    """
    config = held.metadata.get("config")
    if not isinstance(config, dict):
        return ""
    if library.keras:
        wrong, named = _keras(config, held.metadata.get("task.json"), library, arch)
    elif timm := timm_claim(held):
        wrong, named = _timm(*timm, arch), f"timm's {timm[0]}"
    elif library.name in KINDS:
        kind = KINDS[library.name]
        wrong, named = _transformers(config, arch, kind), f"Transformers' {config.get('model_type', kind)}"
    else:
        return ""
    if wrong:
        raise RosettaError(
            f"{held.path} says that it is another net than that of {library.name} with these names and shapes: "
            f"{wrong}. It is taken for neither; if the configuration is wrong, give the file of weights by itself"
        )
    return named


def says_all(held: Container) -> bool:
    """Whether the configuration is one of a ResNet, and so says what no tensor tells."""
    config = held.metadata.get("config")
    return isinstance(config, dict) and ("architecture" in config or config.get("model_type") in KINDS.values())


# -- timm


def timm_claim(held: Container) -> tuple[str, dict[str, Any]] | None:
    """The architecture and the arguments of timm's `create_model` that a file names, if it does."""
    config = held.metadata.get("config")
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        return None
    arguments = config.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise RosettaError(f"{held.path}: the model_args of its configuration are no object")
    pool = {"global_pool": config["global_pool"]} if "global_pool" in config else {}
    return config["architecture"], pool | {k: v for k, v in arguments.items() if v is not None}


def timm_fields(held: Container) -> dict[str, Any]:
    """Fields of the row that a timm configuration says; none where there is none, or one that no row says."""
    try:
        claim = timm_claim(held)
        return claimed(*claim) if claim else {}
    except RosettaError:  # which `check` repeats
        return {}


def timm_needs(held: Container) -> str:
    """Of an architecture of timm's that no row says, what it needs; nothing of any other."""
    claim = timm_claim(held)
    return NEEDS.get(claim[0].split(".")[0], "") if claim else ""


def timm_row(held: Container) -> Arch | None:
    """The whole row, if the configuration says one, with the classes and channels that the file has."""
    fields = timm_fields(held)
    if "depths" not in fields:
        return None

    def size(axis: int, names: tuple[str, ...]) -> int | None:
        found = [held.entries[name].shape for name in names if name in held.entries]
        return found[0][axis] if found and len(found[0]) > axis else None

    classes = size(0, ("fc.weight", "head.fc.weight")) or 0
    channels = size(1, ("conv1.weight", "conv1.0.weight", "stem.conv.weight", "stem.conv1.weight")) or 3
    return Arch(**fields, num_classes=classes, in_channels=channels)


def _timm(name: str, arguments: dict[str, Any], arch: Arch) -> str:
    """What is wrong, or nothing."""
    try:
        said = claimed(name, arguments)
    except RosettaError as e:
        return str(e)
    wrong = [field for field, value in said.items() if getattr(arch, field) != value]
    return f"timm's {name}, where {', '.join(wrong)} would be otherwise" if wrong else ""


# -- Transformers


def _transformers(config: dict[str, Any], arch: Arch, meant: str) -> str:
    if (kind := config.get("model_type", meant)) != meant:
        return f"a {str(kind)[:60]} of Transformers"
    usual = {"layer_type": "bottleneck", "hidden_act": "relu", "downsample_in_first_stage": False}
    usual |= {"downsample_in_bottleneck": False} if arch.block == "bottleneck" else {}
    ours = transformers_config(arch, ())
    shaped: tuple[str, ...] = ("num_channels", "embedding_size", "hidden_sizes", "depths")
    if meant == "bit":
        usual = {"layer_type": "preactivation", "hidden_act": "relu", "global_padding": None, "num_groups": 32,
                 "embedding_dynamic_padding": False, "output_stride": 32}  # fmt: skip
        ours |= usual
        shaped = ("num_channels", "depths") if config.get("width_factor", 1) != 1 else shaped
    said = usual | config
    for key in (*shaped, *usual):
        if key in said and said[key] != ours[key]:
            return f"{key} = {str(said[key])[:60]!r} where {ours[key]!r} is meant"
    return ""


# -- Keras


def keras_layers(config: dict[str, Any], depth: int = 0) -> list[dict[str, Any]]:
    """The layers of a functional or sequential model's configuration, with those of a model within it in its place;
    none of another's."""
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else None
    if not isinstance(layers, list) or depth > 4:
        return []
    known = [layer for layer in layers if isinstance(layer, dict) and isinstance(layer.get("config"), dict)]
    return [each for layer in known for each in keras_layers(layer, depth + 1) or [layer]]


def keras_before(held: Container) -> list[str]:
    """What a Keras model does with images before its net sees them: the classes of these layers."""
    config = held.metadata.get("config")
    found = []
    for layer in keras_layers(config) if isinstance(config, dict) else []:
        kind = str(layer.get("class_name"))
        if kind == "Conv2D":
            break
        if kind not in ("InputLayer", "ZeroPadding2D", "Dropout") and not kind.startswith("Random"):  # for training
            found.append(f"{kind[:60]} {printable(str(layer['config'].get('name')))[:60]}")
    return found


def keras_head(held: Container) -> str:
    """The activation after the classifier that a Keras file says, such as "softmax"; else nothing."""
    config, task = held.metadata.get("config"), held.metadata.get("task.json")
    for said in (task, config):
        inner = said.get("config") if isinstance(said, dict) else None
        if isinstance(inner, dict) and "backbone" in inner:
            return str(inner.get("activation") or "").replace("linear", "")
    layers = keras_layers(config) if isinstance(config, dict) else []
    last = [layer["config"].get("activation") for layer in layers if layer.get("class_name") == "Dense"]
    return str(last[-1] or "").replace("linear", "") if last else ""


def _keras(config: dict[str, Any], task: Any, library: Library, arch: Arch) -> tuple[str, str]:
    """(what is wrong, what it says that it is): one of both is empty, or both."""
    for said in (task, config):
        inner = said.get("config") if isinstance(said, dict) else None
        if not isinstance(inner, dict):
            continue
        body: Any = inner.get("backbone", inner if "stackwise_num_filters" in inner else None)
        body = body.get("config", body) if isinstance(body, dict) and "backbone" in inner else body
        if isinstance(body, dict):
            return _hub(inner, body, arch), "KerasHub's ResNet"
    layers = keras_layers(config)
    if not layers:
        return "", ""
    return next(_otherwise(layers, library, arch), ""), "a Keras model, layer by layer"


def _hub(task: dict[str, Any], body: dict[str, Any], arch: Arch) -> str:
    for key, value in backbone_config(arch).items():
        if key in body and body[key] != value:
            return f"{key} = {str(body[key])[:60]!r} where {value!r} is meant"
    if task.get("pooling", "avg") != "avg":
        return f"pooling = {task['pooling']!r} where the average is meant"
    if task.get("activation") not in (None, "linear", "softmax"):
        return f"activation = {str(task['activation'])[:60]!r} after the classifier"
    return ""


_NOTHING = ("InputLayer", "ZeroPadding2D", "Add", "Dropout")  # what is held against others, or does nothing here


def _otherwise(layers: list[dict[str, Any]], library: Library, arch: Arch) -> Iterator[str]:
    """What a functional model's layers do that the row's don't."""
    plan = make_plan(arch)
    ours = {library.layer(layer.name, arch): layer for layer in plan.layers()}
    layers, head = _parts(layers, {name for name, layer in ours.items() if layer is not plan.fc})
    yield from _head(head, arch)
    by_name = {str(layer["config"].get("name")): layer for layer in layers}
    counts = dict.fromkeys(("Activation", "Add", "MaxPooling2D"), 0)
    for name, layer in by_name.items():
        kind, said = str(layer.get("class_name")), layer["config"]
        kind = "Activation" if kind == "ReLU" else kind
        wanted: dict[str, Any] = {}
        if kind in ("Conv2D", "MaxPooling2D"):
            before = [by_name[n] for n in _inputs(layer.get("inbound_nodes")) if n in by_name]
            pads = [p["config"].get("padding") for p in before if p.get("class_name") == "ZeroPadding2D"]
        if kind == "Conv2D":
            conv = ours.get(name)
            if not isinstance(conv, Conv):
                yield f"{name} is a convolution that it hasn't"
                return
            wanted = {"strides": [conv.stride] * 2, "dilation_rate": [1, 1], "activation": "linear"}
            if conv.kernel > 1 and (said.get("padding"), conv.stride) != ("same", 1):
                wanted["padding"] = "valid"
                if pads != [[[conv.padding] * 2] * 2]:
                    yield f"{name} isn't padded by {conv.padding} on all sides"
        elif kind == "BatchNormalization":
            wanted = {"epsilon": arch.norm_eps} if isinstance(ours.get(name), Norm) else {"name": "another"}
            if said.get("axis") not in (3, -1, [3], [-1]):
                yield f"{name} has axis = {said.get('axis')!r}"
        elif kind == "Activation":
            if layer.get("class_name") == "Activation":
                wanted = {"activation": "relu"}
            for key in ("max_value", "negative_slope", "threshold"):
                if said.get(key):
                    yield f"{name} has {key} = {said[key]!r}"
        elif kind == "MaxPooling2D" and said.get("pool_size") == [1, 1]:  # takes every other pixel
            wanted, kind = {"strides": [2, 2]}, ""
        elif kind == "MaxPooling2D":
            wanted = {"pool_size": [3, 3], "strides": [2, 2], "padding": "valid"}
            if pads != [[[1, 1], [1, 1]]]:
                yield f"{name} isn't padded by 1 on all sides"
        elif kind not in (*_NOTHING, *counts):
            yield f"{name[:60]} is a {kind[:60]}"
        for key, value in wanted.items():
            if said.get(key, value) != value:
                yield f"{name} has {key} = {str(said[key])[:60]!r} where {value!r} is meant"
        if kind in counts:
            counts[kind] += 1
    norms = [layer for layer in plan.layers() if isinstance(layer, Norm) and ".downsample" not in layer.name]
    blocks = sum(arch.depths)
    for kind, n in {"Activation": len(norms), "Add": blocks, "MaxPooling2D": 1}.items():
        if counts[kind] != n:
            yield f"it has {counts[kind]} layers of {kind} where {n} are meant"


def _parts(layers: list[dict[str, Any]], ours: set[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(the layers of the net, those behind its features); those before it, `keras_before` says."""
    kinds = [str(layer.get("class_name")) for layer in layers]
    begin = next((i for i, kind in enumerate(kinds) if kind in ("ZeroPadding2D", "Conv2D")), 0)
    last = max(
        (i for i, layer in enumerate(layers) if kinds[i] == "Add" or layer["config"].get("name") in ours), default=0
    )
    end = last + 1 + (kinds[last + 1 : last + 2] in (["Activation"], ["ReLU"]))
    return layers[begin:end], layers[end:]


def _head(layers: list[dict[str, Any]], arch: Arch) -> Iterator[str]:
    """What a functional model does behind its features that a classifier of the row doesn't. One whose head was left
    out may do anything there; without one, what it gives is the row's."""
    kinds = [str(layer.get("class_name")) for layer in layers]
    if not arch.num_classes and "Dense" in kinds:
        return
    for layer, kind in zip(layers, kinds, strict=True):
        name, said = str(layer["config"].get("name"))[:60], layer["config"].get("activation")
        flat = kind == "Flatten" and arch.num_classes  # behind the pooling, without which there is no classifier
        if kind not in ("InputLayer", "Dropout", "GlobalAveragePooling2D", "Dense") and not flat:
            yield f"{name} is a {kind[:60]}"
        elif kind == "Dense" and said not in ("linear", "softmax", None):
            yield f"{name} has activation = {str(said)[:60]!r}"
    if arch.num_classes and kinds.count("GlobalAveragePooling2D") != 1:
        yield f"it has {kinds.count('GlobalAveragePooling2D')} layers of GlobalAveragePooling2D where 1 is meant"


def _inputs(nodes: Any) -> Iterator[str]:
    """The names of the layers that a layer reads, as Keras 3 or Keras 2 has them."""
    if isinstance(nodes, dict):
        history = nodes.get("keras_history")
        if isinstance(history, list) and history and isinstance(history[0], str):
            yield history[0]
            return
        nodes = list(nodes.values())
    if isinstance(nodes, list):
        if len(nodes) > 2 and isinstance(nodes[0], str):
            yield nodes[0]
            return
        for node in nodes:
            yield from _inputs(node)
