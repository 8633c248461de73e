"""A student's file, checked in a process of its own."""

import re
from pathlib import Path
from typing import Any

from common.diagnosis.hers import run_file
from common.errors import RosettaError
from common.teaching.exercises import blind, by_number, order, sgd
from common.teaching.exercises.exercise import Exercise, check

IN_NUMPY = {"sgd": sgd, "order": order}


def check_file(file: str, number: int, limit: float = 120.0) -> dict[str, Any]:
    """What `checked` says of the file's ResNet. Executes the file, but for that of the blind diagnosis.

    Raises RosettaError where there is no such file, where it can't be imported or ends its process, where it takes more
    than `limit` seconds, and where it is neither PyTorch's nor Keras'.
    """
    kind = by_number(number).kind
    if kind == "blind":
        return blind.checked(file)
    if kind in IN_NUMPY:
        return run_file(file, None, f"{IN_NUMPY[kind].__name__}:checked", {}, call=IN_NUMPY[kind].CALL, limit=limit)
    path = Path(file)
    text = path.read_text(errors="replace") if path.is_file() else ""
    framework = "torch" if re.search(r"^(from|import) torch\b", text, re.M) else "keras"
    if path.is_file() and framework == "keras" and not re.search(r"^(from|import) keras\b", text, re.M):
        raise RosettaError(f"{file} imports neither torch nor keras: begin with `rosetta exercise start {number}`")
    job = {"number": number, "framework": framework}
    return run_file(file, None, "common.teaching.exercises.checked:checked", job, call="ResNet", limit=limit)


def begun(exercise: Exercise, framework: str, seed: int = 0) -> str:
    """The file that a student begins with; `seed` says which mistake a blind diagnosis has."""
    if exercise.kind == "net":
        return exercise.skeleton(framework)
    text = blind.TEXT if exercise.kind == "blind" else IN_NUMPY[exercise.kind].TEXT
    return text.format(
        number=exercise.number, title=exercise.title, task=exercise.task, seed=seed, framework=check(framework)
    )
