"""The group of commands: bad input is one message and exit code 2. And what every command says things with."""

import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import click

from common import __version__
from common.errors import ALIASES, RosettaError, nearest
from common.tools.refusals import refusal
from common.tools.text import table


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
        except FileNotFoundError:
            try:
                tempfile.gettempdir()
            except FileNotFoundError:
                click.echo("rosetta: nowhere to write temporary files: set TMPDIR to a folder that can be", err=True)
                ctx.exit(2)
            raise
        except Exception as e:
            if (said := refusal(e)) is None:
                raise
            click.echo(f"rosetta: {said}", err=True)
            ctx.exit(2)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            raise click.UsageError(f"no such command {args[0]!r}{nearest(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rosetta")
def cli() -> None:
    """The same ResNets in PyTorch and in Keras, and the proof that they are the same."""


def columns(lines: Sequence[tuple[str, ...]], align: str, heading: bool = True) -> None:
    """A table without borders: rich would take as long to import as the rest of the command takes to run."""
    for i, text in enumerate(table(lines, align)):
        click.echo(click.style(text, bold=True) if i == 0 and heading else text)


def writable(path: str) -> None:
    """Raises RosettaError where `path` can't become a file: better before a minute's work than after it."""
    from common.tools.files import written_through

    folder = os.path.dirname(os.path.realpath(path))
    if written_through(path):
        if os.access(path, os.W_OK):
            return
        raise RosettaError(f"can't write {path}: no permission")
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        reason = "it is a folder" if os.path.isdir(path) else f"{folder} is no folder that can be written"
        raise RosettaError(f"can't write {path}: {reason}")


class Progress:
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path may be no text
            stream.reconfigure(errors="backslashreplace")
    end_like_interrupted()
    cli(prog_name="rosetta")
