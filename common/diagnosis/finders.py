"""Edits that no field says, found among changes: patterns first, then attributes, then layers more or less."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from common.diagnosis.align import Change
from common.diagnosis.edits import Edit, Explained, Finder, number, order, plain
from common.diagnosis.parse import Layer, layers
from common.diagnosis.patterns import casts, last_norm, relu_across
from common.diagnosis.places import listed

Words = tuple[str, str, str]  # name, kind, sentence


def fork_moved(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """What a pre-activation block's shortcut reads: x for relu(bn1(x)), or the other way round."""
    raw, activated = set[Change](), set[Change]()
    for c in rest:
        fork = re.match(r"(\d+)\.0\.", c.path)
        if fork and c.kind in ("add", "drop"):
            i = int(fork[1])
            ahead = [
                k for k in (i - 1, i - 2) if k >= 0 and not any(e.places[str(j)].item.op == "add" for j in range(k, i))
            ]
            near = {str(k) for k in ahead} if c.kind == "add" else {f"{k}+{n}" for k in (*ahead, i) for n in range(3)}
            other = "drop" if c.kind == "add" else "add"
            twin = next((d for d in rest if d.kind == other and d.op == c.op and d.path in near), None)
            if twin:
                (raw if c.kind == "add" else activated).update({c, twin})
    for name, found, says in (
        ("projection of the raw input", raw, "the shortcut of {} reads x, and not relu(bn1(x))"),
        ("identity after BN-ReLU", activated, "the shortcut of {} is relu(bn1(x)), and not x"),
    ):
        if found:
            inside = e.blocks(c for c in found if "." in c.path)
            yield Edit(name, "shortcut", says.format(inside), frozenset(found))


def relu_first(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """ReLU and norm in the other order."""
    dropped = {c.path: c for c in rest if c.kind == "drop" and c.op == "relu"}
    both = set[Change]()
    for c in rest:
        if c.kind == "add" and c.op == "relu":
            *outer, n = c.path.split("+")[0].split(".")
            norm, relu = (".".join([*outer, str(int(n) + k)]) for k in (0, 1))
            if relu in dropped and e.places[norm].item.op == "norm":
                both |= {c, dropped[relu]}
    if both:
        where = e.told(c for c in both if c.kind == "drop")
        yield Edit("ReLU before the norm", "ReLU", f"the ReLU comes before the norm, and not {where}", frozenset(both))


def blocks(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """Whole blocks that one net lacks, each with the ReLU behind its sum; and shortcuts around what both have."""
    for kind, words in (("drop", "lacking"), ("add", "too many")):
        group = {c for c in rest if c.kind == kind and c.op == "add"}
        for c in sorted(group, key=order):  # each with a ReLU: that behind its sum, or behind the sum before
            at, plus, k = c.path.partition("+")
            here, n = (f"{at}+", int(k)) if plus else ("", int(at) if at.isdigit() else -9)
            relus = {d.path: d for d in rest if d.kind == kind and d.op == "relu" and d not in group}
            beside = [relus[p] for p in (f"{here}{n + 1}", f"{here}{n - 1}") if p in relus]
            group |= set(beside[:1])
        forks = sorted((c for c in group if c.op == "add"), key=order)
        if forks:
            n, where = len(forks), listed(e.block(c) if kind == "drop" else e.behind(c) for c in forks)
            yield Edit(f"blocks {words}", "depth", f"{n} block{'s' * (n > 1)} {words}: {where}", frozenset(group))
    for kind, name, says in (
        ("inline", "no shortcut", "no shortcut in"), ("joined", "shortcut too many", "a shortcut around"),
    ):  # fmt: skip
        group = {c for c in rest if c.kind == kind}
        if group:
            names = (next((x.name for x in layers((c.item,)) if x.name), "") for c in sorted(group, key=order))
            where = listed(".".join(name.split(".")[:2]) for name in names)
            yield Edit(name, "shortcut", f"{says} {where}", frozenset(group))


def kinds(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """Another operation in the place of one, with whatever else that changes there."""
    for (ours, hers), found in _grouped(rest, lambda c: (c.a, c.b) if c.what == "op" else None):
        group = [c for c in rest if c.path in {f.path for f in found}]
        name, kind = "other activation", "activation"
        if ours.endswith("pool") or ours == "mean":
            name, kind = "other pooling", "pooling"
        elif hers == "hard_sigmoid" and all(e.part(c) == "gate" for c in found):
            name = "hard sigmoid"
        says = f"{e.told(found)}: {hers.replace('_', ' ')} for {ours.replace('_', ' ')}"
        if hers == "group_norm":
            name, kind, says = "group normalisation", "norm", f"{e.told(found)} are over groups of channels"
            of = [c.theirs.attributes for c in found if isinstance(c.theirs, Layer)]
            if all(a["groups"] == a["channels"] for a in of):
                name, says = (
                    "instance normalisation",
                    f"{e.told(found)} are over each channel of each example by itself",
                )
        yield Edit(name, kind, says, frozenset(group))


def _grouped(rest: Iterable[Change], key: Callable[[Change], Any]) -> Iterator[tuple[Any, list[Change]]]:
    """Attributes that are set, by a key; those without one are left out."""
    groups = defaultdict(list)
    for c in rest:
        if c.kind == "set" and (k := key(c)) is not None:
            groups[k].append(c)
    yield from groups.items()


def kernels(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """Other kernels and dilations, with the paddings that belong to them."""
    for (what, hers, ours, part), group in _grouped(
        rest, lambda c: (c.what, c.b, c.a, e.part(c) == "shortcut") if c.what in ("kernel", "dilation") else None
    ):
        at = {c.path for c in group}
        pads = [c for c in rest if c.path in at and c.what in ("before", "after") and _half(c.theirs)]
        name, kind, says = what, "kernel", f"{e.told(group)}: {_across(hers)} for {_across(ours)}"
        if what == "dilation":
            says = f"dilated by {_one(hers)} for {_one(ours)}: {e.told(group)}"
        elif part:
            name, kind = f"projection of {_across(hers)}", "shortcut"
        yield Edit(name, kind, says, frozenset([*group, *pads]))


def _across(kernel: tuple[int, ...]) -> str:
    return "x".join(map(str, kernel))


def averages(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """Average poolings whose border is zeros that count."""
    at = {c.path for c in rest if c.kind == "set" and c.op == "avg_pool" and c.what == "counts" and c.b}
    if at:
        group = [c for c in rest if c.path in at and c.what in ("before", "after", "counts", "ceil")]
        where = e.told(c for c in group if c.what == "counts")
        yield Edit("average pool counts padding", "pooling", f"{where} count a border of zeros", frozenset(group))


def _half(layer: Any) -> bool:
    """Whether a window is padded by half of it on both sides."""
    a = layer.attributes
    wide = a.get("dilation", (1,) * len(a["kernel"]))
    return a["before"] == a["after"] == tuple(k // 2 * d for k, d in zip(a["kernel"], wide, strict=True))


def padding(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """Every padding of convolutions and max poolings that isn't ours, in one sentence."""
    sides = [c for c in rest if c.kind == "set" and c.what in ("before", "after")]
    group = [c for c in sides if c.op in ("conv", "max_pool")]
    first = {c.path: c for c in reversed(sorted(group, key=order))}
    if not group:
        return
    lopsided = any(_lopsided(c.theirs) for c in first.values())
    name = "padding"
    if lopsided:
        pools = all(c.op == "max_pool" for c in first.values())
        stem = all(e.part(c) == "stem" for c in first.values())
        name = "max pool same" if pools else "same padding in the stem" if stem else "same padding"
    elif all(c.op == "max_pool" and not any((*c.theirs.attributes["before"], *c.theirs.attributes["after"]))  # type: ignore[union-attr]
             for c in first.values()):  # fmt: skip
        name = "max pool without border"
    words = defaultdict(list)
    for c in sorted(first.values(), key=order):
        words[f"{_pads(c.theirs)} for {_pads(c.ours)}"].append(c)
    says = "; ".join(f"{e.told(found)} {w}" for w, found in words.items())
    yield Edit(name, "padding", f"pads {says}", frozenset(group))


def _lopsided(layer: Any) -> bool:
    return layer.attributes["before"] == "same" or layer.attributes["before"] != layer.attributes["after"]


def _pads(layer: Any) -> str:
    before, after = layer.attributes["before"], layer.attributes["after"]
    if before == "same":
        return '"same"'
    return ", ".join(f"({b}, {a})" for b, a in sorted(set(zip(before, after, strict=True))))


def head(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """What stands for the mean over all positions."""
    here = [c for c in rest if not any(x.op == "mul" for x in c.around)]
    lost = [c for c in here if c.kind == "drop" and c.op in ("mean", "flatten")]
    index = [c for c in here if c.kind == "add" and c.op == "index"]
    flat = [c for c in here if c.kind == "set" and c.op == "flatten"]
    if index and lost:
        says = "one position is taken for the mean over all"
        yield Edit("one position for the mean", "head", says, frozenset([*lost, *index]))
    elif flat and (at := flat[0].theirs.attributes["at"]):  # type: ignore[union-attr]
        into = [c for c in here if c.kind == "set" and (c.what == "into" and c.op == "linear" or c.op == "mean")]
        pools = [c for c in here if c.kind == "add" and c.op == "avg_pool"]
        says = f"{_across(at)} positions are flattened, where their mean is meant"
        yield Edit("flattened head", "head", says, frozenset([*lost, *flat, *into, *pools]))
    elif {c.op for c in lost} == {"mean", "flatten"}:
        yield Edit("no pooling", "head", "every position comes out, where their mean is meant", frozenset(lost))


def strides(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """Strides elsewhere: on another convolution of the block, or in other stages."""
    group = sorted((c for c in rest if c.kind == "set" and c.what == "stride"), key=order)
    if not group:
        return
    words = [f"{e.told(found)} {b} for {a}" for (b, a), found in _grouped(group, lambda c: (_one(c.b), _one(c.a)))]
    branch, shortcut = ({e.block(c) for c in group if e.part(c) == part} for part in ("branch", "shortcut"))
    name = "strides"
    if branch & shortcut:
        name = "stage strides"
    elif branch and not shortcut:
        last = any(_one(c.b) != 1 and c.path in e.places and e.place(c).last and e.base.block == "basic" for c in group)
        name = "stride on the second 3x3" if last else "stride on another convolution"
    elif all(c.op.endswith("pool") for c in group):
        name = "pool stride"
    yield Edit(name, "stride", f"strides: {'; '.join(words)}", frozenset(group))


def _one(values: Any) -> Any:
    return values[0] if isinstance(values, tuple) and len(set(values)) == 1 else values


def widths(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """Other numbers of channels, of convolutions and of what reads them."""
    group = [c for c in rest if c.kind == "set" and c.what in ("out", "into", "channels")]
    if group:
        made = sorted([c for c in group if c.what == "out"] or group, key=order)
        words = [f"{e.told(found)} {b} for {a}" for (b, a), found in _grouped(made, lambda c: (c.b, c.a))]
        more = f"; and {len(words) - 4} more" if len(words) > 4 else ""
        yield Edit("widths", "width", f"channels: {'; '.join(words[:4])}{more}", frozenset(group))


def _epsilon(p: str, a: float, b: float) -> Words:
    return f"epsilon {number(b)}", "epsilon", f"{p} {number(b)} for {number(a)}"


def _momentum(p: str, a: float, b: float | None) -> Words:
    if b is None:
        return "momentum of all batches", "momentum", f"{p} keep the plain mean of all batches"
    name = {0.0: "statistics stand still", 0.9: "momentum 0.1 for 0.9"}.get(b, f"momentum {number(round(1 - b, 9))}")
    return name, "momentum", f"{p} keep {number(round(1 - b, 9))} for {number(round(1 - a, 9))}"


def _mode(p: str, a: str, b: str) -> Words:
    return {
        "never": ("frozen norms", "norm", f"{p} read their running statistics in training, too"),
        "always": ("eval() forgotten", "norm", f"{p} read the batch in evaluation, too"),
    }.get(b, ("norm mode", "norm", f"{p} read the batch {b}"))


# (op, attribute): (where in words, our value, hers) -> name, kind, sentence
ATTRIBUTES: dict[tuple[str, str], Callable[[str, Any, Any], Words]] = {
    ("norm", "eps"): _epsilon,
    ("norm", "momentum"): _momentum,
    ("norm", "batch"): _mode,
    ("norm", "unbiased"): lambda p, a, b: ("biased variance", "variance", f"{p} keep the batch's biased variance"),
    ("norm", "leaves"): lambda p, a, b: (
        "norm without scale or shift" if "running_mean" in b else "norm without statistics", "norm",
        f"{p} lack {', '.join(leaf for leaf in a if leaf not in b)}",
    ),
    ("group_norm", "eps"): _epsilon,
    ("group_norm", "groups"): lambda p, a, b: (f"{b} groups of a norm", "norm", f"{p} are over {b} groups for {a}"),
    ("group_norm", "leaves"): lambda p, a, b: (
        "norm without scale or shift", "norm", f"{p} lack {', '.join(leaf for leaf in a if leaf not in b)}",
    ),
    ("conv", "standardised"): lambda p, a, b: (
        f"weight standardisation {'missing' if b is None else 'too much' if a is None else number(b)}", "norm",
        f"{p} {'do not standardise' if b is None else 'standardise'} their weights"
        + ("" if b is None else f", epsilon {number(b)}") + ("" if None in (a, b) else f" for {number(a)}"),
    ),
    ("norm", "gradient"): lambda p, a, b: (
        "statistics without gradient", "gradient", f"no gradient goes through the batch's mean and variance in {p}",
    ),
    ("linear", "still"): lambda p, a, b: (
        "gradient of the last bias lost" if b == ("bias",) else "gradient lost", "gradient",
        f"no gradient reaches the {' and '.join(b)} of {p}",
    ),
    ("dropout", "scaled"): lambda p, a, b: ("dropout unscaled", "dropout", f"{p} don't scale up what survives"),
    ("concat", "order"): lambda p, a, b: (
        "trunks in another order", "head", "the trunks' features are joined in another order",
    ),
    ("linear", "bias"): lambda p, a, b: ("classifier without bias", "bias", "the classifier has no bias"),
    ("conv", "bias"): lambda p, a, b: (
        "bias before BatchNorm" if b else "no bias", "bias", f"{'a' if b else 'no'} bias in {p}",
    ),
    ("max_pool", "value"): lambda p, a, b: ("max pool with zeros", "pooling", f"the border of {p} is {b:g} for {a:g}"),
    ("mean", "at"): lambda p, a, b: (
        "head for one size", "head",
        f"a pooling of {_across(b[0])} positions stands for the mean over all" if b else "the mean is over everything",
    ),
    ("pad_channels", "before"): lambda p, a, b: (
        ("option A", "shortcut", f"{p}: {b} zero channels in front for {a}") if b
        else ("option A at the end", "shortcut", f"{p}: all zero channels are behind, and not on both sides")
    ),
    ("dropout", "shared"): lambda p, a, b: (
        "dropout by channel" if b else "stochastic depth by element", "dropout",
        f"{p} draw a mask for each {'channel' if b else 'element'}",
    ),
    ("dropout", "rate"): lambda p, a, b: ("dropout rate", "dropout", f"{p} drop {number(b)} for {number(a)}"),
    ("conv", "groups"): lambda p, a, b: ("groups", "groups", f"{p}: {b} groups for {a}"),
}  # fmt: skip


def attributes(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """Whatever else is set, by attribute and values."""
    fronts = {c.path for c in rest if c.op == "pad_channels" and c.what == "before"}
    behind = [c for c in rest if c.path in fronts and c.what == "after"]
    others = [c for c in rest if c not in behind]
    for (op, what, *_), group in _grouped(
        others, lambda c: (c.op, c.what) if c.op == "pad_channels" else (c.op, c.what, repr(c.a), c.value)
    ):
        words = ATTRIBUTES.get((op, what))
        if what == "again":
            name, kind, says = f"shared {op}", op, f"{e.told(group)} is {group[0].b} once more"
        elif words:
            name, kind, says = words(e.told(group), group[0].a, group[0].b)
        else:
            name, kind, says = what, op, f"{e.told(group)}: {what} {plain(group[0].b)} for {plain(group[0].a)}"
        yield Edit(name, kind, says, frozenset([*group, *(c for c in behind if op == "pad_channels")]))


# (op, part, whether hers lacks it): name, kind, sentence; "" for any part
LAYERS: dict[tuple[str, str, bool], Words] = {
    ("softmax", "end", False): ("softmax in the net", "head", "the net ends in a softmax"),
    ("log_softmax", "end", False): ("log-softmax in the net", "head", "the net ends in a log-softmax"),
    ("relu", "end", False): ("ReLU behind the classifier", "ReLU", "the net ends in a ReLU"),
    ("relu", "stem", True): ("no ReLU in the stem", "ReLU", "no ReLU in the stem"),
    ("relu", "sum", True): ("no ReLU after the addition", "ReLU", "no ReLU {}"),
    ("norm", "stem", True): ("no norm in the stem", "norm", "no norm in the stem: {}"),
    ("norm", "shortcut", True): ("projection without norm", "shortcut", "no norm behind a projection: {}"),
    ("norm", "head", True): ("no last BN-ReLU", "norm", "no norm behind the last stage"),
    ("projection", "shortcut", True): (
        "identity for a projection", "shortcut", "{} adds its input, where a projection is meant",
    ),
    ("projection", "shortcut", False): (
        "projection for an identity", "shortcut", "{} projects its input, where the identity is meant",
    ),
    ("max_pool", "stem", True): ("no max pooling", "stem", "no max pooling in the stem"),
    ("linear", "", True): ("no classifier", "head", "no classifier: features come out"),
    ("linear", "", False): ("hidden layer", "head", "one more linear layer {}"),
    ("mul", "", True): ("no squeeze-and-excitation", "gate", "no gate: {}"),
    ("mul", "", False): ("gate", "gate", "a gate too many {}"),
    ("take", "input", False): (
        "channels the other way round", "input", "the input's channels are turned around (BGR for RGB)",
    ),
    ("transpose", "input", False): ("height and width swapped", "input", "the input's axes change places"),
    ("scale", "input", False): ("input scaled", "input", "the net scales its input itself"),
    ("shift", "input", False): ("input shifted", "input", "the net shifts its input itself"),
    ("take", "branch", False): ("groups interleaved", "groups", "channels change places {}"),
}  # fmt: skip
PARTS = {"sum": "last ", "branch": "inner ", "shortcut": "shortcut's "}


def more_or_less(e: Explained, rest: list[Change]) -> Iterator[Edit]:
    """Layers that only one of both has, by what they are and where."""
    groups = defaultdict(list)
    for c in rest:
        if c.kind in ("drop", "add"):
            groups[_kind_of(c, rest, e), e.part(c), c.kind == "drop"].append(c)
    for (op, part, less), group in groups.items():
        where = e.blocks(group) if op == "projection" else e.told(group)
        words = LAYERS.get((op, part, less)) or LAYERS.get((op, "", less))
        if words:
            name, kind, says = words
            if op == "projection" and not less and where == "layer1.0":
                name = "projection in the first stage"
        elif op == "dropout":
            rates = ", ".join(sorted({number(x.attributes["rate"]) for c in group for x in layers((c.item,))}))
            name, kind, says = ("no dropout", op, "no dropout {}") if less else (op, op, f"dropout of {rates} {{}}")
        else:
            thing = {"relu": "ReLU", "conv": "convolution"}.get(op, op.replace("_", " "))
            name = f"{thing} {'missing' if less else 'too many'}"
            kind = thing
            says = f"no {thing}: {{}}" if less else f"one more {thing} {{}}"
            if op == "relu":
                name = f"{'no' if less else 'extra'} {PARTS.get(part, part + ' ')}ReLU"
        yield Edit(name, kind, says.format(where), frozenset(group))


def _kind_of(c: Change, rest: list[Change], e: Explained) -> str:
    """The op; a convolution of a shortcut with its norm is a projection."""
    if e.part(c) == "shortcut" and c.op in ("conv", "norm", "group_norm"):
        chain = c.path.rsplit(".", 1)[0]
        if any(d.kind == c.kind and d.op == "conv" and d.path.rsplit(".", 1)[0] == chain for d in rest):
            return "projection"
    return "norm" if c.op == "group_norm" else c.op


FINDERS: tuple[Finder, ...] = (
    relu_across, last_norm, casts, fork_moved, relu_first, blocks, head, kinds, kernels, averages, padding, strides,
    widths, attributes, more_or_less,
)  # fmt: skip
