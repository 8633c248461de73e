"""What commands print and write for others to read: strict JSON, and tables."""

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any


def to_json(value: Any, indent: int | None = 1) -> str:
    """`value` as JSON that every reader takes: what isn't finite, which JSON lacks, is null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def within(page: str, mark: str, text: str) -> str:
    """The page with a generated text between its marks, `<!-- mark -->` and `<!-- end of mark -->`; what a mark says
    behind a colon is how the text is made, and stands in the first alone."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark.partition(':')[0]} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def width(text: str) -> int:
    """Columns that `text` takes on a terminal: two for each wide character of East Asia, none for a combining mark."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def table(lines: Sequence[Sequence[str]], align: str) -> list[str]:
    """Lines of a table without borders; `align` has an l or an r for each column."""
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]

    def cell(text: str, room: int, side: str) -> str:
        space = " " * (room - width(text))
        return text + space if side == "l" else space + text

    return ["  ".join(map(cell, line, widths, align)).rstrip() for line in lines]
