"""The row that a net's canonical shapes say, with what no shape tells and on whose word it was taken."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from common.arch import EXPANSION, Arch, Stem
from common.checkpoints import claims
from common.checkpoints.containers import Container
from common.checkpoints.libraries.library import Library
from common.checkpoints.libraries.transformers import KINDS
from common.errors import RosettaError
from common.names import Shape
from common.plan import reduced

CONFIGURED = "its configuration says so"


def row_of(shapes: Mapping[str, Shape], library: Library, held: Container) -> tuple[Arch, dict[str, str]]:
    """(the row, {field that no shape tells: on whose word it was taken}) of canonical shapes.

    Raises RosettaError where there is no first convolution, no stage, or nothing that a row could say.
    """
    net = _Net(shapes, f"{held.path} has the names of {library.name}")
    conventions = {k: v for k, v in library.conventions.items() if "." not in k}
    if not net.bottleneck:
        conventions.pop("stride_in", None)
    row: dict[str, Any] = {}
    told: dict[str, str] = {}
    # what comes later is more certain: a library's convention beats what is usual, its configuration both
    for fields, why in (
        (net.blocks(), {}), net.trunks(), net.shortcuts(), net.stem(library.conventions.get("stem.pool", True)),
        net.norms(), (net.extras(), {}), (conventions, dict.fromkeys(conventions, f"the convention of {library.name}")),
    ):  # fmt: skip
        row |= fields
        told |= why
    said = configured(held, library)
    row |= said
    told |= dict.fromkeys(said, CONFIGURED)
    told = {f: f"{_said(row[f])}: {why}" for f, why in told.items()}
    try:
        return Arch(**row), told
    except RosettaError as e:
        raise net.broken(f"a net that no row says: {e}") from None


_Fields = tuple[dict[str, Any], dict[str, str]]  # of a row; and of those that no shape tells, on whose word


class _Net:
    """Canonical shapes, read as fields of a row, a method for each group of them."""

    def __init__(self, shapes: Mapping[str, Shape], whose: str):
        """`whose` begins the errors. Raises RosettaError where a net's frame isn't there: a stem, stages, blocks."""
        self.shapes, self.whose = shapes, whose
        self.stem_convs = [n for n in shapes if re.fullmatch(r"conv1(\.\d+)?\.weight", n) and len(shapes[n]) > 2]
        self.stem_convs.sort(key=lambda n: (len(n), n))
        if not self.stem_convs:
            raise self.broken("no first convolution, conv1.weight: is it a net, or a part of one?")
        blocks: dict[tuple[int, str], set[int]] = {}
        for name in shapes:
            if m := re.match(r"layer(\d+)(_k\d+)?\.(\d+)\.", name):
                blocks.setdefault((int(m[1]), m[2] or ""), set()).add(int(m[3]))
        self.stages = sorted({s for s, _ in blocks})
        self.kernels = sorted({k for _, k in blocks}, key=lambda k: (len(k), k))  # of parallel trunks: _k3, _k5, ...
        if not self.stages or self.stages != list(range(1, len(self.stages) + 1)) or len(self.stages) > 20:
            raise self.broken(f"the stages {self.stages}: expected layer1, layer2, ... without a gap")
        self.depths = []
        for s in self.stages:
            there = blocks.get((s, self.kernels[0]), set())
            if there != set(range(len(there))):
                missing = sorted(set(range(max(there) + 1)) - there) if there else []
                raise self.broken(f"stage {s} lacks its blocks {missing[:8]}")
            self.depths.append(len(there))
        self.bottleneck = f"{self.block(1)}.conv3.weight" in shapes
        last = "conv3" if self.bottleneck else "conv2"
        self.out = [self.shape(f"{self.block(s)}.{last}.weight")[0] for s in self.stages]  # channels
        self.preact = any(n.startswith("norm") for n in shapes)
        if not self.preact and "bn1.weight" not in shapes:
            folded = "" if any(re.search(r"\.bn\d\.", n) for n in shapes) else (
                ". It has no norm at all: were they folded into the convolutions? Port the file from before that"
            )  # fmt: skip
            raise self.broken(f"no norm follows its first convolution (bn1), nor its last block (norm){folded}")

    def broken(self, what: str) -> RosettaError:
        return RosettaError(f"{self.whose}, but {what}")

    def shape(self, name: str) -> Shape:
        if name not in self.shapes:
            raise self.broken(f"no {name}")
        return self.shapes[name]

    def block(self, stage: int, index: int = 0) -> str:
        return f"layer{stage}{self.kernels[0]}.{index}"

    def blocks(self) -> dict[str, Any]:
        """What is in the shapes themselves."""
        kind = "bottleneck" if self.bottleneck else "basic"
        row: dict[str, Any] = {
            "depths": tuple(self.depths), "widths": tuple(max(1, c // EXPANSION[kind]) for c in self.out),
            "block": kind, "preact": self.preact,
            "dims": len(self.shapes[self.stem_convs[0]]) - 2, "in_channels": self.shapes[self.stem_convs[0]][1],
            "num_classes": self.shapes["fc.weight"][0] if "fc.weight" in self.shapes else 0,
        }  # fmt: skip
        if self.bottleneck:
            mid, per_group, *_ = self.shape(f"{self.block(1)}.conv2.weight")
            row["groups"] = mid // max(1, per_group)
            row["width_per_group"] = mid * 64 // max(1, row["groups"] * row["widths"][0])
        return row

    def trunks(self) -> _Fields:
        """Kernels, of one trunk or of several."""
        if self.kernels == [""]:
            return {"kernels": (self.shape(f"{self.block(1)}.conv{2 if self.bottleneck else 1}.weight")[-1],)}, {}
        row = {"kernels": tuple(int(k[2:]) for k in self.kernels), "first_stride": 2}
        return row, {"first_stride": "the convention of parallel trunks"}

    def shortcuts(self) -> _Fields:
        """Where they have a convolution, and what is in its place where not."""
        convs = [
            n for n in self.shapes
            if re.match(r"layer\d+(_k\d+)?\.\d+\.downsample\.\d+\.weight", n) and len(self.shapes[n]) > 2
        ]  # fmt: skip
        enters = self.shapes[self.stem_convs[-1]][0]
        if not convs:
            if len({enters, *self.out}) == 1 and len(self.stages) == 1:
                return {"shortcut": "project"}, {}
            why = "no shape tells zero-padded identities (option A, both sides) from none at all: padded by convention"
            return {"shortcut": "pad"}, {"shortcut": why}
        if all(n.split(".downsample.")[1].startswith("1.") for n in convs):
            first = enters == self.out[0] and f"{self.block(1)}.downsample.1.weight" in self.shapes
            return {"shortcut": "pool_first" if first and self.kernels == [""] else "pool"}, {}
        everywhere = all(
            any(f"{self.block(s, b)}.downsample.{i}.weight" in self.shapes for i in (0, 1))
            for s, depth in zip(self.stages, self.depths, strict=True)
            for b in range(depth)
        )
        # in blocks one by one only the first, which changes nothing, tells
        told = max(self.depths) > 1 or (self.block(1) in convs[0] and self.out[0] == enters)
        normed = any(re.match(r"layer\d+(_k\d+)?\.\d+\.downsample\.1\.weight", n) for n in self.shapes)
        return {
            "shortcut": "project_all" if everywhere and told else "project",
            "shortcut_norm": self.preact or normed,
        }, {}

    def stem(self, pool: Any) -> _Fields:
        """Its sizes are in the shapes, its strides and pooling are not; `pool` is the library's."""
        sizes = [(self.shapes[n][0], self.shapes[n][-1]) for n in self.stem_convs]
        small = len(sizes) == 1 and sizes[0][1] < 7
        strides = [1 if small or i else 2 for i in range(len(sizes))]
        strides[-1] = strides[-1] if pool or small else 2  # ResNet-RS' convolution in the pooling's place
        convs = tuple((c, n, s) for (c, n), s in zip(sizes, strides, strict=True))
        which = f"one convolution of {sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} convolutions"
        pooling = "no pooling" if small or not pool else "max pooling"
        return {"stem": Stem(convs, False if small else pool)}, {
            "stem": f"{which}: stride {strides[0]}, {pooling}, as is usual for it"
        }

    def norms(self) -> _Fields:
        """BatchNorm's have statistics."""
        if any(n.endswith(".running_mean") for n in self.shapes):
            return {}, {}
        return {"norm_groups": 32}, {"norm_groups": "norms without statistics, of 32 groups as is usual for them"}

    def extras(self) -> dict[str, Any]:
        """Attention, and biases of convolutions."""
        row: dict[str, Any] = {}
        squeezes = [f"{self.block(s)}.se.fc1.weight" for s in self.stages]
        if squeezes[0] in self.shapes:
            row["se_ratio"] = _se_ratio([self.shapes[n][:2] for n in squeezes if n in self.shapes])
        if f"{self.block(1)}.se.conv.weight" in self.shapes:
            row["eca"] = True
        biased = [
            layer
            for layer in (n.removesuffix(".bias") for n in self.shapes if n.endswith(".bias"))
            if len(self.shapes.get(f"{layer}.weight", ())) > 2 and ".se." not in layer
        ]
        if biased:
            row["conv_bias"] = True if f"{self.block(1)}.conv1" in biased else "unnormed"
        return row


def _said(value: Any) -> str:
    if isinstance(value, Stem):
        return ", ".join(f"{c} of {n} wide" for c, n, _ in value.convs)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _se_ratio(pairs: Sequence[Shape]) -> int:
    """The reduction under which every block's (narrow, wide) comes out; 16 where several do."""
    fits = [r for r in (16, *range(1, 129)) if all(reduced(wide, r) == narrow for narrow, wide in pairs)]
    return fits[0] if fits else 16


def configured(held: Container, library: Library) -> dict[str, Any]:
    """Fields of the row that a library's own configuration says."""
    config = held.metadata.get("config")
    if not isinstance(config, dict):
        return {}
    if library.name in KINDS and config.get("model_type") in ("resnet", "rt_detr_resnet"):
        said: dict[str, Any] = {}
        if config.get("layer_type", "bottleneck") == "bottleneck" and "downsample_in_bottleneck" in config:
            said["stride_in"] = 1 if config["downsample_in_bottleneck"] else 2
        if "downsample_in_first_stage" in config:
            said["first_stride"] = 2 if config["downsample_in_first_stage"] else 1
        return said
    if timm := claims.timm_fields(held):
        return {field: timm[field] for field in ("antialias", "output_stride")}
    layers = claims.keras_layers(config)
    if library.keras and layers:
        by_name = {str(layer["config"].get("name")): layer["config"] for layer in layers}
        eps = {c["epsilon"] for c in by_name.values() if isinstance(c.get("epsilon"), float)}
        found: dict[str, Any] = {"norm_eps": eps.pop()} if len(eps) == 1 else {}
        strides = (by_name.get("conv3_block1_1_conv") or {}).get("strides")
        if isinstance(strides, list) and library.conventions.get("stride_block") is None:
            found["stride_in"] = 1 if strides == [2, 2] else 2
        return found
    return {}
