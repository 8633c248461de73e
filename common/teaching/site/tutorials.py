"""Other people's nets as `rosetta diagnose` read them (docs/tutorials.json), and what a reader gets wrong from each."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What an edit's name begins with, the first line that fits, and what that means to who takes the net for the row.
MEANS = (Path(__file__).parent / "pages" / "edits.txt").read_text("utf-8").splitlines()
UNSEEN = "At the sizes that this net is for, nothing is wrong."
# of a net that can't be run, or that is run as it is
LACKING: dict[str, Any] = {"as it is": "", "error": "", "cut": False, "mended": False, "same": False, "worst": None,
                           "remarks": (), "unexplained": ()}  # fmt: skip


def meaning(edit: str) -> str:
    """Of an edit by its name."""
    return next((said for begin, _, said in (line.partition(": ") for line in MEANS) if re.match(begin, edit)), "")


def tutorials(nets: list[dict[str, Any]], cards: Mapping[str, Any], lessons: Mapping[str, int]) -> list[dict[str, Any]]:
    """Those nets, each edit with its meaning, its trap where there is one, and the lesson that tells it."""
    found = []
    for net in nets:
        edits, told = [], set()
        for e in net.get("edits", ()):
            means = meaning(e["name"]) if not e["matters"].startswith("in no number") else UNSEEN
            edits.append({**e, "means": "" if means in told else means, "lesson": lessons.get(e["name"], 0),
                          "trap": cards[e["name"]]["anchor"] if e["name"] in cards else ""})  # fmt: skip
            told.add(means)
        found.append({**LACKING, **net, "edits": edits})
    return found


def often(nets: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The edits that three nets have or more, with how many, the most frequent first."""
    counts = Counter(name for net in nets for name in {e["name"] for e in net["edits"]})
    return sorted(((name, n) for name, n in counts.items() if n > 2), key=lambda pair: (-pair[1], pair[0]))
