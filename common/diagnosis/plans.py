"""A row as the tree that its net's tape is: `common/plan.py` in the words of `parse.py`."""

import math
from functools import lru_cache
from typing import Any

from common import plan as p
from common.arch import Arch
from common.diagnosis.parse import Chain, Item, Join, Layer, with_norms

RELU = Layer("relu")
KERAS = 0.01  # the batch's share that keras.layers.BatchNormalization takes by itself


@lru_cache(maxsize=256)
def tree(arch: Arch, keras: float | None = None) -> Chain:
    """The row's net. Layers and arrays have their canonical names. `keras` is the batch's share in statistics that are
    kept as Keras' own norms do, of which no row says anything."""
    if keras is not None:
        return with_norms(tree(arch), momentum=keras, unbiased=None)
    plan = p.make_plan(arch)
    n = arch.dims
    trunks = tuple(_trunk(trunk, n) for trunk in plan.trunks)
    body: Chain = trunks[0] if len(trunks) == 1 else (Join("concat", trunks),)
    fc: Chain = (_linear(plan.fc),) if plan.fc else ()
    return (*_stem(plan.stem, arch.preact, n), *body, *fc)


def _stem(stem: p.StemPlan, preact: bool, n: int) -> Chain:
    items: list[Item] = []
    for i, conv in enumerate(stem.convs):
        items.append(_conv(conv))
        if i < len(stem.convs) - 1 or not preact:
            items += [*_norm(stem.norms[i]), RELU]
    items += [layer for pool in stem.pools for layer in _pool(pool, relu=not preact)]
    return tuple(items)


def _trunk(trunk: p.Trunk, n: int) -> Chain:
    items: list[Item] = []
    for stage in trunk.stages:
        for block in stage.blocks:
            items += _block(block, n)
    if trunk.norm:
        items += [*_norm(trunk.norm), RELU]
    return (*items, Layer("mean", {"at": None}), Layer("flatten", {"order": None, "at": None}))


def _block(b: p.Block, n: int) -> Chain:
    preact = b.kind.startswith("PreAct")
    branch: list[Item] = []
    for i, (conv, norm) in enumerate(zip(b.convs, b.norms, strict=True)):
        last = i == len(b.convs) - 1
        between = list(_pool(b.antialias))
        if b.dropout:
            between.append(Layer("dropout", {"rate": b.dropout, "shared": ()}, name=f"{b.name}.dropout"))
        if preact:
            branch += [*_norm(norm), RELU, *(between if last else ()), _conv(conv)]
        else:
            branch += [*(between if last else ()), _conv(conv), *_norm(norm), *(() if last else (RELU,))]
    if b.se:
        branch.append(Join("mul", (_gate(b.se), ())))
    if b.drop_path:
        rate = dict(rate=b.drop_path, shared=tuple(range(1, n + 2)))
        branch.append(Layer("dropout", rate, name=f"{b.name}.drop_path"))
    before: Chain = ()
    s = b.shortcut
    if s.kind == "none":
        return (*branch, *(() if preact else (RELU,)))
    shortcut: list[Item] = []
    if s.kind == "pad":
        if s.stride > 1:
            shortcut.append(Layer("subsample", {"stride": (s.stride,) * n}, name=f"{b.name}.downsample"))
        if s.before or s.after:
            zeros = {"before": s.before, "after": s.after}
            shortcut.append(Layer("pad_channels", zeros, name=f"{b.name}.downsample"))
    if s.conv:
        shortcut += _pool(s.pool)
        shortcut += [_conv(s.conv), *_norm(s.norm)]
    if s.of_preactivation:
        k = next(i for i, item in enumerate(branch) if isinstance(item, Layer) and item.op == "relu") + 1
        before, branch = tuple(branch[:k]), branch[k:]
    return (*before, Join("add", (tuple(branch), tuple(shortcut))), *(() if preact else (RELU,)))


def _gate(se: p.SqueezeExcite | p.ChannelAttention) -> Chain:
    if isinstance(se, p.SqueezeExcite):
        inner: Chain = (_conv(se.fc1), RELU, _conv(se.fc2))
    else:
        inner = (Layer("along_channels"), _conv(se.conv), Layer("of_channels", {"axes": se.dims}))
    return (Layer("mean", {"at": None}), *inner, Layer("sigmoid"))


def _pool(pool: p.Pool | None, relu: bool = False) -> Chain:
    """A pooling; `relu`: where nothing is negative, so that a border of 0 is one of -inf."""
    if pool is None or pool.kernel == 1:
        return ()
    after = pool.padding + pool.behind
    each = {"kernel": pool.kernel, "stride": pool.stride, "before": pool.padding, "after": after}
    a: dict[str, Any] = {k: (v,) * pool.dims for k, v in each.items()}
    if pool.kind == "max":
        value = 0.0 if pool.zeros and not relu else -math.inf
        return (Layer("max_pool", {**a, "ceil": pool.ceil, "value": value}, name=pool.name),)
    if pool.kind == "avg":
        return (Layer("avg_pool", {**a, "ceil": pool.ceil, "counts": pool.behind > 0}, name=pool.name),)
    sides = (0, 0, *a["before"])
    border = {"before": sides, "after": sides, "value": 0.0, "mode": "reflect"}
    return Layer("pad", border, name=pool.name), Layer("blur", {k: a[k] for k in ("kernel", "stride")}, name=pool.name)


def _conv(c: p.Conv) -> Layer:
    each = {"kernel": c.kernel, "stride": c.stride, "before": c.padding, "after": c.padding, "dilation": c.dilation}
    a: dict[str, Any] = {k: (v,) * c.dims for k, v in each.items()}
    a |= {"groups": c.groups, "into": c.in_channels, "out": c.out_channels, "bias": c.bias}
    a |= {"standardised": c.std_eps} if c.std_eps else {}
    return Layer("conv", a, _named(c.name, "weight", *(("bias",) if c.bias else ())), c.name)


def _norm(norm: p.Norm | None) -> Chain:
    if norm is None:
        return ()
    if norm.groups:
        leaves: tuple[str, ...] = ("bias", "weight")
        a: dict[str, Any] = {"eps": norm.eps, "groups": norm.groups, "channels": norm.channels, "leaves": leaves}
        return (Layer("group_norm", a, _named(norm.name, *leaves), norm.name),)
    leaves = ("bias", "running_mean", "running_var", "weight")
    a = {"eps": norm.eps, "momentum": p.MOMENTUM, "batch": "in training", "unbiased": True}
    return (Layer("norm", {**a, "channels": norm.channels, "leaves": leaves}, _named(norm.name, *leaves), norm.name),)


def _linear(c: p.Linear) -> Layer:
    a = {"into": c.in_features, "out": c.out_features, "bias": True}
    return Layer("linear", a, _named(c.name, "weight", "bias"), c.name)


def _named(name: str, *leaves: str) -> dict[str, str]:
    return {leaf: f"{name}.{leaf}" for leaf in leaves}
