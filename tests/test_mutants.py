"""The table of faults, held against the sources: nothing is run here but a search. `make mutants` runs them."""

import mutants
import pytest


def test_there_are_enough():
    rows = list(mutants.MUTANTS.values())
    assert len(rows) >= 120 and sum(m.shared for m in rows) >= len(rows) / 2
    assert {m.kind for m in rows} == {*mutants.KINDS, "one framework alone"}
    assert sum(m.audit == "caught" for m in rows) >= 34 and sum(m.audit == "survived" for m in rows) >= 50


def test_every_mutant_applies():
    """Each edit finds its place once, and each test that is named is there. Change such a line, and change the row."""
    wrong = {m.name: why for m in mutants.MUTANTS.values() if (why := mutants.misplaced(m))}
    assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())


def test_a_mutant_is_code_of_its_own():
    """What an edit leaves can be compiled: a fault that breaks the file would be caught by anything."""
    for m in mutants.MUTANTS.values():
        for file, text in mutants.edited(m, mutants.ROOT).items():
            compile(text, file, "exec")


@pytest.mark.parametrize("old", ["def nowhere(", "import "])
def test_the_check_can_fail(old):
    m = mutants.Mutant("x", "nothing", "test_arch.py", (("common/plan.py", old, "x"),))
    assert "times" in mutants.misplaced(m)
