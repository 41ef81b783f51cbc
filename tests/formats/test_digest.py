"""Identity: what changes a delta or a token changes the digest; notes do not."""

from __future__ import annotations

import os
import re
import tracemalloc
from pathlib import Path

import pytest
import torch

from adreg.errors import ArtifactError
from adreg.formats.digest import adapter_digest
from adreg.formats.header import read_header
from adreg.formats.write import write_adapter
from tests.formats.samples import (
    MODULES,
    TO_K,
    TO_Q,
    diffusers_tensors,
    entry,
    random_adapter,
    raw_file,
    saved,
)


def digest(path: Path, *args: object) -> str:
    return adapter_digest(saved(path, *args))  # type: ignore[arg-type]


def test_same_content_same_digest(tmp_path: Path) -> None:
    first = digest(tmp_path / "a", diffusers_tensors())
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert digest(tmp_path / "b", diffusers_tensors()) == first
    assert digest(tmp_path / "c", diffusers_tensors(), {"modelspec.title": "x"}) == first


def test_an_alpha_in_the_header_alone(tmp_path: Path) -> None:
    peft = [{"lora_adapter_metadata": f'{{"unet.lora_alpha": {alpha}}}'} for alpha in (2, 4)]
    two, four = (digest(tmp_path / "a", diffusers_tensors(), metadata) for metadata in peft)
    assert two != four
    # alpha = rank is what a file without the entry means
    assert two == digest(tmp_path / "b", diffusers_tensors(rank=2))


def test_key_names_alone(tmp_path: Path) -> None:
    tensors = diffusers_tensors(modules=[TO_Q])
    renamed = {key.replace("to_q", "to_v"): value for key, value in tensors.items()}
    saved(tmp_path / "a", tensors)
    saved(tmp_path / "b", renamed)
    regions = []
    for name in "ab":
        path = tmp_path / name
        regions.append(path.read_bytes()[read_header(path).data_start :])
    assert regions[0] == regions[1]
    assert adapter_digest(tmp_path / "a") != adapter_digest(tmp_path / "b")


def test_two_tensors_of_one_shape_swapped_by_offset_alone(tmp_path: Path) -> None:
    modules = [TO_Q, TO_Q.replace("to_q", "to_v")]
    tensors = diffusers_tensors(modules=modules[:1])
    tensors |= {
        key.replace("to_q", "to_v"): value + 1
        for key, value in diffusers_tensors(modules=modules[:1]).items()
    }
    path = saved(tmp_path / "a", tensors)
    raw = path.read_bytes()
    swapped = raw.replace(b"to_q", b"to_#").replace(b"to_v", b"to_q").replace(b"to_#", b"to_v")
    (tmp_path / "b").write_bytes(swapped)
    assert adapter_digest(tmp_path / "b") != adapter_digest(path)


def test_one_value(tmp_path: Path) -> None:
    changed = diffusers_tensors()
    changed[f"{TO_K}.lora_B.weight"][0, 0] += 1e-3
    assert digest(tmp_path / "a", changed) != digest(tmp_path / "b", diffusers_tensors())


def test_a_tensor_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """A file with holes in it costs its maker nothing, and may be larger than any memory."""
    whole = 160 << 20
    header = {
        f"{TO_K}.lora_A.weight": entry("F32", [1, whole // 4], 0, whole),
        f"{TO_K}.lora_B.weight": entry("F32", [1, 1], whole, whole + 4),
    }
    path = raw_file(tmp_path / "x", header)
    os.truncate(path, path.stat().st_size + whole + 4)
    tracemalloc.start()
    assert adapter_digest(path)
    assert tracemalloc.get_traced_memory()[1] < whole // 2
    tracemalloc.stop()


def test_tokens(tmp_path: Path) -> None:
    bare = random_adapter(MODULES, [TO_Q])
    digests = set()
    for name, tokens in (
        ("a", {}),
        ("b", {"<rex>": torch.ones(1, 32)}),
        ("c", {"<tom>": torch.ones(1, 32)}),
        ("d", {"<rex>": torch.zeros(1, 32)}),
    ):
        weights = random_adapter(MODULES, bare.factors, tokens=tokens)
        write_adapter(tmp_path / name, weights, {})
        digests.add(adapter_digest(tmp_path / name))
    assert len(digests) == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    tensors = {key: tensor.to(dtype) for key, tensor in diffusers_tensors().items()}
    saved(tmp_path / "good", tensors)
    assert adapter_digest(tmp_path / "good")
    tensors[f"{TO_K}.lora_A.weight"][1, 3] = value
    with pytest.raises(ArtifactError, match="not finite") as caught:
        digest(tmp_path / "bad", tensors)
    assert f"{TO_K}.lora_A.weight" in caught.value.message
