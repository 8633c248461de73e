"""`rosetta bench`: speed against peers."""

from typing import Any

import click

from common.cli.group import Progress, cli, columns, writable
from common.cli.options import Choice, SeveralWords, set_option, several
from common.tools.files import atomic
from common.tools.text import to_json


@cli.command(cls=SeveralWords)
@click.argument("name")
@set_option
@several("--against", "", "Peers: any of torchvision, timm, keras.applications, onnxruntime, openvino.")
@several(
    "--backends", "torch,keras:tensorflow",
    "Ours: any of torch, keras:tensorflow, keras:jax, keras:torch. Default: the first two.",
)  # fmt: skip
@several(
    "--modes",
    "eager,optimised",
    "How they run: any of eager, optimised, train, train-optimised. Default: the first two.",
    "A,B",
)
@several(
    "--engines", "",
    "Engines of our optimised nets: any of compiler, onnxruntime, openvino, auto. Default: those that are installed.",
    "A,B",
)  # fmt: skip
@click.option(
    "--dtype", "dtypes", type=Choice(["float32", "bfloat16", "float16", "float64", "tf32"]), multiple=True,
    help="May be repeated. tf32 is float32 with a GPU's shorter products. Default: float32.",
)  # fmt: skip
@click.option("--batch", type=click.IntRange(1), default=8, help="Images in a batch. Default: 8.")
@click.option("--size", type=click.IntRange(1), metavar="PIXELS", help="Default: what the net was designed for.")
@click.option("--threads", type=int, metavar="N", help="Threads of each side. Default: all processors.")
@click.option("--rounds", type=click.IntRange(1), default=9, help="Turns that each side takes. Default: 9.")
@click.option("--device", type=Choice(["cpu", "gpu"]), default="cpu", help="Where to run. Default: cpu.")
@click.option("--json", "json_file", type=click.Path(), metavar="FILE", help="Write everything that was measured.")
@click.option("--plot", type=click.Path(), metavar="FILE", help="Write images per second as a PNG.")
def bench(
    name: str, overrides: dict[str, Any], against: tuple[str, ...], backends: tuple[str, ...], modes: tuple[str, ...],
    engines: tuple[str, ...], dtypes: tuple[str, ...], batch: int, size: int | None, threads: int | None, rounds: int,
    device: str, json_file: str | None, plot: str | None,
) -> None:  # fmt: skip
    """Time NAME in both frameworks and in other libraries. All take turns, each in a process of its own.

    eager is inference with a net as it is built (Keras: predict_on_batch). optimised is what optimize() makes of it,
    and for a peer the best that its guides offer. train is a step of a plain loop (Keras: train_on_batch);
    train-optimised is a step of our Trainer.
    """
    from common.speed import bench as benches

    for file in (json_file, plot):
        if file:
            writable(file)
    if plot:
        from common.speed.charts import plot as draw
        from common.tools.frameworks import require

        require("--plot", ("matplotlib",), "train")
    with Progress() as progress:
        result = benches.bench(
            name, overrides=overrides, against=against, backends=backends, modes=modes, dtypes=dtypes or ("float32",),
            engines=engines or None, batch=batch, size=size, threads=threads, rounds=rounds, device=device,
            progress=progress,
        )  # fmt: skip
    if json_file:
        with atomic(json_file) as temporary:
            temporary.write_text(to_json(result.to_json()) + "\n")
    n, *shape = result.input
    click.secho(f"{result.name}, batch {n} of {' x '.join(map(str, shape))}", bold=True)
    lines: list[tuple[str, ...]] = [
        ("", "mode", "dtype", "images/s", "s", "quartiles", "times as fast", "of the product", "peak MiB", "first s")
    ]
    for m in result.sides:
        base, part = result.base(m), result.fraction(m)
        low, high = benches.quartiles(m.rounds)
        r = result.ratio(m, base)
        times = "1 (the base)" if base is m else f"{r.median:.2f}" + (" (noise)" if r.noise else "")
        lines.append(
            (m.side.who, m.side.how, m.side.dtype, f"{m.per_second:.4g}", f"{m.seconds:.4f}",
             f"{low:.4f} to {high:.4f}", times, f"{part:.0%}" if part else "", f"{m.peak / 2**20:.0f}",
             f"{m.built + m.first:.1f}")
        )  # fmt: skip
    columns(lines, "lllrrrrrrr")
    for dtype, found in result.products.items():
        said = ", ".join(f"{who} {v / 1e9:.0f}" for who, v in found.items())
        click.echo(f"a product of 2048 x 2048 in {dtype}, billion multiply-adds a second: {said or 'nothing to try'}")
    for m in result.sides:
        if m.side.engine == "auto":
            click.echo(f"{m.side}: {m.made}")
    versions = ", ".join(f"{k} {v}" for k, v in result.versions.items())
    click.echo(f"{result.device}, {result.threads} threads; {versions}; n = {result.rounds}")
    click.echo("Times as fast: the median of the rounds' ratios; noise, where their quartiles are on both sides of 1.")
    if plot:
        draw(result, plot)
        click.echo(f"plot: {plot}")
