"""Rows that nobody thought of: every field of `Arch` drawn at random, both ranks, any size.

hypothesis reduces a failure and prints it as `arch=Arch(...)`, which can be pasted as it is.
"""

import zlib

import numpy as np
import pytest
import torch
from conftest import relative
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

import keras_impl
import keras_impl.autodiff
import torch_impl
import torch_impl.autodiff
from common import noise
from common.arch import Arch, Stem
from common.errors import RosettaError
from common.init import randomised
from common.names import STATISTICS, count, multiply_adds, parameters, sections
from common.plan import make_plan
from common.weights import checksum


@st.composite
def rows(draw) -> Arch:
    """Rows that can exist: what the refusals of common/arch.py leave."""
    block = draw(st.sampled_from(["basic", "bottleneck"]))
    stages = draw(st.integers(1, 3))
    channels = st.tuples(
        st.sampled_from([*range(1, 13), 4, 8, 12, 4, 8, 12]), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2])
    )
    stem = Stem(tuple(draw(st.lists(channels, min_size=1, max_size=3))), draw(st.sampled_from([True, False, "zeros"])))
    shortcut = draw(st.sampled_from(["pad", "project", "project_all", "pool", "pool_first", "none"]))
    widths = draw(st.lists(st.integers(1, 4).map(lambda n: 4 * n), min_size=stages, max_size=stages))
    if shortcut == "pad":  # stages that never narrow
        widths = [max(w, stem.convs[-1][0]) for w in sorted(widths)]
        widths = [-(-w // 4) * 4 for w in widths]
    preact = draw(st.booleans())
    stride_in = draw(st.sampled_from([1, 2])) if block == "bottleneck" else 2
    se_ratio = draw(st.sampled_from([0, 2, 16]))
    per_group = draw(st.sampled_from([16, 32, 64, 80])) if block == "bottleneck" else 64
    divisible = all(w * per_group // 64 % 4 == 0 for w in widths) and all(c % 4 == 0 for c, *_ in stem.convs)
    in_channels = draw(st.integers(1, 4))
    fans = [
        in_channels * stem.convs[0][1],
        *widths,
        *(c for c, *_ in stem.convs),
        *(w * per_group // 64 for w in widths),
    ]
    means = stride_in == 2 and stem.pool != "zeros"
    bottleneck = block == "bottleneck"
    stride_block = draw(st.sampled_from(["first", "last"]))
    return Arch(
        depths=tuple(draw(st.lists(st.integers(1, 2), min_size=stages, max_size=stages))),
        widths=tuple(widths),
        block=block,
        preact=preact,
        first_stride=draw(st.sampled_from([1, 2])),
        stride_in=stride_in,
        output_stride=0 if preact and stride_block == "last" else draw(st.sampled_from([0, 0, 1, 4, 8])),
        antialias=draw(st.sampled_from(["none", "avg", "blur"])) if means else "none",
        stride_block=stride_block,
        groups=draw(st.integers(1, 4)) if bottleneck else 1,
        width_per_group=per_group,
        shortcut=shortcut,
        shortcut_norm=preact or draw(st.booleans()),
        stem=stem,
        se_ratio=se_ratio,
        eca=not se_ratio and draw(st.booleans()),
        drop_path=draw(st.sampled_from([0.0, 0.4])),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        kernels=tuple(draw(st.lists(st.sampled_from([1, 3, 5, 7]), min_size=1, max_size=3, unique=True))),
        dims=draw(st.sampled_from([1, 2])),
        conv_bias=draw(st.sampled_from([True, False, "unnormed"])),
        weight_std=draw(st.sampled_from([0.0, 0.0, 1e-8])) if min(fans) > 1 else 0.0,
        norm_groups=draw(st.sampled_from([0, 0, 1, 2, 4])) if divisible else 0,
        norm_eps=draw(st.sampled_from([1e-5, 1e-3])),
        in_channels=in_channels,
        num_classes=draw(st.integers(0, 5)),
    )


sizes = st.tuples(st.integers(1, 21), st.integers(1, 21))


def check_row(arch: Arch, size: tuple[int, int], seed: int) -> None:
    """Names, counts, forward passes, statistics and gradients of one row: the same net in both frameworks."""
    size = size[: arch.dims]
    try:
        sections(arch, size)
    except RosettaError:  # nothing is left to be pooled, or to be reflected
        reject()
    weights = randomised(arch, seed)
    ours = torch_impl.create_model(arch, dtype="float64", weights=weights).eval()
    twin = keras_impl.create_model(arch, dtype="float64", weights=weights)
    spec = parameters(arch)
    assert list(torch_impl.export_weights(ours)) == list(keras_impl.export_weights(twin)) == list(spec)
    assert count(spec) == sum(p.numel() for p in ours.parameters())
    assert count(spec) == sum(int(np.prod(v.shape)) for v in twin.trainable_variables)
    x = np.random.default_rng(seed).standard_normal((3, arch.in_channels, *size))
    with torch.no_grad():
        y = ours(torch.from_numpy(x)).numpy()
        shapes = [tuple(f.shape[1:]) for f in ours.features(torch.from_numpy(x)).values()]
    assert shapes == [s.output for s in sections(arch, size)][:-1]
    z = np.asarray(twin(np.moveaxis(x, 1, -1)))
    assert np.abs(y - z).max() <= 1e-13 * max(np.abs(y).max(), 1e-3)

    labels = np.arange(3) % arch.num_classes if arch.num_classes else None
    with noise.shared(seed):
        a = torch_impl.autodiff.differentiate(ours, x, labels)
    with noise.shared(seed):
        b = keras_impl.autodiff.differentiate(twin, x, labels)
    assert np.abs(a.logits - b.logits).max() <= 1e-9 * max(np.abs(a.logits).max(), 1e-3)
    after, after_twin = torch_impl.export_weights(ours), keras_impl.export_weights(twin)
    # absolute: a channel of three values can have no spread at all
    assert all(np.abs(after[n] - after_twin[n]).max() <= 1e-9 for n in after if n.endswith(STATISTICS))
    assert list(a.gradients) == list(b.gradients)
    found, other = {**a.gradients, "input": a.by_input}, {**b.gradients, "input": b.by_input}
    # by the largest of all: a gradient can be zero, and so nothing but rounding; and no more exact than the spread of
    # the few values of a channel, of which a gradient has the root as divisor
    largest = max(max(np.abs(g).max() for g in found.values()), 1e-3)
    steepest = max(1.0, largest)
    over = [name for name, g in found.items() if not np.abs(g - other[name]).max() <= 1e-9 * largest * steepest]
    if over:  # three values that are nearly one magnify rounding: no more than PyTorch's own, the input moved by 1e-15
        with noise.shared(seed):
            c = torch_impl.autodiff.differentiate(
                ours, x * (1 + 1e-15 * np.random.default_rng(1).normal(size=x.shape)), labels
            )
        drift = max(np.abs(g - a.gradients[name]).max() for name, g in c.gradients.items())
        for name in over:
            assert np.abs(found[name] - other[name]).max() <= 100 * drift <= 1e-4 * largest, (name, drift)


@example(  # one position a channel after the stem: the norms divide by next to nothing
    arch=Arch((1, 2, 1), (4, 4, 4), preact=True, stride_in=1, groups=2, width_per_group=80, stem=Stem(((4, 1, 2),)),
              kernels=(1,), dims=1, conv_bias=True, in_channels=1, num_classes=2),
    size=(3, 1), seed=0,
)  # fmt: skip
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))  # others in every run
@given(arch=rows(), size=sizes, seed=st.integers(0, 9))
def test_any_row_is_the_same_net_in_both(arch, size, seed):
    check_row(arch, size, seed)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(arch=rows(), size=sizes, seed=st.integers(0, 9))
def test_any_of_a_thousand_rows_is_the_same_net_in_both(arch, size, seed):
    check_row(arch, size, seed)


@settings(max_examples=300, deadline=None)
@given(arch=rows())
def test_any_row_survives_json_and_costs_something(arch):
    assert Arch.from_json(arch.to_json()) == arch
    assert multiply_adds(arch, 512) > 0 and make_plan(arch).total_stride >= 1
    names = list(parameters(arch))
    assert len(set(names)) == len(names)


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(-1, 9), max_size=4),
)


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_anything_else_is_refused_in_one_line(data):
    """Any value in any field: a row that works, or a RosettaError; never another exception."""
    fields = {
        name: data.draw(anything) for name in data.draw(st.sets(st.sampled_from(list(Arch.__dataclass_fields__))))
    }
    try:
        arch = Arch(**{"depths": (1, 1, 1, 1), **fields})
    except RosettaError as e:
        assert "\n" not in str(e)
    else:
        assert parameters(arch)


def test_the_equality_can_fail():
    arch = Arch((1,), (8,), in_channels=1, num_classes=3)
    weights = randomised(arch)
    ours = torch_impl.create_model(arch, dtype="float64", weights=weights).eval()
    twin = keras_impl.create_model(arch, dtype="float64", weights={**weights, "fc.bias": weights["fc.bias"] * 1.001})
    x = np.ones((1, 1, 9, 9))
    with torch.no_grad():
        assert relative(ours(torch.from_numpy(x)).numpy(), np.asarray(twin(np.moveaxis(x, 1, -1)))) > 1e-6


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_a_checksum_is_of_the_metadata_and_all_arrays(parts):
    arrays = [np.frombuffer(part, np.uint8) for part in parts]
    whole = b'{"a": "b"}' + b"".join(parts)
    assert checksum({"a": "b", "crc32": "?"}, arrays) == f"{zlib.crc32(whole):08x}"
