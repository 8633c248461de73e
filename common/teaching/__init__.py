"""What is for those who learn and teach: a row as plain code (`write`)."""

from common.teaching.plain import write

__all__ = ["write"]
