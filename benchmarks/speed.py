"""Every ratio that docs/performance.md quotes, measured: ours against torchvision, timm,
keras.applications, ONNX Runtime and OpenVINO, as `rosetta bench` does it; and loading.

    PYTHONPATH=benchmarks python benchmarks/speed.py [--rounds 15] [--json FILE [--run "PyTorch, float32"]]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import click
from peers import CONSOLE, put
from rich.table import Table

from common import weights
from common.arch import get
from common.init import randomised
from common.speed.bench import Result, bench, ratio

INFER, TRAIN = ("eager", "optimised"), ("train", "train-optimised")
# {name: what `bench` is asked}
RUNS = {
    "PyTorch, float32": dict(
        name="resnet50", backends=("torch",), against=("torchvision", "timm", "onnxruntime"), modes=INFER,
        engines=("compiler", "auto"),
    ),
    "bfloat16": dict(
        name="resnet50", backends=("torch", "keras:tensorflow"), against=("torchvision", "openvino"),
        modes=("optimised",), dtypes=("bfloat16",), engines=("compiler", "auto"),
    ),
    "PyTorch, bfloat16 beside float32": dict(
        name="resnet50", backends=("torch",), against=("torchvision",), modes=INFER, dtypes=("float32", "bfloat16")
    ),
    "PyTorch, training": dict(name="resnet50", backends=("torch",), against=("torchvision", "timm"), modes=TRAIN),
    "Keras, float32": dict(
        name="resnet50_keras", backends=("keras:tensorflow",), against=("keras.applications",), modes=INFER,
        engines=("compiler", "auto"),
    ),
    "Keras, training": dict(
        name="resnet50_keras", backends=("keras:tensorflow",), against=("keras.applications",), modes=TRAIN
    ),
    "both, float32": dict(
        name="resnet50", against=("onnxruntime", "openvino"), modes=("optimised",), engines=("compiler", "auto")
    ),
    "ResNet-50 in Keras": dict(name="resnet50", backends=("keras:tensorflow",), modes=("eager", "train")),
    "ResNeXt-50 in Keras": dict(name="resnext50_32x4d", backends=("keras:tensorflow",), modes=("eager", "train")),
}  # fmt: skip
# (what, the run, ours, theirs, at least)
ASKED = [
    ("PyTorch eager", "PyTorch, float32", "torch, eager, float32", "torchvision, eager, float32", 0.98),
    ("PyTorch eager", "PyTorch, float32", "torch, eager, float32", "timm, eager, float32", 0.98),
    ("PyTorch plain training step", "PyTorch, training", "torch, train, float32", "torchvision, train, float32", 0.98),
    ("PyTorch plain training step", "PyTorch, training", "torch, train, float32", "timm, train, float32", 0.98),
    ("PyTorch optimised", "PyTorch, float32", "torch, optimised, float32", "torchvision, eager, float32", 1.75),
    ("PyTorch optimised", "PyTorch, float32", "torch, optimised, float32", "torchvision, optimised, float32", 1.0),
    ("PyTorch optimised, bfloat16", "PyTorch, bfloat16 beside float32", "torch, optimised, bfloat16",
     "torchvision, eager, float32", 3.0),
    ("PyTorch optimised", "both, float32", "torch, optimised, float32", "onnxruntime, optimised, float32", 1.0),
    ("Keras optimised", "both, float32", "keras:tensorflow, optimised, float32",
     "onnxruntime, optimised, float32", 1.0),
    ("PyTorch optimised, bfloat16", "bfloat16", "torch, optimised, bfloat16", "openvino, optimised, bfloat16", 1.0),
    ("Keras optimised, bfloat16", "bfloat16", "keras:tensorflow, optimised, bfloat16",
     "openvino, optimised, bfloat16", 1.0),
    *[
        ("optimised by auto", run, f"{ours}, optimised by auto, {dtype}", f"{theirs}, optimised, {dtype}", 1.0)
        for ours in ("torch", "keras:tensorflow")
        for run, dtype, theirs in (
            ("both, float32", "float32", "onnxruntime"), ("both, float32", "float32", "openvino"),
            ("bfloat16", "bfloat16", "openvino"),
        )
    ],
    *[
        ("optimised by auto", run, f"{ours}, optimised by auto, {dtype}", f"{theirs}, optimised, {dtype}", 1.0)
        for run, ours, dtype, theirs in (
            ("PyTorch, float32", "torch", "float32", "torchvision"), ("PyTorch, float32", "torch", "float32", "timm"),
            ("bfloat16", "torch", "bfloat16", "torchvision"),
            ("Keras, float32", "keras:tensorflow", "float32", "keras.applications"),
        )
    ],
    ("PyTorch Trainer step", "PyTorch, training", "torch, train-optimised, float32",
     "torchvision, train, float32", 1.25),
    ("Keras predict_on_batch", "Keras, float32", "keras:tensorflow, eager, float32",
     "keras.applications, eager, float32", 1.0),
    ("Keras optimised", "Keras, float32", "keras:tensorflow, optimised, float32",
     "keras.applications, optimised, float32", 1.2),
    ("Keras Trainer step", "Keras, training", "keras:tensorflow, train-optimised, float32",
     "keras.applications, train, float32", 1.05),
    ("Keras train_on_batch", "Keras, training", "keras:tensorflow, train, float32",
     "keras.applications, train, float32", 1.05),
]  # fmt: skip
_LOADING = """
import sys, time, torch, torch_impl
path, pth, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
there = torch_impl.create_model("resnet152", seed=0)
def existing():
    there.load_state_dict(torch.load(pth, mmap=True, weights_only=True))
def built():
    torch_impl.create_model("resnet152", seed=0).load_state_dict(torch.load(pth, mmap=True, weights_only=True))
def ours():
    torch_impl.load(path)
def into():
    torch_impl.load(path, into=there)
sides = (ours, built, into, existing)
seconds = {f.__name__: [] for f in sides}
for _ in range(rounds + 1):
    for f in sides:
        start = time.perf_counter()
        f()
        seconds[f.__name__].append(time.perf_counter() - start)
import json
print(json.dumps({k: v[1:] for k, v in seconds.items()}))
"""


def loading(rounds: int) -> dict:
    """ResNet-152's safetensors by `torch_impl.load`, which checks the file, against `torch.load` of the same weights,
    mapped, and `load_state_dict`: into a net that is there, and into one that is built."""
    with tempfile.TemporaryDirectory() as folder:
        path, pth = f"{folder}/net.safetensors", f"{folder}/net.pth"
        arch = get("resnet152")
        weights.save(path, arch, randomised(arch))
        make = f"import torch, torch_impl; torch.save(torch_impl.load({path!r}).state_dict(), {pth!r})"
        subprocess.run([sys.executable, "-c", make], check=True)
        command = [sys.executable, "-c", _LOADING, path, pth, str(rounds)]
        seconds = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = {"seconds": {k: statistics.median(v) for k, v in seconds.items()}}
    for what, ours, theirs in (
        ("both into a net that is there", "into", "existing"), ("both build it", "ours", "built"),
        ("ours builds it", "ours", "existing"),
    ):  # fmt: skip
        r = ratio(seconds[ours], seconds[theirs])
        found[what] = {**vars(r), "noise": r.noise}
    return found


def one(results: dict[str, Result], run: str, ours: str, theirs: str):
    """(ratio, the sides) of two sides of a run."""
    by = {str(m.side): m for m in results[run].sides}
    return results[run].ratio(by[ours], by[theirs]), by[ours], by[theirs]


def resnext(results: dict[str, Result]) -> dict[str, float]:
    """How many times as long a multiply-add takes in ResNeXt-50 as in ResNet-50, in Keras."""
    found = {}
    for mode in ("eager", "train"):
        plain, grouped = (
            next(m for m in results[f"{net} in Keras"].sides if m.side.mode == mode)
            for net in ("ResNet-50", "ResNeXt-50")
        )
        found[mode] = plain.multiply_adds_per_second / grouped.multiply_adds_per_second
    return found


def written(report: dict) -> str:
    """The ratios as Markdown."""
    lines = [
        "| ours | against | aim | times as fast | quartiles | peak MiB, ours | theirs |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for r in report["asked"]:
        said = f"{r['median']:.2f}" + (" (noise)" if r["noise"] else "")
        lines.append(
            f"| {r['ours']} | {r['theirs']} | {r['asked']} | {said} | {r['low']:.2f} to {r['high']:.2f} | "
            f"{r['peak_mib']:.0f} | {r['their_peak_mib']:.0f} |"
        )
    grouped, seconds = report["resnext_over_resnet"], report["loading"]["seconds"]
    there, built, _ = (v["median"] for k, v in report["loading"].items() if k != "seconds")
    lines += [
        "",
        f"`{report['device']}`, ResNet-50 (`resnet50_keras` against keras.applications), batch {report['batch']}, 224 "
        f"pixels, n = {report['rounds']}, {report['date']}. A multiply-add of ResNeXt-50 in Keras takes "
        f"{grouped['eager']:.2f} times as long as one of ResNet-50 (aim: at most 2), in training "
        f"{grouped['train']:.2f} times. `torch_impl.load` of ResNet-152's safetensors, which checks the file, takes "
        f"{seconds['into']:.3f} s into a net that is there, {there:.2f} times as fast as `torch.load(mmap=True)` with "
        f"`load_state_dict` (aim: 1); with building the net {seconds['ours']:.2f} s, {built:.1f} times as fast as "
        "those two with building it.",
    ]
    return "\n".join(lines)


@click.command()
@click.option("--rounds", default=15, show_default=True)
@click.option("--batch", default=8, show_default=True)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False), help="Write the figures, and docs/performance.md's table."
)
@click.option(
    "--run", "only", multiple=True, type=click.Choice(list(RUNS)), help="This one alone, in the file of --json."
)
def main(rounds: int, batch: int, file: str | None, only: tuple[str, ...]) -> None:
    """All runs, one after another: half an hour on two cores. --json fills docs/performance.md's table, too."""
    begin, results = time.perf_counter(), {}
    if only and not file:
        raise click.UsageError("--run wants --json: the file whose other runs are kept")
    before = json.loads(Path(file).read_text()) if only and file else {}
    how = {"date": date.today().isoformat(), "rounds": rounds, "batch": batch}
    if before and how != {k: before[k] for k in how}:  # the page says one date and one n of all
        raise click.UsageError(f"--run wants what {file} has: {', '.join(f'{k} {before[k]}' for k in how)}")
    for what in only or RUNS:
        CONSOLE.print(f"{what} ...")
        results[what] = bench(**RUNS[what], rounds=rounds, batch=batch)
    table = Table("ours", "against", "asked", "times as fast", "quartiles", "peak MiB, ours", "theirs", box=None)
    rows = []
    for what, run, ours, theirs, least in ASKED:
        if run not in results:
            rows += [r for r in before["asked"] if (r["run"], r["ours"], r["theirs"]) == (run, ours, theirs)]
            continue
        r, a, b = one(results, run, ours, theirs)
        rows.append({"ours": ours, "theirs": theirs, "run": run, "asked": least, **vars(r), "noise": r.noise,
                     "peak_mib": a.peak / 2**20, "their_peak_mib": b.peak / 2**20})  # fmt: skip
        table.add_row(what, theirs, f"{least}", f"{r.median:.2f}", f"{r.low:.2f} to {r.high:.2f}",
                      f"{a.peak / 2**20:.0f}", f"{b.peak / 2**20:.0f}")  # fmt: skip
    loaded, grouped = (
        (before["loading"], before["resnext_over_resnet"]) if only else (loading(rounds), resnext(results))
    )
    CONSOLE.print(table)
    CONSOLE.print(f"ResNeXt-50 in Keras, a multiply-add's time over ResNet-50's: {grouped}")
    CONSOLE.print(f"loading ResNet-152: {json.dumps(loaded, indent=1)}")
    first = next(iter(results.values()))
    CONSOLE.print(f"{first.device}; batch {batch}; n = {rounds}; {time.perf_counter() - begin:.0f} s")
    if file:
        report = {**how, "device": first.device, "asked": rows, "loading": loaded, "resnext_over_resnet": grouped,
                  "runs": before.get("runs", {}) | {what: r.to_json() for what, r in results.items()}}  # fmt: skip
        Path(file).write_text(json.dumps(report, indent=1) + "\n")
        put("docs/performance.md", "ratios", written(report))


if __name__ == "__main__":
    main()
