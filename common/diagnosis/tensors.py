"""Her arrays, in the places of ours: loaded from a file of hers, named by the alignment, held against a reference."""

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoints import files, port
from common.diagnosis.align import Pair
from common.diagnosis.examine import Diagnosis, living, run_once
from common.diagnosis.parse import Layer
from common.diagnosis.places import listed
from common.errors import RosettaError
from common.weights import Weights, check_shapes

CLOSE = 1e-6  # relative to the largest element: float32, and what one more rounding makes of it


def load_into(net: Any, path: Path) -> None:
    """Her weights into her net, by her names: all of them, and no others. Raises RosettaError."""
    live = living(net)
    if type(live).__module__.startswith("keras"):
        run_once(live)  # a model that isn't called has no weights yet
        try:
            net.load_weights(path)
        except Exception as e:
            raise RosettaError(f"{path.name} doesn't fit the net: {str(e).strip().splitlines()[0]}") from None
        return
    held, wanted = files.read(path), {n: t for n, t in net.state_dict().items() if t.is_floating_point()}
    first = next(iter(wanted))
    before = sorted((n.removesuffix(first) for n in held.entries if n.endswith(first)), key=len)
    place = next((p for p in before if all(p + n in held.entries for n in wanted)), "")
    given = {n.removeprefix(place): e for n, e in held.entries.items() if n.startswith(place)}
    check_shapes({n: tuple(t.shape) for n, t in wanted.items()}, {
        n: (e.shape, e.dtype.replace("bfloat16", "float32")) for n, e in given.items() if not n.endswith("tracked")
    })  # fmt: skip
    net.load_state_dict({n: tensor.new_tensor(given[n].read()) for n, tensor in wanted.items()}, strict=False)


def names_of(pairs: tuple[Pair, ...]) -> Iterator[tuple[str, str]]:
    """(canonical name, hers) of every array; hers is "a+b" where she has it in parts."""
    for pair in pairs:
        if isinstance(pair.ours, Layer) and isinstance(pair.theirs, Layer):
            for leaf, canonical in pair.ours.arrays.items():
                yield canonical, pair.theirs.arrays[leaf]
        for branch in pair.branches:
            yield from names_of(branch)


def joined(hers: Weights, names: str, shape: tuple[int, ...]) -> np.ndarray:
    """Her array, of its parts; of a 1x1 convolution as a matrix, and the other way round."""
    whole = np.concatenate([hers[name] for name in names.split("+")])
    ones = [n for n in whole.shape if n != 1] == [n for n in shape if n != 1]
    if not ones:
        raise RosettaError(f"{names} has the shape {whole.shape}, where {shape} is meant")
    return whole.reshape(shape)


def against(found: Diagnosis, hers: Mapping[str, np.ndarray], reference: str | os.PathLike) -> list[str]:
    """What each of her arrays is to those of a checkpoint, in lines: the same, turned, scaled, another one, or
    different; those of one kind together. Raises RosettaError for a bad file."""
    arch, weights = port.named(reference)
    if weights is None:
        raise RosettaError(f"{reference} is a row's name: expected a checkpoint for --reference")
    kinds: dict[str, list[str]] = defaultdict(list)
    for canonical, name in names_of(found.pairs):
        if canonical in weights:
            array = np.concatenate([hers[n] for n in name.split("+")])
            kinds[_relation(array, canonical, weights)].append(canonical)
    same, lacking = kinds.pop("", []), weights.keys() - {c for c, _ in names_of(found.pairs)}
    total = len(same) + sum(map(len, kinds.values()))
    lines = [f"{len(same)} of {total} tensors are those of {os.path.basename(reference)}"]
    lines += [f"{listed(names)} {kind}" for kind, names in kinds.items()]
    return lines + ([f"it has {len(lacking)} more, such as {min(lacking)}"] if lacking else [])


def _relation(array: np.ndarray, name: str, weights: Weights) -> str:
    """What an array is to the reference's of this name and to its others, in words; nothing where it is the same."""
    wanted = weights[name]
    if _close(array, wanted):
        return ""
    for axes in itertools.permutations(range(array.ndim)):
        if _close(array.transpose(axes), wanted):
            return "is transposed" if array.ndim == 2 else f"has its axes in another order, {axes}"
    if array.ndim > 2 and _close(array[:, ::-1], wanted):
        return "has its input channels the other way round (BGR for RGB)"
    if array.ndim > 2 and _close(np.flip(array, tuple(range(2, array.ndim))), wanted):
        return "has its kernels turned by 180 degrees"
    layer = name.rpartition(".")[0]
    others = sorted((n for n in weights if n != name), key=lambda n: n.rpartition(".")[0] != layer)
    for other in others:
        if _close(array, weights[other]) and np.ptp(array):
            leaf = other.rpartition(".")[2]
            return f"is that layer's {leaf}" if other.startswith(f"{layer}.") else f"is {other}"
    if array.shape == wanted.shape and (used := np.abs(wanted) > 1e-3 * np.abs(wanted).max()).any():
        ratio = array[used] / wanted[used]
        if ratio.size > 1 and np.ptp(ratio) < 1e-4 * abs(ratio.mean()):
            return f"is {ratio.mean():.6g} times as large"
    return "is different" if array.shape == wanted.shape else f"has the shape {array.shape} for {wanted.shape}"


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max() <= CLOSE * np.abs(b).max())
