"""`rosetta traps`: the mistakes that can be put into either net."""

from typing import Any

import click

from common.cli.group import cli, columns
from common.tools.text import to_json


@cli.command()
@click.argument("fault", required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def traps(fault: str | None, as_json: bool) -> None:
    """List the mistakes that make two "identical" ResNets differ. With FAULT, show that one, and how to see it.

    `rosetta compare NAME --with-fault FAULT` puts one into a net. docs/traps.md has what each does, measured.
    """
    from common.teaching.faults import FAULTS, named

    if fault is None:
        rows: list[dict[str, Any]] = [
            {"fault": f.name, "says": f.says, "shows_in": shown_in(f)} for f in FAULTS.values()
        ]
        if as_json:
            click.echo(to_json(rows))
            return
        columns(
            [("fault", "shows in", "what is wrong"), *((r["fault"], r["shows_in"], r["says"]) for r in rows)], "lll"
        )
        return
    f = named(fault)
    if as_json:
        click.echo(to_json({"fault": f.name, "says": f.says, "shows_in": shown_in(f), "first": f.first, "net": f.net}))
        return
    click.secho(f.name, bold=True)
    click.echo(f"  what is wrong  {f.says}")
    click.echo(f"  shows in       {shown_in(f)}" + (f", first in {f.first[1]} of a {f.net} net" if f.first else ""))
    click.echo(f"  to see it      rosetta compare {f.example} --with-fault {f.name!r}")


def shown_in(fault: Any) -> str:
    """Which check sees it first, in words."""
    words = {"forward": "evaluation", "train": "training mode", "gradients": "gradients"}
    if fault.first is None:
        return "counts alone"
    check = fault.first[0]
    return words.get(check) or f"the optimizer's step ({check.removeprefix('steps ')})"
