"""Two trees side by side, ours and hers, by the fewest changes; and what lies between them when some are made.

An alignment is a list of pairs. Everything in which a pair differs is a `Change`, named by its place in our tree;
`made` builds the tree in which just some of the changes are made: with all of them it is hers, with none ours.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from common.diagnosis.parse import NORMED, Chain, Item, Join, Layer, key_of, layers

# what can stand for one another, and is then said to be another kind
KINDS = {
    **dict.fromkeys("relu relu6 leaky_relu elu gelu silu tanh sigmoid hard_sigmoid hard_swish mish softplus hardtanh"
                    .split(), "activation"),
    **dict.fromkeys("max_pool avg_pool adaptive_pool mean global_max".split(), "pool"),
    **dict.fromkeys(NORMED, "norm"),
    **dict.fromkeys(("softmax", "log_softmax"), "softmax"),
}  # fmt: skip
# how much it takes to believe a difference: of an attribute, and of a layer more or less
# (whole numbers, so that ties are ties)
WEIGHT = {"kernel": 50, "stride": 30, "out": 40, "into": 20, "groups": 30, "bias": 10, "eps": 5, "op": 70,
          "order": 50}  # fmt: skip
OTHERWISE = 10
NEVER = 10**9
LAYER = {"conv": 150, "relu": 60, "norm": 90, "group_norm": 90}
ANY_LAYER = 80
BEHIND = 50  # the ReLU behind a sum
UNJOINED = 120  # a block without its shortcut


@dataclass(frozen=True)
class Pair:
    """What stands where in both trees; None where one has nothing. Joins have pairs of branches; `inline` is a join of
    ours whose branch alone is hers, or the other way round."""

    ours: Item | None
    theirs: Item | None
    branches: tuple[tuple["Pair", ...], ...] = ()
    inline: bool = False
    order: tuple[int, ...] = ()  # for each branch of ours, which of hers

    @property
    def moved(self) -> bool:
        """Whether her branches are in another order."""
        return self.order != tuple(range(len(self.order)))


@dataclass(frozen=True)
class Change:
    """One difference: an attribute that is set, or a layer (a fork) that is dropped, added or inline. `path` is its
    place in our tree; two changes are equal where place and effect are."""

    kind: str
    path: str
    what: str  # the attribute, or the key of what is dropped or added
    value: str
    ours: Item | None
    theirs: Item | None
    around: tuple[Item, ...] = ()  # what stands before, in our tree, and the fork around it

    @property
    def id(self) -> tuple[str, ...]:
        return self.kind, self.path, self.what, self.value

    @property
    def item(self) -> Item:
        """What it is about: ours, where we have it."""
        found = self.ours or self.theirs
        assert found is not None
        return found

    @property
    def op(self) -> str:
        return self.item.op

    @property
    def a(self) -> Any:
        """Our value of the attribute that is set."""
        return _value(self.ours, self.what)

    @property
    def b(self) -> Any:
        """Hers."""
        return _value(self.theirs, self.what)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Change) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


def _value(item: Item | None, name: str) -> Any:
    return item.op if item and name == "op" else item.attributes.get(name) if isinstance(item, Layer) else None


class Aligner:
    """Costs are kept by what items compute, since most of a net's blocks are alike."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], int] = {}
        self.size: dict[str, int] = {}

    def cost(self, item: Item, before: Item | None = None) -> int:
        """Of an item more or less; a ReLU goes with the sum before it."""
        if item.op == "relu" and isinstance(before, Join):
            return BEHIND
        if item.key not in self.size:
            inside = sum(LAYER.get(x.op, ANY_LAYER) for x in layers((item,)))
            self.size[item.key] = inside if isinstance(item, Layer) else ANY_LAYER + inside * 7 // 10
        return self.size[item.key]

    def difference(self, a: Item, b: Item) -> int:
        """Of two items in one place; NEVER where they can't be one."""
        pair = a.key, b.key
        if pair not in self.items:
            self.items[pair] = self._difference(a, b)
        return self.items[pair]

    def _difference(self, a: Item, b: Item) -> int:
        if isinstance(a, Layer) and isinstance(b, Layer):
            if KINDS.get(a.op, a.op) != KINDS.get(b.op, b.op):
                return NEVER
            names = differing(a, b)
            if "op" in names:  # what one kind alone has comes with the kind
                names = ["op", *({*names} & {*a.attributes} & {*b.attributes})]
            return sum(WEIGHT.get(name, OTHERWISE) for name in names)
        if isinstance(a, Join) and isinstance(b, Join) and a.op == b.op and len(a.branches) == len(b.branches):
            return self.ordered(a, b)[0]
        return NEVER

    def ordered(self, a: Join, b: Join) -> tuple[int, tuple[int, ...]]:
        """(the cost, for each branch of ours which of hers it is): what is concatenated may be so in another order."""
        same, few = tuple(range(len(a.branches))), len(a.branches) < 5
        orders = permutations(same) if a.op == "concat" and few else [same]
        return min(
            (sum(self.table(x, b.branches[k])[0][-1][-1] for x, k in zip(a.branches, order, strict=True))
             + (WEIGHT["order"] if order != same else 0), order)
            for order in orders
        )  # fmt: skip

    def table(self, a: Chain, b: Chain) -> tuple[list[list[int]], list[list[int]]]:
        """Least costs of the beginnings of both chains; and by how much each came: 0 a pair, 1 ours alone, 2 hers
        alone, n > 2 a fork of ours beside n - 2 items of hers, n < 0 the other way round."""
        cost = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        how = [[2] * (len(b) + 1) for _ in range(len(a) + 1)]
        forks = [sum(isinstance(i, Join) and i.op == "add" for i in chain) for chain in (a, b)]
        for i in range(len(a) + 1):
            for j in range(len(b) + 1):
                if not i and not j:
                    continue
                ways = []
                if i and j:
                    ways.append((cost[i - 1][j - 1] + self.difference(a[i - 1], b[j - 1]), 0))
                if i:
                    ways.append((cost[i - 1][j] + self.cost(a[i - 1], a[i - 2] if i > 1 else None), 1))
                if j:
                    ways.append((cost[i][j - 1] + self.cost(b[j - 1], b[j - 2] if j > 1 else None), 2))
                if i and forks[0] > forks[1]:
                    ways += [(c + cost[i - 1][j - n], n + 2) for n, c in self.inline(a[i - 1], b[:j])]
                if j and forks[1] > forks[0]:
                    ways += [(c + cost[i - n][j - 1], -n) for n, c in self.inline(b[j - 1], a[:i])]
                cost[i][j], how[i][j] = min(ways)
        return cost, how

    def inline(self, fork: Item, chain: Chain) -> Iterator[tuple[int, int]]:
        """(n, cost) of the last n items of a chain that can be the branch of `fork`."""
        if isinstance(fork, Join) and fork.op == "add" and len(fork.branches) == 2:
            shortcut = sum(self.cost(item) for item in fork.branches[1])
            for n in {len(fork.branches[0]), len(fork.branches[0]) - 1, len(fork.branches[0]) + 1}:
                if 0 < n <= len(chain):
                    pair = key_of(fork.branches[0]), key_of(chain[-n:])
                    if pair not in self.items:
                        self.items[pair] = self.table(fork.branches[0], chain[-n:])[0][-1][-1]
                    yield n, UNJOINED + shortcut + self.items[pair]

    def pairs(self, a: Chain, b: Chain) -> tuple[Pair, ...]:
        """The cheapest alignment of our chain with hers."""
        _, how = self.table(a, b)
        found: list[Pair] = []
        i, j = len(a), len(b)
        while i or j:
            step = how[i][j]
            if step == 0:
                x, y = a[i - 1], b[j - 1]
                branches: tuple[tuple[Pair, ...], ...] = ()
                order: tuple[int, ...] = ()
                if isinstance(x, Join) and isinstance(y, Join):
                    order = self.ordered(x, y)[1]
                    branches = tuple(self.pairs(p, y.branches[k]) for p, k in zip(x.branches, order, strict=True))
                found.append(Pair(x, y, branches, order=order))
                i, j = i - 1, j - 1
            elif step == 1:
                found.append(Pair(a[i - 1], None))
                i -= 1
            elif step == 2:
                found.append(Pair(None, b[j - 1]))
                j -= 1
            elif step > 2:
                x, n = a[i - 1], step - 2
                assert isinstance(x, Join)
                found.append(Pair(x, None, (self.pairs(x.branches[0], b[j - n : j]),), inline=True))
                i, j = i - 1, j - n
            else:
                y, n = b[j - 1], -step
                assert isinstance(y, Join)
                found.append(Pair(None, y, (self.pairs(a[i - n : i], y.branches[0]),), inline=True))
                i, j = i - n, j - 1
        return tuple(found[::-1])


def differing(a: Layer, b: Layer) -> list[str]:
    """The attributes in which two layers differ; "op" among them. A norm that never reads the batch keeps nothing of
    it, whatever its momentum."""
    names = [] if a.op == b.op else ["op"]
    idle = ("momentum", "unbiased") if b.attributes.get("batch") == "never" else ()
    return names + [
        n for n in sorted({*a.attributes, *b.attributes}.difference(idle))
        if not _same(a.attributes.get(n), b.attributes.get(n))
    ]  # fmt: skip


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b)


def changes(pairs: tuple[Pair, ...], path: str = "", around: tuple[Item, ...] = ()) -> Iterator[Change]:
    """Every difference of an alignment."""
    at, before = 0, 0  # of our chain, and how many of hers since
    for pair in pairs:
        here = f"{path}{at}"
        ours, theirs = pair.ours, pair.theirs
        if pair.inline:
            item = ours or theirs
            assert isinstance(item, Join)
            yield Change("inline" if ours else "joined", here, "", key_of_shortcut(item), ours, theirs, around)
            yield from changes(pair.branches[0], f"{here}.0.", (*around, item))
            at += 1 if ours else len([p for p in pair.branches[0] if p.ours])
            before = 0
        elif ours is None:
            assert theirs is not None
            yield Change("add", f"{here}+{before}", theirs.key, "", None, theirs, around)
            before += 1
        else:
            if theirs is None:
                yield Change("drop", here, ours.key, "", ours, None, around)
            elif isinstance(ours, Layer) and isinstance(theirs, Layer):
                for name in differing(ours, theirs):
                    yield Change("set", here, name, repr(_value(theirs, name)), ours, theirs, around)
            if pair.moved:
                yield Change("set", here, "order", repr(pair.order), ours, theirs, around)
            for k, branch in enumerate(pair.branches):
                yield from changes(branch, f"{here}.{k}.", (*around, ours))
            at, before = at + 1, 0


def key_of_shortcut(fork: Join) -> str:
    return " ".join(item.key for item in fork.branches[1])


def made(pairs: tuple[Pair, ...], chosen: Collection[Change], path: str = "") -> Chain:
    """The tree with the chosen changes alone. Layers that both have carry her arrays, those of ours alone their own."""
    items: list[Item] = []
    at, before = 0, 0
    for pair in pairs:
        here = f"{path}{at}"
        ours, theirs = pair.ours, pair.theirs
        if pair.inline:
            item = ours or theirs
            assert isinstance(item, Join)
            branch = made(pair.branches[0], chosen, f"{here}.0.")
            change = Change("inline" if ours else "joined", here, "", key_of_shortcut(item), ours, theirs)
            if (change in chosen) == bool(ours):
                items += branch
            else:
                items.append(
                    replace(item, branches=(branch, *(item.branches[1:] if theirs else map(_own, item.branches[1:]))))
                )
            at += 1 if ours else len([p for p in pair.branches[0] if p.ours])
            before = 0
        elif ours is None:
            assert theirs is not None
            if Change("add", f"{here}+{before}", theirs.key, "", None, theirs) in chosen:
                items.append(theirs)
            before += 1
        else:
            if theirs is None:
                if Change("drop", here, ours.key, "", ours, None) not in chosen:
                    items += _own((ours,))
            elif isinstance(ours, Layer) and isinstance(theirs, Layer):
                items.append(_between(ours, theirs, here, chosen))
            elif isinstance(theirs, Join):
                branches = tuple(made(branch, chosen, f"{here}.{k}.") for k, branch in enumerate(pair.branches))
                if Change("set", here, "order", repr(pair.order), ours, theirs) in chosen:
                    branches = tuple(branches[pair.order.index(k)] for k in range(len(branches)))
                items.append(replace(theirs, branches=branches))
            at, before = at + 1, 0
    return tuple(items)


def _between(ours: Layer, theirs: Layer, path: str, chosen: Collection[Change]) -> Layer:
    op, attributes = ours.op, dict(ours.attributes)
    for name in differing(ours, theirs):
        if Change("set", path, name, repr(_value(theirs, name)), ours, theirs) in chosen:
            if name == "op":
                op = theirs.op
            elif name in theirs.attributes:
                attributes[name] = theirs.attributes[name]
            else:
                del attributes[name]
    arrays = {leaf: theirs.arrays.get(leaf, f"ours: {name}") for leaf, name in {**ours.arrays, **theirs.arrays}.items()}
    leaves = attributes.get("leaves", ("weight", "bias") if attributes.get("bias") else ("weight",))
    if "again" in theirs.attributes and "again" not in attributes:
        arrays = {leaf: f"ours: {path} {name}" for leaf, name in arrays.items()}
    arrays = {leaf: name for leaf, name in arrays.items() if leaf in leaves}
    return Layer(op, attributes, arrays, theirs.name, theirs.where)


def _own(chain: Chain) -> Chain:
    """Ours, whose arrays she has none for."""
    return tuple(
        replace(item, arrays={leaf: f"ours: {name}" for leaf, name in item.arrays.items()})
        if isinstance(item, Layer)
        else replace(item, branches=tuple(map(_own, item.branches)))
        for item in chain
    )
