"""Each lesson as a notebook: it runs from top to bottom, with the mistake in either framework's net."""

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from common.teaching import site
from common.teaching.faults import named
from common.teaching.site.lessons import lessons


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    site.build(folder, ())
    return {n: nbformat.read(folder / f"lesson-{n}.ipynb", as_version=4) for n in range(1, 13)}


def run(notebook, monkeypatch, side="keras", **change) -> dict[str, list]:
    """The outputs of each cell, of a copy of the notebook with another side and other changes of the switch."""
    made = nbformat.from_dict(notebook)
    switch = next(cell for cell in made.cells if cell.id == "switch")
    switch.source = switch.source.replace('side = "keras"', f"side = {side!r}")
    switch.source += "".join(f"\n{name} = {value!r}" for name, value in change.items())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(made, timeout=300, kernel_name="python3").execute()
    return {cell.id: cell.get("outputs", []) for cell in made.cells}


def check(notebook, lesson: int, side: str, monkeypatch) -> None:
    outputs = run(notebook, monkeypatch, side)
    (course,) = (each for each in lessons(lambda text, **facts: text, {}) if each.number == lesson)
    where, name = named(course.fault).first
    assert outputs["sound"][0].text == "the same function, to rounding\n"
    assert outputs["faulty"][0].text.splitlines()[1].startswith(f"{name} ({where})")
    assert [list(o.data) for o in outputs["figure"]] == [["text/plain", "image/png"]]


def test_they_are_notebooks_of_the_lessons(notebooks):
    for lesson in lessons(lambda text, **facts: text, {}):
        made = notebooks[lesson.number]
        nbformat.validate(made)
        said = {cell.id: cell.source for cell in made.cells}
        assert said["question"].startswith(f"# {lesson.title}\n") and all(a in said["predict"] for a in lesson.answers)
        assert f'mistake = "{lesson.fault}"' in said["switch"]
        assert "{{" not in said["question"] + said["why"] and lesson.answers[lesson.right] in said["why"]


def test_a_lesson_runs(notebooks, capsys):
    """Its cells, in this process: with a kernel, which imports both frameworks anew, it is slow."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    names: dict = {}
    for cell in notebooks[4].cells:
        if cell.cell_type == "code":
            exec(cell.source.replace('side = "keras"', 'side = "torch"'), names)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "the same function, to rounding" and said[2].startswith("layer2.0.conv1 (forward)")
    assert len(names["axes"].lines) == 2
    names["plt"].close()


def test_a_cell_that_fails_is_seen(notebooks, monkeypatch):
    with pytest.raises(CellExecutionError, match="did you mean same padding"):
        run(notebooks[4], monkeypatch, mistake="same paddin")


@pytest.mark.slow
@pytest.mark.parametrize("side", ["torch", "keras"])
@pytest.mark.parametrize("lesson", range(1, 13))
def test_every_lesson_runs(lesson, side, notebooks, monkeypatch):
    check(notebooks[lesson], lesson, side, monkeypatch)
