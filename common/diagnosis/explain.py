"""A row and her net aligned, and every change between them told by an edit."""

from common.arch import Arch
from common.diagnosis.align import Aligner
from common.diagnosis.edits import Edit, Explained
from common.diagnosis.fields import by_fields
from common.diagnosis.finders import FINDERS
from common.diagnosis.parse import Chain


def explain(base: Arch, theirs: Chain, aligner: Aligner) -> Explained:
    """The edits that lead from the row to her net, each change being in one of them, by as few as there can be."""
    found = Explained(base, theirs, aligner)
    found.edits = _edits(found)
    for name in [name for edit in found.edits for name in edit.fields]:  # a field may leave more to tell than it tells
        without = _edits(found, frozenset({name}))
        if len(without) < len(found.edits):
            found.edits = without
    return found


def _edits(e: Explained, but: frozenset[str] = frozenset()) -> list[Edit]:
    rest, found = list(e.all), list[Edit]()

    def take(edits: "list[Edit]") -> None:
        for edit in edits:
            found.append(edit)
            rest[:] = [c for c in rest if c not in edit.changes]

    if rest:
        take(list(by_fields(e, rest, but)))
    for finder in FINDERS:
        for edit in finder(e, list(rest)):
            take([edit])
    assert not rest, rest[0]
    return found
