"""`optimize(engine="auto")` against each engine by itself, in turns in one process: does it take the fastest?

    PYTHONPATH=benchmarks python benchmarks/engines.py [--json benchmarks/results/engines-cpu.json]

What is written grows case by case, and a case that is there is not measured again; docs/performance.md gets its table.
"""

import gc
import itertools
import json
import os
import statistics
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
from atlas import until_today
from peers import CONSOLE, alternate, put

from common.arch import get
from common.errors import RosettaError
from common.init import randomised
from common.speed.bench import ratio
from common.speed.runners import AUTO, DTYPES, ENGINES
from common.tools.files import atomic
from common.tools.frameworks import load
from common.tools.memory import cpus, processor


def measure(framework: str, net: str, batch: int, dtype: str, rounds: int) -> dict:
    """Median seconds of each engine and of the one that "auto" took; how many times as fast that is as the fastest."""
    impl = load(framework)
    model = impl.create_model(net, weights=randomised(get(net)))
    x = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)
    if framework == "torch":
        import torch

        x = torch.from_numpy(x)
    else:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    made, without = {}, {}
    for engine in (*ENGINES, AUTO):
        try:
            made[engine] = impl.optimize(model, x, dtype=dtype, engine=engine)
        except RosettaError as e:
            without[engine] = str(e)
    runs = {engine: lambda fast=fast: np.asarray(fast(x)) for engine, fast in made.items()}
    seconds = alternate({k: lambda run=run: (run(), run())[1] for k, run in runs.items()}, rounds, lambda: None)
    alone = {engine: of for engine, of in seconds.items() if engine != AUTO}
    fastest = min(alone, key=lambda engine: statistics.median(alone[engine]))
    return {
        "seconds": {engine: statistics.median(of) / 2 for engine, of in seconds.items()},
        "fastest": fastest, "taken": made[AUTO].engine,
        "auto_over_fastest": vars(ratio(seconds[AUTO], seconds[fastest])),
        "taken_over_fastest": vars(ratio(seconds[made[AUTO].engine], seconds[fastest])),
        "said": str(made[AUTO]), "differences": {engine: fast.difference for engine, fast in made.items()},
        "floor": made[AUTO].floor, "without": without, "load": os.getloadavg()[0],
    }  # fmt: skip


def written(report: dict) -> str:
    """The cases as Markdown, a row each."""
    lines = [
        f"| ours, net, dtype, batch | {' | '.join(ENGINES)} | taken | times as fast as the fastest alone | quartiles |",
        f"|---|{'--:|' * len(ENGINES)}---|--:|--:|",
    ]
    cases = report["cases"]  # which come in any order, some another day
    for name in sorted(cases, key=lambda name: (name.startswith("keras"), name.split(", ")[1])):
        case = cases[name]
        r = case["auto_over_fastest"]
        took = [f"{1e3 * case['seconds'][e]:.1f} ms" if e in case["seconds"] else "" for e in ENGINES]
        lines.append(
            f"| {name} | {' | '.join(took)} | {case['taken']} | {r['median']:.2f} | {r['low']:.2f} to {r['high']:.2f} |"
        )
    versions = ", ".join(f"{package} {of}" for package, of in report["versions"].items())
    lines += [
        "",
        f"`{report['device']}`, {report['threads']} threads, {versions}, 224 pixels, n = {report['rounds']}, "
        f"{report['date']}. Times are medians of one batch; the last two are noise where auto took the fastest.",
    ]
    return "\n".join(lines)


@click.command()
@click.option("--net", "nets", multiple=True, default=("resnet18", "resnet50", "resnext50_32x4d"), show_default=True)
@click.option("--framework", "frameworks", multiple=True, default=("torch",), show_default=True)
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 8), show_default=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path))
def main(nets: tuple, frameworks: tuple, batches: tuple, rounds: int, file: Path | None) -> None:
    """Every case, one after another."""
    report = json.loads(file.read_text()) if file and file.exists() else {"cases": {}}
    for framework, net, dtype, batch in itertools.product(frameworks, nets, ("float32", "bfloat16"), batches):
        name = f"{framework}, {net}, {dtype}, batch {batch}"
        if name in report["cases"]:
            continue
        found = report["cases"][name] = measure(framework, net, batch, dtype, rounds)
        report |= {
            "date": until_today(report.get("date", "")), "device": processor(), "threads": cpus(), "rounds": rounds,
            "versions": {p: version(p) for p in ("torch", "keras", *DTYPES)},
        }  # fmt: skip
        times = ", ".join(f"{engine} {1e3 * s:.1f}" for engine, s in found["seconds"].items())
        r = found["auto_over_fastest"]
        CONSOLE.print(f"{name}: {times} ms; took {found['taken']}, {r['median']:.2f} of {found['fastest']}")
        if file:
            with atomic(file) as temporary:
                temporary.write_text(json.dumps(report, indent=1) + "\n")
            put("docs/performance.md", "engines", written(report))
        gc.collect()


if __name__ == "__main__":
    main()
