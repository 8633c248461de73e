"""Converting checkpoints: every format is a spoke of the canonical weights, nothing goes from one framework to the
other."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import weights as canonical
from common.arch import Arch, name_of
from common.errors import RosettaError
from common.frameworks import load
from common.names import count, parameters

FORMATS = {".safetensors": None, ".pt": "torch", ".weights.h5": "keras", ".keras": "keras"}  # suffix: whose


@dataclass(frozen=True)
class Ported:
    """What `port` wrote."""

    name: str
    tensors: int
    parameters: int
    dtype: str
    reader: str | None  # the framework that the result was read back in


def _format(path: Path) -> str | None:
    """Whose format `path` is, by its suffix; None is the canonical one."""
    for suffix, framework in FORMATS.items():
        if path.name.endswith(suffix) and path.name != suffix:
            return framework
    raise RosettaError(f"{path} has no suffix that is known: expected {', '.join(FORMATS)}")


def port(
    source: str | Path,
    target: str | Path,
    *,
    framework: str | None = None,
    arch: Arch | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Ported:
    """Converts `source` to `target`, each .safetensors, .pt, .weights.h5 or .keras; the suffixes say which.

    `framework` ("torch" or "keras"), where given, must be the target's. `arch` is the row of a source that doesn't
    name its own. The target is written whole or not at all, after it was read back in its own framework and found
    bit-equal. Raises RosettaError for bad files, an unknown suffix, or a row that doesn't fit.
    """
    source, target = Path(source), Path(target)
    reads, writes = _format(source), _format(target)
    if framework and framework != writes:
        raise RosettaError(
            f"--to {framework} doesn't go with {target.name}, which is {writes or 'the canonical'} format"
        )
    if not source.is_file():
        raise RosettaError(f"no such file: {source}")

    progress(f"reading {source.name}")
    if reads:
        arch, weights = load(reads, "files").read(source, arch)
    else:
        said, weights, _ = canonical.load(source)
        if arch not in (None, said):
            raise RosettaError(f"{source} is another net than --arch names: {name_of(said) or said}")
        arch = said
    if broken := canonical.not_finite(weights):
        raise RosettaError(f"{source} holds values that are not finite, in {broken}")

    dtype = str(np.result_type(*weights.values()))
    progress(f"writing {target.name}")
    if writes is None:
        canonical.save(target, arch, weights)
    else:
        files = load(writes, "files")
        with canonical.atomic(target, sum(w.nbytes for w in weights.values())) as temporary:
            files.write(temporary, arch, weights, dtype)
            progress(f"reading {target.name} back")
            found_arch, found = files.read(temporary)
            wrong = [n for n in weights if not np.array_equal(found[n], weights[n])]
            if wrong or found_arch != arch:
                raise RosettaError(
                    f"{target} reads back otherwise than written, at {(wrong or ['its row'])[0]}; it is not kept"
                )
    return Ported(name_of(arch) or "custom", len(weights), count(parameters(arch)), dtype, writes)
