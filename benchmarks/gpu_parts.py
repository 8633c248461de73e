"""What benchmarks/gpu.py finds out, part by part, in the order of its worth."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import atlas

from common.arch import VARIANTS
from common.errors import RosettaError
from common.parity.backends import Elsewhere
from common.parity.checks import CHECKS
from common.parity.engines import versions
from common.speed.bench import bench
from common.speed.contender import matrix_product
from common.speed.sides import COSTS, INFERENCE, TF32, holds
from common.tools.memory import processor

ROOT = Path(__file__).parent.parent
GPU_TESTS = "tests/speed/test_on_a_gpu.py"  # the file that has all tests of a GPU
TRAINING = tuple(mode for mode in COSTS if mode not in INFERENCE)
PEERS = ("torchvision", "timm")
NETS = ("resnet50", "resnet18", "resnet152", "resnext50_32x4d", "wide_resnet50_2")


@dataclass(frozen=True)
class Place:
    """Where it runs and writes: a rehearsal on the CPU, beside the project's own results."""

    rehearsal: bool
    root: Path = ROOT
    data: str | None = None

    @property
    def device(self) -> str:
        return "cpu" if self.rehearsal else "gpu"

    @property
    def about(self) -> dict[str, str]:
        """PyTorch and the card: what was measured of others is not of this machine."""
        return versions("torch", self.device, default=False)

    def file(self, folder: str, stem: str, suffix: str) -> Path:
        """docs/atlas-gpu.json; of a rehearsal build/gpu-rehearsal/atlas-gpu-rehearsal.json."""
        if self.rehearsal:
            return self.root / "build" / "gpu-rehearsal" / f"{stem}-gpu-rehearsal{suffix}"
        return self.root / folder / f"{stem}-gpu{suffix}"

    def results(self, stem: str) -> Path:
        return self.file("docs" if stem == "atlas" else "benchmarks/results", stem, ".json")


@dataclass(frozen=True)
class Part:
    """Something to find out, in a process of its own."""

    name: str
    stem: str  # of its results file, in which it has its place by name
    run: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    most: int = 240  # seconds, after which it is taken for hung

    def done(self, place: Place) -> bool:
        found = atlas.load(place.results(self.stem), place.rehearsal)
        if self.run is not parity:
            return found.get("parts", {}).get(self.name, {}).get("on") == place.about
        rows = [found.get("variants", {}).get(name, {}) for name in self.arguments["names"]]  # written by variant
        return all(row and all(r["versions"]["torch"] == place.about for r in row.values()) for row in rows)


def device(place: Place) -> dict[str, Any]:
    """The card, its driver and memory, what is installed, the machine's fastest products, and a copy's bytes."""
    import torch

    about = versions("torch", place.device)
    found: dict[str, Any] = {"name": about.pop("device"), "processor": processor(), "versions": about}
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        found["driver, memory, clock, power"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    except OSError:
        found["driver, memory, clock, power"] = "nvidia-smi isn't there"
    for package in ("jax", "keras", "tensorflow", "torchvision", "timm", "triton", "numpy"):
        if importlib.util.find_spec(package):
            found["versions"] |= {package: _version(package)}
    found["products"] = {d: matrix_product(d, place.device) for d in ("float32", "bfloat16")}
    found["engines"], found["without"] = found_engines(place)
    found["without"] |= {p: "it isn't installed" for p in PEERS if not importlib.util.find_spec(p)}
    kind = "cpu" if place.rehearsal else "cuda"
    a = torch.empty(2**26 if place.rehearsal else 2**32, dtype=torch.uint8, device=kind)
    b = torch.empty_like(a)

    def copied() -> float:
        begin = time.perf_counter()
        b.copy_(a)
        if kind == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    found["bytes a second, read and written"] = 2 * a.numel() / min(copied() for _ in range(5))
    return found


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def engines(place: Place) -> tuple[list[str], dict[str, str]]:
    """Keras' engines that find a GPU here, and why others don't: as the first part found it."""
    about = atlas.load(place.results("device"), place.rehearsal).get("parts", {}).get("device")
    return (about["engines"], about["without"]) if about else found_engines(place)


def found_engines(place: Place) -> tuple[list[str], dict[str, str]]:
    asked: dict[str, Elsewhere | str] = {}
    for spec in ("keras:jax", "keras:torch") if place.rehearsal else atlas.ENGINES:
        try:
            asked[spec] = Elsewhere(spec, place.device)  # all import at once
        except RosettaError as e:
            asked[spec] = str(e)
    for spec, backend in asked.items():
        if not isinstance(backend, str):
            try:
                backend.versions()
            except RosettaError as e:
                asked[spec] = str(e)
            finally:
                backend.close()
    without = {spec: why for spec, why in asked.items() if isinstance(why, str)}
    return [spec for spec in asked if spec not in without], without


def parity(place: Place, names: Sequence[str]) -> None:
    """PyTorch against every engine of Keras that finds the GPU: all checks in float64 and, beside its floor, float32;
    counts, and weights to the bit after they were on the device. Into the atlas, variant by variant."""
    others, without = engines(place)
    if not others:
        raise RosettaError(f"no engine of Keras is here: {'; '.join(without.values())}")
    results = place.results("atlas")
    report = atlas.load(results, place.rehearsal) | {"without": without}
    failed = atlas.fill(
        report, results, place.device, names, tuple(others), lambda what, left: print(what, flush=True), tuple(CHECKS)
    )
    page = atlas.page(report, atlas.ENGINES, "gpu")
    place.file("docs", "atlas", ".md").write_text(page)
    failed += [f"more than rounding: {run}" for run in atlas.not_rounding(report)]
    if failed:
        raise RosettaError("; ".join(failed))


def tests(place: Place) -> dict[str, Any]:
    """`pytest -m gpu`: how many passed. Raises RosettaError with the names of those that didn't."""
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder, "tests.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={xml}"]
        done = subprocess.run([*command, GPU_TESTS], cwd=ROOT, capture_output=True, text=True)
        if not xml.exists():
            raise RosettaError(f"pytest ended with code {done.returncode}: {(done.stderr or done.stdout)[-600:]}")
        cases = list(ElementTree.parse(xml).iter("testcase"))
    said: dict[str, list[str]] = {"passed": [], "skipped": [], "failed": []}
    for case in cases:
        kinds = {child.tag: child for child in case}
        kind = "failed" if {"failure", "error"} & kinds.keys() else "skipped" if "skipped" in kinds else "passed"
        said[kind].append(str(case.get("name")))
    if said["failed"] or (not said["passed"] and not place.rehearsal):
        raise RosettaError(f"failed: {', '.join(said['failed']) or 'none'}; skipped: {', '.join(said['skipped'])}")
    return said


def speed(
    place: Place, net: str, dtype: str, modes: Sequence[str], batch: int, peers: Sequence[str] = PEERS
) -> dict[str, Any]:
    """Ours on both frameworks against torchvision and timm, channels last and compiled, in turns."""
    peers = peers if importlib.util.find_spec("torchvision") else ()
    peers = [p for p in peers if importlib.util.find_spec(p) and holds(p, net)]
    there, without = engines(place)
    backends = ["torch", *(b for b in there if b != "keras:torch")][: 2 if place.rehearsal else None]
    asked: dict[str, Any] = dict(size=33, rounds=2) if place.rehearsal else dict(rounds=7)
    if place.rehearsal:  # which is not of compilers
        os.environ["TORCH_COMPILE_DISABLE"] = "1"
    found = bench(
        net, backends=backends, against=peers, modes=modes, dtypes=(dtype,), batch=batch, device=place.device,
        lenient=True, progress=lambda step: print(step, flush=True), **asked,
    )  # fmt: skip
    return found.to_json() | {"without": without}


def training(place: Place, net: str, steps: int) -> dict[str, Any]:
    """The same training in both frameworks, from one start, on the same batches; the two curves."""
    from common.training import race as racing
    from common.training import recipe as recipes
    from common.training import run as runs

    note = ""
    try:
        run, data = runs.plan(net, "fashion-mnist", recipes.get("small"), data_dir=place.data)
    except RosettaError as e:
        note = f"on digits: {e}"
        run, data = runs.plan(net, "digits", recipes.get("small"))
    there, without = engines(place)
    backends = ["torch", *there][: 2 if place.rehearsal else None]
    found = racing.race(run, data, backends, steps, device=place.device, progress=lambda s: print(s, flush=True))
    picture = place.file("docs", "race", ".png")
    if importlib.util.find_spec("matplotlib"):
        racing.draw(picture, found)
    else:
        note = "; ".join(filter(None, [note, "the curves aren't drawn: matplotlib isn't here"]))
    return found.to_json() | {"note": note, "without": without, "picture": picture.name}


def parts(place: Place) -> list[Part]:
    """All of them, the most worth first."""
    smallest = sorted(atlas.SMALLEST, key=list(VARIANTS).index)
    if place.rehearsal:
        small = dict(net="resnet18", batch=2, dtype="float32")
        return [
            Part("device", "device", device),
            Part("parity, begun", "atlas", parity, {"names": ["cifar_resnet20"]}),
            Part("inference", "speed", speed, small | dict(modes=INFERENCE[1:], peers=PEERS[:1])),
            Part("step", "speed", speed, small | dict(modes=TRAINING[:1], peers=PEERS[1:])),
            Part("tests", "tests", tests),
            Part("training", "race", training, {"net": "cifar_resnet20", "steps": 2}),
        ]

    def timed(net: str, kind: str, dtypes: Sequence[str], batch: int = 64) -> list[Part]:
        modes = INFERENCE if kind == "inference" else TRAINING
        if modes == TRAINING and atlas.large(net):  # all sides are in the card's memory at once
            batch //= 2
        size = f" of {batch}" if batch != 64 else ""
        return [
            Part(f"{net}, {kind}{size}, {d}", "speed", speed, dict(net=net, dtype=d, modes=modes, batch=batch))
            for d in dtypes
        ]

    return [
        Part("device", "device", device, most=90),
        Part("parity, begun", "atlas", parity, {"names": smallest[:4]}),
        *timed("resnet50", "inference", ("bfloat16", TF32, "float32")),
        *timed("resnet50", "training", ("bfloat16", TF32)),
        Part("training", "race", training, {"net": "cifar_resnet20", "steps": 400}),
        Part("parity, every family", "atlas", parity, {"names": smallest}, most=600),
        Part("tests", "tests", tests, most=600),
        *(part for net in NETS[1:] for part in timed(net, "inference", ("bfloat16",))),
        *timed("resnet50", "training", ("float32",)),
        *timed("resnet50", "inference", ("bfloat16",), batch=1),
        *(part for net in NETS[1:] for part in timed(net, "inference", (TF32, "float32"))),
        *(part for net in NETS[1:] for part in timed(net, "training", ("bfloat16", TF32))),
        Part("parity, every variant", "atlas", parity, {"names": list(VARIANTS)}, most=3600),
    ]
