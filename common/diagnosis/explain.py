"""A row and her net aligned, and every change between them told by an edit."""

from common.arch import Arch
from common.diagnosis.align import Aligner
from common.diagnosis.edits import Explained, Finder
from common.diagnosis.fields import by_fields
from common.diagnosis.finders import FINDERS
from common.diagnosis.parse import Chain


def explain(base: Arch, theirs: Chain, aligner: Aligner) -> Explained:
    """The edits that lead from the row to her net, each change being in one of them."""
    found = Explained(base, theirs, aligner)
    rest = list(found.all)
    finders: tuple[Finder, ...] = (by_fields, *FINDERS) if rest else ()
    for finder in finders:
        for edit in finder(found, rest):
            rest = [c for c in rest if c not in edit.changes]
            found.edits.append(edit)
    assert not rest, rest[0]
    return found
