"""Importing the implementations: late, quietly, and with words for what is missing."""

import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from common.errors import RosettaError


def load(framework: str, module: str = "") -> Any:
    """The package torch_impl or keras_impl, or a module of it, as `load("keras", "files")`.

    Keras gets TensorFlow unless KERAS_BACKEND or its configuration file says otherwise. Raises RosettaError where
    the framework is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    name = f"{framework}_impl" + (f".{module}" if module else "")
    try:
        with _hushed():
            return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name in (name, f"{framework}_impl"):
            raise
        raise RosettaError(
            f"this needs {e.name}, which is not installed: pip install 'resnet-rosetta[{framework}]'"
        ) from None


def require(what: str, packages: Iterable[str], extra: str) -> None:
    """Raises RosettaError, with what to install, where a package that `what` needs isn't installed."""
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise RosettaError(
            f"{what} needs {' and '.join(missing)}, which is not installed: pip install 'resnet-rosetta[{extra}]'"
        )


@contextmanager
def _hushed() -> Iterator[None]:
    """Keeps what C++ writes to stderr while TensorFlow starts, which no setting of its own silences; shows it on
    failure."""
    sys.stderr.flush()
    try:
        real = os.dup(2)
    except OSError:  # no stderr: nothing to keep
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(real, kept.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)
