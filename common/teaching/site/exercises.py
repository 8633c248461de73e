"""The exercises as the site tells them: the task and hints to students, the answers to teachers."""

import difflib
import re
from typing import Any

from common.teaching.exercises import EXERCISES, Exercise, blind, order, sgd
from common.teaching.site.twins import FRAMEWORKS, coloured

IN_NUMPY = {"sgd": sgd.SOLUTION, "order": order.SOLUTION}
SEEDS = range(20)  # of the blind diagnosis: so many students


def answers() -> list[dict[str, Any]]:
    """Of each exercise: what the solution has that a student isn't given, in lines of HTML by framework, and which
    mistakes are told by name."""
    return [
        {
            "exercise": e, "codes": {f: coloured(text) for f, text in _codes(e).items()},
            "mistakes": list(dict.fromkeys(fault for of in e.wrong.values() for fault in of)),
            "seeds": [(seed, blind.mistake(seed).name) for seed in SEEDS] if e.kind == "blind" else [],
        }
        for e in EXERCISES
    ]  # fmt: skip


def _codes(e: Exercise) -> dict[str, str]:
    if e.kind == "blind":
        return {}
    if e.kind in IN_NUMPY:
        return {"numpy": IN_NUMPY[e.kind].rstrip()}
    return {f: _added(e.skeleton(f), e.solution(f)) for f in FRAMEWORKS}


def _added(skeleton: str, solution: str) -> str:
    """The solution's lines that the skeleton hasn't, behind both headings; what isn't together is apart by a line."""
    given, whole = (re.split(r'"""\n\n(?=import)', text, maxsplit=1)[1].splitlines() for text in (skeleton, solution))
    found = difflib.SequenceMatcher(None, given, whole, autojunk=False).get_opcodes()
    parts = ["\n".join(whole[begin:end]) for kind, _, _, begin, end in found if kind in ("replace", "insert")]
    return "\n    ...\n".join(parts)
