"""Weights to start from, drawn once for both frameworks: the same seed gives both the same net, to the bit."""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

import numpy as np

from common.arch import Arch
from common.fold import fold, folding, unfolded
from common.names import Shape, layer_parameters, parameters
from common.plan import Layer, Linear, Norm, make_plan
from common.weights import Source, Weights, check

Finish = Callable[[np.ndarray], np.ndarray]
Initialisation = Literal["he", "xavier"]


def _rng(seed: int, name: str) -> np.random.Generator:
    # one stream a tensor, so that a tensor doesn't depend on which others the net has
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def draw_ahead(arch: Arch, seed: int, finish: Finish = lambda w: w, how: Initialisation = "he") -> Source:
    """`initial`, each tensor being drawn by other threads when it is asked for: numpy draws without holding Python's
    lock, so that building a net and drawing its weights take the time of the longer. `finish` is applied there too."""
    if arch.folded:
        return _finished(folding(arch, draw_ahead(unfolded(arch), seed, how=how)), finish)

    pool = ThreadPoolExecutor(2)
    drawn = _drawn(make_plan(arch).layers(), seed, how)
    source = {name: pool.submit(_finish, draw, finish).result for name, draw in drawn.items()}
    pool.shutdown(wait=False)
    return source


def classifier(arch: Arch, seed: int, finish: Finish = lambda w: w) -> Source:
    """The classifier's tensors of `draw_ahead` alone; none where the row has no classifier."""
    fc = make_plan(arch).fc
    return _finished(_drawn([fc] if fc else [], seed, "he"), finish)


def _drawn(layers: Iterable[Layer], seed: int, how: Initialisation) -> Source:
    """Each tensor of these layers, drawn when it is asked for."""

    def draw(layer: Layer, leaf: str, shape: Shape) -> np.ndarray:
        if isinstance(layer, Norm):
            return np.full(shape, leaf in ("weight", "running_var"), np.float32)
        if leaf == "bias":
            return np.zeros(shape, np.float32)
        rng = _rng(seed, f"{layer.name}.{leaf}")
        if how == "xavier":
            weight = 2 * rng.random(shape, np.float32) - 1
            scale = math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
        else:
            weight = rng.standard_normal(shape, np.float32)
            variance = 1 / shape[1] if isinstance(layer, Linear) else 2 / (shape[0] * math.prod(shape[2:]))
            scale = math.sqrt(variance)
        weight *= np.float32(scale)
        return weight

    return {
        f"{layer.name}.{leaf}": partial(draw, layer, leaf, shape)
        for layer in layers
        for leaf, shape in layer_parameters(layer).items()
    }


def given(arch: Arch, weights: Mapping[str, np.ndarray], finish: Finish = lambda w: w) -> Source:
    """`weights` as a source; a folded net takes those of the net with norms, too. Raises RosettaError unless they have
    just the row's names and shapes, all floats."""
    source: Source = {name: partial(np.asarray, w) for name, w in weights.items()}
    if arch.folded and weights.keys() > parameters(unfolded(arch)).keys() - parameters(arch).keys():
        check(unfolded(arch), weights)
        source = folding(arch, source)
    else:
        check(arch, weights)
    return _finished(source, finish)


def _finished(source: Source, finish: Finish) -> Source:
    return {name: partial(_finish, value, finish) for name, value in source.items()}


def _finish(value: Callable[[], np.ndarray], finish: Finish) -> np.ndarray:
    return finish(value())


def initial(arch: Arch, seed: int, how: Initialisation = "he") -> Weights:
    """He initialisation: untruncated normal, variance 2 / fan-out, biases 0, BatchNorm 1 and 0 (float32).

    He et al. 2015, arXiv 1502.01852, equation 14; fan-out = output channels * kernel size, groups not
    divided out, as torch.nn.init.kaiming_normal_(mode="fan_out") counts it. The classifier, which no ReLU follows, has
    1 / fan-in: by its 10 outputs its logits would be so large that the loss began at 7.7 where ln 10 is 2.3.

    "xavier" draws every weight uniformly within the root of 6 / (fan-in + fan-out) (Glorot and Bengio 2010, equation
    16), as torch.nn.init.xavier_uniform_ does, which Dive into Deep Learning applies to convolutions and classifier.
    """
    return {name: draw().astype(np.float32, copy=False) for name, draw in draw_ahead(arch, seed, how=how).items()}


def randomised(arch: Arch, seed: int = 0) -> Weights:
    """Weights under which every mistake shows (float32): nothing is 0, 1 or equal to its neighbour.

    Fresh BatchNorms hide a swap of any two of them. Here scales are in (0.5, 1.5), variances too, and means
    and biases are normal. A block's last scale is divided by the root of the number of blocks, so that even
    a thousand of them neither explode nor vanish.
    """
    if arch.folded:
        return {n: w.astype(np.float32) for n, w in fold(arch, randomised(unfolded(arch), seed)).items()}
    weights = initial(arch, seed)
    plan = make_plan(arch)
    blocks = [block for trunk in plan.trunks for stage in trunk.stages for block in stage.blocks]
    calm = 1 / math.sqrt(len(blocks))
    # in a plain net, nothing is added up
    ends = [] if arch.shortcut == "none" else [(b.convs if arch.preact else b.norms)[-1] for b in blocks]
    last = {layer.name for layer in ends if layer}
    for name, value in weights.items():
        layer, leaf = name.rsplit(".", 1)
        rng = _rng(seed + 1, name)
        if leaf == "running_var" or (leaf == "weight" and value.ndim == 1):
            value[:] = rng.uniform(0.5, 1.5, value.shape)
        elif leaf in ("bias", "running_mean"):
            value[:] = rng.normal(0, 0.1, value.shape)
        if leaf == "weight" and layer in last:
            value *= calm
    return weights
