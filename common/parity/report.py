"""A comparison as one HTML page that needs nothing else, and its JSON."""

import io
import math
import os
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from common import __version__
from common.parity.comparison import PARTS, WORDS, Comparison, worst_of
from common.parity.difference import Difference
from common.tools.files import atomic, make_folder
from common.tools.frameworks import require
from common.tools.text import to_json

TEMPLATE = Path(__file__).parent / "report.html"
PAGE, DATA = "report.html", "report.json"
# drawn in these, which the page's style sheet gives its own colours, light or dark
_INK, _GRID = "#010101", "#020202"
_LINES = {"float64": "#030303", "float32": "#040404", "bfloat16": "#050505", "float16": "#060606"}
_VARIABLES = {_INK: "--ink", _GRID: "--grid", **{colour: f"--{dtype}" for dtype, colour in _LINES.items()}}


def prepare(folder: str | os.PathLike) -> Path:
    """Makes `folder` where there is none. Raises RosettaError where it can't be made or written, or what draws the page
    isn't installed: better before a minute's work than after it."""
    require("a report", ("jinja2", "matplotlib"), "report")
    return make_folder(folder)


def write(folder: str | os.PathLike, comparison: Comparison) -> Path:
    """Writes report.html and report.json into `folder`; gives the page's path. Raises RosettaError as `prepare`."""
    folder = prepare(folder)
    for name, text in ((DATA, to_json(comparison.to_json())), (PAGE, page(comparison))):
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / PAGE


def page(c: Comparison) -> str:
    """The page's HTML."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["figure"] = figure
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        c=c,
        date=date.today().isoformat(),
        version=__version__,
        tables=[_tables(c, b) for b in c.others],
        data=DATA,
        words=WORDS,
    )


def figure(value: float | None) -> str:
    """1.2e-15; what isn't finite by its name."""
    return "" if value is None else f"{value:.1e}" if math.isfinite(value) else str(value)


def _tables(c: Comparison, backend: str) -> dict[str, Any]:
    """What the page shows of one backend."""
    first = {d: c.first_over(backend, d) for d in c.dtypes}
    kinds: dict[str, list[tuple[str, list[Difference | None]]]] = {}
    for title, chosen in (
        ("Layers, evaluation mode", lambda d: d.check == "forward"),
        ("Layers, training mode", lambda d: d.check == "train" and d.part in ("layers", "logits", "loss")),
        ("Gradients", lambda d: d.check == "gradients"),
        ("Running statistics after one pass", lambda d: d.check == "train" and d.part == "statistics"),
    ):
        by_name: dict[str, list[Difference | None]] = {}
        for i, dtype in enumerate(c.dtypes):
            for d in c.rows[backend, dtype]:
                if chosen(d):
                    by_name.setdefault(d.name, [None] * len(c.dtypes))[i] = d
        if by_name:
            kinds[title] = list(by_name.items())
    steps: dict[str, list[Difference | None]] = {}
    for i, dtype in enumerate(c.dtypes):
        groups: dict[str, list[Difference]] = {}
        for d in c.rows[backend, dtype]:
            if d.check.startswith("steps"):
                groups.setdefault(f"{d.check.removeprefix('steps ')}: {PARTS.get(d.part, d.part)}", []).append(d)
        for name, members in groups.items():
            steps.setdefault(name, [None] * len(c.dtypes))[i] = worst_of(members)
    if steps:
        kinds["Optimizer steps, the worst array of each"] = list(steps.items())
    verdicts = {d: c.verdict_of(backend, d) for d in c.dtypes}
    plots = {
        title: [plot(c, backend, check, width) for width in (9.6, 4.4)]
        for check, title in (("forward", "evaluation mode"), ("train", "training mode"))
        if check in c.checks and any(d.check == check and d.part == "layers" for d in c.rows[backend, c.dtypes[0]])
    }
    return {
        "backend": backend, "verdicts": verdicts, "first": first, "kinds": kinds, "plots": plots,
        "why": {d: c.why(backend, d) for d in c.dtypes},
    }  # fmt: skip


def plot(c: Comparison, backend: str, check: str, width: float) -> str:
    """The drift through the depth of the net, as SVG: each dtype's difference, and its noise floor broken."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "text.color": _INK,
        "axes.edgecolor": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "grid.color": _GRID,
        "svg.hashsalt": "rosetta",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        fig = Figure(figsize=(width, 3.4), layout="constrained")
        axes = fig.subplots()
        names: list[str] = []
        said: list[str] = []
        for dtype in c.dtypes:
            rows = [d for d in c.rows[backend, dtype] if d.check == check and d.part == "layers"]
            names = names or [d.name for d in rows]
            x = range(1, len(rows) + 1)
            axes.plot(x, [_drawn(d.relative) for d in rows], color=_LINES[dtype], linewidth=1.6, label=dtype)
            if any(d.floor for d in rows):
                axes.plot(
                    x, [_drawn(d.floor) for d in rows], color=_LINES[dtype], linewidth=1.1, linestyle=(0, (4, 2)),
                    label=f"{dtype}, noise floor",
                )  # fmt: skip
            over = c.first_over(backend, dtype)
            if over in rows and over.name not in said:
                said.append(over.name)
                at = rows.index(over) + 1
                axes.axvline(at, color=_LINES[dtype], linewidth=0.8, linestyle=":")
                axes.annotate(
                    f"first over: {over.name}", (at, 0.5), xycoords=("data", "axes fraction"),
                    xytext=(4 if at < len(rows) / 2 else -4, 0),
                    textcoords="offset points", fontsize=8, ha="left" if at < len(rows) / 2 else "right",
                )  # fmt: skip
        axes.set_yscale("log")
        axes.grid(axis="y", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel("difference / largest element")
        ticks = _stages(names, math.ceil(len(names) * (_LABEL if width > 6 else _TURNED) / width))
        turned: dict[str, Any] = {} if width > 6 else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(list(ticks), list(ticks.values()), **turned)
        axes.set_xlim(1, max(2, len(names)))
        fig.legend(loc="outside upper center", ncols=3 if width > 6 else 2, frameon=False, labelcolor=_INK)
        out = io.StringIO()
        fig.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), f"{re.sub(r'[^a-z0-9]', '-', backend)}-{check}-{width:.0f}")


def _drawn(value: float | None) -> float:
    """What a logarithmic axis can show: what is bit-equal or not finite is a gap."""
    return value if value and math.isfinite(value) else math.nan


_LABEL, _TURNED = 0.55, 0.25  # inches that a stage's name takes along the axis, level and turned


def _stages(names: Sequence[str], room: int = 1) -> dict[int, str]:
    """{position: stage} where each stage begins. Where the next begins within `room` positions, its name has the
    place: the stem's is a layer or two before that of stage 1, and the two would lie over each other."""
    found: dict[int, str] = {}
    for i, name in enumerate(names, 1):
        stage = name.split(".")[0]
        if stage not in found.values() and (stage.startswith("layer") or stage in ("conv1", "fc")):
            if found and i - max(found) < room:
                found.popitem()
            found[i] = stage
    return found


def _inline(svg: str, prefix: str) -> str:
    """An SVG file's text as an element of a page: no header, ids of its own, the page's colours, as wide as it may."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r'<svg ([^>]*?)height="[^"]*" ?|width="[^"]*pt" ?', lambda m: f"<svg {m[1]}" if m[1] else "", svg)
