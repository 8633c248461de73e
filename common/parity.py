"""Whether two nets are the same function: outputs compared layer by layer, the first that differs named.

The yardstick is the framework itself. float64 is exact to rounding, so there equality is asked for. In float32 two
correct nets are as far apart as each is from itself in float64, so that distance, the noise floor, stands beside.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.arch import Arch, name_of
from common.frameworks import load
from common.init import randomised
from common.names import count, parameters

# Relative to a layer's largest element, as measured over all variants on photographs (docs/DESIGN.md): in float64 the
# worst layer is 1.1e-14 and the worst logits 2.2e-15 apart, in float32 the worst layer 4.6e-6.
TOLERANCE = {"float64": 1e-13, "float32": 1e-5}
FLOORS = 3.0  # float32 logits: how many noise floors apart is still rounding


@dataclass(frozen=True)
class Difference:
    """Two arrays against each other, element by element."""

    name: str
    relative: float  # largest difference over largest element of the first; nan where either is not finite
    absolute: float
    index: tuple[int, ...]  # of the worst element, N C *S
    values: tuple[float, float]
    floor: float | None = None  # not in float64: how far the first is from itself in float64, the worst layer so far


def difference(name: str, a: np.ndarray, b: np.ndarray) -> Difference:
    """Compares two arrays; a different shape is a difference of infinity."""
    if a.shape != b.shape:
        return _absent(name)
    if a.size == 0:
        return Difference(name, 0.0, 0.0, (), (math.nan, math.nan))
    gap = np.abs(np.subtract(a, b, dtype=np.float64))
    worst = int(np.argmax(gap))  # a NaN, if there is one
    index = tuple(int(i) for i in np.unravel_index(worst, a.shape))
    absolute, largest = float(gap.flat[worst]), float(np.abs(a).max())
    relative = absolute / largest if largest and math.isfinite(largest) else (0.0 if absolute == 0 else math.nan)
    return Difference(name, relative, absolute, index, (float(a[index]), float(b[index])))


@dataclass
class Comparison:
    """What `compare` found; `to_json` is the file that `rosetta compare --json` writes."""

    name: str
    arch: Arch
    input_shape: tuple[int, ...]
    versions: dict[str, str]
    parameters: dict[str, int] = field(default_factory=dict)  # spec, torch, keras
    statistics: dict[str, int] = field(default_factory=dict)
    round_trip: bool = True  # PyTorch to Keras to PyTorch is bit-exact
    layers: dict[str, list[Difference]] = field(default_factory=dict)  # by dtype, in the order of the pass
    logits: dict[str, Difference] = field(default_factory=dict)  # by dtype
    seconds: dict[str, float] = field(default_factory=dict)

    def first_over(self, dtype: str) -> Difference | None:
        """The first layer, in the order of the pass, whose outputs differ by more than rounding."""
        return next((d for d in [*self.layers[dtype], self.logits[dtype]] if self.over(d, dtype)), None)

    def over(self, d: Difference, dtype: str) -> bool:
        """Whether the outputs differ by more than rounding. True for anything that is not finite."""
        allowed = TOLERANCE[dtype]
        if d.floor is not None and d.name == "logits":
            allowed = min(allowed, FLOORS * d.floor)
        return not d.relative <= allowed

    @property
    def same_counts(self) -> bool:
        return len(set(self.parameters.values())) == len(set(self.statistics.values())) == 1

    @property
    def equal(self) -> bool:
        return self.same_counts and self.round_trip and all(self.first_over(dtype) is None for dtype in self.layers)

    def to_json(self) -> dict[str, Any]:
        def row(d: Difference | None) -> Any:
            return d and {
                k: v if not isinstance(v, float) or math.isfinite(v) else str(v)
                for k, v in dataclasses.asdict(d).items()
            }

        return {
            "name": self.name, "equal": self.equal, "arch": dataclasses.asdict(self.arch), "input": self.input_shape,
            "versions": self.versions, "parameters": self.parameters, "statistics": self.statistics,
            "weights_round_trip_bit_exact": self.round_trip, "seconds": self.seconds,
            "dtypes": {
                dtype: {
                    "tolerance": TOLERANCE[dtype], "noise_floors_allowed": None if dtype == "float64" else FLOORS,
                    "logits": row(self.logits[dtype]), "first_over": row(self.first_over(dtype)),
                    "layers": [row(d) for d in layers],
                }
                for dtype, layers in self.layers.items()
            },
        }  # fmt: skip


def section_of(name: str) -> str:
    """The stem, stage or head that a layer belongs to, from its canonical name."""
    top = name.split(".")[0]
    return top if top.startswith("layer") else "head" if top in ("fc", "logits") or top.startswith("norm") else "stem"


def compare(
    arch: Arch,
    x: np.ndarray,
    weights: dict[str, np.ndarray] | None = None,
    *,
    dtypes: tuple[str, ...] = ("float64", "float32"),
    name: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Comparison:
    """The same weights and input through both implementations, in each dtype, layer by layer.

    `x` is float64, N C *S; `weights` default to random ones under which every mistake shows. `progress` is told what
    is being done. float32 is given its noise floor, for which PyTorch runs in float64 whatever `dtypes` says.
    """
    took: dict[str, float] = {}
    clock = time.perf_counter()

    def step(what: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        if steps:
            took[steps[-1]] = now - clock
        clock = now
        steps.append(what)
        progress(what)

    steps: list[str] = []
    step("importing PyTorch")
    torch_impl, torch_trace = load("torch"), load("torch", "trace").trace
    step("importing Keras")
    keras_impl, keras_trace = load("keras"), load("keras", "trace").trace
    import keras
    import torch

    backend = keras.backend.backend()
    versions = {
        "torch": torch.__version__,
        "keras": keras.__version__,
        "backend": f"{backend} {_version(backend)}",
        "numpy": np.__version__,
    }
    label = name or name_of(arch) or "custom"
    result = Comparison(label, arch, x.shape, versions, seconds=took)

    step("drawing weights")
    weights = randomised(arch) if weights is None else weights
    spec = parameters(arch)
    result.parameters["spec"] = count(spec)
    result.statistics["spec"] = count(spec, statistics=True) - count(spec)

    exact: dict[str, np.ndarray] = {}
    for dtype in sorted({"float64", *dtypes}, reverse=True):  # float64 first: the others' noise floor
        step(f"building in PyTorch, {dtype}")
        model = torch_impl.create_model(arch, dtype=dtype, weights=weights)
        carried = torch_impl.export_weights(model)
        result.parameters["torch"] = sum(p.numel() for p in model.parameters())
        result.statistics["torch"] = sum(b.numel() for b in model.buffers() if b.is_floating_point())
        step(f"running PyTorch, {dtype}")
        outputs = _outputs(torch_trace, model, x)
        exact = exact or outputs
        del model
        if dtype not in dtypes:
            continue

        step(f"building in Keras, {dtype}")
        twin = keras_impl.create_model(arch, dtype=dtype, weights=carried)
        back = keras_impl.export_weights(twin)
        result.round_trip &= list(back) == list(carried) and all(np.array_equal(back[n], carried[n]) for n in back)
        result.parameters["keras"] = sum(math.prod(v.shape) for v in twin.trainable_variables)
        result.statistics["keras"] = sum(math.prod(v.shape) for v in twin.non_trainable_weights)
        step(f"running Keras, {dtype}")
        *result.layers[dtype], result.logits[dtype] = _differences(keras_trace, twin, x, outputs, exact)
        del twin
    step("done")
    return result


Trace = Callable[[Any, np.ndarray, Callable[[str, np.ndarray], None]], np.ndarray]


def _outputs(trace: Trace, model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """{layer: output} in the order of the pass, the logits last."""
    kept: dict[str, np.ndarray] = {}

    def keep(layer: str, y: np.ndarray) -> None:
        kept[layer] = y.copy()

    kept["logits"] = trace(model, x, keep)
    return kept


def _differences(
    trace: Trace, model: Any, x: np.ndarray, outputs: dict[str, np.ndarray], exact: dict[str, np.ndarray]
) -> list[Difference]:
    """Each layer of `model` against `outputs`, in the order of the pass, the logits last; a layer that only one has is
    infinitely far. The noise floor, where `outputs` are not `exact` themselves, is the worst of the layers so far:
    rounding adds up."""
    found: list[Difference] = []
    floor = None if outputs is exact else 0.0

    def see(layer: str, y: np.ndarray) -> None:
        nonlocal floor
        if floor is not None and layer in exact:
            floor = max(floor, difference(layer, exact[layer], outputs[layer]).relative)
        row = difference(layer, outputs[layer], y) if layer in outputs else _absent(layer)
        found.append(dataclasses.replace(row, floor=floor))

    logits = trace(model, x, see)
    seen = {d.name for d in found}
    found += [_absent(layer) for layer in outputs if layer not in seen and layer != "logits"]
    see("logits", logits)
    return found


def _absent(layer: str) -> Difference:
    return Difference(layer, math.inf, math.inf, (), (math.nan, math.nan))


def _version(module: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    for name in (module, f"{module}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
