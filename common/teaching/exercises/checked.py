"""A student's net against the reference: the first array that differs, and which mistake it is.

Runs where her file was imported, in a process of its own (common/diagnosis/hers.py). Nothing here judges style: her
net has to be the function, with the reference's names.
"""

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from common.diagnosis.examine import said
from common.errors import RosettaError
from common.init import randomised
from common.names import parameters
from common.row import Arch
from common.teaching.exercises import by_number
from common.teaching.faults import FAULTS, Fault

TOLERANCE = 1e-12  # of the largest element, in float64; equal nets are within 1e-14
SIZES = ((16, 12), (13, 13))  # even and not square; odd, at which paddings that are different can agree
See = Callable[[str, np.ndarray], None]


def checked(make: Callable[[], Any], number: int, framework: str) -> dict[str, Any]:
    """What `rosetta exercise check` says of the student's net, which `make` gives: "passed", or "what" is wrong, the
    "first" array that differs with its "place" and both "values", and the "fault" that it is where it is one."""
    exercise = by_number(number)
    # a net of PyTorch's is turned into one of float64 afterwards
    made_in = (
        importlib.import_module("keras_impl.originals").in_dtype if framework == "keras" else contextlib.nullcontext
    )
    with made_in("float64"):
        try:
            hers = Net(make(), framework, exercise.arch)
            hers.take(randomised(exercise.arch))
            found = list(hers.arrays())
        except (NotImplementedError, RosettaError) as e:
            return {"passed": False, "what": str(e)}
        except (Exception, SystemExit) as e:  # of her code, or of Keras around it
            hole = re.search(r"exercise \d+: \S+ is yours", str(e))
            return {"passed": False, "what": hole[0] if hole else f"the net can't run: {said(e)}"}
        difference = first_difference(found, reference(exercise.arch, framework))
        if difference is None:
            return {"passed": True}
        expected = exercise.wrong.get(framework, {})
        for fault in sorted((f for f in FAULTS.values() if not _stepping(f)), key=lambda f: f.name not in expected):
            with contextlib.suppress(Exception), fault.injected(framework):  # a net that has no place for the fault
                faulty = ends(reference(exercise.arch, framework))
                if first_difference(ends(found), faulty) is None:
                    return {"passed": False, **difference, "fault": fault.name, "says": fault.says}
        return {"passed": False, **difference}


def _stepping(fault: Fault) -> bool:
    return "gradients" in fault.checks


def reference(arch: Arch, framework: str) -> list[tuple[str, np.ndarray]]:
    """The arrays of the reference's net, as it is made at the moment: with a fault, where one is injected."""
    impl = importlib.import_module(f"{framework}_impl")
    return list(Net(impl.create_model(arch, dtype="float64", weights=randomised(arch)), framework, arch).arrays())


def first_difference(found: list[tuple[str, np.ndarray]], reference: list[tuple[str, np.ndarray]]) -> dict | None:
    """The first array of the reference that `found` hasn't, or has with other values; None if there is none."""
    have = dict(found)
    for name, b in reference:
        if name not in have:
            continue  # an inner layer that she spells otherwise: what comes out of it is compared
        a = have[name]
        if a.shape != b.shape:
            return {"what": f"{name} has another shape", "first": name, "values": [list(a.shape), list(b.shape)]}
        apart = np.abs(a - b)
        if not apart.max() <= TOLERANCE * max(np.abs(b).max(), 1e-30):
            place = np.unravel_index(np.argmax(apart), apart.shape)  # a NaN, if there is one
            values = [float(a[place]), float(b[place])]
            return {"what": f"{name} differs", "first": name, "place": [int(i) for i in place], "values": values}
    return None


def ends(arrays: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """Logits and running statistics: what two nets are compared by that spell their insides differently."""
    return [(name, a) for name, a in arrays if name.split(" ")[0] in ("logits", "training") or "running" in name]


class Net:
    """A net of either framework, hers or the reference's, that holds the canonical weights in float64."""

    def __init__(self, net: Any, framework: str, arch: Arch):
        self.net, self.framework, self.arch = net, framework, arch

    def take(self, weights: dict[str, np.ndarray]) -> None:
        """Gives the net the weights. Raises RosettaError where its parameters are others."""
        if self.framework == "torch":
            import torch

            self.net.double()
            have = {n: tuple(t.shape) for n, t in self.net.state_dict().items() if not n.endswith("batches_tracked")}
            _refuse(have, {n: tuple(s) for n, s in parameters(self.arch).items()})
            self.net.load_state_dict(
                {n: torch.from_numpy(w.astype(np.float64)) for n, w in weights.items()}, strict=False
            )
            return
        from keras_impl.model import to_keras

        wanted = parameters(self.arch)
        have = {n: tuple(to_torch_shape(v.shape)) for n, v in self._variables()}
        _refuse(have, {n: tuple(s) for n, s in wanted.items()})
        for name, variable in self._variables():
            variable.assign(to_keras(weights[name]))

    def _layers(self, layer: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
        """(canonical name, layer) of every Keras layer, by the attributes that hold it."""
        import keras

        layer = self.net if layer is None else layer
        inner = getattr(layer, "members", None)
        if inner is None and isinstance(layer, keras.Sequential):
            inner = layer.layers
        held = enumerate(inner) if inner is not None else vars(layer).items()
        for key, child in held:
            if isinstance(child, keras.layers.Layer) and not str(key).startswith("_"):
                name = f"{path}{key}"
                yield name, child
                yield from self._layers(child, f"{name}.")

    def _variables(self) -> Iterator[tuple[str, Any]]:
        leaves = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias",
                  "moving_mean": "running_mean", "moving_variance": "running_var"}  # fmt: skip
        for name, layer in self._layers():
            for attribute, leaf in leaves.items():
                if (variable := getattr(layer, attribute, None)) is not None and hasattr(variable, "assign"):
                    yield f"{name}.{leaf}", variable

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Of each size each layer's output and the logits, in evaluation; the logits of a training pass, and the
        running statistics after it. Arrays are N C *S."""
        for size in SIZES:
            x = np.random.default_rng(0).standard_normal((4, self.arch.in_channels, *size[: self.arch.dims]))
            seen: list[tuple[str, np.ndarray]] = []
            logits = self._run(x, lambda name, y, seen=seen: seen.append((name, np.array(y))))  # type: ignore[misc]
            yield from ((f"{name} at {'x'.join(map(str, size))}", y) for name, y in seen)
            yield f"logits at {'x'.join(map(str, size))}", logits
        yield "training mode's logits", self._run(x, None, training=True)
        yield from self._statistics()

    def _run(self, x: np.ndarray, see: See | None, training: bool = False) -> np.ndarray:
        if self.framework == "torch":
            from torch_impl.trace import trace

            return trace(self.net, x, see, training)
        names = list(self._layers()) if see else []
        try:
            for name, layer in names:
                object.__setattr__(layer, "call", _watched(name, layer.call, see))
            return _first(self.net(np.moveaxis(x, 1, -1), training=training))
        finally:
            for _, layer in names:
                layer.__dict__.pop("call", None)

    def _statistics(self) -> Iterator[tuple[str, np.ndarray]]:
        if self.framework == "torch":
            yield from ((n, b.numpy().copy()) for n, b in self.net.named_buffers() if "running" in n)
        else:
            yield from ((n, np.array(v)) for n, v in self._variables() if "running" in n)


def to_torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A kernel's (*K, I, O) as (O, I, *K)."""
    return (shape[-1], shape[-2], *shape[:-2]) if len(shape) > 1 else tuple(shape)


def _first(y: Any) -> np.ndarray:
    from keras_impl.model import to_numpy

    return np.moveaxis(to_numpy(y), -1, 1)


def _watched(name: str, call: Any, see: Any) -> Any:
    def call_and_see(*args: Any, **kwargs: Any) -> Any:
        y = call(*args, **kwargs)
        see(name, _first(y))
        return y

    return call_and_see


def _refuse(have: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    """Raises RosettaError for parameters that are missing, too many, or of another shape."""
    for name, shape in wanted.items():
        if name not in have:
            raise RosettaError(
                f"the net has no {name}, of shape {' x '.join(map(str, shape))}: keep the names as they are"
            )
        if have[name] != shape:
            said = " x ".join(map(str, have[name]))
            raise RosettaError(f"{name} is {said}, and should be {' x '.join(map(str, shape))} (in PyTorch's order)")
    if more := [name for name in have if name not in wanted]:
        raise RosettaError(f"the net has {more[0]}, which the reference hasn't")
