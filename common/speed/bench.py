"""Ours and the peers', timed in one run: each in a process of its own, in turns, ratios taken round by round.

The machine's speed drifts by more than what is to be measured. So all take their turn in every round, a ratio is that
of two turns of the same round, and the median of the rounds is quoted with its quartiles. Where those lie on both sides
of 1 the difference is called noise.
"""

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from common import weights
from common.arch import Arch, get
from common.checkpoints.export import export
from common.errors import RosettaError
from common.init import randomised
from common.parity.backends import BACKENDS, ROOT, environment_of
from common.speed import runners
from common.speed.contender import PEERS
from common.speed.sides import INFERENCE, TF32, Side, sides_of
from common.tools.memory import cpus, processor


@dataclass
class Measured:
    """What a side's turns gave."""

    side: Side
    images: int  # in a run
    rounds: list[float] = field(default_factory=list)  # median seconds of a run in each round
    built: float = 0.0  # seconds
    first: float = 0.0
    peak: int = 0  # bytes that its process had at most
    made: str = ""  # how `optimize` made it, in its words

    @property
    def seconds(self) -> float:
        return statistics.median(self.rounds)

    @property
    def per_second(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    def alike(self, other: "Measured") -> bool:
        """Whether both infer, or both train."""
        return (self.side.mode in INFERENCE) == (other.side.mode in INFERENCE)

    @property
    def multiply_adds_per_second(self) -> float:
        return self.side.multiply_adds * self.per_second


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one is as another: the rounds' median and quartiles."""

    median: float
    low: float
    high: float

    @property
    def noise(self) -> bool:
        """Whether the quartiles don't tell which is faster."""
        return self.low <= 1 <= self.high


@dataclass
class Result:
    """A benchmark."""

    name: str
    input: tuple[int, ...]
    device: str
    threads: int
    versions: dict[str, str]
    sides: list[Measured]
    products: dict[str, dict[str, float]]  # by dtype: multiply-adds a second of a matrix product, by what computes it
    rounds: int
    failed: dict[str, str] = field(default_factory=dict)  # sides that couldn't be built, and why

    def ratio(self, a: Measured, b: Measured) -> Ratio:
        """How many times as fast `a` is as `b`."""
        return ratio(a.rounds, b.rounds)

    def fraction(self, side: Measured) -> float | None:
        """Of what the machine's fastest product in that dtype makes a second."""
        best = max(self.products.get(side.side.dtype, {}).values(), default=0)
        return side.multiply_adds_per_second / best if best else None

    def base(self, side: Measured) -> Measured:
        """What a side's ratio is to: the first peer, or else the first of ours, that runs the same kind in the plain
        way; in float32 where there is that."""
        kind = "eager" if side.side.mode in INFERENCE else "train"
        same = [m for m in self.sides if m.alike(side)]
        return min(same, key=lambda m: (m.side.mode != kind, m.side.ours, m.side.dtype != "float32"))

    def to_json(self) -> dict[str, Any]:
        """What `rosetta bench --json` writes: times in seconds, memory in bytes."""
        rows = []
        for m in self.sides:
            others = [o for o in self.sides if m.side.ours and o is not m and o.alike(m)]
            ratios = {str(o.side): self.ratio(m, o) for o in others}
            rows.append(
                {**dataclasses.asdict(m.side), "seconds": m.seconds, "rounds": m.rounds,
                 "images_per_second": m.per_second, "multiply_adds_per_second": m.multiply_adds_per_second,
                 "fraction_of_product": self.fraction(m), "peak_bytes": m.peak, "built_seconds": m.built,
                 "first_seconds": m.first, "made": m.made,
                 "times_as_fast_as": {o: {**dataclasses.asdict(r), "noise": r.noise} for o, r in ratios.items()}}
            )  # fmt: skip
        about = {
            k: getattr(self, k)
            for k in ("name", "input", "device", "threads", "versions", "rounds", "products", "failed")
        }
        return {**about, "date": date.today().isoformat(), "sides": rows}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How many times as fast `ours` is, from the seconds of both in the same rounds."""
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(each), *quartiles(each))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return low, high


class Process:
    """One side, running."""

    def __init__(self, said: Mapping[str, Any], env: Mapping[str, str], threads: int):
        self.errors = tempfile.TemporaryFile()
        self.built: Any = None
        command = [sys.executable, "-m", "common.speed.contender", json.dumps(said)]
        pin = None
        if hasattr(os, "sched_setaffinity"):
            mine = set(sorted(os.sched_getaffinity(0))[:threads])
            pin = lambda: os.sched_setaffinity(0, mine)  # noqa: E731
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=dict(env), text=True,
            preexec_fn=pin,
        )  # fmt: skip
        self.what = f"{said.get('side', 'the product')}, {said.get('mode', '')}"

    def ready(self) -> Any:
        """What it says when it is built."""
        if self.built is None:
            try:
                self.built = self.answer()
            except RosettaError as e:
                self.built = e
        if isinstance(self.built, RosettaError):
            raise self.built
        return self.built

    def answer(self) -> Any:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            self.errors.seek(0)
            *_, said = self.errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise RosettaError(f"{self.what} ended with code {self.process.wait()}: {said}")
        found = json.loads(line)
        if "error" in found:
            raise RosettaError(f"{self.what}: {found['error']}")
        return found

    def run(self, times: int) -> dict[str, Any]:
        """Seconds of so many runs, after one that isn't counted, and the most memory until now."""
        with suppress(OSError):  # `answer` says what it died of
            self.process.stdin.write(f"{times}\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        return self.answer()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with suppress(OSError):  # what a process that died hadn't read
                stream.close()  # type: ignore[union-attr]


def environment_for(side: str, threads: int, device: str) -> dict[str, str]:
    """The environment of a process that runs `side`."""
    spec = side if side in BACKENDS else "keras:tensorflow" if side.startswith("keras") else "torch"
    n = str(threads)
    wanted = {"OMP_NUM_THREADS": n, "TF_NUM_INTRAOP_THREADS": n, "TF_NUM_INTEROP_THREADS": "1"}
    # as a user's process is: the rest of what backends.py settles is for its own processes
    own = ("MALLOC", "OMP", "GOMP", "JAX_ENABLE")
    wanted |= {k: v for k, v in environment_of(spec, device).items() if not k.startswith(own)}
    wanted["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, **wanted}


@contextmanager
def _files(arch: Arch, sides: Sequence[Side]) -> Iterator[dict[str, str]]:
    """The weights that all of ours have, and the graph that the peers get of them."""
    with tempfile.TemporaryDirectory() as folder:
        path, graph = os.path.join(folder, "net.safetensors"), os.path.join(folder, "net.onnx")
        weights.save(path, arch, randomised(arch))
        files = {"weights": path}
        if any(s.who in runners.DTYPES for s in sides):
            export(path, graph, "torch")
            files["graph"] = graph
        yield files


def bench(
    name: str,
    *,
    overrides: Mapping[str, Any] | None = None,
    backends: Sequence[str] = ("torch", "keras:tensorflow"),
    against: Sequence[str] = (),
    modes: Sequence[str] = INFERENCE,
    dtypes: Sequence[str] = ("float32",),
    engines: Sequence[str] | None = (runners.COMPILER,),
    batch: int = 8,
    size: int | None = None,
    threads: int | None = None,
    rounds: int = 9,
    device: str = "cpu",
    lenient: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Result:
    """Times the net `name` of both frameworks and of `against`, in turns.

    `modes` are of MODES, `dtypes` float32, bfloat16, float16, float64, and on a GPU tf32. `engines` are `optimize`'s,
    each a side of its own; None are those that are installed. `threads` are by default all that this process may use.
    Raises RosettaError for bad input, before anything starts, and where a side fails; with `lenient` they are all built
    at once, and the result says which of them failed.
    """
    arch = get(name, **(overrides or {}))
    axes = arch.input_shape(size)[1:]
    threads = cpus() if threads is None else threads
    if not 1 <= threads <= cpus():
        raise RosettaError(f"--threads {threads} can't be: this process may use 1 to {cpus()}")
    if device == "cpu" and TF32 in dtypes:
        raise RosettaError(f"{TF32} is how GPUs make products of float32: it needs --device gpu")
    if device == "gpu" and (cpu_only := [who for who in (*against, *(engines or ())) if who in runners.DTYPES]):
        raise RosettaError(f"{cpu_only[0]} runs on the CPU here: leave it out of --device gpu")
    engines = (runners.COMPILER,) if engines is None and device == "gpu" else engines
    sides = sides_of(name, arch, bool(overrides), backends, against, modes, dtypes, axes, engines)
    measured = [Measured(side, batch) for side in sides]
    running: list[Process] = []
    failed: dict[str, str] = {}
    card = ""
    with _files(arch, sides) as files:
        try:
            for m in measured:
                said = {
                    "side": m.side.who, "mode": m.side.mode, "dtype": m.side.dtype, "engine": m.side.engine,
                    "arch": arch.to_json(), "name": name, "input": (batch, arch.in_channels, *axes), "threads": threads,
                    "device": device, "files": files,
                }  # fmt: skip
                progress(f"building {m.side}")
                running.append(Process(said, environment_for(m.side.who, threads, device), threads))
                if device == "cpu" and not lenient:  # whose cores each needs for itself
                    running[-1].ready()
            for m, process in zip(measured, running, strict=True):
                progress(f"waiting for {m.side}")
                try:
                    found = process.ready()
                except RosettaError as e:
                    failed[str(m.side)] = str(e)
                    process.close()
                    if not lenient or len(failed) == len(measured):
                        raise
                    continue
                m.built, m.first, card = found["built"], found["first"], found["device"] or card
                m.made = found.get("made", "")
            taking = [i for i, m in enumerate(measured) if str(m.side) not in failed]
            measured, running = [measured[i] for i in taking], [running[i] for i in taking]
            times = [max(1, math.ceil(0.3 / max(p.run(1)["seconds"][0], 1e-4))) for p in running]
            for round_ in range(rounds):
                progress(f"round {round_ + 1} of {rounds}")
                order = list(range(len(running)))
                for i in order[round_ % len(order) :] + order[: round_ % len(order)]:
                    found = running[i].run(min(times[i], 50))
                    measured[i].rounds.append(statistics.median(found["seconds"]))
                    measured[i].peak = found["peak"]
        finally:
            for process in running:
                process.close()
    products: dict[str, dict[str, float]] = {dtype: {} for dtype in dtypes}
    for dtype, best in products.items():
        fastest = max((m.multiply_adds_per_second for m in measured if m.side.dtype == dtype), default=0.0)
        for _ in range(3):  # again where a net was faster than that: the machine was busy
            progress(f"a matrix product in {dtype}")
            process = Process({"product": dtype, "device": device}, environment_for("torch", threads, device), threads)
            try:
                best |= {k: max(v, best.get(k, 0.0)) for k, v in process.answer().items()}
            finally:
                process.close()
            if fastest <= max(best.values()):
                break
    shape = (batch, arch.in_channels, *axes)
    return Result(name, shape, card or processor(), threads, _versions(sides), measured, products, rounds, failed)


def _versions(sides: Sequence[Side]) -> dict[str, str]:
    names = ["torch", "keras", "tensorflow", "tensorflow-cpu", "jax", "numpy"]
    names += [p for p in PEERS if any(p in (s.who, s.engine) for s in sides)]
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
