"""`rosetta diagnose`: whose ResNet is this, and what exactly is different?"""

import sys

import click

from common.cli.group import cli
from common.errors import RosettaError
from common.tools.text import to_json


@cli.command()
@click.argument("net", metavar="FILE.py:NAME")
@click.option("--like", metavar="ROW", help="The variant that it is meant to be. Default: that with the fewest edits.")
@click.option("--call", metavar="EXPRESSION", help='What makes the net, as "build(num_classes=10)", instead of NAME.')
@click.option("--weights", type=click.Path(), help="Load these weights, under the net's own names, first.")
@click.option("--reference", type=click.Path(), help="A checkpoint: say what each of the net's tensors is to its.")
@click.option(
    "--limit", type=click.FloatRange(min=1), default=300.0, metavar="SECONDS",
    help="How long it may take. Default: 300.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def diagnose(
    net: str, like: str | None, call: str | None, weights: str | None, reference: str | None, limit: float,
    as_json: bool,
) -> None:  # fmt: skip
    """Say which ResNet a net is, what differs, and prove it. The net may be anybody's.

    FILE.py is executed, in a process of its own: look at it first. NAME is a net, or what gives one when called. The
    exit code is 0 where it is the row itself, and 1 where anything differs or isn't understood.
    """
    from common.arch import get
    from common.diagnosis.hers import diagnose_file, named

    if like is not None:
        get(like)  # before anything is executed
    given = named(net)
    if given is None:
        raise RosettaError(f"{net!r} can't be: expected FILE.py:NAME, or FILE.py with --call")
    if not as_json:
        click.echo(f"executing {given[0]} in a process of its own")
    text, found = diagnose_file(*given, call, like, limit, weights, reference)
    click.echo(to_json(found) if as_json else text)
    sys.exit(0 if found["same"] else 1)
