from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adreg.domain import check_name, size_in_bytes, slug, trigger_for
from adreg.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rex", "rex"),
        ("Duck Toy", "duck-toy"),
        ("  a__b ", "a-b"),
        ("dog6", "dog6"),
        ("Ünü Çan", "unu-can"),
    ],
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected
    assert trigger_for(text) == f"<{expected}>"


def test_nothing_left_is_refused() -> None:
    with pytest.raises(UsageError, match="leaves no letters"):
        slug("—…")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2_000_000_000), ("1.5 mb", 1_500_000), ("10k", 10_000), ("4096", 4096), ("7B", 7)],
)
def test_sizes(text: str, expected: int) -> None:
    assert size_in_bytes(text, "--shard-size") == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 GiB", "2TB", "much", "0", "0.4"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="^--shard-size .*: no size"):
        size_in_bytes(text, "--shard-size")


@given(st.text(max_size=40))
def test_a_slug_is_a_usable_name_and_its_own_slug(text: str) -> None:
    try:
        made = slug(text)
    except UsageError:
        return
    assert slug(made) == made
    assert check_name(made[:96]) == made[:96]
