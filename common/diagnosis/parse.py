"""A tape in normal form as what a ResNet is: a chain of layers and of forks that join again.

    Chain = (Layer or Join, ...); Join = chains from one tensor that are added, multiplied or concatenated

A residual block is a sum of its branch and its shortcut, which is empty where it is the identity; a squeeze-and-
excitation a product; trunks a concatenation. That is a series-parallel graph; of what is none, the first call that
doesn't fit is told.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from common.diagnosis.tape import INPUT, Arrays, Call, Tape
from common.errors import RosettaError


@dataclass(frozen=True)
class Layer:
    """A call in its place. Attributes say what arrays do, too: `out` and `into` channels, which leaves there are."""

    op: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, str] = field(default_factory=dict)  # {leaf: name}
    name: str = ""
    where: str = ""

    @cached_property
    def key(self) -> str:
        """The same for two layers that compute the same of equal arrays."""
        return f"{self.op}{sorted((k, _plain(v)) for k, v in self.attributes.items())}"


@dataclass(frozen=True)
class Join:
    op: str  # add, mul, concat
    branches: tuple["Chain", ...]
    where: str = ""

    @cached_property
    def key(self) -> str:
        return f"{self.op}({' | '.join(key_of(b) for b in self.branches)})"


NORMED = ("norm", "group_norm", "affine")  # what has a scale and a shift for each channel
Item = Layer | Join
Chain = tuple[Item, ...]


def key_of(chain: Chain) -> str:
    return " ".join(item.key for item in chain)


def _plain(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value


@dataclass(frozen=True)
class Net:
    chain: Chain
    outputs: tuple[str, ...] = ()  # what it gives beside: "softmax of the first", "another"
    unread: tuple[str, ...] = ()  # tensors of hers that no call reads


def unknown(chain: Chain) -> Iterator[Item]:
    """Every call that the vocabulary has no word for."""
    for item in chain:
        if isinstance(item, Join):
            if item.op not in ("add", "mul", "concat"):
                yield item
            for branch in item.branches:
                yield from unknown(branch)
        elif item.op.startswith("?"):
            yield item


def layers(chain: Chain) -> Iterator[Layer]:
    """Every layer, branches in their order."""
    for item in chain:
        if isinstance(item, Layer):
            yield item
        else:
            for branch in item.branches:
                yield from layers(branch)


def with_norms(chain: Chain, **attributes: Any) -> Chain:
    """The chain with these attributes of every norm."""
    items: list[Item] = []
    for item in chain:
        if isinstance(item, Join):
            item = replace(item, branches=tuple(with_norms(b, **attributes) for b in item.branches))
        elif item.op == "norm":
            item = replace(item, attributes={**item.attributes, **attributes})
        items.append(item)
    return tuple(items)


class Unparsed(RosettaError):
    """The graph is no chain of blocks; `call` is the first that doesn't fit."""

    def __init__(self, call: Call | None):
        self.call = call
        at = f"{call.op} at {call.layer or 'the net itself'} ({call.where})" if call else "its output"
        super().__init__(f"this isn't a net of blocks behind one another: {at} reads what comes from elsewhere")


def parse(tape: Tape, arrays: Arrays) -> Net:
    """The net that a tape in normal form is. Raises Unparsed where it is no series-parallel graph."""
    chain = _marked(_Graph(tape, arrays).chain(), {})
    read = {name for call in tape.calls for names in call.arrays.values() for name in names.split("+")}
    return Net(chain, tuple(_further(tape)), tuple(n for n in arrays if n not in read))


def _marked(chain: Chain, first: dict[str, str]) -> Chain:
    """Layers whose arrays an earlier one has read say so: `shared` is its name."""
    items: list[Item] = []
    for item in chain:
        if isinstance(item, Join):
            item = replace(item, branches=tuple(_marked(b, first) for b in item.branches))
        elif item.arrays:
            name = next(iter(item.arrays.values()))
            if name in first:
                item = replace(item, attributes={**item.attributes, "again": first[name]})
            first.setdefault(name, item.name)
        items.append(item)
    return tuple(items)


def _further(tape: Tape) -> Iterator[str]:
    maker = {n: call for call in tape.calls for n in call.outputs}
    for number, name in list(zip(tape.outputs, tape.names, strict=True))[1:]:
        call = maker.get(number)
        if call and call.inputs == tape.outputs[:1]:
            yield f"{call.op} of the first"
        elif not name:  # a net that names its outputs lets its user choose
            yield f"what {call.layer or 'the net itself'} gives ({call.where})" if call else "its input"


def attributes_of(call: Call, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """A call's attributes with what its arrays' shapes say."""
    a = {k: v for k, v in call.attributes.items() if k not in ("shape",)}
    if call.op in ("conv", "linear") and "weight" in shapes:
        groups = a.get("groups", 1)
        a |= {"into": shapes["weight"][1] * groups, "out": shapes["weight"][0], "bias": "bias" in shapes}
    elif call.op in NORMED:
        a |= {"channels": next(iter(shapes.values()))[0] if shapes else call.shape[1], "leaves": tuple(sorted(shapes))}
    return a


class _Graph:
    def __init__(self, tape: Tape, arrays: Arrays):
        self.arrays = arrays
        self.output = tape.outputs[0]
        wanted, calls = {self.output}, list[Call]()
        for call in reversed(tape.calls):
            if wanted.intersection(call.outputs):
                wanted.update(call.inputs)
                calls.append(call)
        self.calls = calls[::-1]
        self.users: dict[int, list[int]] = {n: [] for n in (INPUT, *(n for c in self.calls for n in c.outputs))}
        for i, call in enumerate(self.calls):
            for number in call.inputs:
                self.users[number].append(i)
        self.end = len(self.calls)
        self.users.setdefault(self.output, []).append(self.end)
        # where the ways from a call meet again: the tree of postdominators, from the end
        self.meets, self.depth = {self.end: self.end}, {self.end: 0}
        for i in range(len(self.calls) - 1, -1, -1):
            after = [u for n in self.calls[i].outputs for u in self.users[n]]
            self.meets[i] = self.meeting(after)
            self.depth[i] = self.depth[self.meets[i]] + 1

    def meeting(self, users: list[int]) -> int:
        """The first call that every way from `users` goes through."""
        found = users[0]
        for other in users[1:]:
            while found != other:
                if self.depth[found] >= self.depth[other]:
                    found = self.meets[found]
                else:
                    other = self.meets[other]
        return found

    def chain(self) -> Chain:
        return self.walk(INPUT, self.users[INPUT], self.end)[0]

    def walk(self, tensor: int, users: list[int], end: int) -> tuple[Chain, int]:
        """What lies between a tensor, of which `users` go on, and the call `end`; and the tensor that `end` gets."""
        items: list[Item] = []
        while users != [end]:
            if len(users) == 1:
                call = self.calls[users[0]]
                if len(call.inputs) > 1 or len(call.outputs) > 1:
                    raise Unparsed(call)
                items.append(self.layer(call))
            else:
                meet = self.meeting(users)
                if meet == self.end:
                    raise Unparsed(None)
                call = self.calls[meet]
                branches = [self.walk(tensor, group, meet) for group in self.groups(users, meet)]
                if sorted(source for _, source in branches) != sorted(call.inputs) or meet == end:
                    raise Unparsed(call)
                branches.sort(key=lambda branch: call.inputs.index(branch[1]))
                items.append(self.join(call, [chain for chain, _ in branches]))
            tensor = call.outputs[0]
            users = self.users[tensor]
        return tuple(items), tensor

    def groups(self, users: list[int], meet: int) -> list[list[int]]:
        """Users by the branch that they begin: those of one meet before all do."""
        found: list[list[int]] = []
        for user in users:
            for group in found:
                if meet not in (user, group[0]) and self.meeting([user, group[0]]) != meet:
                    group.append(user)
                    break
            else:
                found.append([user])
        return found

    def layer(self, call: Call) -> Layer:
        shapes = {leaf: self.shape(names) for leaf, names in call.arrays.items()}
        if call.op == "conv" and self.blurs(call, shapes["weight"]):
            kept = {k: call.attributes[k] for k in ("kernel", "stride")}
            return Layer("blur", kept, {}, call.layer, call.where)
        return Layer(call.op, attributes_of(call, shapes), call.arrays, call.layer, call.where)

    def blurs(self, call: Call, shape: tuple[int, ...]) -> bool:
        """Whether a convolution is the filter 1-2-1 along each axis, each channel by itself."""
        if shape[1] != 1 or call.attributes["groups"] != shape[0] or set(shape[2:]) != {3}:
            return False
        line = np.array([0.25, 0.5, 0.25])
        window = line if len(shape) == 3 else line[:, None] * line
        return bool(np.allclose(self.arrays[call.arrays["weight"]], window))

    def shape(self, names: str) -> tuple[int, ...]:
        parts = [self.arrays[n].shape for n in names.split("+")]
        return (sum(p[0] for p in parts), *parts[0][1:]) if parts[0] else ()

    def join(self, call: Call, branches: list[Chain]) -> Join:
        if call.op in ("add", "mul"):  # in whichever order: the one that computes more comes first
            branches = sorted(branches, key=lambda b: (-sum(x.op == "conv" for x in layers(b)), -len(b)))
        op = (
            call.op
            if call.op != "concat" or call.attributes["axis"] == 1
            else f"concat along {call.attributes['axis']}"
        )
        return Join(op, tuple(branches), call.where)
