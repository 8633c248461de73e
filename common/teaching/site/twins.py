"""Two sources beside each other: rows of coloured lines, and what is known of each line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.names import Row, layers
from common.row import Arch
from common.teaching.plain import write

FRAMEWORKS = ("torch", "keras")


def coloured(text: str) -> list[str]:
    """The lines of a Python text as HTML, in which what is no plain word has Pygments' short class."""
    from pygments import lex
    from pygments.lexers import PythonLexer
    from pygments.token import STANDARD_TYPES

    lines = [""]
    for token, value in lex(text, PythonLexer(ensurenl=False, stripnl=False)):
        kind = STANDARD_TYPES.get(token, "")[:1]
        kind = kind if kind in ("k", "s", "c", "m") else "f" if STANDARD_TYPES.get(token, "") in ("nf", "nc") else ""
        for i, part in enumerate(value.split("\n")):
            if i:
                lines.append("")
            part = part.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            lines[-1] += f'<i class="{kind}">{part}</i>' if kind and part.strip() else part
    return lines


def plain(arch: Arch) -> dict[str, Any]:
    """The plain code of a row in both frameworks as rows (left, right, what is known), or the reason why there is
    none."""
    from common.errors import RosettaError

    try:
        texts = [write(arch, f) for f in FRAMEWORKS]
    except RosettaError as e:
        return {"rows": [], "reason": str(e)}
    left, right = (coloured(t) for t in texts)
    known = list(_known(texts[0], layers(arch)))
    n = max(len(left), len(right))
    rows = [
        (left[i] if i < len(left) else "", right[i] if i < len(right) else "", known[i] if i < len(known) else None)
        for i in range(n)
    ]
    while rows and rows[-1][:2] == ("", ""):
        rows.pop()
    return {"rows": rows, "reason": ""}


def _known(text: str, rows: list[Row]) -> Iterator[dict[str, Any] | None]:
    """Of each line that makes a layer, or calls one, which layers of the net those are."""
    inside = ""
    for line in text.splitlines():
        if made := re.match(r"class (\w+)", line):
            inside = made[1]
        found = re.search(r"self\.([a-z]\w*)(?: = |\()", line)
        if not found or not inside:
            yield None
            continue
        name = found[1]
        if inside == "ResNet":
            of = [r for r in rows if r.name == name or r.name.startswith(f"{name}.")]
            shown = [r for r in of if r.name == name] or of[-1:]
        else:
            of = shown = [r for r in rows if "." in r.name and (r.name.endswith(f".{name}") or f".{name}." in r.name)]
        if not of:
            yield None
            continue
        yield {
            "name": name, "count": len(shown), "first": shown[0].output, "first_last": shown[0].channels_last,
            "last": shown[-1].output, "last_last": shown[-1].channels_last, "kind": shown[0].kind,
            "parameters": sum(r.parameters for r in of), "multiply_adds": sum(r.multiply_adds for r in of),
        }  # fmt: skip


def twin(root: Path, file: str) -> list[tuple[str, str, bool]]:
    """A file that both packages have, as rows (left, right, whether they differ)."""
    texts = [(root / f"{f}_impl" / file).read_text("utf-8") for f in FRAMEWORKS]
    pairs = zip(*(coloured(t) for t in texts), *(t.split("\n") for t in texts), strict=True)
    rows = [(a, b, plain_a != plain_b) for a, b, plain_a, plain_b in pairs]
    return rows[:-1] if rows[-1][0] == "" else rows


def functions(root: Path) -> list[dict[str, Any]]:
    """layers.py, function beside function, in the order of PyTorch's file."""
    found = []
    for f in FRAMEWORKS:
        text = (root / f"{f}_impl" / "layers.py").read_text("utf-8")
        lines = text.split("\n")
        parts = {}
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                parts[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
        found.append(parts)
    return [
        {"name": name, "sides": [coloured(parts[name]) if name in parts else [] for parts in found]}
        for name in dict.fromkeys([*found[0], *found[1]])
    ]
