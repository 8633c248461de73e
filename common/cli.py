"""The `rosetta` command. A framework is imported only where a subcommand needs it."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from common import __version__
from common.errors import RosettaError, nearest


class Commands(click.Group):
    """Bad input is one clear message and exit code 2; a mistyped subcommand is offered the nearest."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RosettaError as e:
            click.echo(f"rosetta: {e}", err=True)
            ctx.exit(2)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            raise click.UsageError(f"no such command {args[0]!r}{nearest(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)


def _overrides(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """`groups=8` as {"groups": 8}: values are JSON where they can be, else words."""
    result = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RosettaError(f"--set {text!r} can't be: expected FIELD=VALUE, such as groups=8 or depths=[2,2,2,2]")
        try:
            result[key] = json.loads(
                value.replace("(", "[").replace(")", "]").replace("True", "true").replace("False", "false")
            )
        except ValueError:
            result[key] = value
    return result


set_option = click.option(
    "--set", "overrides", multiple=True, callback=_overrides, metavar="FIELD=VALUE",
    help="Replace a field of the row; may be repeated.",
)  # fmt: skip


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rosetta")
def cli() -> None:
    """The same ResNets in PyTorch and in Keras, and the proof that they are the same."""


@cli.command("list")
@click.option("--family", metavar="F", help="Only the variants of this family.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def list_(family: str | None, as_json: bool) -> None:
    """The variants, with their parameters and multiply-adds."""
    from common.arch import FAMILIES
    from common.names import sections
    from common.plan import make_plan

    if family is not None and family not in FAMILIES:
        raise RosettaError(
            f"unknown family {family!r}{nearest(family, FAMILIES) or '; there are ' + ', '.join(FAMILIES)}"
        )
    rows: list[dict[str, Any]] = []
    for kin, variants in FAMILIES.items():
        for name, arch in variants.items() if family in (None, kin) else ():
            cost = sections(arch)
            rows.append(
                {"name": name, "family": kin, "input": make_plan(arch).default_input(),
                 "parameters": sum(s.parameters for s in cost), "statistics": sum(s.statistics for s in cost),
                 "multiply_adds": sum(s.multiply_adds for s in cost)}
            )  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    lines: list[tuple[str, ...]] = [("variant", "family", "input", "parameters", "multiply-adds")]
    for r in rows:
        size = " x ".join(map(str, r["input"]))
        lines.append((r["name"], r["family"], size, f"{r['parameters']:,}", f"{r['multiply_adds']:,}"))
    _columns(lines, "llrrr")


def _columns(lines: list[tuple[str, ...]], align: str) -> None:
    """A table without borders: rich would take as long to import as the rest of the command takes to run."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for i, line in enumerate(lines):
        cells = [c.ljust(w) if a == "l" else c.rjust(w) for c, w, a in zip(line, widths, align, strict=True)]
        text = "  ".join(cells).rstrip()
        click.echo(click.style(text, bold=True) if i == 0 else text)


@cli.command()
@click.argument("name")
@set_option
@click.option("--size", type=int, metavar="PIXELS", help="Length of each axis of the input.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def show(name: str, overrides: dict[str, Any], size: int | None, as_json: bool) -> None:
    """One variant: its row, its stages with shapes and costs, and the canonical names of its parameters."""
    import dataclasses

    from common.arch import get
    from common.names import parameters, sections
    from common.plan import make_plan

    arch = get(name, **overrides)
    stages, shapes = sections(arch, size), parameters(arch)
    axes = make_plan(arch).default_input()[1:] if size is None else (size,) * arch.dims
    total = {
        key: sum(getattr(s, key) for s in stages) for key in ("layers", "parameters", "statistics", "multiply_adds")
    }
    if as_json:
        row = {
            "name": name, "arch": dataclasses.asdict(arch), "input": (arch.in_channels, *axes), "total": total,
            "stages": [dataclasses.asdict(s) for s in stages], "names": shapes,
        }  # fmt: skip
        click.echo(json.dumps(row, indent=1))
        return
    default = {f.name: f.default for f in dataclasses.fields(arch)}
    click.secho(name + ("" if not overrides else "  " + " ".join(f"{k}={v}" for k, v in overrides.items())), bold=True)
    for key, value in dataclasses.asdict(arch).items():
        given = getattr(arch, key)
        if key == "stem":
            value = " ".join(f"{c}@{k}x{k}/{s}" if arch.dims == 2 else f"{c}@{k}/{s}" for c, k, s in arch.stem.convs)
            value += ", max pool 3/2" if arch.stem.pool else ""
        click.echo(f"  {key:<16}{value}" + ("" if given != default[key] else click.style("  (default)", dim=True)))
    click.echo()
    lines: list[tuple[str, ...]] = [("stage", "output", "layers", "parameters", "statistics", "multiply-adds")]
    lines += [
        (
            s.name,
            " x ".join(map(str, s.output)),
            f"{s.layers}",
            f"{s.parameters:,}",
            f"{s.statistics:,}",
            f"{s.multiply_adds:,}",
        )
        for s in stages
    ]
    lines.append(
        (
            "total",
            "",
            f"{total['layers']}",
            f"{total['parameters']:,}",
            f"{total['statistics']:,}",
            f"{total['multiply_adds']:,}",
        )
    )
    _columns(lines, "llrrrr")
    click.echo()
    _columns([("canonical name", "shape"), *((n, " x ".join(map(str, s))) for n, s in shapes.items())], "ll")


class SeveralBackends(click.Command):
    """Takes `--backends torch keras:tensorflow`: an option of as many words as name a backend, or nearly."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from common.arch import VARIANTS
        from common.backends import BACKENDS

        given: list[str] = []
        taking = False
        for arg in args:
            near = ":" in arg or (arg not in VARIANTS and nearest(arg, BACKENDS))
            if taking and not arg.startswith("-") and (arg in BACKENDS or near):
                given[-1] += ("," if given[-1] else "") + arg
                continue
            if taking and not given[-1]:
                raise RosettaError(f"--backends needs names: {', '.join(BACKENDS)}")
            taking = arg == "--backends"
            given += [arg, ""] if taking else [arg]
        return super().parse_args(ctx, given)


def _words(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in value.split(",") if word))


def _checks(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    from common.checks import CHECKS

    words = _words(ctx, param, value)
    if words == ("all",):
        return tuple(CHECKS)
    for word in words:
        if word not in CHECKS:
            raise RosettaError(f"unknown check {word!r}{nearest(word, CHECKS) or '; there are ' + ', '.join(CHECKS)}")
    if not words:
        raise RosettaError(f"--checks needs names: {', '.join(CHECKS)}, or all")
    return words


@cli.command(cls=SeveralBackends)
@click.argument("name")
@set_option
@click.option(
    "--checks", default="forward,train,gradients", callback=_checks, metavar="A,B",
    help="Of forward, train, gradients, steps, or all. Default: the first three.",
)  # fmt: skip
@click.option(
    "--backends", default="torch,keras:tensorflow", callback=_words, metavar="A B ...",
    help="Of torch, keras:tensorflow, keras:jax, keras:torch, onnx:torch, onnx:keras; all against the first.",
)  # fmt: skip
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", help="Default: cpu.")
@click.option(
    "--dtype", "dtypes", type=click.Choice(["float64", "float32", "bfloat16", "float16"]), multiple=True,
    help="May be repeated. Default: float64 and float32.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 100), default=3, help="Of each optimizer. Default: 3.")
@click.option(
    "--image", "images", multiple=True, type=click.Path(), metavar="FILE",
    help="A photograph, may be repeated; or an .npy, N C H W. Default: two photographs that scikit-learn ships.",
)  # fmt: skip
@click.option(
    "--size", type=int, metavar="PIXELS", help="Resize the images to this. Default: what the net was designed for."
)
@click.option(
    "--json", "json_file", type=click.Path(), metavar="FILE", help="Write everything that was measured, array by array."
)
@click.option("--report", type=click.Path(), metavar="DIR", help="Write report.html and report.json into this folder.")
def compare(
    name: str,
    overrides: dict[str, Any],
    checks: tuple[str, ...],
    backends: tuple[str, ...],
    device: str,
    dtypes: tuple[str, ...],
    steps: int,
    images: tuple[str, ...],
    size: int | None,
    json_file: str | None,
    report: str | None,
) -> None:
    """Run NAME on several backends with the same weights and images, and compare everything, array by array.

    NAME is a variant or one of our .safetensors files. Exit code 0: every difference is rounding. 1: not. 2: the
    command was misused.
    """
    from common import backends as engines
    from common import images as pictures
    from common import parity, weights
    from common.plan import make_plan

    arch, tensors = weights.named(name, overrides)
    paths = [str(p) for p in images or pictures.photographs()]
    x = pictures.read(paths, make_plan(arch), size)
    parity.refuse_not_finite(x, tensors, paths)
    if json_file:
        _writable(json_file)
    if report:
        from common import report as pages

        pages.prepare(report)

    with _Progress() as progress, engines.started(backends, device) as running:
        result = parity.compare(
            arch, x, tensors, backends=running, dtypes=dtypes or ("float64", "float32"), checks=checks, steps=steps,
            name=name, progress=progress,
        )  # fmt: skip
    result.inputs = paths
    if json_file:
        with weights.atomic(json_file) as temporary:
            temporary.write_text(json.dumps(result.to_json(), indent=1))
    _print(result)
    if report:
        click.echo(f"report: {pages.write(report, result)}")
    sys.exit(0 if result.equal else 1)


def _writable(path: str) -> None:
    """Raises RosettaError where `path` can't become a file: better before a minute's work than after it."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        reason = "it is a folder" if os.path.isdir(path) else f"{folder} is no folder that can be written"
        raise RosettaError(f"can't write {path}: {reason}")


class _Progress:
    """Says on stderr what is being done: a line that is overwritten on a terminal, plain lines elsewhere."""

    def __enter__(self) -> Callable[[str], None]:
        from rich.console import Console

        # a stderr of its own, since that of the process is kept aside while TensorFlow starts
        self.console = Console(file=os.fdopen(os.dup(2), "w"), highlight=False)
        self.status = self.console.status("") if self.console.is_terminal else None
        if self.status:
            self.status.start()
        return self.say

    def say(self, step: str) -> None:
        if self.status:
            self.status.update(step)
        elif step != "done":
            self.console.print(f"  {step}", style="dim")

    def __exit__(self, *exc: object) -> None:
        if self.status:
            self.status.stop()
        self.console.file.close()


_COLOURS = {"rounding": "default", "suspicious": "yellow", "different": "red"}


def _print(r: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from common.parity import summary, worst_of

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


@cli.command()
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--to", "framework", type=click.Choice(["torch", "keras"]), help="Whose file TARGET is. Default: by its suffix."
)
@click.option("--arch", "name", metavar="NAME", help="The variant, where SOURCE doesn't say.")
@set_option
def port(source: str, target: str, framework: str | None, name: str | None, overrides: dict[str, Any]) -> None:
    """Convert SOURCE to TARGET: .safetensors, .pt (PyTorch), .weights.h5 or .keras (Keras).

    TARGET is written whole or not at all, read back in its own framework, and compared bit by bit.
    """
    from common import port as porter
    from common.arch import get

    arch = get(name, **overrides) if name else None
    if overrides and not name:
        raise RosettaError("--set needs --arch: the file itself says what it is")
    with _Progress() as progress:
        done = porter.port(source, target, framework=framework, arch=arch, progress=progress)
    click.echo(
        f"{target}: {done.name}, {done.tensors} tensors, {done.parameters:,} parameters, {done.dtype}; read back "
        f"{'in ' + done.reader if done.reader else 'and compared'}, bit-equal to {source}"
    )


@cli.command()
@click.argument("source")
@click.argument("target", type=click.Path())
@click.option(
    "--from", "framework", type=click.Choice(["torch", "keras"]), required=True, help="Whose net, and whose exporter."
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", help="Default: float32.")
@set_option
def export(source: str, target: str, framework: str, dtype: str, overrides: dict[str, Any]) -> None:
    """Write SOURCE, a variant or one of our .safetensors files, as the ONNX graph TARGET.

    One file, any batch and image size, N C H W in, logits out. It is run before it is kept, and has to give the
    framework's logits. A variant has fresh weights.
    """
    from common import export as exporter

    _writable(target)
    with _Progress() as progress:
        done = exporter.export(source, target, framework, overrides=overrides, dtype=dtype, progress=progress)
    click.echo(
        f"{target}: {done.name} from {framework}, {' x '.join(map(str, done.input))}, {done.dtype}, {done.size:,} "
        f"bytes; run: logits within {done.relative:.1e} of {framework}'s, where {done.tolerance:.0e} is allowed"
    )


def main() -> None:
    """The entry point of the `rosetta` script."""
    cli(prog_name="rosetta")


if __name__ == "__main__":
    main()
