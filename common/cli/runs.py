"""`rosetta curves` and `race`: runs beside each other."""

import sys
from pathlib import Path
from typing import Any

import click

from common.cli.group import Progress, cli, columns, writable
from common.cli.options import SeveralWords, data_options, device_option, overrides, set_option, several
from common.tools.files import make_folder
from common.tools.text import to_json


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(), metavar="RUN ...")
@click.option("--out", type=click.Path(), metavar="PNG", help="Draw the loss, and the errors in training and test.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def curves(runs: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Lay the training curves of several RUNs over each other. The paper does so with a plain and a residual net.

    One table has the test error of each run, epoch by epoch; another says where each of them ended.
    """
    from common.training import curves as drawing

    if out:
        writable(out)
    found = drawing.read(runs)
    if out:
        drawing.draw(out, found)
    if as_json:
        click.echo(to_json([c.to_json() for c in found]))
        return
    by_epoch = [{int(row["epoch"]): row for row in c.rows} for c in found]
    lines: list[tuple[str, ...]] = [("test error by epoch", *(c.label for c in found))]
    for epoch in drawing.epochs_shown(found):
        cells = (f"{drawing.error(rows[epoch]['test_accuracy']):.2f} %" if epoch in rows else "" for rows in by_epoch)
        lines.append((f"{epoch}", *cells))
    columns(lines, "r" * len(lines[0]))
    click.echo()
    lines = [("at the end", "framework", "epochs", "train loss", "train accuracy", "test accuracy", "best", "seconds")]
    for c in found:
        end = c.last
        lines.append(
            (c.label, c.run.framework, f"{end['epoch']:.0f}", f"{end['train_loss']:.4f}",
             f"{end['train_accuracy']:.2%}", f"{end['test_accuracy']:.2%}", f"{c.best['test_accuracy']:.2%}",
             f"{end['seconds']:.0f}")
        )  # fmt: skip
    columns(lines, "llrrrrrr")
    if out:
        click.echo(f"curves: {out}")


@cli.command(cls=SeveralWords)
@click.argument("name")
@click.option("--data", required=True, metavar="DATA", help="As in train.")
@several(
    "--backends", "torch,keras:tensorflow",
    "Any of torch, keras:tensorflow, keras:jax, keras:torch; all are held against the first.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), default=20, help="Steps of the training. Default: 20.")
@click.option(
    "--measure", type=click.IntRange(1), default=1000, help="Test examples to measure on at the end. Default: 1000."
)
@click.option(
    "--recipe", "recipe_name", default="short", metavar="R", help="A row of common/training/recipe.py. Default: short."
)
@click.option("--with", "changes", multiple=True, callback=overrides, metavar="FIELD=VALUE", help="As in train.")
@set_option
@click.option("--init", type=click.Path(), metavar="FILE", help="Begin with a checkpoint of any library.")
@click.option("--seed", type=int, default=0, help="Seed of weights, order and augmentation. Default: 0.")
@data_options
@device_option
@click.option("--out", type=click.Path(), metavar="DIR", help="Write race.json and race.png into this folder.")
def race(
    name: str, data: str, backends: tuple[str, ...], steps: int, measure: int, recipe_name: str,
    changes: dict[str, Any],
    overrides: dict[str, Any], init: str | None, seed: int, workers: int, data_dir: str | None, size: int | None,
    skip_corrupt: bool, layout: str | None, device: str, out: str | None,
) -> None:  # fmt: skip
    """Train NAME on several backends, and compare the losses. All begin alike, and are compared step by step.

    Beside how far the frameworks are apart stands how far each one is from itself when the input moves in its last
    bits and batches come in another order: what training makes of rounding. The exit code is 1 where they are farther
    apart than that.
    """
    from common.training import race as racing
    from common.training import recipe as recipes
    from common.training.run import plan

    if out:
        make_folder(out)
    recipe = recipes.get(recipe_name, **changes)
    run, found = plan(
        name, data, recipe, overrides, data_dir=data_dir, size=size, skip_corrupt=skip_corrupt, seed=seed, init=init,
        workers=workers, layout=layout,
    )  # fmt: skip
    with Progress() as progress:
        r = racing.race(run, found, backends, steps, measured=measure, device=device, progress=progress)
    if out:
        racing.write(Path(out), r)
    click.secho(f"{run.name} on {r.data}, {recipe.precision}, {steps} steps of {recipe.batch}", bold=True)
    others = list(r.losses)[1:]
    head = ("step", f"loss of {r.first}", *(f"{b} apart" for b in others), *(f"{b} drift" for b in r.losses), "allowed")
    table: list[tuple[str, ...]] = [head]
    allowed = r.allowed()
    for i in sorted({*range(min(racing.BEGIN, steps)), *(steps * k // 10 - 1 for k in range(1, 11))} - {-1}):
        apart = (f"{r.apart(b)[i]:.1e}" for b in others)
        drift = (f"{r.drift(b)[i]:.1e}" for b in r.losses)
        table.append((f"{i + 1}", f"{r.losses[r.first][i]:.12g}", *apart, *drift, f"{allowed[i]:.1e}"))
    columns(table, "r" * len(head))
    click.echo(
        "apart: from the first backend's loss; drift: from its own, with the input moved in its last bits and each "
        "batch in another order"
    )
    for b, (loss, accuracy) in r.test.items():
        click.echo(
            f"{b}: test loss {loss:.9g}, accuracy {accuracy:.2%}; weights {r.weights[b]:.1e} from {r.first}'s, "
            f"{r.weights_again[b]:.1e} from its own, moved"
        )
    for b in others:
        if (step := r.over(b)) is not None:
            click.echo(f"{b}: farther from {r.first} than rounding takes it, from step {step} on")
    click.secho("the same training, to rounding" if r.equal else "not the same training", bold=True)
    sys.exit(0 if r.equal else 1)
