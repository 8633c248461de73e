"""Edits of several layers that are one mistake, found before single layers are looked at."""

import re
from collections.abc import Iterator

from common.diagnosis.align import KINDS, Change
from common.diagnosis.edits import Edit, Explained, order
from common.diagnosis.parse import Join, layers


def relu_across(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """The last ReLU of a block on its branch, and not on the sum."""
    ends = {}
    for c in rest:
        if c.kind == "add" and c.op == "relu" and (m := re.match(r"(\d+)\.0\.(\d+)\+", c.path)):
            if int(m[2]) == len(_fork(c).branches[0]):
                ends[int(m[1])] = c
    both = {d for c in rest if c.kind == "drop" and c.op == "relu" and c.path.isdigit()
            if (end := ends.get(int(c.path) - 1)) for d in (c, end)}  # fmt: skip
    if both:
        blocks = e.blocks(c for c in both if c.kind == "add")
        says = f"the last ReLU of {blocks} is on the branch, and not on the sum"
        yield Edit("ReLU before the addition", "ReLU", says, frozenset(both))
    more = [c for c in ends.values() if c not in both]
    if more:
        says = f"a ReLU ends the branch of {e.blocks(more)}, and another one stands on the sum"
        yield Edit("ReLU before the addition", "ReLU", says, frozenset(more))


def _fork(c: Change) -> Join:
    fork = c.around[-1]
    assert isinstance(fork, Join)
    return fork


def last_norm(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """A pre-activation net that ends with its last addition."""
    group = [c for c in rest if c.kind == "drop" and c.op in ("norm", "group_norm", "relu") and e.part(c) == "head"]
    if {KINDS[c.op] for c in group} == {"norm", "activation"}:
        yield Edit("no last BN-ReLU", "norm", "no norm and no ReLU behind the last stage", frozenset(group))


def casts(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """A stretch of the net in another dtype, from one cast to the next."""
    group = sorted((c for c in rest if c.kind == "add" and c.op == "cast"), key=order)
    if group:
        kinds = sorted({x.attributes["dtype"] for c in group for x in layers((c.item,))} - {"float64"})
        says = f"{' and '.join(kinds) or 'another dtype'} {e.told(group[:1])}"
        yield Edit(f"{'-'.join(kinds) or 'casts'} inside", "dtype", says, frozenset(group))
