"""Whether nets are the same function: what each backend computes, compared array by array, the first that differs
named.

The yardstick is the framework itself. In float64 two correct nets agree to rounding, so there equality is asked for. In
fewer bits they are as far apart as each is from itself in float64, so that distance, the noise floor, stands beside.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from common.arch import Arch, name_of
from common.errors import RosettaError
from common.init import randomised
from common.names import count, parameters, section_of, sections
from common.parity.checks import CHECKS, Item, Job
from common.weights import Weights, check, not_finite

ROUNDING, SUSPICIOUS, DIFFERENT = VERDICTS = ("rounding", "suspicious", "different")
WORDS = {
    ROUNDING: "as far apart as two correct computations come to be, since each rounds its numbers at other places",
    SUSPICIOUS: "more than that, and as little as a constant's last digits or one operation in fewer bits would make",
    DIFFERENT: "more than rounding can explain: another function from there on",
    "noise floor": "how far a framework, computing in so many bits, is from itself in float64",
    "drift": "how the difference grows from layer to layer, because each one adds its own rounding",
}  # fmt: skip

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
DTYPES = tuple(EPSILON)


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


class Runner(Protocol):
    """A backend: common/parity/backends.py."""

    spec: str
    device: str

    def versions(self) -> dict[str, str]: ...
    def run(self, job: Job) -> Iterator[Item]: ...


@dataclass
class Comparison:
    """What `compare` found; `to_json` is the file that `rosetta compare --json` writes."""

    name: str
    arch: Arch
    input_shape: tuple[int, ...]
    checks: tuple[str, ...]
    dtypes: tuple[str, ...]
    device: str = "cpu"
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  # by backend, the first first
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # by backend and "spec": parameters, statistics
    exact: dict[str, bool] = field(default_factory=dict)  # by backend: the weights read back as given, to the bit
    rows: dict[tuple[str, str], list[Difference]] = field(default_factory=dict)  # by backend and dtype, in order
    seconds: dict[str, float] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)  # files

    @property
    def first(self) -> str:
        return next(iter(self.versions))

    @property
    def others(self) -> list[str]:
        return list(self.versions)[1:]

    def first_over(self, backend: str, dtype: str) -> Difference | None:
        """The first array, in the order of the checks and of the pass, that differs by more than rounding."""
        return next((d for d in self.rows[backend, dtype] if d.over), None)

    @property
    def same_counts(self) -> bool:
        return all(found == self.counts["spec"] for found in self.counts.values())

    def verdict_of(self, backend: str, dtype: str) -> str:
        """The worst verdict of all arrays."""
        return max((d.verdict for d in self.rows[backend, dtype]), key=VERDICTS.index, default=ROUNDING)

    @property
    def verdict(self) -> str:
        if not self.same_counts or not all(self.exact.values()):
            return DIFFERENT
        return max((self.verdict_of(*key) for key in self.rows), key=VERDICTS.index, default=ROUNDING)

    @property
    def headline(self) -> str:
        """The verdict for a reader who doesn't know its word yet."""
        return {
            ROUNDING: "the same function, to rounding", SUSPICIOUS: "nearly the same function, but not to rounding",
            DIFFERENT: "not the same function",
        }[self.verdict]  # fmt: skip

    @property
    def equal(self) -> bool:
        return self.verdict == ROUNDING

    def why(self, backend: str, dtype: str) -> str:
        """The verdict in words: what differs first, and what that means."""
        rows, over = self.rows[backend, dtype], self.first_over(backend, dtype)
        if over is None:
            worst = worst_of(rows)
            if worst is None:
                return "nothing was compared"
            if dtype == "float64":
                drifts = f", which {self.first} is from itself where the input moves by {MOVED}"
                return f"the largest difference is {worst.relative:.1e}, of {label(worst)}" + drifts * bool(worst.floor)
            most = max(rows, key=lambda d: d.relative / d.floor if d.floor else 0.0)
            return f"at most {most.relative / (most.floor or 1):.1f} noise floors, of {label(most)}"
        agrees = (backend, "float64") in self.rows and self.first_over(backend, "float64") is None
        if not math.isfinite(over.relative):
            missing = over.relative == math.inf
            return f"{label(over)}: " + (
                "one of the two doesn't have it, or in another shape" if missing else "not a finite number"
            )
        size = f"{label(over)} is {over.relative:.1e} apart, where {over.tolerance:.1e} is rounding"
        if over.floor is not None and agrees:
            return f"{size}: in float64 they agree, so it is one function, computed in fewer bits by one of them"
        if dtype == "float64" and over.verdict == SUSPICIOUS:
            size += ", the size of float32's rounding or of a constant's last digits"
        return f"{size}: {_meaning(over)}"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "verdict": self.verdict, "equal": self.equal, "arch": dataclasses.asdict(self.arch),
            "input": self.input_shape, "inputs": [os.path.basename(path) for path in self.inputs],
            "checks": self.checks,
            "dtypes": self.dtypes, "device": self.device,
            "versions": self.versions, "counts": self.counts, "weights_bit_exact": self.exact, "seconds": self.seconds,
            "compared": [
                {
                    "backend": backend, "against": self.first, "dtype": dtype,
                    "verdict": self.verdict_of(backend, dtype),
                    "why": self.why(backend, dtype), "first_over": _plain(self.first_over(backend, dtype)),
                    "rows": [_plain(d) for d in rows],
                }
                for (backend, dtype), rows in self.rows.items()
            ],
        }  # fmt: skip


def _plain(d: Difference | None) -> dict[str, Any] | None:
    """As JSON has it: without NaN and infinity, which it lacks."""
    if d is None:
        return None
    return {
        key: str(v) if isinstance(v, float) and not math.isfinite(v)
        else [x if math.isfinite(x) else str(x) for x in v] if key == "values" else v
        for key, v in dataclasses.asdict(d).items()
    }  # fmt: skip


def label(d: Difference) -> str:
    """An array in words: "layer1.0.bn1 (forward)"."""
    return f"{d.name}{' of the input' if d.part == 'input' else ''} ({d.check})"


def _meaning(d: Difference) -> str:
    """What a difference can come from, by where it is the first one."""
    kind, _, place = d.check.partition(" ")
    if kind == "forward":
        return "another function from there on; all before it agrees"
    if kind == "train":
        return {
            "layers": "evaluation agrees, so what it does in training mode differs: batch statistics, or a mask",
            "logits": "evaluation agrees, so what it does in training mode differs: batch statistics, or a mask",
            "loss": "the logits agree, so the loss is another function",
        }.get(
            d.part, "the batch is normalised alike, so what is kept of it differs: momentum, or the variance's n/(n-1)"
        )
    if kind == "gradients":
        return "the pass agrees, so something is differentiated otherwise"
    return f"an update rule that is another one, or parts at that step: {place}"


def worst_of(rows: Sequence[Difference]) -> Difference | None:
    """The largest difference; one that isn't finite is the largest there is."""
    return max(rows, key=lambda d: (d.relative != d.relative, d.relative), default=None)


PARTS = {"statistics": "running statistics"}  # as a page says them


def summary(rows: Sequence[Difference]) -> dict[tuple[str, str], list[Difference]]:
    """The rows in groups that fit a page: layers and gradients by stage, steps by rule."""
    groups: dict[tuple[str, str], list[Difference]] = {}
    for d in rows:
        check = " ".join(d.check.split()[:2])
        what = section_of(d.name) if d.part in ("layers", "gradients") else PARTS.get(d.part, d.part)
        groups.setdefault((check, what), []).append(d)
    return groups


def tolerance(check: str, part: str, layers: int, graph: bool = False) -> float:
    """What is rounding in float64, for a net of so many layers, or a graph of it."""
    if graph:
        return GRAPH
    kind = check.split()[0]
    allowed = TOLERANCE.get((kind, part), TOLERANCE[kind])
    return allowed * (DEEPER if layers > DEEP and kind == "gradients" else 1)


def refuse_not_finite(x: np.ndarray, weights: Weights | None, inputs: Sequence[str] = ()) -> None:
    """Raises RosettaError, naming them, for inputs and weights with NaN or infinity: nothing equals those."""
    if not np.isfinite(x).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(x))[0])
        named = inputs[where[0]] if len(inputs) == len(x) else ", ".join(inputs) or "the input"
        raise RosettaError(f"{named} holds {x[where]} at {list(where)}: expected finite numbers")
    if broken := not_finite(weights or {}):
        raise RosettaError(f"the weights hold NaN or infinity, in {broken}: expected finite numbers")


def compare(
    arch: Arch,
    x: np.ndarray,
    weights: Weights | None = None,
    *,
    backends: Sequence[Runner],
    dtypes: tuple[str, ...] = ("float64", "float32"),
    checks: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ("forward", "train", "gradients"),
    steps: int = 3,
    every: bool = True,
    seed: int = 0,
    name: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Comparison:
    """The same weights and input through every backend, each array of each check against the first backend's.

    `x` is float64, N C *S; `weights` default to random ones under which every mistake shows. `checks` are for all
    `dtypes`, or by dtype. `every`: parameters after each optimizer step, or after the last alone. `progress` is told
    what is being done. Fewer bits than float64 are given their noise floor, for which backends run in float64 whatever
    `dtypes` says. Raises RosettaError for weights that don't fit or aren't finite, and what a backend raises.
    """
    refuse_not_finite(x, weights)
    weights = randomised(arch) if weights is None else weights
    check(arch, weights)
    clock = _Clock(progress)
    first, *others = backends
    wanted = dict(checks) if isinstance(checks, Mapping) else dict.fromkeys(dtypes, checks)
    asked = tuple(c for c in CHECKS if any(c in of for of in wanted.values()))
    result = Comparison(name or name_of(arch) or "custom", arch, x.shape, asked, tuple(wanted), first.device)
    result.seconds = clock.took
    clock(f"starting {', '.join(b.spec for b in backends)}")
    result.versions = {b.spec: b.versions() for b in backends}
    spec = parameters(arch)
    trainable = count(spec)
    result.counts["spec"] = {
        "parameters": trainable,
        "statistics": count(spec, statistics=True) - trainable,
    }
    layers = sum(s.layers for s in sections(arch))

    def needed(backend: Runner, dtype: str) -> tuple[str, ...]:
        """The checks of a backend in a dtype: float64's also where fewer bits need them as their yardstick."""
        kept = set(wanted.get(dtype, ()))
        for narrow in set(wanted) - {"float64"} if dtype == "float64" else ():
            kept |= {c for c in wanted[narrow] if backend is first or c in _OWN}
        return tuple(c for c in CHECKS if c in kept and (c == "forward" or not backend.spec.startswith("onnx")))

    clock("building")
    streams = {
        (b.spec, d): _Stream(b.run(Job(arch, x, d, needed(b, d), weights, steps, seed, every)), needed(b, d))
        for d in dict.fromkeys(("float64", *wanted))
        for b in backends
        if needed(b, d)
    }
    exact = streams[first.spec, "float64"]
    most = _added_up(x)
    result.rows = {(b.spec, d): [] for b in others for d in wanted}
    while (group := exact.next_check()) is not None:
        if group == "net":
            for key, s in streams.items():
                _count(result, key[0], s.rest(group))
            continue
        clock(" ".join(group.split()[:2]))
        found: dict[tuple[str, str], list[_Sized]] = {key: [] for key in result.rows}
        # rounding adds up through a pass: the worst floor so far
        passing = {(b.spec, d): EPSILON[d] for b in backends for d in wanted}
        while (item := exact.next_of(group)) is not None:
            values = {
                key: item.value if s is exact else s.find(item)
                for key, s in streams.items()
                if group.split()[0] in s.checks and not _silent(key[0], item)
            }
            floors = {
                (who, d): _between(item, values[who, "float64"], value).relative
                for (who, d), value in values.items()
                if d != "float64" and (who, "float64") in values
            }
            for (who, d), apart in floors.items():
                if (who, d) in passing and item.part in _PASS and apart > passing[who, d]:
                    passing[who, d] = apart
            size = max(float(item.value.max()), -float(item.value.min())) if item.value.size else 0.0
            for backend, dtype in result.rows:
                if (backend, dtype) in values and group.split()[0] in wanted[dtype]:
                    row = _between(item, values[first.spec, dtype], values[backend, dtype])
                    floor = floors.get((first.spec, dtype))
                    in_pass = item.part in _PASS
                    if floor is not None and in_pass and math.isfinite(floor):
                        floor = passing[first.spec, dtype]
                    if floor is not None and group.split()[0] in _OWN:
                        own = floors[backend, dtype]
                        if group == "train":
                            own = min(passing[backend, dtype] if in_pass else own, most)
                        floor = own if own != own else max(floor, own)
                    found[backend, dtype].append((dataclasses.replace(row, floor=floor), size))
        surplus = {key: s.rest(group) for key, s in streams.items() if s is not exact}
        for key, rows in found.items():
            rows += [(_between(i, None, i.value), 0.0) for i in surplus.get(key, ())]
            result.rows[key] += _judged(rows, key[1], layers, key[0].startswith("onnx"))
    over = [d for (_, dtype), rows in result.rows.items() if dtype == "float64" for d in rows if d.over]
    if over and all(d.check != "forward" and math.isfinite(d.relative) for d in over):
        clock(f"how far {first.spec} drifts from itself")
        again = tuple(c for c in CHECKS if c in {d.check.split()[0] for d in over})
        drift = _drift(first, Job(arch, x, "float64", again, weights, steps, seed, every))
        for key, compared in result.rows.items():
            if key[1] == "float64":
                result.rows[key] = [_drifted(d, drift) for d in compared]
    clock("done")
    return result


def _drift(backend: Runner, job: Job) -> dict[tuple[str, str], float]:
    """How far a backend comes to be from itself, by check and part, where the input changes in its last bits: training
    magnifies that as it does the rounding of two frameworks, three steps of a deep plain net by more than a million."""
    moved = dataclasses.replace(job, x=job.x * (1 + MOVED * np.random.default_rng(0).standard_normal(job.x.shape)))
    worst: dict[tuple[str, str], float] = {}
    for a, b in zip(backend.run(job), backend.run(moved), strict=True):
        apart = difference(a.check, a.part, a.name, a.value, b.value).relative
        if a.check != "net" and math.isfinite(apart):
            worst[a.check, a.part] = max(worst.get((a.check, a.part), 0.0), apart)
    return worst


def _drifted(d: Difference, drift: Mapping[tuple[str, str], float]) -> Difference:
    """The row with the drift as its floor, where that is what allows more."""
    floor = drift.get((d.check, d.part), 0.0)
    allowed = MANY_FLOORS * floor  # a single drift, of many that might have been
    if allowed <= d.tolerance:
        return d
    return dataclasses.replace(
        d, floor=floor, tolerance=allowed, verdict=ROUNDING if d.relative <= allowed else d.verdict
    )


def _added_up(x: np.ndarray) -> float:
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


# A ReLU's mask that flips moves a gradient by a thousand times what rounding does, in one framework or in the other:
# there the floor is the larger of both frameworks' own. In training mode, too, but the other's counts no further than
# what sums over this input can be off: it may add up in another order, but not in fewer bits
_OWN = ("train", "gradients", "steps")
_PASS = ("layers", "logits")


def _silent(backend: str, item: Item) -> bool:
    """Whether a backend has nothing to say of an item: a referee runs a graph, and gives its logits."""
    return backend.startswith("onnx") and (item.check, item.part) != ("forward", "logits")


def _between(item: Item, a: np.ndarray | None, b: np.ndarray | None) -> Difference:
    if a is None or b is None:
        return Difference(item.check, item.part, item.name, math.inf, math.inf, math.nan, floor=math.inf)
    return difference(item.check, item.part, item.name, a, b)


class _Clock:
    """Tells `progress` what begins, and keeps how long each thing took."""

    def __init__(self, progress: Callable[[str], None]):
        self.progress, self.took, self.since, self.what = progress, {}, time.perf_counter(), ""  # type: ignore[var-annotated]

    def __call__(self, what: str) -> None:
        now = time.perf_counter()
        if self.what:
            self.took[self.what] = self.took.get(self.what, 0.0) + now - self.since
        if what != self.what:
            self.progress(what)
        self.since, self.what = now, what


class _Stream:
    """The items of one backend, found by name, where order may be another one. Holds what was passed over."""

    def __init__(self, items: Iterator[Item], checks: tuple[str, ...]):
        self.items, self.checks = iter(items), checks
        self.ahead = next(self.items, None)
        self.passed: dict[tuple[str, str], Item] = {}

    def next_check(self) -> str | None:
        return self.ahead.check if self.ahead else None

    def next_of(self, check: str) -> Item | None:
        """The next item of this check."""
        item = self.ahead
        if item is None or item.check != check:
            return None
        self.ahead = next(self.items, None)
        return item

    def find(self, wanted: Item) -> np.ndarray | None:
        """The array of the same check, part and name, if there is one."""
        if (key := (wanted.part, wanted.name)) in self.passed:
            return self.passed.pop(key).value
        while (item := self.next_of(wanted.check)) is not None:
            if (item.part, item.name) == key:
                return item.value
            self.passed[item.part, item.name] = item
        return None

    def rest(self, check: str) -> list[Item]:
        """What nobody asked for, to the end of the check."""
        left = list(self.passed.values())
        self.passed = {}
        while (item := self.next_of(check)) is not None:
            left.append(item)
        return left


def _count(result: Comparison, backend: str, items: list[Item]) -> None:
    found = {item.name: int(item.value) for item in items}
    if not found:  # a referee
        return
    exact = found.pop("exact", 1)
    result.exact[backend] = result.exact.get(backend, True) and bool(exact)
    if result.counts.setdefault(backend, found) != found:
        raise RosettaError(f"{backend} built two nets of one row, with {result.counts[backend]} and {found}")


_Sized = tuple[Difference, float]  # with the largest element of the exact array


def _judged(sized: list[_Sized], dtype: str, layers: int, graph: bool = False) -> list[Difference]:
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
        if d.part in _PASS and d.check in ("forward", "train"):
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
