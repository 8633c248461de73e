"""SGD with momentum, in numpy: a student's step against PyTorch's, over a change of the rate."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]  # the parameter, and what is kept of the gradients
Step = Callable[..., Arrays]
MOMENTUM, DECAY, RATES = 0.9, 5e-2, (0.1, 0.1, 0.01, 0.01)

CALL = "step"
TEXT = '''"""Exercise {number}: {title}.

{task}

rosetta exercise check {number} FILE
"""


def step(p, g, v, rate, momentum=0.9, decay=5e-2):
    """(parameter, velocity) after one step at `rate`: p, g and v are arrays, v is 0 before the first step."""
    raise NotImplementedError("exercise {number}: step is yours")
'''
SOLUTION = "    g = g + decay * p\n    v = momentum * v + g\n    return p - rate * v, v\n"


def torchs(p: np.ndarray, g: np.ndarray, v: np.ndarray, rate: float, momentum: float, decay: float) -> Arrays:
    v = momentum * v + g + decay * p
    return p - rate * v, v


def holds_the_rate(p: np.ndarray, g: np.ndarray, v: np.ndarray, rate: float, momentum: float, decay: float) -> Arrays:
    v = momentum * v - rate * (g + decay * p)
    return p + v, v


def decoupled(p: np.ndarray, g: np.ndarray, v: np.ndarray, rate: float, momentum: float, decay: float) -> Arrays:
    v = momentum * v + g
    return p * (1 - rate * decay) - rate * v, v


def nesterov(p: np.ndarray, g: np.ndarray, v: np.ndarray, rate: float, momentum: float, decay: float) -> Arrays:
    g = g + decay * p
    v = momentum * v + g
    return p - rate * (g + momentum * v), v


WRONG: dict[str, tuple[Step, str]] = {  # by the fault's name where there is one: the rule, and its answer
    "momentum holds the rate": (
        holds_the_rate, "    v = momentum * v - rate * (g + decay * p)\n    return p + v, v\n"),
    "decoupled weight decay": (
        decoupled, "    v = momentum * v + g\n    return p * (1 - rate * decay) - rate * v, v\n"),
    "Nesterov's momentum": (
        nesterov,
        "    g = g + decay * p\n    v = momentum * v + g\n    return p - rate * (g + momentum * v), v\n"),
}  # fmt: skip


def course(step: Step) -> Iterator[np.ndarray]:
    """The parameter after each step, in float64."""
    rng = np.random.default_rng(0)
    p, v = rng.standard_normal(7), np.zeros(7)
    for rate in RATES:
        p, v = step(p.copy(), rng.standard_normal(7), v.copy(), rate, MOMENTUM, DECAY)
        yield np.asarray(p, np.float64)


def checked(step: Step) -> dict[str, Any]:
    """What `rosetta exercise check` says of a student's `step`: the first step that differs, and which rule it is."""
    try:
        hers = list(course(step))
    except NotImplementedError as e:
        return {"passed": False, "what": str(e)}
    except (Exception, SystemExit) as e:  # of her code
        return {"passed": False, "what": f"step can't run: {type(e).__name__}: {e}"}
    for i, (a, b) in enumerate(zip(hers, course(torchs), strict=True), 1):
        if a.shape != b.shape:
            return {"passed": False, "what": f"the parameter has another shape after step {i}"}
        if not np.abs(a - b).max() <= 1e-13:
            place = int(np.argmax(np.abs(a - b)))
            found = {"what": f"the parameter differs after step {i}, at rate {RATES[i - 1]}", "place": [place],
                     "first": f"step {i}", "values": [float(a[place]), float(b[place])]}  # fmt: skip
            for name, (rule, _) in WRONG.items():
                if all(np.abs(x - y).max() <= 1e-13 for x, y in zip(hers, course(rule), strict=True)):
                    return {"passed": False, **found, "fault": name, "says": "a rule of its own"}
            return {"passed": False, **found}
    return {"passed": True}
