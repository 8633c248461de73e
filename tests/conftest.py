"""What all tests share: one thread a worker, the referees, and the data of others."""

import os

# before any framework is imported: two workers with a thread pool each for every core get in each other's way
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# of the workers, which start after this: a net's arrays go back to the system with the net, where glibc would keep them
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")  # else TensorFlow keeps what its largest net needed

import contextlib
import gc
import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest

import common.tools.memory

common.tools.memory.keep_memory = lambda: (
    None
)  # of a worker that outlives its nets: it would keep what it needed at its most

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_finish(session):
    """What the frameworks keep for good isn't searched for garbage again and again: that was a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def referees():
    """(torchvision.models, timm). Their compiled operators ask for a CUDA build of PyTorch, and no ResNet needs
    them."""
    from common.tools.frameworks import peer

    for package in ("torchvision", "timm"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return peer("torchvision").models, peer("timm")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of third-party data beside a developer's checkout; users have none."""
    if not SHARED.is_dir():
        pytest.skip(f"no third-party data at {SHARED}")
    return SHARED


@pytest.fixture
def here(monkeypatch):
    """Backends in this process, for which no other has to import a framework."""
    from common.parity import backends
    from common.training import evaluation, race

    @contextlib.contextmanager
    def started(specs, device="cpu"):
        yield [backends.Here(spec, device) for spec in specs]

    class Here(backends.Here):
        def close(self):
            pass

    monkeypatch.setattr(backends, "started", started)
    monkeypatch.setattr(race, "started", started)
    monkeypatch.setattr(evaluation, "Elsewhere", Here)


def by_default(names, taken) -> list:
    """Parameters of a test: those of `names` that are in `taken`, or for which it is true, and under `make test-slow`
    the others."""
    taken = taken if callable(taken) else list(taken).__contains__
    return [name if taken(name) else pytest.param(name, marks=pytest.mark.slow) for name in names]


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over largest element."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(a).max())


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of its own, of so many bytes ("600k")."""
    if os.geteuid() != 0 or not os.path.exists("/proc/mounts"):
        pytest.skip("needs the right to mount a small disk")
    disk = tmp_path / "disk"

    def mount(size):
        disk.mkdir()
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
        if subprocess.run(mounting, capture_output=True).returncode:
            pytest.skip("can't mount a small disk here")
        return disk

    yield mount
    if os.path.ismount(disk):
        subprocess.run(["umount", disk], check=True)
