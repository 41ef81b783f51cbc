from __future__ import annotations

import inspect

from adreg import errors
from adreg.errors import AdregError, ExternalError, not_found


def test_every_branch_has_its_own_exit_code() -> None:
    branches = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, AdregError) and kind is not AdregError
    ]
    assert sorted(kind.exit_code for kind in branches) == [2, 3, 4, 5, 6, 7]
    assert set(errors.BY_NAME.values()) == set(branches)


def test_only_an_external_error_can_be_worth_a_retry() -> None:
    assert ExternalError("hub away", retryable=True).retryable
    assert not AdregError("x").retryable


def test_not_found_suggests_what_is_near_and_nothing_far() -> None:
    assert "'rexy'" in str(not_found("adapter", "rxy", ["rexy", "tom"], "look").remedy)
    assert not_found("adapter", "zzz", ["rexy"], "look").remedy == "look"


def test_an_error_survives_its_way_through_json() -> None:
    told = ExternalError("hub away", remedy="wait", retryable=True).to_json()
    assert told == {
        "type": "ExternalError",
        "message": "hub away",
        "remedy": "wait",
        "retryable": True,
    }
