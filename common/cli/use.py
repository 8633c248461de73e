"""`rosetta evaluate` and `predict`: a trained net, used."""

import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from common.cli.group import cli, columns, writable
from common.cli.options import FRAMEWORK, data_options, device_option, set_option
from common.errors import RosettaError
from common.tools.text import to_json


@cli.command()
@click.argument("source", type=click.Path())
@click.option("--data", metavar="DATA", help="As in train. Default: the run's.")
@click.option("--framework", default="torch", metavar="F", help=f"{FRAMEWORK}, or both. Default: torch.")
@click.option("--dtype", default="float32", help="What to compute in. Default: float32.")
@device_option
@click.option("--arch", "variant", metavar="NAME", help="The variant that the file must be.")
@set_option
@data_options
@click.option("--confusion", type=click.Path(), metavar="PNG", help="Draw the confusion matrix.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def evaluate(
    source: str, data: str | None, framework: str, dtype: str, device: str, variant: str | None,
    overrides: dict[str, Any], workers: int, data_dir: str | None, size: int | None, skip_corrupt: bool,
    layout: str | None, confusion: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure SOURCE on the test examples of --data. SOURCE is a run, or a checkpoint of any library.

    --framework both runs PyTorch and Keras, and counts the examples of which they say the same class; the exit code is
    1 where that is not all of them.
    """
    from common.arch import get
    from common.checkpoints.port import inspect
    from common.training import data as datasets
    from common.training import evaluation
    from common.training.record import model_of
    from common.training.run import Run

    if confusion:
        writable(confusion)
    if data is None:
        run = Run.load(Path(source))
        run = dataclasses.replace(
            run, data_dir=data_dir or run.data_dir, size=size or run.size, layout=layout or run.layout, workers=workers
        )
        found = run.load_data()
    else:
        found = datasets.load(data, data_dir, size=size, skip_corrupt=skip_corrupt, layout=layout)
    net = inspect(model_of(source), arch=get(variant) if variant else None, overrides=overrides)
    got, by_backend = evaluation.evaluate(net, found, framework, size=size, dtype=dtype, device=device, workers=workers)
    n = len(found.test)
    if confusion:
        first = next(iter(by_backend.values()))
        got.notes += evaluation.draw_confusion(
            confusion, first, found.classes, f"{got.found.name} on {found.name}: {first.accuracy:.2%}"
        )
    if as_json:
        click.echo(
            to_json(
                {
                    "source": str(source), "name": got.found.name, "data": found.name, "examples": n,
                    "part": found.part, "dtype": dtype,
                    "notes": got.notes, "same_classes": got.same_classes, "relative": got.apart,
                    "backends": {
                        b: {
                            "loss": s.loss, "accuracy": s.accuracy, "top5": s.top5,
                            "balanced_accuracy": s.balanced_accuracy, "macro_f1": s.macro_f1,
                            "confusion": s.confusion.tolist(),
                            "per_class": {
                                c: row._asdict() for c, row in zip(found.classes, s.per_class, strict=True)
                            },
                        }
                        for b, s in by_backend.items()
                    },
                }
            )
        )  # fmt: skip
    else:
        for note in (*found.notes, *got.notes):
            click.echo(note)
        of = f"{n:,} examples" if found.part == "test" else f"{n:,} examples, the {found.part}"
        click.secho(f"{got.found.name} on {found.name}: {of}, {dtype}", bold=True)
        columns(*_scores(by_backend, n))
        click.echo()
        first = next(iter(by_backend.values()))
        table: list[tuple[str, ...]] = [("class", "examples", "recall", "precision", "F1", "most often taken for")]
        for i, (c, (k, *parts)) in enumerate(zip(found.classes, first.per_class, strict=True)):
            others = first.confusion[i].copy()
            others[i] = 0
            j = int(others.argmax())
            wrong = f"{found.classes[j]} ({others[j]})" if others[j] else ""
            table.append((c, f"{k:,}", *map(_percent, parts), wrong))
        columns(table, "lrrrrl")
        if got.apart is not None:
            click.echo(f"\nthe same class for {got.same_classes:,} of {n:,}; logits within {got.apart:.1e}")
    sys.exit(0 if got.same_classes == n else 1)


def _scores(by_backend: dict[str, Any], n: int) -> tuple[list[tuple[str, ...]], str]:
    """A table with a line for each backend, and how its columns are aligned."""
    classes = len(next(iter(by_backend.values())).confusion)
    five = classes > 5  # of five classes or fewer, the top 5 are all there are
    rows = [("", "accuracy", "balanced", "macro F1", *(["top 5"] * five), "loss", "errors")]
    for b, s in by_backend.items():
        parts = (s.accuracy, s.balanced_accuracy, s.macro_f1, *([s.top5] * five))
        rows.append((b, *map(_percent, parts), f"{s.loss:.6f}", f"{n - int(s.confusion.trace()):,}"))
    return rows, "l" + "r" * (len(rows[0]) - 1)


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.2%}"


@cli.command()
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option(
    "--weights", "source", required=True, type=click.Path(), metavar="FILE",
    help="A run, or a checkpoint of any library.",
)  # fmt: skip
@click.option("--framework", default="torch", metavar="F", help=f"{FRAMEWORK}, or both. Default: torch.")
@click.option("--top", type=click.IntRange(1), default=5, help="How many classes to name. Default: 5.")
@click.option("--dtype", default="float32", help="What to compute in. Default: float32.")
@device_option
@click.option("--arch", "variant", metavar="NAME", help="The variant that the file must be.")
@set_option
@click.option("--skip-corrupt", is_flag=True, help="Leave out images that can't be read, and name them.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def predict(
    images: tuple[str, ...], source: str, framework: str, top: int, dtype: str, device: str, variant: str | None,
    overrides: dict[str, Any], skip_corrupt: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say what IMAGES show. They are files, folders, or - for one on standard input.

    The preprocessing and the labels are those that the weights carry; of 1000 classes that a library leaves unnamed,
    ImageNet's. --framework both prints the answers of PyTorch and of Keras, and how far they are apart.
    """
    from common.arch import get
    from common.checkpoints import imagenet
    from common.checkpoints.port import inspect
    from common.training import evaluation
    from common.training.record import model_of
    from common.training.scores import softmax

    with tempfile.TemporaryDirectory() as kept:
        given = list(images)
        if "-" in given:
            content = sys.stdin.buffer.read() if sys.stdin else b""
            if not content:
                raise RosettaError("nothing came on standard input: expected an image")
            path = os.path.join(kept, "standard input")
            Path(path).write_bytes(content)
            given[given.index("-")] = path
        examples, notes = evaluation.pictures(given, skip_corrupt)
        net = inspect(model_of(source), arch=get(variant) if variant else None, overrides=overrides)
        got = evaluation.answers(net, examples, framework, dtype=dtype, device=device)
    k = got.found.arch.num_classes
    labels = got.found.labels or tuple(f"class {i}" for i in range(k))
    wnids: tuple[str, ...] = ()
    if imagenet.known(got.found):
        wnids, labels = zip(*imagenet.classes(), strict=True)
        got.notes.append(f"the weights name no classes; ImageNet's are taken, in the order of {got.found.library.name}")
    p = {b: softmax(y) for b, y in got.logits.items()}
    rows: list[tuple[str, list[dict[str, Any]]]] = []
    for i, file in enumerate(examples.files):
        best = (-next(iter(p.values()))[i]).argsort(kind="stable")[:top]
        said = [
            {"label": labels[j], "class": int(j)} | ({"wnid": wnids[j]} if wnids else {})
            | {b: float(q[i, j]) for b, q in p.items()}
            for j in best
        ]  # fmt: skip
        rows.append(("-" if file.name == "standard input" else str(file), said))
    if as_json:
        found = {"weights": str(source), "name": got.found.name, "notes": [*notes, *got.notes], "relative": got.apart}
        click.echo(to_json(found | {"images": [{"image": f, "top": said} for f, said in rows]}))
        return
    for note in (*notes, *got.notes):
        click.echo(note, err=True)
    for name, said in rows:
        click.secho(name, bold=True)
        table: list[tuple[str, ...]] = [("", *p)] if len(p) > 1 else []
        table += [(f"  {t['label']}", *(f"{t[b]:.2%}" for b in p)) for t in said]
        columns(table, "l" + "r" * len(p), heading=len(p) > 1)
    if got.apart is not None:
        click.echo(f"the two frameworks' logits: within {got.apart:.1e} of each other, relative to the largest")
