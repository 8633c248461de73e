"""Subcommands that train, evaluate, predict and measure."""

import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from common.cli import Choice, SeveralWords, _columns, _overrides, _Progress, _words, _writable, cli, set_option
from common.errors import RosettaError
from common.text import to_json
from common.weights import make_folder

_FRAMEWORK = "torch, keras (on TensorFlow), keras:jax or keras:torch"


_device_option = click.option(
    "--device", type=Choice(["auto", "cpu", "gpu"]), default="auto", help="Default: a GPU where there is one."
)


def _data_options(command: Any) -> Any:
    for option in (
        click.option("--skip-corrupt", is_flag=True, help="Leave out images that can't be read, and name them."),
        click.option(
            "--size", type=click.IntRange(1), metavar="PIXELS", help="Resize images. Default: a folder's to 224."
        ),
        click.option(
            "--layout",
            type=Choice(["channels-first", "channels-last"]),
            help="Where a .npz has its channels, if that isn't plain.",
        ),
        click.option("--data-dir", type=click.Path(), metavar="DIR", help="Where the data's files are."),
        click.option("--workers", type=click.IntRange(1, 64), default=1, help="Threads that load. Default: 1."),
    ):
        command = option(command)
    return command


def _numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in values:
        section, _, number = text.partition("=")
        try:
            found[section] = float(number)
        except ValueError:
            raise RosettaError(
                f"{param.opts[0]} {text!r} can't be: expected SECTION=NUMBER, such as layer4=0.1"
            ) from None
    return found


@cli.command()
@click.argument("name", required=False)
@click.option("--data", metavar="DATA", help="digits, fashion-mnist, cifar10, cifar100, ecg, folder:PATH or FILE.npz.")
@click.option("--framework", default="torch", metavar="F", help=f"{_FRAMEWORK}. Default: torch.")
@click.option(
    "--recipe",
    "recipe_name",
    metavar="R",
    help="A row of common/recipe.py. Default: small for fewer than 5,000 examples, else short; transfer with --init.",
)
@click.option("--epochs", type=int, help="Default: the recipe's.")
@click.option("--batch", type=int, help="Examples a step. Default: the recipe's.")
@click.option("--rate", type=float, help="The highest learning rate. Default: the recipe's.")
@click.option(
    "--with", "changes", multiple=True, callback=_overrides, metavar="FIELD=VALUE",
    help="Replace a field of the recipe: schedule=cosine, smoothing=0.1, precision=mixed_bfloat16; may be repeated.",
)  # fmt: skip
@set_option
@click.option("--init", type=click.Path(), metavar="FILE", help="Begin with a checkpoint, of any library.")
@click.option(
    "--freeze",
    default="",
    callback=_words,
    metavar="A,B",
    help="Sections that don't learn: stem, layer1, ...; all-but-head.",
)
@click.option(
    "--times", "rates", multiple=True, callback=_numbers, metavar="SECTION=X", help="Multiply a section's rate."
)
@click.option(
    "--hold-out", type=click.FloatRange(0, 0.9), default=0.0, help="Measure on this part of the training examples."
)
@click.option("--no-augment", is_flag=True, help="Train on the examples as they are.")
@click.option("--seed", type=int, default=0, help="Of weights, order and augmentation. Default: 0.")
@_device_option
@click.option(
    "--devices", type=click.IntRange(1), default=1, metavar="N",
    help="Keras on JAX or TensorFlow: share each batch. PyTorch: torchrun --nproc-per-node N -m common.cli train ...",
)  # fmt: skip
@_data_options
@click.option("--out", type=click.Path(), metavar="DIR", help="The run's folder. Default: runs/NAME-DATA-FRAMEWORK.")
@click.option("--resume", type=click.Path(), metavar="DIR", help="Go on with a run where it stopped.")
@click.option(
    "--save-every", type=click.FloatRange(0.0), default=60.0, metavar="SECONDS", help="Default: 60, and each epoch."
)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Stop after so many, with a checkpoint.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON an epoch on stdout, and nothing else.")
def train(
    name: str | None, data: str | None, framework: str, recipe_name: str | None, epochs: int | None, batch: int | None,
    rate: float | None, changes: dict[str, Any], overrides: dict[str, Any], init: str | None, freeze: tuple[str, ...],
    rates: dict[str, float], hold_out: float, no_augment: bool, seed: int, device: str, devices: int, workers: int,
    data_dir: str | None, size: int | None, skip_corrupt: bool, layout: str | None, out: str | None, resume: str | None,
    save_every: float, steps: int | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train NAME on --data, in either framework: the same weights, batches and update rule in both.

    The run is a folder: config, metrics, curve, and checkpoints that either framework goes on from. Ctrl-C or SIGTERM
    stops after the step, with a checkpoint; --resume goes on, and for longer with --epochs.
    """
    from common import recipe as recipes
    from common import training
    from common.engines import versions

    several, first = int(os.environ.get("WORLD_SIZE", "1")) > 1, os.environ.get("RANK", "0") == "0"  # torchrun's
    kept = click.get_current_context().with_resource(contextlib.ExitStack())
    if resume:
        context = click.get_current_context()
        given = {
            p for p in context.params
            if context.get_parameter_source(p) == click.core.ParameterSource.COMMANDLINE
        }  # fmt: skip
        if wrong := given - {
            "resume", "framework", "save_every", "steps", "quiet", "as_json", "workers", "device", "data", "data_dir",
            "epochs",
        }:  # fmt: skip
            raise RosettaError(f"--resume goes on with what the run's config says: without {', '.join(sorted(wrong))}")
        folder = Path(resume)
        run = training.Run.load(folder)
        kept.enter_context(training.alone(folder))
        changes = {"framework": training.prepare(framework, run.recipe.precision)} if "framework" in given else {}
        changes |= {"data": training.placed(data)} if data is not None else {}
        changes |= {"data_dir": training.from_root(data_dir)} if data_dir is not None else {}
        changes |= {"workers": workers} if "workers" in given else {}
        run = dataclasses.replace(run, **changes)
        training.prepare(run.framework, run.recipe.precision, run.devices, device)
        found = run.load_data()
        if changes:
            training.replaced(folder, **changes)
        if epochs is not None:
            found.notes.append(training.longer(folder, epochs, found))
    else:
        if not name or not data:
            raise RosettaError("train needs a NAME and --data: rosetta train cifar_resnet20 --data digits")
        given_fields = {"epochs": epochs, "batch": batch, "rate": rate}
        fields = {k: v for k, v in given_fields.items() if v is not None} | changes
        recipe = recipes.get(recipe_name or "short", **fields)
        spec = training.prepare(framework, recipe.precision, devices, device)
        run, found = training.plan(
            name, data, recipe, overrides, framework=spec, data_dir=data_dir, size=size, skip_corrupt=skip_corrupt,
            layout=layout,
            hold_out=hold_out, seed=seed, init=init, frozen=freeze, rates=rates, augment=not no_augment,
            workers=workers, devices=devices,
        )  # fmt: skip
        chosen = recipe_name or recipes.suited(len(found.train), begins=init is not None)
        run = dataclasses.replace(run, recipe=recipes.get(chosen, **fields), recipe_name=chosen)
        versions(spec, device, default=False)  # which refuses a device that isn't there
        if several and not out:
            raise RosettaError("under torchrun a run needs --out: its processes have to agree on the folder")
        folder = Path(out) if out else training.free(Path("runs"), f"{name}-{found.name}-{spec.replace(':', '-')}")
        if first:
            training.new(folder, run)
        else:
            training.appears(folder)
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:  # the second time at once
            sys.exit(128 + number)
        asked.append(number)

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    speaker = _Quiet() if quiet or not first else _Json() if as_json else _Bars(folder, found)
    try:
        with speaker as say:
            done = training.train(
                folder, listener=say, stop=lambda: bool(asked), save_every=save_every, data=found, limit=steps,
                device=device,
            )  # fmt: skip
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked and done.step < done.steps:
        sys.exit(128 + asked[0])


SAY_EVERY = 30.0  # seconds to a line where there is no terminal
FEW = 10  # steps of an epoch


class _Quiet:
    def __enter__(self) -> Any:
        return self.say

    def __exit__(self, *exc: object) -> None:
        pass

    def say(self, what: str, progress: Any) -> None:
        pass


class _Json(_Quiet):
    def say(self, what: str, progress: Any) -> None:
        if what == "epoch":
            click.echo(to_json(progress.last, indent=None))


class _Bars(_Quiet):
    """A bar for the epoch, with loss, accuracy, rate and what remains of the whole; a line for each that is over."""

    def __init__(self, folder: Path, data: Any):
        self.folder, self.data = folder, data

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=False, highlight=False)
        for note in self.data.notes:
            self.console.print(note, soft_wrap=True)
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[said]}"), TimeRemainingColumn(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.bars.start()
        self.told = time.monotonic()
        self.task: Any = None
        return self.say

    def __exit__(self, *exc: object) -> None:
        self.bars.stop()

    def say(self, what: str, p: Any) -> None:
        if self.task is None:
            self.task = self.bars.add_task("", total=p.steps, said="")
            r = p.run.recipe
            self.console.print(
                f"[bold]{p.run.name}[/] on {self.data.name}, {p.run.framework}, {r.precision}, {p.about['device']}: "
                f"{self.folder}",
                soft_wrap=True,
            )
            self.console.print(
                f"input {' x '.join(map(str, self.data.shape))} ({'C H W' if len(self.data.shape) == 3 else 'C L'}), "
                f"{len(self.data.classes)} classes: {', '.join(self.data.classes[:6])}"
                + ", ..." * (len(self.data.classes) > 6), style="dim", markup=False, soft_wrap=True,
            )  # fmt: skip
            self.console.print(
                f"recipe {p.run.recipe_name or 'of its own'}: batch {r.batch}, {r.rule.kind} with a rate of up to "
                f"{r.rule.rate:g} ({r.schedule}), {r.epochs} epochs", style="dim", soft_wrap=True,
            )  # fmt: skip
            self.console.print(
                f"{len(self.data.train):,} examples, {p.steps_per_epoch} step{'s' * (p.steps_per_epoch != 1)} of "
                f"{r.batch} an epoch; {len(self.data.test):,} to measure on", style="dim", soft_wrap=True,
            )  # fmt: skip
            for note in p.notes:
                self.console.print(note, soft_wrap=True, markup=False)
            if p.steps_per_epoch < FEW:
                self.console.print(
                    f"an epoch of fewer than {FEW} steps moves a net little: a smaller --batch makes more of them",
                    style="yellow", soft_wrap=True,
                )  # fmt: skip
            self.console.print("epoch     loss  accuracy  test loss  accuracy      rate  seconds", style="dim")
        if what == "step" and p.seen:
            said = f"loss {p.loss / p.seen:.4f}  accuracy {p.right / p.seen:.2%}  rate {p.rate:.2g}"
            epoch = (p.step - 1) // p.steps_per_epoch + 1
            self.bars.update(self.task, completed=p.step, description=f"epoch {epoch}", said=said)
            if not self.console.is_terminal and time.monotonic() - self.told > SAY_EVERY:
                self.console.print(f"      step {p.step} of {p.steps}, epoch {epoch}: {said}", soft_wrap=True)
                self.told = time.monotonic()
        elif what == "epoch":
            m, self.told = p.last, time.monotonic()
            self.console.print(
                f"{m['epoch']:5.0f} {m['train_loss']:8.4f}  {m['train_accuracy']:8.2%}   {m['test_loss']:8.4f}  "
                f"{m['test_accuracy']:8.2%} {m['rate']:9.2g} {m['seconds']:8.0f}"
            )
        elif what == "stopped":
            self.console.print(
                f"stopped after step {p.step} of {p.steps}, loss "
                f"{p.loss / p.seen if p.seen else p.last['train_loss']:.4f}: rosetta train --resume {self.folder}",
                soft_wrap=True,
            )
        elif what == "done":
            self.console.print(
                f"done: {p.last['test_accuracy']:.2%} of {len(self.data.test):,}; {self.folder}", soft_wrap=True
            )


@cli.command()
@click.argument("source", type=click.Path())
@click.option("--data", metavar="DATA", help="As in train. Default: the run's.")
@click.option("--framework", default="torch", metavar="F", help=f"{_FRAMEWORK}, or both. Default: torch.")
@click.option("--dtype", default="float32", help="Default: float32.")
@_device_option
@click.option("--arch", "variant", metavar="NAME", help="The variant that the file must be.")
@set_option
@_data_options
@click.option("--confusion", type=click.Path(), metavar="PNG", help="Draw the confusion matrix.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def evaluate(
    source: str, data: str | None, framework: str, dtype: str, device: str, variant: str | None,
    overrides: dict[str, Any], workers: int, data_dir: str | None, size: int | None, skip_corrupt: bool,
    layout: str | None,
    confusion: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure SOURCE, a run or a checkpoint of any library, on the test examples of --data.

    --framework both runs PyTorch and Keras, and counts the examples of which they say the same class. Exit code 1: they
    don't, of all.
    """
    from common import data as datasets
    from common import evaluation, training
    from common.arch import get
    from common.port import inspect

    if confusion:
        _writable(confusion)
    if data is None:
        run = training.Run.load(Path(source))
        run = dataclasses.replace(
            run, data_dir=data_dir or run.data_dir, size=size or run.size, layout=layout or run.layout, workers=workers
        )
        found = run.load_data()
    else:
        found = datasets.load(data, data_dir, size=size, skip_corrupt=skip_corrupt, layout=layout)
    net = inspect(training.model_of(source), arch=get(variant) if variant else None, overrides=overrides)
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
        _columns(*_scores(by_backend, n))
        click.echo()
        first = next(iter(by_backend.values()))
        table: list[tuple[str, ...]] = [("class", "examples", "recall", "precision", "F1", "most often taken for")]
        for i, (c, (k, *parts)) in enumerate(zip(found.classes, first.per_class, strict=True)):
            others = first.confusion[i].copy()
            others[i] = 0
            j = int(others.argmax())
            wrong = f"{found.classes[j]} ({others[j]})" if others[j] else ""
            table.append((c, f"{k:,}", *map(_percent, parts), wrong))
        _columns(table, "lrrrrl")
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
    "--weights",
    "source",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="A run, or a checkpoint of any library.",
)
@click.option("--framework", default="torch", metavar="F", help=f"{_FRAMEWORK}, or both. Default: torch.")
@click.option("--top", type=click.IntRange(1), default=5, help="How many classes. Default: 5.")
@click.option("--dtype", default="float32", help="Default: float32.")
@_device_option
@click.option("--arch", "variant", metavar="NAME", help="The variant that the file must be.")
@set_option
@click.option("--skip-corrupt", is_flag=True, help="Leave out images that can't be read, and name them.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def predict(
    images: tuple[str, ...], source: str, framework: str, top: int, dtype: str, device: str, variant: str | None,
    overrides: dict[str, Any], skip_corrupt: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say what IMAGES show: files, folders, or - for one on standard input.

    The preprocessing and the labels are those that the weights carry; of 1000 classes that a library leaves unnamed,
    ImageNet's. --framework both prints the answers of PyTorch
    and of Keras, and how far they are apart.
    """
    from common import evaluation, imagenet
    from common.arch import get
    from common.port import inspect
    from common.scores import softmax
    from common.training import model_of

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
        _columns(table, "l" + "r" * len(p), heading=len(p) > 1)
    if got.apart is not None:
        click.echo(f"the two frameworks' logits: within {got.apart:.1e} of each other, relative to the largest")


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(), metavar="RUN ...")
@click.option("--out", type=click.Path(), metavar="PNG", help="Draw them: loss, and error of training and test.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def curves(runs: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Lay the training curves of several RUNs over each other, as the paper does of a plain and a residual net.

    The tables have the test error of each, epoch by epoch, and where each of them ended.
    """
    from common import curves as drawing

    if out:
        _writable(out)
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
    _columns(lines, "r" * len(lines[0]))
    click.echo()
    lines = [("at the end", "framework", "epochs", "train loss", "train accuracy", "test accuracy", "best", "seconds")]
    for c in found:
        end = c.last
        lines.append(
            (c.label, c.run.framework, f"{end['epoch']:.0f}", f"{end['train_loss']:.4f}",
             f"{end['train_accuracy']:.2%}", f"{end['test_accuracy']:.2%}", f"{c.best['test_accuracy']:.2%}",
             f"{end['seconds']:.0f}")
        )  # fmt: skip
    _columns(lines, "llrrrrrr")
    if out:
        click.echo(f"curves: {out}")


@cli.command(cls=SeveralWords)
@click.argument("name")
@click.option("--data", required=True, metavar="DATA", help="As in train.")
@click.option(
    "--backends", default="torch,keras:tensorflow", callback=_words, metavar="A B ...",
    help="Of torch, keras:tensorflow, keras:jax, keras:torch; all against the first.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), default=20, help="Default: 20.")
@click.option(
    "--measure", type=click.IntRange(1), default=1000, help="How many test examples, at the end. Default: 1000."
)
@click.option(
    "--recipe", "recipe_name", default="short", metavar="R", help="A row of common/recipe.py. Default: short."
)
@click.option("--with", "changes", multiple=True, callback=_overrides, metavar="FIELD=VALUE", help="As in train.")
@set_option
@click.option("--init", type=click.Path(), metavar="FILE", help="Begin with a checkpoint, of any library.")
@click.option("--seed", type=int, default=0, help="Of weights, order and augmentation. Default: 0.")
@_data_options
@_device_option
@click.option("--out", type=click.Path(), metavar="DIR", help="Write race.json and race.png into this folder.")
def race(
    name: str, data: str, backends: tuple[str, ...], steps: int, measure: int, recipe_name: str,
    changes: dict[str, Any],
    overrides: dict[str, Any], init: str | None, seed: int, workers: int, data_dir: str | None, size: int | None,
    skip_corrupt: bool, layout: str | None, device: str, out: str | None,
) -> None:  # fmt: skip
    """Train NAME on several backends from the same start, and compare the losses step by step.

    Beside how far the frameworks are apart stands how far each one is from itself when the input moves in its last
    bits and batches come in another order: what training makes of rounding. Exit code 1: they are farther apart than
    that.
    """
    from common import race as racing
    from common import recipe as recipes
    from common import training

    if out:
        make_folder(out)
    recipe = recipes.get(recipe_name, **changes)
    run, found = training.plan(
        name, data, recipe, overrides, data_dir=data_dir, size=size, skip_corrupt=skip_corrupt, seed=seed, init=init,
        workers=workers, layout=layout,
    )  # fmt: skip
    with _Progress() as progress:
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
    _columns(table, "r" * len(head))
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


@cli.command(cls=SeveralWords)
@click.argument("name")
@set_option
@click.option(
    "--against", default="", callback=_words, metavar="A B ...",
    help="Of torchvision, timm, keras.applications, onnxruntime, openvino.",
)  # fmt: skip
@click.option(
    "--backends", default="torch,keras:tensorflow", callback=_words, metavar="A B ...",
    help="Of ours: torch, keras:tensorflow, keras:jax, keras:torch. Default: the first two.",
)  # fmt: skip
@click.option(
    "--modes", default="eager,optimised", callback=_words, metavar="A,B",
    help="Of eager, optimised, train, train-optimised. Default: the first two.",
)  # fmt: skip
@click.option(
    "--dtype", "dtypes", type=Choice(["float32", "bfloat16", "float16", "float64"]), multiple=True,
    help="May be repeated. Default: float32.",
)  # fmt: skip
@click.option("--batch", type=click.IntRange(1), default=8, help="Images in a run. Default: 8.")
@click.option("--size", type=click.IntRange(1), metavar="PIXELS", help="Default: what the net was designed for.")
@click.option("--threads", type=int, metavar="N", help="Of each side. Default: all processors.")
@click.option("--rounds", type=click.IntRange(1), default=9, help="Turns of each side. Default: 9.")
@click.option("--device", type=Choice(["cpu", "gpu"]), default="cpu", help="Default: cpu.")
@click.option("--json", "json_file", type=click.Path(), metavar="FILE", help="Write everything that was measured.")
@click.option("--plot", type=click.Path(), metavar="FILE", help="Write images per second as a PNG.")
def bench(
    name: str, overrides: dict[str, Any], against: tuple[str, ...], backends: tuple[str, ...], modes: tuple[str, ...],
    dtypes: tuple[str, ...], batch: int, size: int | None, threads: int | None, rounds: int, device: str,
    json_file: str | None, plot: str | None,
) -> None:  # fmt: skip
    """Time NAME in both frameworks and in other libraries, in turns, each in a process of its own.

    eager: inference as a net is built (Keras: predict_on_batch). optimised: by optimize(), a peer by the best that its
    guides offer. train: a step of a plain loop (Keras: train_on_batch). train-optimised: of our Trainer.
    """
    from common import bench as benches
    from common import weights

    for file in (json_file, plot):
        if file:
            _writable(file)
    if plot:
        from common.charts import plot as draw
        from common.frameworks import require

        require("--plot", ("matplotlib",), "train")
    with _Progress() as progress:
        result = benches.bench(
            name, overrides=overrides, against=against, backends=backends, modes=modes, dtypes=dtypes or ("float32",),
            batch=batch, size=size, threads=threads, rounds=rounds, device=device, progress=progress,
        )  # fmt: skip
    if json_file:
        with weights.atomic(json_file) as temporary:
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
            (m.side.who, m.side.mode, m.side.dtype, f"{m.per_second:.4g}", f"{m.seconds:.4f}",
             f"{low:.4f} to {high:.4f}", times, f"{part:.0%}" if part else "", f"{m.peak / 2**20:.0f}",
             f"{m.built + m.first:.1f}")
        )  # fmt: skip
    _columns(lines, "lllrrrrrrr")
    for dtype, found in result.products.items():
        said = ", ".join(f"{who} {v / 1e9:.0f}" for who, v in found.items())
        click.echo(f"a product of 2048 x 2048 in {dtype}, billion multiply-adds a second: {said or 'nothing to try'}")
    versions = ", ".join(f"{k} {v}" for k, v in result.versions.items())
    click.echo(f"{result.device}, {result.threads} threads; {versions}; n = {result.rounds}")
    click.echo("Times as fast: the median of the rounds' ratios; noise, where their quartiles are on both sides of 1.")
    if plot:
        draw(result, plot)
        click.echo(f"plot: {plot}")
