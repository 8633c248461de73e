"""The exercises: what each asks, of which net, and which wrong answers it expects."""

from common.arch import get
from common.teaching.exercises.exercise import Edits, Exercise

_THREE = {"convs": [[8, 3, 1]], "pool": False}
BASIC = get("resnet18", widths=(8, 16), depths=(1, 2), num_classes=5, stem=_THREE)
BOTTLENECK = get("resnet50", widths=(4, 8), depths=(1, 2), num_classes=5, stem=_THREE)
PREACT = get("resnetv2_18", widths=(8, 16), depths=(1, 2), num_classes=5, stem=_THREE)
OPTION_A = get("cifar_resnet20", widths=(16, 20), depths=(1, 1), num_classes=5)


def _both(torch: Edits, keras: Edits) -> dict[str, Edits]:
    return {"torch": torch, "keras": keras}


def _wrong(fault: str, edits: dict[str, Edits]) -> dict[str, dict[str, Edits]]:
    """One wrong answer, which is that fault."""
    return {framework: {fault: of} for framework, of in edits.items()}


_SAME: dict[str, Edits] = _both(
    (
        ("self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)",
         "self.conv1 = nn.Conv2d(channels, out, 3, stride, bias=False)"),
        ("y = torch.relu(self.bn1(self.conv1(x)))",
         "top, left = ((n + self.conv1.stride[0]) % 2 for n in x.shape[2:])\n"
         "        if self.conv1.stride[0] == 1:\n"
         "            top = left = 1\n"
         "        y = torch.relu(self.bn1(self.conv1(nn.functional.pad(x, (left, 1, top, 1)))))"),
    ),
    (
        ("layers.Conv2D(out, 3, stride, use_bias", 'layers.Conv2D(out, 3, stride, "same", use_bias'),
        ("self.conv1(pad(x, 1))))  # N H/stride", "self.conv1(x)))  # N H/stride"),
    ),
)  # fmt: skip
_NORM: dict[str, Edits] = _both(
    (
        ("nn.BatchNorm2d(", "BatchNorm("),
        ("class BasicBlock(nn.Module):", '''class BatchNorm(nn.BatchNorm2d):
    """Normalises by the batch while training, and by the running statistics afterwards."""

    def forward(self, x):
        if self.training:
            n = x.numel() // x.shape[1]
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
                self.running_var.lerp_(variance * n / (n - 1), 0.1)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight / torch.sqrt(variance + 1e-5)
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


class BasicBlock(nn.Module):'''),
    ),
    (),
)  # fmt: skip
_BROKEN: dict[str, Edits] = _both(
    (
        ("x = torch.relu(self.bn1(self.conv1(x)))", "x = self.bn1(self.conv1(x))"),
        ("nn.BatchNorm2d(out)", "nn.BatchNorm2d(out, eps=1e-3)"),
        ("nn.BatchNorm2d(8)", "nn.BatchNorm2d(8, eps=1e-3)"),
        ("return torch.relu(y + self.downsample(x))", "return torch.relu(y) + self.downsample(x)"),
    ),
    (
        ("x = ops.relu(self.bn1(self.conv1(pad(x, 1)), training=training))",
         "x = self.bn1(self.conv1(pad(x, 1)), training=training)"),
        ("epsilon=1e-5", "epsilon=1e-3"),
        ("return ops.relu(y + self.downsample(x))", "return ops.relu(y) + self.downsample(x)"),
    ),
)  # fmt: skip

EXERCISES = (
    Exercise(
        1, "a basic block",
        "Write what BasicBlock computes (He et al. 2015, figure 5 left): two convolutions of 3, each with its norm;\n"
        "then the shortcut is added. Where are the two ReLUs?",
        BASIC, holes=("BasicBlock.forward",), lesson=6,
        hints=("The first ReLU stands between the two convolutions, behind the first norm.",
               "The second ReLU takes the sum, and not the branch."),
        wrong=_wrong("ReLU before the addition", _both(_BROKEN["torch"][3:], _BROKEN["keras"][2:])),
    ),
    Exercise(
        2, "a bottleneck, and which convolution strides",
        "Write Bottleneck: its layers and what it computes (He et al. 2015, figure 5 right): 1x1 to `width`\n"
        'channels, then 3x3, then 1x1 to `out`. torchvision\'s net, "v1.5", halves the positions in another\n'
        "convolution than the paper does. The shapes are the same, and so is the count.",
        BOTTLENECK, holes=("Bottleneck.__init__", "Bottleneck.forward"), lesson=1, minutes=15,
        hints=("Names are conv1, bn1, conv2, bn2, conv3, bn3 and downsample, a sequence of a convolution and a norm.",
               "In v1.5 the 3x3 strides."),
        wrong=_wrong("stride on the first 1x1", _both(
            (("width, 1, bias", "width, 1, stride, bias"), ("width, 3, stride, padding", "width, 3, padding")),
            (("(width, 1, use_bias", "(width, 1, stride, use_bias"), ("(width, 3, stride, use", "(width, 3, use")),
        )),
    ),
    Exercise(
        3, "padding at stride 2",
        'This net pads as Keras\' padding="same" does. PyTorch\'s padding=1 is another function at stride 2, but at\n'
        "odd sizes they agree. Make it PyTorch's.",
        BASIC, given=_SAME, first="layer2.0.conv1 at 16x12", lesson=4,
        hints=("Draw the windows of a 3 that goes over 8 positions by 2: with one position of padding on both sides,\n"
               "and with none in front and one behind.",
               "PyTorch pads one position at both ends of each axis, at every stride."),
        wrong=_wrong("same padding", _SAME),
    ),
    Exercise(
        4, "the running variance",
        "Write the norm. While training it normalises by the batch's biased variance, and moves the running\n"
        "statistics by a tenth towards the batch's. Which variance of the batch does PyTorch keep?",
        BASIC, changed=_NORM, holes=("BatchNorm.forward",), lesson=8, minutes=15,
        hints=("The variance that normalises divides by n, the number of values of a channel.",
               "The variance that is kept divides by n - 1."),
        wrong=_wrong("biased variance", _both(
            (("variance * n / (n - 1), 0.1", "variance, 0.1"),),
            (("self.moving_variance.assign_add((self.moving_variance - before) / ops.maximum(n - 1, 1))", "pass"),),
        )),
    ),
    Exercise(
        5, "option A",
        "Write the shortcut that has no parameters (He et al. 2015, option A): every other position, and zero\n"
        "channels for those that are new. The paper doesn't say where the zeros are: the code that everybody\n"
        "uses has them on both sides.",
        OPTION_A, holes=("PadShortcut.forward",), lesson=6,
        hints=("self.before and self.after are how many channels are new before and behind.",),
        wrong=_wrong("option A at the end", _both(
            (("0, 0, 0, 0, self.before, self.after", "0, 0, 0, 0, 0, self.before + self.after"),),
            (("(self.before, self.after))", "(0, self.before + self.after))"),),
        )),
    ),
    Exercise(
        6, "pre-activation",
        "Write what PreActBasicBlock computes (He et al. 2016): norm and ReLU stand before each convolution. What is\n"
        "added to the branch is the block's input where that fits, and else a projection. Of what?",
        PREACT, holes=("PreActBasicBlock.forward",), lesson=9, minutes=15,
        hints=("Nothing follows the addition.",
               "A projection reads what the first norm and ReLU gave; the identity is x itself."),
        wrong={
            framework: {
                "identity after BN-ReLU": (("p if self.projects else x", "p"),),
                "projection of the raw input": (("p if self.projects else x", "x"),),
            }
            for framework in ("torch", "keras")
        },
    ),
    Exercise(
        7, "a broken net",
        "Somebody wrote this net from memory. It runs and trains. Three things aren't torchvision's: find them.\n"
        "`check` names the first array that differs, and the mistake as soon as one alone is left.",
        BASIC, given=_BROKEN, first="bn1 at 16x12", lesson=7, minutes=20,
        hints=("Which epsilon has PyTorch's norm?", "What follows the stem's norm?", "What is the last ReLU of?"),
        wrong={
            "torch": {"ReLU before the addition": _BROKEN["torch"][3:], "epsilon 1e-3": _BROKEN["torch"][1:3]},
            "keras": {"ReLU before the addition": _BROKEN["keras"][2:], "epsilon 1e-3": _BROKEN["keras"][1:2]},
        },
    ),
    Exercise(
        8, "blind diagnosis",
        "This net has one mistake, which depends on the seed. Ask for arrays, one at a time, and find it. Who needs\n"
        "the fewest questions?",
        BASIC, kind="blind", lesson=1, minutes=20,
        hints=("Halve: is the array in the middle of the pass right?",
               "The first array that differs says where; its shape and both values say what."),
    ),
    Exercise(
        9, "SGD across a change of the rate",
        "Write one step of PyTorch's SGD with momentum and weight decay, on numpy's arrays. Two rules agree to the\n"
        "last bit until the learning rate changes: which of them is PyTorch's?",
        BASIC, kind="sgd", lesson=12, minutes=15,
        hints=("The decay is part of the gradient, and so goes through the momentum.",
               "PyTorch's velocity knows nothing of the rate."),
    ),
    Exercise(
        10, "a file with an order and no names",
        "Keras' get_weights() gives a list of arrays without names. Give PyTorch's net what is its own: the right\n"
        "names, and its layout. Nearly every wrong answer fits the shapes, and a net of the wrong arrays runs.",
        BASIC, kind="order", lesson=10, minutes=30,
        hints=("Keras' kernels are (height, width, in, out), and a Dense (in, out). PyTorch's begin with (out, in).",
               "Which layer does each norm read? The one behind a convolution isn't always its own.",
               "A norm's arrays are gamma, beta, moving_mean and moving_variance."),
    ),
)  # fmt: skip
