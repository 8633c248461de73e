"""What an alignment's changes are, in words: edits of a closed vocabulary, each of as many changes as it explains.

A field of the row is an edit where the changes that it makes are among hers: so what a field does is told by
`plans.tree`, and nowhere twice (`fields.py`). What no field says is found by `finders.py`, from patterns ("the ReLU is
on the other side of the addition") down to single attributes.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from common.arch import Arch
from common.diagnosis.align import Aligner, Change, changes
from common.diagnosis.parse import Chain, Join, Layer, layers
from common.diagnosis.places import Place, listed, places, told
from common.diagnosis.plans import KERAS, tree
from common.plan import MOMENTUM

MASKS = "in training alone, by masks: read, not proven"
NOWHERE = "in no number: the same function wherever it was tried"
UNSEEN = (MASKS, NOWHERE)


@dataclass(frozen=True)
class Edit:
    """One difference that has a name. `name` is that of the fault (tests/faults.py) where there is one."""

    name: str
    kind: str  # padding, stride, shortcut, ...: what the command prints before it
    says: str
    changes: frozenset[Change]
    fields: dict[str, Any] = field(default_factory=dict)  # of the row, where it can say this
    matters: str = ""  # where it can be seen, by the proof; empty: everywhere

    @property
    def shows(self) -> bool:
        """Whether a run tells it."""
        return self.matters not in UNSEEN

    @property
    def where(self) -> str:
        """File and line of hers, the first of several."""
        lines = [c.theirs.where for c in sorted(self.changes, key=order) if c.theirs and c.theirs.where]
        return lines[0] if lines else ""

    @property
    def theirs(self) -> tuple[str, ...]:
        """Her names of the layers."""
        found = [c.theirs for c in sorted(self.changes, key=order)]
        return tuple(dict.fromkeys(x.name for x in found if isinstance(x, Layer) and x.name))


def order(change: Change) -> list[int]:
    """Where a change is, as a key to sort by."""
    return [int(n) for n in re.split(r"[.+]", change.path)]


def _as_keras(chain: Chain) -> float | None:
    """Where every norm is Keras' own layer, the share of the batch that is no difference: Keras' usual one where all
    have it, else ours."""
    norms = [x.attributes for x in layers(chain) if x.op == "norm" and x.attributes["batch"] != "never"]
    if not norms or any(a.get("unbiased", True) is not None for a in norms):
        return None
    return KERAS if all(a["momentum"] == KERAS for a in norms) else MOMENTUM


class Explained:
    """A row's tree, hers, and the edits that lead from the one to the other."""

    def __init__(self, base: Arch, theirs: Chain, aligner: Aligner):
        self.base, self.aligner = base, aligner
        self.keras = _as_keras(theirs)
        self.ours, self.theirs = self.tree(base), theirs
        self.pairs = aligner.pairs(self.ours, theirs)
        self.places = places(self.ours)
        self.all = list(dict.fromkeys(changes(self.pairs)))
        self.lacking = tuple(c.path for c in self.all if c.kind == "drop")
        self.edits: list[Edit] = []  # explain.py finds them

    def tree(self, arch: Arch) -> Chain:
        """A row's tree, whose norms keep their statistics as Keras' do where all of hers do."""
        return tree(arch, self.keras)

    def place(self, change: Change) -> Place:
        return self.places[change.path]

    def told(self, group: Iterable[Change]) -> str:
        """Where changes are, in words."""
        group = sorted(group, key=order)
        if any(c.path not in self.places for c in group):
            return listed(self.behind(c) for c in group)
        return told([c.path for c in group], self.places, self.lacking)

    def behind(self, change: Change) -> str:
        """Where something of hers was added."""
        *outer, last = change.path.split("+")[0].split(".")
        before = ".".join([*outer, str(int(last) - 1)])
        if before in self.places:
            return f"behind {self.places[before].name.removeprefix('behind ')}"
        if outer:
            part = "shortcut" if outer[-1] == "1" else "branch"
            return f"in the {part} of {self.block(change)}"
        return "at the input"

    def part(self, change: Change) -> str:
        """The part of the net where a change is: also "input" and "end" for what is added there."""
        if change.path in self.places:
            return self.place(change).part
        *outer, last = change.path.split("+")[0].split(".")
        if outer:
            fork = self.places.get(".".join(outer[:-1]))  # none where hers forks and ours doesn't
            return "gate" if fork and fork.item.op == "mul" else "shortcut" if outer[-1] == "1" else "branch"
        if int(last) == 0:
            return "input"
        before = self.places[str(int(last) - 1)]
        return "end" if int(last) == len(self.ours) else "sum" if isinstance(before.item, Join) else before.part

    def block(self, change: Change) -> str:
        """The name of the block around a change: layer1.0."""
        top = self.places.get(re.split(r"[.+]", change.path)[0])
        return top.name.removeprefix("the addition of ") if top else ""

    def blocks(self, group: Iterable[Change]) -> str:
        """The blocks around changes, in words."""
        names = list(dict.fromkeys(self.block(c) for c in sorted(group, key=order)))
        forks = [p for p in self.places.values() if p.item.op == "add"]
        return "every block" if len(names) == len(forks) > 1 else listed(names)


Finder = Callable[[Explained, list[Change]], Iterator[Edit]]


def number(value: float) -> str:
    """0.001 as 1e-3, 1.001e-05 as 1.001e-5, 0.99 as it is."""
    text = f"{value:.6g}" if value >= 0.01 or not value else f"{value:e}"
    return re.sub(r"\.?0*e-0?", "e-", text)


def plain(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
