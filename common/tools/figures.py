"""Figures as PNG, drawn by matplotlib without a screen."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.tools.files import atomic
from common.tools.frameworks import require


@contextmanager
def figure(
    path: str | os.PathLike, rows: int, columns: int, size: tuple[float, float], **options: Any
) -> Iterator[Any]:
    """(figure, axes) to draw on, in inches; written to `path`, whole or not at all, when the block ends. From then on
    `figure.unwritable` are the characters that no font of this machine has.

    Raises RosettaError where matplotlib isn't installed or the file can't be written.
    """
    require("a figure", ("matplotlib",), "train")
    from matplotlib.figure import Figure

    made: Any = Figure(figsize=size, layout="constrained")
    yield made, made.subplots(rows, columns, **options)
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # `unwritable` says it in a sentence
        made.unwritable = in_any_script(made)
        made.savefig(temporary, dpi=120)


def in_any_script(figure: Any) -> str:
    """Gives the figure's texts fonts of this machine that have the characters which matplotlib's own lacks. Returns the
    characters that no font has."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font
    from matplotlib.text import Text

    figure.draw_without_rendering()  # labels of an axis are there from then on
    texts = figure.findobj(Text)
    own = font_manager.findfont("DejaVu Sans")
    known = FT2Font(own).get_charmap()
    lacking = {c for t in texts for c in t.get_text() if not c.isspace() and ord(c) not in known}
    families = []
    for font in font_manager.fontManager.ttflist if lacking else ():
        if font.style != "normal" or font.name.startswith("Last Resort"):  # which has a box for everything
            continue
        with contextlib.suppress(OSError, RuntimeError):  # a damaged one
            known = FT2Font(font.fname).get_charmap()
            if has := {c for c in lacking if ord(c) in known}:
                families.append(font.name)
                lacking -= has
        if not lacking:
            break
    if families:
        for text in texts:
            text.set_fontfamily(["DejaVu Sans", *families])
    return "".join(sorted(lacking))


def logarithmic(axes: Any) -> None:
    """A logarithmic vertical axis with numbers such as 0.3 and 20 beside it, and not powers of ten."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(Plain())
    axes.yaxis.set_minor_formatter(Plain(minor_thresholds=(2, 0.4)))
