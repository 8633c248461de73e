"""What a fault is, and the side that it is put into."""

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from common.arch import Arch, get
from common.errors import RosettaError, hint, nearest

SIDES = ("torch", "keras")
_SMALL: dict[str, Any] = dict(widths=(16, 20, 24), depths=(1, 1, 1), num_classes=7)
_TINY: dict[str, Any] = dict(widths=(8, 16), depths=(1, 1), num_classes=7)
NETS: dict[str, tuple[Arch, tuple[int, ...]]] = {  # name: (row, size of the images): the smallest that show each fault
    "basic": (get("cifar_resnet20", **_SMALL), (16, 12)),
    "option A": (get("cifar_resnet20", **_SMALL, shortcut="pad"), (16, 12)),
    "projection": (get("cifar_resnet20", **_SMALL, shortcut="project"), (16, 12)),
    "bottleneck": (get("resnet50", **_TINY, stem={"convs": [[8, 7, 2]]}), (36, 28)),
    "D": (get("resnet18d", **_TINY), (33, 26)),
    "pre-activation": (get("resnetv2_18", widths=(8, 8, 16), depths=(1, 2, 1), num_classes=7), (36, 28)),
    "groups": (get("resnext50_32x4d", **{**_TINY, "widths": (16, 32)}, groups=4, width_per_group=16), (36, 28)),
    "SE": (get("seresnet18", **_TINY), (36, 28)),
    "dropped": (get("cifar_wrn16_8", **_SMALL, dropout=0.4, drop_path=0.5), (16, 12)),
    "three kernels": (get("msresnet_1d", num_classes=5), (64,)),
}  # fmt: skip
EXAMPLES = {  # a variant that shows what one of those shows
    "option A": "cifar_resnet20", "bottleneck": "resnet50", "D": "resnet18d", "pre-activation": "resnetv2_18",
    "groups": "resnext50_32x4d", "SE": "seresnet18", "dropped": "cifar_resnet110_sd", "three kernels": "msresnet_1d",
}  # fmt: skip
FAULTS: dict[str, "Fault"] = {}


class Side:
    """One framework's package, in which a fault sets what it needs; all is as it was when the context ends.

    What both packages have under the same name, a fault sets in either by the same words. `torch` says which it is.
    Several faults can be put in, one after another; `fault` says whose turn it is."""

    fault = ""

    def __init__(self, framework: str, kept: contextlib.ExitStack):
        self.torch, self._kept, self.impl = framework == "torch", kept, importlib.import_module(f"{framework}_impl")
        self.layers, self.blocks, self.resnet, self.model, self.autodiff, self.optim = (
            importlib.import_module(f"{framework}_impl.{name}")
            for name in ("layers", "blocks", "resnet", "model", "autodiff", "optim")
        )
        self.call = "forward" if self.torch else "call"
        self._of: dict[Any, str] = {}

    def alone(self, what: Any) -> None:
        """Raises RosettaError where another fault has changed `what`, which this one replaces."""
        other = self._of.setdefault(what, self.fault)
        if other != self.fault:
            raise RosettaError(f"{self.fault!r} would undo {other!r}, which is in the same place: give one of the two")

    def set(self, owner: Any, name: str, value: Any) -> None:
        """`owner.name` is `value` from now on."""
        self.alone((owner, name))
        self._kept.enter_context(mock.patch.object(owner, name, value))

    def around(self, owner: Any, name: str, changed: Callable[..., Any]) -> None:
        """`owner.name(...)` is `changed(what it was, ...)`."""
        was = getattr(owner, name)

        @functools.wraps(was)  # Keras reads the arguments of a layer's `call`
        def now(*args: Any, **kwargs: Any) -> Any:
            return changed(was, *args, **kwargs)

        self._of.setdefault((owner, name), self.fault)
        self._kept.enter_context(mock.patch.object(owner, name, now))

    def built(self, change: Callable[[Any], object]) -> None:
        """Every net that `create_model` builds is changed after it was built."""

        def made(make: Any, *args: Any, **kwargs: Any) -> Any:
            net = make(*args, **kwargs)
            change(net)
            return net

        self.around(self.impl, "create_model", made)

    def carried(self, change: Callable[[dict[str, np.ndarray]], object]) -> None:
        """The weights are changed on their way in: `change` gets a dict of copies."""

        def made(make: Any, arch: Any, *, weights: Mapping[str, np.ndarray], **kwargs: Any) -> Any:
            copies = {name: w.copy() for name, w in weights.items()}
            change(copies)
            return make(arch, weights=copies, **kwargs)

        self.around(self.impl, "create_model", made)

    def other_row(self, **change: Any) -> None:
        """Nets are of another row; what their weights lack is drawn."""
        from common.init import initial

        def made(make: Any, arch: Any, *, weights: Mapping[str, np.ndarray], **kwargs: Any) -> Any:
            other = get(arch, **change)
            return make(other, weights={**initial(other, 0), **weights}, **kwargs)

        self.around(self.impl, "create_model", made)

    def layer(self, net: Any, path: str) -> Any:
        """The layer of a canonical name."""
        for part in path.split("."):
            net = net.members[int(part)] if part.isdigit() and not self.torch else getattr(net, part)
        return net

    def blocks_of(self, net: Any) -> Iterator[tuple[Any, Any]]:
        """(plan, block) of each block."""
        for b in net.plan.blocks():
            yield b, self.layer(net, b.name)

    def norms(self, net: Any) -> list[Any]:
        """Every norm of batches."""
        if self.torch:
            from torch.nn.modules.batchnorm import _BatchNorm

            return [m for m in net.modules() if isinstance(m, _BatchNorm)]
        from keras_impl.layers import BatchNorm
        from keras_impl.weights import named_layers

        return [x for _, x in named_layers(net) if isinstance(x, BatchNorm)]

    def positions(self, x: Any) -> tuple[int, ...]:
        """The axes of `x` that are positions."""
        return tuple(range(2, x.ndim)) if self.torch else tuple(range(1, len(x.shape) - 1))

    def softmax(self, x: Any) -> Any:
        if self.torch:
            import torch

            return torch.as_tensor(x).softmax(-1)
        from keras import ops

        return ops.softmax(ops.convert_to_tensor(x))

    def same(self, conv: Any) -> None:
        """The convolution pads as TensorFlow's "same" does: one less in front at an even size and stride 2."""
        if not self.torch:
            conv.before, conv.padding = None, "same"
            return
        conv.padding = (0,) * len(conv.kernel_size)
        conv.register_forward_pre_hook(lambda m, args: padded_same(args[0], m.kernel_size, m.stride))


def padded_same(x: Any, kernel: tuple[int, ...], stride: tuple[int, ...], value: float = 0.0) -> Any:
    """A tensor of PyTorch, with TensorFlow's border."""
    import torch.nn.functional as F

    around: list[int] = []
    for n, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        around += [total // 2, total - total // 2]
    return F.pad(x, around, value=value)


Inject = Callable[[Side], None]


@dataclass(frozen=True)
class Fault:
    """One mistake, and what a comparison has to say of it."""

    name: str
    trap: int | None  # of the list in docs/traps.md
    says: str  # what the mistake is
    net: str  # of NETS: a net that shows it
    first: tuple[str, str] | None  # (check, name) of the first array that differs; None where counts differ alone
    inject: Inject
    checks: tuple[str, ...] = ("forward",)
    dtypes: tuple[str, ...] = ("float64",)
    verdict: str = "different"
    size: tuple[int, ...] = ()  # another size than the net's

    @property
    def example(self) -> str:
        """A variant in which it shows."""
        return EXAMPLES.get(self.net, "resnet18")

    def images(self) -> np.ndarray:
        """Four images of noise for its net, N C *S."""
        arch, size = NETS[self.net]
        return np.random.default_rng(3).standard_normal((4, arch.in_channels, *(self.size or size)))

    @contextlib.contextmanager
    def injected(self, framework: str) -> Iterator[None]:
        """While it lasts, nets that `torch_impl.create_model` (framework "torch") or `keras_impl.create_model` makes,
        and how they are trained, have the mistake."""
        with injected([self], framework):
            yield


@contextlib.contextmanager
def injected(faults: Sequence[Fault], framework: str) -> Iterator[None]:
    """As `Fault.injected`, with all of `faults`. Raises RosettaError where one of them would undo another."""
    if framework not in SIDES:
        raise RosettaError(f"unknown side {framework!r}{hint(framework, SIDES)}")
    with contextlib.ExitStack() as kept:
        side = Side(framework, kept)
        for each in faults:
            side.fault = each.name
            each.inject(side)
        yield


def fault(
    name: str, says: str, net: str, first: tuple[str, str] | None, trap: int | None = None, **more: Any
) -> Callable[[Inject], Inject]:
    """Registers the function below as the injection of a fault."""

    def register(inject: Inject) -> Inject:
        FAULTS[name] = Fault(name, trap, says, net, first, inject, **more)
        return inject

    return register


def named(name: str) -> Fault:
    """The fault of that name. Raises RosettaError for an unknown one."""
    if name not in FAULTS:
        raise RosettaError(f"unknown fault {name!r}{nearest(name, FAULTS) or '; `rosetta traps` lists them'}")
    return FAULTS[name]
