"""An exercise: a net as plain code, with holes that a student fills in."""

import ast
from dataclasses import dataclass, field

from common.errors import RosettaError, nearest
from common.row import Arch
from common.teaching.plain import FRAMEWORKS, write

Edits = tuple[tuple[str, str], ...]  # (what the text has once, what it has then)
MARK = "..."  # what stands in a hole


@dataclass(frozen=True)
class Exercise:
    """`holes` are the functions, as "BasicBlock.forward" in PyTorch's words, whose bodies a student writes. `wrong` are
    answers by the name of the fault that they are, as edits of the solution; tests give them all. `given` are edits of
    the solution that the student starts from, where she is to find a mistake and not to fill a hole."""

    number: int
    title: str
    task: str
    arch: Arch
    holes: tuple[str, ...] = ()
    given: dict[str, Edits] = field(default_factory=dict)
    changed: dict[str, Edits] = field(default_factory=dict)  # what the solution has beyond the net as it is written
    first: str = ""  # the first array that differs while the exercise is unsolved; "" where nothing runs yet
    hints: tuple[str, ...] = ()
    lesson: int = 0
    minutes: int = 10  # that a teacher plans for it
    kind: str = "net"  # or "blind", a net with an unknown mistake, "sgd", an update rule, "order", a porter: see there
    wrong: dict[str, dict[str, Edits]] = field(default_factory=dict)  # by framework, then by fault

    @property
    def name(self) -> str:
        return f"exercise_{self.number:02}"

    def solution(self, framework: str) -> str:
        """The whole file."""
        return edited(write(self.arch, check(framework)), self.changed.get(framework, ()))

    def skeleton(self, framework: str) -> str:
        """The file that a student begins with: the task, and the net with its holes."""
        text = edited(self.solution(framework), self.given.get(framework, ()))
        for hole in self.holes:
            text = emptied(text, hole if framework == "torch" else hole.replace("forward", "call"), self.number)
        _, _, rest = text.partition('"""\n\nimport')  # the net's own heading gives way to the task
        heading = f"Exercise {self.number}: {self.title}.\n\n{self.task}\n\nrosetta exercise check {self.number} FILE\n"
        return f'"""{heading}"""\n\nimport{rest}'

    def answer(self, framework: str, fault: str) -> str:
        """The solution with the mistake of that name."""
        return edited(self.solution(framework), self.wrong[framework][fault])


def check(framework: str) -> str:
    if framework not in FRAMEWORKS:
        raise RosettaError(f"unknown framework {framework!r}{nearest(framework, FRAMEWORKS)}: expected torch or keras")
    return framework


def edited(text: str, edits: Edits) -> str:
    for old, new in edits:
        if old not in text:
            raise ValueError(f"no {old!r} in the net's text")
        text = text.replace(old, new)
    return text


def emptied(text: str, hole: str, number: int) -> str:
    """The text with that function's body gone. Its docstring stays."""
    *owner, name = hole.split(".")
    body = ast.parse(text).body
    for part in owner:
        body = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == part).body
    function = next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == name)
    lines = text.splitlines(keepends=True)
    kept = function.body[1:] if ast.get_docstring(function) else function.body
    start, indent = kept[0].lineno - 1, " " * kept[0].col_offset
    lines[start : function.end_lineno] = [f'{indent}raise NotImplementedError("exercise {number}: {hole} is yours")\n']
    return "".join(lines)
