"""Whose a checkpoint is and which net it holds: from the names and shapes of its arrays, and what else it says."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.arch import EXPANSION, VARIANTS, Arch, Stem, get, name_of, nearly
from common.checkpoints import claims
from common.checkpoints.containers import Container, Entry, in_one, mapped, pieces
from common.checkpoints.libraries import LIBRARIES
from common.checkpoints.libraries.library import KERAS_LEAVES, TRANSFORMS, Library, Slot, canonical_shape
from common.checkpoints.libraries.ours import OURS, OURS_KERAS
from common.checkpoints.libraries.torchvision import TORCHVISION
from common.checkpoints.libraries.transformers import transformers_config
from common.checkpoints.preprocessing import Preprocessing
from common.errors import RosettaError, nearest, printable
from common.names import Shape, parameters
from common.plan import make_plan, reduced
from common.tools.memory import cpus
from common.weights import TRAINING, Crc, Weights, check_sum, crc_of, differences, joined

BATCHES = "a counter of batches, which nothing reads"
STATE = "what the training needs to go on"
CONFIGURED = "its configuration says so"


@dataclass
class Recognised:
    """A checkpoint understood."""

    held: Container
    library: Library
    arch: Arch
    slots: list[Slot]  # every canonical tensor and where it is, in canonical order
    unused: dict[str, str]  # what else the file has, and why it isn't used
    told: dict[str, str] = field(default_factory=dict)  # what shapes can't tell: field, and on whose word it was taken
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    head: str = ""  # what follows the classifier, where the file says it: "softmax"
    claim: str = ""  # what the file itself says that it is, in words, if it does
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The variant's, or that of the variant that the row is but for its classes or channels."""
        return nearly(self.arch)

    @property
    def described(self) -> str:
        """The row in a few words."""
        return describe(self.arch)

    @property
    def dtype(self) -> str:
        """Of the tensors in the file."""
        return ", ".join(sorted({self.held.entries[s.theirs].dtype for s in self.slots}))

    @property
    def read_as(self) -> str:
        """numpy's name of the narrowest dtype that holds every tensor of `weights` exactly."""
        kinds = {self.held.entries[s.theirs].dtype.replace("bfloat16", "float32") for s in self.slots}
        return str(np.result_type(*kinds))

    def to_json(self) -> dict[str, Any]:
        """As `rosetta inspect --json` has it."""
        return {
            "file": str(self.held.path), "container": self.held.kind, "library": self.library.name, "name": self.name,
            "arch": dataclasses.asdict(self.arch), "dtype": self.dtype, "says": self.claim, "taken_on_trust": self.told,
            "preprocessing": dataclasses.asdict(self.preprocessing) if self.preprocessing else None,
            "labels": self.labels, "notes": self.notes, "unused": self.unused,
            "tensors": [
                {"in_file": self.where(s), "canonical": s.canonical, "shape": s.shape, "transform": s.transform}
                for s in self.slots
            ],
        }  # fmt: skip

    def where(self, slot: Slot) -> str:
        """The tensor's name in the file, to be shown."""
        return printable(self.held.entries[slot.theirs].where or slot.theirs)

    def weights(self, how: Literal["apart", "together", "mapped"] = "apart") -> Weights:
        """The canonical weights, read now and checked; where that can be, "together" in one buffer, for whoever keeps
        all of them, or "mapped", for whoever copies them. Raises RosettaError where a value is not finite."""
        entries = [self.held.entries[slot.theirs] for slot in self.slots]
        arrays = {"apart": lambda _: None, "together": in_one, "mapped": mapped}[how](entries)
        broken: list[int] = []

        def crc(values: Iterable[tuple[int, np.ndarray]]) -> Crc:
            """Of the values of numbered arrays, which are looked through on the way."""

            def looked_through() -> Iterator[np.ndarray]:
                for i, some in values:
                    if not np.isfinite(some).all():
                        broken.append(i)
                    if self.held.said:  # another's file has no checksum
                        yield some

            return crc_of(looked_through())

        if arrays:
            numbered = list(enumerate(arrays))

            def of_share(share: slice) -> Crc:
                return crc(pieces(entries, share) if how == "mapped" else numbered[share])

            with ThreadPoolExecutor() as beside:
                found = functools.reduce(joined, beside.map(of_share, _shares(entries)))
        else:
            arrays = []

            def read() -> Iterator[tuple[int, np.ndarray]]:
                for array in beside.map(lambda entry: entry.read(), entries):
                    arrays.append(array)
                    yield len(arrays) - 1, array

            with ThreadPoolExecutor(1) as beside:  # one is read while another is looked through
                found = crc(read())
        if self.held.said:
            check_sum(self.held.path, self.held.said, found)
        if broken:
            raise RosettaError(f"{self.held.path} holds NaN or infinity, in {self.where(self.slots[min(broken)])}")
        return {
            slot.canonical: np.ascontiguousarray(TRANSFORMS[slot.transform][0](array))
            for slot, array in zip(self.slots, arrays, strict=True)
        }


def _shares(entries: Sequence[Entry]) -> Iterator[slice]:
    """The entries in as many shares as there are processors, of about as many bytes."""
    number = cpus()
    ends = np.cumsum([e.nbytes for e in entries])
    cuts = [0, *np.searchsorted(ends, ends[-1] * np.arange(1, number) / number).tolist(), len(entries)]
    return itertools.starmap(slice, itertools.pairwise(cuts))


def recognise(
    held: Container, *, library: str | None = None, arch: Arch | None = None, overrides: Mapping[str, Any] | None = None
) -> Recognised:
    """Understands a container. `library` is asked alone; `arch` must be what the file holds; `overrides` are fields of
    the row that no shape tells.

    Raises RosettaError where no library has such names, or no row such shapes, or one of the three contradicts the
    file: with what was recognised and what broke it.
    """
    if library is not None and library not in (known := sorted({lib.name for lib in (OURS, *LIBRARIES)})):
        raise RosettaError(f"unknown library {library!r}{nearest(library, known) or '; there are ' + ', '.join(known)}")
    entries = _weights_of(held)
    left = [name for name in held.entries if name not in entries]
    unused = held.unused | {name: STATE if name.startswith(TRAINING) else BATCHES for name in left}
    if not entries:
        raise RosettaError(f"{held.path} holds no weights")
    said = held.metadata.get("arch")
    if said is not None:
        row = _row(held, str(said))
        named = str(held.metadata.get("library", OURS.name))
        ours = OURS_KERAS if any("/" in name for name in entries) else OURS
        for lib in [lib for lib in (ours, *LIBRARIES) if lib.name == (library or named)]:
            slots = _slots(lib, row)
            if slots and {s.theirs for s in slots} == set(entries):
                break
        else:
            lib = ours
            slots = _slots(lib, row) or []
        found = _found(held, lib, row, slots, unused, {})
    else:
        found = _by_names(held, entries, unused, library, arch)
    if arch is not None:  # a variant's name says nothing of classes and channels
        arch = get(arch, num_classes=found.arch.num_classes, in_channels=found.arch.in_channels)
    if arch is not None and found.arch != arch and (said is not None or parameters(arch) != parameters(found.arch)):
        raise RosettaError(f"{held.path} is another net than the one that was named: {gap(found.arch, arch)}")
    if arch is not None and found.arch != arch:  # fields that no shape tells, as the variant has them
        found = _found(
            held, found.library, arch, found.slots, unused, dict.fromkeys(differing(found.arch, arch), "named")
        )
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
    if found.library.keras and found.arch.num_classes:
        found.head = claims.keras_head(held)
        if found.head:
            found.notes.append(
                f"it ends in {found.head}; nets here end in logits, and leave that to whoever reads them"
            )
        elif found.library.name == "keras.applications" and not found.claim:
            found.notes.append("keras.applications' nets end in softmax unless told otherwise; nets here end in logits")
    return found


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


def _found(
    held: Container, library: Library, arch: Arch, slots: list[Slot], unused: dict[str, str], told: dict[str, str]
) -> Recognised:
    """Checks the file's tensors against the slots, and gathers the rest."""
    there = {n: (e.shape, "float32" if e.dtype == "bfloat16" else e.dtype) for n, e in _weights_of(held).items()}
    if rows := differences({s.theirs: s.shape for s in slots}, there):
        raise RosettaError(
            f"{held.path} was recognised as {describe(arch)}, with the names of {library.name}, but its tensors are "
            f"not that net's: {rows}"
        )
    try:
        preprocessing, labels = _preprocessing(held, library, arch)
    except RosettaError as e:
        raise RosettaError(f"{held.path}: {e}") from None
    unused = {printable(name): printable(why) for name, why in unused.items()}
    labels, notes = tuple(map(printable, labels)), list(map(printable, held.notes))
    made = Recognised(held, library, arch, slots, unused, told, preprocessing, labels, notes=notes)
    if "," in made.dtype:
        made.notes.append(
            f"its tensors are of {made.dtype}: load() makes all {made.read_as}, port leaves each as it is"
        )
    return made


def describe(arch: Arch) -> str:
    """A row in a few words."""
    name = name_of(arch)
    parts = [f"{arch.block} blocks {arch.depths}", f"widths {arch.widths}"]
    parts += ["pre-activation"] * arch.preact + [f"{arch.groups} groups"] * (arch.groups > 1)
    parts += ["BatchNorm folded"] * arch.folded
    parts += ["anti-aliasing"] * (arch.antialias != "none") + ["ECA"] * arch.eca
    parts += [f"SE/{arch.se_ratio}"] * bool(arch.se_ratio) + [f"{arch.num_classes} classes"]
    return f"{name} ({', '.join(parts)})" if name else ", ".join(parts)


def differing(a: Arch, b: Arch) -> list[str]:
    """The fields in which two rows differ."""
    return [f.name for f in dataclasses.fields(Arch) if getattr(a, f.name) != getattr(b, f.name)]


def gap(found: Arch, named: Arch) -> str:
    """The same in words."""
    return "; ".join(
        f"{f} is {getattr(found, f)!r} in the file and {getattr(named, f)!r} in what was named"
        for f in differing(found, named)
    )


def _by_names(
    held: Container, entries: Mapping[str, Entry], unused: dict[str, str], library: str | None, arch: Arch | None
) -> Recognised:
    def row(lib: Library, names: Mapping[str, tuple[str, str]]) -> tuple[Arch, dict[str, str]]:
        return row_of({c: canonical_shape(entries[t].shape, how) for t, (c, how) in names.items()}, lib, held)

    best: tuple[int, Library, dict[str, tuple[str, str]]] | None = None
    if held.ordered:
        return _by_order(held, entries, unused, library, arch)
    timm = library is None and claims.timm_claim(held) is not None  # most of whose nets have torchvision's names
    if (named := arch or claims.timm_row(held)) is not None:
        for lib in (*LIBRARIES, OURS, OURS_KERAS):
            if library not in (None, lib.name) or (timm and lib is TORCHVISION):
                continue
            slots = _slots(lib, named)
            if slots and {s.theirs: s.shape for s in slots} == {n: e.shape for n, e in entries.items()}:
                return _found(held, lib, named, slots, unused, {"arch": "named"})
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
                    return _found(held, lib, found, slots, unused, told)
    if best is None or best[0] > len(entries) // 2:
        some = ", ".join(list(entries)[:5])
        raise RosettaError(
            f"{held.path} has names that no library here gives a ResNet: {some}, ... ({len(entries)} arrays)"
        )
    _, lib, names = best
    found, told = row(lib, names)
    try:
        slots = lib.slots(found)
    except RosettaError as e:
        raise RosettaError(f"{held.path} looks like {describe(found)}, but {e}") from None
    return _found(held, lib, found, slots, unused, told)


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


def row_of(shapes: Mapping[str, Shape], library: Library, held: Container) -> tuple[Arch, dict[str, str]]:
    """(the row, {field that no shape tells: on whose word it was taken}) of canonical shapes.

    Raises RosettaError where there is no first convolution, no stage, or nothing that a row could say.
    """
    net = _Net(shapes, f"{held.path} has the names of {library.name}")
    conventions = {k: v for k, v in library.conventions.items() if "." not in k}
    if not net.bottleneck:
        conventions.pop("stride_in", None)
    row: dict[str, Any] = {}
    told: dict[str, str] = {}
    # what comes later is more certain: a library's convention beats what is usual, its configuration both
    for fields, why in (
        (net.blocks(), {}), net.trunks(), net.shortcuts(), net.stem(library.conventions.get("stem.pool", True)),
        (net.extras(), {}), (conventions, dict.fromkeys(conventions, f"the convention of {library.name}")),
    ):  # fmt: skip
        row |= fields
        told |= why
    configured = _configured(held, library)
    row |= configured
    told |= dict.fromkeys(configured, CONFIGURED)
    told = {f: f"{_said(row[f])}: {why}" for f, why in told.items()}
    try:
        return Arch(**row), told
    except RosettaError as e:
        raise net.broken(f"a net that no row says: {e}") from None


_Fields = tuple[dict[str, Any], dict[str, str]]  # of a row; and of those that no shape tells, on whose word


class _Net:
    """Canonical shapes, read as fields of a row, a method for each group of them."""

    def __init__(self, shapes: Mapping[str, Shape], whose: str):
        """`whose` begins the errors. Raises RosettaError where a net's frame isn't there: a stem, stages, blocks."""
        self.shapes, self.whose = shapes, whose
        self.stem_convs = [n for n in shapes if re.fullmatch(r"conv1(\.\d+)?\.weight", n) and len(shapes[n]) > 2]
        self.stem_convs.sort(key=lambda n: (len(n), n))
        if not self.stem_convs:
            raise self.broken("no first convolution, conv1.weight: is it a net, or a part of one?")
        blocks: dict[tuple[int, str], set[int]] = {}
        for name in shapes:
            if m := re.match(r"layer(\d+)(_k\d+)?\.(\d+)\.", name):
                blocks.setdefault((int(m[1]), m[2] or ""), set()).add(int(m[3]))
        self.stages = sorted({s for s, _ in blocks})
        self.kernels = sorted({k for _, k in blocks}, key=lambda k: (len(k), k))  # of parallel trunks: _k3, _k5, ...
        if not self.stages or self.stages != list(range(1, len(self.stages) + 1)) or len(self.stages) > 20:
            raise self.broken(f"the stages {self.stages}: expected layer1, layer2, ... without a gap")
        self.depths = []
        for s in self.stages:
            there = blocks.get((s, self.kernels[0]), set())
            if there != set(range(len(there))):
                missing = sorted(set(range(max(there) + 1)) - there) if there else []
                raise self.broken(f"stage {s} lacks its blocks {missing[:8]}")
            self.depths.append(len(there))
        self.bottleneck = f"{self.block(1)}.conv3.weight" in shapes
        last = "conv3" if self.bottleneck else "conv2"
        self.out = [self.shape(f"{self.block(s)}.{last}.weight")[0] for s in self.stages]  # channels
        self.preact = any(n.startswith("norm") for n in shapes)
        if not self.preact and "bn1.weight" not in shapes:
            folded = "" if any(n.endswith("running_mean") for n in shapes) else (
                ". It has no norm at all: were they folded into the convolutions? Port the file from before that"
            )  # fmt: skip
            raise self.broken(f"no norm follows its first convolution (bn1), nor its last block (norm){folded}")

    def broken(self, what: str) -> RosettaError:
        return RosettaError(f"{self.whose}, but {what}")

    def shape(self, name: str) -> Shape:
        if name not in self.shapes:
            raise self.broken(f"no {name}")
        return self.shapes[name]

    def block(self, stage: int, index: int = 0) -> str:
        return f"layer{stage}{self.kernels[0]}.{index}"

    def blocks(self) -> dict[str, Any]:
        """What is in the shapes themselves."""
        kind = "bottleneck" if self.bottleneck else "basic"
        row: dict[str, Any] = {
            "depths": tuple(self.depths), "widths": tuple(max(1, c // EXPANSION[kind]) for c in self.out),
            "block": kind, "preact": self.preact,
            "dims": len(self.shapes[self.stem_convs[0]]) - 2, "in_channels": self.shapes[self.stem_convs[0]][1],
            "num_classes": self.shapes["fc.weight"][0] if "fc.weight" in self.shapes else 0,
        }  # fmt: skip
        if self.bottleneck:
            mid, per_group, *_ = self.shape(f"{self.block(1)}.conv2.weight")
            row["groups"] = mid // max(1, per_group)
            row["width_per_group"] = mid * 64 // max(1, row["groups"] * row["widths"][0])
        return row

    def trunks(self) -> _Fields:
        """Kernels, of one trunk or of several."""
        if self.kernels == [""]:
            return {"kernels": (self.shape(f"{self.block(1)}.conv{2 if self.bottleneck else 1}.weight")[-1],)}, {}
        row = {"kernels": tuple(int(k[2:]) for k in self.kernels), "first_stride": 2}
        return row, {"first_stride": "the convention of parallel trunks"}

    def shortcuts(self) -> _Fields:
        """Where they have a convolution, and what is in its place where not."""
        convs = [
            n for n in self.shapes
            if re.match(r"layer\d+(_k\d+)?\.\d+\.downsample\.\d+\.weight", n) and len(self.shapes[n]) > 2
        ]  # fmt: skip
        enters = self.shapes[self.stem_convs[-1]][0]
        if not convs:
            if len({enters, *self.out}) == 1 and len(self.stages) == 1:
                return {"shortcut": "project"}, {}
            why = "no shape tells zero-padded identities (option A, both sides) from none at all: padded by convention"
            return {"shortcut": "pad"}, {"shortcut": why}
        if all(n.split(".downsample.")[1].startswith("1.") for n in convs):
            first = enters == self.out[0] and f"{self.block(1)}.downsample.1.weight" in self.shapes
            return {"shortcut": "pool_first" if first and self.kernels == [""] else "pool"}, {}
        everywhere = all(
            any(f"{self.block(s, b)}.downsample.{i}.weight" in self.shapes for i in (0, 1))
            for s, depth in zip(self.stages, self.depths, strict=True)
            for b in range(depth)
        )
        # in blocks one by one only the first, which changes nothing, tells
        told = max(self.depths) > 1 or (self.block(1) in convs[0] and self.out[0] == enters)
        normed = any(re.match(r"layer\d+(_k\d+)?\.\d+\.downsample\.1\.running_mean", n) for n in self.shapes)
        return {
            "shortcut": "project_all" if everywhere and told else "project",
            "shortcut_norm": self.preact or normed,
        }, {}

    def stem(self, pool: Any) -> _Fields:
        """Its sizes are in the shapes, its strides and pooling are not; `pool` is the library's."""
        sizes = [(self.shapes[n][0], self.shapes[n][-1]) for n in self.stem_convs]
        small = len(sizes) == 1 and sizes[0][1] < 7
        strides = [1 if small or i else 2 for i in range(len(sizes))]
        strides[-1] = strides[-1] if pool or small else 2  # ResNet-RS' convolution in the pooling's place
        convs = tuple((c, n, s) for (c, n), s in zip(sizes, strides, strict=True))
        which = f"one convolution of {sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} convolutions"
        pooling = "no pooling" if small or not pool else "max pooling"
        return {"stem": Stem(convs, False if small else pool)}, {
            "stem": f"{which}: stride {strides[0]}, {pooling}, as is usual for it"
        }

    def extras(self) -> dict[str, Any]:
        """Attention, and biases of convolutions."""
        row: dict[str, Any] = {}
        squeezes = [f"{self.block(s)}.se.fc1.weight" for s in self.stages]
        if squeezes[0] in self.shapes:
            row["se_ratio"] = _se_ratio([self.shapes[n][:2] for n in squeezes if n in self.shapes])
        if f"{self.block(1)}.se.conv.weight" in self.shapes:
            row["eca"] = True
        biased = [
            layer
            for layer in (n.removesuffix(".bias") for n in self.shapes if n.endswith(".bias"))
            if len(self.shapes.get(f"{layer}.weight", ())) > 2 and ".se." not in layer
        ]
        if biased:
            row["conv_bias"] = True if f"{self.block(1)}.conv1" in biased else "unnormed"
        return row


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
    again = dataclasses.replace(again, drop_path=arch.drop_path, dropout=arch.dropout)
    if differ := differing(again, arch):
        return ", ".join(f"{f} = {getattr(arch, f)!r}, where its files mean {getattr(again, f)!r}" for f in differ)
    return "" if library.claims(arch) else f"it builds no such net: {describe(arch)}"


def _said(value: Any) -> str:
    if isinstance(value, Stem):
        return ", ".join(f"{c} of {n} wide" for c, n, _ in value.convs)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _se_ratio(pairs: Sequence[Shape]) -> int:
    """The reduction under which every block's (narrow, wide) comes out; 16 where several do."""
    fits = [r for r in (16, *range(1, 129)) if all(reduced(wide, r) == narrow for narrow, wide in pairs)]
    return fits[0] if fits else 16


def _configured(held: Container, library: Library) -> dict[str, Any]:
    """Fields of the row that a library's own configuration says."""
    config = held.metadata.get("config")
    if not isinstance(config, dict):
        return {}
    if library.name == "transformers" and config.get("model_type") == "resnet":
        said: dict[str, Any] = {}
        if config.get("layer_type", "bottleneck") == "bottleneck" and "downsample_in_bottleneck" in config:
            said["stride_in"] = 1 if config["downsample_in_bottleneck"] else 2
        if "downsample_in_first_stage" in config:
            said["first_stride"] = 2 if config["downsample_in_first_stage"] else 1
        return said
    if timm := claims.timm_fields(held):
        return {"antialias": timm["antialias"]}
    layers = claims.keras_layers(config)
    if library.keras and layers:
        by_name = {str(layer["config"].get("name")): layer["config"] for layer in layers}
        eps = {c["epsilon"] for c in by_name.values() if isinstance(c.get("epsilon"), float)}
        found: dict[str, Any] = {"norm_eps": eps.pop()} if len(eps) == 1 else {}
        strides = (by_name.get("conv3_block1_1_conv") or {}).get("strides")
        if isinstance(strides, list) and library.conventions.get("stride_block") is None:
            found["stride_in"] = 1 if strides == [2, 2] else 2
        return found
    return {}


def _preprocessing(held: Container, library: Library, arch: Arch) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """What the file says of its images and classes; else the library's convention."""
    labels: tuple[str, ...] = ()
    meta, config = held.metadata, held.metadata.get("config")
    if isinstance(meta.get("labels"), str):
        labels = tuple(meta["labels"].split("\n"))
    elif isinstance(config, dict) and isinstance(config.get("id2label"), dict):
        rows = config["id2label"]
        if all(isinstance(v, str) for v in rows.values()) and set(rows) == {str(i) for i in range(len(rows))}:
            labels = tuple(rows[str(i)] for i in range(len(rows)))
    elif len(library.labels) == arch.num_classes:
        labels = library.labels
    labels = (
        labels if len(labels) == arch.num_classes and not all(re.fullmatch(r"LABEL_\d+", x) for x in labels) else ()
    )
    if isinstance(meta.get("preprocessing"), str):
        try:
            return Preprocessing.from_json(meta["preprocessing"]), labels
        except RosettaError as e:
            raise RosettaError(f"{held.path}: {e}") from None
    own = library.preprocessing
    if own is None or arch.dims != 2 or len(own.mean) != arch.in_channels:
        return None, labels
    small = make_plan(arch).default_input()[-1]
    if small < own.size and not library.labels:
        own = dataclasses.replace(own, size=small, resize=small)
    seen = meta.get("preprocessor_config.json")
    cfg = config.get("pretrained_cfg") if isinstance(config, dict) else None
    said: Any = seen
    try:
        if isinstance(seen, dict) and "image_mean" in seen and "image_std" in seen:
            own = dataclasses.replace(own, mean=tuple(seen["image_mean"]), std=tuple(seen["image_std"]))
        if isinstance(cfg, dict) and "mean" in cfg and "std" in cfg:
            said = cfg
            side = int((cfg.get("input_size") or (3, own.size, own.size))[-1])
            resize = int(side / float(cfg.get("crop_pct") or 0.875))  # rounded down, as timm does
            how = cfg.get("interpolation")
            own = dataclasses.replace(
                own, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]), size=side, resize=resize,
                interpolation=how if how in ("bilinear", "bicubic") else own.interpolation,
            )  # fmt: skip
        numbers = np.array([own.mean, own.std], np.float64)
        good = numbers.shape == (2, arch.in_channels) and np.isfinite(numbers).all() and (numbers[1] > 0).all()
        good = (
            good and all(type(n) in (int, float) for n in (*own.mean, *own.std)) and 0 < own.size <= own.resize < 2**16
        )
    except (TypeError, ValueError, IndexError, KeyError, ArithmeticError):
        good = False
    if not good:
        raise RosettaError(f"{held.path}: its configuration says of its images what can't be: {str(said)[:200]!r}")
    return own, labels


# -- files that keep no names


def _by_order(
    held: Container, entries: Mapping[str, Any], unused: dict[str, str], library: str | None, arch: Arch | None
) -> Recognised:
    """An older Keras file has class and position for a name. So every row that a library saves is laid out as
    Keras would, and one whose every shape is the file's is taken."""
    from common.checkpoints import keras_files

    shapes = {name: entry.shape for name, entry in entries.items()}
    fits = []
    for lib in (lib for lib in LIBRARIES if lib.keras and library in (None, lib.name)):
        for row in (arch,) if arch else VARIANTS.values():
            if not lib.builds(row) or not lib.claims(row):
                continue
            kernels = [s for n, s in shapes.items() if len(s) == 2 and n.endswith("vars/0")]
            stem = next((s for s in shapes.values() if len(s) == 4), (7, 7, 3, 64))
            row = get(row, num_classes=kernels[0][1] if kernels else 0, in_channels=stem[2])
            at = keras_files.paths(lib, row, own=False)
            slots = [dataclasses.replace(s, theirs=at[s.theirs]) for s in lib.slots(row)]
            if {s.theirs: s.shape for s in slots} == shapes:
                fits.append((lib, row, slots))
    if not fits:
        raise RosettaError(
            f"{held.path} keeps no names, only classes and positions, and no net of keras.applications or KerasHub has "
            "its shapes in that order"
        )
    lib, row, slots = fits[0]
    _, told = row_of(parameters(row), lib, held)
    found = _found(held, lib, row, slots, unused, told)
    found.notes.append("the file keeps no names: matched by class and position, with every shape checked")
    return found
