"""A live net as a tree: recorded in evaluation and in training mode, and the two told together."""

from dataclasses import replace

import numpy as np

from common.diagnosis.normal import normal
from common.diagnosis.parse import Chain, Item, Join, Layer, Net, parse
from common.diagnosis.tape import Live

_WHEN = {(False, True): "in training", (True, True): "always", (False, False): "never"}  # a norm reads its batch


class OtherInTraining(Exception):
    """The net is another graph in training mode, masks apart."""


def capture(live: Live, x: np.ndarray) -> Net:
    """The net as one run of `x` (N C *S) in each mode shows it. Raises Unparsed, or OtherInTraining."""
    arrays = live.arrays()
    net, training = (parse(normal(live.record(x, mode)), arrays) for mode in (False, True))
    return replace(net, chain=_both(net.chain, training.chain))


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
