from __future__ import annotations

import pytest

from adreg.errors import ConflictError, UsageError
from adreg.registry import names
from adreg.registry.api import Registry


def test_a_name_points_at_one_thing_whatever_its_case(registry: Registry) -> None:
    names.point(registry.db, "Rex", "adapter", "d1")
    names.point(registry.db, "rex", "adapter", "d1")
    with pytest.raises(ConflictError, match="'Rex' is taken") as caught:
        names.point(registry.db, "REX", "checkpoint", "d2")
    assert "REX-2" in str(caught.value.remedy)
    assert names.digest_of(registry.db, "rEx", "adapter") == "d1"
    assert names.digest_of(registry.db, "rex", "checkpoint") is None


def test_free_name_counts_up(registry: Registry) -> None:
    assert names.free_name(registry.db, "rex") == "rex"
    names.point(registry.db, "rex", "adapter", "d1")
    names.point(registry.db, "rex-2", "adapter", "d2")
    assert names.free_name(registry.db, "rex") == "rex-3"


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", ".x", "x" * 97, "a/b", "naïve\n"])
def test_unfit_names_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(UsageError, match="no usable name"):
        names.point(registry.db, name, "adapter", "d")
