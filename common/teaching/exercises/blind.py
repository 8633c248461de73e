"""The blind diagnosis: a net with one mistake, which a student finds by asking for one array at a time."""

import ast
import random
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import RosettaError, nearest
from common.teaching.exercises.exercise import check
from common.teaching.faults import FAULTS, Fault
from common.teaching.measured import BACKENDS, measure

# of a few layers and in evaluation, where each array that differs narrows it down
CANDIDATES = [f for f in FAULTS.values() if f.net == "basic" and f.checks == ("forward",) and f.dtypes == ("float64",)
              and f.first is not None]  # fmt: skip

TEXT = '''"""Exercise {number}: {title}.

{task}

rosetta exercise check {number} FILE
"""

from common.teaching.exercises.blind import Unknown

net = Unknown(seed={seed}, framework="{framework}")
print(net.layers)  # what can be asked for, in the order of the pass
print(net.apart("logits"))  # one question: how far this array is from the other framework's
print(net.values("logits")[0])  # one more: both arrays, and this is its own

print(f"{{net.asked}} questions")
ANSWER = ""  # one of `rosetta traps`
'''


def mistake(seed: int) -> Fault:
    """Which one the net of that seed has."""
    return random.Random(f"blind diagnosis {seed}").choice(CANDIDATES)


class Unknown:
    """A net with a mistake beside a sound one, on four images. `asked` counts the questions."""

    def __init__(self, seed: int, framework: str):
        self.asked = 0
        fault = mistake(seed)
        result = measure(fault, check(framework), checks=("forward",))
        self._rows = {d.name: d for d in result.rows[BACKENDS[framework], "float64"] if d.check == "forward"}

    @property
    def layers(self) -> list[str]:
        """What can be asked for."""
        return list(self._rows)

    def _asked(self, name: str) -> Any:
        if name not in self._rows:
            raise RosettaError(f"no array {name!r}{nearest(name, self._rows) or '; `layers` lists them'}")
        self.asked += 1
        return self._rows[name]

    def apart(self, name: str) -> float:
        """The largest difference over the largest element; infinite where shapes differ. One question."""
        return float(self._asked(name).relative)

    def values(self, name: str) -> np.ndarray:
        """The net's own value and the sound one, where they differ most. One question."""
        return np.array((self._asked(name).values or (np.nan, np.nan))[::-1])


def checked(file: str) -> dict[str, Any]:
    """Whether ANSWER in the file is the mistake. The file is read, and not executed."""
    path = Path(file)
    if not path.is_file():
        raise RosettaError(f"no such file: {file}")
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError) as e:
        raise RosettaError(f"{path.name} is no Python file: {e}") from None
    answers: list[Any] = [
        n.value.value for n in ast.walk(tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)
        and any(isinstance(t, ast.Name) and t.id == "ANSWER" for t in n.targets)
    ]  # fmt: skip
    seeds: list[Any] = [
        k.value.value for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords
        if k.arg == "seed" and isinstance(k.value, ast.Constant)
    ]  # fmt: skip
    if len(answers) != 1 or len(seeds) != 1 or not isinstance(seeds[0], int):
        raise RosettaError(f'{path.name} needs one ANSWER = "..." and one seed, as `rosetta exercise start` wrote them')
    (answer,), (seed,) = answers, seeds
    if not answer:
        return {"passed": False, "what": "ANSWER is empty"}
    if answer not in FAULTS:
        raise RosettaError(f"no fault {answer!r}{nearest(str(answer), FAULTS) or '; `rosetta traps` lists them'}")
    if answer == mistake(seed).name:
        return {"passed": True, "fault": answer}
    return {"passed": False, "what": f"the net of seed {seed} hasn't that mistake"}
