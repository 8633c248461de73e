"""Pages from sources, rows and measurements."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.arch import FAMILIES, VARIANTS, get
from common.errors import RosettaError
from common.names import layers, sections
from common.plan import make_plan
from common.teaching.exercises import EXERCISES
from common.teaching.faults import FAULTS
from common.teaching.site.exercises import answers
from common.teaching.site.lessons import lessons
from common.teaching.site.notebook import notebook
from common.teaching.site.picture import net_picture
from common.teaching.site.tutorials import often, tutorials
from common.teaching.site.twins import functions, plain, twin
from common.teaching.site.versus import PAIRS, rows, versus
from common.tools.files import atomic, make_folder
from common.tools.frameworks import require

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MADE = "made-by-resnet-rosetta"  # the file that says whose the folder is
TOLERANCE = 1e-12  # as the comparison has it in float64, of the largest element


def build(folder: str | Path, variants: Sequence[str] | None = None, live: bool = False) -> list[Path]:
    """Writes the site into `folder`, with the pages of all variants or of those; gives the files. `live` adds the page
    that `common.teaching.learn` answers.

    Raises RosettaError for a folder that holds anything else, and where jinja2 or the measurements are missing.
    """
    require("the site", ("jinja2", "pygments", "markdown_it"), "report")
    import jinja2
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    if not str(folder):
        raise RosettaError("the folder has no name: give one, or . for this one")
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MADE).is_file():
        raise RosettaError(f"{folder} isn't empty, and isn't a site that was made here: give another folder")
    names = [n for n in VARIANTS if variants is None or n in variants]
    traps, atlas = _measured("traps.json"), _measured("atlas.json")
    make_folder(folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "pages"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters.update(
        number=lambda n: f"{n:,}", small=_small, shape=lambda s: " × ".join(map(str, s)),
        markdown=lambda text: Markup(MarkdownIt().render(text)),
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    written: list[Path] = []

    def write(name: str, text: str) -> None:
        with atomic(folder / name) as temporary:
            temporary.write_text(text, "utf-8")
        written.append(folder / name)

    def page(file: str, template: str, **facts: Any) -> None:
        write(file, environment.get_template(template).render(page=file, live=live, **facts) + "\n")

    write(MADE, "make site\n")
    look, style, script = ((HERE / "pages" / f).read_text("utf-8") for f in ("net.css", "style.css", "script.js"))
    write("style.css", look + style)
    write("script.js", script)
    page("index.html", "index.html", variants=len(VARIANTS), traps=len(FAULTS),
         exercises=len(EXERCISES), picture=net_picture(get("resnet18")))  # fmt: skip
    page("variants.html", "variants.html", families={f: [n for n in of if n in names] for f, of in FAMILIES.items()},
         rows={n: _costs(n) for n in names}, parity={n: _parity(atlas, n) for n in names})  # fmt: skip
    for name in names:
        arch = get(name)
        picture = net_picture(arch)
        alone = f'<svg xmlns="http://www.w3.org/2000/svg"{picture[4:]}'
        write(f"net-{name}.svg", alone.replace(">", f"><style>{look}</style>", 1))
        page(
            f"variant-{name}.html", "variant.html", name=name, plan=make_plan(arch), picture=picture,
            stages=sections(arch), costs=_costs(name), parity=_parity(atlas, name), atlas=atlas, **plain(arch),
        )  # fmt: skip
    found = rows(ROOT, names)
    pairs = [(versus(found, *pair), why) for *pair, why in PAIRS if {*pair} <= {*names}]
    page("compare.html", "compare.html", rows=found, pairs=pairs)
    page("one-text.html", "one_text.html", files={f: twin(ROOT, f) for f in ("resnet.py", "blocks.py")})
    page("layers.html", "layers.html", functions=functions(ROOT))
    cards = {name: _card(name, traps[name]) for name in FAULTS}
    page("traps.html", "traps.html", cards=list(cards.values()))
    filled = lambda text, **facts: environment.from_string(text).render(**facts)  # noqa: E731
    facts = {"fault": lambda name: traps[name]["keras"], "costs": _costs, "parity": lambda name: _parity(atlas, name)}
    course = lessons(filled, facts)
    page("lessons.html", "lessons.html", lessons=course)
    page("exercises.html", "exercises.html", exercises=EXERCISES)
    page("teachers.html", "teachers.html", lessons=course, answers=answers(), cards=cards)
    for lesson in course:
        page(f"lesson-{lesson.number}.html", "lesson.html", lesson=lesson, count=len(course), card=cards[lesson.fault])
        write(f"lesson-{lesson.number}.ipynb", notebook(lesson, len(course)))
    others = _measured("tutorials.json")
    read = tutorials(others["nets"], cards, {lesson.fault: lesson.number for lesson in course})
    page("tutorials.html", "tutorials.html", nets=read, often=often(read), others=others)
    if live:
        page("live.html", "live.html", variants=VARIANTS, faults=FAULTS)
    return written


def _measured(name: str) -> Any:
    path = ROOT / "docs" / name
    if not path.is_file():
        raise RosettaError(f"no measurements at {path}: the site is made in a clone of the repository")
    return json.loads(path.read_text("utf-8"))


def _small(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def _costs(name: str) -> dict[str, Any]:
    arch = get(name)
    rows = layers(arch)
    return {
        "input": arch.input_shape(), "parameters": sum(r.parameters for r in rows),
        "statistics": sum(r.statistics for r in rows), "multiply_adds": sum(r.multiply_adds for r in rows),
    }  # fmt: skip


def _parity(atlas: dict[str, Any], name: str) -> dict[str, float | None] | None:
    """The worst of Keras' engines against PyTorch in float64; None where it wasn't measured."""
    runs = [run["float64"] for backend, run in atlas["variants"].get(name, {}).items()
            if backend.startswith("keras:") and "float64" in run]  # fmt: skip
    if not runs:
        return None
    return {
        what: max((run[what]["relative"] for run in runs if what in run), default=None)
        for what in ("logits", "training logits", "gradients", "parameters after 3 steps")
    }


def _card(name: str, measured: dict[str, Any]) -> dict[str, Any]:
    """A fault with its words, its figures on either side, and its drift as bars from 1e-16 to 1."""
    bars, seen = [], measured["keras"]
    drift = dict(seen["layers"])
    if seen["check"] not in ("forward", "counts"):  # nothing is seen before training
        drift[f"{seen['check']}: {seen['first']}"] = seen["by"]
    if seen["after"]:
        drift["logits after three steps"] = seen["after"]
    for layer, value in drift.items():
        width = 100 if value is None else 0 if value < 1e-16 else min(100.0, 100 * (math.log10(value) + 16) / 16)
        over = value is None or value > TOLERANCE
        bars.append({"layer": layer, "value": value, "width": round(width, 1), "over": over})
    red = next((bar["layer"] for bar in bars if bar["over"]), "")
    anchor = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return {"fault": FAULTS[name], "anchor": anchor, "bars": bars, "red": red, **measured}
