"""What is for those who learn and teach.

In come rows, mistakes and students' files. Out come a row as plain code (`write`), exercises that check themselves,
what each mistake does to a net, and a site of static pages.
"""

from common.teaching.plain import write

__all__ = ["write"]
