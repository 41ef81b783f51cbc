"""Adapters of whole weights, and of tokens alone: kept exactly, refused where they cannot go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adreg.errors import ArtifactError
from adreg.formats.digest import adapter_digest
from adreg.formats.factors import Dense, Factors
from adreg.formats.probe import match, probe
from adreg.formats.read import AdapterWeights, of_deltas, read_adapter
from adreg.formats.write import write_adapter, write_kohya
from tests import tiny
from tests.formats.samples import (
    MANIFEST,
    MODULES,
    PROJ_IN,
    TO_K,
    TO_Q,
    diffusers_tensors,
    random_adapter,
    raw_file,
    saved,
)

TOKENS = {"<rex>": torch.linspace(-1, 1, 64).reshape(2, 32)}


def dense_adapter() -> AdapterWeights:
    """A Linear layer and a 1x1 convolution trained whole, one layer of low rank, a token."""
    draw = torch.Generator().manual_seed(3)
    dense = {key: Dense(torch.randn(MODULES[key], generator=draw)) for key in (PROJ_IN, TO_K)}
    return replace(random_adapter(MODULES, [TO_Q], tokens=TOKENS), dense=dense)


def test_it_comes_back_bit_for_bit(tmp_path: Path) -> None:
    weights = dense_adapter()
    write_adapter(tmp_path / "x", weights, {})
    found = read_adapter(tmp_path / "x", MODULES)
    assert list(found.deltas) == sorted([PROJ_IN, TO_K, TO_Q])
    for key, delta in weights.dense.items():
        assert torch.equal(found.dense[key].values, delta.values)
        assert found.dense[key].shape == MODULES[key]
    assert torch.equal(found.factors[TO_Q].up, weights.factors[TO_Q].up)
    assert torch.equal(found.tokens["<rex>"], TOKENS["<rex>"])
    write_adapter(tmp_path / "again", found, {})
    assert (tmp_path / "again").read_bytes() == (tmp_path / "x").read_bytes()


def test_its_header_tells_what_it_is(tmp_path: Path) -> None:
    write_adapter(tmp_path / "x", dense_adapter(), {})
    found = probe(tmp_path / "x")
    assert (found.format, found.rank) == ("adreg", 2)
    assert found.modules == {PROJ_IN: (8, 8, 0), TO_K: (8, 32, 0), TO_Q: (8, 8, 2)}
    assert found.dense == {PROJ_IN: f"{PROJ_IN}.diff", TO_K: f"{TO_K}.diff"}
    assert list(found.scales) == [TO_Q]
    assert list(match(found, MODULES)) == sorted([PROJ_IN, TO_K, TO_Q])


def test_a_kernel_of_one_pixel_is_a_matrix(tmp_path: Path) -> None:
    values = torch.randn(8, 8, 1, 1)
    saved(tmp_path / "x", {f"{PROJ_IN}.diff": values})
    assert torch.equal(
        read_adapter(tmp_path / "x", MODULES).dense[PROJ_IN].values, values[..., 0, 0]
    )


def test_the_digest_sees_every_value(tmp_path: Path) -> None:
    weights = dense_adapter()
    write_adapter(tmp_path / "x", weights, {})
    digest = adapter_digest(tmp_path / "x")
    weights.dense[TO_K].values[7, 31] += 1e-6
    write_adapter(tmp_path / "y", weights, {})
    assert adapter_digest(tmp_path / "y") != digest


def test_another_shape_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "x", {f"{TO_K}.diff": torch.ones(8, 16)})
    with pytest.raises(ArtifactError, match=r"8x16 where the base has 8x32"):
        read_adapter(tmp_path / "x", MODULES)


@pytest.mark.parametrize(
    ("shape", "said"), [((8, 32, 3, 3), "convolution"), ((8,), "no matrix"), ((0, 32), "is empty")]
)
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...], said: str, tmp_path: Path) -> None:
    saved(tmp_path / "x", {f"{TO_K}.diff": torch.ones(shape)})
    with pytest.raises(ArtifactError, match=said):
        probe(tmp_path / "x")


def test_both_at_once_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "x", {**diffusers_tensors(), f"{TO_K}.diff": torch.ones(8, 32)})
    with pytest.raises(ArtifactError, match="low-rank factors and a dense delta at once"):
        probe(tmp_path / "x")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bad = torch.ones(8, 32)
    bad[3, 4] = float("inf")
    with pytest.raises(ArtifactError, match=r"to_k\.diff"):
        write_adapter(tmp_path / "x", AdapterWeights({}, dense={TO_K: Dense(bad)}), {})
    saved(tmp_path / "x", {f"{TO_K}.diff": bad})
    with pytest.raises(ArtifactError, match=r"to_k\.diff"):
        adapter_digest(tmp_path / "x")
    with pytest.raises(ArtifactError, match=r"to_k\.diff"):
        read_adapter(tmp_path / "x", MODULES)


def test_it_is_no_lora_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="was trained whole") as refused:
        write_kohya(tmp_path / "x", dense_adapter(), {})
    assert refused.value.remedy is not None
    assert "adreg merge" in refused.value.remedy
    assert not (tmp_path / "x").exists()


def test_diffusers_refuses_it_rather_than_load_a_part(tmp_path: Path) -> None:
    pipe = tiny.pocket_pipeline()
    shapes = tiny.modules_of(pipe)
    weights = random_adapter(shapes, [TO_Q], tokens={"<rex>": torch.ones(1, 32)})
    whole = replace(weights, dense={TO_K: Dense(torch.ones(shapes[TO_K]))})
    write_adapter(tmp_path / "x.safetensors", whole, {})
    with pytest.raises(ValueError, match="Invalid LoRA checkpoint"):
        pipe.load_lora_weights(tmp_path, weight_name="x.safetensors")


def test_tokens_alone_are_an_adapter(tmp_path: Path) -> None:
    write_adapter(tmp_path / "x", AdapterWeights({}, TOKENS, MANIFEST), {})
    found = probe(tmp_path / "x")
    assert (found.format, found.rank, found.modules) == ("adreg", 0, {})
    assert found.family == "width-32"
    assert match(found, MODULES) == {}
    read = read_adapter(tmp_path / "x", MODULES)
    assert not read.deltas
    assert torch.equal(read.tokens["<rex>"], TOKENS["<rex>"])
    assert len(adapter_digest(tmp_path / "x")) == 64
    with pytest.raises(ArtifactError, match="token <rex> is 32 wide"):
        match(found, {TO_K: (8, 64)})


def test_an_empty_adapter_is_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no factors"):
        write_adapter(tmp_path / "x", AdapterWeights({}), {})
    raw_file(tmp_path / "x", {})
    with pytest.raises(ArtifactError, match="holds no low-rank factors"):
        probe(tmp_path / "x")


def test_deltas_of_both_kinds_say_the_same() -> None:
    low = Factors(torch.randn(5, 2), torch.randn(2, 7))
    dense = Dense(low.up @ low.down)
    x = torch.randn(7, 3, dtype=torch.float64)
    assert dense.shape == low.shape == (5, 7)
    torch.testing.assert_close(dense.delta(), low.delta())
    torch.testing.assert_close(dense.times(x), low.times(x), rtol=1e-5, atol=1e-6)
    assert dense.times(x).dtype == torch.float64
    split = of_deltas({"a": low, "b": dense})
    assert (list(split.factors), list(split.dense)) == (["a"], ["b"])
