"""Where Keras keeps what in its files, so that they can be written and read without Keras and its engine starting."""

import functools
import importlib.metadata
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.arch import Arch
from common.checkpoints.containers import Container, Entry, json_object, ours
from common.checkpoints.hdf5 import READER
from common.checkpoints.libraries.library import KERAS_LEAVES, Library
from common.errors import RosettaError
from common.plan import Layer, Linear, Norm, Plan, make_plan
from common.tools.frameworks import require

# -- reading


def read(path: Path, member: str = "") -> Container:
    require(f"{path} is HDF5, and reading it", ("h5py",), "keras")
    attributes, found = READER.index(path, member)
    own = ours(path, attributes)
    legacy = "model_weights" in attributes or "layer_names" in attributes
    entries: dict[str, Entry] = {}
    unused: dict[str, str] = {}
    ordered = False
    inside = dict[str, set[str]]()  # of an older layout's groups: one layer, or those of a model within the model
    for said in found if legacy else ():
        parts = said["where"].removeprefix("model_weights/").split("/")
        inside.setdefault(parts[0], set()).update(parts[-2:-1])
    for said in found:
        name = where = said["where"]
        if where.split("/")[0] in ("optimizer", "optimizer_weights"):
            unused[where] = "the optimizer's"
            continue
        if legacy:
            parts = where.removeprefix("model_weights/").split("/")
            layer = parts[-2] if len(inside[parts[0]]) > 1 else parts[0]
            name = f"{layer}/{parts[-1].removesuffix(':0')}"
        elif said["layer"]:
            at, names = where.rsplit("/", 1)[1], leaves(said["axes"])
            name = f"{said['layer']}/{names[int(at)] if at.isdigit() and int(at) < len(names) else at}"
        elif "/vars/" in where:
            ordered = True
        if name in entries:
            raise RosettaError(f"{path} has {name} twice: which one is meant can't be told")
        read = functools.partial(READER.read, path, member, where)
        entries[name] = Entry(tuple(said["shape"]), str(np.dtype(said["dtype"])), read, where)
    if not entries:
        raise RosettaError(f"{path} holds no arrays of a net")
    kind = "HDF5, Keras' older layout" if legacy else "HDF5"
    said = dict(own)
    if text := attributes.get("model_config"):  # a whole model's
        said["config"] = json_object(path, text.encode("utf-8", "replace"), "the model's configuration")
    return Container(path, kind, entries, said, own, unused, ordered=ordered)


def named(held: Container) -> Container:
    """A Keras archive of an older Keras keeps no names beside its arrays, but has them, in order, in its
    configuration."""
    config = held.metadata.get("config", {}).get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    if not held.ordered or not isinstance(layers, list):
        return held
    names, counts = {}, dict[str, int]()
    for layer in layers:
        if not isinstance(layer, dict) or not isinstance(layer.get("class_name"), str):
            return held
        kind = snake(layer["class_name"])
        n = counts.get(kind, 0)
        counts[kind] = n + 1
        names[f"layers/{numbered(kind, n)}"] = str(layer.get("config", {}).get("name", layer.get("name")))
    entries = {}
    for where, entry in held.entries.items():
        group, _, at = where.rpartition("/vars/")
        if group not in names:
            return held
        first = held.entries.get(f"{group}/vars/0", entry)
        kinds = leaves(len(first.shape))
        entries[f"{names[group]}/{kinds[int(at)] if at.isdigit() and int(at) < len(kinds) else at}"] = entry
    held.entries, held.ordered = entries, False
    return held


def leaves(axes: int) -> list[str]:
    """Keras' names of a layer's variables, which its files only count: a norm's have one axis all, a kernel more."""
    return list(KERAS_LEAVES["norm" if axes == 1 else "kernel"].values())


def numbered(kind: str, n: int) -> str:
    """The `n`-th of a class, from 0, as Keras' files have it: "conv2d", "conv2d_1", ..."""
    return f"{kind}_{n}" if n else kind


def snake(name: str) -> str:
    """ "BatchNormalization" as Keras' files have it: "batch_normalization"; "Conv2D" is "conv2d"."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# -- where a layer's variables are


def own_group(plan: Plan, layer: Layer) -> str:
    """The group of one of our own nets' layers: its attribute path, where a Sequential's members go by class and
    number."""
    top, *inner = layer.name.split(".")
    if top.startswith("norm"):  # Keras goes through attributes by alphabet, and "layers", where all are, comes before
        n = [t.norm.name for t in plan.trunks if t.norm].index(layer.name)
        return f"layers/{numbered(_class(layer), n)}"
    kinds = {b.name: snake(b.kind) for t in plan.trunks for s in t.stages for b in s.blocks}
    path, at = top, top
    for part in inner:
        at = f"{at}.{part}"
        if not part.isdigit():
            path += f"/{part}"
            continue
        kind, n = kinds.get(at), int(part)
        if kind is None:  # of conv1 or downsample: convolutions and norms, each counted by itself
            kind = _class(layer)
            parent = at.rpartition(".")[0]
            same = [x for x in plan.layers() if x.name.rpartition(".")[0] == parent and _class(x) == kind]
            n = [x.name for x in same].index(layer.name)
        path += f"/members/{numbered(kind, n)}"
    return path


def _class(layer: Layer) -> str:
    """The class of our own layer, as Keras' files have it."""
    if isinstance(layer, Norm):
        return "group_norm" if layer.groups else "batch_norm"
    return "dense" if isinstance(layer, Linear) else f"conv{layer.dims}d"


def groups(library: Library, arch: Arch, own: bool) -> dict[str, str]:
    """{their layer: its group in a .weights.h5}. Functional models count each class in the order of their layers."""
    plan = make_plan(arch)
    if own:
        return {library.layer(layer.name, arch): own_group(plan, layer) for layer in plan.layers()}
    counts: dict[str, int] = {}
    found = {}
    for layer in functional_order(plan):
        kind = {Norm: "batch_normalization", Linear: "dense"}.get(type(layer), "conv2d")
        n = counts.get(kind, 0)
        counts[kind] = n + 1
        inside = library.nested if library.nested and arch.num_classes and kind != "dense" else ""
        found[library.layer(layer.name, arch)] = f"{inside}layers/{numbered(kind, n)}"
    return found


def functional_order(plan: Plan) -> Iterator[Layer]:
    """The layers in the order of a functional model's `layers`, which is by depth: a projection comes just before the
    branch's convolution that is as far from the sum."""
    yield from plan.stem.layers()
    for stage in plan.trunks[0].stages:
        for block in stage.blocks:
            branch = [layer for layer in block.layers() if ".downsample" not in layer.name]
            short = [layer for layer in (block.shortcut.conv, block.shortcut.norm) if layer]
            tail = len(short)  # one convolution, or that and a norm
            if short:
                for a, b in zip(short, branch[-tail:], strict=True):
                    branch[branch.index(b) : branch.index(b)] = [a]
            yield from branch
    yield from dict(plan.sections())["head"]


def paths(library: Library, arch: Arch, own: bool) -> dict[str, str]:
    """{their tensor: its path in a .weights.h5}."""
    where = groups(library, arch, own)
    found = {}
    for slot in library.slots(arch):
        layer, leaf = slot.theirs.split("/")
        kind = "norm" if leaf in KERAS_LEAVES["norm"].values() and leaf != "bias" else "kernel"
        found[slot.theirs] = f"{where[layer]}/vars/{list(KERAS_LEAVES[kind].values()).index(leaf)}"
    return found


# -- writing


def write_weights(
    file: Any, arrays: Mapping[str, np.ndarray], library: Library, arch: Arch, own: bool, metadata: Mapping[str, str]
) -> None:
    """A .weights.h5 as Keras 3 writes it, into a path or an open file."""
    import h5py

    places = paths(library, arch, own)
    with h5py.File(file, "w") as f:
        for name, array in arrays.items():
            dataset = f.create_dataset(places[name], data=array)
            dataset.parent.attrs["name"] = name.split("/")[0]
        if library.nested and arch.num_classes:
            # KerasHub compiles a classifier as it builds it, and then asks for its optimizer: as new
            state = f.create_group("optimizer/vars")
            state.attrs["name"] = "adam"
            state.create_dataset("0", data=np.array(0, np.int64))  # iterations
            state.create_dataset("1", data=np.array(5e-5, np.float32))  # its default rate
        for key, value in metadata.items():
            f.attrs[key] = value


def write_legacy(
    file: Any, arrays: Mapping[str, np.ndarray], library: Library, arch: Arch, metadata: Mapping[str, str]
) -> None:
    """An .h5 of weights in Keras' older layout, which names its layers, but is loaded by their order: what
    keras.applications downloads."""
    import h5py

    order = [library.layer(layer.name, arch) for layer in functional_order(make_plan(arch))]
    layers: dict[str, list[str]] = {layer: [] for layer in order}
    for name in arrays:
        layers[name.split("/")[0]].append(name)
    with h5py.File(file, "w") as f:
        for layer, names in layers.items():
            group = f.create_group(layer)
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in names]
            for name in names:
                group.create_dataset(f"{name}:0", data=arrays[name])
        f.attrs["layer_names"] = [layer.encode() for layer in layers]
        f.attrs["backend"] = b"tensorflow"
        f.attrs["keras_version"] = _version().encode()
        for key, value in metadata.items():
            f.attrs[key] = value


def write_own_archive(path: Path, arrays: Mapping[str, np.ndarray], library: Library, arch: Arch, dtype: str,
                      metadata: Mapping[str, str]) -> None:  # fmt: skip
    """A .keras of one of our own nets. Its configuration is the row, so no Keras is needed to write it."""
    weights = io.BytesIO()
    write_weights(weights, arrays, library, arch, True, metadata)
    config = {
        "module": "keras_impl.resnet", "class_name": "ResNet",
        "config": {"arch": arch.to_json(), "dtype": dtype, "name": "res_net", "trainable": True},
        "registered_name": "resnet_rosetta>ResNet", "compile_config": {},
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as z:
        for name, content in (
            ("metadata.json", json.dumps({"keras_version": _version()}).encode()),
            ("config.json", json.dumps(config).encode()),
            ("model.weights.h5", weights.getbuffer()),
        ):
            z.writestr(zipfile.ZipInfo(name), content)  # no date: the same weights are the same file


def _version() -> str:
    try:
        return importlib.metadata.version("keras")
    except importlib.metadata.PackageNotFoundError:
        return "3.9.0"
