"""Whether what JSON said is of the type that a field has."""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from common.errors import RosettaError


def is_a(value: Any, hint: Any) -> bool:
    """Whether `value` is what `hint`, a field's annotation, says; a number is finite."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(is_a(value, a) for a in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(is_a(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(is_a(k, args[0]) and is_a(v, args[1]) for k, v in value.items())
    if hint in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        return whole or (hint is float and isinstance(value, float) and math.isfinite(value))
    return isinstance(value, hint)


def check_fields(cls: type, said: Mapping[str, Any], what: str) -> None:
    """Raises RosettaError where a value in `said` is not of the type of the dataclass' field of that name."""
    hints = get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if f.name in said and not is_a(said[f.name], hints[f.name]):
            kind = getattr(hints[f.name], "__name__", str(hints[f.name]).replace("typing.", ""))
            raise RosettaError(f"{what} has {f.name} = {str(said[f.name])[:60]!r}: expected {kind}")
