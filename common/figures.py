"""Figures as PNG, drawn by matplotlib without a screen."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.frameworks import require
from common.weights import atomic


@contextmanager
def figure(
    path: str | os.PathLike, rows: int, columns: int, size: tuple[float, float], **options: Any
) -> Iterator[Any]:
    """(figure, axes) to draw on, in inches; written to `path`, whole or not at all, when the block ends.

    Raises RosettaError where matplotlib isn't installed or the file can't be written.
    """
    require("a figure", ("matplotlib",), "train")
    from matplotlib.figure import Figure

    made = Figure(figsize=size, layout="constrained")
    yield made, made.subplots(rows, columns, **options)
    with atomic(path) as temporary:
        made.savefig(temporary, dpi=120)


def logarithmic(axes: Any) -> None:
    """A logarithmic vertical axis with numbers such as 0.3 and 20 beside it, and not powers of ten."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(Plain())
    axes.yaxis.set_minor_formatter(Plain(minor_thresholds=(2, 0.4)))
