"""Options as a spec: what they mean, and what cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from adreg.errors import UsageError
from adreg.merge.export.spec import ExportSpec, export_spec


@pytest.mark.parametrize(
    ("out", "options", "expected"),
    [
        ("duo.safetensors", {}, ExportSpec("single")),
        ("out/duo-v1.5", {}, ExportSpec("folder")),
        ("duo.safetensors", {"form": "single", "dtype": "fp16"}, ExportSpec("single", "fp16")),
        ("d.safetensors", {"form": "lora", "rank": 4}, ExportSpec("lora", rank=4)),
        ("d.safetensors", {"form": "lora", "kohya": True}, ExportSpec("lora", kohya=True)),
        ("duo", {"shard_size": "2GB"}, ExportSpec("folder", shard_bytes=2 * 10**9)),
        ("duo", {"shard_size": "1.5 mb"}, ExportSpec("folder", shard_bytes=1_500_000)),
        ("duo", {"shard_size": "800"}, ExportSpec("folder", shard_bytes=800)),
    ],
)  # fmt: skip
def test_what_is_meant(out: str, options: dict[str, object], expected: ExportSpec) -> None:
    spec = export_spec(Path(out), **options)  # type: ignore[arg-type]
    assert spec == expected
    assert ExportSpec(**spec.to_json()) == spec


@pytest.mark.parametrize(
    ("out", "options", "said"),
    [
        ("duo.ckpt", {}, "pickles are not written"),
        ("duo.safetensors", {"form": "webui"}, "--as webui"),
        ("duo.safetensors", {"form": "folder"}, "--as folder cannot be written to"),
        ("duo", {"form": "single"}, "--as single cannot be written to"),
        ("duo", {"form": "lora"}, "--as lora cannot be written to"),
        ("duo", {"dtype": "int8"}, "--dtype int8"),
        ("duo.safetensors", {"rank": 4}, "--rank is for --as lora only"),
        ("duo", {"kohya": True}, "--kohya is for --as lora only"),
        ("duo.safetensors", {"shard_size": "2GB"}, "--shard-size is for --as folder only"),
        ("duo", {"shard_size": "much"}, "--shard-size much"),
        ("duo", {"shard_size": "0"}, "--shard-size 0"),
    ],
)
def test_what_cannot_be_meant(out: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        export_spec(Path(out), **options)  # type: ignore[arg-type]
    assert caught.value.remedy
