"""The masks that a training draws for itself: how many, of what, how large, and that no two are one.

What is expected is arithmetic: a mask at rate p is 0 with probability p and else 1 / (1 - p), so that its mean is 1
(Srivastava et al. 2014, section 10); dropout takes elements, stochastic depth whole examples, and of L blocks the l-th
is dropped with probability l / L * p (Huang et al. 2016, equation 4). Bounds are six standard deviations of a count.
"""

import itertools
import math

import numpy as np
import pytest

import keras_impl
import keras_impl.layers
import keras_impl.train
import torch_impl
import torch_impl.layers
import torch_impl.train
from common import noise
from common.arch import get
from common.init import initial
from common.training import recipe, record
from common.training import run as training

IMPLS = {"torch": torch_impl, "keras": keras_impl}
N, DROPOUT, DROP_PATH = 600, 0.3, 0.4
ARCH = get("cifar_resnet20", depths=(1, 2, 1), num_classes=5, dropout=DROPOUT, drop_path=DROP_PATH)
SEEDS = (5, 6, 7, 5)  # of the steps: the last is the first once more
PARTS = 3  # of each batch


def watch(monkeypatch, framework: str) -> list[tuple[int, np.ndarray]]:
    """(which layer, its mask N C *S, nan where the input was 0) of every mask that is drawn from now on, in order."""
    seen: list[tuple[int, np.ndarray]] = []

    def watched(cls, name):
        own = getattr(cls, name)

        def call(self, x, *args, **options):
            y = own(self, x, *args, **options)

            def keep(x, y):
                with np.errstate(all="ignore"):
                    seen.append((id(self), y / x if framework == "torch" else np.moveaxis(y / x, -1, 1)))

            if framework == "torch":
                keep(x.detach().numpy(), y.detach().numpy())
            else:
                import tensorflow as tf

                tf.numpy_function(keep, [x, y], [])
            return y

        monkeypatch.setattr(cls, name, call)

    for cls in (IMPLS[framework].layers.Dropout, IMPLS[framework].layers.DropPath):
        watched(cls, "forward" if framework == "torch" else "call")
    return seen


@pytest.fixture(scope="module", params=IMPLS)
def drawn(request):
    """{(step, part, "dropout" or "drop_path", block): mask} of a Trainer's steps."""
    framework, masks = request.param, {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen = watch(monkeypatch, framework)
        impl = IMPLS[framework]
        how = recipe.get("cifar", accumulate=PARTS, batch=N)
        trainer = impl.train.Trainer(impl.create_model(ARCH, weights=initial(ARCH, 0)), how)
        stages = [getattr(trainer.model, f"layer{s}") for s in (1, 2, 3)]
        blocks = [block for s in stages for block in (s if framework == "torch" else s.members)]
        layers = {id(getattr(b, kind)): (kind, i) for i, b in enumerate(blocks) for kind in ("dropout", "drop_path")}
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((N, 3, 6, 6)).astype("float32"), rng.integers(0, 5, N)
        for step, seed in enumerate(SEEDS):
            seen.clear()
            trainer.step(x, y, 1e-3, seed)
            assert len(seen) == PARTS * len(layers)
            for i, (layer, mask) in enumerate(seen):
                kind, block = layers[layer]
                masks[step, i // len(layers), kind, block] = mask
    return masks


def of(masks, kind, block):
    """Of the steps whose seeds differ, one after another along the examples."""
    return np.concatenate([m for (step, _, k, b), m in masks.items() if (k, b) == (kind, block) and step < 3])


def near(kept: np.ndarray, n, p: float) -> None:
    """Whether counts of survivors out of n are those of dropping at p."""
    assert (np.abs(kept - n * (1 - p)) <= 6 * np.sqrt(n * p * (1 - p)) + 1e-9).all(), (kept / n, 1 - p)


def one_of(values: np.ndarray, *allowed: float) -> bool:
    return bool((np.abs(values[:, None] - np.array(allowed)).min(1) < 1e-5).all())


@pytest.mark.parametrize("block", range(4))
def test_dropout_takes_elements_at_its_rate_and_keeps_the_mean(drawn, block):
    mask = of(drawn, "dropout", block)
    known = ~np.isnan(mask)
    values = mask[known]
    assert one_of(values, 0, 1 / (1 - DROPOUT))
    kept = known & (mask > 0)
    assert known.sum() > 50_000
    near(kept.sum(), known.sum(), DROPOUT)
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1)):  # in each example, in each channel, at each position
        near(kept.sum(axes), known.sum(axes), DROPOUT)
    assert abs(values.mean() - 1) < 6 * math.sqrt(DROPOUT / (1 - DROPOUT) / len(values))


@pytest.mark.parametrize("block", range(4))
def test_stochastic_depth_takes_examples_more_of_them_the_deeper(drawn, block):
    mask, p = of(drawn, "drop_path", block).reshape(3 * N, -1), DROP_PATH * (block + 1) / 4
    of_each = np.nanmean(mask, 1)
    assert not np.isnan(of_each).any()
    assert (np.isnan(mask) | (np.abs(mask - of_each[:, None]) < 1e-4)).all()  # one number an example
    assert one_of(of_each, 0, 1 / (1 - p))
    near((of_each > 0).sum(), 3 * N, p)


def test_no_two_masks_are_one(drawn):
    """Of another step, another part of the batch, or another layer: where two are of one size they are uncorrelated,
    also where their rates differ. A seed gives the same again."""
    distinct = {k: m for k, m in drawn.items() if k[0] < 3}
    # stochastic depth's by example; of dropout's as many elements as there are in the smallest
    flat = {k: np.nanmean(m, (1, 2, 3)) if k[2] == "drop_path" else m[:, :16, :2, :2].ravel()
            for k, m in distinct.items()}  # fmt: skip
    pairs = 0
    for (a, u), (b, v) in itertools.combinations(flat.items(), 2):
        if a[2] == b[2]:
            both = ~np.isnan(u) & ~np.isnan(v)
            # 200 examples, so a correlation of 0.07 by chance, and 1,260 pairs
            assert abs(np.corrcoef(u[both], v[both])[0, 1]) < 6 / math.sqrt(both.sum()), (a, b)
            pairs += 1
    assert pairs == 2 * 36 * 35 // 2
    for (step, *layer), mask in drawn.items():
        if step == 3 and layer[:3] == [0, "drop_path", 0]:  # before anything that the steps between have moved
            assert np.array_equal(np.nanmean(mask, (1, 2, 3)) > 0, flat[(0, *layer)] > 0)


def test_every_step_of_a_run_has_a_seed_of_its_own():
    runs = [training.Run("r", ARCH, "digits", recipe.get("cifar"), seed=seed) for seed in (0, 1)]
    seeds = [record.Progress(run, 10, step).seed for run in runs for step in range(1000)]
    assert len(set(seeds)) > 1990  # of 2 ** 31
    assert seeds[:1000] == [record.Progress(runs[0], 10, step).seed for step in range(1000)]


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.75])
def test_masks_that_frameworks_share_are_masks_too(rate):
    with noise.shared(1):
        first, second = noise.mask((50, 8, 9, 9), rate), noise.mask((50, 8, 9, 9), rate)
    with noise.shared(1):
        again = noise.mask((50, 8, 9, 9), rate)
    assert noise.mask((1,), rate) is None
    assert np.array_equal(first, again)
    assert set(np.unique(first)) == {0.0, 1 / (1 - rate)}
    for axes in ((0, 1, 2, 3), (1, 2, 3), (0, 2, 3), (0, 1)):
        near((first > 0).sum(axes), first.size // np.mean(first, axes).size, rate)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 6 / math.sqrt(first.size)
