"""How one library names and stores what the canonical weights hold: a list of rules that is read in both directions."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from common.arch import Arch
from common.checkpoints.preprocessing import Preprocessing
from common.errors import RosettaError
from common.names import Shape, layer_parameters
from common.plan import Linear, Norm, make_plan
from common.weights import channels_first, channels_last

_FIELD = re.compile(r"\{(\w)([+-]\d+)?\}")


class Template:
    """A name with numbers in it: "conv{s+1}_block{b+1}" with s = 1 and b = 0 is "conv2_block1"."""

    def __init__(self, text: str):
        self.text = text
        self.offsets = {m[1]: int(m[2] or 0) for m in _FIELD.finditer(text)}
        literal = [re.escape(part) for part in _FIELD.sub("\0", text).split("\0")]
        numbers = iter([rf"(?P<{m[1]}>0|[1-9]\d{{0,4}})" for m in _FIELD.finditer(text)])
        self.pattern = re.compile(literal[0] + "".join(next(numbers) + part for part in literal[1:]))

    def match(self, name: str) -> dict[str, int] | None:
        """The numbers in `name`, or None where it is another name."""
        found = self.pattern.fullmatch(name)
        if not found:
            return None
        numbers = {key: int(value) - self.offsets[key] for key, value in found.groupdict().items()}
        return numbers if min(numbers.values(), default=0) >= 0 else None

    def fill(self, numbers: Mapping[str, int]) -> str:
        """The name with these numbers."""
        return _FIELD.sub(lambda m: str(numbers[m[1]] + int(m[2] or 0)), self.text)


@lru_cache(maxsize=1024)
def template(text: str) -> Template:
    """The template of a text, made once."""
    return Template(text)


@dataclass(frozen=True)
class Slot:
    """Where one canonical tensor is in a library's file."""

    canonical: str
    theirs: str
    shape: Shape  # theirs
    transform: str = ""  # a key of TRANSFORMS, from theirs to the canonical layout


# {name: (theirs to canonical, canonical to theirs)}: moves of axes, no arithmetic
TRANSFORMS = {
    "": (lambda w: w, lambda w: w),
    "HWIO to OIHW": (channels_first, channels_last),
    "IO to OI": (channels_first, channels_last),
    "1x1 convolution to matrix": (lambda w: w[:, :, 0, 0], lambda w: w[:, :, None, None]),
}

# Keras' names of the variables of a layer, in the order in which it keeps them
KERAS_LEAVES = {
    "norm": {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"},
    "kernel": {"weight": "kernel", "bias": "bias"},
}


@dataclass(frozen=True)
class Library:
    """One library. `rules` are (canonical layer, theirs) or (canonical, theirs, trait), the first that matches."""

    name: str
    rules: tuple[tuple[str, ...], ...] = ()
    keras: bool = False
    conventions: Mapping[str, Any] = field(default_factory=dict)  # fields of the row that no shape tells
    preprocessing: Preprocessing | None = None
    linear: str = ""  # the transform of the classifier's weight
    traits: tuple[frozenset[str], ...] = (frozenset(),)  # sets of traits that its nets have
    claims: Callable[[Arch], bool] = lambda arch: True  # of two libraries with the same names, whose it is
    unseen: tuple[
        str, ...
    ] = ()  # fields of the row that it builds nets with, and that no name, shape or convention tells
    wraps: str = ""  # what a checkpoint of this library calls its weights, beside other things
    module: str = ""  # what every name begins with, in its own checkpoints
    labels: tuple[str, ...] = ()
    nested: str = ""  # where in a .weights.h5 the features are, if the classifier is around them

    def layers(self, names: Iterable[str], traits: frozenset[str]) -> dict[str, str]:
        """{their layer: canonical layer} of those that a rule knows."""
        found = {}
        for name in dict.fromkeys(names):
            for canonical, theirs in self._rules(traits):
                if (numbers := template(theirs).match(name)) is not None:
                    found[name] = template(canonical).fill(numbers)
                    break
        return found

    def _rules(self, traits: frozenset[str]) -> Iterator[tuple[str, str]]:
        for canonical, theirs, *when in self.rules:
            if not when or when[0] in traits:
                yield canonical, theirs

    def builds(self, arch: Arch) -> bool:
        """Whether one of the library's sets of traits is the row's."""
        return any(traits <= traits_of(arch) for traits in self.traits)

    def layer(self, canonical: str, arch: Arch) -> str:
        """Their name of a canonical layer. Raises RosettaError where the library has none."""
        for ours, theirs in self._rules(traits_of(arch)):
            if (numbers := template(ours).match(canonical)) is not None:
                return template(theirs).fill(numbers)
        raise RosettaError(f"{self.name} has no layer that is {canonical}")

    def spelt(self, *layers: str) -> set[str]:
        """Their names of the weights of canonical layers, whatever traits a net has."""
        leaf, found = "/kernel" if self.keras else ".weight", set()
        for layer in layers:
            for ours, theirs, *_ in self.rules:
                if (numbers := template(ours).match(layer)) is not None:
                    found.add(template(theirs).fill(numbers) + leaf)
        return found

    def slots(self, arch: Arch) -> list[Slot]:
        """Where each tensor of the row is, in canonical order. Raises RosettaError for a row that the library can't
        hold."""
        slots = []
        for layer in make_plan(arch).layers():
            theirs = self.layer(layer.name, arch)
            norm, linear = isinstance(layer, Norm), isinstance(layer, Linear)
            for leaf, shape in layer_parameters(layer).items():
                transform = ""
                if self.keras:
                    kind = KERAS_LEAVES["norm" if norm else "kernel"]
                    transform = "" if norm or leaf == "bias" else "IO to OI" if linear else "HWIO to OIHW"
                    name = f"{theirs}/{kind[leaf]}"
                else:
                    transform = self.linear if linear and leaf == "weight" else ""
                    name = f"{theirs}.{leaf}"
                slots.append(Slot(f"{layer.name}.{leaf}", name, stored_shape(shape, transform), transform))
        return slots


@lru_cache(maxsize=64)
def traits_of(arch: Arch) -> frozenset[str]:
    """What rules may depend on: where the norms are, the stem, a shortcut that pools, and the head."""
    return frozenset(
        ["preact" if arch.preact else "postact", "deep" if len(arch.stem.convs) > 1 else "single"]
        + ["pooled"] * arch.shortcut.startswith("pool")
        + ["replaced"] * (len(arch.stem.convs) == 4 and not arch.stem.pool)
        + ["headed" if arch.num_classes else "bare"]
    )


def stored_shape(shape: Shape, transform: str) -> Shape:
    """A canonical shape as a library stores it."""
    return _moved(shape, TRANSFORMS[transform][1]) if transform else shape


def canonical_shape(shape: Shape, transform: str) -> Shape:
    """A stored shape as the canonical weights have it."""
    return _moved(shape, TRANSFORMS[transform][0]) if transform else shape


def _moved(shape: Shape, move: Callable[[np.ndarray], np.ndarray]) -> Shape:
    """Where a move of axes takes the lengths, which may be larger than any array's: so a small one goes ahead, in which
    each axis is known by its length."""
    if len(shape) > 6:  # of no layer's
        return shape
    ahead = move(np.empty(tuple(range(2, len(shape) + 2)), np.bool_)).shape
    return tuple(shape[n - 2] if n > 1 else 1 for n in ahead)
