"""Heads that are not the classifier of the paper: what somebody who trained the net put behind its pooled features."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from common.arch import Arch, get
from common.checkpoints.containers import Container, Entry
from common.checkpoints.libraries.library import Library
from common.checkpoints.prefixes import CLASSIFIER, linear
from common.errors import RosettaError

_WITHIN = re.compile(r"pool|act|relu|gem|attn|alpha|gate|scale|pos_", re.I)  # what may be at work in the net itself


def with_head(held: Container, library: Library, arch: Arch, names: Mapping[str, str]) -> Container | None:
    """The container with the row's own tensors alone, where all others can be a head; `names` says which tensor is
    which. One linear layer behind the features is the classifier, whatever its name; a classifier without a bias gets
    zeros; another head is left out, and said. None where a tensor may be at work within the net, or nothing is left."""
    slash = "/" if library.keras else "."
    tops = {n.split(slash)[0] for n, ours in names.items() if not ours.startswith("fc.")}
    loose = {
        n: e for n, e in held.entries.items()
        if n not in names and not n.endswith("num_batches_tracked")
    }  # fmt: skip
    if any(why == "no tensor" and re.search(r"\.(weight|bias)$", n) for n, why in held.unused.items()):
        return None  # it should have been one
    if any(n.split(slash)[0] in tops or len(e.shape) > 2 or _WITHIN.search(n) for n, e in loose.items()):
        return None
    kept = {n: e for n, e in held.entries.items() if n not in loose}
    notes, unused = list(held.notes), dict(held.unused)
    weight = next((n for n, ours in names.items() if ours == "fc.weight"), "")
    if weight:
        bias = weight.removesuffix("weight").removesuffix("kernel") + "bias"
        if bias not in names:
            classes, kind = arch.num_classes, held.entries[weight].dtype
            kept[bias] = Entry((classes,), kind, lambda: np.zeros(classes, kind.replace("bfloat16", "float32")), "")
            notes.append(f"its classifier {where(held, weight)} has no bias: zeros are one")
        elif not loose:
            return None
    elif loose:
        widths = arch.widths[-1] * arch.expansion * len(arch.kernels)
        layer = linear(loose)
        matrix = next((n for n, e in loose.items() if len(e.shape) == 2), "")
        if layer and CLASSIFIER.fullmatch(layer.split(slash)[-1] if slash == "/" else layer):
            out, into = loose[matrix].shape[:: -1 if library.keras else 1]
            renamed = _as_classifier(library, arch, out, loose) if into == widths else {}
            if renamed:
                kept |= renamed
                notes.append(f"{layer}, one linear layer behind the features, is taken for the classifier")
                loose = {}
    else:
        return None
    if loose:
        layers = [f"{n} {' x '.join(map(str, e.shape))}" for n, e in loose.items() if len(e.shape) == 2]
        what = f"its head was of its own: {', '.join(layers[:4]) or ', '.join(list(loose)[:4])}"
        after = "the net has its classifier besides" if weight else "the net gives its pooled features"
        notes.append(f"{what}; that is left out, and {after}")
        unused |= {where(held, n): "of a head that no row has" for n in loose}
    return dataclasses.replace(held, entries=kept, notes=notes, unused=unused)


def where(held: Container, name: str) -> str:
    return held.entries[name].where or name


def _as_classifier(library: Library, arch: Arch, classes: int, layer: Mapping[str, Entry]) -> dict[str, Entry]:
    """A linear layer's arrays under the names that the library has for its classifier; none where it has no names."""
    try:
        own = library.layer("fc", get(arch, num_classes=classes))
    except RosettaError:
        return {}
    found = {}
    for name, entry in layer.items():
        leaf = name[max(name.rfind("."), name.rfind("/")) :]
        found[own + leaf] = dataclasses.replace(entry, where=entry.where or name)
    return found
