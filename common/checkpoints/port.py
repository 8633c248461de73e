"""Checkpoints in and out: every file is a spoke of the canonical weights, nothing goes from one library to another."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common import weights as canonical
from common.arch import Arch, get, name_of
from common.checkpoints import files, hubs, torch_files, writers
from common.checkpoints.libraries.library import TRANSFORMS
from common.checkpoints.recognise import recognise
from common.checkpoints.recognised import Recognised
from common.errors import RosettaError
from common.fold import fold as fold_weights
from common.fold import kept as not_folded
from common.fold import unfolded
from common.init import classifier
from common.names import count, parameters
from common.plan import foldable, make_plan
from common.tools.files import atomic
from common.tools.frameworks import load
from common.weights import Weights


class NotTheSame(RosettaError):
    """What was written doesn't compute what the source computes."""


@dataclass(frozen=True)
class Row:
    """One tensor on its way: its names in the source, here and in the target."""

    source: str
    canonical: str
    target: str
    shape: tuple[int, ...]  # in the source
    transform: str  # in words; empty where nothing moves


@dataclass
class Ported:
    """What `port` found and wrote."""

    source: Recognised
    arch: Arch  # of what was written
    target: writers.Target
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    dtype: str = ""
    probes: list[tuple[str, float, float | None]] = field(default_factory=list)  # of what, difference, noise floor

    @property
    def name(self) -> str:
        return name_of(self.arch) or self.source.name

    @property
    def tensors(self) -> int:
        return len(parameters(self.arch))

    @property
    def parameters(self) -> int:
        return count(parameters(self.arch))

    def to_json(self) -> dict[str, Any]:
        """What `rosetta port --json` prints."""
        return {
            "source": self.source.to_json(), "name": self.name, "arch": dataclasses.asdict(self.arch),
            "library": self.target.library.name, "dtype": self.dtype, "notes": self.notes,
            "rows": [dataclasses.asdict(r) for r in self.rows],
            "probes": [{"of": what, "relative": apart, "floor": floor} for what, apart, floor in self.probes],
        }  # fmt: skip


def inspect(
    path: str | os.PathLike, *, library: str | None = None, arch: Arch | None = None,
    overrides: Mapping[str, Any] | None = None, prefix: str | None = None,
) -> Recognised:  # fmt: skip
    """What a checkpoint is: whose names, which row, what couldn't be told from shapes, where each tensor is.

    No weights are read. Raises RosettaError for a file that is damaged, unknown, or another net than
    `arch` or `overrides` say.
    """
    return recognise(files.read(path), library=library, arch=arch, overrides=overrides, prefix=prefix)


def named(source: str | os.PathLike, overrides: Mapping[str, Any] | None = None) -> tuple[Arch, Weights | None]:
    """The row and the weights that `source` names: any checkpoint, or a variant, which has no weights.

    `overrides` replace fields of the row. Raises RosettaError for an unknown name or a bad file.
    """
    text = str(source)
    looks = hubs.named(text) or os.sep in text or text.endswith((*writers.SUFFIXES, *torch_files.SUFFIXES))
    if not looks and not os.path.isdir(text):
        return get(text, **(overrides or {})), None
    found = inspect(source, overrides=overrides)
    return found.arch, found.weights()


def port(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    to: str | None = None,
    library: str | None = None,
    arch: Arch | None = None,
    overrides: Mapping[str, Any] | None = None,
    prefix: str | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    fold: bool = False,
    seed: int = 0,
    dry_run: bool = False,
    probe: bool | None = None,
    verify_with_source: bool = False,
    keep: bool = False,
    force: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Ported:
    """Converts the checkpoint `source` to `target`, whose suffix says its container and `to` whose names (our own).

    `library`, `arch`, `overrides` and `prefix` are what the source is, where it can't tell. `num_classes` gives the
    net a fresh classifier drawn from `seed`, or none with 0; `in_channels` 1 sums the kernels of the stem. `fold` puts
    the norms into the convolutions before them (common/fold.py), for inference. The target is written
    whole or not at all: first it is read back, and every tensor compared bit by bit. `probe` (by default where the
    two sides are for different frameworks) then runs an image through both implementations, and `verify_with_source`
    through the library that the source is from. A file that is there already is replaced only with `force`, and the
    source itself never.

    Raises RosettaError for a bad source or target, and NotTheSame, the target not written unless `keep`, where the
    outputs differ by more than rounding.
    """
    path = Path(target)
    spare(Path(source), path, force)
    progress(f"reading {Path(source).name}")
    found = inspect(source, library=library, arch=arch, overrides=overrides, prefix=prefix)
    new = _edited(found.arch, num_classes, in_channels, fold)
    place = writers.target_of(path, to, new)
    slots = {s.canonical: s for s in place.library.slots(new)}
    theirs = {s.canonical: s for s in found.slots}
    own_path = {}
    if place.kind == "weights.h5":
        from common.checkpoints import keras_files

        own_path = keras_files.paths(place.library, new, place.own)
    # of a convolution that takes up a norm, the norm; its bias is the norm's
    takes = {c.name: n.name for c, n in foldable(make_plan(found.arch))} if new.folded else {}
    rows = []
    for name, slot in slots.items():
        layer, leaf = name.rsplit(".", 1)
        origin = theirs.get(name) or theirs.get(f"{takes.get(layer)}.{leaf}")
        moves = _moves(origin.transform if origin else "fresh", slot.transform)
        rows.append(
            Row(
                found.where(origin) if origin else "", name,
                (place.library.module if place.kind == "torch" else "") + own_path.get(slot.theirs, slot.theirs),
                origin.shape if origin else slot.shape,
                ", ".join(filter(None, [moves, f"{takes[layer]} folded in" if layer in takes else ""])),
            )
        )  # fmt: skip
    done = Ported(found, new, place, rows)
    if dry_run:
        return done
    if path.parent != Path() and not path.parent.is_dir():
        raise RosettaError(f"can't write {path}: {path.parent} is no folder")
    weights = found.weights()
    done.dtype = str(np.result_type(*weights.values()))
    before, (weights, done.notes) = weights, edited(found.arch, new, weights, seed)
    labels = found.labels if new.num_classes == found.arch.num_classes else ()
    preprocessing = found.preprocessing if new.in_channels == found.arch.in_channels else None

    folder = place.kind == "folder"
    with atomic(path, sum(w.nbytes for w in weights.values()), folder=folder) as temporary:
        progress(f"writing {path.name}")
        head = found.head if new.num_classes else ""
        writers.write(temporary, place, new, weights, preprocessing, labels, head, found.source)
        if place.headed and (head or (new.num_classes and place.library.name == "keras.applications")):
            done.notes.append(f"{path.name} ends in {head or 'logits, where its library has softmax by default'}")
        if place.needs:
            done.notes.append(f"{path.name}: {place.needs}")
        progress(f"reading {path.name} back")
        _read_back(temporary, path, place, new, weights)
        crosses = {_side(found), place.side} >= {"torch", "keras"}
        failed = ""
        if missing := _missing("torch", "keras") if probe or (probe is None and crosses) else "":
            said = f"both frameworks can't be asked whether they agree: {missing} is not installed"
            if probe:
                raise RosettaError(said)
            done.notes.append(said)
        elif probe or (probe is None and crosses):
            progress("a probe through both frameworks")
            failed = _probe(done, weights)
        if fold and probe is not False:
            side = next((f for f in ("torch", "keras") if not _missing(f)), "")
            if side:
                progress("a probe through the net with its norms")
                failed = (
                    _probe_folded(done, side, edited(found.arch, unfolded(new), before, seed)[0], weights) or failed
                )
            else:
                done.notes.append("the folded net can't be held against the other: no framework is installed")
        if verify_with_source:
            progress(f"the probe through {found.library.name}")
            failed = _with_source(done, found, new, weights) or failed
        if failed and not keep:
            raise NotTheSame(f"{failed}; {path} is not kept (--keep keeps it)")
    if failed:
        raise NotTheSame(f"{failed}; {path} is kept, as you asked")
    return done


def spare(source: Path, target: Path, force: bool) -> None:
    """Raises RosettaError where writing the target would cost the source, or a file that nobody gave up."""
    if not os.path.lexists(target):
        return
    if target.exists() and source.exists():
        here, there = source.resolve(), target.resolve()
        if source.samefile(target) or there in here.parents or here in there.parents:
            raise RosettaError(
                f"can't write {target}: it is {source} itself or a part of it, whose training state and whatever else "
                "isn't the net's would be lost. Give the target another name"
            )
    if not target.is_dir() and not force:
        raise RosettaError(f"can't write {target}: it is there already; --force replaces it")


def _side(found: Recognised) -> str | None:
    if found.library.keras:
        return "keras"
    return "torch" if found.held.kind.startswith("PyTorch") or found.library.name != "resnet-rosetta" else None


def _missing(*frameworks: str) -> str:
    """What these frameworks need and isn't installed, in words; or nothing."""
    import importlib.util

    packages = {"torch": ("torch",), "keras": ("keras", "tensorflow")}
    return " and ".join(p for f in frameworks for p in packages[f] if importlib.util.find_spec(p) is None)


def _moves(out: str, into: str) -> str:
    if out == "fresh":
        return "fresh"
    steps = [out] if out else []
    if into:
        steps.append(" to ".join(reversed(into.split(" to "))))
    return "" if len(steps) == 2 and out == into else ", ".join(steps)


def _edited(arch: Arch, num_classes: int | None, in_channels: int | None, fold: bool) -> Arch:
    """The row with another head or stem."""
    if in_channels not in (None, arch.in_channels) and in_channels != 1:
        raise RosettaError(
            f"--in-channels {in_channels} can't be: the stem's kernels can be summed to 1 channel, or left at "
            f"{arch.in_channels}"
        )
    changes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if in_channels is not None:
        changes["in_channels"] = in_channels
    if fold:
        changes["folded"] = True
    return get(arch, **changes)


def edited(old: Arch, new: Arch, weights: Weights, seed: int) -> tuple[Weights, list[str]]:
    """The weights of the edited row, and what was done to them, in words. A fresh classifier is drawn from `seed`."""
    notes: list[str] = []
    if new == old:
        return weights, notes
    dtype = np.result_type(*weights.values())
    if new.folded and not old.folded:
        weights = {name: w.astype(dtype) for name, w in fold_weights(old, weights).items()}
        stay = not_folded(old)
        notes.append(
            f"{len(list(foldable(make_plan(old))))} norms folded into the convolutions before them"
            + (f"; {len(stay)} stay, since others read what they normalise: {', '.join(stay[:3])}" if stay else "")
            + (", ..." if len(stay) > 3 else "")
        )
    wanted = parameters(new)
    weights = {name: w for name, w in weights.items() if name in wanted or name.startswith("fc.")}
    if new.num_classes != old.num_classes:
        for leaf in ("fc.weight", "fc.bias"):
            weights.pop(leaf, None)
        if new.num_classes:
            weights |= {name: draw().astype(dtype) for name, draw in classifier(new, seed).items()}
            notes.append(f"a fresh classifier of {new.num_classes} classes, drawn from seed {seed}")
        else:
            notes.append("no classifier: the net gives its pooled features")
    if new.in_channels != old.in_channels:
        stem = next(iter(wanted))
        weights[stem] = weights[stem].sum(1, keepdims=True, dtype=weights[stem].dtype)
        notes.append(f"{stem}: the kernels of {old.in_channels} channels summed to one, for grey images")
    return {name: weights[name] for name in wanted}, notes


def _read_back(temporary: Path, path: Path, place: writers.Target, arch: Arch, weights: Weights) -> None:
    """Raises RosettaError unless the file is recognised as the row, and holds just these weights, bit for bit."""
    again = recognise(files.read(temporary), library=place.library.name, arch=arch)
    for slot in again.slots:
        value = TRANSFORMS[slot.transform][0](again.held.entries[slot.theirs].read())
        if not canonical.same(value, weights[slot.canonical]):
            raise RosettaError(f"{path} reads back otherwise than written, at {slot.canonical}; it is not kept")


def _probe(done: Ported, weights: Weights) -> str:
    """One image through both frameworks; what is wrong, or nothing."""
    from common import parity
    from common.parity import backends

    x = probe_image(done.arch)
    with backends.started(["torch", "keras:tensorflow"]) as running:
        result = parity.compare(done.arch, x, weights, backends=running, checks=("forward",))
    for dtype in result.dtypes:
        rows = result.rows["keras:tensorflow", dtype]
        logits = next(d for d in rows if d.part == "logits")
        done.probes.append((f"Keras against PyTorch, {dtype}", logits.relative, logits.floor))
    over = [d for d in result.dtypes if result.first_over("keras:tensorflow", d)]
    return "; ".join(f"{d}: {result.why('keras:tensorflow', d)}" for d in over)


def _probe_folded(done: Ported, side: str, before: Weights, weights: Weights) -> str:
    """One image through the net with norms and without, in float64; what is wrong, or nothing."""
    from common.parity.difference import LOGITS, TOLERANCE, difference

    x, impl = probe_image(done.arch), load(side)
    a, b = (
        load(side, "trace").trace(impl.create_model(arch, dtype="float64", weights=w), x)
        for arch, w in ((unfolded(done.arch), before), (done.arch, weights))
    )
    apart = difference("forward", "logits", "logits", a, b).relative
    done.probes.append((f"folded against the net with its norms, {side} in float64", apart, None))
    # what is written is rounded to its dtype, and float16 by 2000 times as much as float32
    allowed = {"float64": TOLERANCE["forward"], "float32": LOGITS["float32"]}.get(done.dtype, 2e-2)
    return "" if apart <= allowed else f"folding moves the logits by {apart:.1e}, where {allowed:.0e} is rounding"


def _with_source(done: Ported, found: Recognised, new: Arch, weights: Weights) -> str:
    """The probe through the library that the source is from, in float64, against our own net of that framework."""
    if new != found.arch:
        raise RosettaError(
            "--verify-with-source is for a net that stays as it is: the source has another head or stem, or norms"
        )
    from common.parity.difference import difference

    side = "keras" if found.library.keras else "torch"
    x = probe_image(found.arch)
    theirs = load(side, "originals").logits(found, x)
    ours = load(side, "trace").trace(load(side).create_model(new, dtype="float64", weights=weights), x)
    apart = difference("forward", "logits", "logits", theirs, ours).relative
    built = found.claim or f"its own net of the recognised name {found.name}, since the file says nothing"
    done.probes.append((f"{found.library.name} itself ({built}) against {side}_impl, float64", apart, None))
    return "" if apart <= 1e-12 else f"{found.library.name} itself gives logits that are {apart:.1e} apart"


def probe_image(arch: Arch) -> np.ndarray:
    """Noise of the size that the net was designed for, smaller where that is large: 1 C *S, float64."""
    channels, *size = arch.input_shape()
    return np.random.default_rng(0).standard_normal((1, channels, *(min(n, 224) for n in size)))
