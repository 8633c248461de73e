"""How well logits say the classes: against sums done by hand, and against scikit-learn."""

import numpy as np
import pytest

from common.training.scores import losses, scores, softmax

# six classes, so that five are not all; by rank the true class is 1st, 5th, 6th, 2nd, 1st
LOGITS = np.array(
    [
        [9.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        [1.0, 9.0, 8.0, 7.0, 6.0, 0.0],
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        [1.0, 2.0, 3.0, 8.0, 9.0, 0.0],
        [0.0, 9.0, 1.0, 2.0, 3.0, 4.0],
    ]
)
LABELS = np.array([0, 0, 0, 3, 1])


def test_by_hand():
    s = scores(LOGITS, LABELS)
    assert s.accuracy == 2 / 5
    assert s.top5 == 4 / 5  # the second one's class is the fifth of its logits, and counts
    confusion = np.zeros((6, 6), int)  # rows are true
    confusion[0, [0, 1, 5]] = 1
    confusion[3, 4] = 1
    confusion[1, 1] = 1
    assert np.array_equal(s.confusion, confusion)
    z = LOGITS - LOGITS.max(1, keepdims=True)
    by_hand = [-np.log(np.exp(row[k]) / np.exp(row).sum()) for row, k in zip(z, LABELS, strict=True)]
    assert np.allclose(losses(LOGITS, LABELS), by_hand, rtol=1e-14)
    assert s.loss == pytest.approx(np.mean(by_hand), rel=1e-14)
    assert np.allclose(softmax(LOGITS)[0], np.exp(z[0]) / np.exp(z[0]).sum(), rtol=1e-14)
    zero, one, two, three, four, five = s.per_class
    assert zero == (3, 1 / 3, 1.0, 1 / 2) and one == (1, 1.0, 1 / 2, 2 / 3) and three == (1, 0.0, None, 0.0)
    assert two == (0, None, None, None) and four == five == (0, None, 0.0, 0.0)
    assert s.balanced_accuracy == pytest.approx((1 / 3 + 1 + 0) / 3, rel=1e-14)
    assert s.macro_f1 == pytest.approx((1 / 2 + 2 / 3 + 0 + 0 + 0) / 5, rel=1e-14)


def test_against_scikit_learn():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    labels = rng.choice(7, 400, p=[0.5, 0.2, 0.1, 0.1, 0.06, 0.03, 0.01])
    logits = rng.standard_normal((400, 7)) + 1.5 * np.eye(7)[labels] + [1, 0, 0, 0, 0, 0, -3]
    s, said = scores(logits, labels), logits.argmax(1)
    assert np.array_equal(s.confusion, metrics.confusion_matrix(labels, said))
    assert s.accuracy == pytest.approx(metrics.accuracy_score(labels, said), rel=1e-14)
    assert s.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, said), rel=1e-14)
    assert s.macro_f1 == pytest.approx(metrics.f1_score(labels, said, average="macro"), rel=1e-14)
    assert s.top5 == pytest.approx(metrics.top_k_accuracy_score(labels, logits, k=5), rel=1e-14)
    assert s.loss == pytest.approx(metrics.log_loss(labels, softmax(logits), labels=range(7)), rel=1e-12)
    parts = metrics.precision_recall_fscore_support(labels, said, zero_division=np.nan)
    for row, *expected in zip(s.per_class, *parts, strict=True):
        precision, recall, f1, examples = (None if np.isnan(v) else pytest.approx(v, rel=1e-14) for v in expected)
        assert row == (examples, recall, precision, f1)


def test_a_rare_class_that_is_never_said_shows_in_the_balanced_scores():
    labels = np.repeat([0, 1, 2], [1000, 30, 10])
    logits = np.eye(3)[np.repeat([0, 1, 0], [1000, 30, 10])]
    s = scores(logits, labels)
    assert s.accuracy > 0.99 and s.balanced_accuracy == pytest.approx(2 / 3) and s.macro_f1 < 0.67
    assert s.per_class[2] == (10, 0.0, None, 0.0)
