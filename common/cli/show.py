"""`rosetta list` and `show`: the table of variants, and a row of it."""

import dataclasses
from typing import Any

import click

from common.cli.group import cli, columns
from common.cli.options import set_option
from common.errors import RosettaError, hint
from common.tools.text import to_json


@cli.command("list")
@click.option("--family", metavar="F", help="List the variants of this family alone.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def list_(family: str | None, as_json: bool) -> None:
    """List the variants, with their parameters and multiply-adds."""
    from common.arch import FAMILIES
    from common.names import sections

    if family is not None and family not in FAMILIES:
        raise RosettaError(f"unknown family {family!r}{hint(family, FAMILIES)}")
    rows: list[dict[str, Any]] = []
    for kin, variants in FAMILIES.items():
        for name, arch in variants.items() if family in (None, kin) else ():
            cost = sections(arch)
            rows.append(
                {"name": name, "family": kin, "input": arch.input_shape(),
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
    columns(lines, "llrrr")


@cli.command()
@click.argument("name")
@set_option
@click.option(
    "--layers", "by_layer", is_flag=True, help="Show every layer: its kind, its output in both layouts, and its costs."
)
@click.option(
    "--size", type=int, metavar="PIXELS",
    help="Length of each axis of the input. Default: what the net was designed for.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def show(name: str, overrides: dict[str, Any], by_layer: bool, size: int | None, as_json: bool) -> None:
    """Show a variant: its row, shapes, costs and names. The names are the canonical ones of its parameters."""

    from common.arch import get
    from common.names import layers, parameters, sections

    arch = get(name, **overrides)
    stages, shapes = sections(arch, size), parameters(arch)
    total = {
        key: sum(getattr(s, key) for s in stages) for key in ("layers", "parameters", "statistics", "multiply_adds")
    }
    if as_json:
        row = {
            "name": name, "arch": dataclasses.asdict(arch), "input": arch.input_shape(size), "total": total,
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
    for key, value in arch.words().items():
        is_default = getattr(arch, key) == default[key]
        click.echo(f"  {key:<16}{value}" + (click.style("  (default)", dim=True) if is_default else ""))
    click.echo()
    lines: list[tuple[str, ...]] = [("stage", "output", "layers", "parameters", "statistics", "multiply-adds")]
    lines += [(s.name, " x ".join(map(str, s.output)), *(f"{getattr(s, key):,}" for key in total)) for s in stages]
    lines.append(("total", "", *(f"{n:,}" for n in total.values())))
    columns(lines, "llrrrr")
    click.echo()
    if by_layer:
        order = "H W" if arch.dims == 2 else "L"
        lines = [("layer", "kind", f"C {order}", f"{order} C", "parameters", "statistics", "multiply-adds")]
        for r in layers(arch, size):
            costs = (f"{n:,}" if n else "" for n in (r.parameters, r.statistics, r.multiply_adds))
            lines.append((r.name, r.kind, *(" x ".join(map(str, s)) for s in (r.output, r.channels_last)), *costs))
        columns(lines, "llllrrr")
        click.echo("\nC is channels. PyTorch has them before the positions, Keras behind; a batch has N before both.")
        return
    columns([("canonical name", "shape"), *((n, " x ".join(map(str, s))) for n, s in shapes.items())], "ll")
