from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adreg.domain import Adapter, Concept, Region
from adreg.errors import AdregError, NotFoundError, UsageError
from adreg.registry import jobs
from adreg.service.generation import generating
from adreg.service.generation.generating import request_pictures
from adreg.service.generation.placing import parse_regions
from adreg.service.origins import of_adapters
from adreg.service.workspace import Workspace

REX = Adapter(
    digest="0" * 64,
    path=Path("rex.safetensors"),
    format="adreg",
    base_digest=None,
    base_name=None,
    family="pocket",
    concepts=(Concept("<rex-1>", "dog"),),
    method="cat",
    rank=4,
    modules=1,
    name="rex",
)
DUO = replace(
    REX, name="duo", method="c-lora", concepts=(Concept("<tom>", "cat"), Concept("<rex>", "dog"))
)
KNOWN = of_adapters([REX, DUO])


@pytest.mark.parametrize(
    ("text", "box", "prompt"),
    [
        ("<rex-1>:0,0,.5,1", (0.0, 0.0, 0.5, 1.0), "a photo of a <rex-1> dog"),
        ("REX-1:0,0,.5,1", (0.0, 0.0, 0.5, 1.0), "a photo of a <rex-1> dog"),
        # A trigger goes before an adapter's name, and a line's concepts have no class word.
        ("rex: .5, 0, 1, .25", (0.5, 0.0, 1.0, 0.25), "a photo of <rex>"),
        ("tom:0,0,1,1:<tom>: at sea", (0.0, 0.0, 1.0, 1.0), "<tom>: at sea"),
    ],
)
def test_a_region_is_a_name_a_box_and_maybe_a_prompt(
    text: str, box: tuple[float, ...], prompt: str
) -> None:
    assert parse_regions([text], KNOWN) == [Region(box, prompt)]  # type: ignore[arg-type]


def test_an_adapters_name_stands_for_its_concept() -> None:
    found = parse_regions(["rex:0,0,1,1"], of_adapters([REX]))
    assert found[0].prompt == "a photo of a <rex-1> dog"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("rex", UsageError, "not NAME:x0,y0,x1,y1"),
        (":0,0,1,1", UsageError, "not NAME:x0,y0,x1,y1"),
        ("rex:0,0,1,1: ", UsageError, "not NAME:x0,y0,x1,y1"),
        ("rex:0,0,1", UsageError, "'0,0,1' is not four numbers"),
        ("rex:0,0,1,one", UsageError, "is not four numbers"),
        ("rex:.5,0,.5,1", UsageError, "is no box in the picture"),
        ("rex:0,0,1.5,1", UsageError, "is no box in the picture"),
        ("rex:0,-1,1,1", UsageError, "is no box in the picture"),
        ("rex:0,0,nan,1", UsageError, "is no box in the picture"),
        ("bob:0,0,1,1", NotFoundError, "nothing chosen has a concept 'bob'"),
        ("duo:0,0,1,1", UsageError, "'duo' has several concepts"),
    ],
)
def test_what_is_wrong_is_named_with_its_flag(
    text: str, kind: type[AdregError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        parse_regions([text], KNOWN)
    assert caught.value.message.startswith(f"--region {text!r}: ")
    assert message in caught.value.message
    assert caught.value.remedy


def test_a_request_says_what_is_where(pets: Workspace, tmp_path: Path) -> None:
    def request(*regions: str) -> dict[str, object]:
        job = request_pictures(
            pets,
            ["a dog and a cat"],
            [0],
            adapters=["tom"],
            regions=regions,
            out=tmp_path / "a.png",
        )
        jobs.cancel(pets.registry.db, job.id)
        return job.request

    asked = request("rex:0,0,.5,1", "tom:.5,0,1,1:<tom> at night")
    expected = [
        {"box": [0.0, 0.0, 0.5, 1.0], "prompt": "a photo of <rex>"},
        {"box": [0.5, 0.0, 1.0, 1.0], "prompt": "<tom> at night"},
    ]
    assert asked["regions"] == expected
    assert generating.resolve(pets, asked)["regions"] == expected
    assert request()["regions"] == []
    # As jobs were queued before there were regions.
    assert generating.resolve(pets, {k: v for k, v in asked.items() if k != "regions"})[
        "regions"
    ] == []  # fmt: skip
    with pytest.raises(UsageError, match="nothing chosen brings the trigger <bob>"):
        request("rex:0,0,.5,1:a <bob>")
