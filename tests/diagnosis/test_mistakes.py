"""Every mistake that has a name is named: exactly, alone, and proven. And none where none is made."""

import itertools

import numpy as np
import pytest

from common.diagnosis import diagnose
from common.diagnosis.examine import living, run_once
from common.diagnosis.values import scatter

plain = pytest.importorskip("plain")


@pytest.mark.parametrize("kind", plain.ROWS)
def test_an_innocent_net(kind):
    found = diagnose(plain.net(plain.ROWS[kind]), plain.ROWS[kind])
    assert found.same, found.text()


@pytest.mark.parametrize("mistake", plain.MISTAKES)
def test_a_mistake(mistake):
    row = plain.ROWS[plain.MISTAKES[mistake]]
    found = diagnose(plain.net(row, mistake), row)
    assert [e.name for e in found.edits] == [plain.NAMED.get(mistake, mistake)], found.text()
    assert found.proof and found.proof.holds and not found.same


def test_a_field_beside_others():
    """What a field adds is as other fields say: projections have a bias, too."""
    row, both = plain.ROWS["basic"], ("bias before BatchNorm", "projection in every block")
    found = diagnose(plain.net(row, *both), row)
    assert {e.name for e in found.edits} == set(both), found.text()


def test_a_softmax_hides_nothing():
    """Of large logits it is 0 and 1, whatever is before it: a classifier is drawn for small ones."""
    live = living(plain.net(plain.ROWS["basic"], "softmax in the net"))
    (x, *_), net = run_once(live)
    scatter(live, net.chain, [x])
    assert live.play(net.chain[:-1], live.arrays(), x).output.std() == pytest.approx(1)


@pytest.mark.slow
def test_two_mistakes():
    """200 pairs of one kind of net each: both named in 95 of 100, and never anything that is false: a sentence more."""
    pairs = [
        (a, b)
        for a, b in itertools.combinations(plain.MISTAKES, 2)
        if plain.MISTAKES[a] == plain.MISTAKES[b] and a.split()[0] != b.split()[0]
        and {a, b} != {"one position for the mean", "flattened head"}  # a net that can't be
    ]  # fmt: skip
    rng = np.random.default_rng(11)
    chosen = [pairs[i] for i in rng.choice(len(pairs), 200, replace=False)]
    missed = []
    for a, b in chosen:
        row = plain.ROWS[plain.MISTAKES[a]]
        found = diagnose(plain.net(row, a, b), row)
        if {e.name for e in found.edits} != {plain.NAMED.get(m, m) for m in (a, b)}:
            missed.append((a, b, found.text()))
    assert len(missed) <= 10, "\n\n".join(map(str, missed))
