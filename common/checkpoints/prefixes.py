"""Under which prefix of its names a file holds a whole net, and what lies beside that: DataParallel, torch.compile,
trainers, detectors and checkpoints in checkpoints all put something before the names."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from common.checkpoints.containers import Container, Entry
from common.checkpoints.libraries.library import Library
from common.errors import RosettaError, nearest

# what a linear layer behind the pooled features is called
CLASSIFIER = re.compile(r"(\w+\.)?(fc|classifier|(last_)?linear|(cls_)?head|output|dense|predictions)([._]?\w+)?|\d+")
BATCHES = "a counter of batches, which nothing reads"
# of two nets in a file, the one that is meant where nobody says: the trained before its slower copy, and what the
# paper evaluates
MEANT = (
    ("encoder_q", "encoder_k"), ("base_encoder", "momentum_encoder"), ("online_encoder", "target_encoder"),
    ("backbone", "backbone_momentum"), ("teacher", "student"),
)  # fmt: skip
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "state_dict_ema")


def places(names: Iterable[str], libraries: Sequence[Library]) -> list[str]:
    """The prefixes behind which there are the stem and the first block as one of the libraries names them, the
    shortest first."""
    there, found = set(names), set()
    for library in libraries:
        stems = library.spelt("conv1", "conv1.0")
        firsts = tuple(library.spelt("layer1.0.conv1"))
        for name in there:
            if name.endswith(firsts):
                for first in firsts:
                    before = name.removesuffix(first)
                    if before != name and before[-1:] in ("", ".", "/") and any(before + s in there for s in stems):
                        found.add(before)
    return sorted(found, key=lambda place: (len(place), place))


def under(held: Container, place: str, others: Sequence[str]) -> Container:
    """The container of what is behind a prefix. What is beside it goes to `unused`, with a reason; but a linear layer,
    if nothing else is there, stays: it may be the classifier."""
    if not place:
        return held
    inside = {n[len(place) :]: _at(e, n) for n, e in held.entries.items() if n.startswith(place)}
    outside = {n: e for n, e in held.entries.items() if not n.startswith(place)}
    alone = CLASSIFIER.fullmatch(linear({e.where or n: e for n, e in outside.items()}))
    head = {e.where or n: _at(e, n) for n, e in outside.items() if alone}
    unused = dict(held.unused)
    for name, entry in outside.items():
        if other := next((o for o in others if o and name.startswith(o) and not place.startswith(o)), ""):
            unused[other] = f"another net, or a copy of it: --prefix {other} takes it"
        elif name.endswith("num_batches_tracked"):
            unused[entry.where or name] = BATCHES
        elif not alone:
            unused[entry.where or name] = f"not one of those under {place!r}"
    notes = [*held.notes, f"names begin with {place!r}, which is left out"]
    return dataclasses.replace(held, entries=inside | head, unused=unused, notes=notes)


def _at(entry: Entry, name: str) -> Entry:
    return dataclasses.replace(entry, where=entry.where or name)


def linear(entries: Mapping[str, Entry]) -> str:
    """The layer that these are, if they are one linear layer's weight, with or without a bias; else nothing."""
    layers = {re.split(r"[./](?=[^./]*$)", n)[0] for n in entries}
    axes = sorted(len(e.shape) for e in entries.values())
    return layers.pop() if len(layers) == 1 and axes in ([2], [1, 2]) else ""


def chosen(held: Container, nets: Mapping[str, str]) -> str:
    """The prefix that is meant of {prefix: its net's stem in the file}; of those with one stem, the first.

    Raises RosettaError where there are several nets, and nothing tells which.
    """
    by_stem: dict[str, str] = {}
    for place, stem in nets.items():
        by_stem.setdefault(stem, place)
    left = sorted(by_stem.values())
    for place in list(left):
        parts = place.split(".")
        for meant, other in MEANT:
            if place in left and other in parts and any(meant in p.split(".") for p in left):
                left.remove(place)
    first = [p for w in WRAPPERS for p in left if p.split(".")[0] == w]
    tops = {p.split(".")[0] for p in left}
    if len(left) > 1 and len(tops) == len(left) and first:  # of several dictionaries the one with the usual name
        left = first[:1]
    if len(left) > 1:
        under = [place.rstrip("./") or "no prefix" for place in left]
        raise RosettaError(
            f"{held.path} holds several sets of weights, each a net: under {', '.join(under[:8])}. Say which one is "
            f"meant, such as --prefix {under[-1]}"
        )
    return left[0]


def asked(held: Container, prefix: str) -> str:
    """The prefix as the file has it: with the dot that follows. Raises RosettaError where no name begins so."""
    for place in (prefix, f"{prefix}.", f"{prefix}/"):
        if not place or (place[-1] in "./" and any(name.startswith(place) for name in held.entries)):
            return place
    steps = [re.split(r"(?<=[./])", name)[:-1] for name in held.entries]
    known = sorted({"".join(parts[: i + 1]) for parts in steps for i in range(min(3, len(parts)))})
    hint = nearest(prefix, known) or f"; they begin with {', '.join(known[:8])}"
    raise RosettaError(f"{held.path} has no names that begin with {prefix!r}{hint}")
