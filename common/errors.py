"""The one error that the project raises for bad input, and the words that go with it."""

import difflib
import re
from collections.abc import Iterable

LONGEST = 2000  # characters of a message
# of control, halves of characters, ends of lines, and what turns the direction of a text around
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class RosettaError(ValueError):
    """Bad input: what was wrong, what was expected, what to do. The command line prints it alone.

    What it tells of a file may be of any length and hold any character: what a terminal would obey is escaped, and the
    middle is left out.
    """

    def __init__(self, message: object):
        lines = "\n".join(printable(line) for line in str(message).split("\n"))
        if (more := len(lines) - LONGEST) > 0:
            lines = f"{lines[:1300]}\n... ({more + 100:,} characters are left out) ...\n{lines[more + 1400 :]}"
        super().__init__(lines)


def printable(text: str) -> str:
    """A text of a file's in one line, with escapes for what a terminal would obey or can't show."""
    return _UNPRINTABLE.sub(lambda c: c[0].encode("unicode_escape").decode(), text)


def nearest(name: str, known: Iterable[object], n: int = 3) -> str:
    """`; did you mean a, b?` for the `n` known names nearest to `name`, or nothing."""
    close = difflib.get_close_matches(name, [str(k) for k in known], n=n, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
