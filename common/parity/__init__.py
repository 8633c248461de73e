"""Whether two nets are the same function: `compare` gives the same weights and images to every backend.

In come a row of the table, backends and checks; each backend runs in a process of its own and sends named arrays. Out
comes a `Comparison`: for each array how far it is from the reference's, and beside what rounding does to it.
"""

from common.parity.comparison import Comparison
from common.parity.lockstep import compare

__all__ = ["Comparison", "compare"]
