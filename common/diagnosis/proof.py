"""That the words are true: our row with the edits is her net, and without any one of them it isn't.

Both are computed in float64, hers by itself and ours from the tree, with arrays that are drawn for it and carried over:
in evaluation and in training mode (statistics and gradients, too), at an even, an odd and a non-square size.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from common.diagnosis.align import Change, made
from common.diagnosis.edits import MASKS, NOWHERE, Edit, Explained
from common.diagnosis.tape import Live, Ran
from common.diagnosis.values import filled

EQUAL = {False: 1e-11, True: 1e-8}  # by training mode; seen: 2e-13 and 2e-11
DRIFT = 100.0  # times what a net is away from itself is rounding
OTHER = 10.0  # times that is a difference
NEGLIGIBLE = 1e-10  # of the largest gradient: what is nothing but rounding, as a bias' before a norm


SIZES: dict[
    tuple[bool, ...], str
] = {  # by whether it shows at an even, an odd and a non-square size, whose sides are even
    (True, False, True): "at even sizes; the same function at odd ones",
    (False, True, False): "at odd sizes; the same function at even ones",
}


@dataclass(frozen=True)
class Proof:
    """`worst` is the largest relative difference between her net and the row with the edits, None where a run failed;
    `holds` says whether that is rounding."""

    holds: bool
    worst: float
    sizes: tuple[tuple[int, ...], ...]
    edits: tuple[Edit, ...]  # each saying where it matters
    trained: bool = True


def apart(a: Ran, b: Ran) -> float:
    """The largest relative difference; infinite where shapes differ or one is no number."""
    pairs = [(a.output, b.output), *((a.statistics[n], b.statistics[n]) for n in a.statistics if n in b.statistics)]
    worst = max(_apart(x, y) for x, y in pairs)
    if a.gradients and b.gradients:
        largest = max(np.abs(g).max() for g in b.gradients.values())
        for name in a.gradients.keys() & b.gradients.keys():
            worst = max(worst, _apart(a.gradients[name], b.gradients[name], NEGLIGIBLE * largest / EQUAL[True]))
    return worst


def _apart(x: np.ndarray, y: np.ndarray, floor: float = 0.0) -> float:
    if x.size != y.size:
        return float("inf")
    difference = float(np.abs(x.reshape(-1) - y.reshape(-1)).max())
    scale = max(float(np.abs(y).max()), floor)
    return difference / scale if scale and np.isfinite(difference) else (0.0 if difference == 0 else float("inf"))


class Prover:
    def __init__(self, live: Live, explained: Explained, batches: tuple[np.ndarray, ...]):
        self.live, self.explained, self.batches = live, explained, batches
        self.arrays = live.arrays()
        self.hers: dict[tuple[int, bool], Ran] = {}

    def of_hers(self, k: int, training: bool) -> Ran:
        if (k, training) not in self.hers:
            self.hers[k, training] = self.live.run(self.batches[k], training)
        return self.hers[k, training]

    def distance(self, chosen: Collection[Change], k: int, training: bool) -> float:
        """Of the row with the chosen changes from her net, at the k-th size."""
        chain, arrays = filled(made(self.explained.pairs, chosen), self.arrays)
        try:
            ours = self.live.play(chain, arrays, self.batches[k], training)
        except NotImplementedError:
            raise
        except Exception:  # shapes that don't go together: so it is another net
            return float("inf")
        return apart(ours, self.of_hers(k, training))

    def prove(self) -> Proof:
        """Raises NotImplementedError, with its name, for an operation that isn't understood."""
        everything = frozenset(self.explained.all)
        sizes = tuple(tuple(x.shape[2:]) for x in self.batches)
        worst, holds = 0.0, True
        for training in (False, True):
            for k in range(len(self.batches)):
                d = self.distance(everything, k, training)
                worst, holds = max(worst, d), holds and d <= self.tolerance(k, training, d)
        edits = tuple(replace(e, matters=self.matters(e, everything)) for e in self.explained.edits) if holds else ()
        return Proof(bool(holds), float(worst), sizes, edits)

    def tolerance(self, k: int, training: bool, seen: float) -> float:
        """What is rounding. Where few values make a batch's statistics, a net magnifies it: by so much as it is away
        from itself when its input moves in the last bits."""
        if not training or seen <= EQUAL[training]:
            return EQUAL[training]
        x = self.batches[k]
        moved = x * (1 + 1e-15 * np.sign(np.sin(np.arange(x.size).reshape(x.shape))))
        return max(EQUAL[training], DRIFT * apart(self.live.run(moved, training), self.of_hers(k, training)))

    def matters(self, edit: Edit, everything: frozenset[Change]) -> str:
        """Where the net without this edit is another; empty where it is everywhere."""
        without = everything - edit.changes
        seen = [self.distance(without, k, False) > OTHER * EQUAL[False] for k in range(len(self.batches[:2]))]
        if all(seen):
            return ""
        seen += [self.distance(without, k, False) > OTHER * EQUAL[False] for k in range(2, len(self.batches))]
        if any(seen):
            return SIZES.get(tuple(seen), "at some sizes")
        if any(self.distance(without, k, True) > OTHER * EQUAL[True] for k in range(len(self.batches))):
            return "in training alone"
        if edit.kind == "dropout":
            return MASKS
        return NOWHERE
