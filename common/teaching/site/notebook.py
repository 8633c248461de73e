"""A lesson as a notebook: its text, and cells that put the mistake in and measure it."""

import json

from common.teaching.site.lessons import Lesson

SWITCH = """\
side = "keras"  # whose net has the mistake: "keras" or "torch"
mistake = FAULT  # `rosetta traps` lists more"""
SOUND = """\
from common.parity import compare
from common.parity.backends import Here
from common.teaching.faults import NETS, named

fault = named(mistake)
arch, _ = NETS[fault.net]  # a small net that shows it
images = fault.images()
specs = {"torch": "torch", "keras": "keras:tensorflow"}
nets = [Here(spec) for framework, spec in specs.items() if framework != side] + [Here(specs[side])]


def compared():
    \"\"\"Both nets with the same weights on the same images, array by array, in float64.\"\"\"
    return compare(arch, images, backends=nets, checks=fault.checks, dtypes=("float64",))


sound = compared()
print(sound.headline)"""
FAULTY = """\
from common.teaching.measured import first

with fault.injected(side):
    faulty = compared()

over = first(faulty)
print(faulty.headline)
print(faulty.why(nets[1].spec, "float64"))"""
FIGURE = """\
import matplotlib.pyplot as plt

from common.teaching.measured import drift

figure, axes = plt.subplots(figsize=(9, 3))
for result, label in ((sound, "without the mistake"), (faulty, f"with it in {nets[1].spec}")):
    found = drift(result, over.check if over else "forward")
    axes.plot(list(found), [min(max(d, 1e-17), 10) for d in found.values()], ".-", label=label)
axes.set_yscale("log")
axes.set_ylabel("difference / largest")
axes.tick_params("x", rotation=90)
axes.legend();"""


def notebook(lesson: Lesson, count: int) -> str:
    """The JSON of a notebook (nbformat 4.5) that runs from top to bottom, with no outputs."""
    answers = "\n".join(f"- **{letter}**: {answer}" for letter, answer in zip("abc", lesson.answers, strict=True))
    right = f"It is **{'abc'[lesson.right]}**: {lesson.answers[lesson.right]}."
    then = f"`rosetta exercise start {lesson.exercise}` is the exercise of this lesson.\n\n" if lesson.exercise else ""
    cells = [
        ("question", f"# {lesson.title}\n\nLesson {lesson.number} of {count}, five minutes\n\n{lesson.question}"),
        ("predict", f"## Predict first\n\n{answers}\n\nWrite your letter down before you run what follows."),
        ("switch", SWITCH.replace("FAULT", json.dumps(lesson.fault))),
        ("how-sound", "Two nets of the same weights, one of each framework. Without a mistake they are one function:"),
        ("sound", SOUND),
        ("how-faulty", "Now one of them is built with the mistake. What is the first array that differs?"),
        ("faulty", FAULTY),
        ("how-figure", "And what becomes of it on the way:"),
        ("figure", FIGURE),
        (
            "why",
            f"## Why\n\n<details><summary>Which letter, and why</summary>\n\n{right}\n\n{lesson.why}\n\n</details>",
        ),
        ("then", f"## Then\n\n{then}Change `side` and run all cells again: the other framework's net has the mistake."),
    ]
    made = {
        "cells": [_cell(name, text) for name, text in cells],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _cell(name: str, text: str) -> dict[str, object]:
    """`name` is the cell's id, so that the file is the same whenever it is made."""
    cell: dict[str, object] = {
        "cell_type": "markdown",
        "id": name,
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    if name in ("switch", "sound", "faulty", "figure"):
        cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
    return cell
