"""What a process has of the machine: how it keeps memory, how much of that it had, and its processors."""

import contextlib
import ctypes
import os
import platform
from pathlib import Path

# glibc's allocator: a large array gets memory that was used before instead of new pages, which cost more than the copy
# into them: a fifth of a comparison's time, and half of ResNet-50's in PyTorch at batch 32, with arrays that are larger
# than the 32 MiB that a threshold can say. {variable: (mallopt's number, value)}
MALLOC = {"TRIM_THRESHOLD": (-1, 2**31 - 1), "MMAP_MAX": (-4, 0)}


def keep_memory() -> None:
    """From now on this process keeps the memory that it frees, and uses it again."""
    with contextlib.suppress(OSError, AttributeError):  # another libc
        mallopt = ctypes.CDLL(None).mallopt
        for number, value in MALLOC.values():
            mallopt(number, value)


def peak() -> int:
    """The most bytes that this process has had in memory; 0 where the system doesn't say."""
    # not getrusage's: that begins with what the process had before it became this program
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    return 0


def cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The CPU's name and its number of cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
