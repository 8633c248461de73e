"""Nets in step: what each backend computes, taken from all of them array by array, and the differences judged."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from common.arch import Arch, name_of
from common.errors import RosettaError
from common.init import randomised
from common.names import count, parameters, sections
from common.parity.checks import CHECKS, Item, Job
from common.parity.comparison import Comparison
from common.parity.difference import EPSILON, MOVED, OWN, PASS, Difference, Sized, added_up, difference, drifted, judged
from common.weights import Weights, check, not_finite


class Runner(Protocol):
    """A backend: common/parity/backends.py."""

    spec: str
    device: str

    def versions(self) -> dict[str, str]: ...
    def run(self, job: Job) -> Iterator[Item]: ...


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
            kept |= {c for c in wanted[narrow] if backend is first or c in OWN}
        return tuple(c for c in CHECKS if c in kept and (c == "forward" or not backend.spec.startswith("onnx")))

    clock("building")
    streams = {
        (b.spec, d): _Stream(b.run(Job(arch, x, d, needed(b, d), weights, steps, seed, every)), needed(b, d))
        for d in dict.fromkeys(("float64", *wanted))
        for b in backends
        if needed(b, d)
    }
    exact = streams[first.spec, "float64"]
    most = added_up(x)
    result.rows = {(b.spec, d): [] for b in others for d in wanted}
    while (group := exact.next_check()) is not None:
        if group == "net":
            for key, s in streams.items():
                _count(result, key[0], s.rest(group))
            continue
        clock(" ".join(group.split()[:2]))
        found: dict[tuple[str, str], list[Sized]] = {key: [] for key in result.rows}
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
                if (who, d) in passing and item.part in PASS and apart > passing[who, d]:
                    passing[who, d] = apart
            size = max(float(item.value.max()), -float(item.value.min())) if item.value.size else 0.0
            for backend, dtype in result.rows:
                if (backend, dtype) in values and group.split()[0] in wanted[dtype]:
                    row = _between(item, values[first.spec, dtype], values[backend, dtype])
                    floor = floors.get((first.spec, dtype))
                    in_pass = item.part in PASS
                    if floor is not None and in_pass and math.isfinite(floor):
                        floor = passing[first.spec, dtype]
                    if floor is not None and group.split()[0] in OWN:
                        own = floors[backend, dtype]
                        if group == "train":
                            own = min(passing[backend, dtype] if in_pass else own, most)
                        floor = own if own != own else max(floor, own)
                    found[backend, dtype].append((dataclasses.replace(row, floor=floor), size))
        surplus = {key: s.rest(group) for key, s in streams.items() if s is not exact}
        for key, rows in found.items():
            rows += [(_between(i, None, i.value), 0.0) for i in surplus.get(key, ())]
            result.rows[key] += judged(rows, key[1], layers, key[0].startswith("onnx"))
    over = [d for (_, dtype), rows in result.rows.items() if dtype == "float64" for d in rows if d.over]
    if over and all(d.check != "forward" and math.isfinite(d.relative) for d in over):
        clock(f"how far {first.spec} drifts from itself")
        again = tuple(c for c in CHECKS if c in {d.check.split()[0] for d in over})
        drift = _drift(first, Job(arch, x, "float64", again, weights, steps, seed, every))
        for key, compared in result.rows.items():
            if key[1] == "float64":
                result.rows[key] = [drifted(d, drift) for d in compared]
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
