"""Arrays under which every difference shows: drawn for her net, and for layers of ours that she lacks."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.diagnosis.parse import NORMED, Chain, Item, Join, Layer, layers, with_norms
from common.diagnosis.tape import Arrays, Live

Shape = tuple[int, ...]


def shapes(layer: Layer) -> dict[str, Shape]:
    """{leaf: shape} of the arrays that a layer's attributes ask for."""
    a = layer.attributes
    if layer.op == "conv":
        weight = (a["out"], a["into"] // a["groups"], *a["kernel"])
        return {"weight": weight} | ({"bias": (a["out"],)} if a["bias"] else {})
    if layer.op == "linear":
        return {"weight": (a["out"], a["into"])} | ({"bias": (a["out"],)} if a["bias"] else {})
    if layer.op in NORMED:
        return dict.fromkeys(a["leaves"], (a["channels"],))
    return {}


def drawn(name: str, leaf: str, shape: Shape, normed: bool) -> np.ndarray:
    """Nothing is 0, 1 or equal to its neighbour; a convolution keeps the size of what it reads."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if leaf == "running_var" or (leaf == "weight" and normed):
        return rng.uniform(0.5, 1.5, shape)
    if leaf in ("bias", "running_mean"):
        return rng.normal(0, 0.1, shape)
    return rng.standard_normal(shape) * math.sqrt(2 / max(1, math.prod(shape[1:])))


def scatter(live: Live, chain: Chain, batches: Sequence[np.ndarray]) -> None:
    """Draws every array of her net. Statistics are drawn around those of the batches, so that no depth makes
    activations vanish or grow beyond what shows."""
    arrays = live.arrays()
    norms = [layer for layer in layers(chain) if layer.op == "norm"]
    for layer in layers(chain):
        for leaf, names in layer.arrays.items():
            for name in names.split("+"):
                arrays[name] = drawn(name, leaf, arrays[name].shape, layer.op in NORMED)
    seen = [live.play(_measuring(chain), arrays, x, training=True).statistics for x in batches[:2]]
    batch = {name: np.mean([of[name] for of in seen], 0) for name in seen[0]}
    # by little where many follow one another: they would magnify rounding to what an edit does
    move = min(1.0, 20 / max(1, len(norms)))
    for layer in norms:
        if {"running_mean", "running_var"} <= layer.arrays.keys():
            mean, var = layer.arrays["running_mean"], layer.arrays["running_var"]
            spread = np.sqrt(batch[var]) + 1e-3
            arrays[mean] = batch[mean] + 3 * move * spread * arrays[mean]
            # and squares stay as large as they are on the average of the channels
            larger = 1 + (3 * 0.1 * move) ** 2
            arrays[var] = larger * (batch[var] + 1e-3) / (1 + move * (arrays[var] - 1))
    if chain[-1].op in ("softmax", "log_softmax"):  # of large logits it is 0 and 1, whatever is before it
        spread = live.play(chain[:-1], arrays, batches[0]).output.std()
        *_, last = (layer for layer in layers(chain) if layer.arrays)
        for names in last.arrays.values():
            for name in names.split("+"):
                arrays[name] = arrays[name] / spread
    live.put(arrays)


def _measuring(chain: Chain) -> Chain:
    """The net whose statistics after a pass are the batch's."""
    return with_norms(chain, momentum=1.0, batch="always", unbiased=False)


def filled(chain: Chain, arrays: Arrays) -> tuple[Chain, Arrays]:
    """The chain with arrays for each layer: hers where they fit, drawn ones where she has none or of another shape."""
    given: Arrays = {}

    def fill(item: Item) -> Item:
        if isinstance(item, Join):
            return replace(item, branches=tuple(tuple(map(fill, b)) for b in item.branches))
        names = {}
        for leaf, shape in shapes(item).items():
            name = item.arrays.get(leaf, f"ours: {item.name}.{leaf}")
            parts = name.split("+")
            if all(n in arrays for n in parts) and sum(arrays[n].size for n in parts) == math.prod(shape):
                given.update({n: arrays[n] for n in parts})
            else:
                name = f"{name} {shape}".replace("+", "&")
                given[name] = drawn(name, leaf, shape, item.op in NORMED)
            names[leaf] = name
        return replace(item, arrays=names) if names else item

    return tuple(map(fill, chain)), given
