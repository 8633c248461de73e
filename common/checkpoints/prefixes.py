"""What wrappers put before the names of a net's tensors."""

import dataclasses
from collections import Counter

from common.checkpoints.containers import Entry

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "timm_model.")


def strip(entries: dict[str, Entry], unused: dict[str, str]) -> tuple[dict[str, Entry], list[str]]:
    """(the entries without what DataParallel, torch.compile, trainers and wrappers put before their names, a note of
    it); the few that have another name, such as a loss's weights, go to `unused`."""
    before = ""
    while entries:
        counts = Counter(name.partition(".")[0] + "." for name in entries)
        first = max(PREFIXES, key=lambda p: counts[p])
        if counts[first] < 0.75 * len(entries):
            break
        before += first
        unused |= {
            e.where or n: f"not one of those under {before!r}" for n, e in entries.items() if n[: len(first)] != first
        }
        entries = {
            n[len(first) :]: dataclasses.replace(e, where=e.where or n)
            for n, e in entries.items() if n.startswith(first)
        }  # fmt: skip
    return entries, [f"names begin with {before!r}, which is left out"] if before else []
