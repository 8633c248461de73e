"""Importing the implementations: late, quietly, and with words for what is missing."""

import importlib
import importlib.util
import os
import sys
import tempfile
import warnings
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
            f"{name} needs {e.name}, which is not installed: pip install 'resnet-rosetta[{framework}]'"
        ) from None


def require(what: str, packages: Iterable[str], extra: str) -> None:
    """Raises RosettaError, with what to install, where a package that `what` needs isn't installed."""
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        source = f"'resnet-rosetta[{extra}]'" if extra else " ".join(p.replace("_", "-") for p in missing)
        raise RosettaError(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            f"pip install {source}"
        )


_kept: list[Any] = []  # a declaration ends with its object


def declare_operators() -> None:
    """Makes torchvision importable where its compiled operators ask for another build of PyTorch: nothing here uses
    them, but it wants them declared. timm and Transformers import it."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own, at import
            importlib.import_module("torchvision")
    except RuntimeError as e:
        if _kept or "operator torchvision::" not in str(e):
            raise
        schemas = torch.library.Library("torchvision", "DEF")
        schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(schemas)
        declare_operators()


def peer(package: str) -> Any:
    """Another library of PyTorch's: torchvision, timm or transformers. Raises RosettaError where it isn't installed,
    or, with its own words, where it can't be imported."""
    require("building another library's net", (package,), "")
    try:
        if importlib.util.find_spec("torchvision"):
            declare_operators()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except Exception as e:  # whatever a library's own start may raise
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise RosettaError(f"can't import {package}, which is installed: {reason}") from None


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
