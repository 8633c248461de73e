"""A tree of `common/diagnosis/parse.py` computed. The twin of keras_impl/play.py.

Axes are N C *S. This is written from what each operation means, and shares nothing with the nets in `layers.py`.
"""

import numpy as np
import torch
import torch.nn.functional as F

from common.diagnosis.parse import Chain, Join, Layer
from common.diagnosis.tape import Arrays, Ran
from torch_impl.model import to_numpy


def play(chain: Chain, arrays: Arrays, x: np.ndarray, training: bool = False) -> Ran:
    """What `chain` puts out for `x`, as `Live.run` does. Raises NotImplementedError for an op that it doesn't know."""
    tensors = {n: torch.from_numpy(np.asarray(a, np.float64)) for n, a in arrays.items()}
    trained = {
        n: t.requires_grad_(training) for n, t in tensors.items() if not n.endswith(("running_mean", "running_var"))
    }
    player = Player(tensors, training)
    with torch.set_grad_enabled(training):
        tensor = torch.from_numpy(np.array(x, np.float64)).requires_grad_(training)
        output = player.chain(chain, tensor)
    gradients = {}
    if training:
        leaves = {"": tensor} | trained
        found = torch.autograd.grad(output.square().mean() / 2, list(leaves.values()), allow_unused=True)
        gradients = {n: to_numpy(g) for n, g in zip(leaves, found, strict=True) if g is not None}
    statistics = {n: to_numpy(t.detach()) for n, t in player.statistics.items()}
    return Ran(to_numpy(output.detach()), statistics, gradients)


class Player:
    """`tensors` are the arrays by name; `statistics` are those that a pass in training mode leaves."""

    def __init__(self, tensors: dict[str, torch.Tensor], training: bool):
        self.tensors, self.training = tensors, training
        self.statistics: dict[str, torch.Tensor] = {}

    def chain(self, chain: Chain, x):
        for item in chain:
            x = self.join(item, x) if isinstance(item, Join) else self.layer(item, x)
        return x

    def join(self, join: Join, x):
        y, *others = [self.chain(branch, x) for branch in join.branches]
        if join.op not in ("add", "mul", "concat"):
            raise NotImplementedError(join.op)
        if join.op == "concat":
            return torch.cat([y, *others], 1)
        for other in others:
            y = y + other if join.op == "add" else y * other
        return y

    def layer(self, layer: Layer, x):
        compute = getattr(self, layer.op, None)
        if compute is None or layer.op.startswith("_"):
            raise NotImplementedError(layer.op)
        return compute(x, layer.attributes, {leaf: self.array(name) for leaf, name in layer.arrays.items()}, layer)

    def array(self, names: str):
        parts = [self.statistics.get(n, self.tensors[n]) for n in names.split("+")]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def conv(self, x, a, w, layer):
        x, n = padded(x, a, 0.0), x.ndim - 2
        weight = w["weight"].reshape(*w["weight"].shape[:2], *a["kernel"])
        if (eps := a.get("standardised")) is not None:
            weight = normed(weight, tuple(range(1, n + 2)), eps)
        of = F.conv1d if n == 1 else F.conv2d
        return of(x, weight, w.get("bias"), tuple(a["stride"]), 0, tuple(a["dilation"]), a["groups"])

    def linear(self, x, a, w, layer):
        return F.linear(x, w["weight"].flatten(1), w.get("bias"))

    def norm(self, x, a, w, layer):
        axes = (0, *range(2, x.ndim))
        if a["batch"] == "always" or (a["batch"] == "in training" and self.training) or "running_mean" not in w:
            mean = x.mean(axes, keepdim=True)
            var = (x - mean).square().mean(axes, keepdim=True)
            n = x.numel() // x.shape[1]
            batch = {"running_mean": mean, "running_var": var * (n / (n - 1) if a["unbiased"] else 1.0)}
            for leaf in batch if self.training else ():
                if leaf in w:
                    new = (1 - a["momentum"]) * w[leaf] + a["momentum"] * batch[leaf].reshape(-1)
                    self.statistics[layer.arrays[leaf]] = new.detach()
        else:
            mean, var = spread(w["running_mean"], x), spread(w["running_var"], x)
        y = (x - mean) / (var + a["eps"]).sqrt()
        return self.affine(y, a, w, layer)

    def group_norm(self, x, a, w, layer):
        return self.affine(by_groups(x, a["groups"], a["eps"]), a, w, layer)

    def affine(self, x, a, w, layer):
        if "weight" in w:
            x = x * spread(w["weight"], x)
        return x + spread(w["bias"], x) if "bias" in w else x

    def max_pool(self, x, a, w, layer):
        x = padded(x, a, a["value"])
        of = F.max_pool1d if x.ndim == 3 else F.max_pool2d
        return of(x, tuple(a["kernel"]), tuple(a["stride"]), ceil_mode=a["ceil"])

    def avg_pool(self, x, a, w, layer):
        """Sums over how much there is: of the input, and of its border too where that counts."""
        ones, x = padded(torch.ones_like(x[:1, :1]), a, float(a["counts"])), padded(x, a, 0.0)
        if a["ceil"] and a["before"] != "same":
            more = [
                (-(n - k) % s if (-(-(n - k) // s)) * s < n - e else 0)
                for n, k, s, e in zip(x.shape[2:], a["kernel"], a["stride"], a["after"], strict=True)
            ]
            x, ones = (pad(t, (0,) * len(more), more, 0.0) for t in (x, ones))
        of = F.avg_pool1d if x.ndim == 3 else F.avg_pool2d
        return of(x, tuple(a["kernel"]), tuple(a["stride"])) / of(ones, tuple(a["kernel"]), tuple(a["stride"]))

    def adaptive_pool(self, x, a, w, layer):
        of = {
            "mean": (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d),
            "max": (F.adaptive_max_pool1d, F.adaptive_max_pool2d),
        }
        return of[a["kind"]][x.ndim - 3](x, tuple(a["size"]))

    def mean(self, x, a, w, layer):
        if a["at"]:
            kernel, stride = a["at"]
            return (F.avg_pool1d if x.ndim == 3 else F.avg_pool2d)(x, kernel, stride)
        return x.mean(tuple(range(2, x.ndim)), keepdim=True)

    def global_max(self, x, a, w, layer):
        return x.amax(tuple(range(2, x.ndim)), keepdim=True)

    def cast(self, x, a, w, layer):
        return x.to(getattr(torch, a["dtype"]))

    def max(self, x, a, w, layer):
        return x.amax(tuple(a["axes"]), keepdim=a["keepdims"])

    def flatten(self, x, a, w, layer):
        return (x if a["order"] != "SC" else x.movedim(1, -1)).flatten(1)

    def unflatten(self, x, a, w, layer):
        return x[..., None, None]

    def along_channels(self, x, a, w, layer):
        return x.flatten(1)[:, None]

    def of_channels(self, x, a, w, layer):
        return x[:, 0].reshape(*x[:, 0].shape, *(1,) * a["axes"])

    def subsample(self, x, a, w, layer):
        return x[(..., *(slice(None, None, s) for s in a["stride"]))]

    def pad_channels(self, x, a, w, layer):
        return F.pad(x, (0, 0) * (x.ndim - 2) + (a["before"], a["after"]))

    def pad(self, x, a, w, layer):
        return pad(x, a["before"][2:], a["after"][2:], a["value"], a.get("mode", "constant"))

    def blur(self, x, a, w, layer):
        line = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype)
        window = (line if x.ndim == 3 else line[:, None] * line).repeat(x.shape[1], 1, *(1,) * (x.ndim - 2))
        return (F.conv1d if x.ndim == 3 else F.conv2d)(x, window, None, a["stride"], groups=x.shape[1])

    def slice(self, x, a, w, layer):
        index = [slice(None)] * x.ndim
        index[a["axis"]] = slice(a["start"], a["stop"], a["step"])
        return x[tuple(index)]

    def index(self, x, a, w, layer):
        return x.select(a["axis"], a["at"])

    def take(self, x, a, w, layer):
        return x.index_select(a["axis"], torch.tensor(a["indices"]))

    def transpose(self, x, a, w, layer):
        return x.permute(a["axes"])

    def shift(self, x, a, w, layer):
        return x + torch.as_tensor(a["by"])

    def scale(self, x, a, w, layer):
        return x * torch.as_tensor(a["by"])

    def dropout(self, x, a, w, layer):
        return x * (1 - a["rate"]) if self.training and a.get("scaled") is False else x  # no run draws masks

    def softmax(self, x, a, w, layer):
        return x.softmax(a["axis"])

    def log_softmax(self, x, a, w, layer):
        return x.log_softmax(a["axis"])

    def relu(self, x, a, w, layer):
        return x.relu()

    def relu6(self, x, a, w, layer):
        return x.clamp(0, 6)

    def sigmoid(self, x, a, w, layer):
        return x.sigmoid()

    def hard_sigmoid(self, x, a, w, layer):
        return F.hardsigmoid(x)  # PyTorch's own, whose sixth is one of float32

    def tanh(self, x, a, w, layer):
        return x.tanh()

    def gelu(self, x, a, w, layer):
        return F.gelu(x)

    def silu(self, x, a, w, layer):
        return F.silu(x)

    def leaky_relu(self, x, a, w, layer):
        return F.leaky_relu(x, a["negative_slope"])

    def elu(self, x, a, w, layer):
        return F.elu(x, a["alpha"])


def normed(x, axes: tuple[int, ...], eps: float):
    """With mean 0 and variance 1 over these axes."""
    x = x - x.mean(axes, keepdim=True)
    return x / (x.square().mean(axes, keepdim=True) + eps).sqrt()


def by_groups(x, groups: int, eps: float):
    """Normed over each example's positions and each group's channels."""
    return normed(x.reshape(len(x), groups, -1), (2,), eps).reshape(x.shape)


def padded(x, a, value: float):
    """Padded as the attributes say; "same" so that there is a window for each `stride`, the odd one behind."""
    if a["before"] != "same":
        return pad(x, a["before"], a["after"], value)
    sides = list(zip(x.shape[2:], a["kernel"], a["stride"], a.get("dilation", (1,) * len(a["kernel"])), strict=True))
    total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sides]
    return pad(x, [t // 2 for t in total], [t - t // 2 for t in total], value)


def pad(x, before, after, value: float, mode: str = "constant"):
    if not any((*before, *after)):
        return x
    widths = [w for b, a in zip(before, after, strict=True) for w in (a, b)][::-1]
    return F.pad(x, widths, mode, value if mode == "constant" else None)


def spread(channels, x):
    """A number a channel, or one for all, against N C *S."""
    return channels.reshape(1, -1, *(1,) * (x.ndim - 2))
