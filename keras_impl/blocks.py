"""The residual blocks. The twin of this file in the other package has the same text, `forward` or `call` apart.

Every number comes from common/plan.py, every difference between the frameworks is in layers.py.
"""

from common import plan

from .layers import (
    PadShortcut,
    add,
    along_channels,
    conv,
    drop_path,
    dropout,
    identity,
    norm,
    nothing,
    of_channels,
    pool,
    relu,
    sigmoid,
    spatial_mean,
)
from .model import Module, sequential


class BasicBlock(Module):
    """3x3, 3x3 (He et al. 2015, figure 5 left)."""

    def __init__(self, b: plan.Block):
        super().__init__(b.name)
        (c1, c2), (n1, n2) = b.convs, b.norms
        self.conv1, self.bn1 = conv(c1), norm(n1)
        self.conv2, self.bn2 = conv(c2), norm(n2)
        self.se = attention(b.se)
        self.downsample = shortcut(b.shortcut)
        self.antialias, self.dropout = pool(b.antialias), dropout(b.dropout)
        self.drop_path = drop_path(b.drop_path)

    def call(self, x):
        y = relu(self.bn1(self.conv1(x)))  # N H W C -> N H/s W/s width
        y = self.se(self.bn2(self.conv2(self.dropout(self.antialias(y)))))
        return relu(add(self.drop_path(y), self.downsample(x)))


class Bottleneck(Module):
    """1x1, 3x3, 1x1 (He et al. 2015, figure 5 right); the plan says which of the first two strides."""

    def __init__(self, b: plan.Block):
        super().__init__(b.name)
        (c1, c2, c3), (n1, n2, n3) = b.convs, b.norms
        self.conv1, self.bn1 = conv(c1), norm(n1)
        self.conv2, self.bn2 = conv(c2), norm(n2)
        self.conv3, self.bn3 = conv(c3), norm(n3)
        self.se = attention(b.se)
        self.downsample = shortcut(b.shortcut)
        self.antialias, self.dropout = pool(b.antialias), dropout(b.dropout)
        self.drop_path = drop_path(b.drop_path)

    def call(self, x):
        y = relu(self.bn1(self.conv1(x)))  # N H W C -> N H W inner
        y = relu(self.bn2(self.conv2(y)))  # N H/s W/s inner
        y = self.se(self.bn3(self.conv3(self.dropout(self.antialias(y)))))  # N H/s W/s 4*width
        return relu(add(self.drop_path(y), self.downsample(x)))


class PreActBasicBlock(Module):
    """BN-ReLU before each 3x3 (He et al. 2016, figure 1 right)."""

    def __init__(self, b: plan.Block):
        super().__init__(b.name)
        (c1, c2), (n1, n2) = b.convs, b.norms
        self.bn1, self.conv1 = norm(n1), conv(c1)
        self.bn2, self.conv2 = norm(n2), conv(c2)
        self.se = attention(b.se)
        self.downsample, self.of_preactivation = shortcut(b.shortcut), b.shortcut.of_preactivation
        self.antialias, self.dropout = pool(b.antialias), dropout(b.dropout)
        self.drop_path = drop_path(b.drop_path)

    def call(self, x):
        p = relu(self.bn1(x))
        y = relu(self.bn2(self.conv1(p)))  # N H W C -> N H/s W/s width
        y = self.se(self.conv2(self.dropout(self.antialias(y))))
        return add(self.drop_path(y), self.downsample(p if self.of_preactivation else x))


class PreActBottleneck(Module):
    """BN-ReLU before each of 1x1, 3x3, 1x1 (He et al. 2016, section 4)."""

    def __init__(self, b: plan.Block):
        super().__init__(b.name)
        (c1, c2, c3), (n1, n2, n3) = b.convs, b.norms
        self.bn1, self.conv1 = norm(n1), conv(c1)
        self.bn2, self.conv2 = norm(n2), conv(c2)
        self.bn3, self.conv3 = norm(n3), conv(c3)
        self.se = attention(b.se)
        self.downsample, self.of_preactivation = shortcut(b.shortcut), b.shortcut.of_preactivation
        self.antialias, self.dropout = pool(b.antialias), dropout(b.dropout)
        self.drop_path = drop_path(b.drop_path)

    def call(self, x):
        p = relu(self.bn1(x))
        y = relu(self.bn2(self.conv1(p)))  # N H W C -> N H W inner
        y = relu(self.bn3(self.conv2(y)))  # N H/s W/s inner
        y = self.se(self.conv3(self.dropout(self.antialias(y))))  # N H/s W/s 4*width
        return add(self.drop_path(y), self.downsample(p if self.of_preactivation else x))


BLOCKS = {cls.__name__: cls for cls in (BasicBlock, Bottleneck, PreActBasicBlock, PreActBottleneck)}


class SqueezeExcite(Module):
    """Scales each channel by what the means of all say of it (Hu et al. 2017, figure 3)."""

    def __init__(self, se: plan.SqueezeExcite):
        super().__init__()
        self.fc1, self.fc2, self.dims = conv(se.fc1), conv(se.fc2), se.fc1.dims

    def call(self, x):
        s = spatial_mean(x, self.dims, keepdims=True)  # N 1 1 C
        return x * sigmoid(self.fc2(relu(self.fc1(s))))


class ChannelAttention(Module):
    """Scales each channel by what the means of its neighbours say of it (Wang et al. 2019, figure 2)."""

    def __init__(self, se: plan.ChannelAttention):
        super().__init__()
        self.conv, self.dims = conv(se.conv), se.dims

    def call(self, x):
        s = along_channels(spatial_mean(x, self.dims))
        return x * sigmoid(of_channels(self.conv(s), self.dims))  # N 1 1 C


def attention(se: plan.SqueezeExcite | plan.ChannelAttention | None):
    if se is None:
        return identity
    return (SqueezeExcite if isinstance(se, plan.SqueezeExcite) else ChannelAttention)(se)


def shortcut(s: plan.Shortcut):
    """What is added to a block's branch: always called, also where it is the input itself or nothing."""
    if s.kind == "none":
        return nothing
    if s.kind == "identity":
        return identity
    if s.kind == "pad":
        return PadShortcut(s)
    layers = [pool(s.pool)] if s.pool else []
    layers.append(conv(s.conv))
    if s.norm:
        layers.append(norm(s.norm))
    return sequential(*layers)
