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


@cli.command()
@click.argument("name")
@set_option
@click.option("--dtype", "dtypes", type=click.Choice(["float64", "float32"]), multiple=True, help="Default: both.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="A photograph; may be repeated. Default: two that scikit-learn ships.",
)
@click.option(
    "--size", type=int, metavar="PIXELS", help="Resize the images to this. Default: what the net was designed for."
)
@click.option(
    "--json", "json_file", type=click.Path(), metavar="FILE", help="Write everything that was measured, layer by layer."
)
def compare(
    name: str,
    overrides: dict[str, Any],
    dtypes: tuple[str, ...],
    images: tuple[str, ...],
    size: int | None,
    json_file: str | None,
) -> None:
    """Build NAME in PyTorch and in Keras, carry the weights over, and compare layer by layer.

    NAME is a variant or one of our .safetensors files. Exit code 0: equal. 1: not. 2: the command was misused.
    """
    from common import images as pictures
    from common import parity, weights
    from common.arch import get
    from common.plan import make_plan

    tensors = None
    if name.endswith(".safetensors"):
        if overrides:
            raise RosettaError("--set can't be with a file: its metadata says what it is")
        arch, tensors, _ = weights.load(name)
    else:
        arch = get(name, **overrides)
    paths = [str(p) for p in images or pictures.photographs()]
    x = pictures.read(paths, make_plan(arch), size)
    if json_file:
        _writable(json_file)

    with _Progress() as progress:
        result = parity.compare(arch, x, tensors, dtypes=dtypes or ("float64", "float32"), name=name, progress=progress)
    if json_file:
        with weights.atomic(json_file) as temporary:
            temporary.write_text(json.dumps({**result.to_json(), "images": paths}, indent=1))
    _report(result, paths)
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


def _report(r: Any, paths: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from common.parity import section_of

    console = Console(highlight=False)
    v = r.versions
    console.print(
        f"\n[bold]{r.name}[/]  input {' x '.join(map(str, r.input_shape))}: {', '.join(map(os.path.basename, paths))}"
    )
    console.print(f"PyTorch {v['torch']} against Keras {v['keras']} on {v['backend']}, CPU\n", style="dim")

    def mark(ok: bool) -> str:
        return "[green]equal[/]" if ok else "[red]different[/]"

    counts = Table(box=None, pad_edge=False)
    for head in ("", "spec", "PyTorch", "Keras", ""):
        counts.add_column(head, justify="left" if head == "" else "right")
    for label, found in (("trainable parameters", r.parameters), ("BatchNorm statistics", r.statistics)):
        counts.add_row(
            label, *(f"{found[k]:,}" for k in ("spec", "torch", "keras")), mark(len(set(found.values())) == 1)
        )
    console.print(counts)
    console.print(
        f"weights PyTorch -> Keras -> PyTorch: {'[green]bit-exact[/]' if r.round_trip else '[red]changed[/]'}\n"
    )

    table = Table(box=None, pad_edge=False)
    for head in ("stage", "layers", "worst layer"):
        table.add_column(head, justify="right" if head == "layers" else "left")
    for dtype in r.layers:
        table.add_column(dtype, justify="right")
        if dtype != "float64":
            table.add_column("noise floor", justify="right")
    first = next(iter(r.layers.values()))
    groups = list(dict.fromkeys(section_of(d.name) for d in first))

    def cells(found: Callable[[str], Any]) -> list[str]:
        row = []
        for dtype in r.layers:
            d = found(dtype)
            row.append(f"[{'red' if r.over(d, dtype) else 'default'}]{d.relative:.1e}[/]")
            if dtype != "float64":
                row.append(f"{d.floor:.1e}")
        return row

    def worst(group: str) -> Callable[[str], Any]:
        def of(dtype: str) -> Any:  # a nan is the worst there is
            members = (d for d in r.layers[dtype] if section_of(d.name) == group)
            return max(members, key=lambda d: (d.relative != d.relative, d.relative))

        return of

    for group in groups:
        members = sum(section_of(d.name) == group for d in first)
        table.add_row(group, str(members), worst(group)(next(iter(r.layers))).name, *cells(worst(group)))
    table.add_row("[bold]logits[/]", "", "", *cells(lambda dtype: r.logits[dtype]))
    console.print(table)
    console.print("Figures: largest difference over largest element.", style="dim")
    console.print("Noise floor: PyTorch in that dtype against itself in float64.\n", style="dim")

    for dtype in r.layers:
        over = r.first_over(dtype)
        if over:
            where = f"at {list(over.index)} " if over.index else ""
            console.print(
                f"[red]first layer over tolerance in {dtype}: {over.name}[/] {where}"
                f"PyTorch {over.values[0]!r}, Keras {over.values[1]!r}"
            )
    working = sum(s for step, s in r.seconds.items() if not step.startswith("importing"))
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


def main() -> None:
    """The entry point of the `rosetta` script."""
    cli(prog_name="rosetta")


if __name__ == "__main__":
    main()
