"""The checker, checked: what counts as rounding is as docs/DESIGN.md says it, and not a little more.

The numbers below are that page's, written down a second time. A difference just under each is put into the comparison
and passes; one just over it doesn't. No framework runs: the backends are told what to give.
"""

import dataclasses
import math

import numpy as np
import pytest

from common import parity
from common.arch import get
from common.errors import RosettaError
from common.init import randomised
from common.names import count, parameters
from common.parity import rules
from common.parity.checks import Item, Job
from common.parity.difference import DIFFERENT, ROUNDING, SUSPICIOUS, tolerance
from common.speed import fast
from common.training import race, recipe
from common.training import run as training

ARCH = get("cifar_resnet20", depths=(1,), widths=(16,))
SIZES = parameters(ARCH)
WEIGHTS = randomised(ARCH)
X = np.ones((1, 3, 8, 8))
UNDER, OVER = 0.95, 1.05


class Told:
    """A backend that gives what it is told to, by dtype; of an input that was moved, what it is told of that."""

    device = "cpu"

    def __init__(self, spec: str, items: dict[str, list[Item]], moved: list[Item] | None = None):
        self.spec, self.items, self.moved, self.asked = spec, items, moved, []

    def versions(self):
        return {"device": "CPU"}

    def run(self, job: Job):
        self.asked.append(job)
        if not self.spec.startswith("onnx"):
            trained = count(SIZES)
            sizes = {"parameters": trained, "statistics": count(SIZES, statistics=True) - trained, "exact": 1}
            yield from (Item("net", "counts", name, np.array(n)) for name, n in sizes.items())
        given = self.items[job.dtype] if self.moved is None or np.array_equal(job.x, X) else self.moved
        yield from (i for i in given if i.check.split()[0] in job.checks)


def compared(a: Told, b: Told, dtype: str) -> parity.Comparison:
    checks = tuple(dict.fromkeys(i.check.split()[0] for i in a.items["float64"]))
    return parity.compare(ARCH, X, WEIGHTS, backends=(a, b), checks=checks, dtypes=(dtype,))


def array(by: float = 0.0, largest: float = 1.0) -> np.ndarray:
    """10,000 numbers of up to `largest`, one of them off by that part of it."""
    values = np.linspace(0.0, 1.0, 10_000)
    values[1234] += by
    return values * largest


def item(kind: tuple[str, str], value: np.ndarray, name: str = "x") -> list[Item]:
    return [Item(*kind, name, value)]


# (check, part): what is rounding in float64
EXACT = {
    ("forward", "layers"): 1e-13, ("forward", "logits"): 1e-13,
    ("train", "layers"): 1e-10, ("train", "logits"): 1e-10, ("train", "loss"): 1e-10, ("train", "statistics"): 1e-11,
    ("gradients", "gradients"): 1e-10, ("gradients", "input"): 1e-10,
    ("steps sgd 1", "loss"): 1e-8, ("steps sgd 1", "parameters"): 1e-8, ("steps adam 2", "moments"): 1e-8,
    ("steps adamw 3", "statistics"): 1e-8, ("steps nesterov 3", "logits"): 1e-8,
}  # fmt: skip
KINDS = pytest.mark.parametrize("kind", EXACT, ids="-".join)


def verdict64(kind, by: float, other: str = "keras:jax") -> str:
    a, b = Told("torch", {"float64": item(kind, array())}), Told(other, {"float64": item(kind, array(by))})
    return compared(a, b, "float64").verdict


@KINDS
def test_in_float64(kind):
    assert verdict64(kind, EXACT[kind] * UNDER) == ROUNDING
    assert verdict64(kind, EXACT[kind] * OVER) == SUSPICIOUS
    assert verdict64(kind, 1e-5 * UNDER) == SUSPICIOUS
    assert verdict64(kind, 1e-5 * OVER) == DIFFERENT


def test_a_graph_in_float64():
    kind = ("forward", "logits")
    assert verdict64(kind, 1e-12 * UNDER, "onnx:torch") == ROUNDING
    assert verdict64(kind, 1e-12 * OVER, "onnx:torch") == SUSPICIOUS


@pytest.mark.parametrize(("layers", "times"), [(20, 1), (101, 1), (1000, 1), (1001, 10), (1202, 10)])
def test_only_gradients_of_the_deepest_nets_may_differ_more(layers, times):
    for kind, allowed in EXACT.items():
        assert tolerance(*kind, layers) == pytest.approx(allowed * (times if kind[0] == "gradients" else 1))


def test_what_is_zero_is_measured_by_the_largest_and_nothing_else_is():
    def gradients(size: float, by: float = 0.0) -> Told:
        kind = ("gradients", "gradients")
        found = [*item(kind, array(), "weight"), *item(kind, array(by, size), "bias")]
        return Told("keras:jax" if by else "torch", {"float64": found})

    for size, verdict in ((1e-12 * UNDER, ROUNDING), (1e-12 * OVER, DIFFERENT), (1e-9, DIFFERENT)):
        assert compared(gradients(size), gradients(size, 0.5), "float64").verdict == verdict, size


NOISE = 1e-6  # of float32, here: a floor


def verdict32(kind, floors: float, noise: float = NOISE) -> str:
    """Both backends are `noise` from themselves in float64, and so many times that from each other."""
    a = Told("torch", {"float64": item(kind, array()), "float32": item(kind, array(noise))})
    apart = floors * noise
    b = Told("keras:jax", {"float64": item(kind, array(apart)), "float32": item(kind, array(noise + apart))})
    return compared(a, b, "float32").verdict


@KINDS
def test_in_float32_by_noise_floors(kind):
    allowed = 3.0 if kind == ("forward", "logits") else 10.0
    assert verdict32(kind, allowed * UNDER) == ROUNDING
    assert verdict32(kind, allowed * OVER) == SUSPICIOUS
    assert verdict32(kind, 100 * UNDER) == SUSPICIOUS
    assert verdict32(kind, 100 * OVER) == DIFFERENT


def test_logits_of_noisy_nets_in_float32():
    """However large the floor, 1e-5 is the most."""
    kind = ("forward", "logits")
    assert verdict32(kind, 0.5 * UNDER, 2e-5) == ROUNDING
    assert verdict32(kind, 0.5 * OVER, 2e-5) == SUSPICIOUS
    assert verdict32(kind, 2.9, 3e-6) == ROUNDING


def test_no_floor_is_under_the_dtypes_own():
    """A framework that is by luck exact in float32 is still a float32: half a unit, 2 to the -24."""
    kind, least = ("forward", "layers"), 2.0**-24
    a = Told("torch", dict.fromkeys(("float64", "float32"), item(kind, array())))
    for times, verdict in ((10 * UNDER, ROUNDING), (10 * OVER, SUSPICIOUS)):
        b = Told("keras:jax", {"float32": item(kind, array(times * least))})
        assert compared(a, b, "float32").verdict == verdict


def test_noise_of_later_layers_excuses_no_earlier_one():
    """A floor is the worst of the pass so far."""

    def layers(*by: float) -> list[Item]:
        return [i for n, b in enumerate(by) for i in item(("forward", "layers"), array(b), f"layer{n}")]

    a = Told("torch", {"float64": layers(0, 0, 0), "float32": layers(NOISE, 100 * NOISE, NOISE)})
    late = Told("keras:jax", {"float32": layers(NOISE, 100 * NOISE, 900 * NOISE)})
    early = Told("keras:jax", {"float32": layers(51 * NOISE, 100 * NOISE, NOISE)})
    assert compared(a, late, "float32").verdict == ROUNDING
    assert compared(a, early, "float32").verdict == SUSPICIOUS


STEPS = ("steps sgd 3", "parameters")


def drifting(kind, by: float, drift: float) -> tuple[parity.Comparison, Told]:
    a = Told("torch", {"float64": item(kind, array())}, item(kind, array(drift)))
    return compared(a, Told("keras:jax", {"float64": item(kind, array(by))}), "float64"), a


@pytest.mark.parametrize("kind", [k for k in EXACT if k[0] != "forward"], ids="-".join)
def test_a_hundred_times_the_frameworks_own_drift_is_excused_and_no_more(kind):
    by = 50 * EXACT[kind]
    assert drifting(kind, by, by / 100 * OVER)[0].verdict == ROUNDING
    assert not drifting(kind, by, by / 100 * UNDER)[0].equal
    assert not drifting(kind, by, 0.0)[0].equal


def test_nothing_in_evaluation_is_excused_by_a_drift():
    assert not drifting(("forward", "layers"), 2e-13, 1e-3)[0].equal
    both = [*item(("forward", "layers"), array()), *item(STEPS, array())]
    apart = [*item(("forward", "layers"), array(2e-13)), *item(STEPS, array(2e-8))]
    moved = [*item(("forward", "layers"), array(1e-3)), *item(STEPS, array(1e-3))]
    result = compared(Told("torch", {"float64": both}, moved), Told("keras:jax", {"float64": apart}), "float64")
    assert [d.over for d in result.rows["keras:jax", "float64"]] == [True, True]


def test_nothing_that_is_not_finite_is_excused():
    assert not drifting(STEPS, math.nan, 1e-3)[0].equal


def test_one_parts_drift_excuses_no_other():
    both = [*item(STEPS, array()), *item((STEPS[0], "statistics"), array())]
    apart = [*item(STEPS, array(2e-8)), *item((STEPS[0], "statistics"), array(2e-8))]
    moved = [*item(STEPS, array(1e-3)), *item((STEPS[0], "statistics"), array())]
    result = compared(Told("torch", {"float64": both}, moved), Told("keras:jax", {"float64": apart}), "float64")
    assert {d.part for d in result.rows["keras:jax", "float64"] if d.over} == {"statistics"}


def test_a_drift_begins_with_the_last_bits_of_the_input():
    _, backend = drifting(STEPS, 2e-8, 1e-9)
    moves = [np.std(job.x - X) for job in backend.asked if not np.array_equal(job.x, X)]
    assert moves and all(0.8e-15 < m < 1.25e-15 for m in moves)


def test_steps_see_other_images_and_another_rate():
    """By hand: moved by three columns a step, and a tenth of the rate in the last third."""
    x = np.arange(10.0).reshape(1, 1, 1, 10)
    assert [Job(ARCH, x).batch(step)[0, 0, 0, 0] for step in range(3)] == [0, 7, 4]
    rule = rules.PROVEN["sgd"]
    assert [rules.rate(rule, step, 3) / rule.rate for step in range(3)] == pytest.approx([1, 1, 0.1])
    assert rules.rate(rule, 0, 1) == rule.rate


# -- what `optimize` hands out


@pytest.mark.parametrize(
    ("dtype", "floor", "limit"),
    [("float64", None, 1e-13), ("float32", 1e-6, 1e-5), ("float32", None, 1e-5), ("bfloat16", 1e-3, 1e-2)],
)
def test_a_fast_net_is_within_ten_floors(dtype, floor, limit):
    def made(by: float) -> fast.Optimized:
        wide = "float64" if dtype == "float64" else "float32"
        plain = np.array([[4.0, 1.0, -2.0]], wide)
        return fast.proven(lambda x: x, plain.astype(float) + [[0, 4 * by, 0]], plain, dtype, ["done"], floor)

    assert made(limit * UNDER).difference == pytest.approx(limit * UNDER, rel=1e-2)
    for by in (limit * OVER, math.nan, math.inf):
        with pytest.raises(RosettaError, match="use the plain one"):
            made(by)


# -- what a race calls even

STEADY = 12  # steps of it


def raced(precision: str, apart: dict[int, float], drift: dict[int, float]) -> race.Race:
    """A race of two, by step, from 1: how far the second is from the first, and the first from itself."""
    run = training.Run("r", ARCH, "digits", recipe.get("cifar", precision=precision))
    steady = np.full(STEADY, 2.0)

    def off(by: dict[int, float]) -> list[float]:
        return [float(2.0 * (1 + by.get(step + 1, 0.0))) for step in range(STEADY)]

    kept = {"torch": steady.tolist(), "keras:jax": off(apart)}
    return race.Race(run, "digits", STEADY, losses=kept, again={"torch": off(drift), "keras:jax": off(apart)})


@pytest.mark.parametrize(
    ("precision", "first", "later"), [("float64", 1e-8, 1e-13), ("float32", 1e-2, 1e-5), ("mixed_float16", 1e-2, 1e-5)]
)
def test_a_race(precision, first, later):
    for step, limit in ((1, first), (5, first), (6, later), (STEADY, later)):
        assert raced(precision, {step: limit * 0.9}, {}).equal
        assert raced(precision, {step: limit * 1.1}, {}).over("keras:jax") == step


def test_a_race_is_measured_by_its_drift_so_far():
    drift = {7: 1e-6}
    for step, apart, over in ((7, 0.9e-5, None), (7, 1.1e-5, 7), (9, 0.9e-5, None), (9, 1.1e-5, 9), (6, 1e-7, 6)):
        assert raced("float64", {step: apart}, drift).over("keras:jax") == over
    own = raced("float64", {8: 0.9e-5}, {})  # the second's own drift counts as well
    assert dataclasses.replace(own, again={**own.again, "keras:jax": [2.0] * 7 + [2.0 + 4e-6] * 5}).equal


def test_a_race_that_ends_in_nan_is_not_even():
    assert raced("float32", {8: math.nan}, {}).over("keras:jax") == 8
