"""`rosetta site`: static pages for teachers and learners."""

import time

import click

from common.cli.group import cli
from common.errors import RosettaError, nearest


@cli.command()
@click.argument("folder", type=click.Path())
@click.option("--only", multiple=True, metavar="NAME", help="Write the pages of this variant alone; may be repeated.")
def site(folder: str, only: tuple[str, ...]) -> None:
    """Write static pages for teachers and learners into FOLDER.

    They show both sources line against line, every variant and every trap, and work without a network and without a
    server. FOLDER is empty, or a site that was made before.
    """
    from common.arch import VARIANTS
    from common.teaching.site import build

    for name in only:
        if name not in VARIANTS:
            raise RosettaError(f"unknown variant {name!r}{nearest(name, VARIANTS)}")
    begun = time.perf_counter()
    files = build(folder, ("resnet18", *only) if only else None)
    size = sum(f.stat().st_size for f in files)
    took = time.perf_counter() - begun
    click.echo(f"{folder}: {len(files)} files, {size / 2**20:.1f} MiB, {took:.1f} s; open index.html")
