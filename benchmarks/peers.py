"""What the benchmarks share: turns, ratios, the peers, and a report that says on what it was measured.

Ours and the peers take turns, so that a change of the machine's speed meets all alike; the ratio is taken round by
round and its median quoted. Two runs of the same code stand beside, as what is noise.
"""

import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from common.speed.bench import ratio
from common.tools.frameworks import peer
from common.tools.memory import processor
from common.tools.text import within

Runs = Mapping[str, Callable[[], object]]  # the first is ours
CONSOLE = Console(width=120)


def alternate(runs: Runs, rounds: int, tick: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of each run in each round, the order turned from round to round, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        names = list(runs)
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            gc.collect()
            start = time.perf_counter()
            result = runs[name]()
            taken = time.perf_counter() - start
            del result
            if round_:
                seconds[name].append(taken)
            tick()
    return seconds


def torch_peers() -> dict[str, Any]:
    """torchvision's and timm's ResNet-50."""
    torchvision, timm = peer("torchvision"), peer("timm")
    return {"torchvision": torchvision.models.resnet50(weights=None), "timm": timm.create_model("resnet50")}


def keras_peer(depth: int = 50) -> Any:
    """keras.applications' ResNet."""
    import keras

    return getattr(keras.applications, f"ResNet{depth}")(weights=None, classifier_activation=None)


def report_of(**settings: Any) -> dict[str, Any]:
    """A report to fill: where, on what and when it is measured."""
    names = ("torch", "torchvision", "timm", "keras", "tensorflow-cpu", "numpy")
    versions = {name: version(name) for name in names}
    return {"device": processor(), "versions": versions, "date": date.today().isoformat(), **settings, "cases": {}}


def measure(report: dict[str, Any], cases: Mapping[str, Runs], table: Table) -> None:
    """Every case into the report and the table."""
    rounds = report["rounds"]
    for case, runs in cases.items():
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(case, total=len(runs) * (rounds + 1))
            seconds = alternate(runs, rounds, lambda p=progress, t=task: p.advance(t))
        ours = next(iter(runs))
        medians = {n: statistics.median(s) for n, s in seconds.items()}
        ratios = {other: vars(ratio(seconds[ours], s)) for other, s in seconds.items() if other != ours}
        report["cases"][case] = {"seconds": medians, "ours_is_times_as_fast": ratios}
        for other, r in ratios.items():
            quartiles = f"{r['low']:.2f} to {r['high']:.2f}"
            table.add_row(case, other, f"{medians[ours]:.3f}", f"{medians[other]:.3f}", f"{r['median']:.2f}", quartiles)


def speeds() -> Table:
    """The table that `measure` fills."""
    return Table("case", "peer", "ours, s", "peer, s", "times as fast", "quartiles", box=None)


def conclude(report: dict[str, Any], file: str | None) -> None:
    """Print on what it was measured; write the report, if asked for."""
    versions = ", ".join(f"{name} {v}" for name, v in report["versions"].items())
    CONSOLE.print(f"{report['device']}; {versions}; batch {report['batch']}, {report['size']} pixels, "
                  f"n = {report['rounds']}, {report['date']}")  # fmt: skip
    if file:
        Path(file).write_text(json.dumps(report, indent=1) + "\n")


def command(rounds: int) -> Callable[[Callable[..., None]], click.Command]:
    """Makes a command of what measures cases: `batch`, `size`, `rounds` and `file` are its options."""

    def made(main: Callable[..., None]) -> click.Command:
        main = click.option("--json", "file", type=click.Path(dir_okay=False), help="Write the figures.")(main)
        main = click.option("--rounds", default=rounds, show_default=True)(main)
        main = click.option("--size", default=224, show_default=True, help="Pixels.")(main)
        return click.command()(click.option("--batch", default=8, show_default=True)(main))

    return made


def put(path: str, mark: str, text: str) -> None:
    """A generated text into a page, between its marks."""
    Path(path).write_text(within(Path(path).read_text(), mark, text))
