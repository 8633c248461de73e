"""A net made fast, and held against the net that it was made from."""

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.arch import Arch
from common.errors import RosettaError
from common.names import parameters, sections
from common.parity.difference import TOLERANCE, difference
from common.weights import differences

CACHED = 8 * 2**20  # bytes of an activation that a processor keeps near
MOST_PARTS = 8  # of a batch: each is compiled on its own
FLOORS = 10  # of the dtype's noise that a fast net may be from the plain one
# a net from itself with its activations in another order: up to 1.7e-15 in float64 was seen, else 1 to 5 of these
EPSILON = {"float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}


@dataclass(frozen=True)
class Optimized:
    """A callable of images, as the framework has them, that gives the plain net's logits in its dtype.

    The framework's compiler is fast on batches of the example's shape, and any other goes through the plain net; the
    engines that run a graph take any batch and size.
    """

    run: Callable[[Any], Any]
    dtype: str  # that it computes in
    steps: tuple[str, ...]  # what was done
    difference: float  # of its logits on the example from the plain net's, over the largest
    floor: float | None  # noise: the plain net against itself in more bits; None in float64, and where that can't run
    engine: str = "compiler"  # that runs it
    seconds: Mapping[str, float] = field(default_factory=dict)  # of a run by engine, where it is the fastest of several
    left_out: Mapping[str, str] = field(default_factory=dict)  # by engine, why it wasn't one of them

    def __call__(self, x: Any) -> Any:
        return self.run(x)

    def __str__(self) -> str:
        beside = f", where {self.dtype} itself makes {self.floor:.1e}" if self.floor else ""
        said = [f"{', '.join(self.steps)}; {self.difference:.1e} from the plain net{beside}"]
        if own := self.seconds.get(self.engine):
            others = sorted((s, name) for name, s in self.seconds.items() if name != self.engine)
            times = " and ".join(f"{s / own:.2f} times as fast as {name} ({s:.3g} s)" for s, name in others)
            said.append(f"{self.engine} is the fastest here: {own:.3g} s, {times}")
        return "; ".join([*said, *(f"without {name}: {why}" for name, why in self.left_out.items())])


def check_row(model: Any) -> None:
    """Raises RosettaError unless the model has a row, of which a fast one is made."""
    if not hasattr(model, "plan"):
        raise RosettaError(
            f"a fast net is made from the row of a net of create_model or load; a {type(model).__name__} has none"
        )


def check_example(example: Any, arch: Arch, is_kind: bool, expected: str, channel: int) -> None:
    """Raises RosettaError unless `example` is a batch of images for the row: of the framework's kind, in words
    `expected`, with its channels on axis `channel`."""
    said = " x ".join(map(str, example.shape)) if hasattr(example, "shape") else type(example).__name__
    if not is_kind or len(example.shape) != arch.dims + 2:
        raise RosettaError(f"the example has to be a batch of images, {expected}; got {said}")
    if example.shape[channel] != arch.in_channels:
        raise RosettaError(f"the net takes {arch.in_channels} channels; the example is {said}")


def check_names(arch: Arch, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raises RosettaError unless a net's weights are called and shaped as its row has them."""
    if apart := differences(parameters(arch), {name: (tuple(shape), "float32") for name, shape in shapes.items()}):
        raise RosettaError(f"the net isn't its row any more, and a fast one is made from the row: {apart}")


def check_same(given: np.ndarray, row: np.ndarray, dtype: str) -> None:
    """Raises RosettaError unless a net's logits are those of a net that its row and its weights make, both in `dtype`:
    somebody replaced a module, set an attribute or a hook, and the fast net, made from the row, would lack it."""
    apart, limit = _apart(given, row), 10 * EPSILON[dtype] if dtype in EPSILON else TOLERANCE["forward"]
    if not apart <= limit:
        raise RosettaError(
            f"the net isn't its row any more: with the same weights the row's logits are {apart:.1e} from the net's in "
            f"{dtype}, where {limit:.1e} is rounding. A fast net is made from the row, and would lack what was changed "
            "(a module, an attribute of a layer, a hook): undo the change, or use the net as it is"
        )


def in_parts(arch: Arch, shape: Sequence[int], dtype: str, steps: list[str]) -> tuple[int, int]:
    """(parts, early): in how many parts a batch (N C *S) should go through the stem and the first `early` stages on a
    CPU, so that what one layer writes is near when the next one reads it; (1, 0) where it is, or can't be. Says so in
    `steps`.

    Early are the stages whose activations are larger than their weights, which each part reads anew. Images in float32
    alone gain by it.
    """
    if dtype != "float32" or arch.dims != 2 or len(arch.kernels) > 1:
        return 1, 0
    batch, _, *size = shape
    stages = [s for s in sections(arch, size) if s.name not in ("stem", "head")]
    early = list(itertools.takewhile(lambda s: batch * math.prod(s.output) > s.parameters, stages))
    largest = max((4 * batch * math.prod(s.output) for s in early), default=0)
    fitting = (n for n in range(1, MOST_PARTS + 1) if batch % n == 0 and largest <= n * CACHED)
    if (parts := next(fitting, 1)) == 1:
        return 1, 0
    steps.append(f"the batch in {parts} parts as far as stage {len(early)}")
    return parts, len(early)


def noise(plain: np.ndarray, own: str, dtype: str, in_bits: Callable[[str], np.ndarray]) -> float | None:
    """The noise floor of `dtype`: `plain` are a plain net's logits of a few images in its `own` dtype, `in_bits(d)`
    those of the same net in the dtype d: in `dtype` if that is another, else in float64. None where nothing has more
    bits."""
    if dtype == own == "float64":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX', which has no float64 unless it is told
            return _apart(plain, in_bits("float64" if dtype == own else dtype))
    except RosettaError:
        return None


def proven(
    run: Callable[[Any], Any], logits: np.ndarray, plain: np.ndarray, dtype: str, steps: list[str],
    floor: float | None, engine: str = "compiler",
) -> Optimized:  # fmt: skip
    """`run` with what it differs by: `logits` are its own on the example, `plain` the plain net's. Raises RosettaError
    where the difference is more than rounding: such a net is not handed out."""
    apart = _apart(plain, logits)
    exact = (dtype, str(plain.dtype)) == ("float64", "float64")
    limit = TOLERANCE["forward"] if exact else FLOORS * (floor or 1e-6)
    if not apart <= limit:
        raise RosettaError(
            f"the fast net ({', '.join(steps)}) gives logits {apart:.1e} from the plain one's, where {limit:.1e} is "
            "rounding: use the plain one"
        )
    return Optimized(run, dtype, tuple(steps), apart, floor, engine)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return difference("forward", "logits", "logits", a, b).relative
