"""What a fault does to a net, measured: the net with it against the other framework's without."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from common.arch import Arch
from common.errors import RosettaError
from common.parity import Comparison, compare
from common.parity.backends import Elsewhere, Here, check_spec, environment_of
from common.parity.difference import Difference
from common.parity.lockstep import Runner
from common.teaching.faults import NETS, Fault, injected

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


@contextlib.contextmanager
def with_faults(
    faults: Sequence[Fault], framework: str, backends: Sequence[str], device: str = "cpu"
) -> Iterator[list[Runner]]:
    """The backends, as `common.parity.backends.started` gives them, of which that of `framework` runs in this process
    and has the faults. Raises RosettaError where there is none, or several, where the net has no place for a fault, and
    where one fault would undo another."""
    faulty = [spec for spec in backends if spec.partition(":")[0] == framework]
    if len(faulty) != 1:
        given = "none" if not faulty else ", ".join(faulty)
        raise RosettaError(f"a fault in {framework}'s net needs exactly one backend of it: --backends has {given}")
    sound = [check_spec(spec, device) for spec in backends if spec not in faulty]
    if not sound:
        raise RosettaError("--backends needs another one, without the fault, to compare with")
    for name, value in environment_of(faulty[0], device).items():  # before a framework is imported here
        os.environ.setdefault(name, value)
    with contextlib.ExitStack() as stack:
        running = {spec: stack.enter_context(contextlib.closing(Elsewhere(spec, device))) for spec in sound}
        with injected(faults, framework):
            try:
                yield [running.get(spec) or Here(spec, device) for spec in backends]
            except (AttributeError, KeyError) as e:  # a layer or a tensor that this net hasn't
                raise RosettaError(f"a mistake has no place in this net: {whose(faults)} ({e})") from None


def whose(faults: Sequence[Fault]) -> str:
    """Of which nets the faults are mistakes."""
    return ", ".join(f"{f.name!r} is a mistake of {f.net} nets" for f in faults)


def first(result: Comparison) -> Difference | None:
    """The first array over tolerance, in the first dtype that has one; None if none is."""
    (backend,) = result.others
    return next(filter(None, (result.first_over(backend, dtype) for dtype in result.dtypes)), None)


def drift(result: Comparison, to: str = "forward") -> dict[str, float]:
    """How far apart two nets are on the way to the end of the check `to`: each array of the forward pass; or, where it
    is a later check, the worst of each kind of arrays of each check."""
    rows, found = result.rows[result.others[0], result.dtypes[0]], dict[str, float]()
    last = max(i for i, d in enumerate(rows) if d.check == to)
    for d in rows[: last + 1]:
        label = d.name if to == "forward" else f"{d.check}: {d.part}"
        found[label] = max(found.get(label, 0.0), d.relative)
    return found
