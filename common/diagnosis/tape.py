"""The tape: what a net calls when it runs, one record a call, in one vocabulary for both frameworks.

`torch_impl/tape.py` and `keras_impl/tape.py` are the two recorders. Each turns its framework's calls into the records
below, one by one, and understands nothing of nets: what a call means beside its neighbours is `normal.py`'s to say.
So a recorder writes down an average pooling over all there is as an average pooling, and a reshape as a reshape.

Axes are N C *S everywhere, whatever the framework's are: a recorder turns axis numbers, shapes and kernels around, and
arrays are in PyTorch's layout. A tensor is a number; 0 is the net's input. A call that changes its input in place gets
a new number for what comes out. What isn't in the vocabulary is recorded all the same, under the framework's own name
with a question mark before it ("?torch.roll"): nothing may be left out between an input and an output.

    op              attributes; arrays after the semicolon
    conv            kernel, stride, before, after, dilation: one number an axis of S; groups;
                    standardised: the epsilon of (w - mean) / sqrt(variance + epsilon), of each output's weights,
                    where the kernel is that; weight (O, I / groups, *K), bias
    norm            eps; momentum: the batch's share of new statistics, 0.1 in PyTorch and 0.01 for Keras' 0.99;
                    batch: the batch's statistics are used, and not the running ones; unbiased: so is the running
                    variance (None: it isn't, as Keras' own layer has it); gradient: False where none goes through
                    the batch's; weight, bias, running_mean, running_var
    group_norm      groups, eps; weight, bias
    linear          over the last axis; weight (O, I), bias
    affine          x * weight + bias, each channel its own; weight, bias
    relu, sigmoid, tanh, gelu, silu, relu6, leaky_relu, elu, hard_sigmoid, ...: what they have, as slope
    max_pool        kernel, stride, before, after, ceil (a last window that isn't full counts), value: the border's
    avg_pool        kernel, stride, before, after, ceil, counts: the border is part of the mean
    adaptive_pool   size: of the output, one number an axis of S; kind: "mean" or "max"
    mean, max       axes, keepdims
    pad             before, after: one number an axis, N and C among them; value; mode, unless it is a constant
    slice           axis, start, stop, step; never negative; a call that cuts several axes is several records
    index           axis, at: one position, whose axis is gone
    take            axis, indices: channels in another order, or reversed
    split           axis, sizes; as many outputs
    concat          axis; several inputs
    reshape         shape; order: "CS" where what is flattened has the channels first, "SC" where they are last
    transpose       axes
    add, sub, mul, div: two inputs
    shift, scale    by: a number, or an array that broadcasts against N C *S: x + by, x * by
    softmax, log_softmax: axis
    dropout         rate; shared: the axes along which one mask holds ((2, 3) drops channels, (1, 2, 3) examples)
    cast            dtype
    identity        also for copies, contiguous, detach and the like

Any op may have `still`: leaves of its arrays that no gradient reaches. A recording draws no masks: the recorder lets
every dropout pass its input through, and writes its rate down. A fused activation is a record of its own, and so is an
explicit padding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

INPUT = 0
MEANT = ("logits", "out", "pooler_output")  # which of several outputs a net's user reads
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Call:
    """One call: `op` and `attributes` as the module's table has them."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shape: tuple[int, ...]  # of the first output, N C *S
    attributes: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, str] = field(default_factory=dict)  # {"weight": the name of the tensor in her net}
    layer: str = ""  # her name of the innermost layer that calls, as "layer1.0.conv1"; empty for the net itself
    where: str = ""  # "my_net.py:67", the innermost line of her own files; empty where there is none


@dataclass(frozen=True)
class Tape:
    """One run of a net. `outputs` are all tensors that it gives, the one that is meant first; `names` say what she
    calls them where she does ("logits")."""

    calls: tuple[Call, ...]
    outputs: tuple[int, ...]
    shape: tuple[int, ...]  # of the input, N C *S
    names: tuple[str, ...] = ()


def tensors_of(result: Any, is_tensor: Callable[[Any], bool]) -> tuple[list[Any], tuple[str, ...]]:
    """All tensors of what a net gives, with their names, the one that is meant first."""
    found: list[tuple[str, Any]] = []

    def walk(value: Any, name: str) -> None:
        if is_tensor(value):
            found.append((name, value))
        elif isinstance(value, dict):
            for key, part in value.items():
                walk(part, str(key))
        elif isinstance(value, list | tuple):
            for part in value:
                walk(part, name)

    walk(result, "")
    if not found:
        raise TypeError(f"the net gives {type(result).__name__}, where a tensor is expected")
    found.sort(key=lambda item: MEANT.index(item[0]) if item[0] in MEANT else len(MEANT))
    return [t for _, t in found], tuple(n for n, _ in found)


@dataclass(frozen=True)
class Ran:
    """What a run puts out: N C *S or N classes, in float64. In training mode the running statistics after it too, by
    her names, and the gradient of half the mean square of the output by each parameter and, as "", by the input."""

    output: np.ndarray
    statistics: Arrays
    gradients: Arrays


class Live(Protocol):
    """A net that runs in float64: a copy of hers, or hers itself, which is as it was whenever it doesn't run. Each
    recorder has a class of this kind."""

    def arrays(self) -> Arrays:
        """Every parameter and statistic by her names, in PyTorch's layout; floats alone."""

    def put(self, arrays: Arrays) -> None:
        """Sets those that are named."""

    def record(self, x: np.ndarray, training: bool = False) -> Tape:
        """One run of `x` (N C *S), written down. The statistics are then as they were before."""

    def run(self, x: np.ndarray, training: bool = False) -> Ran:
        """One run of `x` without masks. The statistics are then as they were before."""

    def play(self, chain: Any, arrays: Arrays, x: np.ndarray, training: bool = False) -> Ran:
        """What a tree of parse.py (`Chain`) computes of `x`, in the net's framework: `torch_impl/play.py` is one."""


def standardised(kernel: np.ndarray, arrays: Arrays) -> tuple[str, float] | None:
    """Whether a kernel (O, I / groups, *K) that was computed is one of these arrays with mean 0 and variance 1 for each
    output, (w - mean) / sqrt(variance + epsilon): its name and the epsilon."""
    made = kernel.reshape(len(kernel), -1)
    for name, array in arrays.items():
        if array.shape != kernel.shape or made.shape[1] < 2:
            continue
        rows = array.reshape(made.shape)
        rows, variance = rows - rows.mean(1, keepdims=True), rows.var(1, keepdims=True)
        at = np.abs(made).argmax(1)[:, None]
        ratio = np.take_along_axis(rows, at, 1) / np.take_along_axis(made, at, 1)
        epsilon = float(f"{max(0.0, np.median(ratio**2 - variance)):.6g}")
        if np.allclose(rows / np.sqrt(variance + epsilon), made, rtol=1e-9, atol=1e-12):
            return name, epsilon
    return None
