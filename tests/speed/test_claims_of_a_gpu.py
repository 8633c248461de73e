"""What README and docs say of a GPU is measured, or isn't there: a figure, a card's name, a cell of a GPU's column."""

import json
import re

import pytest
from conftest import ROOT

CARD = re.compile(r"\b(?:GPUs?|CUDA|TF32|[HAVB]\d00|RTX \d+|L4|L40S?|T4)\b")
NAMED = re.compile(r"\b(?:[HAVB]\d00|RTX \d+|L4|L40S?|T4)\b")
# of speed, not of size: a wheel's MiB and a version's number are no claim
FIGURE = re.compile(
    r"\d[\d.,]* ?(?:%|x\b|×|ms\b|µs\b|s\b|seconds?\b|times\b|images\b|GB/s|TB/s|T?FLOP)|\btimes as fast\b"
)
RESULTS = re.compile(r"\(([\w./-]*-gpu\.json)\)")
NOTHING = re.compile(r"Nothing .{0,40}run on a GPU|No GPU was at hand", re.IGNORECASE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def claims(text: str) -> list[str]:
    """The sentences, and the cells of tables, that say what was found on a GPU."""
    found, column = [], []
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for block in re.split(r"\n\s*\n", re.sub(r"(?m)^(\|.*)$", r"\n\1\n", text)):
        if block.strip().startswith("|"):
            cells = [c.strip() for c in block.strip().strip("|").split("|")]
            if not set(block) <= set("|-: \n"):
                if not column:
                    column = [bool(CARD.search(c)) for c in cells]
                else:
                    found += [c for c, of in zip(cells, column, strict=False) if of and c]
                    found += [block.strip()] if CARD.search(block) and FIGURE.search(block) else []
            continue
        column = [] if block.strip() else column
        for said in re.split(r"(?<=[.:;])\s+", block):
            if NAMED.search(said) or (CARD.search(said) and FIGURE.search(said)):
                found.append(" ".join(said.split()))
    return found


def unfounded(page, text: str) -> list[str]:
    """Claims on a page that links to no results of a GPU's, or only to a rehearsal's."""
    files = [page.parent / name for name in RESULTS.findall(text)]
    measured = [f for f in files if f.exists() and not json.loads(f.read_text()).get("rehearsal")]
    if missing := [f.name for f in files if f not in measured]:
        return [f"{name} is no results file" for name in missing]
    return [] if measured else claims(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_claim_of_a_gpu_has_its_results(page):
    text = page.read_text()
    assert not unfounded(page, text)
    if list((ROOT / "benchmarks" / "results").glob("*-gpu.json")):  # and none is denied that was made
        assert not NOTHING.search(text)


@pytest.mark.parametrize("said", [
    "On a GPU it is 3.1 times as fast\nas torchvision.", "It was tried on an H100.", "With TF32 a step takes 12 ms.",
    "| net | CPU | GPU |\n|---|--:|--:|\n| a | 1.2 | 2.4 |", "| net | s |\n|---|--:|\n| a, on CUDA | 3 ms |",
])  # fmt: skip
def test_a_claim_is_seen_and_its_results_are_asked_for(said, tmp_path):
    page, results = tmp_path / "page.md", tmp_path / "speed-gpu.json"
    linked = f"{said}\n\n[Figures](speed-gpu.json)"
    assert unfounded(page, said) and unfounded(page, linked)
    results.write_text('{"rehearsal": true}')
    assert unfounded(page, linked)
    results.write_text("{}")
    assert not unfounded(page, linked)


@pytest.mark.parametrize("said", [
    "A GPU where there is one.", "On a CPU it is 3.1 times as fast.", "It needs CUDA 12, 290 MiB.",
    "    make gpu    # 9 minutes\n\n| net | CPU | GPU |\n|---|--:|--:|\n| a | 1.2 | |",
])  # fmt: skip
def test_what_is_no_claim(said, tmp_path):
    assert not unfounded(tmp_path / "page.md", said)
