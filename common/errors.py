"""The one error that the project raises for bad input, and the words that go with it."""

import difflib
from collections.abc import Iterable


class RosettaError(ValueError):
    """Bad input: what was wrong, what was expected, what to do. The command line prints it alone."""


def nearest(name: str, known: Iterable[object], n: int = 3) -> str:
    """`; did you mean a, b?` for the `n` known names nearest to `name`, or nothing."""
    close = difflib.get_close_matches(name, [str(k) for k in known], n=n, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
