"""What can run a net: each framework, on each engine, in a process of its own.

A process, because Keras chooses its engine once, because TensorFlow and PyTorch get in each other's threads, and
because a comparison must not share what it compares.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from common.errors import RosettaError, hint
from common.parity.checks import Item, Job
from common.parity.graphs import NEEDS
from common.tools.frameworks import require
from common.tools.memory import MALLOC, keep_memory

# spec: the packages that it needs, and the extra of ours that brings them
BACKENDS = {
    "torch": (("torch",), "torch"),
    "keras:tensorflow": (("keras", "tensorflow"), "keras"),
    "keras:jax": (("keras", "jax"), "jax"),
    "keras:torch": (("keras", "torch"), "keras,torch"),
    "onnx:torch": (("torch", *NEEDS["torch"]), "torch,onnx"),
    "onnx:keras": (("keras", "tensorflow", *NEEDS["keras"]), "keras,onnx"),
}


def check_spec(spec: str, device: str = "cpu") -> str:
    """The backend's full name. Raises RosettaError for an unknown one, and for one whose packages aren't installed,
    with what to install."""
    spec = {"keras": "keras:tensorflow"}.get(spec, spec)
    if spec not in BACKENDS:
        raise RosettaError(f"unknown backend {spec!r}{hint(spec, BACKENDS)}")
    packages, extra = BACKENDS[spec]
    require(f"the backend {spec}", packages, extra)
    if device == "gpu" and spec.startswith("onnx"):
        raise RosettaError(f"the backend {spec} has no --device gpu: the referees run on the CPU")
    return spec


def device_of(spec: str, device: str) -> str:
    """ "cpu", "gpu" or "auto", which is the CPU for what runs on nothing else."""
    return "cpu" if device == "auto" and spec.startswith("onnx") else device


class Task(Protocol):
    """What a backend can be asked: something to put through its implementation."""

    def through(self, impl: Any) -> Iterator[Item]: ...


class Here:
    """A backend in this process: for tests, and for `worker.py`."""

    def __init__(self, spec: str, device: str = "cpu"):
        self.spec = check_spec(spec, device)
        self.device = device_of(self.spec, device)

    def versions(self) -> dict[str, str]:
        """Names and versions of what runs the net, the device last."""
        from common.parity.engines import versions

        return versions(self.spec, self.device)

    def run(self, job: Task) -> Iterator[Item]:
        """The items of `job`, as they come."""
        from common.parity.engines import implementation

        if self.spec.startswith("onnx") and isinstance(job, Job):
            from common.parity.graphs import run_job

            return run_job(self.spec, job)
        return job.through(implementation(self.spec))


class Elsewhere:
    """A backend in a process of its own, that stays for many jobs. Several jobs can run in turns."""

    def __init__(self, spec: str, device: str = "cpu", environment: Mapping[str, str] | None = None):
        self.spec = check_spec(spec, device)
        self.device = device = device_of(self.spec, device)
        keep_memory()
        self._errors = tempfile.TemporaryFile()
        self._replies: dict[int, deque] = {}
        environment = {**os.environ, **environment_of(self.spec, device), **(environment or {})}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "common.parity.worker", self.spec, device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment,
        )  # fmt: skip
        with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux: fewer turns between the two processes
            import fcntl

            for pipe in (self._process.stdin, self._process.stdout):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 2**20)  # type: ignore[arg-type]
        self._ask(0, "versions", None)

    def versions(self) -> dict[str, str]:
        """As Here's; waits until the framework is imported."""
        if not hasattr(self, "_versions"):
            self._versions = self._answer(0)
        return self._versions

    def run(self, job: Task) -> Iterator[Item]:
        """As Here's. The process is always one item ahead, so that it works while this one compares."""
        self.versions()
        key = max(self._replies) + 1
        self._ask(key, "run", job)
        return self._items(key)

    def _items(self, key: int) -> Iterator[Item]:
        while (item := self._answer(key)) is not None:
            self._ask(key, "next", None)
            yield item

    def _ask(self, key: int, what: str, argument: Any) -> None:
        self._replies.setdefault(key, deque())
        try:
            pickle.dump((key, what, argument), self._process.stdin, protocol=5)  # type: ignore[arg-type]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except (BrokenPipeError, OSError):
            self._died()

    def _answer(self, key: int) -> Any:
        while not self._replies[key]:
            try:
                for_whom, kind, value = pickle.load(self._process.stdout)  # type: ignore[arg-type]
            except (EOFError, pickle.UnpicklingError):
                self._died()
            if kind == "error":
                raise RosettaError(value)
            self._replies[for_whom].append(value)
        return self._replies[key].popleft()

    def _died(self) -> None:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code} (9 means out of memory)" if code < 0 else f"ended with code {code}"
        raise BackendDied(f"the process of {self.spec} {how}: {said[-1] if said else 'it said nothing'}")

    def memory(self) -> int:
        """How many bytes the process holds; 0 where the system doesn't say."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


class BackendDied(RosettaError):
    """A process ended in the middle."""


ROOT = str(Path(__file__).parent.parent.parent)
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


def environment_of(spec: str, device: str) -> dict[str, str]:
    """What has to be settled before a framework is imported."""
    wanted = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_ENABLE_X64": "1"}
    wanted |= {f"MALLOC_{name}_": str(value) for name, (_, value) in MALLOC.items()}
    wanted |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}  # no spinning while another process has work
    if spec.startswith("keras:"):
        wanted["KERAS_BACKEND"] = spec.split(":")[1]
    elif spec == "onnx:keras":
        wanted["KERAS_BACKEND"] = "tensorflow"
    if device == "cpu":
        wanted |= NO_GPU
    else:  # JAX would take three quarters of the memory from the process beside it
        wanted |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return wanted


@contextlib.contextmanager
def started(specs: Sequence[str], device: str = "cpu") -> Iterator[list[Elsewhere]]:
    """A process for each spec, all importing at once; they end with the block.

    Raises RosettaError, before any starts, for a spec that is unknown, not installed, or given twice.
    """
    names = [check_spec(spec, device) for spec in specs]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or len(names) < 2:
        raise RosettaError(f"--backends needs at least two different ones; got {', '.join(names) or 'none'}")
    running: list[Elsewhere] = []
    try:
        for name in names:
            running.append(Elsewhere(name, device))
        yield running
    finally:
        for backend in running:
            backend.close()
