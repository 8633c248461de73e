"""The loop of a training, which both frameworks share, around a trainer that is scripted: what each step is given, what
is measured and written down, and what a run that stopped goes on with. No framework runs."""

import contextlib
import json
import types

import numpy as np
import pytest

from common import weights as canonical
from common.init import initial
from common.training import loop, recipe, record
from common.training import run as training

BATCH, EPOCHS, STEPS = 500, 4, 12  # digits has 1,438 examples to train on: 500, 500 and 438 an epoch


class Scripted:
    """Loss n at the n-th step, half of each batch right; as accurate as it is told to be at the end of each epoch."""

    rank, world, scale = 0, 1, None

    def __init__(self, run, data, accuracy):
        self.run, self.data, self.accuracy, self.seen, self.measured, self.inside = run, data, accuracy, [], [], False
        self.done = 0

    def step(self, x, labels, rate, seed):
        self.seen.append((x, labels, rate, seed))
        self.done += 1
        return float(self.done), len(x) // 2

    @contextlib.contextmanager
    def averaged(self):
        self.inside = True
        yield
        self.inside = False

    def logits(self, x):
        """Right for as many test examples as it is to be, from the first; none without the average of weights."""
        labels = self.data.test.labels
        assert len(x) == len(labels)
        right = np.arange(len(x)) < round(self.accuracy[self.done // 3 - 1] * len(x)) * self.inside
        self.measured.append(x)
        return np.eye(10)[np.where(right, labels, (labels + 1) % 10)]

    def weights(self):
        """They know the step."""
        return {**initial(self.run.arch, 0), "fc.bias": np.full(10, self.done, np.float32)}

    def state(self):
        return {"steps": np.array([self.done], np.float64)}

    def restore(self, weights, state):
        assert weights["fc.bias"][0] == state["steps"][0]
        self.done = int(state["steps"][0])

    def agreed(self, stop):
        return stop


@pytest.fixture
def go(monkeypatch, tmp_path):
    """Runs, or goes on with, a run of digits; gives its trainer."""
    made = []
    impl = types.SimpleNamespace(train=types.SimpleNamespace(distributed=lambda *_: contextlib.nullcontext()))
    monkeypatch.setattr(loop, "implementation", lambda framework: impl)
    monkeypatch.setattr(loop, "trainer_of", lambda run, data, weights=None, place=None: made[-1])
    monkeypatch.setattr(loop.engines, "versions", lambda *_, **__: {"device": "none"})
    monkeypatch.setattr(loop.engines, "threads", lambda spec: "1")
    monkeypatch.setattr(loop, "draw_run", lambda folder: None)

    def run(accuracy=(0.5, 0.9, 0.7, 0.8), limit=None, **options):
        folder = tmp_path / "run"
        if not folder.exists():
            how = recipe.get("cifar", epochs=EPOCHS, batch=BATCH)
            record.new(folder, training.plan("cifar_resnet20", "digits", how, {"depths": (1, 1, 1)}, **options)[0])
        of = training.Run.load(folder)
        made.append(Scripted(of, of.load_data(), accuracy))
        loop.train(folder, limit=limit)
        return made[-1]

    run.folder = tmp_path / "run"
    return run


def lines(folder, key):
    return [row for row in record.read_metrics(folder) if key in row]


def best(folder) -> float:
    return canonical.load(folder / "best.safetensors")[1]["fc.bias"][0]


def test_what_each_step_is_given(go):
    t = go(augment=False)
    plain = t.run.batches(t.data, True).scaled(t.data.train.x)
    rates = [0.1] * 6 + [0.01] * 3 + [0.001] * 3  # He et al. 2015: a tenth at a half and at three quarters
    assert [rate for *_, rate, _ in t.seen] == pytest.approx(rates)
    assert [len(x) for x, *_ in t.seen] == [500, 500, 438] * EPOCHS
    assert len({seed for *_, seed in t.seen}) == STEPS
    orders = []
    for epoch in range(EPOCHS):
        of = t.seen[3 * epoch : 3 * epoch + 3]
        x, labels = np.concatenate([b[0] for b in of]), np.concatenate([b[1] for b in of])
        rows = {(image.tobytes(), label) for image, label in zip(x, labels, strict=True)}
        assert rows == {(i.tobytes(), n) for i, n in zip(plain, t.data.train.labels, strict=True)}  # each with its own
        orders.append(labels.tobytes())
    assert len(set(orders)) == EPOCHS
    tests = t.run.batches(t.data, False).scaled(t.data.test.x)
    assert all(np.array_equal(x, tests) for x in t.measured) and len(t.measured) == EPOCHS


def test_images_are_augmented_unless_that_is_switched_off(go):
    t = go(limit=3)
    plain = {i.tobytes() for i in t.run.batches(t.data, True).scaled(t.data.train.x)}
    x = np.concatenate([b[0] for b in t.seen])
    assert np.mean([i.tobytes() in plain for i in x]) < 0.3  # one shift in nine is none
    assert {i.tobytes() for i in t.run.batches(t.data, False).scaled(t.data.test.x)}.isdisjoint(plain)


def test_what_is_measured_and_kept(go):
    go()
    rows = lines(go.folder, "test_accuracy")
    assert [r["step"] for r in rows] == [3, 6, 9, 12] and [r["epoch"] for r in rows] == [1, 2, 3, 4]
    # 359 examples, with the average of weights in place
    assert [round(r["test_accuracy"] * 359) for r in rows] == [round(a * 359) for a in (0.5, 0.9, 0.7, 0.8)]
    for epoch, row in enumerate(rows):  # of this epoch alone, by examples
        losses = np.arange(3) + 3 * epoch + 1
        assert row["train_loss"] == pytest.approx(np.dot(losses, (500, 500, 438)) / 1438)
        assert row["train_accuracy"] == pytest.approx((250 + 250 + 219) / 1438)
    assert best(go.folder) == 6  # the second epoch's
    assert canonical.load(go.folder / "last.safetensors")[1]["fc.bias"][0] == STEPS


@pytest.mark.parametrize("stop", [1, 4, 6, 7, 11])
def test_a_run_that_goes_on_writes_what_it_would_have_written(go, stop):
    go(limit=stop)
    # what a process wrote after its last checkpoint and before it was killed comes again
    with open(go.folder / "metrics.jsonl", "a") as f:
        f.write(json.dumps({"step": stop + 1, "loss": -1.0}) + "\n" + '{"step": 9, "lo')
    t = go()
    assert [len(x) for x, *_ in t.seen] == ([500, 500, 438] * EPOCHS)[stop:]
    rows = lines(go.folder, "test_accuracy")
    assert [r["step"] for r in rows] == [3, 6, 9, 12]
    for epoch, row in enumerate(rows):
        assert row["train_loss"] == pytest.approx(np.dot(np.arange(3) + 3 * epoch + 1, (500, 500, 438)) / 1438)
    assert best(go.folder) == 6
    assert [r["step"] for r in lines(go.folder, "loss")] == [10]
