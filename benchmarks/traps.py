"""What each fault does, measured: docs/traps.json, and the table of docs/traps.md. `make traps` measures all of them,
`make lessons` those that the lessons tell of."""

import json
import sys
from pathlib import Path

from common.teaching.faults import FAULTS, SIDES, Fault
from common.teaching.measured import first, measure
from common.teaching.site.lessons import faults_told
from common.tools.files import atomic
from common.tools.text import within

ROOT = Path(__file__).parent.parent


def measured(fault: Fault, side: str) -> dict:
    """The figures of one fault on one side: what differs first and by how much, each array of the pass that does, the
    logits in evaluation mode, and after three steps."""
    result = measure(fault, side)
    over = first(result)
    rows = result.rows[result.others[0], fault.dtypes[-1]]
    logits = next(d for d in rows if (d.check, d.part) == ("forward", "logits")).relative
    after = [d.relative for d in rows if d.part == "logits after"]
    return {
        "check": over.check if over else "counts", "first": over.name if over else "",
        "by": number(over and over.relative),
        "values": list(over.values) if over and over.values else None,
        "logits": number(logits), "after": number(max(after)) if after else None, "verdict": result.verdict,
        "layers": {d.name: number(d.relative) for d in rows if (d.check, d.part) == ("forward", "layers")},
    }  # fmt: skip


def number(relative: float | None) -> float | None:
    """Three digits; None for arrays of different shapes, which have no difference, and for none at all."""
    return None if relative is None or relative == float("inf") else float(f"{relative:.2e}")


def row(fault: Fault, found: dict) -> str:
    shown = found["keras"]
    by = (
        "" if shown["check"] == "counts" else f"{shown['by']:.1e}" if shown["by"] else "no such array, or another shape"
    )
    what = "the count" if shown["check"] == "counts" else f"`{shown['first']}` ({shown['check']})"
    said = f"{shown['logits']:.1e}"
    if shown["logits"] <= 1e-12 and shown["after"]:
        said = f"{shown['logits']:.0e}; {shown['after']:.1e} after 3 steps"
    return f"| {fault.trap or ''} | {fault.name} | {fault.says} | {what} | {by} | {said} | {shown['verdict']} |"


def page(found: dict, text: str) -> str:
    """docs/traps.md with the table of these measurements."""
    lines = [
        "| trap | fault | what is wrong | first that differs | by | logits | verdict |",
        "|--:|---|---|---|--:|--:|---|",
    ]
    lines += [row(f, found[name]) for name, f in FAULTS.items()]
    return within(text, "faults: make traps", "\n".join(lines))


def main() -> None:
    results, document = ROOT / "docs" / "traps.json", ROOT / "docs" / "traps.md"
    names = faults_told() if "--lessons" in sys.argv[1:] else set(FAULTS)
    before = json.loads(results.read_text()) if results.exists() else {}
    found = {
        name: {side: measured(f, side) for side in SIDES} if name in names or name not in before else before[name]
        for name, f in FAULTS.items()
    }
    with atomic(results) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    document.write_text(page(found, document.read_text()))


if __name__ == "__main__":
    main()
