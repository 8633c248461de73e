"""Canonical weights as a file of any library that is known here, in any container that its files have."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.arch import Arch, nearly
from common.checkpoints import keras_files
from common.checkpoints.containers import Container
from common.checkpoints.libraries import LIBRARIES
from common.checkpoints.libraries.library import TRANSFORMS, Library, Slot
from common.checkpoints.libraries.ours import OURS, OURS_KERAS
from common.checkpoints.libraries.transformers import transformers_config
from common.checkpoints.preprocessing import Preprocessing
from common.checkpoints.recognised import describe, differing
from common.checkpoints.shapes import row_of
from common.errors import RosettaError, hint
from common.names import parameters
from common.tools.frameworks import load, require
from common.weights import FORMAT, described, write_safetensors

SUFFIXES = {
    ".weights.h5": "weights.h5", ".safetensors": "safetensors", ".keras": "keras", ".h5": "h5",
    ".pt": "torch", ".pth": "torch", ".th": "torch", ".bin": "torch",
}  # fmt: skip
KERAS_KINDS = ("weights.h5", "keras", "h5")
FOLDERS = ("transformers", "keras-hub")  # whose models are folders


@dataclasses.dataclass(frozen=True)
class Target:
    """A file to be: whose names, in which container."""

    library: Library
    kind: str

    @property
    def own(self) -> bool:
        return self.library in (OURS, OURS_KERAS)

    @property
    def headed(self) -> bool:
        """Whether the target is a whole model, which says what follows its classifier."""
        return self.library.keras and not self.own and self.kind in ("keras", "folder")

    @property
    def needs(self) -> str:
        """What whoever loads it should know, in a sentence, or nothing."""
        if self.own and self.kind == "keras":
            return (
                "Keras loads it after `import keras_impl`, whose class it names; --as keras-hub or keras.applications, "
                "where they can hold the net, makes one that Keras loads by itself"
            )
        if self.kind == "h5" and self.library.name == "keras-hub":
            return "Keras loads it by load_weights(..., by_name=True); a .weights.h5 needs no such word"
        return ""

    @property
    def side(self) -> str | None:
        """The framework that such files are for; None is either."""
        return "keras" if self.library.keras else "torch" if self.kind == "torch" or not self.own else None


def target_of(path: Path, library: str | None, arch: Arch) -> Target:
    """What `path` is to be, by its suffix, in `library`'s names (by default our own).

    Raises RosettaError for an unknown suffix or library, or a library whose files can't be so or can't hold the row.
    """
    suffix = next((s for s in SUFFIXES if path.name.endswith(s) and path.name != s), None)
    kind = SUFFIXES[suffix] if suffix else "folder"
    keras = kind in KERAS_KINDS
    if library in (None, OURS.name):
        if suffix is None:
            known = ", ".join(dict.fromkeys(SUFFIXES))
            raise RosettaError(f"{path} has no suffix that is known: expected {known}; folders need --as {FOLDERS[0]}")
        if kind == "h5":
            raise RosettaError(
                f"{path.name}: our own nets are saved as .weights.h5 or .keras; .h5 is Keras' older layout"
            )
        return Target(OURS_KERAS if keras else OURS, kind)
    names = sorted({lib.name for lib in LIBRARIES})
    if library not in names:
        raise RosettaError(f"unknown library {library!r}{hint(library, names)}")
    reasons = []
    for lib in (lib for lib in LIBRARIES if lib.name == library):
        fits = keras == lib.keras if kind != "folder" else lib.name in FOLDERS
        if not fits:
            ends = ".weights.h5, .h5 or .keras" if lib.keras else ".safetensors, .pt, .pth, .th or .bin"
            raise RosettaError(
                f"can't write {path} with the names of {library}: its files end in {ends}"
                f"{', or are folders' if lib.name in FOLDERS else ''}, not {path.name}"
            )
        if reason := cannot_hold(lib, arch):
            reasons.append(reason)
        else:
            return Target(lib, kind)
    others = ", ".join(
        dict.fromkeys(b.name for b in LIBRARIES if keras and b.keras and kind != "folder" and not cannot_hold(b, arch))
    )
    raise RosettaError(
        f"{library} can't hold this net: {'; '.join(dict.fromkeys(reasons))}"
        + (f". For Keras without this package there is --as {others}" if others else "")
    )


def cannot_hold(library: Library, arch: Arch) -> str:
    """Why not, or nothing: a library holds a row if its names and shapes and conventions lead back to it."""
    if arch.folded:
        return "its nets have the norms that are folded here"
    if not library.builds(arch):
        return f"it has names for nets that are {' or '.join(', '.join(sorted(t)) for t in library.traits)}"
    try:
        library.slots(arch)  # which it may have no names for
        # what a library's own configuration says, no convention does
        said = {"config": transformers_config(arch, ())} if library.name == "transformers" else {}
        again, _ = row_of(parameters(arch), library, Container(Path(library.name), "", {}, said))
    except RosettaError as e:
        return str(e)
    # rates of training are in nobody's weights
    same = {field: getattr(arch, field) for field in ("drop_path", "dropout", *library.unseen)}
    again = dataclasses.replace(again, **same)
    if differ := differing(again, arch):
        return ", ".join(f"{f} = {getattr(arch, f)!r}, where its files mean {getattr(again, f)!r}" for f in differ)
    return "" if library.claims(arch) else f"it builds no such net: {describe(arch)}"


def stored(slots: list[Slot], weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{their name: array in their layout}: views."""
    return {s.theirs: TRANSFORMS[s.transform][1](weights[s.canonical]) for s in slots}


def write(
    path: Path, target: Target, arch: Arch, weights: Mapping[str, np.ndarray],
    preprocessing: Preprocessing | None = None, labels: tuple[str, ...] = (), head: str = "",
    source: str = "",
) -> None:  # fmt: skip
    """Writes the file, or the folder, at `path`, which is nobody's yet. `head` is the activation after the classifier,
    for targets that say it; `source` is where the weights came from, for our metadata."""
    if target.kind in KERAS_KINDS or target.headed:
        require(f"{path.name} is Keras', and writing it", ("h5py",), "keras")
    arrays = stored(target.library.slots(arch), weights)
    dtype = str(np.result_type(*arrays.values()))
    said = {"arch": arch.to_json()}
    said |= {"preprocessing": preprocessing.to_json()} if preprocessing else {}
    said |= {"labels": "\n".join(labels)} if labels else {}
    said |= {"source": source} if source else {}
    if not target.own:
        said["library"] = target.library.name
    ours = {FORMAT: described(said, arrays)}
    if target.kind == "safetensors":
        if target.own:
            write_safetensors(path, arrays, ours)
        else:
            write_safetensors(path, _with_counters(arrays), {"format": "pt", **ours})
    elif target.kind == "torch":
        _torch(path, arrays, target.library, json.loads(ours[FORMAT]))
    elif target.kind == "weights.h5":
        keras_files.write_weights(path, arrays, target.library, arch, target.own, ours)
    elif target.kind == "h5":
        keras_files.write_legacy(path, arrays, target.library, arch, ours)
    elif target.kind == "keras" and target.own:
        keras_files.write_own_archive(path, arrays, target.library, arch, dtype, ours)
    elif target.library.name == "transformers":
        path.mkdir()
        write_safetensors(path / "model.safetensors", _with_counters(arrays), {"format": "pt"})
        (path / "config.json").write_text(json.dumps(transformers_config(arch, labels), indent=2) + "\n")
        if preprocessing:
            (path / "preprocessor_config.json").write_text(json.dumps(_image_processor(preprocessing), indent=2) + "\n")
    else:  # it holds the functional model's own configuration, which only Keras has
        load("keras", "originals").save(path, target.library.name, nearly(arch), arch, arrays, head)


def _with_counters(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's norms count batches, and strict loading wants the counter."""
    found = {}
    for name, array in arrays.items():
        found[name] = array
        if name.endswith(".running_var"):
            found[name.replace("running_var", "num_batches_tracked")] = np.array(0, np.int64)
    return found


def _torch(path: Path, arrays: Mapping[str, np.ndarray], library: Library, said: dict[str, str]) -> None:
    require(f"{path.name} is PyTorch's own format, and writing it", ("torch",), "torch")
    from collections import OrderedDict

    import torch

    state = OrderedDict()
    for name, array in _with_counters(arrays).items():
        array = np.ascontiguousarray(array)
        state[library.module + name] = torch.from_numpy(array if array.flags.writeable else array.copy())
    state._metadata = OrderedDict(resnet_rosetta=said)  # type: ignore[attr-defined]
    held: Any = {library.wraps: state, "epoch": 0} if library.wraps else state
    try:
        torch.save(held, path)
    except RuntimeError as e:  # how PyTorch's writer reports a full disk
        raise RosettaError(f"can't write {path.name}: {str(e).strip().splitlines()[0]}; nothing was written") from None


def _image_processor(p: Preprocessing) -> dict[str, Any]:
    return {
        "image_processor_type": "ConvNextImageProcessor", "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": list(p.mean), "image_std": list(p.std), "rescale_factor": 1 / 255,
        "size": {"shortest_edge": p.size}, "crop_pct": p.size / p.resize,
        "resample": {"nearest": 0, "bilinear": 2, "bicubic": 3}[p.interpolation],
    }  # fmt: skip
