from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adreg.domain import Adapter, Checkpoint, Concept, Preview, Score
from adreg.errors import ConflictError, NotFoundError
from adreg.registry import adapters, checkpoints, names, scores
from adreg.registry.api import Registry

ADAPTER = Adapter(
    digest="ab12cd" + "0" * 58,
    path=Path(),
    format="adreg",
    base_digest="b" * 64,
    base_name="pocket",
    family="pocket",
    concepts=(Concept("<rex>", "dog"),),
    method="cat",
    rank=4,
    modules=12,
    tags=("pets",),
    line="zoo",
    spec={"steps": 3},
)


def _insert(registry: Registry, adapter: Adapter, name: str | None = None) -> None:
    adapters.insert(registry.db, adapter)
    if name:
        names.point(registry.db, name, "adapter", adapter.digest)


def test_an_adapter_comes_back_as_it_was_put_in(registry: Registry) -> None:
    _insert(registry, ADAPTER, "rex")
    found = registry.adapter("rex")
    assert replace(found, path=Path(), created="", state="present") == replace(ADAPTER, name="rex")
    assert found.path == registry.store.adapter_path(ADAPTER.digest)


def test_a_row_whose_file_is_gone_is_missing(registry: Registry) -> None:
    _insert(registry, ADAPTER, "rex")
    assert registry.adapter("rex").state == "missing"
    path = registry.store.adapter_path(ADAPTER.digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert registry.adapter("rex").state == "present"


def test_an_adapter_is_found_by_its_digest(registry: Registry) -> None:
    other = replace(ADAPTER, digest="ab12cd" + "1" * 58)
    _insert(registry, ADAPTER)
    _insert(registry, other)
    assert registry.adapter("ab12cd1").digest == other.digest
    with pytest.raises(ConflictError, match="2 adapters"):
        registry.adapter("ab12cd")
    with pytest.raises(NotFoundError):
        registry.adapter("ab12")


def test_a_wrong_name_suggests_the_nearest(registry: Registry) -> None:
    _insert(registry, ADAPTER, "rexy")
    with pytest.raises(NotFoundError) as caught:
        registry.adapter("rxy")
    assert "'rexy'" in str(caught.value.remedy)


def test_listing_by_tag_and_limit_newest_first(registry: Registry) -> None:
    digests = [f"{n:064x}" for n in range(3)]
    for digest in digests:
        _insert(registry, replace(ADAPTER, digest=digest, tags=()))
    adapters.add_tags(registry.db, digests[0], ["b", "a"])
    adapters.add_tags(registry.db, digests[0], ["a"])
    listed = adapters.listing(registry.db, registry.store)
    assert [a.digest for a in listed] == digests[::-1]
    assert [a.digest for a in adapters.listing(registry.db, registry.store, limit=1)] == [
        digests[2]
    ]
    (tagged,) = adapters.listing(registry.db, registry.store, tag="a")
    assert tagged.tags == ("a", "b")


def test_the_head_of_a_line_is_its_newest(registry: Registry) -> None:
    _insert(registry, ADAPTER)
    later = replace(ADAPTER, digest="f" * 64, continued_from=ADAPTER.digest)
    _insert(registry, later)
    head = adapters.head_of_line(registry.db, registry.store, "zoo", "b" * 64)
    assert head is not None
    assert head.digest == later.digest
    assert adapters.head_of_line(registry.db, registry.store, "zoo", "c" * 64) is None


def test_a_trigger_is_found_whatever_its_case(registry: Registry) -> None:
    _insert(registry, ADAPTER)
    find = adapters.with_trigger
    assert find(registry.db, registry.store, "<REX>", "b" * 64) is not None
    assert find(registry.db, registry.store, "<rex2>", "b" * 64) is None
    assert find(registry.db, registry.store, "<rex>", "c" * 64) is None


def test_a_checkpoint_comes_back(registry: Registry) -> None:
    checkpoint = Checkpoint(
        digest="c" * 64,
        path=registry.store.checkpoint_path("c" * 64),
        method="loraclr",
        adapters=("rex", "tom"),
        base_digest="b" * 64,
        base_name="pocket",
        concepts=(Concept("<rex>", "dog"), Concept("<tom>", "cat")),
        recipe={"method": "loraclr"},
    )
    checkpoints.insert(registry.db, checkpoint)
    names.point(registry.db, "duo", "checkpoint", checkpoint.digest)
    found = registry.checkpoint("duo")
    assert replace(found, created="", state="present") == replace(checkpoint, name="duo")
    assert registry.artefact("duo") == found


def test_scores_are_kept_by_inputs_and_measured_again_replaced(registry: Registry) -> None:
    score = Score("kps/1", 0.5, "a", "b", "s", {"seed": 0}, {"floor": 0.1})
    scores.insert(registry.db, score)
    scores.insert(registry.db, replace(score, value=0.6))
    scores.insert(registry.db, replace(score, value=0.7, inputs={"seed": 1}))
    assert [(s.value, s.inputs) for s in scores.of(registry.db, "a")] == [
        (0.6, {"seed": 0}),
        (0.7, {"seed": 1}),
    ]


def test_previews_keep_their_order(registry: Registry) -> None:
    pictures = [Preview("a", blob, "p", n) for n, blob in enumerate("zyx")]
    for picture in pictures:
        scores.insert_preview(registry.db, picture)
        scores.insert_preview(registry.db, picture)
    assert scores.previews_of(registry.db, "a") == pictures
