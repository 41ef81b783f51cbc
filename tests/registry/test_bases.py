from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adreg.domain import Base
from adreg.errors import ConflictError, UsageError
from adreg.registry import bases
from adreg.registry.api import Registry
from adreg.registry.bases import NamedBase
from adreg.registry.connection import open_database
from adreg.registry.migrations import migrations

BASE = Base("sd15", Path("/b"), "sd1", "a" * 64, {"unet": "u"}, "epsilon")
NAMED = NamedBase(
    name="SD15",
    digest=BASE.digest,
    kind="hub",
    source="them/sd15",
    family="sd1",
    prediction_type="epsilon",
    revision="c" * 40,
    components={"unet": "u"},
    files={"unet": {"config.json": "d"}},
)


def _insert(registry: Registry, named: NamedBase, digest: str = BASE.digest) -> None:
    bases.insert_base(registry.db, replace(BASE, digest=digest), "/b", "mark " + digest)
    bases.point(registry.db, replace(BASE, digest=digest), named)


def test_a_name_comes_back_whatever_its_case(registry: Registry) -> None:
    _insert(registry, NAMED)
    found = bases.with_name(registry.db, "sd15")
    assert found is not None
    assert replace(found, created="") == NAMED
    assert bases.with_digest(registry.db, BASE.digest) == found
    assert bases.with_name(registry.db, "sd1") is None
    assert bases.all_names(registry.db) == ["SD15"]


def test_a_name_means_one_base(registry: Registry) -> None:
    _insert(registry, NAMED)
    _insert(registry, NAMED)
    with pytest.raises(ConflictError, match="'SD15' is taken"):
        _insert(registry, replace(NAMED, name="sd15"), "b" * 64)
    bases.check_free(registry.db, "sd15", BASE.digest)
    with pytest.raises(ConflictError):
        bases.check_free(registry.db, "sd15")
    with pytest.raises(UsageError):
        bases.check_free(registry.db, "a/b")
    assert len(bases.listing(registry.db)) == 1


def test_one_base_may_have_two_names_and_the_first_is_its_own(registry: Registry) -> None:
    _insert(registry, NAMED)
    _insert(registry, replace(NAMED, name="another"))
    assert [named.name for named in bases.listing(registry.db)] == ["another", "SD15"]
    first = bases.with_digest(registry.db, BASE.digest)
    assert first is not None
    assert first.name == "SD15"


def test_a_hub_id_means_the_commit_added_last(registry: Registry) -> None:
    _insert(registry, NAMED)
    newer = replace(NAMED, name="newer", digest="b" * 64, revision="e" * 40)
    _insert(registry, newer, newer.digest)
    for ref, name in (
        ("them/sd15", "newer"),
        (f"them/sd15@{'c' * 40}", "SD15"),
        (f"them/sd15@{'e' * 40}", "newer"),
    ):
        found = bases.from_hub(registry.db, ref)
        assert found is not None
        assert found.name == name
    assert bases.from_hub(registry.db, "them/sd14") is None


def test_what_finds_a_base_again_is_its_name_then_its_folder(registry: Registry) -> None:
    assert bases.base_reference(registry.db, BASE.digest) is None
    bases.insert_base(registry.db, BASE, "/b", "mark")
    assert bases.base_reference(registry.db, BASE.digest) == "/b"
    bases.point(registry.db, BASE, NAMED)
    assert bases.base_reference(registry.db, BASE.digest) == "SD15"


def test_digests_are_known_by_the_folders_signature(registry: Registry) -> None:
    bases.insert_base(registry.db, BASE, "/b", "mark")
    assert bases.known_components(registry.db, "mark") == {"unet": "u"}
    assert bases.known_components(registry.db, "other") == {}


def test_a_registry_from_before_there_were_names_keeps_its_bases(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry_db = open_database(path)
    registry_db.conn.execute("drop table base_names")
    registry_db.conn.execute("delete from _sqlite_migrations where name='m002_names_of_bases'")
    registry_db.conn.commit()
    bases.insert_base(registry_db, BASE, "/b", "mark")
    registry_db.conn.close()
    again = open_database(path)
    assert not migrations.pending(again)
    bases.point(again, BASE, NAMED)
    assert bases.base_reference(again, BASE.digest) == "SD15"
