"""Named variants, above all those that no library here has, against nets that are written from their papers.

Nothing below reads the plan: depths, widths, strides, shortcuts and rates are the papers'. Batch normalisation is
written out, so that training mode and the running statistics have a witness, too. Weights go by canonical name, and
every one of them has to be used.

[1] He et al. 2015, arXiv 1512.03385       [2] He et al. 2016, arXiv 1603.05027
[3] Xie et al. 2016, arXiv 1611.05431      [4] Zagoruyko and Komodakis 2016, arXiv 1605.07146
[5] He et al. 2018, arXiv 1812.01187       [6] Hu et al. 2017, arXiv 1709.01507
[7] Huang et al. 2016, arXiv 1603.09382    [8] geekfeiw/Multi-Scale-1D-ResNet
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import relative
from torch.nn import functional as F

import torch_impl
from common import noise
from common.arch import Arch, get
from common.init import randomised

MASKS = 7  # the seed of the shared masks


class Net:
    """The layers of a paper by their names, in float64, in evaluation or training mode."""

    def __init__(self, weights: dict[str, np.ndarray], training: bool):
        self.w = {name: torch.from_numpy(w.astype(np.float64)) for name, w in weights.items()}
        self.training, self.used, self.moved = training, set(), {}
        self.rng = np.random.default_rng(MASKS)

    def __getitem__(self, name: str) -> torch.Tensor:
        self.used.add(name)
        return self.w[name]

    def conv(self, x, name, stride=1, padding=0, groups=1):
        convolve = F.conv1d if x.ndim == 3 else F.conv2d
        bias = self[f"{name}.bias"] if f"{name}.bias" in self.w else None
        return convolve(x, self[f"{name}.weight"], bias, stride, padding, groups=groups)

    def bn(self, x, name):
        """Ioffe and Szegedy 2015, algorithms 1 and 2; running statistics keep 9 parts of 10, the variance unbiased."""
        axes, shape = (0, *range(2, x.ndim)), (1, -1, *(1,) * (x.ndim - 2))
        mean, var = self[f"{name}.running_mean"], self[f"{name}.running_var"]
        if self.training:
            n = x.numel() // x.shape[1]
            kept = mean, var
            mean = x.sum(axes) / n
            var = ((x - mean.view(shape)) ** 2).sum(axes) / n
            self.moved[f"{name}.running_mean"] = 0.9 * kept[0] + 0.1 * mean
            self.moved[f"{name}.running_var"] = 0.9 * kept[1] + 0.1 * var * n / (n - 1)
        x = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
        return x * self[f"{name}.weight"].view(shape) + self[f"{name}.bias"].view(shape)

    def dropped(self, x, rate, by_example=False):
        """0 with probability `rate`, else up by 1 / (1 - rate), so that the mean stays: Srivastava et al. 2014."""
        if not (self.training and rate):
            return x
        shape = (len(x), *(1,) * (x.ndim - 1)) if by_example else tuple(x.shape)
        return torch.where(torch.from_numpy(self.rng.random(shape) < rate), 0.0, x / (1 - rate))

    def se(self, x, name):
        """[6], figure 3 and equations 2 to 4; nothing where the block has none."""
        if f"{name}.fc1.weight" not in self.w:
            return x
        z = x.mean(tuple(range(2, x.ndim)), keepdim=True)
        return x * torch.sigmoid(self.conv(F.relu(self.conv(z, f"{name}.fc1")), f"{name}.fc2"))

    def head(self, *pooled):
        return F.linear(torch.cat([x.flatten(2).mean(2) for x in pooled], 1), self["fc.weight"], self["fc.bias"])


def option_a(x, stride, channels):
    """[1], section 3.3: every other pixel, and channels of 0 on both sides, an odd one behind (docs/DESIGN.md)."""
    step = (slice(None, None, stride),) * (x.ndim - 2)
    x = x[(slice(None), slice(None), *step)]
    wide = x.new_zeros(len(x), channels, *x.shape[2:])
    front = (channels - x.shape[1]) // 2
    wide[:, front : front + x.shape[1]] = x
    return wide


def mean_of_four(x):
    """[5], figure 2(c): 2x2 average pooling of stride 2; at an odd edge the mean of what there is."""
    n, c, h, w = x.shape
    total, count = x.new_zeros(2, n, c, (h + 1) // 2, (w + 1) // 2)
    for i in (0, 1):
        for j in (0, 1):
            part = x[:, :, i::2, j::2]
            total[:, :, : part.shape[2], : part.shape[3]] += part
            count[:, :, : part.shape[2], : part.shape[3]] += 1
    return total / count


def stem_imagenet(net, x):
    """[1], Table 1: 7x7 of stride 2, norm, ReLU, 3x3 max pooling of stride 2."""
    x = F.relu(net.bn(net.conv(x, "conv1", 2, 3), "bn1"))
    return (F.max_pool1d if x.ndim == 3 else F.max_pool2d)(x, 3, 2, 1)


def stem_deep(net, x):
    """[5], figure 2(b): three 3x3 of 32, 32 and 64 channels, the first of stride 2, for the 7x7."""
    for i, stride in ((0, 2), (3, 1)):
        x = F.relu(net.bn(net.conv(x, f"conv1.{i}", stride, 1), f"conv1.{i + 1}"))
    x = F.relu(net.bn(net.conv(x, "conv1.6", 1, 1), "bn1"))
    return F.max_pool2d(x, 3, 2, 1)


def stem_cifar(net, x):
    """[1], section 4.2: 3x3, norm, ReLU."""
    return F.relu(net.bn(net.conv(x, "conv1", 1, 1), "bn1"))


def he2015(net, x, depths, widths, *, block, stem, shortcut="B", strides_on="3x3", groups=1, inner=lambda w: w,
           dropout=0.0, last_rate=0.0):  # fmt: skip
    """[1]: y = relu(F(x) + shortcut); [3]'s groups; [7]'s survival 1 - l / L * (1 - p_L) of the l-th of L blocks."""
    x, done = stem(net, x), 0
    for s, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for b in range(depth):
            done += 1
            name, stride = f"layer{s + 1}.{b}", 2 if s > 0 and b == 0 else 1
            out = width if block == "basic" else 4 * width
            if block == "basic":
                y = F.relu(net.bn(net.conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1"))
                assert y.shape[1] == width
                y = net.bn(net.conv(net.dropped(y, dropout), f"{name}.conv2", 1, 1), f"{name}.bn2")
            else:
                first, second = (stride, 1) if strides_on == "1x1" else (1, stride)
                y = F.relu(net.bn(net.conv(x, f"{name}.conv1", first), f"{name}.bn1"))
                assert y.shape[1] == inner(width)
                y = F.relu(net.bn(net.conv(y, f"{name}.conv2", second, 1, groups), f"{name}.bn2"))
                y = net.bn(net.conv(net.dropped(y, dropout), f"{name}.conv3"), f"{name}.bn3")
            y = net.dropped(net.se(y, f"{name}.se"), last_rate * done / sum(depths), by_example=True)
            if shortcut == "C" or (shortcut == "B" and (stride > 1 or x.shape[1] != out)):
                x = net.bn(net.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            elif shortcut == "A":
                x = option_a(x, stride, out)
            elif shortcut == "vd" and b == 0:
                x = mean_of_four(x) if stride > 1 else x
                x = net.bn(net.conv(x, f"{name}.downsample.1"), f"{name}.downsample.2")
            x = F.relu(y if shortcut == "none" else y + x)
    return net.head(x)


def he2016(net, x, depths, widths, *, block, imagenet=False, shortcut="B", dropout=0.0, last_rate=0.0):
    """[2], figure 4(e): norm and ReLU before each convolution, one more of both at the end. What is added is x itself;
    where it has to be projected, as in the authors' and timm's code, the projection of relu(bn(x)).

    (The paper's appendix has the very first block of all add relu(bn(x)), too, which it does where it projects.)
    """
    x = net.conv(x, "conv1", 2, 3) if imagenet else net.conv(x, "conv1", 1, 1)
    x, done = F.max_pool2d(x, 3, 2, 1) if imagenet else x, 0
    for s, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for b in range(depth):
            done += 1
            name, stride = f"layer{s + 1}.{b}", 2 if s > 0 and b == 0 else 1
            out = width if block == "basic" else 4 * width
            p = F.relu(net.bn(x, f"{name}.bn1"))
            if block == "basic":
                y = F.relu(net.bn(net.conv(p, f"{name}.conv1", stride, 1), f"{name}.bn2"))
                y = net.conv(net.dropped(y, dropout), f"{name}.conv2", 1, 1)
            else:
                y = F.relu(net.bn(net.conv(p, f"{name}.conv1"), f"{name}.bn2"))
                y = F.relu(net.bn(net.conv(y, f"{name}.conv2", stride, 1), f"{name}.bn3"))
                y = net.conv(net.dropped(y, dropout), f"{name}.conv3")
            y = net.dropped(net.se(y, f"{name}.se"), last_rate * done / sum(depths), by_example=True)
            if shortcut == "A":
                x = y + option_a(x, stride, out)
            elif stride > 1 or x.shape[1] != out:
                x = y + net.conv(p, f"{name}.downsample.0", stride)
            else:
                x = y + x
    return net.head(F.relu(net.bn(x, "norm")))


def wide(net, x, depths, k, dropout):
    """[4], Table 1: 16, then three groups of widths 16k, 32k, 64k; figure 1(d): norm-ReLU-3x3 (which strides),
    norm-ReLU-dropout-3x3."""
    x = net.conv(x, "conv1", 1, 1)
    assert x.shape[1] == 16
    for s, depth in enumerate(depths):
        for b in range(depth):
            name, stride = f"layer{s + 1}.{b}", 2 if s > 0 and b == 0 else 1
            active = F.relu(net.bn(x, f"{name}.bn1"))
            y = net.conv(active, f"{name}.conv1", stride, 1)
            assert y.shape[1] == (16 * k, 32 * k, 64 * k)[s]
            y = net.dropped(F.relu(net.bn(y, f"{name}.bn2")), dropout)
            y = net.conv(y, f"{name}.conv2", 1, 1)
            x = y + (x if b else net.conv(active, f"{name}.downsample.0", stride))
    return net.head(F.relu(net.bn(x, "norm")))


def multi_scale(net, x, depths):
    """[8]: one stem, three trunks of kernels 3, 5 and 7 whose every stage strides, their means joined in that order.

    The 5- and 7-wide kernels are padded by 2 and 3 (docs/DESIGN.md), where the original pads by 1 and cuts.
    """
    x, ends = stem_imagenet(net, x), []
    for kernel, padding in ((3, 1), (5, 2), (7, 3)):
        y = x
        for s, depth in enumerate(depths):
            for b in range(depth):
                name, stride = f"layer{s + 1}_k{kernel}.{b}", 1 if b else 2
                z = F.relu(net.bn(net.conv(y, f"{name}.conv1", stride, padding), f"{name}.bn1"))
                z = net.bn(net.conv(z, f"{name}.conv2", 1, padding), f"{name}.bn2")
                short = y if b else net.bn(net.conv(y, f"{name}.downsample.0", 2), f"{name}.downsample.1")
                y = F.relu(z + short)
        ends.append(y)
    return net.head(*ends)


@dataclasses.dataclass(frozen=True)
class Paper:
    """What a paper says of a variant: its depths, and the net."""

    depths: tuple[int, ...]
    net: Callable
    size: tuple[int, ...] = (9, 11)  # odd, so that a stage halves 2n + 1 pixels to n + 1

    def __call__(self, net: Net, x: torch.Tensor, depths: tuple[int, ...]) -> torch.Tensor:
        return self.net(net, x, depths)


ON_IMAGENET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
FOUR, THREE = (64, 128, 256, 512), (16, 32, 64)
KIND = {18: "basic", 34: "basic"}


def imagenet(n, **how):
    how = {"block": KIND.get(n, "bottleneck"), "stem": stem_imagenet, **how}
    return Paper(ON_IMAGENET[n], lambda net, x, depths: he2015(net, x, depths, FOUR, **how), (33, 47))


def cifar(n, **how):
    """6n + 2 layers."""
    how = {"block": "basic", "stem": stem_cifar, "shortcut": "A", **how}
    return Paper(((n - 2) // 6,) * 3, lambda net, x, depths: he2015(net, x, depths, THREE, **how))


def resnext(cardinality):
    """[3], section 5.3: 3 stages of 3 blocks, 64 channels a group and stage 1; Table 1: the 3x3 strides."""
    how = {"block": "bottleneck", "stem": stem_cifar, "groups": cardinality, "inner": lambda w: w * cardinality}
    return Paper((3, 3, 3), lambda net, x, depths: he2015(net, x, depths, (64, 128, 256), **how))


def preact(depths, widths=THREE, size=(9, 11), **how):
    return Paper(depths, lambda net, x, depths: he2016(net, x, depths, widths, **how), size)


def wrn(depth, k, dropout):
    """6n + 4 layers."""
    return Paper(((depth - 4) // 6,) * 3, lambda net, x, depths: wide(net, x, depths, k, dropout))


def one_axis(n):
    return dataclasses.replace(imagenet(n), size=(131,))


def small_stem(n):
    how = {"block": KIND.get(n, "bottleneck"), "stem": stem_cifar}
    return Paper(ON_IMAGENET[n], lambda net, x, depths: he2015(net, x, depths, FOUR, **how))


PAPERS: dict[str, Paper] = {
    **{f"resnet{n}_v1": imagenet(n, strides_on="1x1") for n in (50, 101, 152)},
    **{f"plain{n}": imagenet(n, shortcut="none") for n in (18, 34)},
    **{f"resnet{n}_a": imagenet(n, shortcut="A") for n in (18, 34)},
    **{f"resnet{n}_c": imagenet(n, shortcut="C") for n in (18, 34)},
    # PaddleClas' and KerasHub's ResNet-D, whose every stage projects once
    **{f"resnet{n}_vd": imagenet(n, stem=stem_deep, shortcut="vd") for n in (18, 34)},
    "resnetv2_200": preact((3, 24, 36, 3), FOUR, (33, 47), block="bottleneck", imagenet=True),
    **{f"cifar_resnet{n}": cifar(n) for n in (20, 32, 44, 56, 110, 1202)},
    **{f"cifar_plain{n}": cifar(n, shortcut="none") for n in (20, 32, 44, 56)},
    "cifar_preresnet110": preact((18, 18, 18), block="basic", shortcut="A"),
    "cifar_preresnet164": preact((18, 18, 18), block="bottleneck"),
    "cifar_preresnet1001": preact((111, 111, 111), block="bottleneck"),
    "cifar_resnet110_sd": cifar(110, last_rate=0.5),
    **{f"cifar_resnext29_{c}x64d": resnext(c) for c in (8, 16)},
    **{f"cifar_wrn{n}_{k}": wrn(n, k, rate) for n, k, rate in ((16, 8, 0), (40, 4, 0), (28, 10, 0.3))},
    **{f"cifar_resnet{n}": small_stem(n) for n in (18, 34, 50)},
    **{f"resnet{n}_1d": one_axis(n) for n in (18, 34, 50)},
    "msresnet_1d": Paper((1, 1, 1), multi_scale, (131,)),
}

# rows that nobody named, of choices that no named row or none without a library has together
PREACT = dict(preact=True, shortcut="project")
ROWS: dict[str, tuple[Arch, Paper]] = {
    "SE in pre-activation, basic": (
        get("cifar_resnet20", se_ratio=4, **PREACT), preact((3, 3, 3), block="basic")
    ),
    "SE in pre-activation, bottleneck": (
        get("cifar_preresnet164", depths=(1, 2, 1), se_ratio=16), preact((1, 2, 1), block="bottleneck")
    ),
    "odd surplus": (
        get("cifar_resnet20", widths=(17, 32, 65), depths=(1, 2, 1)),
        Paper((1, 2, 1), lambda net, x, d: he2015(
            net, x, d, (17, 32, 65), block="basic", stem=stem_cifar, shortcut="A"
        )),
    ),
    "odd surplus in pre-activation": (
        get("cifar_preresnet110", widths=(17, 32, 65), depths=(1, 2, 1)),
        preact((1, 2, 1), (17, 32, 65), block="basic", shortcut="A"),
    ),
    "masks in basic blocks": (
        get("cifar_resnet20", dropout=0.2, drop_path=0.4), cifar(20, dropout=0.2, last_rate=0.4)
    ),
    "masks in bottlenecks": (
        get("cifar_resnet50", depths=(1, 1, 1, 1), dropout=0.2, drop_path=0.4),
        Paper((1, 1, 1, 1), lambda net, x, d: he2015(
            net, x, d, FOUR, block="bottleneck", stem=stem_cifar, dropout=0.2, last_rate=0.4
        )),
    ),
    "masks in pre-activation": (
        get("cifar_preresnet164", depths=(1, 2, 1), dropout=0.2, drop_path=0.4),
        preact((1, 2, 1), block="bottleneck", dropout=0.2, last_rate=0.4),
    ),
}  # fmt: skip


def agrees(arch: Arch, paper: Paper, training: bool) -> None:
    weights = randomised(arch)
    ours = torch_impl.create_model(arch, dtype="float64", weights=weights).train(training)
    x = np.random.default_rng(1).standard_normal((3, arch.in_channels, *paper.size))
    net = Net(weights, training)
    with torch.no_grad(), noise.shared(MASKS):
        theirs, logits = paper(net, torch.from_numpy(x), arch.depths), ours(torch.from_numpy(x))
    assert net.used == set(weights), set(weights) - net.used
    assert theirs.isfinite().all() and theirs.std(0).min() > 1e-6  # every example counts
    assert relative(theirs.numpy(), logits.numpy()) <= (1e-10 if training else 1e-13)
    kept = torch_impl.export_weights(ours)
    assert all(relative(net.moved.get(n, net.w[n]).numpy(), w) <= 1e-11 for n, w in kept.items())


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", PAPERS)
def test_two_blocks_a_stage_are_the_papers(name, training):
    """Each stage's first block and another; the whole depth is the next two tests'."""
    arch = get(name)
    agrees(get(arch, depths=tuple(min(d, 2) for d in arch.depths)), PAPERS[name], training)


@pytest.mark.parametrize("name", PAPERS)
def test_the_depths_are_the_papers(name):
    assert get(name).depths == PAPERS[name].depths


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", PAPERS)
def test_the_whole_net_is_the_papers(name, training):
    agrees(get(name), PAPERS[name], training)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_ones_own_are_the_papers(name, training):
    agrees(*ROWS[name], training)


def test_an_odd_channel_of_option_a_goes_behind():
    """By hand: 2 channels to 5 leaves 3, one in front and two behind, and of 3x3 pixels the corners stay."""
    from common.plan import make_plan
    from torch_impl.blocks import shortcut

    arch = get("cifar_resnet20", widths=(2, 5, 8), stem={"convs": [[2, 3, 1]], "pool": False}, depths=(1, 1, 1))
    short = shortcut(make_plan(arch).trunks[0].stages[1].blocks[0].shortcut)
    found = short(torch.arange(1.0, 19.0).view(1, 2, 3, 3))[0].tolist()
    none = [[0, 0], [0, 0]]
    assert found == [none, [[1, 3], [7, 9]], [[10, 12], [16, 18]], none, none]


# channels, ratio: squeezed. By hand from timm's rule: to the nearest multiple of 8, halves up, 8 at least
SQUEEZED = {
    (64, 16): 8, (128, 16): 8, (176, 16): 8, (192, 16): 16, (256, 16): 16, (320, 16): 24, (448, 16): 32, (512, 16): 32,
    (200, 16): 16, (1024, 16): 64, (2048, 16): 128, (88, 8): 8, (96, 8): 16, (100, 8): 16, (8, 4): 8, (80, 4): 24,
}  # fmt: skip


@pytest.mark.parametrize(("channels", "ratio"), SQUEEZED)
def test_squeezed_widths_are_timms(referees, channels, ratio):
    from timm.layers import SEModule

    from common.names import parameters

    arch = get("cifar_resnet20", depths=(1,), widths=(channels,), se_ratio=ratio, shortcut="project")
    expected = SQUEEZED[channels, ratio]
    assert SEModule(channels, rd_ratio=1 / ratio).fc1.out_channels == expected
    assert parameters(arch)["layer1.0.se.fc1.weight"][0] == expected
    assert parameters(arch)["layer1.0.se.fc2.weight"][:2] == (channels, expected)
