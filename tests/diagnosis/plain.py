"""ResNets as people write them, in plain PyTorch, with any of the mistakes that people make.

Nothing here is ours: `net(row)` is an innocent net of that row, and `net(row, "softmax in the net")` one with that
mistake. The words are those of the vocabulary of `common/diagnosis`.
"""

import torch
import torch.nn.functional as F
from torch import nn

from common.arch import Arch, get

TINY = dict(widths=(8, 16), depths=(2, 2), num_classes=7)
ROWS: dict[str, Arch] = {
    "basic": get("resnet18", **TINY, stem={"convs": [[8, 7, 2]]}),
    "cifar": get("cifar_resnet20", widths=(16, 20), depths=(2, 2), num_classes=7),
    "bottleneck": get("resnet50", **TINY),
    "pre-activation": get("resnetv2_18", **TINY, stem={"convs": [[8, 7, 2]]}),
    "D": get("resnet18d", **TINY),
    "SE": get("seresnet18", **TINY),
    "groups": get("resnext50_32x4d", **{**TINY, "widths": (16, 32)}, groups=4, width_per_group=16),
    "dropped": get("cifar_wrn16_8", widths=(16, 20), depths=(2, 2), num_classes=7, dropout=0.4, drop_path=0.5),
}


class Gate(nn.Module):
    def __init__(self, channels, wrong):
        super().__init__()
        self.squeeze = nn.Linear(channels, 8)
        self.excite = nn.Linear(8, channels)
        self.last = F.hardsigmoid if "hard sigmoid" in wrong else torch.sigmoid

    def forward(self, x):
        y = F.relu(self.squeeze(x.mean((2, 3))))
        return x * self.last(self.excite(y)).view(x.size(0), -1, 1, 1)


class Same(nn.Conv2d):
    """What a port from TensorFlow does at stride 2."""

    def forward(self, x):
        for axis, k in ((3, self.kernel_size[0]), (2, self.kernel_size[0])):
            total = max((-(-x.shape[axis] // self.stride[0]) - 1) * self.stride[0] + k - x.shape[axis], 0)
            x = F.pad(x, (0, 0) * (3 - axis) + (total // 2, total - total // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


class Block(nn.Module):
    def __init__(self, row, cin, width, stride, stage, index, wrong):
        super().__init__()
        self.row, self.wrong, self.stage, self.index = row, wrong, stage, index
        cout = width * row.expansion
        bias = "bias before BatchNorm" in wrong
        here = (stage, index) == (1, 0)
        norm = lambda c: nn.BatchNorm2d(c)  # noqa: E731
        if row.block == "basic":
            sizes = [(cin, cout, 3, stride, 1), (cout, cout, 3, 1, 1)]
            if "stride on the second 3x3" in wrong:
                sizes = [(cin, cout, 3, 1, 1), (cout, cout, 3, stride, 1)]
        else:
            mid = width * row.width_per_group // 64 * row.groups
            one, three = (stride, 1) if "stride on the first 1x1" in wrong else (1, stride)
            sizes = [(cin, mid, 1, one, 1), (mid, mid, 3, three, row.groups), (mid, cout, 1, 1, 1)]
        convs = []
        for i, (a, b, k, s, g) in enumerate(sizes):
            if "same padding" in wrong and s == 2:
                convs.append(Same(a, b, k, s, bias=bias, groups=g))
            elif "kernel" in wrong and here and i == 0:
                convs.append(nn.Conv2d(a, b, 5, s, 2, bias=bias, groups=g))
            elif "dilation" in wrong and here and i == 0:
                convs.append(nn.Conv2d(a, b, k, s, 2, 2, bias=bias, groups=g))
            else:
                convs.append(nn.Conv2d(a, b, k, s, k // 2, bias=bias, groups=g))
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(norm(c.in_channels if row.preact else c.out_channels) for c in convs)
        if "shared norm" in wrong and here:
            self.norms[1] = self.norms[0]
        self.gate = Gate(cout, wrong) if row.se_ratio and "no squeeze-and-excitation" not in wrong else None
        changes = stride > 1 or cin != cout or ("projection in the first stage" in wrong and (stage, index) == (0, 0))
        self.projects = (changes and row.shortcut != "pad") or "projection in every block" in wrong
        self.extra = cout - cin
        self.stride = stride
        if self.projects:
            k = 3 if "projection of 3x3" in wrong else 1
            pooled = row.shortcut == "pool" and stride > 1
            counts = "average pool counts padding" in wrong
            layers = []
            if pooled and counts:
                layers.append(nn.AvgPool2d(stride, stride, 0, ceil_mode=True))
                layers.insert(0, OddBorder())
            elif pooled:
                layers.append(nn.AvgPool2d(stride, stride, 0, True, False))
            layers.append(nn.Conv2d(cin, cout, k, 1 if pooled else stride, k // 2, bias=bias))
            if not row.preact and "projection without norm" not in wrong:
                layers.append(norm(cout))
            self.shortcut = nn.Sequential(*layers)

    def forward(self, x):
        wrong, row = self.wrong, self.row
        start = x
        y = x
        if row.preact:
            for i, (n, c) in enumerate(zip(self.norms, self.convs, strict=True)):
                y = F.relu(n(y))
                if i == 0 and self.projects and "projection of the raw input" not in wrong:
                    start = y
                if i == 0 and "identity after BN-ReLU" in wrong and (self.stage, self.index) == (0, 0):
                    start = y
                if i == len(self.convs) - 1 and row.dropout:
                    y = self.drop(y)
                y = c(y)
        else:
            for i, (c, n) in enumerate(zip(self.convs, self.norms, strict=True)):
                y = n(c(y))
                if i < len(self.convs) - 1:
                    if "no inner ReLU" in wrong and (self.stage, self.index, i) == (1, 0, 0):
                        continue
                    y = F.leaky_relu(y, 0.1) if "other activation" in wrong else F.relu(y)
        if self.gate is not None:
            y = self.gate(y)
        if row.drop_path:
            y = self.drop_examples(y)
        if "ReLU before the addition" in wrong:
            y = F.relu(y)
        if self.projects:
            y = y + self.shortcut(start)
        elif row.shortcut == "pad" and (self.extra or self.stride > 1):
            z = start[:, :, :: self.stride, :: self.stride]
            if "option A at the end" in wrong:
                z = torch.cat([z, torch.zeros(z.shape[0], self.extra, *z.shape[2:], dtype=z.dtype)], 1)
            else:
                z = F.pad(z, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
            y = y + z
        elif "no shortcut" in wrong and (self.stage, self.index) == (1, 1):
            pass
        else:
            y = y + start
        if not row.preact and not {"ReLU before the addition", "no ReLU after the addition"} & wrong:
            y = F.relu(y)
        return y

    def drop(self, y):
        if "no dropout" in self.wrong:
            return y
        return F.dropout(y, 0.2 if "dropout rate" in self.wrong else self.row.dropout, self.training)

    def drop_examples(self, y):
        blocks = sum(self.row.depths)
        done = sum(self.row.depths[: self.stage]) + self.index + 1
        rate = self.row.drop_path * done / blocks
        if "stochastic depth by element" in self.wrong:
            return F.dropout(y, rate, self.training)
        if not self.training:
            return y
        keep = 1 - rate
        return y * y.new_empty(y.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)


class OddBorder(nn.Module):
    """The mean's border at odd sizes, which then counts."""

    def forward(self, x):
        return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))


class Plain(nn.Module):
    def __init__(self, row, wrong):
        super().__init__()
        self.row, self.wrong = row, wrong
        bias = "bias before BatchNorm" in wrong
        depths = tuple(d + 1 for d in row.depths) if "depths" in wrong else row.depths
        layers, c = [], row.in_channels
        for i, (width, k, s) in enumerate(row.stem.convs):
            kind = Same if "same padding in the stem" in wrong else nn.Conv2d
            pads = {} if kind is Same else {"padding": k // 2}
            layers.append(kind(c, width, k, s, bias=bias, **pads))
            if not row.preact or i < len(row.stem.convs) - 1:
                if "no norm in the stem" not in wrong:
                    layers.append(nn.BatchNorm2d(width))
                if "no ReLU in the stem" not in wrong:
                    layers.append(nn.ReLU())
            c = width
        if row.stem.pool and "no max pooling" not in wrong:
            if "max pool same" in wrong:
                layers += [nn.ConstantPad2d((0, 1, 0, 1), float("-inf")), nn.MaxPool2d(3, 2)]
            elif "max pool with zeros" in wrong:
                layers += [nn.ZeroPad2d(1), nn.MaxPool2d(3, 2)]
            elif "max pool without border" in wrong:
                layers.append(nn.MaxPool2d(3, 2))
            else:
                layers.append(nn.MaxPool2d(3, 2, 1))
        self.stem = nn.Sequential(*layers)
        blocks = []
        for stage, (depth, width) in enumerate(zip(depths, row.widths, strict=True)):
            if "widths" in wrong and stage == 1:
                width += 4
            for b in range(depth):
                stride = 2 if stage and b == 0 else 1
                if "stage strides" in wrong and b == 0:
                    stride = 2 if stage == 0 else 1
                blocks.append(Block(row, c, width, stride, stage, b, wrong))
                c = width * row.expansion
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.BatchNorm2d(c) if row.preact else None
        flat = 4 * c if "flattened head" in wrong else c
        self.head = nn.Linear(flat, row.num_classes, bias="classifier without bias" not in wrong)
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        for i, n in enumerate(norms):
            for name in wrong:
                if name.startswith("epsilon "):
                    n.eps = float(name.split()[1])
            if "some epsilons" in wrong and i % 2:
                n.eps = 1e-3
            n.momentum = (
                0.01 if "momentum 0.99" in wrong else 0.9 if "momentum 0.1 for 0.9" in wrong
                else 0.0 if "statistics stand still" in wrong else 0.1
            )  # fmt: skip
            if "norm without scale or shift" in wrong and i == 2:
                n.weight = n.bias = None
                n.affine = False

    def train(self, mode=True):
        super().train(mode)
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        if "frozen norms" in self.wrong:
            norms[1].eval()
        if "eval() forgotten" in self.wrong:
            for n in norms:
                n.train()
        return self

    def forward(self, x):
        wrong = self.wrong
        if "channels the other way round" in wrong:
            x = x[:, [2, 1, 0]]
        if "height and width swapped" in wrong:
            x = x.transpose(2, 3)
        if "input scaled" in wrong:
            x = x / 255
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            if "float32 inside" in wrong and i == 1:
                x = x.float().double()
            x = block(x)
        if self.last is not None:
            x = F.relu(x if "no last BN-ReLU" in wrong else self.last(x))
        if "one position for the mean" in wrong:
            x = x[:, :, 0, 0]
        elif "flattened head" in wrong:
            x = torch.flatten(F.adaptive_avg_pool2d(x, 2), 1)
        elif "other pooling" in wrong:
            x = torch.flatten(F.adaptive_max_pool2d(x, 1), 1)
        else:
            x = F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
        y = self.head(x)
        if "softmax in the net" in wrong:
            y = F.softmax(y, dim=1)
        if "log-softmax in the net" in wrong:
            y = F.log_softmax(y, dim=1)
        if "ReLU behind the classifier" in wrong:
            y = F.relu(y)
        return (y, F.softmax(y, 1)) if "second output" in wrong else y


def net(row: Arch, *wrong: str) -> nn.Module:
    """An innocent net of the row, or one with these mistakes."""
    torch.manual_seed(3)
    return Plain(row, set(wrong))


# mistake: the kind of net that can have it
MISTAKES: dict[str, str] = {
    "same padding": "cifar", "same padding in the stem": "bottleneck", "stride on the first 1x1": "bottleneck",
    "epsilon 1e-3": "basic", "epsilon 1.001e-5": "basic", "max pool same": "basic",
    "max pool with zeros": "pre-activation", "max pool without border": "basic", "no max pooling": "basic",
    "average pool counts padding": "D", "one position for the mean": "basic", "other pooling": "basic",
    "hard sigmoid": "SE", "no squeeze-and-excitation": "SE", "option A at the end": "cifar",
    "identity after BN-ReLU": "pre-activation", "projection of the raw input": "pre-activation",
    "no last BN-ReLU": "pre-activation", "ReLU before the addition": "basic", "no ReLU after the addition": "basic",
    "no ReLU in the stem": "basic", "no norm in the stem": "basic", "no inner ReLU": "basic",
    "other activation": "basic",
    "height and width swapped": "basic", "channels the other way round": "basic", "input scaled": "basic",
    "softmax in the net": "basic", "log-softmax in the net": "basic", "ReLU behind the classifier": "basic",
    "bias before BatchNorm": "basic", "projection in the first stage": "basic",
    "projection in every block": "bottleneck",
    "projection without norm": "basic", "projection of 3x3": "basic", "no shortcut": "basic",
    "momentum 0.99": "basic", "momentum 0.1 for 0.9": "basic", "statistics stand still": "basic",
    "frozen norms": "basic", "eval() forgotten": "basic", "shared norm": "basic", "some epsilons": "basic",
    "norm without scale or shift": "basic",
    "dropout rate": "dropped", "no dropout": "dropped", "stochastic depth by element": "dropped",
    "depths": "basic", "widths": "basic", "stage strides": "bottleneck", "stride on the second 3x3": "basic",
    "kernel": "basic", "dilation": "basic", "flattened head": "basic", "classifier without bias": "basic",
    "float32 inside": "basic", "second output": "basic",
}  # fmt: skip
NAMED = {"some epsilons": "epsilon 1e-3"}  # what the vocabulary calls a mistake otherwise
