"""`rosetta exercise`: a net with a hole, and which mistake you made."""

import os
import sys
import textwrap
from typing import Any

import click

from common.cli.group import cli, columns, writable
from common.cli.options import Choice
from common.errors import RosettaError
from common.tools.text import to_json


@cli.group()
def exercise() -> None:
    """Solve exercises that check themselves."""


@exercise.command("list")
def list_() -> None:
    """List the exercises."""
    from common.teaching.exercises import EXERCISES

    columns([("", "exercise", "lesson"), *((str(e.number), e.title, str(e.lesson)) for e in EXERCISES)], "rlr")


@exercise.command()
@click.argument("number", type=int)
@click.argument("file", type=click.Path(), required=False)
@click.option(
    "--framework", type=Choice(["torch", "keras"]), default="torch", help="Whose code to write. Default: torch."
)
@click.option("--seed", type=int, default=0, help="Which mistake the blind diagnosis hides. Default: 0.")
@click.option("--force", is_flag=True, help="Replace FILE where it is there already.")
def start(number: int, file: str | None, framework: str, seed: int, force: bool) -> None:
    """Write the file of exercise NUMBER. It has the task, and a net with a hole or a mistake."""
    from common.teaching.exercises import by_number
    from common.teaching.exercises.asked import begun
    from common.tools.files import atomic

    asked = by_number(number)
    file = file or f"{asked.name}_{framework}.py"
    writable(file)
    if os.path.lexists(file) and not force:
        raise RosettaError(f"can't write {file}: it is there already; --force replaces it")
    with atomic(file) as temporary:
        temporary.write_text(begun(asked, framework, seed), "utf-8")
    click.echo(f"{file}: exercise {number}, {asked.title}\n\n{textwrap.indent(asked.task, '  ')}\n")
    click.echo(f"then: rosetta exercise check {number} {file}")


@exercise.command()
@click.argument("number", type=int)
@click.option("--all", "every", is_flag=True, help="Print all hints, and not the first alone.")
def hint(number: int, every: bool) -> None:
    """Print a hint for exercise NUMBER; with --all, every hint."""
    from common.teaching.exercises import by_number

    asked = by_number(number)
    for text in asked.hints if every else asked.hints[:1]:
        click.echo(text)
    if not every and len(asked.hints) > 1:
        click.echo(f"({len(asked.hints) - 1} more with --all)")


@exercise.command()
@click.argument("number", type=int)
@click.argument("file", type=click.Path())
@click.option(
    "--limit", type=click.FloatRange(min=1), default=120.0, metavar="SECONDS",
    help="How long it may take. Default: 120.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def check(number: int, file: str, limit: float, as_json: bool) -> None:
    """Say whether FILE solves exercise NUMBER. If not, say what differs first, and which mistake it is.

    FILE is executed, in a process of its own with a time limit; that is no sandbox. The exit code is 0 where it is
    solved, 1 where it isn't, and 2 where nothing could be checked, as of a file that can't be imported.
    """
    from common.teaching.exercises import by_number
    from common.teaching.exercises.asked import check_file

    asked = by_number(number)
    try:
        found: dict[str, Any] = check_file(file, number, limit)
    except RosettaError as e:
        if as_json:
            click.echo(to_json({"exercise": number, "file": file, "passed": False, "error": str(e)}))
        raise
    if as_json:
        click.echo(to_json({"exercise": number, "file": file, **found}))
    elif found["passed"]:
        everywhere = ", at every size and in training mode" if asked.kind == "net" else ""
        click.echo(f"{file}: solved. It is {found.get('fault') or f'what the reference is, in float64{everywhere}'}.")
    else:
        click.echo(f"{file}: not yet. {found['what']}")
        if "place" in found:
            click.echo(f"  at {found['place']}: yours {found['values'][0]!r}, the reference's {found['values'][1]!r}")
        elif "values" in found:
            click.echo(f"  yours {found['values'][0]}, the reference's {found['values'][1]}")
        if "fault" in found:
            click.echo(f"  Yours is exactly the net with {found['fault']!r}: {found['says']} (lesson {asked.lesson}).")
    sys.exit(0 if found["passed"] else 1)
