"""BatchNorm folded into the convolutions before it: the same function in evaluation, without the norms. And kernels
standardised once and for all.

A norm in evaluation mode is an affine map of each channel, and so is a convolution's output of its kernel and bias
(Jacob et al. 2017, arXiv 1712.05877, section 3.2). Which norms those are, says `common.plan.foldable`; here are the
weights, in float64: rounding them to the net's dtype is the only thing that is lost.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from common.arch import Arch
from common.names import parameters
from common.plan import Conv, Norm, foldable, make_plan
from common.weights import Source, Weights, check


def unfolded(arch: Arch) -> Arch:
    """The row with its norms."""
    return replace(arch, folded=False)


def kept(arch: Arch) -> list[str]:
    """The norms that can't be folded, in canonical order: what they normalise, others read, too."""
    return [layer.name for layer in make_plan(replace(arch, folded=True)).layers() if isinstance(layer, Norm)]


def folding(arch: Arch, source: Source) -> Source:
    """Where each tensor of the folded net comes from, `source` having those of the net with norms. Nothing is computed
    before it is asked for; what is, is float64, and the rest as it was."""
    result = dict(source)
    for layer in make_plan(unfolded(arch)).layers():
        if isinstance(layer, Conv) and layer.std_eps:
            result[f"{layer.name}.weight"] = partial(_kernel, source, layer)
    for conv, norm in foldable(make_plan(unfolded(arch))):
        result[f"{conv.name}.weight"] = partial(_weight, source, conv, norm)
        result[f"{conv.name}.bias"] = partial(_bias, source, conv, norm)
    return {name: result[name] for name in parameters(replace(arch, folded=True))}


def fold(arch: Arch, weights: Mapping[str, np.ndarray]) -> Weights:
    """The weights of the folded net, float64 where a norm went into them. Raises RosettaError unless `weights` are
    those of the row with its norms."""
    check(unfolded(arch), weights)
    return {
        name: value() for name, value in folding(arch, {n: partial(np.asarray, w) for n, w in weights.items()}).items()
    }


def _scale(source: Source, norm: Norm) -> np.ndarray:
    gamma, variance = (source[f"{norm.name}.{leaf}"]().astype(np.float64) for leaf in ("weight", "running_var"))
    return gamma / np.sqrt(variance + norm.eps)


def _kernel(source: Source, conv: Conv) -> np.ndarray:
    weight = source[f"{conv.name}.weight"]()
    if not conv.std_eps:
        return weight
    axes = tuple(range(1, weight.ndim))
    weight = weight.astype(np.float64)
    weight = weight - weight.mean(axes, keepdims=True)
    return weight / np.sqrt(np.square(weight).mean(axes, keepdims=True) + conv.std_eps)


def _weight(source: Source, conv: Conv, norm: Norm) -> np.ndarray:
    weight = _kernel(source, conv)
    return weight * _scale(source, norm).reshape(-1, *(1,) * (weight.ndim - 1))


def _bias(source: Source, conv: Conv, norm: Norm) -> np.ndarray:
    beta, mean = (source[f"{norm.name}.{leaf}"]().astype(np.float64) for leaf in ("bias", "running_mean"))
    bias = source[f"{conv.name}.bias"]() if conv.bias else 0.0
    return beta + (bias - mean) * _scale(source, norm)
