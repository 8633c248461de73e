"""Every way in which PyTorch differs from Keras, one function or class a difference.

The twin of keras_impl/layers.py: the same names in the same order. Axes are N C *S (images: N C H W).
"""

import torch
import torch.nn.functional as F
from torch import nn

from common import noise
from common.plan import MOMENTUM, Conv, Linear, Norm, Pool, Shortcut
from torch_impl.model import Module


def identity(x):
    return x


def nothing(x) -> None:
    """A plain net's shortcut."""


def add(y, shortcut):
    """The sum, in `y`'s memory. No backward pass needs the value that is lost: y comes from a norm, a convolution or
    a product."""
    return y if shortcut is None else y.add_(shortcut)


def relu(x):
    # in place, as torchvision: a second activation-sized tensor would cost more than the ReLU
    return F.relu(x, inplace=True)


def relu_layer() -> nn.ReLU:
    return nn.ReLU(inplace=True)


def sigmoid(x):
    return torch.sigmoid(x)


def concat(xs):
    """Joins vectors (N, C) along their channels."""
    return xs[0] if len(xs) == 1 else torch.cat(xs, 1)


def spatial_mean(x, dims: int, keepdims: bool = False):
    """Mean over all positions: (N, C), or (N, C, 1, 1) with `keepdims`."""
    mean = x.mean(tuple(range(2, dims + 2)), keepdim=True)
    return mean if keepdims else mean.flatten(1)  # PyTorch's quantised mean can't drop them itself


def along_channels(v):
    """Vectors (N, C) as signals of one channel, along which a convolution goes."""
    return v.unsqueeze(1)


def of_channels(signal, dims: int):
    """Such signals as numbers of channels, (N, C, 1, 1)."""
    return signal.view(signal.shape[0], -1, *(1,) * dims)


class _Standardised:
    """A convolution whose kernel has mean 0 and variance 1 for each output channel, the variance biased."""

    std_eps = 0.0

    def forward(self, x):
        # PyTorch's norm of batches, in training mode, of one batch of as many channels: so timm's, to the bit
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=self.std_eps)
        return self._conv_forward(x, weight.reshape_as(self.weight), self.bias)


class StdConv1d(_Standardised, nn.Conv1d):
    pass


class StdConv2d(_Standardised, nn.Conv2d):
    pass


def conv(c: Conv) -> nn.Module:
    kinds = (StdConv1d, StdConv2d) if c.std_eps else (nn.Conv1d, nn.Conv2d)
    # PyTorch pads k // 2 on both sides at every stride; Keras has to be made to
    made = kinds[c.dims - 1](c.in_channels, c.out_channels, c.kernel, c.stride, c.padding, c.dilation, c.groups, c.bias)
    if c.std_eps:
        made.std_eps = c.std_eps
    return made


def norm(n: Norm | None) -> nn.Module:
    """The norm, or nothing where it is folded into the convolution before it. A batch is normalised by its biased
    variance; the running variance is the unbiased one."""
    if n is None:
        return nn.Identity()
    if n.groups:
        return nn.GroupNorm(n.groups, n.channels, n.eps)
    return (nn.BatchNorm1d if n.dims == 1 else nn.BatchNorm2d)(n.channels, n.eps, MOMENTUM)


class ConvLinear(nn.Linear):
    """A linear layer added up in a 1x1 convolution's order: timm's resnetv2 has one, and so to the bit its logits."""

    def forward(self, x):
        # every argument by its place: PyTorch's quantization fills in none
        where = (1, 1), (0, 0), (1, 1), 1  # what PyTorch's quantization doesn't fill in
        return F.conv2d(x[..., None, None], self.weight[..., None, None], self.bias, *where).flatten(1)


def linear(c: Linear) -> nn.Linear:
    return (ConvLinear if c.by_conv else nn.Linear)(c.in_features, c.out_features)


class MaxPool(Module):
    """With a border of 0. PyTorch's own counts the border as -inf."""

    def __init__(self, p: Pool):
        super().__init__()
        self.before, self.pool = (p.padding + 1,) * 2 * p.dims, F.max_pool1d if p.dims == 1 else F.max_pool2d
        self.cut, self.window = (..., *(slice(1, -1),) * p.dims), (p.kernel, p.stride)

    def forward(self, x):
        # padded by one too many and cut: ONNX Runtime takes a padding that comes right before a pooling for the
        # pooling's own, whose border is -inf, and is 1e-2 off without a word
        return self.pool(F.pad(x, self.before)[self.cut], *self.window)


class MeanPool(Module):
    """With zeros behind the last position, which count."""

    def __init__(self, p: Pool):
        super().__init__()
        self.behind, self.pool = (0, p.behind) * p.dims, F.avg_pool1d if p.dims == 1 else F.avg_pool2d
        self.window = (p.kernel, p.stride)

    def forward(self, x):
        return self.pool(F.pad(x, self.behind), *self.window)


class Blur(Module):
    """1-2-1 along each axis, each channel by itself, with the border reflected (Zhang 2019)."""

    def __init__(self, p: Pool):
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25], device="cpu")  # also where the net is made on "meta"
        window = line if p.dims == 1 else line[:, None] * line
        self.register_buffer("filter", window.repeat(p.channels, 1, *(1,) * p.dims), persistent=False)
        self.before, self.convolve = (p.padding,) * 2 * p.dims, F.conv1d if p.dims == 1 else F.conv2d
        self.stride, self.channels = p.stride, p.channels

    def forward(self, x):
        x = F.pad(x, self.before, mode="reflect")
        return self.convolve(x, self.filter, stride=self.stride, groups=self.channels)


def pool(p: Pool | None):
    """Nothing where there is none. The border of a maximum counts as -inf, since the stem of a pre-activation net can
    be negative, or as 0. A mean's last window, where it hangs over, is the mean of what there is."""
    if p is None:
        return identity
    if p.kind == "blur":
        return Blur(p)
    if p.kind == "max" and p.zeros:
        return MaxPool(p)
    if p.kind == "max":
        return (nn.MaxPool1d if p.dims == 1 else nn.MaxPool2d)(p.kernel, p.stride, p.padding)
    if p.behind:
        return MeanPool(p)
    if p.kernel == 1:
        return nn.Identity()
    return (nn.AvgPool1d if p.dims == 1 else nn.AvgPool2d)(p.kernel, p.stride, 0, p.ceil, False)


class PadShortcut(Module):
    """Option A of He et al. 2015: each `stride`-th position, zero channels on both sides."""

    def __init__(self, s: Shortcut):
        super().__init__()
        self.stride, self.before, self.after, self.dims = s.stride, s.before, s.after, s.dims

    def forward(self, x):
        x = x[(slice(None), slice(None), *(slice(None, None, self.stride),) * self.dims)]
        return F.pad(x, (0, 0) * self.dims + (self.before, self.after))


class Dropout(nn.Dropout):
    """Zeroes elements at `rate` while training, and scales the others up; the mask can be shared (common/noise.py)."""

    def forward(self, x):
        if self.training and not torch.jit.is_scripting():
            mask = noise.mask(x.shape, self.p)
            if mask is not None:
                return x * torch.as_tensor(mask, dtype=x.dtype, device=x.device)
        return F.dropout(x, self.p, self.training)


class DropPath(nn.Dropout):
    """Stochastic depth: zeroes whole examples. Survivors are scaled up while training, where Huang et al. 2016
    scale down in evaluation: the same expectation, and evaluation needs no rate."""

    def forward(self, x):
        return _drop_examples(x, self.p) if self.training else x


@torch.fx.wrap  # which doesn't know how many axes x has
def _drop_examples(x, rate: float):
    shape = [x.shape[0]] + [1] * (x.ndim - 1)
    if not torch.jit.is_scripting():
        mask = noise.mask(shape, rate)
        if mask is not None:
            return x * torch.as_tensor(mask, dtype=x.dtype, device=x.device)
    return x * F.dropout(x.new_ones(shape), rate)


def dropout(rate: float):
    return Dropout(rate) if rate else identity


def drop_path(rate: float):
    return DropPath(rate) if rate else identity
