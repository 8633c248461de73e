"""What a fault does to a net, measured: the net with it against the other framework's without."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.arch import Arch
from common.parity.backends import Here
from common.parity.comparison import Comparison, Difference, compare
from common.teaching.faults import NETS, Fault

BACKENDS = {"torch": "torch", "keras": "keras:tensorflow"}


def measure(
    fault: Fault | None, framework: str = "keras", *, of: Fault | None = None, arch: Arch | None = None,
    images: np.ndarray | None = None, checks: Sequence[str] | None = None, **options: Any,
) -> Comparison:  # fmt: skip
    """The comparison of `framework`'s net, which has the fault, with the other framework's, which hasn't. Both run in
    this process.

    Net and images (N C *S) are the fault's own where no `arch` is given. Without a fault both nets are sound, and `of`
    says whose net and checks are meant. `options` are `compare`'s. Raises RosettaError for an unknown framework.
    """
    shown = fault or of
    if arch is None and shown is not None:
        arch, images = NETS[shown.net][0], shown.images()
    assert arch is not None and images is not None
    other = "torch" if framework == "keras" else "keras"
    options = {"dtypes": shown.dtypes if shown else ("float64",), **options}
    checks = tuple(checks or (shown.checks if shown else ("forward",)))

    def run() -> Comparison:
        backends = (Here(BACKENDS[other]), Here(BACKENDS[framework]))
        return compare(arch, images, backends=backends, checks=checks, **options)

    if fault is None:
        return run()
    with fault.injected(framework):
        return run()


def first(result: Comparison) -> Difference | None:
    """The first array over tolerance, in the first dtype that has one; None if none is."""
    (backend,) = result.others
    return next(filter(None, (result.first_over(backend, dtype) for dtype in result.dtypes)), None)
