"""Every named variant on every backend and check, against PyTorch: docs/atlas.* and the table of docs/variants.md.

    make atlas

Goes on where it stopped: what the results have of the same versions is not run again.
"""

import contextlib
import json
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path

import click
import numpy as np
from peers import processor
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from common import parity
from common.arch import FAMILIES, VARIANTS, Arch
from common.errors import RosettaError
from common.names import count, multiply_adds, parameters
from common.parity.backends import Elsewhere
from common.parity.checks import CHECKS
from common.parity.comparison import worst_of
from common.plan import make_plan
from common.tools.files import atomic
from common.tools.text import within

ROOT = Path(__file__).parent.parent
VARIANTS_PAGE = ROOT / "docs" / "variants.md"
FIRST = "torch"
ENGINES = ("keras:tensorflow", "keras:jax", "keras:torch")
OTHERS = {"cpu": (*ENGINES, "onnx:torch", "onnx:keras"), "gpu": ENGINES}
LARGE, MEMORY = 61_000_000, 2**32  # parameters; bytes that a process may keep between variants
N = 4
SIZES = {"stride 32": (65, 52), "CIFAR": (13, 10)}  # odd and even; the last stage has a few positions left
SMALLEST = {min(of, key=lambda n: count(parameters(of[n]))) for of in FAMILIES.values()}
# the columns: check, part, heading
COLUMNS = (
    ("forward", "logits", "logits"),
    ("forward", "layers", "worst layer"),
    ("train", "logits", "training logits"),
    ("train", "statistics", "running statistics"),
    ("gradients", "", "gradients"),
    ("steps", "parameters", "parameters after 3 steps"),
    ("steps", "", "all after 3 steps"),
)


def images(arch: Arch) -> np.ndarray:
    """Noise, N C *S."""
    size = SIZES["CIFAR" if make_plan(arch).total_stride <= 8 else "stride 32"][: arch.dims]
    return np.random.default_rng(0).standard_normal((N, arch.in_channels, *size))


def measure(
    name: str, first: Elsewhere, others: Sequence[Elsewhere], narrow: tuple[str, ...] = ("forward",)
) -> dict[str, dict[str, object]]:
    """By backend, the worst figure of each column: float64 in every check, float32 in those of `narrow` beside its
    floor. A referee runs the forward pass, in float64 for the smallest net of each family."""
    arch, since = VARIANTS[name], time.perf_counter()
    checks: dict[str, tuple[str, ...]] = {"float64": tuple(CHECKS), "float32": narrow}
    if others[0].spec.startswith("onnx"):
        checks = {"float64": ("forward",), "float32": ("forward",)} if name in SMALLEST else {"float32": ("forward",)}
    r = parity.compare(arch, images(arch), backends=(first, *others), checks=checks, every=False, name=name)
    seconds, found = round(time.perf_counter() - since, 1), {}
    for other in others:
        figures: dict[str, object] = {}
        for check, part, heading in COLUMNS:
            rows = r.rows.get((other.spec, "float64"), ())
            members = [d for d in rows if d.check.split()[0] == check and part in (d.part, "")]
            if members:
                worst = worst_of(members)
                figures[heading] = {"relative": worst.relative, "of": f"{worst.name} ({worst.check})"}
        logits = next(d for d in r.rows[other.spec, "float32"] if d.part == "logits")
        verdicts = {d: r.verdict_of(other.spec, d) for d in r.dtypes}
        found[other.spec] = {
            "verdicts": verdicts, "float64": figures,
            "float32": {"logits": logits.relative, "floor": logits.floor, "floors": logits.relative / logits.floor},
            "why": [f"{d}: {r.why(other.spec, d)}" for d, verdict in verdicts.items() if verdict != "rounding"],
            "same_counts": r.same_counts, "weights_bit_exact": all(r.exact.values()),
            "versions": {b.spec: b.versions() for b in (first, other)}, "seconds": seconds,
        }  # fmt: skip
    return found


def together(name: str, others: Sequence[str], device: str) -> list[tuple[str, ...]]:
    """Which backends run at once: all engines of Keras, and both graphs, unless copies of a large net wouldn't fit; on
    a GPU each by itself, so that one that fails there leaves the others."""
    if large(name) or device == "gpu":
        return [(b,) for b in others]
    kinds = dict.fromkeys(b.split(":")[0] for b in others)
    return [tuple(b for b in others if b.startswith(kind)) for kind in kinds]


def large(name: str) -> bool:
    return count(parameters(VARIANTS[name])) > LARGE


class Processes:
    """Backends that start when they are first asked for, stay, and start anew where they have grown large."""

    def __init__(self, device: str):
        self.device, self.running = device, dict[str, Elsewhere]()
        folder = Path(tempfile.gettempdir()) / "resnet-rosetta-jax"  # JAX compiles every operator of every shape
        self.environment = {
            "JAX_COMPILATION_CACHE_DIR": str(folder),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def __getitem__(self, spec: str) -> Elsewhere:
        if spec in self.running and self.running[spec].memory() > MEMORY:
            self.running.pop(spec).close()
        if spec not in self.running:
            self.running[spec] = Elsewhere(spec, self.device, self.environment)
        return self.running[spec]

    def close(self, but: Sequence[str] = ()) -> None:
        for spec in set(self.running) - set(but):
            self.running.pop(spec).close()


def cell(row: dict, heading: str) -> str:
    figure = row["float64"].get(heading)
    return f"{figure['relative']:.1e}" if figure else ""


def page(report: dict, others: tuple[str, ...], command: str = "atlas") -> str:
    """docs/atlas.md."""
    rows, versions = report["variants"], report["versions"]
    done = [(n, b) for n in VARIANTS for b in others if b in rows.get(n, {})]
    bad = [(n, b) for n, b in done if set(rows[n][b]["verdicts"].values()) != {"rounding"}]
    said = [f"{b}: {', '.join(f'{k} {v}' for k, v in versions[b].items())}" for b in (FIRST, *others) if b in versions]
    lines = [
        "# Atlas", "", *marked(report),
        f"Every named variant on every backend against {FIRST}, written by `make {command}`, {report['date']}, "
        f"{report['machine']}. {len(done)} of {len(VARIANTS) * len(others)} runs, {len(bad)} with more than "
        "rounding.", "",
        *textwrap.wrap(
            f"{N} images of noise, 65 x 52 pixels, for CIFAR's nets 13 x 10, for signals 65 samples; random BatchNorm "
            "statistics. Each figure is the largest difference over the largest element of an array, and the worst "
            "array of its kind, in float64. float32: that of the logits, and in brackets how many noise floors that is "
            "(PyTorch in float32 against itself in float64). Steps are 3 each of SGD with momentum, with Nesterov, "
            "Adam and AdamW, all with weight decay, the rate a tenth in the third; 'all' has moments and "
            "statistics too. onnx: the graph that this framework exports, in ONNX Runtime in float32, and for the "
            "smallest net of a family in ONNX's own evaluator in float64.",
            140,
        ),
        "",
        *(f"- {line}" for line in said), "",
        "| variant | backend | " + " | ".join(h for *_, h in COLUMNS) + " | float32 |",
        "|---|---|" + "--:|" * (len(COLUMNS) + 1),
    ]  # fmt: skip
    for name in VARIANTS:
        for i, b in enumerate(o for o in others if o in rows.get(name, {})):
            row = rows[name][b]
            narrow = f"{row['float32']['logits']:.1e} ({row['float32']['floors']:.1f})"
            figures = " | ".join(cell(row, h) for *_, h in COLUMNS)
            mark = "" if (name, b) not in bad else " **not rounding**"
            lines.append(f"| {f'`{name}`' if i == 0 else ''} | {b}{mark} | {figures} | {narrow} |")
    for kind in dict.fromkeys(b.split(":")[0] for _, b in done):
        found = [rows[n][b] for n, b in done if b.startswith(kind)]
        worst = []
        for *_, heading in COLUMNS:
            cells = [row["float64"][heading]["relative"] for row in found if heading in row["float64"]]
            worst.append(f"**{max(cells):.1e}**" if cells else "")
        narrow, floors = (max(row["float32"][of] for row in found) for of in ("logits", "floors"))
        lines.append(f"| **worst** | {kind} | {' | '.join(worst)} | **{narrow:.1e} ({floors:.1f})** |")
    for n, b in bad:
        lines += ["", f"`{n}` on {b}: {'; '.join(rows[n][b]['why'])}."]
    return "\n".join(lines) + "\n"


def table(report: dict, others: tuple[str, ...]) -> str:
    """That of docs/variants.md: a variant a row, the worst of Keras' three engines."""
    rows = report["variants"]
    engines = [b for b in others if b.startswith("keras")]
    headings = ("logits", "training logits", "gradients", "parameters after 3 steps")
    lines = [
        "| variant | parameters | multiply-adds | logits | training | gradients | 3 steps | float32 | ONNX |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]

    def worst(name: str, heading: str) -> str:
        found = [rows[name][b]["float64"].get(heading) for b in engines if b in rows.get(name, {})]
        return f"{max(f['relative'] for f in found):.1e}" if found and all(found) else ""

    def narrow(name: str, backends: list[str]) -> str:
        found = [rows[name][b]["float32"]["logits"] for b in backends if b in rows.get(name, {})]
        return f"{max(found):.1e}" if found else ""

    for family, variants in FAMILIES.items():
        lines.append(f"| **{family}** | | | | | | | | |")
        for name, arch in variants.items():
            figures = [worst(name, h) for h in headings]
            figures += [narrow(name, engines), narrow(name, [b for b in others if b.startswith("onnx")])]
            counts = f"{count(parameters(arch)):,} | {multiply_adds(arch):,}"
            lines.append(f"| `{name}` | {counts} | {' | '.join(figures)} |")
    return "\n".join(lines)


def until_today(dates: str) -> str:
    """The days on which it was measured, "first to last"."""
    first, today = dates.split(" to ")[0], date.today().isoformat()
    return today if first in ("", today) else f"{first} to {today}"


def caption(report: dict) -> str:
    v = {k: w for b in report["versions"].values() for k, w in b.items()}
    text = (
        f"PyTorch {v.get('torch')} against Keras {v.get('keras')}, the worst of TensorFlow {v.get('tensorflow')}, JAX "
        f"{v.get('jax')} and torch as its engine, {report['date']}, {report['machine']}. Largest difference over "
        "largest element, in float64: logits; training-mode logits; the worst gradient; the worst parameter after 3 "
        "steps each of four optimizers. Then the logits in float32, and those of ONNX Runtime on both exports. Every "
        "backend and check by itself: [docs/atlas.md](atlas.md)."
    )
    return textwrap.fill(text, 140)


def load(results: Path, rehearsal: bool = False) -> dict:
    """What was measured before, or nothing. Raises RosettaError for a rehearsal's figures, which are none, unless this
    is one, too."""
    report = json.loads(results.read_text()) if results.exists() else {"rehearsal": True} if rehearsal else {}
    if report.get("rehearsal", False) != rehearsal:
        written = "a rehearsal" if report.get("rehearsal") else "no rehearsal"
        raise RosettaError(
            f"{results} was written by {written}: neither goes on with the other's figures. Move it away"
        )
    return report


def marked(report: dict) -> list[str]:
    """What a page of a rehearsal's figures begins with."""
    return ["**Rehearsal on a CPU: none of this is a result.**", ""] if report.get("rehearsal") else []


def fill(
    report: dict, results: Path, device: str, names: Iterable[str], others: tuple[str, ...],
    tell: Callable[[str, int], None] = lambda what, left: None, narrow: tuple[str, ...] = ("forward",),
) -> list[str]:  # fmt: skip
    """Measures what `report` lacks of these variants on these backends, and writes it after each. Gives what failed."""
    failed, running = [], Processes(device)
    report |= {"variants": report.get("variants", {}), "versions": report.get("versions", {})}
    with contextlib.closing(running):
        versions = {b: running[b].versions() for b in (FIRST, *others)}
        running.close(but=(FIRST, *others) if device == "gpu" else ())
        report["versions"] |= versions

        def missing(name: str, b: str) -> bool:
            measured = report["variants"].get(name, {}).get(b, {}).get("versions")
            return measured != {s: versions[s] for s in (FIRST, b)}

        wanted = [
            (name, group)
            for name in names
            for group in together(name, others, device)
            if any(missing(name, b) for b in group)
        ]
        wanted.sort(key=lambda run: run[1][0].startswith("onnx"))  # processes that aren't needed yet don't start
        for i, (name, group) in enumerate(wanted):
            tell(f"{name} on {', '.join(group)}", len(wanted) - i)
            if large(name):  # two of them fit, and not what the others hold
                running.close(but=(FIRST, *group))
            try:
                found = measure(name, running[FIRST], [running[b] for b in group], narrow)
                report["variants"].setdefault(name, {}).update(found)
            except RosettaError as e:
                failed.append(f"{name} on {', '.join(group)}: {e}")
                running.close()
            report |= {"machine": machine(device, versions), "date": until_today(report.get("date", ""))}
            with atomic(results) as temporary:
                temporary.write_text(json.dumps(report, indent=1) + "\n")
    return failed


def machine(device: str, versions: dict[str, dict[str, str]]) -> str:
    return processor() if device == "cpu" else f"{versions[FIRST]['device']}; {processor()}"


def not_rounding(report: dict) -> list[str]:
    """Which runs have more than rounding, other counts, or weights that changed on their way."""
    runs = [(n, b, row) for n, of in report["variants"].items() for b, row in of.items()]
    return [
        f"{n} on {b}"
        for n, b, row in runs
        if set(row["verdicts"].values()) != {"rounding"} or not (row["same_counts"] and row["weights_bit_exact"])
    ]


@click.command()
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", help="gpu writes docs/atlas-gpu.*.")
@click.option("--only", multiple=True, metavar="NAME", help="These variants; may be repeated.")
@click.option("--backend", "backends", multiple=True, metavar="B", help="These backends; may be repeated.")
@click.option("--again", is_flag=True, help="Measure everything anew.")
def main(device: str, only: tuple[str, ...], backends: tuple[str, ...], again: bool) -> None:
    """Measure what is missing, and write the pages."""
    stem = ROOT / "docs" / ("atlas" if device == "cpu" else "atlas-gpu")
    results = stem.with_suffix(".json")
    report = {} if again else load(results)
    others = tuple(backends) or OTHERS[device]
    columns = (Progress.get_default_columns()[0], BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("to go"), TimeRemainingColumn(elapsed_when_finished=True)) as progress:
        task, total = progress.add_task("atlas"), 0

        def tell(what: str, left: int) -> None:
            nonlocal total
            total = total or left
            progress.update(task, description=what, total=total, completed=total - left)

        failed = fill(report, results, device, only or VARIANTS, others, tell)
    for line in failed:
        Console(stderr=True).print(line)
    stem.with_suffix(".md").write_text(page(report, OTHERS[device]))
    if device == "cpu":
        both = f"{caption(report)}\n\n{table(report, OTHERS['cpu'])}"
        VARIANTS_PAGE.write_text(within(VARIANTS_PAGE.read_text(), "atlas: make atlas", both))
    bad = not_rounding(report)
    missing_runs = len(VARIANTS) * len(OTHERS[device]) - sum(map(len, report["variants"].values()))
    if bad or missing_runs:
        raise SystemExit(f"not rounding: {', '.join(bad) or 'none'}; not measured: {missing_runs}")


if __name__ == "__main__":
    main()
