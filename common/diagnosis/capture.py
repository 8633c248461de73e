"""A live net as a tree: recorded in evaluation and in training mode, and the two told together."""

from dataclasses import replace

import numpy as np

from common.diagnosis.align import differing
from common.diagnosis.normal import normal
from common.diagnosis.parse import Chain, Item, Join, Layer, Net, parse
from common.diagnosis.tape import Live

_WHEN = {(False, True): "in training", (True, True): "always", (False, False): "never"}  # a norm reads its batch


class OtherInTraining(Exception):
    """The net is another graph in training mode, masks apart."""


class OtherAtSize(Exception):
    """The net is another graph at another size."""


def capture(live: Live, x: np.ndarray) -> Net:
    """The net as a run of `x` (N C *S) in each mode shows it. Raises Unparsed or OtherInTraining."""
    tapes = [normal(live.record(x, mode)) for mode in (False, True)]
    net, training = (parse(tape, live.arrays()) for tape in tapes)  # a recording may find kernels that are constants
    return replace(net, chain=_both(net.chain, training.chain))


def of_both(net: Net, other: Net) -> Net:
    """Captures at two sizes as one. A padding that depends on the size is "same". Raises OtherAtSize."""
    return replace(net, chain=_sizes(net.chain, other.chain))


def _sizes(a: Chain, b: Chain) -> Chain:
    """Two captures at different sizes as one."""
    if len(a) != len(b):
        raise OtherAtSize
    return tuple(_at_both(x, y) for x, y in zip(a, b, strict=True))


def _at_both(a: Item, b: Item) -> Item:
    if a.key == b.key:
        return a
    if isinstance(a, Join) and isinstance(b, Join) and a.op == b.op and len(a.branches) == len(b.branches):
        return replace(a, branches=tuple(_sizes(x, y) for x, y in zip(a.branches, b.branches, strict=True)))
    if isinstance(a, Layer) and isinstance(b, Layer):
        if a.op == b.op and set(differing(a, b)) <= {"before", "after", "counts"}:
            counts = {"counts": a.attributes["counts"] or b.attributes["counts"]} if "counts" in a.attributes else {}
            return replace(a, attributes={**a.attributes, **counts, "before": "same", "after": "same"})
        for one, other in ((a, b), (b, a)):
            if one.op == "mean" and one.attributes["at"] and other.op in ("avg_pool", "mean"):
                return one  # a pooling as wide as its input, at one of the sizes
            if one.op == other.op == "flatten":
                return one
    raise OtherAtSize


def _both(plain: Chain, training: Chain) -> Chain:
    """The chain of evaluation with the masks of training, and each norm saying when it reads the batch."""
    items: list[Item] = []
    rest = iter(plain)
    for t in training:
        if isinstance(t, Layer) and t.op == "dropout":
            items.append(t)
            continue
        e = next(rest, None)
        if isinstance(e, Join) and isinstance(t, Join) and len(e.branches) == len(t.branches) and e.op == t.op:
            branches = tuple(_both(a, b) for a, b in zip(e.branches, t.branches, strict=True))
            items.append(replace(e, branches=branches))
        elif isinstance(e, Layer) and isinstance(t, Layer) and e.op == t.op == "norm":
            when = _WHEN.get((e.attributes["batch"], t.attributes["batch"]), "in evaluation alone")
            items.append(replace(e, attributes={**t.attributes, "batch": when}))
        elif isinstance(e, Layer) and isinstance(t, Layer) and e.key == t.key:
            items.append(e)
        else:
            raise OtherInTraining
    if next(rest, None) is not None:
        raise OtherInTraining
    return tuple(items)
