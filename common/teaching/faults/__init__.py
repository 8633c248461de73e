"""Mistakes that make two "identical" ResNets differ, each of which can be put into either framework's nets.

    with faults.named("same padding").injected("keras"):
        net = keras_impl.create_model("resnet18")

The proof is worth what it catches: the tests require of each that the comparison finds it, on either side, and names
the right array as the first that differs. `make traps` measures what each does to the logits, for docs/traps.md, whose
numbers `trap` has.
"""

# each registers its own, in the order in which a reader meets them
# isort: off
from common.teaching.faults import computing, joining, carrying, training  # noqa: F401

# isort: on
from common.teaching.faults.fault import FAULTS, NETS, SIDES, Fault, injected, named

__all__ = ["FAULTS", "NETS", "SIDES", "Fault", "injected", "named"]
