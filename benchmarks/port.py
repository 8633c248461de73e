"""How long porting a ResNet-50 takes and how much memory, whole commands, in one run.

    python benchmarks/port.py [--rounds 7] [--json benchmarks/results/port-cpu.json]

Beside: `cp` with starting Python and numpy, which no porter can beat, and KerasHub's converter of timm's checkpoints,
which people use to get one into Keras. Each run is a process; they take turns; medians.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from peers import processor
from rich.console import Console
from rich.table import Table

from common.arch import get
from common.checkpoints import writers
from common.init import randomised

ROOT = Path(__file__).parent.parent
SOURCES = {"timm/model.safetensors": "timm", "torchvision.pth": "torchvision"}
PEER = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras_hub
model = keras_hub.models.ImageClassifier.from_preset(sys.argv[1], load_weights=True)
model.save_weights(sys.argv[2])
"""


def run(command: list[object], environment: dict[str, str]) -> tuple[float, int]:
    """(seconds, bytes of the peak of memory) of a process."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=ROOT
    )
    said = process.stderr.read().decode() if process.stderr else ""
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {status}: {said[-500:]}")
    return time.perf_counter() - began, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def make(here: Path) -> None:
    """The checkpoints, in a process that ends: a child's peak of memory is at least its parent's."""
    arch = get("resnet50")
    weights = randomised(arch)
    for name, library in SOURCES.items():
        writers.write(here / name, writers.target_of(here / name, library, arch), arch, weights)


@click.command()
@click.option("--make", "folder", type=click.Path(path_type=Path), hidden=True)
@click.option("--rounds", default=7, help="Of each run, after one to warm up.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the results here.")
def main(folder: Path | None, rounds: int, file: Path | None) -> None:
    """Times the commands and prints a table."""
    if folder:
        make(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        (here / "timm").mkdir()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, __file__, "--make", here], check=True, env=environment)
        config = {
            "architecture": "resnet50", "num_classes": 1000,
            "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_size": [3, 224, 224],
                               "crop_pct": 0.95, "interpolation": "bicubic", "classifier": "fc"},
        }  # fmt: skip
        (here / "timm" / "config.json").write_text(json.dumps(config))
        size = (here / "timm" / "model.safetensors").stat().st_size

        port = [sys.executable, "-m", "common.cli", "port", "--no-probe", "--force"]
        timm, torchvision = here / "timm" / "model.safetensors", here / "torchvision.pth"
        (here / "peer.py").write_text(PEER)
        runs: dict[str, list[list[object]]] = {
            "cp, and Python with numpy": [["cp", timm, here / "a"], [sys.executable, "-c", "import numpy"]],
            "timm .safetensors to ours": [[*port, timm, here / "b.safetensors"]],
            "torchvision .pth to ours .safetensors": [[*port, torchvision, here / "c.safetensors"]],
            "timm .safetensors to Keras .weights.h5": [[*port, timm, here / "d.weights.h5"]],
            "torchvision .pth to Keras .weights.h5": [[*port, torchvision, here / "e.weights.h5"]],
            "timm .safetensors to KerasHub .weights.h5": [[*port, timm, here / "f.weights.h5", "--as", "keras-hub"]],
            "the same by KerasHub": [[sys.executable, here / "peer.py", here / "timm", here / "g.weights.h5"]],
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        memory: dict[str, int] = dict.fromkeys(runs, 0)
        for i in range(rounds + 1):
            for name, commands in runs.items():
                took = [run(command, environment) for command in commands]
                if i:
                    seconds[name].append(sum(t for t, _ in took))
                    memory[name] = max(memory[name], *(m for _, m in took))
    least = statistics.median(seconds["cp, and Python with numpy"])
    packages = {}
    for package in ("torch", "keras", "tensorflow-cpu", "keras-hub", "numpy", "safetensors", "h5py"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "absent"
    report = {
        "device": processor(), "versions": packages, "date": date.today().isoformat(), "rounds": rounds,
        "net": "resnet50, float32", "file": size,
        "runs": {
            name: {
                "seconds": statistics.median(each), "quartiles": statistics.quantiles(each, n=4)[::2],
                "of_cp_and_python": statistics.median(each) / least, "peak": memory[name],
                "peak_of_file": memory[name] / size,
            }
            for name, each in seconds.items()
        },
    }  # fmt: skip
    table = Table(title=f"resnet50, {size:,} bytes; {report['device']}; medians of {rounds}")
    for head in ("", "seconds", "of cp and Python", "peak MiB", "of the file"):
        table.add_column(head, justify="right" if head else "left")
    for name, r in report["runs"].items():
        table.add_row(
            name, f"{r['seconds']:.2f}", f"{r['of_cp_and_python']:.1f}", f"{r['peak'] / 2**20:.0f}",
            f"{r['peak_of_file']:.1f}",
        )  # fmt: skip
    Console().print(table)
    if file:
        file.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
