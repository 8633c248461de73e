"""A row as one plain file of PyTorch or of Keras that stands alone: literal numbers, the framework's idioms, nothing of
this project.

Two templates, `plain_torch.txt` and `plain_keras.txt`, lie line against line, and so do the files: what Keras needs
beyond PyTorch comes last. A template reads like the net that it makes; `render` says what its marks mean.
"""

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

from common.arch import VARIANTS
from common.errors import RosettaError, nearest
from common.names import count, layers, parameters
from common.plan import Block, Plan, make_plan
from common.row import Arch, Stem

FRAMEWORKS = ("torch", "keras")
EVERY = object()  # any value that a row can have
# what the templates know: fields, and their values where each needs a word of its own
KNOWN: dict[str, Any] = {
    "block": ("basic", "bottleneck"), "dims": (1, 2), "stride_block": ("first", "last"),
    "conv_bias": (False, True, "unnormed"), "antialias": ("none", "avg", "blur"),
    "shortcut": ("pad", "project", "project_all", "pool", "pool_first", "none"),
    **dict.fromkeys(("depths", "widths", "preact", "first_stride", "stride_in", "groups", "width_per_group"), EVERY),
    **dict.fromkeys(("shortcut_norm", "stem", "se_ratio", "eca", "drop_path", "dropout", "kernels", "norm_eps"), EVERY),
    **dict.fromkeys(("in_channels", "num_classes", "norm_groups", "weight_std", "output_stride"), EVERY),
}  # fmt: skip


def write(arch: Arch, framework: str) -> str:
    """The source of the net as one file of PyTorch ("torch") or Keras ("keras"), which takes canonical weights.

    Raises RosettaError for an unknown framework, and by the field's name for a row that the templates can't say.
    """
    if framework not in FRAMEWORKS:
        raise RosettaError(f"unknown framework {framework!r}{nearest(framework, FRAMEWORKS)}: expected torch or keras")
    plan = make_plan(arch)
    _check(plan)
    template = (files(__package__) / f"plain_{framework}.txt").read_text("utf-8")
    return render(template, {**_facts(plan), **(_torch if framework == "torch" else _keras)(plan)})


def render(template: str, facts: Mapping[str, Any]) -> str:
    """The text that `template` says of `facts`, as a program of Python's that is made of it.

    `{expression}` is filled in. A line ending in `#? condition` is there where the condition holds. `#if condition`,
    `#else`, `#for name in names` and `#end` stand alone in their lines, and say it of those between.
    """
    program, depth = [], 0
    for line in template.splitlines():
        mark = re.fullmatch(r" *#(if .*|for .*|else|end)", line)
        if mark:
            depth -= mark[1] in ("else", "end")
            if mark[1] != "end":
                program.append(f"{' ' * depth}{mark[1]}:")
                depth += 1
            continue
        text, _, condition = line.partition("  #? ")
        when = f"if {condition}: " if condition else ""
        program.append(f"{' ' * depth}{when}lines.append(f{text!r})")
    lines: list[str] = []
    exec("\n".join(program), {**facts, "lines": lines})
    return "\n".join(lines) + "\n"


def _check(plan: Plan) -> None:
    """Refuses what the templates can't say, by name."""
    a = plan.arch
    if a.folded:
        raise RosettaError("folded = True can't be written: plain code has its norms; write the row without it")
    for field in fields(a):
        value, known = getattr(a, field.name), KNOWN.get(field.name, (field.default,))
        if known is not EVERY and value not in known:
            raise RosettaError(f"{field.name} = {value!r} can't be written: plain code has no words for it yet")
    if a.stride_block == "last" and any(s > 1 for *before, _ in _strides(plan) for s in before):
        raise RosettaError("stride_block = 'last' can't be written where a stage's first block strides, too")
    for name, unsaid in (("stride_block", a.stride_block == "last"), ("kernels", len(a.kernels) > 1)):
        if unsaid and _dilated(plan):
            what = f"output_stride = {a.output_stride} can't be written with {name} = {getattr(a, name)!r}"
            raise RosettaError(f"{what}: plain code has no words for it yet")


def _strides(plan: Plan) -> list[list[int]]:
    """Of each block of each stage of the first trunk."""
    return [[_stride(block) for block in stage.blocks] for stage in plan.trunks[0].stages]


def _dilated(plan: Plan) -> bool:
    return any(conv.dilation > 1 for block in plan.blocks() for conv in block.convs)


def _dilation(plan: Plan) -> SimpleNamespace:
    """`given`: what a block is given, by its own names, of `before`, by which the stages before it dilate, and of its
    stage's `dilation`; whether its stage has `before`; `rates`: of the convolutions 1 and 2, or ""."""
    a = plan.arch
    if not _dilated(plan):
        return SimpleNamespace(given={}, before=False, rates=("", ""))
    if a.block == "basic" or a.shortcut.startswith("pool") or a.antialias == "blur":
        second = "dilation" if a.block == "basic" or a.stride_in == 1 else "before"
        return SimpleNamespace(given={n: n for n in ("before", "dilation")}, before=True, rates=("before", second))
    before = a.stride_in == 2  # the convolution that would stride dilates as those before it
    return SimpleNamespace(
        given={"dilation": "before" if before else "dilation"}, before=before, rates=("", "dilation")
    )  # fmt: skip


def _dilations(plan: Plan, word: str) -> dict[str, str]:
    """That the convolutions 1 and 2 dilate, in the framework's word, where they do."""
    return {f"dilation{i}": rate and f", {word}={rate}" for i, rate in enumerate(_dilation(plan).rates, 1)}


def _padded(plan: Plan, conv: str) -> str:
    """By how much Keras pads in front of that convolution, as an expression."""
    if len(plan.arch.kernels) > 1:
        return f"{conv}.kernel_size[0] // 2"
    half = plan.arch.kernels[0] // 2
    if not _dilated(plan):
        return str(half)
    return f"{conv}.dilation_rate[0]" if half == 1 else f"{half} * {conv}.dilation_rate[0]"


def _stride(block: Block) -> int:
    return max(layer.stride for layer in (*block.convs, block.antialias) if layer)


def _facts(plan: Plan) -> dict[str, Any]:
    """What both templates are filled in with."""
    a = plan.arch
    basic, several, deep = a.block == "basic", len(a.kernels) > 1, len(a.stem.convs) > 1
    k, half = ("kernel", "kernel // 2") if several else (str(a.kernels[0]), str(a.kernels[0] // 2))
    first = next(plan.blocks())
    pooled, always = a.shortcut.startswith("pool"), a.shortcut == "project_all"
    projects = a.shortcut not in ("pad", "none")
    bare = a.shortcut == "project" and a.stride_block == "last"
    changes = "channels != out" if bare else "stride > 1 or channels != out"
    changes = f"first or {changes}" if a.shortcut == "pool_first" else changes
    sizes = ["channels", "out"] if basic else ["channels", "width", "out"]
    last, dilated = a.stride_block == "last", _dilation(plan)
    given = {  # what a block takes beyond its sizes, and what its stage gives for it
        **({"kernel": "kernel"} if several else {}),
        **dilated.given,
        **({"first": "i == 0"} if a.shortcut == "pool_first" else {}),
        **({"drop_path": f"{_number(a.drop_path)} * (done + i + 1) / {sum(a.depths)}"} if a.drop_path else {}),
    }
    padding = [half if not rate else rate if half == "1" else f"{half} * {rate}" for rate in dilated.rates]
    counted = last or given.keys() & {"first", "drop_path"}
    stride = "stride if i == depth - 1 else 1" if last else "stride"
    taken = (
        ["kernel"] * several
        + ["before"] * dilated.before
        + ["dilation"] * bool(dilated.given)
        + ["done"] * bool(a.drop_path)
    )
    doc = f"the {'last' if last else 'first'} has the stride"
    doc += ", and dilates by `before`" * dilated.before
    facts = {field.name: getattr(a, field.name) for field in fields(a)}
    return facts | {
        "title": _title(a), "parameters": f"{count(parameters(a)):,}", "papers": list(_papers(plan)),
        "D": a.dims, "Block": first.kind, "doc": _doc(a), "n": len(first.convs), "k": k,
        "p1": padding[0], "p2": padding[1], "std_eps": _number(a.weight_std),
        "dilated": bool(dilated.given), "then": ", before" * dilated.before, "next": ", dilation" * dilated.before,
        "blurs": "stride > 1 or before < dilation" if dilated.given else "stride > 1",
        "basic": basic, "several": several, "deep": deep, "pool": a.stem.pool, "stem_channels": a.stem.convs[-1][0],
        "unit": ", ".join(["1"] * a.dims), "ones": " ".join(["1"] * a.dims),
        "more": "".join(f", {name}" for name in given),
        "stage_parameters": ", ".join(["depth", *sizes, "stride", *taken]),
        "stage_doc": f"Blocks one behind the other, of which {doc}.", "i": "i" if counted else "_",
        "stage_arguments": ", ".join([*sizes, stride, *given.values()]),
        "projects": projects, "pooled": pooled, "always": always, "bare": bare, "changes": changes,
        "when": "self.projects" if a.preact else changes, "indent": "" if always else "    ",
        "projection_stride": "" if pooled else ", stride",
        "shortcut_input": "x" if not projects else "p" if always else "p if self.projects else x",
        "stride1": ", stride" if a.stride_in == 1 else "",
        "stride2": ", stride" if a.stride_in == 2 and a.antialias == "none" else "",
        "grouped": f", groups={a.groups}" if a.groups > 1 else "",
        "trunks": list(_trunks(plan, dilated)), "features": plan.features, "stem_convs": list(_stem_convs(plan)),
        "joined": ", ".join(f"k{kernel}" for kernel in a.kernels),
    }  # fmt: skip


def _title(a: Arch) -> str:
    name, changes = _nearest_row(a)
    return f"A variant of {name}" if changes else name


@lru_cache(maxsize=256)
def _nearest_row(a: Arch) -> tuple[str, dict[str, Any]]:
    """The variant with the fewest other fields, and the fields that make it this row."""
    mine = vars(a)
    rows = {
        n: {key: mine[key] for key, value in vars(row).items() if mine[key] != value} for n, row in VARIANTS.items()
    }
    return min(rows.items(), key=lambda item: len(item[1]))


def _command(a: Arch, framework: str) -> list[str]:
    """How this file was made, as lines of its docstring."""
    name, changes = _nearest_row(a)
    words = ["Written by: rosetta", "write", name, "--framework", framework]
    for key, value in changes.items():
        said = value.text(a.dims) if isinstance(value, Stem) else str(value).strip("()").replace(" ", "").rstrip(",")
        words += ["--set", shlex.quote(f"{key}={f'[{said}]' if isinstance(value, tuple) else said}")]
    return textwrap.wrap(" ".join(words), 112, break_long_words=False, break_on_hyphens=False)


def _papers(plan: Plan) -> Iterator[str]:
    a = plan.arch
    if a.preact:
        yield "He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv 1603.05027, section 4."
    else:
        where = "section 4.2" if a.input_shape()[1:] == (32, 32) else "Table 1"
        where = "section 3.3, the plain net" if a.shortcut == "none" else where
        yield f"He et al. 2015, Deep Residual Learning for Image Recognition, arXiv 1512.03385, {where}."
    if a.groups > 1:
        yield "Xie et al. 2016, Aggregated Residual Transformations (ResNeXt), arXiv 1611.05431, section 3."
    wide = a.widths[0] > a.stem.convs[-1][0] if a.block == "basic" else a.width_per_group > 64 and a.groups == 1
    if wide or a.dropout:
        yield "Zagoruyko and Komodakis 2016, Wide Residual Networks, arXiv 1605.07146, section 2."
    if len(a.stem.convs) > 1 or a.shortcut.startswith("pool"):
        yield "He et al. 2018, Bag of Tricks for Image Classification (ResNet-C and -D), arXiv 1812.01187, section 4."
    if a.se_ratio:
        yield "Hu et al. 2017, Squeeze-and-Excitation Networks, arXiv 1709.01507, section 3."
    if a.eca:
        yield "Wang et al. 2019, ECA-Net: Efficient Channel Attention, arXiv 1910.03151, section 3."
    if a.antialias == "blur":
        yield "Zhang 2019, Making Convolutional Networks Shift-Invariant Again, arXiv 1904.11486, section 3."
    if a.norm_groups:
        yield "Wu and He 2018, Group Normalization, arXiv 1803.08494, section 3."
    if a.weight_std:
        yield "Qiao et al. 2019, Weight Standardization, arXiv 1903.10520, section 3."
    if a.norm_groups and a.weight_std:
        yield "Kolesnikov et al. 2019, Big Transfer (BiT), arXiv 1912.11370, section 3.1."
    if _dilated(plan):
        yield "Chen et al. 2017, Rethinking Atrous Convolution (DeepLab v3), arXiv 1706.05587, section 3."
    if a.drop_path:
        yield "Huang et al. 2016, Deep Networks with Stochastic Depth, arXiv 1603.09382, section 3."
    if len(a.kernels) > 1:
        yield "geekfeiw/Multi-Scale-1D-ResNet 2018: a trunk for each kernel."


def _doc(a: Arch) -> str:
    k = "k" if len(a.kernels) > 1 else a.kernels[0]
    wide = f"{k}x{k}" if a.dims == 2 else f"{k}"
    one = "1x1" if a.dims == 2 else "1"
    first = "BN-ReLU before each of " if a.preact else ""
    where = "2016, section 4" if a.preact else f"2015, figure 5 {'left' if a.block == 'basic' else 'right'}"
    if a.block == "basic":
        return f"{first}{wide}, {wide} (He et al. {where})."
    if a.stride_in == 1:
        return f"{first}{one}, {wide}, {one} (He et al. {where}); the first strides, as published."
    strides = {"none": "", "avg": "a mean behind ", "blur": "a blur behind "}[a.antialias]
    return f"{first}{one}, {wide}, {one} (He et al. {where}); {strides}the {wide} strides (v1.5)."


def _trunks(plan: Plan, dilated: SimpleNamespace) -> Iterator[SimpleNamespace]:
    a = plan.arch
    undilated = make_plan(replace(a, output_stride=0)).trunks[0].stages
    several = len(a.kernels) > 1
    inputs = a.stem.convs[-1][0]
    for trunk, kernel in zip(plan.trunks, a.kernels, strict=True):
        y, x, channels, done, stages = f"k{kernel}" if several else "x", "x", inputs, 0, []
        dilation = 1
        for i, stage in enumerate(trunk.stages):
            out = stage.blocks[0].convs[-1].out_channels
            width = [] if a.block == "basic" else [a.inner_width(i)]
            stride = max(map(_stride, stage.blocks))
            numbers = [*map(str, (len(stage.blocks), channels, *width, out)), f"stride={stride}"]
            numbers += [f"kernel={kernel}"] * several + [f"before={dilation}"] * dilated.before
            dilation *= max(map(_stride, undilated[i].blocks)) // stride
            numbers += [f"dilation={dilation}"] * bool(dilated.given) + [f"done={done}"] * bool(a.drop_path)
            stages.append(SimpleNamespace(name=stage.name, numbers=", ".join(numbers), x=x, y=y))
            x, channels, done = y, out, done + len(stage.blocks)
        yield SimpleNamespace(stages=stages, norm=trunk.norm and trunk.norm.name, y=y, channels=channels)


def _stem_convs(plan: Plan) -> Iterator[SimpleNamespace]:
    convs = plan.stem.convs
    for conv, behind in zip(convs, (*convs[1:], None), strict=True):
        yield SimpleNamespace(
            inputs=conv.in_channels, channels=conv.out_channels, kernel=conv.kernel, padding=conv.padding,
            strides=f", {conv.stride}" if conv.stride > 1 else "", same=', padding="same"' if conv.stride == 1 else "",
            no_bias=not conv.bias, last=behind is None, pad_after=behind.padding if behind and behind.stride > 1 else 0,
        )  # fmt: skip


def _shapes(plan: Plan, channels_last: bool) -> dict[str, Any]:
    """What the comments say: symbols in the blocks; in the net the shapes for the input that it was designed for."""
    a = plan.arch
    rows = {row.name: row for row in layers(a)}
    axes = "L" if a.dims == 1 else "H W"

    def ordered(shape: tuple[int, ...]) -> str:
        return " ".join(map(str, (*shape[1:], shape[0]) if channels_last else shape))

    def symbols(channels: str, strided: bool) -> str:
        positions = " ".join(f"{axis}/stride" for axis in axes.split()) if strided else axes
        return f"{positions} {channels}" if channels_last else f"{channels} {positions}"

    basic, at_once = a.block == "basic", a.antialias == "none"
    return {
        "inner1": symbols("out" if basic else "width", at_once and (basic or a.stride_in == 1)),
        "inner2": symbols("width", at_once), "behind": symbols("out" if basic else "width", True),
        "outer": symbols("out", True),
        "shape": SimpleNamespace(
            input=ordered(a.input_shape()), stem=ordered(rows[plan.stem.convs[-1].name].output),
            pool=ordered(rows[plan.stem.pools[-1].name].output) if plan.stem.pools else "",
            stages={stage.name: ordered(rows[stage.name].output) for trunk in plan.trunks for stage in trunk.stages},
        ),
    }  # fmt: skip


def _biases(plan: Plan, word: str) -> dict[str, Any]:
    """That a convolution has no bias, in the framework's word, where it has none."""
    first = next(plan.blocks())
    projections = [block.shortcut.conv for block in plan.blocks() if block.shortcut.conv]
    found = {"bias": first.convs[0], "last_bias": first.convs[-1], "projection_bias": next(iter(projections), None)}
    return {name: "" if conv is None or conv.bias else f", {word}=False" for name, conv in found.items()}


def _number(value: float) -> str:
    """As one writes it: 1e-5."""
    return repr(value).replace("e-0", "e-")


def _torch(plan: Plan) -> dict[str, Any]:
    """What is PyTorch's alone."""
    a, d = plan.arch, plan.arch.dims
    eps = "" if a.norm_eps == 1e-5 else f", eps={_number(a.norm_eps)}"

    def norm(channels: str | int) -> str:
        return (
            f"nn.GroupNorm({a.norm_groups}, {channels}{eps})" if a.norm_groups else f"nn.BatchNorm{d}d({channels}{eps})"
        )

    projection = ["pool"] * a.shortcut.startswith("pool") + ["conv"]
    projection += [norm("out")] * (a.shortcut_norm and not a.preact)
    return {
        **_shapes(plan, channels_last=False), **_biases(plan, "bias"), "command": _command(a, "torch"),
        "norm": norm, "Conv": "StdConv" if a.weight_std else f"nn.Conv{d}d", "behind_last": ", ".join(["0, 1"] * d),
        **_dilations(plan, "dilation"), "axes": "(2, 3)" if d == 2 else "2", "sequence": ", ".join(projection),
        "every": ", ".join([":: self.stride"] * d), "zeros": ", ".join(["0"] * 2 * d),
        "border": f"({', '.join(['1'] * 2 * d)})", "news": ", ".join(["None"] * d),
        "window": "line" if d == 1 else "(line[:, None] * line)",
    }  # fmt: skip


def _keras(plan: Plan) -> dict[str, Any]:
    """What is Keras' alone."""
    a, d, convs = plan.arch, plan.arch.dims, plan.stem.convs
    projection = ["pool"] * a.shortcut.startswith("pool") + ["conv"]
    norm = "GroupNorm" if a.norm_groups else "BatchNorm"
    projection += [f"{norm}()"] * (a.shortcut_norm and not a.preact)
    p1, p2 = (_padded(plan, f"self.conv{i}") for i in (1, 2))
    deep, basic = len(convs) > 1, a.block == "basic"
    padded = convs[0].padding and not (deep and convs[0].stride == 1)
    return {
        **_shapes(plan, channels_last=True), **_biases(plan, "use_bias"), "command": _command(a, "keras"),
        **_dilations(plan, "dilation_rate"), "p2": p2, "Norm": norm,
        "Conv": "StdConv" if a.weight_std else f"layers.Conv{d}D", "plus_bias": " + self.bias" * (a.conv_bias is True),
        "kernel_axes": "(0, 1, 2)" if d == 2 else "(0, 1)", 
        "norm_training": "" if a.norm_groups else ", training=training",
        "behind_last": "((0, 1), (0, 1))" if d == 2 else "(0, 1)", "epsilon": _number(a.norm_eps),
        "axes": "(1, 2)" if d == 2 else "1", "sequence": ", ".join(projection),
        "every": ", ".join([":: self.stride"] * d), "zeros": ", ".join(["(0, 0)"] * (d + 1)),
        "border": ", ".join(["(1, 1)"] * d), "news": ", ".join(["None"] * d),
        "window": "line" if d == 1 else "(line[:, None] * line)",
        "around": ", ".join(["(n, n)"] * d), "nones": "None, " * d,
        "pad1x": f"pad(x, {p1})" if basic else "x", "pad1p": f"pad(p, {p1})" if basic else "p",
        "pad_last": f"pad(y, {p2})" if basic else "y",
        "stem_input": f"pad(x, {convs[0].padding})" if padded else "x",
        "training": ", training=training" if deep else "",
        "infinite": a.stem.pool is True and a.preact and a.antialias != "avg",
    }  # fmt: skip
