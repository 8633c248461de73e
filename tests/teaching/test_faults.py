"""The suite, tested: every fault is found on either side, with the right array as the first that differs."""

import pytest

from common.errors import RosettaError
from common.teaching.faults import FAULTS, NETS, SIDES, Fault, named
from common.teaching.measured import first, measure


def test_there_are_enough():
    assert len(FAULTS) >= 52


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda f: f.name.replace(" ", "-"))
def test_fault_is_found(fault: Fault, side: str):
    result = measure(fault, side)
    assert not result.equal and result.verdict == fault.verdict, result.verdict
    over = first(result)
    if fault.first is None:
        assert over is None and not result.same_counts
    else:
        assert over is not None and (over.check, over.name) == fault.first
        assert over.name in result.why(result.others[0], fault.dtypes[-1])


@pytest.mark.parametrize("net", NETS)
def test_without_a_fault_nothing_is_found(net):
    fault = max((f for f in FAULTS.values() if f.net == net), key=lambda f: len(f.checks))
    result = measure(None, of=fault)
    assert result.equal and first(result) is None, result.why("keras:tensorflow", "float64")


def test_a_fault_is_gone_when_it_ends():
    import keras_impl
    import torch_impl

    for framework, impl in (("torch", torch_impl), ("keras", keras_impl)):
        was = impl.create_model
        with named("same padding").injected(framework):
            assert impl.create_model is not was
        assert impl.create_model is was


def test_an_unknown_fault_is_offered_the_nearest():
    with pytest.raises(RosettaError, match="unknown fault 'same paddin'.*same padding"):
        named("same paddin")
    with pytest.raises(RosettaError, match="unknown side 'kreas'.*keras"), named("same padding").injected("kreas"):
        pass
