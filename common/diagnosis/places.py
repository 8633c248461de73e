"""Where something is in a row's tree, in words: "all 53 norms", "layer2-4 .0.conv2", "behind layer1.0.bn2"."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from common.diagnosis.parse import Chain, Item, Join, Layer

PLURAL = {
    "conv": "convolutions", "norm": "norms", "relu": "ReLUs", "linear": "linear layers", "max_pool": "max poolings",
    "avg_pool": "average poolings", "pad_channels": "zero paddings", "dropout": "dropouts", "sigmoid": "sigmoids",
    "subsample": "subsamplings", "group_norm": "group norms",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    item: Item
    name: str
    part: str  # stem, branch, shortcut, sum (behind an addition), head; with "gate" in a squeeze-and-excitation
    stage: str = ""
    block: int = 0
    last: bool = False  # of its branch, of its kind


def places(chain: Chain) -> dict[str, Place]:
    """{path: place} of every item of our tree."""
    return dict(_walk(chain, "", "", ""))


def _first_name(chain: Chain) -> str:
    for item in chain:
        if isinstance(item, Layer) and item.name:
            return item.name
        if isinstance(item, Join):
            for branch in item.branches:
                if found := _first_name(branch):
                    return found
    return ""


def _block_of(name: str) -> tuple[str, int]:
    m = re.match(r"(layer[^.]*)\.(\d+)", name)
    return (m[1], int(m[2])) if m else ("", 0)


def _walk(chain: Chain, path: str, part: str, before: str) -> Iterator[tuple[str, Place]]:
    ops = [item.op for item in chain]
    for i, item in enumerate(chain):
        here = f"{path}{i}"
        inner = part
        name = item.name if isinstance(item, Layer) else ""
        stage, block = _block_of(name or _first_name((item,)) or before.removeprefix("the addition of "))
        if not part:
            ahead = any(_block_of(_first_name((x,)))[0] for x in chain[i:])
            behind = any(_block_of(_first_name((x,)))[0] for x in chain[:i])
            inner = "stem" if not behind and not stage else "sum" if ahead or item.op == "relu" and stage else "head"
            if isinstance(item, Layer) and name and stage:
                inner = "branch"
        if isinstance(item, Join):
            first = _first_name(item.branches[0])
            at = ".".join(first.split(".")[:2]) if stage else first
            name = {"add": f"the addition of {at}", "mul": f"{at}.se"}.get(
                item.op, f"the concatenation behind {before}"
            )
        elif not name:
            name = f"behind {before}" if before else "at the input"
        yield here, Place(item, name, inner, stage, block, item.op not in ops[i + 1 :])
        if isinstance(item, Join):
            for k, branch in enumerate(item.branches):
                part_of = {"add": ("branch", "shortcut")[min(k, 1)], "mul": "gate"}.get(item.op, "")
                yield from _walk(branch, f"{here}.{k}.", part_of, name if item.op == "mul" else "")
        before = before if name.startswith(("behind ", "at the input")) else name


# roles in which places are told, from the widest on
ROLES = (
    ("all {n} {ops}", lambda p: True),
    ("the stem's {ops}", lambda p: p.part == "stem"),
    ("all {n} {ops} of shortcuts", lambda p: p.part == "shortcut"),
    ("all {n} {ops} of branches", lambda p: p.part == "branch"),
    ("all {n} {ops} of blocks", lambda p: p.part in ("branch", "shortcut")),
    ("all {n} {ops} behind additions", lambda p: p.part == "sum"),
    ("all {n} {ops} of squeeze-and-excitation", lambda p: p.part == "gate"),
    ("the last of the {ops} in all {n} branches", lambda p: p.part == "branch" and p.last),
)


def told(paths: Iterable[str], known: dict[str, Place], lacking: Iterable[str] = ()) -> str:
    """The places in words: a role where it is all of one, else their names. Those in `lacking` aren't there."""
    wanted = set(paths)
    ops = {known[p].item.op for p in wanted}
    if len(wanted) > 1 and len(ops) == 1:
        op = ops.pop()
        there = {p: k for p, k in known.items() if k.item.op == op and p not in set(lacking)}
        for words, belongs in ROLES:
            if wanted == {p for p, k in there.items() if belongs(k)}:
                return words.format(n=len(wanted), ops=PLURAL.get(op, f"{op}s"))
    return listed([known[p].name for p in sorted(wanted, key=list(known).index)])


def listed(names: Iterable[str]) -> str:
    """Names, those told together that differ in their stage alone: layer2-4 .0.conv2."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    names = list(dict.fromkeys(names))
    for name in names:
        m = re.fullmatch(r"(.*\blayer)(\d+)(\..*)", name)
        key = (m[1], m[3]) if m else (name, "")
        groups[key] += [int(m[2])] if m else []
    words = []
    for (start, end), stages in groups.items():
        run = stages == list(range(stages[0], stages[-1] + 1)) if stages else False
        if not stages:
            words.append(start)
        elif len(stages) == 1:
            words.append(f"{start}{stages[0]}{end}")
        else:
            words.append(f"{start}{f'{stages[0]}-{stages[-1]}' if run else ','.join(map(str, stages))} {end}")
    if len(words) > 4:
        return f"{', '.join(words[:2])}, ... and {words[-1]} ({len(names)} places)"
    return ", ".join(words)
