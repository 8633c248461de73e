"""Throughput of both implementations against torchvision's, timm's and keras.applications' ResNet, in one run.

    python benchmarks/forward.py [--rounds 15] [--json benchmarks/results/forward-cpu.json]

Ours and the peers take turns, so that a change of the machine's speed meets all alike; the ratio is taken round by
round and its median quoted. Two runs of the same code stand beside, as what is noise.
"""

import gc
import json
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table


def processor() -> str:
    """The CPU's name and its number of cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def alternate(runs: dict[str, Callable[[], object]], rounds: int, tick: Callable[[], None]) -> dict[str, list[float]]:
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


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """How many times as fast ours is: median and quartiles of the rounds' ratios."""
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(each, n=4)
    return {"median": statistics.median(each), "low": low, "high": high}


def pytorch(batch: int, size: int) -> dict[str, dict[str, Callable[[], object]]]:
    import torch

    import torch_impl

    schemas = torch.library.Library("torchvision", "DEF")  # its compiled operators ask for a CUDA build
    schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm
    from torchvision.models import resnet50

    pytorch.keep = schemas  # type: ignore[attr-defined]
    models = {"ours": torch_impl.create_model("resnet50"), "torchvision": resnet50(weights=None)}
    models |= {"timm": timm.create_model("resnet50"), "ours again": torch_impl.create_model("resnet50")}
    x, y = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))

    def forward(model):
        with torch.inference_mode():
            return model.eval()(x)

    def step(model, optimizer):
        model.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    optimizers = {n: torch.optim.SGD(m.parameters(), 1e-4, momentum=0.9) for n, m in models.items()}
    return {
        "PyTorch forward, eager": {n: lambda m=m: forward(m) for n, m in models.items()},
        "PyTorch training step, eager": {n: lambda m=m, o=optimizers[n]: step(m, o) for n, m in models.items()},
    }


def tensorflow(batch: int, size: int) -> dict[str, dict[str, Callable[[], object]]]:
    import keras

    import keras_impl

    def theirs(depth: int = 50):
        return getattr(keras.applications, f"ResNet{depth}")(weights=None, classifier_activation=None)

    # the same net, v1 with biases; and ours as torchvision has it, v1.5, which is 6 % more multiply-adds
    models = {"ours, v1": keras_impl.create_model("resnet50_keras"), "keras.applications": theirs()}
    models |= {"ours": keras_impl.create_model("resnet50"), "ours, v1 again": keras_impl.create_model("resnet50_keras")}
    x, y = np.random.randn(batch, size, size, 3).astype(np.float32), np.random.randint(0, 1000, batch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for model in models.values():
        model.compile(keras.optimizers.SGD(1e-4, 0.9), loss)
    tensor = keras.ops.convert_to_tensor(x)

    def building(depth: int):
        ours = lambda: keras_impl.create_model(f"resnet{depth}_keras")  # noqa: E731
        return {"ours, v1": ours, "keras.applications": lambda: theirs(depth), "ours, v1 again": ours}

    return {
        "Keras forward, called eagerly": {n: lambda m=m: m(tensor) for n, m in models.items()},
        "Keras predict_on_batch": {n: lambda m=m: m.predict_on_batch(x) for n, m in models.items()},
        "Keras train_on_batch": {n: lambda m=m: m.train_on_batch(x, y) for n, m in models.items()},
        "Keras building ResNet-50": building(50),
        "Keras building ResNet-152": building(152),
    }


def moving_weights() -> dict[str, float]:
    """Seconds and extra memory, as a multiple of the weights, of ResNet-152's weights from PyTorch into Keras."""
    import keras_impl
    import torch_impl

    source, target = torch_impl.create_model("resnet152", seed=0), keras_impl.create_model("resnet152")
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        keras_impl.import_weights(target, torch_impl.export_weights(source))
        seconds.append(time.perf_counter() - start)
    total = sum(w.nbytes for w in torch_impl.export_weights(source).values())
    tracemalloc.start()  # numpy's arrays; TensorFlow's own buffer of one tensor at a time comes on top
    keras_impl.import_weights(target, torch_impl.export_weights(source))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": statistics.median(seconds), "extra_memory_over_weights": peak / total}


@click.command()
@click.option("--batch", default=8, show_default=True)
@click.option("--size", default=224, show_default=True, help="Pixels.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--json", "file", type=click.Path(dir_okay=False), help="Write the figures.")
def main(batch: int, size: int, rounds: int, file: str | None) -> None:
    """Ours against the peers, in one run."""
    console = Console(width=120)
    names = ("torch", "torchvision", "timm", "keras", "tensorflow-cpu", "numpy")
    report = {"device": processor(), "versions": {n: version(n) for n in names}, "date": date.today().isoformat()}
    report |= {"batch": batch, "size": size, "rounds": rounds, "cases": {}}
    table = Table("case", "peer", "ours, s", "peer, s", "times as fast", "quartiles", box=None)
    for cases in (pytorch(batch, size), tensorflow(batch, size)):
        for case, runs in cases.items():
            with Progress(console=Console(stderr=True), transient=True) as progress:
                task = progress.add_task(case, total=len(runs) * (rounds + 1))
                seconds = alternate(runs, rounds, lambda p=progress, t=task: p.advance(t))
            ours = next(iter(runs))
            medians = {n: statistics.median(s) for n, s in seconds.items()}
            ratios = {peer: ratio(seconds[ours], s) for peer, s in seconds.items() if peer != ours}
            report["cases"][case] = {"seconds": medians, "ours_is_times_as_fast": ratios}
            for peer, r in ratios.items():
                quartiles = f"{r['low']:.2f} to {r['high']:.2f}"
                table.add_row(
                    case, peer, f"{medians[ours]:.3f}", f"{medians[peer]:.3f}", f"{r['median']:.2f}", quartiles
                )
    report["moving ResNet-152's weights, PyTorch to Keras"] = moved = moving_weights()
    console.print(table)
    console.print(
        f"ResNet-152's weights from PyTorch into Keras: {moved['seconds']:.2f} s, "
        f"{moved['extra_memory_over_weights']:.2f} times the weights in extra memory"
    )
    console.print(
        f"{report['device']}; {', '.join(f'{n} {v}' for n, v in report['versions'].items())}; "
        f"batch {batch}, {size} pixels, n = {rounds}, {report['date']}"
    )
    if file:
        Path(file).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
