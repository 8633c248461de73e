"""A tape in normal form: what two spellings of one function share, and nothing that has no meaning.

What comes out has the tape's records, and these ops beside: `mean` always leaves N C 1 1; `flatten` (order; at: the
size of what is flattened, None after a mean); `subsample` (stride); `pad_channels` (before, after); `unflatten`;
`along_channels` (N C 1 1 to N 1 C) and `of_channels` (back). `mean`
has `at`: window and stride of a pooling that is a mean over everything at one size; None where it always is.

1. What changes nothing is gone: identities, pooling of one position at stride 1, scales by 1, masks that drop nothing,
   rounding up where nothing is divided.
2. A padding of zeros is part of the convolution behind it, one before a max pooling is its border; a border of 0 where
   nothing is negative is one of -inf. Cutting a padding makes it smaller.
3. Adaptive pooling to one position, a pooling as wide as its input, and means along one axis after another are `mean`.
4. Each n-th position, by slices or by a pooling of window 1, is `subsample`, and before a 1x1 convolution its stride.
5. Zero channels, padded or concatenated or multiplied by 0, are `pad_channels`.
6. A split, a convolution of each part and a concatenation is one convolution with groups.
7. A sum of a sum is one sum, and a concatenation of a concatenation is one.
8. On one position a linear layer between flatten and unflatten is a 1x1 convolution, one before a flatten is linear.
9. Nothing is folded: a norm stays a norm, whatever comes before it. What no output needs is gone.

Each rule looks at one call and at what made its inputs.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from common.diagnosis.tape import Call, Tape

POINTWISE = ("relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu", "hard_sigmoid", "hard_swish",
             "mish", "softplus", "hardtanh", "norm", "affine", "shift", "scale", "dropout")  # fmt: skip
NEVER_NEGATIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softmax")


class _Graph:
    """The calls by what they make, while they are rewritten."""

    def __init__(self, tape: Tape):
        self.tape = tape
        self.calls = list(tape.calls)
        self.outputs = tape.outputs
        self.highest = max((n for call in self.calls for n in call.outputs), default=0)
        self.index()

    def index(self) -> None:
        self.maker = {number: call for call in self.calls for number in call.outputs}
        self.uses = Counter(number for call in self.calls for number in call.inputs)
        self.uses.update(self.outputs)

    def new(self) -> int:
        self.highest += 1
        return self.highest

    def shape(self, number: int) -> tuple[int, ...]:
        maker = self.maker.get(number)
        if maker is None:
            return self.tape.shape
        if maker.op == "split":
            axis, sizes = maker.attributes["axis"], maker.attributes["sizes"]
            return tuple(
                sizes[maker.outputs.index(number)] if i == axis else n
                for i, n in enumerate(self.shape(maker.inputs[0]))
            )
        return maker.shape

    def before(self, call: Call, *ops: str) -> Call | None:
        """What made the call's only input, where it is one of `ops`."""
        maker = self.maker.get(call.inputs[0]) if len(call.inputs) == 1 else None
        return maker if maker and maker.op in ops else None

    def alone(self, number: int) -> bool:
        return self.uses[number] == 1

    def single(self, number: int) -> bool:
        """Whether a tensor has one position at every size of the input."""
        maker = self.maker.get(number)
        while maker and (maker.op in POINTWISE or (maker.op == "conv" and set(maker.attributes["kernel"]) == {1})):
            maker = self.maker.get(maker.inputs[0])
        return maker is not None and maker.op in ("mean", "global_max", "unflatten", "of_channels")


# what stands for a call: other calls, of which the last gives what it gave, or a tensor that is the same; None: itself
New = list[Call] | int | None
Rule = Callable[[Call, _Graph], New]


def normal(tape: Tape) -> Tape:
    """The tape in normal form."""
    graph = _Graph(tape)
    for rules in (RULES, LAST):
        while _pass(graph, rules):
            graph.index()
    return replace(tape, calls=tuple(graph.calls), outputs=graph.outputs)


def _pass(graph: _Graph, rules: "tuple[Rule, ...]") -> bool:
    """Tries each rule on each call once; whether one did something."""
    changed, same, calls = False, dict[int, int](), list[Call]()
    for call in graph.calls:
        if any(n in same for n in call.inputs):
            call = replace(call, inputs=tuple(same.get(n, n) for n in call.inputs))
            graph.maker.update(dict.fromkeys(call.outputs, call))
        new: New = None
        for rule in rules:
            if (new := rule(call, graph)) is not None:
                break
        changed |= new is not None
        if isinstance(new, int):
            same[call.outputs[0]] = new
            continue
        for made in [call] if new is None else new:
            graph.maker.update(dict.fromkeys(made.outputs, made))
            calls.append(made)
    graph.outputs = tuple(same.get(n, n) for n in graph.outputs)
    graph.calls = _needed(calls, graph.outputs)
    return changed


def _needed(calls: Iterable[Call], outputs: Iterable[int]) -> list[Call]:
    wanted, kept = set(outputs), []
    for call in reversed(list(calls)):
        if wanted.intersection(call.outputs):
            wanted.update(call.inputs)
            kept.append(call)
    return kept[::-1]


def _with(call: Call, op: str = "", inputs: tuple[int, ...] | None = None, **attributes: object) -> Call:
    """The call with other attributes, or, where it becomes another `op`, with these alone."""
    still = {k: v for k, v in call.attributes.items() if k == "still"}
    kept = {**(still if op else call.attributes), **attributes}
    return replace(call, op=op or call.op, inputs=call.inputs if inputs is None else inputs, attributes=kept)


def _one(call: Call, op: str = "", inputs: tuple[int, ...] | None = None, **attributes: object) -> list[Call]:
    return [_with(call, op, inputs, **attributes)]


def _set(call: Call, **fields: Any) -> list[Call]:
    return [replace(call, **fields)]


def _nothing(c: Call, g: _Graph) -> New:
    a = c.attributes
    gone = (
        c.op == "identity"
        or (c.op == "dropout" and a["rate"] == 0)
        or (c.op in ("reshape", "transpose", "slice") and c.shape == g.shape(c.inputs[0]) and _in_place(c))
        or (c.op == "pad" and not any((*a["before"], *a["after"])))
        or (c.op == "concat" and len(c.inputs) == 1)
        or (c.op in ("max_pool", "avg_pool") and {*a["kernel"], *a["stride"]} == {1})
        or (c.op == "subsample" and set(a["stride"]) == {1})
        or (c.op in ("shift", "scale") and isinstance(a["by"], float) and a["by"] == (c.op == "scale"))
    )
    return c.inputs[0] if gone else None


def _together(c: Call, g: _Graph) -> New:
    """A bias that is added behind a convolution is the convolution's; two scales are one; dropout that takes back its
    own is unscaled."""
    if c.op == "affine" and "weight" not in c.arrays and (m := g.before(c, "conv", "linear")):
        if "bias" not in m.arrays and g.alone(m.outputs[0]):
            both = {**m.attributes, **c.attributes}
            return _set(m, outputs=c.outputs, attributes=both, arrays={**m.arrays, **c.arrays})
    if c.op == "scale" and (m := g.before(c, "dropout")) and g.alone(m.outputs[0]):
        if isinstance(c.attributes["by"], float) and math.isclose(c.attributes["by"], 1 - m.attributes["rate"]):
            return _set(m, outputs=c.outputs, attributes={**m.attributes, "scaled": False})
    if c.op == "scale" and (m := g.before(c, "scale")) and g.alone(m.outputs[0]):
        by = c.attributes["by"] * m.attributes["by"]
        return _one(c, inputs=m.inputs, by=1.0 if isinstance(by, float) and math.isclose(by, 1, rel_tol=1e-12) else by)
    return None


def _in_place(c: Call) -> bool:
    axes = c.attributes.get("axes")
    return axes is None or list(axes) == sorted(axes)


def _padding(c: Call, g: _Graph) -> New:
    a = c.attributes
    if c.op == "slice" and a["step"] == 1 and (p := g.before(c, "pad")) and p.attributes.get("mode") is None:
        n = g.shape(p.outputs[0])[a["axis"]]
        before, after = list(p.attributes["before"]), list(p.attributes["after"])
        before[a["axis"]] -= a["start"]
        after[a["axis"]] -= n - a["stop"]
        if min(before[a["axis"]], after[a["axis"]]) >= 0:
            pads = {**p.attributes, "before": tuple(before), "after": tuple(after)}
            return _set(c, op="pad", inputs=p.inputs, attributes=pads)
    if c.op == "pad" and len(c.shape) > 2 and not any((*a["before"][2:], *a["after"][2:])) and a["value"] == 0:
        if not a.get("mode") and not a["before"][0] and not a["after"][0]:
            return _one(c, "pad_channels", before=a["before"][1], after=a["after"][1])
    if c.op in ("max_pool", "avg_pool") and a["ceil"] and set(a["stride"]) == {1}:
        return _one(c, ceil=False)
    if c.op == "avg_pool" and not any((*a["before"], *a["after"])) and a["counts"]:
        return _one(c, counts=False)
    if c.op in ("conv", "max_pool", "avg_pool") and (p := g.before(c, "pad")):
        b, e, value = p.attributes["before"], p.attributes["after"], p.attributes["value"]
        padded = any((*a["before"], *a["after"]))
        if any((*b[:2], *e[:2])) or p.attributes.get("mode"):
            return None
        if c.op == "max_pool":
            fits = not padded or value == a["value"]
        else:
            fits = value == 0 and (c.op == "conv" or not padded or a["counts"])
        if fits:
            own = {"max_pool": {"value": value}, "avg_pool": {"counts": True}}.get(c.op, {})
            sides = {
                k: tuple(x + y for x, y in zip(a[k], p.attributes[k][2:], strict=True)) for k in ("before", "after")
            }
            return _set(c, inputs=p.inputs, attributes={**c.attributes, **own, **sides})
    if c.op == "max_pool" and a["value"] == 0:
        maker = g.maker.get(c.inputs[0])
        if not any((*a["before"], *a["after"])) or (maker and maker.op in NEVER_NEGATIVE):
            return _one(c, value=-math.inf)
    return None


def _means(c: Call, g: _Graph) -> New:
    a, axes = c.attributes, len(g.shape(c.inputs[0])) - 2 if c.inputs else 0
    if c.op == "adaptive_pool" and set(a["size"]) == {1}:
        return _one(c, "mean", at=None) if a["kind"] == "mean" else _one(c, "global_max")
    if c.op == "avg_pool" and tuple(c.shape[2:]) == (1,) * axes and not any((*a["before"], *a["after"])):
        size = g.shape(c.inputs[0])[2:]
        if tuple(a["kernel"]) == tuple(size) and math.prod(size) > 1:
            return _one(c, "mean", at=(tuple(size), tuple(a["stride"])))
    if c.op == "max" and a["keepdims"] and a["axes"] == tuple(range(2, axes + 2)):
        return _one(c, "global_max")
    if c.op != "mean" or "at" in a:
        return None
    size = g.shape(c.inputs[0])
    if not a["keepdims"]:
        if (
            (m := g.before(c, "mean"))
            and "at" not in m.attributes
            and not m.attributes["keepdims"]
            and g.alone(m.outputs[0])
        ):
            first, (second,) = m.attributes["axes"], a["axes"]
            if len(first) == 1:
                second += second >= first[0]
                return _set(c, inputs=m.inputs, attributes={"axes": tuple(sorted((*first, second))), "keepdims": False})
        if a["axes"] == (2,) and len(size) == 3 and (r := g.before(c, "reshape")):
            whole = g.shape(r.inputs[0])
            if len(whole) > 3 and size[:2] == whole[:2]:
                return _set(c, inputs=r.inputs, attributes={"axes": tuple(range(2, len(whole))), "keepdims": False})
        if a["axes"] == tuple(range(2, len(size))):
            kept = replace(c, outputs=(g.new(),), shape=(*size[:2], *(1,) * axes), attributes={"at": None})
            return [kept, replace(c, op="reshape", inputs=kept.outputs, attributes={"shape": c.shape, "order": "CS"})]
        return None
    if a["axes"] == tuple(range(2, len(size))):
        return _one(c, "mean", at=None)
    if (m := g.before(c, "mean")) and "axes" in m.attributes and m.attributes["keepdims"]:
        return _one(c, inputs=m.inputs, axes=tuple(sorted({*a["axes"], *m.attributes["axes"]})))
    return None


def _subsample(c: Call, g: _Graph) -> New:
    a = c.attributes
    if c.op in ("max_pool", "avg_pool") and set(a["kernel"]) == {1} and not any((*a["before"], *a["after"])):
        return _one(c, "subsample", stride=tuple(a["stride"]))
    if c.op == "slice" and a["axis"] > 1 and a["step"] > 1 and not a["start"]:
        if a["stop"] == g.shape(c.inputs[0])[a["axis"]]:
            return _one(
                c, "subsample", stride=tuple(a["step"] if i == a["axis"] else 1 for i in range(2, len(c.shape)))
            )
    if (s := g.before(c, "subsample")) and g.alone(s.outputs[0]):
        strides = s.attributes["stride"]
        if c.op == "subsample" or (c.op == "conv" and set(a["kernel"]) == {1} and not any((*a["before"], *a["after"]))):
            return _one(c, inputs=s.inputs, stride=tuple(x * y for x, y in zip(a["stride"], strides, strict=True)))
    return None


def _channels(c: Call, g: _Graph) -> New:
    a = c.attributes
    if c.op == "concat" and a["axis"] == 1 and len(c.inputs) > 1:
        makers = [g.maker.get(n) for n in c.inputs]
        zero = [m is not None and m.op == "scale" and repr(m.attributes["by"]) == "0.0" for m in makers]
        if zero.count(False) == 1:
            at, sizes = zero.index(False), [g.shape(n)[1] for n in c.inputs]
            return _one(c, "pad_channels", (c.inputs[at],), before=sum(sizes[:at]), after=sum(sizes[at + 1 :]))
        convs = [m for m in makers if m is not None and m.op == "conv"]
        if len(convs) == len(makers) and len({m.inputs for m in convs}) == len(convs):
            source = g.maker.get(convs[0].inputs[0])
            alike = len({(tuple(sorted(m.attributes.items())), m.shape, *m.arrays) for m in convs}) == 1
            if source and source.op == "split" and alike and convs[0].attributes["groups"] == 1:
                if source.attributes["axis"] == 1 and source.outputs == tuple(m.inputs[0] for m in convs):
                    names = {leaf: _joined([m.arrays[leaf] for m in convs]) for leaf in convs[0].arrays}
                    return _set(convs[0], inputs=source.inputs, outputs=c.outputs, shape=c.shape, arrays=names,
                                   attributes={**convs[0].attributes, "groups": len(convs)})  # fmt: skip
    if c.op in ("add", "concat"):
        for i, n in enumerate(c.inputs):
            m = g.maker.get(n)
            if m and m.op == c.op and g.alone(n) and m.attributes == c.attributes:
                return _set(c, inputs=(*c.inputs[:i], *m.inputs, *c.inputs[i + 1 :]))
    return None


def _joined(names: list[str]) -> str:
    """The name of arrays behind one another: of the whole, where they are its parts ("kernel[0/2]", "kernel[1/2]")."""
    whole = names[0].rpartition("[")[0]
    return whole if names == [f"{whole}[{i}/{len(names)}]" for i in range(len(names))] else "+".join(names)


def _flat(c: Call, g: _Graph) -> New:
    a = c.attributes
    size = g.shape(c.inputs[0]) if c.inputs else ()
    if c.op == "reshape" and len(c.shape) == 2 and c.shape == (size[0], math.prod(size[1:])):
        one = g.single(c.inputs[0])
        return _one(c, "flatten", order=None if one else a["order"], at=None if one else tuple(size[2:]))
    if c.op == "reshape" and len(size) == 2 and c.shape[:2] == size and set(c.shape[2:]) == {1}:
        return _one(c, "unflatten")
    if c.op in ("reshape", "transpose") and len(c.shape) == 3 and c.shape[1] == 1 and c.shape[2] == size[1]:
        if f := g.before(c, "flatten"):
            return _one(c, "along_channels", f.inputs) if f.attributes["at"] is None else None
        if g.single(c.inputs[0]):
            return _one(c, "along_channels")
    if c.op in ("reshape", "transpose") and len(size) == 3 and size[1] == 1 and c.shape[1] == size[2]:
        if len(c.shape) > 2 and set(c.shape[2:]) == {1}:
            return _one(c, "of_channels", axes=len(c.shape) - 2)
    if c.op == "reshape" and c.shape[:2] == size[:2] and set(c.shape[2:]) == {1} and (o := g.before(c, "of_channels")):
        return _one(c, "of_channels", o.inputs, axes=len(c.shape) - 2)  # one axis after the other
    if c.op == "reshape" and c.shape[:2] == size[:2] and set(c.shape[2:]) == {1} and (o := g.before(c, "unflatten")):
        return _one(c, "unflatten", o.inputs)
    if c.op == "of_channels" and (s := g.before(c, "sigmoid")):
        inner = replace(c, inputs=s.inputs, outputs=(g.new(),))
        return [inner, replace(s, inputs=inner.outputs, outputs=c.outputs, shape=c.shape)]
    if c.op == "index" and a["at"] == 0 and g.single(c.inputs[0]) and len(size) == 3:  # x[:, :, 0] of one position
        return _one(c, "flatten", order=None, at=None)
    if c.op == "flatten" and a["at"] and g.single(c.inputs[0]):
        return _one(c, order=None, at=None)
    if c.op == "unflatten" and (f := g.before(c, "flatten")) and len(g.shape(f.inputs[0])) == 3:
        if g.shape(f.inputs[0])[1] == 1 and f.attributes["at"] is not None:
            return _one(c, "of_channels", f.inputs, axes=len(c.shape) - 2)
    if c.op == "flatten" and (u := g.before(c, "unflatten")):
        return u.inputs[0]
    if c.op == "unflatten" and (f := g.before(c, "flatten")) and f.attributes["at"] is None:
        return f.inputs[0]
    return None


def _sink(c: Call, g: _Graph) -> New:
    """Flattening one position waits until behind what is done there, where it may meet its end."""
    f = g.before(c, "flatten")
    if not f or f.attributes["at"] is not None or not g.alone(f.outputs[0]) or c.op not in (*POINTWISE, "linear"):
        return None
    spread = (*c.shape, *(1,) * (len(g.shape(f.inputs[0])) - 2))
    inner = replace(c, inputs=f.inputs, outputs=(g.new(),), shape=spread)
    if c.op == "linear":
        n = len(spread) - 2
        one, none = (1,) * n, (0,) * n
        inner = _with(inner, "conv", kernel=one, stride=one, before=none, after=none, dilation=one, groups=1)
    return [inner, replace(c, op="flatten", inputs=inner.outputs, attributes=f.attributes, arrays={})]


def _rise(c: Call, g: _Graph) -> New:
    """Nothing met it: it comes first, as the usual head has it."""
    if c.op != "flatten" or c.attributes["at"] is not None or not (m := g.before(c, "conv", *POINTWISE)):
        return None
    if not g.alone(m.outputs[0]) or not g.single(m.inputs[0]) or m.attributes.get("groups", 1) != 1:
        return None
    size = g.shape(m.inputs[0])
    inner = replace(c, inputs=m.inputs, outputs=(g.new(),), shape=size[:2])
    outer = _with(m, "linear") if m.op == "conv" else m
    return [inner, replace(outer, inputs=inner.outputs, outputs=c.outputs, shape=c.shape)]


RULES: tuple[Rule, ...] = (_nothing, _together, _padding, _means, _subsample, _channels, _flat, _sink)
LAST: tuple[Rule, ...] = (_nothing, _rise)
