"""How weights are carried: mistakes of a porter, which the nets know nothing of."""

import numpy as np

from common.teaching.faults.fault import Side, fault

Weights = dict[str, np.ndarray]
_LEAVES = ("weight", "bias", "running_mean", "running_var")


def _exchange(w: Weights, pairs: list[tuple[str, str]]) -> None:
    for a, b in pairs:
        w[a], w[b] = w[b], w[a]


def _norms(w: Weights) -> list[str]:
    return [name.removesuffix("running_mean") for name in w if name.endswith("running_mean")]


@fault("kernel height and width swapped", "a transpose that fits all the same", "basic", ("forward", "conv1"), 8)
def _(side: Side) -> None:
    side.carried(lambda w: w.update({n: v.swapaxes(2, 3) for n, v in w.items() if v.ndim == 4}))


@fault(
    "kernel in and out swapped", "a transpose that fits where both are equal", "basic", ("forward", "layer1.0.conv1"), 8
)
def _(side: Side) -> None:
    def swap(w: Weights) -> None:
        for n, v in w.items():
            if n.startswith("layer1.0.conv") and v.ndim > 2 and v.shape[0] == v.shape[1]:
                w[n] = v.swapaxes(0, 1)

    side.carried(swap)


@fault("gamma and beta swapped", "scale for shift, in every norm", "basic", ("forward", "bn1"), 8)
def _(side: Side) -> None:
    side.carried(lambda w: _exchange(w, [(f"{n}weight", f"{n}bias") for n in _norms(w)]))


@fault("mean and variance swapped", "running_mean for running_var, made positive", "basic", ("forward", "bn1"), 8)
def _(side: Side) -> None:
    def swap(w: Weights) -> None:
        for n in _norms(w):
            w[f"{n}running_mean"], w[f"{n}running_var"] = w[f"{n}running_var"], np.abs(w[f"{n}running_mean"])

    side.carried(swap)


@fault("memory in another order", "a transposed view saved as if it were contiguous (safetensors issue 825)", "basic",
       ("forward", "conv1"), 7)  # fmt: skip
def _(side: Side) -> None:
    def reordered(w: Weights) -> None:
        for n, v in w.items():
            if v.ndim == 4:  # Keras' order of memory under PyTorch's shape
                w[n] = np.ascontiguousarray(v.transpose(2, 3, 1, 0)).reshape(v.shape)

    side.carried(reordered)


@fault("layers swapped", "two layers of one class and shape change places, as in a file that has order and no names",
       "basic", ("forward", "layer1.0.conv1"), 14)  # fmt: skip
def _(side: Side) -> None:
    side.carried(lambda w: _exchange(w, [("layer1.0.conv1.weight", "layer1.0.conv2.weight")]))


@fault("norms swapped", "bn1 for bn2: nothing at all in a fresh net", "basic", ("forward", "layer1.0.bn1"), 14)
def _(side: Side) -> None:
    pairs = [(f"layer1.0.bn1.{leaf}", f"layer1.0.bn2.{leaf}") for leaf in _LEAVES]
    side.carried(lambda w: _exchange(w, pairs))


@fault(
    "classes in another order", "the same logits, sorted: hidden from a checker that sorts", "basic", ("forward", "fc")
)
def _(side: Side) -> None:
    side.carried(lambda w: w.update({n: w[n][::-1].copy() for n in ("fc.weight", "fc.bias")}))


@fault("a constant on all logits", "hidden from a checker that compares the softmax", "basic", ("forward", "fc"))
def _(side: Side) -> None:
    side.carried(lambda w: w.update({"fc.bias": w["fc.bias"] + 0.1}))


@fault("two logits off, the mean alike", "hidden from a checker that compares means", "basic", ("forward", "fc"))
def _(side: Side) -> None:
    def off(w: Weights) -> None:
        w["fc.bias"][:2] += np.array([0.1, -0.1], w["fc.bias"].dtype)

    side.carried(off)
