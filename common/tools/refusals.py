"""What a framework says where the machine gives it no more: too little memory, a driver that doesn't fit. Known by its
text, so that nothing is imported: each framework has exceptions of its own, which wrap each other."""

import re
from collections.abc import Iterator

from common.errors import RosettaError

_MEMORY = re.compile(
    r"out of memory|RESOURCE_EXHAUSTED|OOM when allocating|can't allocate memory|[Uu]nable to allocate"
    r"|failed to allocate memory|STATUS_ALLOC_FAILED"
)
_SIZE = r"\d[\d.,]* ?(?:[KMGTPE]i?B|bytes|B)\b"
# how much was asked for, as PyTorch, JAX, numpy and TensorFlow say it
_ASKED = re.compile(
    rf"(?:tried to|trying to|unable to|memory) allocat(?:e|ing) ({_SIZE})"
    r"|OOM when allocating (tensor with shape ?\[[\d,]*\] and type \w+)",
    re.IGNORECASE,
)
_THERE = re.compile(rf"has a total capacity of ({_SIZE}) of which ({_SIZE}) is free")
_DRIVER = re.compile(
    r"[^\n]*(?:driver on your system is too old|driver version is insufficient|no NVIDIA driver on your system"
    r"|cuInit|CUDA_ERROR_\w*(?:DRIVER|NO_DEVICE|PTX|COMPAT)\w*|Unable to initialize backend '(?:cuda|gpu|rocm)'"
    r"|no kernel image is available|unsupported toolchain|no CUDA-capable device|not compiled with CUDA"
    r"|CUDA unknown error|forward compatibility was attempted)[^\n]*"
)


def refusal(error: BaseException) -> RosettaError | None:
    """The message of an exception that is the machine's answer, or a RosettaError's own; None for every other. Says how
    much memory was asked for, where the framework does."""
    if isinstance(error, RosettaError):
        return error
    for e in _chain(error):
        text = str(e)
        if _MEMORY.search(text) or isinstance(e, MemoryError):
            asked, there = _ASKED.search(text), _THERE.search(text)
            size = next(filter(None, asked.groups())) if asked else "more than there is"
            of = f" on a GPU of {there[1]}, of which {there[2]} were free" if there else ""
            return RosettaError(
                f"too little memory: {size} was asked for{of}. A smaller batch, smaller images or a smaller net need "
                "less; a GPU has less than the machine itself (--device cpu)"
            )
        if found := _DRIVER.search(text):
            said = " ".join(found[0].split())[:400].rstrip(". ")
            return RosettaError(
                f"the GPU can't be used: {said}. What is installed has to fit its driver (docs/gpu.md); --device cpu "
                "does without it"
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that it came from."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__
