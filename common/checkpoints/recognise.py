"""Whose a checkpoint is and which net it holds: from the names and shapes of its arrays, and what else it says."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from common.arch import VARIANTS, Arch, get
from common.checkpoints import claims, keras_files
from common.checkpoints.containers import Container, Entry
from common.checkpoints.heads import with_head
from common.checkpoints.libraries import LIBRARIES
from common.checkpoints.libraries.detectron2 import from_caffe
from common.checkpoints.libraries.library import KERAS_LEAVES, Library, Slot, canonical_shape
from common.checkpoints.libraries.ours import OURS, OURS_KERAS
from common.checkpoints.libraries.torchvision import TORCHVISION
from common.checkpoints.libraries.transformers import of_backbone
from common.checkpoints.pictures import preprocessing_of
from common.checkpoints.prefixes import BATCHES, asked, chosen, places, under
from common.checkpoints.recognised import Recognised, describe, differing, gap
from common.checkpoints.shapes import row_of
from common.errors import RosettaError, hint, printable
from common.names import parameters
from common.plan import make_plan
from common.weights import TRAINING, differences

STATE = "what the training needs to go on"


def recognise(
    held: Container, *, library: str | None = None, arch: Arch | None = None,
    overrides: Mapping[str, Any] | None = None, prefix: str | None = None,
) -> Recognised:  # fmt: skip
    """Understands a container. `library` is asked alone; `arch` must be what the file holds; `overrides` are fields of
    the row that no shape tells; `prefix` is what the names of the net's tensors begin with, where several nets do.

    Raises RosettaError where no library has such names, or no row such shapes, or one of the three contradicts the
    file: with what was recognised and what broke it.
    """
    if library is not None and library not in (known := sorted({lib.name for lib in (OURS, *LIBRARIES)})):
        raise RosettaError(f"unknown library {library!r}{hint(library, known)}")
    if not _weights_of(held):
        raise RosettaError(f"{held.path} holds no weights")
    if isinstance(config := held.metadata.get("config"), dict):
        held = dataclasses.replace(held, metadata={**held.metadata, "config": of_backbone(config)})
    said = held.metadata.get("arch")
    if said is not None:
        found = _as_said(held, library, prefix)
    else:
        found = _anywhere(held, library, arch, prefix, overrides or {})
    held = found.held
    if arch is not None:  # a variant's name says nothing of classes and channels
        arch = get(arch, num_classes=found.arch.num_classes, in_channels=found.arch.in_channels)
    if arch is not None and found.arch != arch and (said is not None or parameters(arch) != parameters(found.arch)):
        raise RosettaError(f"{held.path} is another net than the one that was named: {gap(found.arch, arch)}")
    if arch is not None and found.arch != arch:  # fields that no shape tells, as the variant has them
        found = _found(held, found.library, arch, found.slots, dict.fromkeys(differing(found.arch, arch), "named"))
    if overrides:
        if said is not None and any(getattr(found.arch, k, None) != v for k, v in overrides.items()):
            raise RosettaError(f"{held.path} says what it is: --set can't change it to {dict(overrides)}")
        changed = get(found.arch, **overrides)
        if parameters(changed) != parameters(found.arch):
            raise RosettaError(f"--set contradicts {held.path}: {gap(found.arch, changed)}")
        found.arch = changed
        found.told |= {field: "set" for field in overrides}
    found.claim = claims.check(held, found.library, found.arch)
    if found.claim:
        found.told = {}
    elif said is None:
        found.told["the rest"] = claims.SILENT
    if before := claims.keras_before(held) if found.library.keras else []:
        found.notes.append(f"before its net it has {', '.join(before[:4])}: images come to the net from there")
    if found.library.keras and found.arch.num_classes:
        found.head = claims.keras_head(held)
        if found.head:
            found.notes.append(
                f"it ends in {found.head}; nets here end in logits, and leave that to whoever reads them"
            )
        elif found.library.name == "keras.applications" and not found.claim:
            found.notes.append("keras.applications' nets end in softmax unless told otherwise; nets here end in logits")
    return found


def _as_said(held: Container, library: str | None, prefix: str | None) -> Recognised:
    """A file that names its row."""
    known = places(_weights_of(held), [lib for lib in (OURS, *LIBRARIES) if not lib.keras])
    place = asked(held, prefix) if prefix is not None else "" if "" in known or not known else known[0]
    held = under(held, place, ())
    entries = _weights_of(held)
    row = _row(held, str(held.metadata["arch"]))
    named = str(held.metadata.get("library", OURS.name))
    ours = OURS_KERAS if any("/" in name for name in entries) else OURS
    for lib in [lib for lib in (ours, *LIBRARIES) if lib.name == (library or named)]:
        slots = _slots(lib, row)
        if slots and {s.theirs for s in slots} == set(entries):
            return _found(held, lib, row, slots, {})
    return _found(held, ours, row, _slots(ours, row) or [], {})


# convolutions behind the ResNet of a segmentation net: torchvision's; those of others' DeepLabs and PSPNets
_TORCHVISIONS = re.compile(r"(^|\.)classifier\.(0|4|0\.convs\..*)\.weight$")
_SEGMENTS = re.compile(rf"{_TORCHVISIONS.pattern}|(^|\.)decoder\.(aspp\.)?0\.convs\.|(aspp|psp)_modules|\.(aspp|psp)\.")


def _anywhere(
    held: Container, library: str | None, arch: Arch | None, prefix: str | None, overrides: Mapping[str, Any]
) -> Recognised:
    """A file of names and shapes: the net under the longest prefix that has a whole one."""
    if clip := next((name for name in held.entries if "attnpool.positional_embedding" in name), ""):
        raise RosettaError(
            f"{held.path} is CLIP's ResNet ({clip}): its stem and shortcuts pool by the average and its head is "
            "attention, which no row here says; it is not the plain ResNet that its names resemble"
        )
    if needs := claims.timm_needs(held):
        name = held.metadata["config"]["architecture"]
        raise RosettaError(f"{held.path} is timm's {name}, which needs {needs}: no row says that")
    dilated = next((n for n, e in held.entries.items() if len(e.shape) == 4 and _SEGMENTS.search(n)), "")
    told = "output_stride" in overrides or claims.says_all(held)
    if dilated and not _TORCHVISIONS.search(dilated) and not told:
        raise RosettaError(
            f"{held.path} is a segmentation net ({dilated}): the last stages of its ResNet dilate and don't stride, "
            "and no tensor tells how many. --set output_stride=8 says two of them, =16 one, =0 none"
        )
    held = from_caffe(held)
    known = places(_weights_of(held), [lib for lib in LIBRARIES if library in (None, lib.name)])
    asks = known if prefix is None else [asked(held, prefix)]
    found: dict[str, Recognised] = {}
    wrong: dict[str, RosettaError] = {}
    for place in asks or [""]:
        if any((p + net.slots[0].theirs).startswith(place) for p, net in found.items()):
            continue  # the same net without its classifier
        try:
            found[place] = _by_names(under(held, place, known), library, arch)
        except RosettaError as e:
            wrong[place] = e
    if not found:
        raise wrong[max(wrong, key=lambda place: sum(name.startswith(place) for name in held.entries))]
    most = sorted(found, key=lambda place: (-len(found[place].slots), -len(place)))
    net = found[chosen(held, {place: place + found[place].slots[0].theirs for place in most})]
    if dilated and _TORCHVISIONS.search(dilated):
        net.arch = get(net.arch, output_stride=8)
        net.told["output_stride"] = "8: torchvision's FCN and DeepLab dilate their last two stages"
    return net


def _weights_of(held: Container) -> dict[str, Entry]:
    """The arrays but for PyTorch's counters and what a training of ours keeps."""
    return {
        name: entry for name, entry in held.entries.items()
        if not name.endswith("num_batches_tracked") and not name.startswith(TRAINING)
    }  # fmt: skip


def _row(held: Container, text: str) -> Arch:
    try:
        row = Arch.from_json(text)
        if row.convolutions <= (tensors := len(_weights_of(held))):  # else not worth working out
            make_plan(row)
            return row
    except RosettaError as e:
        raise RosettaError(f"{held.path} names a net that can't be: {e}") from None
    raise RosettaError(f"{held.path} names a net of {row.convolutions:,} convolutions, and holds {tensors:,} tensors")


def _slots(library: Library, arch: Arch) -> list[Slot] | None:
    try:
        return library.slots(arch)
    except RosettaError:
        return None


def _found(held: Container, library: Library, arch: Arch, slots: list[Slot], told: dict[str, str]) -> Recognised:
    """Checks the file's tensors against the slots, and gathers the rest."""
    there = {n: (e.shape, "float32" if e.dtype == "bfloat16" else e.dtype) for n, e in _weights_of(held).items()}
    if rows := differences({s.theirs: s.shape for s in slots}, there):
        raise RosettaError(
            f"{held.path} was recognised as {describe(arch)}, with the names of {library.name}, but its tensors are "
            f"not that net's: {rows}"
        )
    try:
        preprocessing, labels = preprocessing_of(held, library, arch)
    except RosettaError as e:
        raise RosettaError(f"{held.path}: {e}") from None
    left = {n: STATE if n.startswith(TRAINING) else BATCHES for n in held.entries if n not in there}
    unused = {printable(name): printable(why) for name, why in (held.unused | left).items()}
    labels, notes = tuple(map(printable, labels)), list(map(printable, held.notes))
    source = printable(str(held.metadata.get("source", "")))
    made = Recognised(held, library, arch, slots, unused, told, preprocessing, labels, notes=notes, source=source)
    if "," in made.dtype:
        made.notes.append(
            f"its tensors are of {made.dtype}: load() makes all {made.read_as}, port leaves each as it is"
        )
    return made


def _by_names(held: Container, library: str | None, arch: Arch | None) -> Recognised:
    entries = _weights_of(held)

    def row(lib: Library, names: Mapping[str, tuple[str, str]]) -> tuple[Arch, dict[str, str]]:
        return row_of({c: canonical_shape(entries[t].shape, how) for t, (c, how) in names.items()}, lib, held)

    best: tuple[int, Library, dict[str, tuple[str, str]]] | None = None
    if held.ordered:
        return _by_order(held, entries, library, arch)
    timm = library is None and claims.timm_claim(held) is not None  # most of whose nets have torchvision's names
    if (named := arch or claims.timm_row(held)) is not None:
        for lib in (*LIBRARIES, OURS, OURS_KERAS):
            if library not in (None, lib.name) or (timm and lib is TORCHVISION):
                continue
            slots = _slots(lib, named)
            if slots and {s.theirs: s.shape for s in slots} == {n: e.shape for n, e in entries.items()}:
                return _found(held, lib, named, slots, {"arch": "named"})
    for lib in (*LIBRARIES, OURS_KERAS, OURS):
        if library not in (None, lib.name) or (timm and lib is TORCHVISION):
            continue
        for traits in lib.traits if lib.traits != (frozenset(),) else (_traits(entries),):
            names = _canonical_names(lib, entries, traits)
            left = len(entries) - len(names)
            if len(set(c for c, _ in names.values())) < len(names):
                continue
            if best is None or left < best[0]:
                best = (left, lib, names)
            if not left:
                try:
                    found, told = row(lib, names)
                except RosettaError:
                    continue
                slots = _slots(lib, found)
                if (timm or lib.claims(found)) and slots and {s.theirs for s in slots} == set(entries):
                    return _found(held, lib, found, slots, told)
    if best is None or best[0] > len(entries) // 2:
        some = ", ".join(list(entries)[:5])
        raise RosettaError(
            f"{held.path} has names that no library here gives a ResNet: {some}, ... ({len(entries)} arrays)"
        )
    _, lib, names = best
    found, told = row(lib, names)
    if (headed := with_head(held, lib, found, {t: c for t, (c, _) in names.items()})) is not None:
        return _by_names(headed, lib.name, arch)
    try:
        slots = lib.slots(found)
    except RosettaError as e:
        raise RosettaError(f"{held.path} looks like {describe(found)}, but {e}") from None
    return _found(held, lib, found, slots, told)


def _traits(entries: Mapping[str, Any]) -> frozenset[str]:
    """What the canonical names would tell: rules that ask for more than that say so in their library's traits."""
    deep = any(name.startswith(("conv1.0.", "conv1_0/")) for name in entries)
    pre = any(re.match(r"norm[._/]|norm_k", name) for name in entries)
    head = any(name.startswith("fc") for name in entries)
    return frozenset({"deep" if deep else "single", "preact" if pre else "postact", "headed" if head else "bare"})


def _canonical_names(lib: Library, entries: Mapping[str, Any], traits: frozenset[str]) -> dict[str, tuple[str, str]]:
    """{their tensor: (canonical tensor, transform)} of the entries that the rules know."""
    separator = "/" if lib.keras else "."
    split = {name: name.rpartition(separator)[::2] for name in entries}
    layers = lib.layers((layer for layer, _ in split.values()), traits)
    back = {theirs: ours for kind in KERAS_LEAVES.values() for ours, theirs in kind.items()}
    found = {}
    for name, (layer, leaf) in split.items():
        ours = (
            back.get(leaf) if lib.keras else leaf if leaf in ("weight", "bias", "running_mean", "running_var") else None
        )
        if layer not in layers or ours is None:
            continue
        transform, axes = "", len(entries[name].shape)
        if lib.keras and leaf == "kernel":
            transform = "IO to OI" if axes == 2 else "HWIO to OIHW"
        elif lib.linear and layers[layer] == "fc" and ours == "weight" and axes == 4:
            transform = lib.linear
        if transform and axes < 2:
            continue
        found[name] = (f"{layers[layer]}.{ours}", transform)
    return found


# -- files that keep no names


def _by_order(held: Container, entries: Mapping[str, Any], library: str | None, arch: Arch | None) -> Recognised:
    """An older Keras file has class and position for a name. So every row that a library saves is laid out as
    Keras would, and one whose every shape is the file's is taken."""
    shapes = {name: entry.shape for name, entry in entries.items()}
    fits = []
    for lib in (lib for lib in LIBRARIES if lib.keras and library in (None, lib.name)):
        for row in (arch,) if arch else VARIANTS.values():
            if not lib.builds(row) or not lib.claims(row):
                continue
            kernels = [s for n, s in shapes.items() if len(s) == 2 and n.endswith("vars/0")]
            stem = next((s for s in shapes.values() if len(s) == 4), (7, 7, 3, 64))
            row = get(row, num_classes=kernels[0][1] if kernels else 0, in_channels=stem[2])
            if not (named := _slots(lib, row)):
                continue
            at = keras_files.paths(lib, row, own=False)
            slots = [dataclasses.replace(s, theirs=at[s.theirs]) for s in named]
            if {s.theirs: s.shape for s in slots} == shapes:
                fits.append((lib, row, slots))
    if not fits:
        raise RosettaError(
            f"{held.path} keeps no names, only classes and positions, and no net of keras.applications or KerasHub has "
            "its shapes in that order"
        )
    lib, row, slots = fits[0]
    _, told = row_of(parameters(row), lib, held)
    found = _found(held, lib, row, slots, told)
    found.notes.append("the file keeps no names: matched by class and position, with every shape checked")
    return found
