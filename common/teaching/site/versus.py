"""Two variants side by side: where their rows differ, and what follows from that."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.arch import FAMILIES, get
from common.names import sections

PAIRS = (
    ("resnet18", "resnet34", "More blocks in each stage, and nothing else."),
    ("resnet34", "resnet50", "As many blocks, but of another kind: two convolutions of 3 become 1, 3 and 1."),
    ("resnet50_v1", "resnet50", "The paper's net and torchvision's: the same shapes and parameters, another function."),
    ("resnet50", "resnet50_keras", "Two libraries' ResNet-50: not only the layers differ, but the nets."),
    ("resnet50", "resnet50d", "ResNet-D: three small convolutions begin, and a projection averages before it."),
    ("resnet50", "resnext50_32x4d", "The middle convolution of a block in 32 groups, and twice as wide."),
    ("resnet50", "wide_resnet50_2", "The middle convolution of a block twice as wide."),
    ("resnet50", "resnetv2_50", "Norm and ReLU before each convolution, and not behind it."),
    ("cifar_plain56", "cifar_resnet56", "Without shortcuts and with them, which have no parameters."),
)  # fmt: skip
LAST = ("head", "in all")
COSTS = ("layers", "parameters", "statistics", "multiply_adds")


def rows(root: Path, names: Sequence[str]) -> dict[str, Any]:
    """What the page's script compares: the fields with what they mean; of each variant its fields in words, its costs
    by stage, and its costs in all."""
    return {
        "fields": meanings(root),
        "families": {f: [n for n in of if n in names] for f, of in FAMILIES.items() if any(n in names for n in of)},
        "variants": {name: _row(name) for name in names},
    }


def versus(found: dict[str, Any], left: str, right: str) -> dict[str, Any]:
    """Two of those `rows`: fields that differ as (name, meaning, both values), and stages as (name, both costs);
    how many times the first's parameters and multiply-adds the second has."""
    one, other = found["variants"][left], found["variants"][right]
    stages = [s for s in dict.fromkeys([*one["stages"], *other["stages"]]) if s not in LAST]
    costs, others = one["stages"][LAST[1]], other["stages"][LAST[1]]
    return {
        "names": (left, right), "times": [f"{others[i] / costs[i]:.2f}" for i in (2, 4)],
        "fields": [(f, m, one["fields"][f], other["fields"][f]) for f, m in found["fields"].items()
                   if one["fields"][f] != other["fields"][f]],
        "stages": [(s, one["stages"].get(s), other["stages"].get(s)) for s in (*stages, *LAST)],
    }  # fmt: skip


def _row(name: str) -> dict[str, Any]:
    arch = get(name)
    of = sections(arch)
    stages = {s.name: (" × ".join(map(str, s.output)), *(getattr(s, cost) for cost in COSTS)) for s in of}
    whole = ("of " + " × ".join(map(str, arch.input_shape())), *(sum(getattr(s, cost) for s in of) for cost in COSTS))
    return {"fields": arch.words(), "stages": {**stages, LAST[1]: whole}}


def meanings(root: Path) -> dict[str, str]:
    """{field of a row: what the comments in common/row.py say of it}, with the papers of common/arch.py by name."""
    papers = re.findall(r"^\[(\d+)\] ([^,\n]+),.*?(20\d\d)", (root / "common/arch.py").read_text("utf-8"), re.M)
    names = {number: f"[{authors}, {year}]" for number, authors, year in papers}
    _, _, text = (root / "common/row.py").read_text("utf-8").partition("class Arch:")
    found = {}
    for above, field, beside in re.findall(r"((?:^    # .*\n)*)^    (\w+): [^#\n]+?(?:# (.*))?$", text, re.M):
        said = " ".join(filter(None, [*re.findall("# (.*)", above), beside]))
        found[field] = re.sub(r"\[(\d+)\]", lambda m: names[m[1]], said)
    return found
