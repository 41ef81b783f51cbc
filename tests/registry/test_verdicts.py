from __future__ import annotations

from adreg.registry import folder_digests, verdicts
from adreg.registry.api import Registry


def test_the_last_word_on_an_adapter_counts(registry: Registry) -> None:
    assert verdicts.of(registry.db, "a") is None
    verdicts.put(registry.db, "a", passed=False, reason="kps is 0.1")
    assert verdicts.of(registry.db, "a") == "held back: kps is 0.1"
    verdicts.put(registry.db, "a", passed=True, reason="kps is 0.9")
    verdicts.put(registry.db, "b", passed=False, reason="no")
    assert verdicts.of(registry.db, "a") == "passed: kps is 0.9"
    assert verdicts.all_of(registry.db) == {"a": (True, "kps is 0.9"), "b": (False, "no")}


def test_what_a_folder_held_is_known_by_its_mark(registry: Registry) -> None:
    assert folder_digests.find(registry.db, "mark") is None
    folder_digests.put(registry.db, "mark", "subject")
    folder_digests.put(registry.db, "mark", "subject")
    assert folder_digests.find(registry.db, "mark") == "subject"
