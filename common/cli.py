"""The `rosetta` command. A framework is imported only where a subcommand needs it."""

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from common import __version__
from common.errors import ALIASES, RosettaError, nearest
from common.text import table, to_json


class Commands(click.Group):
    """Bad input is one clear message and exit code 2; a mistyped subcommand is offered the nearest."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as e:  # what others call it: --lr for --rate
            meant = [f"--{word}" for word in ALIASES.get(e.option_name.lstrip("-"), "").split()]
            there = [o for p in (e.ctx.command.params if e.ctx else ()) for o in p.opts]
            if not (known := [option for option in meant if option in there]):
                raise
            raise click.NoSuchOption(e.option_name, possibilities=known, ctx=e.ctx) from None
        except RosettaError as e:
            click.echo(f"rosetta: {e}", err=True)
            ctx.exit(2)
        except FileNotFoundError:
            try:
                tempfile.gettempdir()
            except FileNotFoundError:
                click.echo("rosetta: nowhere to write temporary files: set TMPDIR to a folder that can be", err=True)
                ctx.exit(2)
            raise

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            raise click.UsageError(f"no such command {args[0]!r}{nearest(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)


class Choice(click.Choice):
    """One of several words; another is offered the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as e:
            hint = nearest(str(value), self.choices)
            raise click.BadParameter(e.message.rstrip(".") + hint, ctx=ctx, param=param) from None


def _overrides(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """`groups=8` as {"groups": 8}: values are JSON where they can be, or JSON with commas between, else words."""
    result = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            such = "smoothing=0.1" if param.name == "changes" else "groups=8 or depths=2,2,2,2"
            raise RosettaError(f"{param.opts[0]} {text!r} can't be: expected FIELD=VALUE, such as {such}")
        text = value.replace("(", "[").replace(")", "]").replace("True", "true").replace("False", "false")
        result[key] = value
        for such in (text, f"[{text}]") if "," in text else (text,):
            with contextlib.suppress(ValueError, RecursionError):
                result[key] = json.loads(such)
                break
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
        click.echo(to_json(rows))
        return
    lines: list[tuple[str, ...]] = [("variant", "family", "input", "parameters", "multiply-adds")]
    for r in rows:
        size = " x ".join(map(str, r["input"]))
        lines.append((r["name"], r["family"], size, f"{r['parameters']:,}", f"{r['multiply_adds']:,}"))
    _columns(lines, "llrrr")


def _columns(lines: Sequence[tuple[str, ...]], align: str, heading: bool = True) -> None:
    """A table without borders: rich would take as long to import as the rest of the command takes to run."""
    for i, text in enumerate(table(lines, align)):
        click.echo(click.style(text, bold=True) if i == 0 and heading else text)


@cli.command()
@click.argument("name")
@set_option
@click.option("--layers", "by_layer", is_flag=True, help="Every layer: kind, output in both layouts, costs.")
@click.option("--size", type=int, metavar="PIXELS", help="Length of each axis of the input.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def show(name: str, overrides: dict[str, Any], by_layer: bool, size: int | None, as_json: bool) -> None:
    """One variant: its row, its stages with shapes and costs, and the canonical names of its parameters."""
    import dataclasses

    from common.arch import OPTIONS, get
    from common.names import layers, parameters, sections
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
        if by_layer:
            row["layers"] = [
                {
                    "name": r.name, "kind": r.kind, "channels_first": r.output, "channels_last": r.channels_last,
                    "parameters": r.parameters, "statistics": r.statistics, "multiply_adds": r.multiply_adds,
                }
                for r in layers(arch, size)
            ]  # fmt: skip
        click.echo(to_json(row))
        return
    default = {f.name: f.default for f in dataclasses.fields(arch)}
    click.secho(name + ("" if not overrides else "  " + " ".join(f"{k}={v}" for k, v in overrides.items())), bold=True)
    for key, value in dataclasses.asdict(arch).items():
        given = getattr(arch, key)
        if key == "stem":
            value = arch.stem.text(arch.dims)
        if value in OPTIONS:
            value += f" (option {OPTIONS[value]} of He et al. 2015)"
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
    if by_layer:
        order = "H W" if arch.dims == 2 else "L"
        lines = [("layer", "kind", f"C {order}", f"{order} C", "parameters", "statistics", "multiply-adds")]
        for r in layers(arch, size):
            costs = (f"{n:,}" if n else "" for n in (r.parameters, r.statistics, r.multiply_adds))
            lines.append((r.name, r.kind, *(" x ".join(map(str, s)) for s in (r.output, r.channels_last)), *costs))
        _columns(lines, "llllrrr")
        click.echo("\nC is channels. PyTorch has them before the positions, Keras behind; a batch has N before both.")
        return
    _columns([("canonical name", "shape"), *((n, " x ".join(map(str, s))) for n, s in shapes.items())], "ll")


class SeveralWords(click.Command):
    """Takes `--backends torch keras:tensorflow` and `--against torchvision timm`: options of as many words as name a
    backend or a peer, or nearly."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from common.arch import VARIANTS
        from common.backends import BACKENDS
        from common.contender import PEERS

        options: dict[str, Iterable[str]] = {"--backends": BACKENDS, "--against": PEERS}
        given: list[str] = []
        taking = ""
        for arg in args:
            known = list(options.get(taking, ()))
            near = ":" in arg or (arg not in VARIANTS and nearest(arg, known))
            if taking and not arg.startswith("-") and (arg in known or near):
                given[-1] += ("," if given[-1] else "") + arg
                continue
            if taking and not given[-1]:
                raise RosettaError(f"{taking} needs names: {', '.join(known)}")
            taking = arg if arg in options and arg in (o for p in self.params for o in p.opts) else ""
            given += [arg, ""] if taking else [arg]
        if taking and not given[-1]:
            raise RosettaError(f"{taking} needs names: {', '.join(options[taking])}")
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


@cli.command(cls=SeveralWords)
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
@click.option("--device", type=Choice(["cpu", "gpu"]), default="cpu", help="Default: cpu.")
@click.option(
    "--dtype", "dtypes", type=Choice(["float64", "float32", "bfloat16", "float16"]), multiple=True,
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

    NAME is a variant or a checkpoint of any library. Exit code 0: every difference is rounding. 1: not. 2: the
    command was misused.
    """
    from common import backends as engines
    from common import images as pictures
    from common import parity, port, weights
    from common.plan import make_plan

    arch, tensors = port.named(name, overrides)
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
    _print(result)  # before anything is written, which a full disk would end
    if json_file:
        with weights.atomic(json_file) as temporary:
            temporary.write_text(to_json(result.to_json()))
    if report:
        click.echo(f"report: {pages.write(report, result)}")
    sys.exit(0 if result.equal else 1)


def _writable(path: str) -> None:
    """Raises RosettaError where `path` can't become a file: better before a minute's work than after it."""
    from common.weights import written_through

    folder = os.path.dirname(os.path.realpath(path))
    if written_through(path):
        if os.access(path, os.W_OK):
            return
        raise RosettaError(f"can't write {path}: no permission")
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        reason = "it is a folder" if os.path.isdir(path) else f"{folder} is no folder that can be written"
        raise RosettaError(f"can't write {path}: {reason}")


class _Progress:
    """Says on stderr what is being done: a line that is overwritten on a terminal, plain lines elsewhere."""

    def __enter__(self) -> Callable[[str], None]:
        # a stderr of its own, since that of the process is kept aside while TensorFlow starts
        try:
            self.file = os.fdopen(os.dup(2), "w", errors="backslashreplace")
        except OSError:  # it is closed
            self.file = open(os.devnull, "w")
        self.status: Any = None
        if self.file.isatty():
            from rich.console import Console

            self.status = Console(file=self.file, highlight=False).status("")
            self.status.start()
        return self.say

    def say(self, step: str) -> None:
        if self.status:
            self.status.update(step)
        elif step != "done":
            print(f"  {step}", file=self.file, flush=True)

    def __exit__(self, *exc: object) -> None:
        if self.status:
            self.status.stop()
        self.file.close()


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


def _source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a checkpoint is, where it can't tell."""
    for option in (
        set_option,
        click.option("--arch", "name", metavar="NAME", help="The variant that the file must be."),
        click.option("--library", metavar="L", help="Whose names the file has; by default that is worked out."),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("file", type=click.Path())
@_source_options
@click.option("--tensors", is_flag=True, help="Each tensor: its names in the file and here, its shape.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text, with the tensors.")
def inspect(
    file: str, overrides: dict[str, Any], name: str | None, library: str | None, tensors: bool, as_json: bool
) -> None:
    """Say what a checkpoint is: whose, which net, what no shape tells, its preprocessing, and where each tensor goes.

    FILE is .safetensors, .pt / .pth / .th, .h5, .weights.h5, .keras, or a folder of Hugging Face or KerasHub.
    """
    from common import port as porter
    from common.arch import get

    found = porter.inspect(file, library=library, arch=get(name) if name else None, overrides=overrides)
    click.echo(to_json(found.to_json()) if as_json else "\n".join(_recognised(found)))
    if as_json:
        return
    _unused(found)
    if not tensors:
        return
    rows = [("in the file", "canonical name", "shape", "transform")]
    rows += [(found.where(s), s.canonical, " x ".join(map(str, s.shape)), s.transform) for s in found.slots]
    click.echo()
    _columns(rows, "llll")


def _recognised(found: Any) -> list[str]:
    """What a checkpoint was recognised as, in lines."""
    import dataclasses

    from common.arch import VARIANTS
    from common.names import count, parameters

    arch, shapes = found.arch, parameters(found.arch)
    lines = [
        click.style(f"{found.held.path}: {found.name}", bold=True),
        f"  container      {found.held.kind}, {found.dtype}",
        f"  names          {found.library.name}",
        f"  row            {found.described}",
        f"  parameters     {count(shapes):,} in {len(shapes)} tensors, {arch.num_classes or 'no'} classes",
    ]
    if not found.told:
        lines.append(f"  taken on trust nothing: the file says that it is {found.claim or 'this row'}")
    for i, (field, why) in enumerate(found.told.items()):
        lines.append(f"  {'taken on trust' if i == 0 else '':<14} {field} = {why}")
    edges: dict[str, Any] = {"num_classes": arch.num_classes, "in_channels": arch.in_channels}
    rows = {n: dataclasses.replace(row, **edges) for n, row in VARIANTS.items()} if found.told else {}
    twins = [n for n, row in rows.items() if row != arch and parameters(row) == shapes]
    if twins:
        lines.append(f"  same shapes    {', '.join(twins)}: --arch NAME or --set says that it is one of them")
    lines.append(f"  preprocessing  {found.preprocessing or 'not known'}")
    if found.labels:
        lines.append(f"  labels         {', '.join(found.labels[:4])}{', ...' if len(found.labels) > 4 else ''}")
    return lines + [f"  note           {note}" for note in found.notes]


def _unused(found: Any) -> None:
    """What a file has beside the net's tensors; many of one kind as one line."""
    reasons: dict[str, list[str]] = {}
    for name, why in found.unused.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        click.echo(f"not used: {names[0]}{more}: {why}")


@cli.command()
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option("--as", "to", metavar="LIBRARY", help="Whose names TARGET gets. Default: our own.")
@_source_options
@click.option("--dry-run", is_flag=True, help="Show every tensor on its way, and write nothing.")
@click.option("--num-classes", type=click.IntRange(1), metavar="N", help="A fresh classifier of N classes.")
@click.option("--no-head", is_flag=True, help="Leave the classifier out.")
@click.option("--in-channels", type=click.IntRange(1), metavar="N", help="1: sum the stem's kernels, for grey images.")
@click.option("--fold", is_flag=True, help="Put BatchNorm into the convolutions before it, for inference.")
@click.option("--seed", type=int, default=0, help="Of the fresh classifier. Default: 0.")
@click.option(
    "--probe/--no-probe", default=None,
    help="Run an image through both implementations. Default: where source and target are for different frameworks.",
)  # fmt: skip
@click.option("--verify-with-source", is_flag=True, help="Run it through the library that SOURCE is from, too.")
@click.option("--keep", is_flag=True, help="Keep TARGET even if the outputs differ.")
@click.option("--force", is_flag=True, help="Replace TARGET where it is there already.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def port(
    source: str, target: str, to: str | None, name: str | None, library: str | None, overrides: dict[str, Any],
    dry_run: bool, num_classes: int | None, no_head: bool, in_channels: int | None, fold: bool, seed: int,
    probe: bool | None, verify_with_source: bool, keep: bool, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Convert the checkpoint SOURCE to TARGET, whose suffix says its container, and prove that nothing was lost.

    Any of torchvision, timm, Hugging Face Transformers, keras.applications, KerasHub, akamaster and kuangliu, and our
    own; `rosetta inspect` says what a file is. TARGET is written whole or not at all: it is read back, every tensor is
    compared, and outputs are where frameworks change. Exit code 1: they differ.
    """
    from common import port as porter
    from common.arch import get

    if no_head and num_classes:
        raise RosettaError("--no-head and --num-classes can't both be")
    with _Progress() as progress:
        try:
            done = porter.port(
                source, target, to=to, library=library, arch=get(name) if name else None, overrides=overrides,
                num_classes=0 if no_head else num_classes, in_channels=in_channels, fold=fold, seed=seed,
                dry_run=dry_run, probe=probe, verify_with_source=verify_with_source, keep=keep, force=force,
                progress=progress,
            )  # fmt: skip
        except porter.NotTheSame as e:
            click.echo(f"rosetta: {e}", err=True)
            sys.exit(1)
    if as_json:
        click.echo(to_json(done.to_json()))
        return
    click.echo("\n".join(_recognised(done.source)))
    if dry_run:
        rows = [("in the source", "canonical name", f"in {os.path.basename(target)}", "shape", "transform")]
        rows += [
            (r.source or "(fresh)", r.canonical, r.target, " x ".join(map(str, r.shape)), r.transform)
            for r in done.rows
        ]
        click.echo()
        _columns(rows, "lllll")
    _unused(done.source)
    for note in done.notes:
        click.echo(note)
    whose = "" if done.target.own else f" with the names of {done.target.library.name}"
    if dry_run:
        click.echo(f"{target}: would be {done.name}{whose}, {done.tensors} tensors; nothing was written")
        return
    click.echo(
        f"{target}: {done.name}{whose}, {done.tensors} tensors, {done.parameters:,} parameters, {done.dtype}; "
        "read back, bit-equal"
    )
    for what, apart, floor in done.probes:
        beside = f" (noise floor {floor:.1e})" if floor else ""
        click.echo(f"{what}: logits within {apart:.1e}{beside}")


@cli.command()
@click.argument("source")
@click.argument("target", type=click.Path())
@click.option(
    "--from", "framework", type=Choice(["torch", "keras"]), required=True, help="Whose net, and whose exporter."
)
@click.option("--dtype", type=Choice(["float32", "float64"]), default="float32", help="Default: float32.")
@set_option
def export(source: str, target: str, framework: str, dtype: str, overrides: dict[str, Any]) -> None:
    """Write SOURCE, a variant or a checkpoint of any library, as the ONNX graph TARGET.

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


def end_like_interrupted() -> None:
    """Lets SIGTERM and SIGHUP, where nobody has said otherwise, clear away what is half done, as Ctrl-C does."""

    def ended(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, ended)


def main() -> None:
    """The entry point of the `rosetta` script."""
    from common import commands  # the others

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path may be no text
            stream.reconfigure(errors="backslashreplace")
    end_like_interrupted()
    commands.cli(prog_name="rosetta")  # and not this module's, which is another one under `python -m common.cli`


if __name__ == "__main__":
    main()
