"""benchmarks/speed.py asks for ratios by the names of its sides: before a quarter of an hour's run, not after it."""

import sys

import pytest
from conftest import ROOT

from common.arch import get
from common.speed.sides import sides_of

sys.path.append(str(ROOT / "benchmarks"))
import speed


@pytest.fixture
def sides(monkeypatch):
    """{run: {side}}, of what is installed or isn't."""
    monkeypatch.setattr("common.speed.sides.require", lambda *given: None)
    monkeypatch.setattr("common.speed.runners.require", lambda *given: None)
    plain = dict(backends=("torch", "keras:tensorflow"), against=(), dtypes=("float32",), engines=("compiler",))
    made = {}
    for run, asked in speed.RUNS.items():
        arch = get(asked["name"])
        given = {"arch": arch, "changed": False, "size": (224, 224), **plain, **asked}
        made[run] = {str(s) for s in sides_of(**given)}
    return made


def test_every_ratio_has_its_sides(sides):
    for _, run, ours, theirs, least in speed.ASKED:
        assert {ours, theirs} <= sides[run] and least > 0, (run, ours, theirs)


def test_auto_is_measured_against_every_peers_fastest(sides):
    asked = {(ours, theirs) for _, _, ours, theirs, _ in speed.ASKED}
    peers = {theirs for _, theirs in asked if ", optimised," in theirs}
    assert len(peers) == 7
    for theirs in peers:
        assert any("by auto" in ours and theirs == other for ours, other in asked), theirs
