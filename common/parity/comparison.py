"""What a comparison found: differences by backend and dtype, their verdicts, and what those mean in words."""

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from common.arch import Arch
from common.names import section_of
from common.parity.difference import DIFFERENT, MOVED, ROUNDING, SUSPICIOUS, VERDICTS, Difference

WORDS = {
    ROUNDING: "as far apart as two correct computations come to be, since each rounds its numbers at other places",
    SUSPICIOUS: "more than that, and as little as a constant's last digits or one operation in fewer bits would make",
    DIFFERENT: "more than rounding can explain: another function from there on",
    "noise floor": "how far a framework, computing in so many bits, is from itself in float64",
    "drift": "how the difference grows from layer to layer, because each one adds its own rounding",
}  # fmt: skip


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
