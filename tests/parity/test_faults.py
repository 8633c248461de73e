"""The suite, tested: every fault of faults.py is found, with the right array as the first that differs."""

import pytest
from faults import FAULTS, NETS, Fault, first, measure


def test_there_are_enough():
    assert len(FAULTS) >= 24


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda f: f.name.replace(" ", "-"))
def test_fault_is_found(fault: Fault):
    result = measure(fault)
    assert not result.equal and result.verdict == fault.verdict, result.verdict
    over = first(result)
    if fault.first is None:
        assert over is None and not result.same_counts
    else:
        assert over is not None and (over.check, over.name) == fault.first
        assert over.name in result.why("keras:tensorflow", fault.dtypes[-1])


@pytest.mark.parametrize("net", NETS)
def test_without_a_fault_nothing_is_found(net):
    fault = max((f for f in FAULTS.values() if f.net == net), key=lambda f: len(f.checks))
    result = measure(fault, inject=False)
    assert result.equal and first(result) is None, result.why("keras:tensorflow", "float64")
