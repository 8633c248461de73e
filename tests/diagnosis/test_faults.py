"""The faults that change a net, each in a net of ours on either side: named exactly, first and alone, and proven."""

import pytest

from common.diagnosis import diagnose
from common.init import initial
from common.teaching.faults import FAULTS, NETS, SIDES

pytest.importorskip("torch_impl")
pytest.importorskip("keras_impl")

# what is in no net: weights on their way, losses and optimizers, and float32's own bits
OF_NO_NET = {"fewer bits", "softmax in the loss", "loss of a sum"}
CARRIED = {name for name, f in FAULTS.items() if f.inject.__module__.endswith("carrying")}
OF_NETS = [n for n, f in FAULTS.items() if n not in OF_NO_NET | CARRIED and "steps" not in f.checks]
# the rest is slow
QUICK = {"groups interleaved", "biased variance"}
# PyTorch's recorder sees neither a gradient that is cut between calls nor who writes into a buffer after them: what it
# has recorded then isn't her net, and the proof says so
UNSEEN = {
    (name, "torch") for name in ("statistics without gradient", "gradient of the last bias lost", "biased variance")
}
CASES = [
    pytest.param(name, side, id=f"{name.replace(' ', '-')}-{side}",
                 marks=[] if side == "keras" and name in QUICK else [pytest.mark.slow])
    for name in OF_NETS for side in SIDES if (name, side) not in UNSEEN
]  # fmt: skip


def faulty(name: str, side: str):
    impl = pytest.importorskip(f"{side}_impl")
    row = NETS[FAULTS[name].net][0]
    with FAULTS[name].injected(side):
        return diagnose(impl.create_model(row, weights=initial(row, 1)), row)


@pytest.mark.parametrize(("name", "side"), CASES)
def test_a_fault_is_named(name, side):
    found = faulty(name, side)
    assert [e.name for e in found.edits] == [name], found.text()
    assert found.proof and found.proof.holds and not found.same
