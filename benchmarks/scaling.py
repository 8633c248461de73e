"""How cost grows: with batch, depth, width and image size, in both frameworks.

python benchmarks/scaling.py [--json benchmarks/results/scaling-cpu.json] [--plot docs/scaling.png]

Inference as a net is built (Keras: predict_on_batch on TensorFlow), one process a point, alone on the machine.
"""

import json
import statistics
import tempfile
from datetime import date
from pathlib import Path

import click
from peers import CONSOLE
from rich.progress import track

from common import weights
from common.arch import get
from common.init import randomised
from common.names import multiply_adds
from common.speed.bench import Process, environment_for
from common.tools.figures import figure
from common.tools.memory import cpus, processor

# {what grows: (its points, the net at a point, its batch, its size)}
GROWTH = {
    "batch": ((1, 2, 4, 8, 16, 32, 64), lambda n: get("resnet50"), lambda n: n, lambda n: 224),
    "depth": ((20, 32, 44, 56, 110, 1202), lambda n: get(f"cifar_resnet{n}"), lambda n: 16, lambda n: 32),
    "width": (
        (1, 2, 4, 8, 16),
        lambda n: get("cifar_wrn16_8", widths=(16 * n, 32 * n, 64 * n)),
        lambda n: 16,
        lambda n: 32,
    ),
    "pixels": ((64, 96, 128, 224, 320, 448), lambda n: get("resnet50"), lambda n: 4, lambda n: n),
}
NETS = {
    "batch": "ResNet-50, 224 pixels",
    "depth": "CIFAR ResNets, batch 16",
    "width": "WRN-16-k, batch 16",
    "pixels": "ResNet-50, batch 4",
}
SIDES = {"torch": "torch_impl", "keras:tensorflow": "keras_impl on TensorFlow"}
COLOURS = {"torch": "#1f5fa8", "keras:tensorflow": "#c2571a"}


def point(side: str, arch, batch: int, size: int, runs: int) -> dict[str, float]:
    """Milliseconds an image, seconds to build and for the first run, and MiB, of one net."""
    threads = cpus()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "net.safetensors")
        weights.save(file, arch, randomised(arch))
        said = {
            "side": side, "mode": "eager", "dtype": "float32", "arch": arch.to_json(), "name": "",
            "input": (batch, arch.in_channels, size, size), "threads": threads,
            "device": "cpu", "files": {"weights": file},
        }  # fmt: skip
        process = Process(said, environment_for(side, threads, "cpu"), threads)
        try:
            built, found = process.answer(), process.run(runs)
        finally:
            process.close()
    ms = 1e3 * statistics.median(found["seconds"]) / batch
    return {
        "ms_per_image": ms, "gigamacs_per_image": multiply_adds(arch, size) / 1e9, "built_s": built["built"],
        "first_s": built["first"], "peak_mib": found["peak"] / 2**20,
    }  # fmt: skip


def draw(report: dict, path: str) -> None:
    """Milliseconds an image beside what multiply-adds alone would make of the first point."""
    with figure(path, 2, 2, (11, 8)) as (fig, axes):
        fig.suptitle("Milliseconds an image: how cost grows", x=0.01, ha="left", fontsize=16, fontweight="bold")
        for ax, (what, of) in zip(axes.flat, report["growth"].items(), strict=True):
            for side, points in of.items():
                xs = [int(x) for x in points]
                ax.plot(xs, [p["ms_per_image"] for p in points.values()], "o-", color=COLOURS[side], label=SIDES[side])
            # through the fastest a multiply-add of either: what would be, were every one as cheap
            every = [p for ps in of.values() for p in ps.values()]
            best = min(p["ms_per_image"] / p["gigamacs_per_image"] for p in every)
            ax.plot(xs, [best * p["gigamacs_per_image"] for p in points.values()], "--", color="#9aa1ab",
                    label="multiply-adds at the best rate")  # fmt: skip
            ax.set_title(f"{what}: {NETS[what]}", loc="left", fontsize=11)
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.set_xticks(xs, [str(x) for x in xs])
            ax.minorticks_off()
            low, high = ax.get_ylim()
            ticks = [t * 10**e for e in range(-3, 5) for t in (1, 2, 5) if low <= t * 10**e <= high]
            ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
            ax.grid(axis="y", color="#e4e7eb")
            ax.spines[["top", "right"]].set_visible(False)
            ax.legend(frameon=False, fontsize=9)
        fig.supxlabel(f"{report['device']}, {report['date']}, medians of {report['runs']} runs, inference as built",
                      fontsize=9, color="#5b6470", x=0.01, ha="left")  # fmt: skip


@click.command()
@click.option("--runs", default=5, show_default=True, help="Of a point.")
@click.option("--json", "file", type=click.Path(dir_okay=False), help="Write the figures.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw them.")
def main(runs: int, file: str | None, plot: str | None) -> None:
    """Both frameworks over every growth."""
    report = {"device": processor(), "date": date.today().isoformat(), "runs": runs, "growth": {}}
    for what, (points, net, batch, size) in GROWTH.items():
        found = report["growth"][what] = {side: {} for side in SIDES}
        for n in track(points, what, console=CONSOLE, transient=True):
            for side in SIDES:
                found[side][n] = p = point(side, net(n), batch(n), size(n), runs)
                CONSOLE.print(
                    f"{what} {n}, {side}: {p['ms_per_image']:.2f} ms an image, "
                    f"{p['ms_per_image'] / p['gigamacs_per_image']:.2f} ms a billion multiply-adds, built in "
                    f"{p['built_s']:.1f} s, first {p['first_s']:.1f} s, {p['peak_mib']:.0f} MiB"
                )
    if file:
        Path(file).write_text(json.dumps(report, indent=1) + "\n")
    if plot:
        draw(json.loads(json.dumps(report)), plot)


if __name__ == "__main__":
    main()
