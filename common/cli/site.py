"""`rosetta site` and `rosetta learn`: pages for teachers and learners, in a folder and on this machine."""

import tempfile
import time
import webbrowser
from threading import Thread

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


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: 0, which is any that is free.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def learn(port: int, no_browser: bool) -> None:
    """Serve the site on this machine, with a page that compares live.

    On that page you choose a net, a size and mistakes, and it says what `rosetta compare --with-fault` says. Nothing is
    reached from other machines. Ctrl-C ends it.
    """
    from common.teaching.learn import Learn

    try:
        with tempfile.TemporaryDirectory(prefix="rosetta-") as folder, Learn(folder, port) as server:
            click.echo(f"{server.address}\nCtrl-C ends it.")
            if not no_browser:
                Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()  # one of text waits
            server.serve_forever()
    except KeyboardInterrupt:
        click.echo("ended", err=True)
