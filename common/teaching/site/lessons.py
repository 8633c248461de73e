"""The twelve lessons: prose in Markdown in which no figure is typed, but filled in from measurements."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "lessons"


@dataclass(frozen=True)
class Lesson:
    """A question, three answers to predict with, which of them is right, and why; a fault that shows it."""

    number: int
    title: str
    fault: str
    exercise: int  # 0 where there is none
    answers: tuple[str, ...]
    right: int
    question: str  # Markdown, as is why
    why: str


def lessons(filled: Any, facts: Mapping[str, Any]) -> list[Lesson]:
    """All of them. `filled(text, **facts)` fills in the figures."""
    found = []
    for path in sorted(FOLDER.glob("*.md")):
        head, body = path.read_text("utf-8").split("\n\n", 1)
        said: dict[str, list[str]] = {}
        for line in head.splitlines():
            key, _, value = line.partition(": ")
            said.setdefault(key, []).append(value)
        question, why = (filled(part, **facts).strip() for part in body.split("\n---\n"))
        found.append(
            Lesson(
                int(path.stem), said["title"][0], said["fault"][0], int(said["exercise"][0]), tuple(said["answer"]),
                int(said["right"][0]), question, why,
            )
        )  # fmt: skip
    return found


def faults_told() -> set[str]:
    """The faults that lessons show, or whose figures they fill in."""
    texts = "\n".join(path.read_text("utf-8") for path in FOLDER.glob("*.md"))
    return {*re.findall(r"^fault: (.*)$", texts, re.M), *re.findall(r'fault\("([^"]*)"\)', texts)}
