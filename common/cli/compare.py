"""`rosetta compare`: the same net on several backends."""

import os
import sys
from typing import Any

import click

from common.cli.group import Progress, cli, writable
from common.cli.options import Choice, SeveralWords, set_option, several, words
from common.errors import RosettaError, hint
from common.tools.files import atomic
from common.tools.text import to_json


def _checks(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    from common.parity.checks import CHECKS

    names = words(ctx, param, value)
    if names == ("all",):
        return tuple(CHECKS)
    for word in names:
        if word not in CHECKS:
            raise RosettaError(f"unknown check {word!r}{hint(word, CHECKS)}")
    if not names:
        raise RosettaError(f"--checks needs names: {', '.join(CHECKS)}, or all")
    return names


@cli.command(cls=SeveralWords)
@click.argument("name")
@set_option
@click.option(
    "--checks", default="forward,train,gradients", callback=_checks, metavar="A,B",
    help="Any of forward, train, gradients, steps; or all. Default: the first three.",
)  # fmt: skip
@several(
    "--backends", "torch,keras:tensorflow",
    "Any of torch, keras:tensorflow, keras:jax, keras:torch, onnx:torch, onnx:keras; all are held against the first.",
)  # fmt: skip
@click.option("--device", type=Choice(["cpu", "gpu"]), default="cpu", help="Where to run. Default: cpu.")
@click.option(
    "--dtype", "dtypes", type=Choice(["float64", "float32", "bfloat16", "float16"]), multiple=True,
    help="What to compute in; may be repeated. Default: float64 and float32.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 100), default=3, help="Steps of each optimizer. Default: 3.")
@click.option(
    "--image", "images", multiple=True, type=click.Path(), metavar="FILE",
    help="A photograph (may be repeated), or a .npy file of N C H W. Default: two photographs of scikit-learn's.",
)  # fmt: skip
@click.option(
    "--size", type=int, metavar="PIXELS", help="Resize the images to this. Default: what the net was designed for."
)
@click.option(
    "--json", "json_file", type=click.Path(), metavar="FILE", help="Write everything that was measured, array by array."
)
@click.option("--report", type=click.Path(), metavar="DIR", help="Write report.html and report.json into this folder.")
@click.option(
    "--with-fault", "faults", multiple=True, metavar="FAULT",
    help="Put this mistake into one net; may be repeated. `rosetta traps` lists them.",
)  # fmt: skip
@click.option(
    "--side", type=Choice(["torch", "keras"]), default="keras",
    help="Which framework's net has the mistakes. Default: keras.",
)  # fmt: skip
def compare(
    name: str, overrides: dict[str, Any], checks: tuple[str, ...], backends: tuple[str, ...], device: str,
    dtypes: tuple[str, ...], steps: int, images: tuple[str, ...], size: int | None, json_file: str | None,
    report: str | None, faults: tuple[str, ...], side: str,
) -> None:  # fmt: skip
    """Compare NAME on several backends, array by array. All get the same weights and images.

    NAME is a variant or a checkpoint of any library. The exit code is 0 where every difference is rounding, 1 where one
    isn't, and 2 where the command was misused.
    """
    from common import parity
    from common.checkpoints import port
    from common.parity import backends as engines
    from common.parity.checks import CHECKS
    from common.parity.lockstep import refuse_not_finite
    from common.plan import make_plan
    from common.teaching.faults import named
    from common.teaching.measured import whose, with_faults
    from common.training.data import images as pictures

    arch, tensors = port.named(name, overrides)
    paths = [str(p) for p in images or pictures.photographs()]
    x = pictures.read(paths, make_plan(arch), size)
    refuse_not_finite(x, tensors, paths)
    if json_file:
        writable(json_file)
    if report:
        from common.parity import report as pages

        pages.prepare(report)

    mistakes = [named(fault) for fault in dict.fromkeys(faults)]
    if mistakes:
        checks = tuple(c for c in CHECKS if c in checks or any(c in mistake.checks for mistake in mistakes))
    started = with_faults(mistakes, side, backends, device) if mistakes else engines.started(backends, device)
    with Progress() as progress, started as running:
        result = parity.compare(
            arch, x, tensors, backends=running, dtypes=dtypes or ("float64", "float32"), checks=checks, steps=steps,
            name=name, progress=progress,
        )  # fmt: skip
    result.inputs = paths
    if mistakes and result.equal:
        raise RosettaError(
            f"{' with '.join(repr(m.name) for m in mistakes)} does nothing to {name} here: {whose(mistakes)}"
        )
    _print(result)  # before anything is written, which a full disk would end
    if json_file:
        with atomic(json_file) as temporary:
            temporary.write_text(to_json(result.to_json()))
    if report:
        click.echo(f"report: {pages.write(report, result)}")
    sys.exit(0 if result.equal else 1)


_COLOURS = {"rounding": "default", "suspicious": "yellow", "different": "red"}


def _print(r: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from common.parity.comparison import summary, worst_of

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    names = ", ".join(map(os.path.basename, r.inputs))
    console.print(f"\n[bold]{r.name}[/]  input {' x '.join(map(str, r.input_shape))}: {names}", soft_wrap=True)
    for i, (backend, versions) in enumerate(r.versions.items()):
        what = ", ".join(f"{package} {version}" for package, version in versions.items() if package != "device")
        console.print(f"{'against' if i else '       '} {backend}: {what}, {versions['device']}", style="dim")

    counts = Table(box=None, pad_edge=False)
    for head in ("", *r.counts, ""):
        counts.add_column(head, justify="right" if head else "left")
    for text, key in (("trainable parameters", "parameters"), ("BatchNorm statistics", "statistics")):
        found = [n[key] for n in r.counts.values()]
        mark = "[green]equal[/]" if len(set(found)) == 1 else "[red]different[/]"
        counts.add_row(text, *(f"{n:,}" for n in found), mark)
    exact = ["[green]bit-exact[/]" if r.exact.get(b, True) else "[red]changed[/]" for b in r.counts if b != "spec"]
    counts.add_row("weights, in and out again", "", *exact)
    console.print()
    console.print(counts)

    for backend in r.others:
        table = Table(box=None, pad_edge=False, title=f"\n{backend} against {r.first}", title_justify="left")
        for head in ("check", "of", "worst"):
            table.add_column(head, no_wrap=True)
        for dtype in r.dtypes:
            table.add_column(dtype, justify="right")
            if dtype != "float64":
                table.add_column("floor", justify="right", style="dim")
        groups = {dtype: summary(r.rows[backend, dtype]) for dtype in r.dtypes}
        before = ""
        for check, what in groups[r.dtypes[0]]:
            cells = []
            for dtype in r.dtypes:
                members = groups[dtype].get((check, what), [])
                worst = worst_of(members)
                if worst is None:
                    cells += [""] * (1 if dtype == "float64" else 2)
                    continue
                verdict = max((d.verdict for d in members), key=list(_COLOURS).index)
                cells.append(f"[{_COLOURS[verdict]}]{worst.relative:.1e}[/]")
                if dtype != "float64":
                    cells.append(f"{worst.floor:.1e}")
            name = getattr(worst_of(groups[r.dtypes[0]][check, what]), "name", "")
            table.add_row(check if check != before else "", what, name if name != what else "", *cells)
            before = check
        console.print(table)
    console.print("Figures: largest difference over largest element.", style="dim")
    if set(r.dtypes) != {"float64"}:
        console.print("Floor: a framework in that dtype against itself in float64.", style="dim")
    console.print()

    for backend in r.others:
        for dtype in r.dtypes:
            verdict, over = r.verdict_of(backend, dtype), r.first_over(backend, dtype)
            console.print(
                f"{backend}, {dtype}: [{_COLOURS[verdict]}]{verdict}[/]: {r.why(backend, dtype)}", soft_wrap=True
            )
            if over and over.index:
                console.print(
                    f"  first over tolerance: [red]{over.name}[/] at {list(over.index)}: {r.first} {over.values[0]!r}, "
                    f"{backend} {over.values[1]!r}",
                    soft_wrap=True,
                )
    working = sum(s for step, s in r.seconds.items() if not step.startswith("starting"))
    verdict = "[bold green]equal[/]: the same function, to rounding" if r.equal else "[bold red]not equal[/]"
    console.print(f"{verdict}  ({working:.1f} s beyond importing the frameworks)")
