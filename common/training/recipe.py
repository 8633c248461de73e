"""How a net is trained: rows that both frameworks read. What a paper says is its section's."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from common.arch import Arch
from common.errors import RosettaError, hint, nearest
from common.init import Initialisation
from common.names import is_trainable, parameters, section_of
from common.parity.rules import Rule
from common.plan import Norm, make_plan
from common.tools.typed import check_fields

KINDS = ("SGD", "Adam", "AdamW")
ALL_BUT_HEAD = "all-but-head"
PRECISIONS = ("float32", "float64", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class Recipe:
    """One independent choice a field; `rule.rate` is the rate at its highest."""

    rule: Rule = Rule("SGD", 0.1, momentum=0.9, weight_decay=1e-4)
    batch: int = 128
    epochs: int = 164
    schedule: Literal["steps", "cosine", "constant"] = "steps"
    drops: tuple[float, ...] = (0.5, 0.75)  # where "steps" divides the rate, as parts of the training
    factor: float = 0.1  # by which it is multiplied there
    warmup: float = 0.0  # epochs at the beginning in which the rate rises in a line from `warmup_from` of it
    warmup_from: float = 0.0  # part of the rate
    smoothing: float = 0.0  # of labels (Szegedy et al. 2015, section 7)
    accumulate: int = 1  # parts of a batch whose gradients are added up
    clip: float = 0.0  # largest norm of all gradients together; 0 is any
    ema: float = 0.0  # decay of the average of weights that is evaluated in their place; 0 is none
    balance: bool = False  # whether each class counts as much as any other, however many examples it has
    decay_norms: bool = True  # whether norms and biases take part in weight decay
    precision: Literal["float32", "float64", "mixed_bfloat16", "mixed_float16"] = "float32"
    init: Initialisation = "he"  # how fresh weights are drawn (common/init.py)

    def __post_init__(self) -> None:
        def refuse(what: str) -> None:
            raise RosettaError(f"this recipe can't be: {what}")

        for name in ("batch", "epochs", "accumulate"):
            if not (isinstance(value := getattr(self, name), int) and value > 0):
                refuse(f"{name} is {value!r}: expected a whole number above 0")
        if self.schedule not in ("steps", "cosine", "constant"):
            refuse(f"schedule is {self.schedule!r}: expected steps, cosine or constant")
        if self.precision not in PRECISIONS:
            refuse(f"precision is {self.precision!r}: expected {', '.join(PRECISIONS)}")
        if self.init not in get_args(Initialisation):
            refuse(f"init is {self.init!r}: expected {' or '.join(get_args(Initialisation))}")
        if not (math.isfinite(self.rule.rate) and self.rule.rate > 0):
            refuse(f"the learning rate is {self.rule.rate}: expected a number above 0")
        for name in ("balance", "decay_norms"):
            if not isinstance(getattr(self, name), bool):
                refuse(f"{name} is {getattr(self, name)!r}: expected true or false")
        for name in ("smoothing", "ema", "warmup_from"):
            if not 0 <= getattr(self, name) < 1:
                refuse(f"{name} is {getattr(self, name)}: expected 0 to 1, 1 excluded")
        for name in ("clip", "warmup"):
            if not 0 <= getattr(self, name) < math.inf:
                refuse(f"{name} is {getattr(self, name)}: expected 0 or more")
        if self.accumulate > self.batch:
            refuse(f"accumulate is {self.accumulate}, more than the {self.batch} examples of a batch")
        if any(not 0 < d < 1 for d in self.drops):
            refuse(f"drops are {self.drops}: expected parts of the training, between 0 and 1")

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0."""
        total, ramp = self.epochs * steps_per_epoch, self.warmup * steps_per_epoch
        if step < ramp:
            return self.rule.rate * (self.warmup_from + (1 - self.warmup_from) * (step + 1) / ramp)
        if self.schedule == "cosine":  # Loshchilov and Hutter 2016, equation 5
            return self.rule.rate * 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, total - ramp)))
        if self.schedule == "steps":
            return self.rule.rate * self.factor ** sum(step >= d * total for d in self.drops)
        return self.rule.rate

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> "Recipe":
        """Raises RosettaError where `said` is no recipe."""
        try:
            fields = _tuples(said)
            check_fields(Rule, fields["rule"], "the recipe's rule")
            made = {**fields, "rule": Rule(**fields["rule"])}
            check_fields(cls, made, "the recipe")
            if made["rule"].kind not in KINDS:
                raise RosettaError(f"unknown optimizer {made['rule'].kind[:60]!r}: expected {', '.join(KINDS)}")
            return cls(**made)
        except (TypeError, KeyError, AttributeError):
            raise RosettaError(f"this is no recipe of a training: {json.dumps(said)[:100]}") from None


_CIFAR = Recipe()  # He et al. 2015, section 4.2: 64,000 steps, divided at 32,000 and 48,000
RECIPES = {
    "cifar": _CIFAR,
    # the same section: for 110 layers 0.01 until the error is below 80 %, about 400 steps
    "cifar110": dataclasses.replace(_CIFAR, warmup=1.0, warmup_from=0.1),
    # He et al. 2015, section 3.4, as fb.resnet.torch has it: 90 epochs, divided at 30 and 60
    "imagenet": Recipe(batch=256, epochs=90, drops=(1 / 3, 2 / 3)),
    # Xie et al. 2016, section 5 (ImageNet), and 5.3 for CIFAR: weight decay 5e-4, 300 epochs, divided at 150 and 225
    "resnext": Recipe(batch=256, epochs=90, drops=(1 / 3, 2 / 3)),
    "resnext_cifar": Recipe(
        Rule("SGD", 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4), epochs=300, drops=(0.5, 0.75)
    ),
    # Zagoruyko and Komodakis 2016, section 3: 200 epochs, times 0.2 at 60, 120 and 160. Dropout is in the row
    "wrn": Recipe(
        Rule("SGD", 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4), epochs=200, drops=(0.3, 0.6, 0.8), factor=0.2
    ),
    # ours: few epochs, for a CPU
    "short": Recipe(
        Rule("SGD", 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4), epochs=15, schedule="cosine", warmup=1.0,
    ),
    # ours: for a few thousand examples at most
    "small": Recipe(
        Rule("SGD", 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4), 32, 15, schedule="cosine", warmup=1.0
    ),
    # ours: a new head on trained weights
    "transfer": Recipe(
        Rule("SGD", 0.01, momentum=0.9, weight_decay=1e-4), batch=32, epochs=10, schedule="cosine", warmup=0.5
    ),
    # Dive into Deep Learning, sections 6.6 and 8.6: plain SGD on Xavier's weights
    "d2l": Recipe(Rule("SGD", 0.05), batch=256, epochs=10, schedule="constant", init="xavier"),
    "adamw": Recipe(Rule("AdamW", 1e-3, weight_decay=5e-2), epochs=30, schedule="cosine", warmup=1.0, clip=1.0),
}  # fmt: skip


def suited(examples: int, begins: bool = False) -> str:
    """The recipe for so many training examples, where none is named; `begins` with a checkpoint's weights."""
    return "transfer" if begins else "small" if examples < 5000 else "short"


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them, without lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def get(name: str, **changes: Any) -> Recipe:
    """A named recipe with fields replaced; those of its rule by their own names (rate, momentum, ...).

    Raises RosettaError for an unknown name or field, or a recipe that can't be.
    """
    if name not in RECIPES:
        raise RosettaError(f"unknown recipe {name!r}{hint(name, RECIPES)}")
    made = RECIPES[name]
    changes = _tuples(changes)
    rules, own = ({f.name for f in dataclasses.fields(c)} for c in (Rule, Recipe))
    for key in changes:
        if key not in (known := sorted(rules | own - {"rule"})):
            raise RosettaError(f"a recipe has no {key!r}{hint(key, known)}")
    rule = {k: v for k, v in changes.items() if k in rules}
    if rule.get("kind", "SGD") not in KINDS:
        raise RosettaError(f"unknown optimizer {rule['kind']!r}: expected SGD, Adam or AdamW")
    try:
        return dataclasses.replace(
            made, rule=dataclasses.replace(made.rule, **rule), **{k: v for k, v in changes.items() if k in own}
        )
    except TypeError as e:
        raise RosettaError(f"this recipe can't be: {e}") from None


def learning(
    arch: Arch, recipe: Recipe, frozen: tuple[str, ...] = (), rates: Mapping[str, float] | None = None
) -> dict[str, tuple[float, float]]:
    """{canonical name: (what multiplies the rate, weight decay)} of the parameters that learn.

    `frozen` and `rates` are by section: stem, layer1, ..., head. Raises RosettaError for a section that the net lacks,
    if nothing is left to learn, or for a folded net.
    """
    if arch.folded:
        raise RosettaError("a net whose norms are folded is for inference; train it with them (folded=False)")
    names = [n for n in parameters(arch) if is_trainable(n)]
    there = list(dict.fromkeys(section_of(n) for n in names))
    for section in (*frozen, *(rates or {})):
        if section not in there:
            raise RosettaError(
                f"this net has no section {section!r}{nearest(section, [*there, ALL_BUT_HEAD])}: {', '.join(there)}"
            )
    norms = {layer.name for layer in make_plan(arch).layers() if isinstance(layer, Norm)}
    found = {}
    for name in names:
        layer, leaf = name.rsplit(".", 1)
        decays = recipe.decay_norms or not (leaf == "bias" or layer in norms)
        if (section := section_of(name)) not in frozen:
            found[name] = ((rates or {}).get(section, 1.0), recipe.rule.weight_decay if decays else 0.0)
    if not found:
        raise RosettaError("every section is frozen: nothing is left to learn")
    return found


def balanced(labels: np.ndarray, classes: int) -> np.ndarray:
    """How much each class counts in the loss (float64): the mean number of examples of a class over its own, so that
    all together weigh as much as each of them does."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)


def frozen_sections(arch: Arch, named: tuple[str, ...]) -> tuple[str, ...]:
    """The sections that are named: "all-but-head" are those before the classifier."""
    sections = dict.fromkeys(section_of(n) for n in parameters(arch))
    every = [s for s in sections if s != "head"] if ALL_BUT_HEAD in named else []
    return tuple(dict.fromkeys([*every, *(s for s in named if s != ALL_BUT_HEAD)]))


class LossScale:
    """What the loss is multiplied by in float16, where small gradients would be 0: halved when a gradient is not
    finite, doubled after 2,000 steps (Micikevicius et al. 2017, section 3.2)."""

    def __init__(self) -> None:
        self.value, self.good = 2.0**16, 0

    def update(self, finite: bool) -> bool:
        """Whether the step counts."""
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(1.0, self.value / 2)
        elif self.good == 2000:
            self.value, self.good = self.value * 2, 0
        return finite

    def state(self) -> tuple[float, float]:
        return self.value, float(self.good)

    def restore(self, state: np.ndarray) -> None:
        self.value, self.good = float(state[0]), int(state[1])
