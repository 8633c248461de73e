"""Exercises that check themselves: plain files in which a student fills in a block, in either framework.

`check` compares her net with the reference in float64, names the first array that differs, and then says which mistake
it is, by the vocabulary of `common.teaching.faults`: it looks for the fault with which the reference gives her numbers.
Only one mistake at a time can be found so.
"""

from common.errors import RosettaError
from common.teaching.exercises.exercise import Exercise
from common.teaching.exercises.table import EXERCISES

__all__ = ["EXERCISES", "Exercise", "by_number"]


def by_number(number: int) -> Exercise:
    """That exercise. Raises RosettaError where there is none."""
    found = next((e for e in EXERCISES if e.number == number), None)
    if found is None:
        raise RosettaError(
            f"no exercise {number}: there are 1 to {len(EXERCISES)}, and `rosetta exercise list` lists them"
        )
    return found
