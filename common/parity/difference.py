"""Two arrays against each other, and what of their difference is rounding.

The yardstick is the framework itself. In float64 two correct nets agree to rounding, so there equality is asked for. In
fewer bits they are as far apart as each is from itself in float64, so that distance, the noise floor, stands beside.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

ROUNDING, SUSPICIOUS, DIFFERENT = VERDICTS = ("rounding", "suspicious", "different")

# float64, relative to the largest element of an array: (check, part) or check. What was measured is in docs/DESIGN.md.
TOLERANCE = {
    "forward": 1e-13, "train": 1e-10, ("train", "statistics"): 1e-11, "gradients": 1e-10, "steps": 1e-8
}  # fmt: skip
GRAPH = 1e-12  # ONNX has a norm's epsilon in float32, so 1e-5 is 2.5e-8 of itself off: 6e-13 in resnetv2_18
DEEP, DEEPER = 1000, 10.0  # how many layers are so many that gradients are allowed ten times as much
FAINT = 1e-5  # float64: up to here a difference has the size of float32's rounding, or of a constant's last digits

# fewer bits: how many noise floors are rounding; how many are the same function in fewer bits still
FLOORS = {"logits": 3.0, "": 10.0}
MANY_FLOORS = 100.0
LOGITS = {"float32": 1e-5}  # the forward pass' logits, whatever the floor
MOVED = 1e-15  # of the input, relatively: what a framework's drift from itself begins with
NOTHING = 1e-12  # a gradient so many times smaller than the largest is rounding, of zero
EPSILON = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

# A ReLU's mask that flips moves a gradient by a thousand times what rounding does, in one framework or in the other:
# there the floor is the larger of both frameworks' own. In training mode, too, but the other's counts no further than
# what sums over this input can be off: it may add up in another order, but not in fewer bits
OWN = ("train", "gradients", "steps")
PASS = ("layers", "logits")


@dataclass(frozen=True)
class Difference:
    """Two arrays against each other, element by element."""

    check: str
    part: str
    name: str
    relative: float  # largest difference over largest element of the first; nan where either is not finite
    absolute: float
    largest: float  # element of the first
    index: tuple[int, ...] = ()  # of the worst element, in PyTorch's layout
    values: tuple[float, float] = (math.nan, math.nan)  # there: the first backend's and the other's
    floor: float | None = None  # not in float64: the noise floor
    tolerance: float = 0.0  # what is rounding
    verdict: str = DIFFERENT

    @property
    def over(self) -> bool:
        return self.verdict != ROUNDING


def difference(check: str, part: str, name: str, a: np.ndarray, b: np.ndarray | None) -> Difference:
    """Compares two arrays; one that is absent or has another shape is infinitely far."""
    if b is None or a.shape != b.shape:
        return Difference(check, part, name, math.inf, math.inf, math.nan)
    if a.size == 0:
        return Difference(check, part, name, 0.0, 0.0, 0.0)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        gap = np.asarray(np.subtract(a, b, dtype=np.float64))
    np.abs(gap, out=gap)
    worst = int(np.argmax(gap))  # a NaN, if there is one
    index = tuple(int(i) for i in np.unravel_index(worst, a.shape))
    absolute, largest = float(gap.flat[worst]), max(float(a.max()), -float(a.min()))
    return Difference(
        check, part, name, _ratio(absolute, largest), absolute, largest, index, (float(a[index]), float(b[index]))
    )


def _ratio(absolute: float, largest: float) -> float:
    if not math.isfinite(largest):
        return math.nan
    return absolute / largest if largest else (0.0 if absolute == 0 else math.inf)


def tolerance(check: str, part: str, layers: int, graph: bool = False) -> float:
    """What is rounding in float64, for a net of so many layers, or a graph of it."""
    if graph:
        return GRAPH
    kind = check.split()[0]
    allowed = TOLERANCE.get((kind, part), TOLERANCE[kind])
    return allowed * (DEEPER if layers > DEEP and kind == "gradients" else 1)


Sized = tuple[Difference, float]  # with the largest element of the exact array


def judged(sized: list[Sized], dtype: str, layers: int, graph: bool = False) -> list[Difference]:
    """The rows of one check with floor, tolerance and verdict.

    A layer's floor is the worst of the pass so far; everything else has the worst of its kind, gradients that of all.
    An array that is nothing but rounding itself, such as the gradient of a bias that a norm takes away, is measured by
    the largest of its kind.
    """

    def kind(d: Difference) -> tuple[str, str]:
        return d.part, d.name.split()[-1] if d.part == "moments" else ""

    least = EPSILON[dtype]
    tops: dict[tuple[str, str], float] = {}
    for d, size in sized:
        tops[kind(d)] = max(tops.get(kind(d), 0.0), size)
    rows, floors = [], dict[tuple[str, str], float]()
    for d, size in sized:
        if d.part in ("gradients", "moments") and size < NOTHING * tops[kind(d)] and math.isfinite(d.absolute):
            floor = None if d.floor is None else least
            d = dataclasses.replace(d, relative=d.absolute / tops[kind(d)], floor=floor)
        rows.append(d)
        if d.floor is not None and math.isfinite(d.floor):
            floors[kind(d)] = max(floors.get(kind(d), least), d.floor)

    done = []
    for d in rows:
        if dtype == "float64":
            allowed = tolerance(d.check, d.part, layers, graph)
            verdict = ROUNDING if d.relative <= allowed else SUSPICIOUS if d.relative <= FAINT else DIFFERENT
            done.append(dataclasses.replace(d, floor=None, tolerance=allowed, verdict=verdict))
            continue
        known = d.floor is not None and math.isfinite(d.floor)
        if d.part in PASS and d.check in ("forward", "train"):
            floor = max(least, d.floor or 0.0) if known else least
        elif d.check == "gradients":
            floor = max([least, *floors.values()])
        elif d.part == "loss":  # a single number may be right by luck: what it was computed from, and what came of that
            floor = max([least, *(floors.get((p, ""), 0.0) for p in ("loss", "logits", "statistics"))])
        else:
            floor = floors.get(kind(d), least)
        logits = d.check == "forward" and d.part == "logits"
        allowed = FLOORS["logits" if logits else ""] * floor
        allowed = min(allowed, LOGITS.get(dtype, math.inf)) if logits else allowed
        # where one side has nothing, or a pass overflows, nothing is allowed
        far = not known or not d.relative <= MANY_FLOORS * floor
        verdict = DIFFERENT if far else ROUNDING if d.relative <= allowed else SUSPICIOUS
        done.append(dataclasses.replace(d, floor=floor, tolerance=allowed, verdict=verdict))
    return done


def drifted(d: Difference, drift: Mapping[tuple[str, str], float]) -> Difference:
    """The row with the drift as its floor, where that is what allows more."""
    floor = drift.get((d.check, d.part), 0.0)
    allowed = MANY_FLOORS * floor  # a single drift, of many that might have been
    if allowed <= d.tolerance:
        return d
    return dataclasses.replace(
        d, floor=floor, tolerance=allowed, verdict=ROUNDING if d.relative <= allowed else d.verdict
    )


def added_up(x: np.ndarray) -> float:
    """How far off the mean of a channel is where its values are added one after another in float32, over the largest:
    the worst of several scales of `x`, since a constant can be lucky.

    TensorFlow's batch statistics are sums of this kind. Of a photograph rounding goes either way and cancels (1e-6 of
    128 x 128 pixels); where a picture is white it goes one way (5e-4).
    """
    values = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)  # C, N * S
    worst = 0.0
    for scale in 1 + np.random.default_rng(0).random(8):
        scaled = (values * scale).astype(np.float32)
        gap = np.add.accumulate(scaled, 1)[:, -1] - scaled.sum(1, dtype=np.float64)
        worst = max(worst, float(np.abs(gap).max() / (np.abs(scaled).max() or 1) / scaled.shape[1]))
    return worst
