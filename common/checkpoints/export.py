"""A net as an ONNX graph, from either framework, run before it is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.arch import Arch, nearly
from common.checkpoints import port
from common.errors import RosettaError
from common.names import count, parameters
from common.parity import graphs
from common.parity.difference import LOGITS, TOLERANCE, difference
from common.parity.lockstep import refuse_not_finite
from common.plan import make_plan
from common.tools.files import atomic
from common.tools.frameworks import load, require


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    name: str
    input: tuple[str | int, ...]  # the graph's input, its free axes by name
    dtype: str
    size: int  # bytes
    relative: float  # the graph's logits against the framework's
    tolerance: float


def export(
    source: str | Path,
    target: str | Path,
    framework: str,
    *,
    overrides: dict | None = None,
    dtype: str = "float32",
    seed: int = 0,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Writes `source`, a variant's name or a checkpoint of any library, to the ONNX file `target`.

    `framework` ("torch" or "keras") builds and exports it; a variant has the fresh weights of `seed`. The graph takes
    any batch and image size, N C *S, and gives logits. It is kept only if its logits on two batches of different sizes
    are the framework's: ONNX Runtime runs it in float32, ONNX's own evaluator in float64. Raises RosettaError for an
    unknown name, a bad file, a target that can't be written, a dtype that can't be run, or a graph that differs.
    """
    target = Path(target)
    if target.suffix != ".onnx":
        raise RosettaError(f"{target} isn't named like an ONNX graph: expected NAME.onnx")
    if dtype not in ("float32", "float64"):
        raise RosettaError(f"dtype {dtype!r} can't be: a graph is float32 or float64")
    arch, weights = port.named(source, overrides)
    probes = _probes(arch)
    refuse_not_finite(probes[0], weights)
    packages = {"torch": ("torch",), "keras": ("keras", "tensorflow")}[framework]
    require(f"exporting from {framework}", (*packages, *graphs.NEEDS[framework]), f"{framework},onnx")
    progress(f"building in {framework}")
    impl, exporter, tracer = load(framework), load(framework, "onnx"), load(framework, "trace")
    net = impl.create_model(arch, dtype=dtype, weights=weights, **({} if weights else {"seed": seed}))
    size = count(parameters(arch), statistics=True) * np.dtype(dtype).itemsize
    with atomic(target, size) as temporary:
        progress("exporting")
        exporter.export(net, temporary)
        progress("running the graph")
        worst, allowed = 0.0, 0.0
        for x in probes:
            row = difference("forward", "logits", "logits", tracer.trace(net, x), graphs.run(temporary, x))
            worst, allowed = max(worst, row.relative), LOGITS["float32"] if dtype == "float32" else TOLERANCE["forward"]
            if not row.relative <= allowed:
                raise RosettaError(
                    f"the graph gives other logits than {framework}, {row.relative:.1e} apart where {allowed:.0e} is "
                    f"rounding; {target} was not written"
                )
        written = temporary.stat().st_size
    named: tuple[str | int, ...] = ("N", arch.in_channels, *graphs.axes(arch))
    return Exported(nearly(arch), named, dtype, written, worst, allowed)


def _probes(arch: Arch) -> list[np.ndarray]:
    """Two batches, of other sizes than any that an exporter is shown: odd, even, not square."""
    stride = make_plan(arch).total_stride
    rng = np.random.default_rng(0)
    sizes = ((1, 2 * stride + 5, stride + 10), (3, stride + 4, 2 * stride + 1))
    return [rng.standard_normal((n, arch.in_channels, *size[: arch.dims])) for n, *size in sizes]
