from __future__ import annotations

import pytest

from adreg.errors import UsageError
from adreg.publish.format import check_format


@pytest.mark.parametrize(
    ("asked", "rank", "checkpoint", "form"),
    [
        (None, None, True, "diffusers"),
        (None, None, False, "lora"),
        ("lora", None, False, "lora"),
        ("lora", 4, True, "lora"),
        ("both", 4, True, "both"),
        ("diffusers", None, True, "diffusers"),
    ],
)
def test_what_can_be(asked: str | None, rank: int | None, checkpoint: bool, form: str) -> None:
    assert check_format(asked, rank, "rex", checkpoint=checkpoint) == form


@pytest.mark.parametrize(
    ("asked", "rank", "checkpoint", "said"),
    [
        ("onnx", None, True, "--format onnx"),
        ("", None, True, "no such format"),
        ("diffusers", None, False, "rex is an adapter"),
        ("both", None, False, "rex is an adapter"),
        (None, 4, True, "--rank"),
        ("diffusers", 4, True, "--rank"),
        ("lora", 4, False, "--rank"),
    ],
)
def test_what_cannot_be(asked: str | None, rank: int | None, checkpoint: bool, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        check_format(asked, rank, "rex", checkpoint=checkpoint)
    assert caught.value.remedy
