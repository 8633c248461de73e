"""Whose ResNet is this, and what exactly is different? A live net of anybody's, told in the words of our rows.

tape: what was called, in one vocabulary for both frameworks. normal: the tape without what has no meaning. parse: the
tape as a tree of chains and sums. plans: a row as such a tree. align: two trees side by side. edits: what differs, in
words. play: a tree computed. proof: that the words are true.
"""

from common.diagnosis.examine import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
