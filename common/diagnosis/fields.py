"""Edits that a row can say: fields, whose changes are all among hers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from common.diagnosis.align import Change, changes
from common.diagnosis.edits import Edit, Explained, number, plain
from common.diagnosis.guess import guesses
from common.errors import RosettaError

NAMES = {  # field: (name, kind)
    "stride_in": ("stride on the first 1x1", "stride"), "conv_bias": ("bias before BatchNorm", "bias"),
    "shortcut": ("shortcut", "shortcut"), "shortcut_norm": ("projection without norm", "shortcut"),
    "norm_eps": ("epsilon", "epsilon"), "depths": ("depths", "depth"), "widths": ("widths", "width"),
    "stem": ("stem", "stem"), "groups": ("groups", "groups"), "se_ratio": ("squeeze-and-excitation", "gate"),
    "preact": ("pre-activation", "block"), "stride_block": ("stride in a stage's last block", "stride"),
    "first_stride": ("stride of the first stage", "stride"), "drop_path": ("stochastic depth", "dropout"),
    "dropout": ("dropout", "dropout"), "antialias": ("anti-aliasing", "stride"),
    "norm_groups": ("group normalisation", "norm"), "weight_std": ("weight standardisation", "norm"),
    "eca": ("channel attention", "gate"), "output_stride": ("dilated stages", "stride"),
}  # fmt: skip
POOLED = ("average pooling before projections", "an average pooling strides before each projection")
SAYS: dict[tuple[str, Any], tuple[str, str]] = {  # (field, value): (name, sentence), where the value makes another one
    ("shortcut", "none"): ("no shortcuts", "no block has a shortcut"),
    ("shortcut", "project_all"): (
        "projection in every block", "every block projects, and not those alone whose shapes change",
    ),
    ("shortcut", "project"): ("projections", "blocks project where shapes change, and nowhere else"),
    ("shortcut", "pad"): ("option A", "zero channels stand where shapes change, and no projection"),
    ("shortcut", "pool"): POOLED, ("shortcut", "pool_first"): POOLED,
    ("stride_in", 1): ("stride on the first 1x1", "the first 1x1 of a block strides, and not the 3x3 (v1)"),
    ("stride_in", 2): ("stride on the 3x3", "the 3x3 of a block strides, and not the first 1x1 (v1.5)"),
    ("conv_bias", True): ("bias before BatchNorm", "every convolution has a bias"),
    ("conv_bias", False): ("no bias", "no convolution has a bias"),
    ("conv_bias", "unnormed"): ("bias where no norm follows", "convolutions have a bias where no norm follows"),
    ("se_ratio", 0): ("no squeeze-and-excitation", "no block has a gate"),
    ("shortcut_norm", False): ("projection without norm", "no projection has a norm behind it"),
    ("first_stride", 1): ("stride of the first stage", "the first stage doesn't stride"),
    ("first_stride", 2): ("stride of the first stage", "the first stage strides, too"),
    ("output_stride", 0): ("no dilated stages", "every stage strides, and none dilates instead"),
    ("output_stride", 8): ("dilated stages", "beyond an output stride of 8, stages dilate and don't stride"),
    ("output_stride", 16): ("dilated stages", "beyond an output stride of 16, stages dilate and don't stride"),
    ("norm_groups", 0): ("batch normalisation", "norms are over the batch, and none over groups of channels"),
    ("weight_std", 0.0): ("no weight standardisation", "no convolution standardises its weights"),
    ("shortcut_norm", True): ("projection with norm", "each projection has a norm behind it"),
}  # fmt: skip


def by_fields(e: Explained, rest: list[Change], but: frozenset[str] = frozenset()) -> Iterator[Edit]:
    """Fields of the row, those that explain most first, `but` for some. What a field would change on a layer that hers
    lacks is excused."""
    options = []
    for fields in guesses(e.base, e.theirs):
        if but.isdisjoint(fields) and (does := _does(e, fields)):
            options.append((len(does), -len(fields), fields, does))
    left, said = set(rest), dict[str, Any]()
    for _, _, fields, does in 2 * sorted(options, key=lambda o: o[:2], reverse=True):
        if not left or not said.keys().isdisjoint(fields):
            continue
        if said and not _fits(e, does, left):  # what one field adds is as the others say that are there by now
            does = _does(e, {**said, **fields}) - _does(e, said)
        claimed = does & left
        if claimed and _fits(e, does, left):
            left -= claimed
            said |= fields
            yield _edit(e, fields, frozenset(claimed))


def _does(e: Explained, fields: dict[str, Any]) -> set[Change]:
    """What fields change in the row's tree; nothing where they can't be."""
    try:
        return set(changes(e.aligner.pairs(e.ours, e.tree(replace(e.base, **fields)))))
    except RosettaError:
        return set()


def _fits(e: Explained, does: set[Change], left: set[Change]) -> bool:
    """Whether all of it is hers, too, but for layers that she lacks."""
    return all(c.kind == "set" and c.path.startswith(e.lacking) for c in does - left)


def _edit(e: Explained, fields: dict[str, Any], claimed: frozenset[Change]) -> Edit:
    first, value = next(iter(fields.items()))
    ours = getattr(e.base, first)
    name, kind = NAMES[first]
    if (first, value) in SAYS:
        name, says = SAYS[first, value]
        if value == "project_all" and {e.places[c.path.split(".")[0]].stage for c in claimed} == {"layer1"}:
            name, says = "projection in the first stage", "a stage whose shapes don't change begins with a projection"
    elif first == "norm_eps":
        name, says = f"epsilon {number(value)}", f"{e.told(claimed)} {number(value)} for {number(ours)}"
    elif first == "stem" and value.convs == ours.convs:
        name, says = ("max pooling", "a max pooling") if value.pool else ("no max pooling", "no max pooling")
        says += " in the stem"
    elif first == "stem":
        says = f"{value.text(e.base.dims)} for {ours.text(e.base.dims)}"
    elif first == "norm_groups":
        over = "all channels of an example" if value == 1 else f"{value} groups of channels"
        says = f"norms are over {over}, and not {ours or 'over the batch'}"
    elif first == "weight_std":
        name = f"epsilon {number(value)} of weights" if ours else name
        says = f"convolutions standardise their weights, epsilon {number(value)}" + (
            f" for {number(ours)}" if ours else ""
        )
    elif first == "depths":
        says = f"{plain(value)} blocks for {plain(ours)}"
    else:
        says = ", ".join(f"{k} {plain(v)} for {plain(getattr(e.base, k))}" for k, v in fields.items())
    return Edit(name, kind, says, claimed, fields)
