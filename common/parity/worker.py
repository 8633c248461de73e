"""The other end of backends.Elsewhere: `python -m common.parity.worker SPEC DEVICE`, jobs on stdin, items on stdout.

Messages are pickled, between a process and its own child. What libraries print goes to stderr.
"""

import os
import pickle
import sys
from collections.abc import Iterator

from common.parity.backends import Here
from common.parity.checks import Item
from common.tools.refusals import refusal


def main(spec: str, device: str) -> None:
    """Serves until stdin ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    backend = Here(spec, device)
    running: dict[int, Iterator[Item]] = {}
    while True:
        try:
            key, what, argument = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        reply: tuple[str, object]
        try:
            if what == "versions":
                reply = ("value", backend.versions())
            else:
                if what == "run":
                    running[key] = iter(backend.run(argument))
                item = next(running[key], None)
                if item is None:
                    del running[key]
                reply = ("value", item)
        except Exception as e:
            if (said := refusal(e)) is None:
                raise
            reply = ("error", str(said) if said is e else f"{spec}: {said}")
        pickle.dump((key, *reply), replies, protocol=5)
        replies.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
