"""`rosetta inspect`, `port` and `export`: checkpoints."""

import dataclasses
import os
import sys
from typing import Any

import click

from common.cli.group import Progress, cli, columns, writable
from common.cli.options import Choice, set_option, source_options
from common.errors import RosettaError
from common.tools.text import to_json


@cli.command()
@click.argument("file", type=click.Path())
@source_options
@click.option("--tensors", is_flag=True, help="Show each tensor: its names in the file and here, and its shape.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text, with the tensors.")
def inspect(
    file: str, overrides: dict[str, Any], name: str | None, library: str | None, prefix: str | None, tensors: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Say what a checkpoint is: whose, and which net. Beside that: what no shape tells, its preprocessing, and where
    each tensor goes.

    FILE is .safetensors, .pt / .pth / .th, .pt2, .h5, .weights.h5, .keras, .npz, .pkl, a folder of Hugging Face or
    KerasHub, or a name: hf:timm/resnet50.a1_in1k, torchvision:resnet50, keras:ResNet50V2.
    """
    from common.arch import get
    from common.checkpoints import port as porter

    found = porter.inspect(file, library=library, arch=get(name) if name else None, overrides=overrides, prefix=prefix)
    click.echo(to_json(found.to_json()) if as_json else "\n".join(_recognised(found)))
    if as_json:
        return
    _unused(found)
    if not tensors:
        return
    rows = [("in the file", "canonical name", "shape", "transform")]
    rows += [(found.where(s), s.canonical, " x ".join(map(str, s.shape)), s.transform) for s in found.slots]
    click.echo()
    columns(rows, "llll")


def _recognised(found: Any) -> list[str]:
    """What a checkpoint was recognised as, in lines."""

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
    as_deep = {n: row for n, row in VARIANTS.items() if row.depths == arch.depths} if found.told else {}
    rows = {n: dataclasses.replace(row, **edges) for n, row in as_deep.items()}
    twins = [n for n, row in rows.items() if row != arch and parameters(row) == shapes]
    if twins:
        lines.append(f"  same shapes    {', '.join(twins)}: --arch NAME or --set says that it is one of them")
    lines += [f"  from           {found.source}"] if found.source else []
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
@click.option("--as", "to", metavar="LIBRARY", help="The library whose names TARGET gets. Default: our own.")
@source_options
@click.option("--weights", type=click.Path(), help="Where SOURCE is a net of your own, its weights by its own names.")
@click.option(
    "--call", metavar="EXPRESSION", help='What makes that net, as "build(num_classes=10)"; FILE.py alone then.'
)
@click.option("--dry-run", is_flag=True, help="Show every tensor on its way, and write nothing.")
@click.option("--num-classes", type=click.IntRange(1), metavar="N", help="Give it a fresh classifier of N classes.")
@click.option("--no-head", is_flag=True, help="Leave the classifier out.")
@click.option("--in-channels", type=click.IntRange(1), metavar="N", help="With 1, sum the stem's kernels: grey images.")
@click.option("--fold", is_flag=True, help="Put BatchNorm into the convolutions before it, for inference.")
@click.option("--seed", type=int, default=0, help="Seed of the fresh classifier. Default: 0.")
@click.option(
    "--probe/--no-probe", default=None,
    help="Run an image through both implementations. Default: where source and target are for different frameworks.",
)  # fmt: skip
@click.option("--verify-with-source", is_flag=True, help="Run SOURCE in the library that it is from, too.")
@click.option("--keep", is_flag=True, help="Keep TARGET even if the outputs differ.")
@click.option("--force", is_flag=True, help="Replace TARGET where it is there already.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def port(
    source: str, target: str, to: str | None, name: str | None, library: str | None, prefix: str | None,
    overrides: dict[str, Any], weights: str | None, call: str | None, dry_run: bool, num_classes: int | None,
    no_head: bool, in_channels: int | None, fold: bool, seed: int, probe: bool | None,
    verify_with_source: bool, keep: bool, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Convert a checkpoint, and prove that nothing was lost. The suffix of TARGET says its container.

    SOURCE is a file of any of torchvision, timm, Hugging Face Transformers, keras.applications, KerasHub, Detectron2,
    OpenMMLab, akamaster and kuangliu, or our own; `rosetta inspect` says what a file is. TARGET is written whole or not
    at all: it is read back, every tensor is compared, and where the framework changes, outputs are, too. The exit code
    is 1 where they differ.

    SOURCE can be a net of your own, too: FILE.py:NAME, which is executed in a process of its own, diagnosed, and
    carried over by what its tensors do, whatever their names are.
    """
    from common.arch import get
    from common.checkpoints import port as porter
    from common.diagnosis import carry, hers

    if no_head and num_classes:
        raise RosettaError("--no-head and --num-classes can't both be given")
    net = hers.named(source)
    if not net and (weights or call):
        raise RosettaError("--weights and --call are for a net of your own: expected FILE.py:NAME for SOURCE")
    if net and (library or prefix or overrides or verify_with_source):
        raise RosettaError("--library, --prefix, --set and --verify-with-source are for a checkpoint, not for FILE.py")
    with Progress() as progress:
        try:
            how: dict[str, Any] = {
                "to": to, "num_classes": 0 if no_head else num_classes, "in_channels": in_channels, "fold": fold,
                "seed": seed, "dry_run": dry_run, "probe": probe, "keep": keep, "force": force, "progress": progress,
            }  # fmt: skip
            if net:
                done = carry.port_file(net[0], target, net[1], call=call, weights=weights, like=name, **how)
            else:
                done = porter.port(
                    source, target, library=library, arch=get(name) if name else None, overrides=overrides,
                    prefix=prefix, verify_with_source=verify_with_source, **how,
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
        columns(rows, "lllll")
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
    "--from", "framework", type=Choice(["torch", "keras"]), required=True, help="Whose net and exporter to take."
)
@click.option(
    "--dtype", type=Choice(["float32", "float64"]), default="float32", help="Dtype of the graph. Default: float32."
)
@set_option
def export(source: str, target: str, framework: str, dtype: str, overrides: dict[str, Any]) -> None:
    """Write SOURCE as the ONNX graph TARGET. SOURCE is a variant, or a checkpoint of any library.

    The graph is one file that takes N C H W, with any batch and image size, and gives logits. It is run before it is
    kept, and has to give the framework's logits. A variant gets fresh weights.
    """
    from common.checkpoints import export as exporter

    writable(target)
    with Progress() as progress:
        done = exporter.export(source, target, framework, overrides=overrides, dtype=dtype, progress=progress)
    click.echo(
        f"{target}: {done.name} from {framework}, {' x '.join(map(str, done.input))}, {done.dtype}, {done.size:,} "
        f"bytes; run: logits within {done.relative:.1e} of {framework}'s, where {done.tolerance:.0e} is allowed"
    )
