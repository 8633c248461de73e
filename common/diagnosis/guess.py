"""What a tree's blocks say of the row that it might be: values of fields to try, each by itself."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, get_args

from common import row as rows
from common.diagnosis.parse import Chain, Join, Layer, layers
from common.row import Arch, Stem


def edges(chain: Chain) -> dict[str, int]:
    """What any row may have otherwise without being another: channels of the input, classes, axes."""
    convs = [x for x in layers(chain) if x.op == "conv"]
    linear = [x for x in chain if isinstance(x, Layer) and x.op == "linear"]
    found = {"num_classes": linear[-1].attributes["out"] if linear else 0}
    if convs:
        found |= {"in_channels": convs[0].attributes["into"], "dims": len(convs[0].attributes["kernel"])}
    return found


def guesses(base: Arch, theirs: Chain) -> Iterator[dict[str, Any]]:
    """Fields in which her net may differ from `base`, each set to be tried alone."""
    singles: dict[str, Any] = {}
    norms = [x.attributes for x in layers(theirs) if x.op in ("norm", "group_norm")]
    if norms:
        singles["norm_eps"] = _usual(a["eps"] for a in norms)
        singles["norm_groups"] = _usual(a.get("groups", 0) for a in norms)
    kernels = [x.attributes.get("standardised", 0.0) for x in layers(theirs) if x.op == "conv"]
    singles["weight_std"] = _usual(kernels or [0.0])
    blocks = [item for item in theirs if isinstance(item, Join) and item.op == "add"]
    shapes = [_outs(block) for block in blocks]
    stages = [list(run) for _, run in groupby(shapes, key=lambda outs: outs[-1])]
    per = {2: "basic", 3: "bottleneck"}.get(Counter(map(len, shapes)).most_common(1)[0][0] if shapes else 0)
    if per and len(stages) == len(base.depths):
        expansion = rows.EXPANSION[per]
        singles["depths"] = tuple(map(len, stages))
        if all(run[0][-1] % expansion == 0 for run in stages):
            singles["widths"] = tuple(run[0][-1] // expansion for run in stages)
        if per == "bottleneck":
            middle = [x for x in layers(blocks[0].branches[0]) if x.op == "conv"][1].attributes
            width = stages[0][0][-1] // 4
            wide = middle["out"] * 64
            if wide % (width * middle["groups"]) == 0:
                yield {"groups": middle["groups"], "width_per_group": wide // (width * middle["groups"])}
    stem = _stem(theirs)
    if stem:
        singles["stem"] = stem
    for name, value in singles.items():
        if value != getattr(base, name):
            yield {name: value}
    if {"depths", "widths"} <= singles.keys():
        yield {name: singles[name] for name in ("depths", "widths")}
    options: dict[str, tuple[Any, ...]] = {
        "shortcut": get_args(rows.Shortcut), "conv_bias": (True, False, "unnormed"), "shortcut_norm": (True, False),
        "stride_in": (1, 2), "stride_block": ("first", "last"), "first_stride": (1, 2), "preact": (True, False),
        "se_ratio": (0, 16), "antialias": ("none", "avg", "blur"), "eca": (True, False),
        "output_stride": (0, 8, 16),
    }  # fmt: skip
    for name, values in options.items():
        for value in values:
            if value != getattr(base, name):
                yield {name: value}
    rates = sorted({x.attributes["rate"] for x in layers(theirs) if x.op == "dropout"})
    for rate in rates[-1:] or [0.0]:
        for name in ("dropout", "drop_path"):
            if rate != getattr(base, name):
                yield {name: rate}


def _usual(values: Iterable[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def _outs(block: Join) -> list[int]:
    """Output channels of the convolutions of a block's branch, gates apart."""
    return [x.attributes["out"] for x in block.branches[0] if isinstance(x, Layer) and x.op == "conv"] or [0]


def _stem(chain: Chain) -> Stem | None:
    """The stem, where every kernel is odd and square."""
    convs, pool = [], False
    for item in chain:
        if isinstance(item, Join):
            break
        if item.op == "conv":
            a = item.attributes
            if len({*a["kernel"], *a["stride"]} - {a["kernel"][0], a["stride"][0]}) or a["kernel"][0] % 2 == 0:
                return None
            convs.append((a["out"], a["kernel"][0], a["stride"][0]))
        pool |= item.op == "max_pool"
    return Stem(tuple(convs), pool) if 0 < len(convs) < 5 else None
