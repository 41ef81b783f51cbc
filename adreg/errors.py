"""The one error tree, and the exit code each branch ends a command with.

AdregError
|- UsageError      2   bad flag, spec or recipe
|- NotFoundError   3   no such adapter, checkpoint, job, base
|- ConflictError   4   name taken, job already live, the Hub moved under us
|- ArtifactError   5   digest mismatch, missing tensor, non-finite value, refused format
|- PolicyRefused   6   a gate said no
'- ExternalError   7   Hub, GPU, disk; carries `retryable`

Every message names what was wrong (file, key); `remedy` says what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdregError(Exception):
    """Anything adreg refuses or fails at; `exit_code` is what the process ends with."""

    exit_code = 1
    retryable = False

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def to_json(self) -> dict[str, object]:
        """The error as job results and the job table hold it; `BY_NAME` finds its class again."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "remedy": self.remedy,
            "retryable": self.retryable,
        }


class UsageError(AdregError):
    """A flag, setting, spec or recipe that cannot be meant."""

    exit_code = 2


class NotFoundError(AdregError):
    """A name that points at nothing."""

    exit_code = 3


class ConflictError(AdregError):
    """Something else already holds what was asked for."""

    exit_code = 4


class ArtifactError(AdregError):
    """A file whose content cannot be trusted or used."""

    exit_code = 5


class PolicyRefused(AdregError):
    """A gate said no."""

    exit_code = 6


class ExternalError(AdregError):
    """The Hub, the device or the disk failed; `retryable` says whether trying again may help."""

    exit_code = 7

    def __init__(self, message: str, *, remedy: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.retryable = retryable


BY_NAME: dict[str, type[AdregError]] = {
    kind.__name__: kind
    for kind in (
        UsageError,
        NotFoundError,
        ConflictError,
        ArtifactError,
        PolicyRefused,
        ExternalError,
    )
}


def not_found(what: str, name: str, known: Iterable[str], remedy: str) -> NotFoundError:
    """A NotFoundError that suggests the nearest known name, else what `remedy` says."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]!r}?" if near else remedy
    return NotFoundError(f"no {what} named {name!r}", remedy=remedy)
