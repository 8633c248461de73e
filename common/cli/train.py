"""`rosetta train`, and what it says on the way."""

import contextlib
import dataclasses
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from common.cli.group import cli
from common.cli.options import FRAMEWORK, data_options, device_option, numbers, overrides, set_option, several
from common.errors import RosettaError
from common.tools.text import to_json


@cli.command()
@click.argument("name", required=False)
@click.option("--data", metavar="DATA", help="digits, fashion-mnist, cifar10, cifar100, ecg, folder:PATH or FILE.npz.")
@click.option("--framework", default="torch", metavar="F", help=f"{FRAMEWORK}. Default: torch.")
@click.option(
    "--recipe", "recipe_name", metavar="R",
    help="A row of training/recipe.py. Default: small for fewer than 5,000 examples, else short; transfer with --init.",
)  # fmt: skip
@click.option("--epochs", type=int, help="Passes over the examples. Default: the recipe's.")
@click.option("--batch", type=int, help="Examples in a step. Default: the recipe's.")
@click.option("--rate", type=float, help="The highest learning rate. Default: the recipe's.")
@click.option(
    "--with", "changes", multiple=True, callback=overrides, metavar="FIELD=VALUE",
    help="Replace a field of the recipe: schedule=cosine, smoothing=0.1, precision=mixed_bfloat16; may be repeated.",
)  # fmt: skip
@set_option
@click.option("--init", type=click.Path(), metavar="FILE", help="Begin with a checkpoint of any library.")
@several("--freeze", "", "Sections that don't learn: stem, layer1, ..., head; or all-but-head.", "A,B")
@click.option(
    "--times", "rates", multiple=True, callback=numbers, metavar="SECTION=X", help="Multiply a section's learning rate."
)
@click.option(
    "--hold-out", type=click.FloatRange(0, 0.9), default=0.0, help="Measure on this part of the training examples."
)
@click.option("--no-augment", is_flag=True, help="Train on the examples as they are.")
@click.option("--seed", type=int, default=0, help="Seed of weights, order and augmentation. Default: 0.")
@device_option
@click.option(
    "--devices", type=click.IntRange(1), default=1, metavar="N",
    help="Share each batch: Keras on JAX or TensorFlow. PyTorch: torchrun --nproc-per-node N -m common.cli train ...",
)  # fmt: skip
@data_options
@click.option("--out", type=click.Path(), metavar="DIR", help="The run's folder. Default: runs/NAME-DATA-FRAMEWORK.")
@click.option("--resume", type=click.Path(), metavar="DIR", help="Go on with a run where it stopped.")
@click.option(
    "--save-every", type=click.FloatRange(0.0), default=60.0, metavar="SECONDS",
    help="How often to save a checkpoint. Default: 60, and after each epoch.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Stop after N steps, with a checkpoint.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each epoch, and nothing else.")
def train(
    name: str | None, data: str | None, framework: str, recipe_name: str | None, epochs: int | None, batch: int | None,
    rate: float | None, changes: dict[str, Any], overrides: dict[str, Any], init: str | None, freeze: tuple[str, ...],
    rates: dict[str, float], hold_out: float, no_augment: bool, seed: int, device: str, devices: int, workers: int,
    data_dir: str | None, size: int | None, skip_corrupt: bool, layout: str | None, out: str | None, resume: str | None,
    save_every: float, steps: int | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train NAME on --data, in either framework. Weights, batches and update rule are the same in both.

    The run is a folder: config, metrics, curve, and checkpoints that either framework goes on from. Ctrl-C or SIGTERM
    stops after the step, with a checkpoint; --resume goes on, and for longer with --epochs.
    """
    from common.parity.engines import versions
    from common.training import recipe as recipes
    from common.training import record
    from common.training import run as planned
    from common.training.loop import train as train_run

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
        run = planned.Run.load(folder)
        kept.enter_context(record.alone(folder))
        changes = {"framework": planned.prepare(framework, run.recipe.precision)} if "framework" in given else {}
        changes |= {"data": planned.placed(data)} if data is not None else {}
        changes |= {"data_dir": planned.from_root(data_dir)} if data_dir is not None else {}
        changes |= {"workers": workers} if "workers" in given else {}
        run = dataclasses.replace(run, **changes)
        planned.prepare(run.framework, run.recipe.precision, run.devices, device)
        found = run.load_data()
        if changes:
            record.replaced(folder, **changes)
        if epochs is not None:
            found.notes.append(record.longer(folder, epochs, found))
    else:
        if not name or not data:
            raise RosettaError("train needs a NAME and --data, such as rosetta train cifar_resnet20 --data digits")
        given_fields = {"epochs": epochs, "batch": batch, "rate": rate}
        fields = {k: v for k, v in given_fields.items() if v is not None} | changes
        recipe = recipes.get(recipe_name or "short", **fields)
        spec = planned.prepare(framework, recipe.precision, devices, device)
        run, found = planned.plan(
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
        folder = Path(out) if out else record.free(Path("runs"), f"{name}-{found.name}-{spec.replace(':', '-')}")
        if first:
            record.new(folder, run)
        else:
            record.appears(folder)
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:  # the second time at once
            sys.exit(128 + number)
        asked.append(number)

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    speaker = _Quiet() if quiet or not first else _Json() if as_json else _Bars(folder, found)
    try:
        with speaker as say:
            done = train_run(
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
