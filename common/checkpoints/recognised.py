"""A checkpoint understood: whose it is, which row, and where each canonical tensor is in it."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from common.arch import Arch, name_of, nearly
from common.checkpoints.containers import Container, in_one, mapped
from common.checkpoints.libraries.library import TRANSFORMS, Library, Slot
from common.checkpoints.preprocessing import Preprocessing
from common.errors import RosettaError, printable
from common.weights import Weights, check_sum


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
    source: str = ""  # where it came from, with its commit and SHA-256, if it came from a hub
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
        """The dtypes of the file's tensors, with commas between."""
        return ", ".join(sorted({self.held.entries[s.theirs].dtype for s in self.slots}))

    @property
    def read_as(self) -> str:
        """numpy's name of the narrowest dtype that holds every tensor of `weights` exactly."""
        kinds = {self.held.entries[s.theirs].dtype.replace("bfloat16", "float32") for s in self.slots}
        return str(np.result_type(*kinds))

    def to_json(self) -> dict[str, Any]:
        """What `rosetta inspect --json` prints."""
        return {
            "file": str(self.held.path), "container": self.held.kind, "library": self.library.name, "name": self.name,
            "arch": dataclasses.asdict(self.arch), "dtype": self.dtype, "says": self.claim,
            "source": self.source, "taken_on_trust": self.told,
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
        arrays: list[np.ndarray] = []
        broken: list[int] = []

        def looked_through(values: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            for value in values:
                if not np.isfinite(value).all():
                    broken.append(len(arrays))
                arrays.append(value)
                yield value

        with ThreadPoolExecutor(1) as beside:  # one is read while another is looked through
            at_once = {"apart": lambda _: None, "together": in_one, "mapped": mapped}[how](entries)
            values = looked_through(at_once or beside.map(lambda entry: entry.read(), entries))
            if self.held.said:
                check_sum(self.held.path, self.held.said, values)
            deque(values, 0)  # another's file has no checksum
        if broken:
            raise RosettaError(f"{self.held.path} holds NaN or infinity, in {self.where(self.slots[min(broken)])}")
        return {
            slot.canonical: np.ascontiguousarray(TRANSFORMS[slot.transform][0](array))
            for slot, array in zip(self.slots, arrays, strict=True)
        }


def describe(arch: Arch) -> str:
    """A row in a few words."""
    name = name_of(arch)
    parts = [f"{arch.block} blocks {arch.depths}", f"widths {arch.widths}"]
    parts += ["pre-activation"] * arch.preact + [f"{arch.groups} groups"] * (arch.groups > 1)
    parts += ["BatchNorm folded"] * arch.folded
    parts += [f"GroupNorm/{arch.norm_groups}"] * bool(arch.norm_groups)
    parts += ["standardised weights"] * bool(arch.weight_std)
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
