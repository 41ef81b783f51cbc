"""What one look of `adreg doctor` found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from adreg.domain import Json


@dataclass(frozen=True)
class Check:
    """`check` is what was looked at, `told` what was found there, `remedy` what to do about it."""

    check: str
    state: Literal["ok", "warning", "broken"]
    told: str
    remedy: str | None = None

    def to_json(self) -> Json:
        return asdict(self)


def fine(check: str, told: str) -> Check:
    return Check(check, "ok", told)


def warning(check: str, told: str, remedy: str) -> Check:
    """Works, but not as well, or not for long."""
    return Check(check, "warning", told, remedy)


def broken(check: str, told: str, remedy: str | None) -> Check:
    return Check(check, "broken", told, remedy)
