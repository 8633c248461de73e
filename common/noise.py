"""Dropout masks that two frameworks can share.

Each framework draws its own, as its users expect, except inside `shared(seed)`: there the n-th mask that a net
asks for is the same in both, since the nets ask in the same order. Only for eager calls, or a single trace.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

_source: ContextVar[np.random.Generator | None] = ContextVar("noise", default=None)


@contextmanager
def shared(seed: int) -> Iterator[None]:
    """Every mask drawn inside comes from this seed, in the order in which the layers ask."""
    token = _source.set(np.random.default_rng(seed))
    try:
        yield
    finally:
        _source.reset(token)


def mask(shape: Sequence[int], rate: float) -> np.ndarray | None:
    """0 with probability `rate`, else 1 / (1 - rate), in N C *S layout; None outside `shared`."""
    rng = _source.get()
    if rng is None:
        return None
    return (rng.random(tuple(shape)) >= rate) / (1 - rate)
