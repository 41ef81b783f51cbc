"""JSON inside a stranger's file, read so that what comes of it can be stored and written again."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

LONGEST = 1 << 20
_DEEPEST = 50  # the interpreter's own limit would hit later, where nobody expects it
_SHOWN = 40


def read_foreign(text: str) -> Any:
    """The value of a JSON text.

    ValueError for what is no JSON, longer than LONGEST, nested more than 50 deep, or holds a
    number that is not finite or half a character (a lone surrogate, which no file and no database
    takes).
    """
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} letters are more than the {LONGEST} read here")
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value, _DEEPEST)
    check_text(value)
    return value


def check_text(value: Any) -> None:
    """Raises ValueError where a text in it holds half a character."""
    json.dumps(value, ensure_ascii=False).encode()


def _check_depth(value: Any, left: int) -> None:
    if left < 0:
        raise _too_deep()
    inside = value.values() if isinstance(value, dict) else value
    for inner in inside if isinstance(value, dict | list) else ():
        _check_depth(inner, left - 1)


def _too_deep() -> ValueError:
    return ValueError(f"nested more than {_DEEPEST} deep")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _no_number(number)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:_SHOWN]} is no finite number")
