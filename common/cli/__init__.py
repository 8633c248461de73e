"""The command `rosetta`: one file a family of commands.

It turns words into calls of the wings, and what comes back into text or JSON; nothing is worked out here, and nothing
imports it.
"""

from common.cli import bench, compare, diagnose, exercise, files, runs, show, site, train, traps, use, write  # noqa: F401  (each adds its commands)
from common.cli.group import cli, main

__all__ = ["cli", "main"]
