"""A file with an order and no names, in numpy: a student's PyTorch weights of what Keras' `get_weights` gave."""

from collections.abc import Callable
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import numpy as np

from common.arch import get
from common.init import randomised
from common.teaching.faults import FAULTS, carrying

ARCH = get(  # kernels fit transposed, as the classifier's matrix does, and each norm fits the others' places
    "resnet18", widths=(8,), depths=(1,), num_classes=8, stem={"convs": [[8, 3, 1]], "pool": False},
    shortcut="project_all",
)  # fmt: skip
CALL = "state_dict"
TEXT = '''"""Exercise {number}: {title}.

{task}

rosetta exercise check {number} FILE
"""

# model.summary(): it sorts layers by how far they are from the output, and model.get_weights() does, too.
#
#      layer                       reads
#   1  Conv2D(8, 3)                the images
#   2  BatchNormalization, ReLU    1
#   3  Conv2D(8, 3)                2
#   4  BatchNormalization, ReLU    3
#   5  Conv2D(8, 1)                2
#   6  Conv2D(8, 3)                4
#   7  BatchNormalization          5
#   8  BatchNormalization          6
#   9  Add, ReLU, mean             7 and 8
#  10  Dense(8)                    9
#
# PyTorch's layers: conv1, bn1, layer1.0.conv1, layer1.0.bn1, layer1.0.conv2, layer1.0.bn2, layer1.0.downsample.0,
# layer1.0.downsample.1 and fc. Their arrays end in .weight, .bias, .running_mean and .running_var.


def state_dict(arrays):
    """{{name of PyTorch's: array in PyTorch's layout}} of the list that model.get_weights() gave."""
    raise NotImplementedError("exercise {number}: state_dict is yours")
'''
ORDER = (
    "conv1", "bn1", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.downsample.0", "layer1.0.conv2",
    "layer1.0.downsample.1", "layer1.0.bn2", "fc",
)  # fmt: skip
SOLUTION = f'''    arrays, found = iter(arrays), {{}}
    for layer in """{" ".join(ORDER)}""".split():
        if "bn" in layer or layer.endswith("downsample.1"):
            leaves = ("weight", "bias", "running_mean", "running_var")
        else:
            leaves = ("weight", "bias") if layer == "fc" else ("weight",)
        for leaf in leaves:
            array = next(arrays)
            found[f"{{layer}}.{{leaf}}"] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return found
'''
WRONG = {  # by the fault's name: what makes the solution that answer
    "kernel height and width swapped": ("array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T", "array.T"),
    "memory in another order": (".transpose(3, 2, 0, 1)", ".reshape(array.shape[3], array.shape[2], *array.shape[:2])"),
    "gamma and beta swapped": ('("weight", "bias", "running', '("bias", "weight", "running'),
    "layers swapped": ("layer1.0.conv1 layer1.0.bn1 layer1.0.downsample.0 layer1.0.conv2",
                       "layer1.0.conv2 layer1.0.bn1 layer1.0.downsample.0 layer1.0.conv1"),
    "norms swapped": ("layer1.0.bn1 layer1.0.downsample.0 layer1.0.conv2 layer1.0.downsample.1 layer1.0.bn2",
                      "layer1.0.bn2 layer1.0.downsample.0 layer1.0.conv2 layer1.0.downsample.1 layer1.0.bn1"),
}  # fmt: skip
CARRYING = [f for f in FAULTS.values() if f.inject.__module__ == carrying.__name__]
Weights = dict[str, np.ndarray]


def arrays_of(weights: Weights) -> list[np.ndarray]:
    """What a Keras net of the functional API with these canonical weights gives for `get_weights()`."""
    found = [(name, w) for layer in ORDER for name, w in weights.items() if name.rpartition(".")[0] == layer]
    return [w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T for _, w in found]


def checked(port: Callable[[list[np.ndarray]], Any]) -> dict[str, Any]:
    """What `rosetta exercise check` says of a student's `state_dict`: the first array that differs, and what it is."""
    right = {name: w.astype(np.float64) for name, w in randomised(ARCH).items()}
    try:
        hers = {name: np.asarray(a, np.float64) for name, a in port(arrays_of(right)).items()}
    except NotImplementedError as e:
        return {"passed": False, "what": str(e)}
    except (Exception, SystemExit) as e:  # of her code
        return {"passed": False, "what": f"state_dict can't run: {type(e).__name__}: {e}"}
    if unknown := [n for n in hers if n not in right and not n.endswith("num_batches_tracked")]:
        return {"passed": False, "what": f"PyTorch's net has no {unknown[0]}"}
    for name, b in right.items():
        a = hers.get(name)
        if a is None:
            return {"passed": False, "what": f"there is no {name}", "first": name}
        if a.shape != b.shape:
            return {"passed": False, "what": f"{name} has another shape", "first": name,
                    "values": [list(a.shape), list(b.shape)]}  # fmt: skip
        if not np.array_equal(a, b):
            place = np.unravel_index(np.argmax(a != b), a.shape)
            found = {"what": f"{name} differs{_holds(a, right)}", "first": name, "place": [int(i) for i in place],
                     "values": [float(a[place]), float(b[place])]}  # fmt: skip
            for fault in CARRYING:
                faulty = carried(fault.inject, right)
                if all(n in hers and np.array_equal(hers[n], w) for n, w in faulty.items()):
                    found |= {"fault": fault.name, "says": fault.says}
            return {"passed": False, **found}
    return {"passed": True}


def carried(inject: Callable[[Any], None], weights: Weights) -> Weights:
    """The weights as the porter's mistake leaves them."""
    copies = {name: w.copy() for name, w in weights.items()}
    inject(SimpleNamespace(carried=lambda change: change(copies)))
    return copies


def _holds(array: np.ndarray, right: Weights) -> str:
    """Which array it is in truth, and with which of its axes exchanged; "" where it is none."""
    for name, w in right.items():
        for axes in permutations(range(w.ndim)):
            if np.array_equal(array, w.transpose(axes)):
                turned = (
                    f" with its axes in the order {', '.join(map(str, axes))}" if sorted(axes) != list(axes) else ""
                )
                return f": it holds {name}{turned}"
    return ""
