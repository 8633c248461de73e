"""`rosetta write`: a row as plain code."""

import os
from typing import Any

import click

from common.cli.group import cli, writable
from common.cli.options import Choice, set_option
from common.errors import RosettaError


@cli.command()
@click.argument("name")
@click.argument("file", type=click.Path(), required=False)
@click.option(
    "--framework", type=Choice(["torch", "keras"]), help="Whose code to write. Default: torch, and both into a folder."
)
@set_option
@click.option("--force", is_flag=True, help="Replace FILE where it is there already.")
def write(name: str, file: str | None, framework: str | None, overrides: dict[str, Any], force: bool) -> None:
    """Write the variant NAME as one plain file that stands alone. It is PyTorch or Keras, and takes the same weights.

    Without FILE it is printed. A folder gets NAME_torch.py and NAME_keras.py, which are line against line.
    """
    from common import teaching
    from common.arch import get
    from common.tools.files import atomic, written_through

    arch = get(name, **overrides)
    if file is None:
        click.echo(teaching.write(arch, framework or "torch"), nl=False)
        return
    wanted = {file: framework or "torch"}
    if os.path.isdir(file):
        wanted = {os.path.join(file, f"{name}_{f}.py"): f for f in ([framework] if framework else ["torch", "keras"])}
    texts = {path: teaching.write(arch, f) for path, f in wanted.items()}
    for path in texts:
        writable(path)
        if os.path.lexists(path) and not written_through(path) and not force:
            raise RosettaError(f"can't write {path}: it is there already; --force replaces it")
    for path, text in texts.items():
        with atomic(path) as temporary:
            temporary.write_text(text, "utf-8")
        click.echo(
            f"{path}: {name} in {'PyTorch' if wanted[path] == 'torch' else 'Keras'}, {text.count(chr(10))} lines"
        )
