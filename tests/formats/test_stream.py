"""Files written and read tensor by tensor, with safetensors as the independent reader."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from adreg.errors import ArtifactError, NotFoundError
from adreg.formats import stream
from adreg.formats.header import read_header
from adreg.formats.stream import (
    TensorSpec,
    in_file_order,
    read_headers,
    read_slices,
    read_tensor,
    spec_of,
    write_tensors,
)

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor of these tests takes several slices, the last of them not full."""
    monkeypatch.setattr(stream, "SLICE", 7)


def some(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"b": (5, 6), "a": (3,), "c.weight": (2, 3, 1, 1), "one": (), "none": (0, 4)}
    return {key: torch.randn(shape, generator=draw).to(dtype) for key, shape in shapes.items()}


def specs_of(tensors: dict[str, Tensor]) -> dict[str, TensorSpec]:
    return {key: TensorSpec(value.dtype, tuple(value.shape)) for key, value in tensors.items()}


def write(path: Path, tensors: dict[str, Tensor], **facts: str) -> Path:
    write_tensors(path, specs_of(tensors), tensors.__getitem__, facts)
    return path


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_library_reads_what_was_written(dtype: torch.dtype, tmp_path: Path) -> None:
    file = write(tmp_path / "new" / "model.safetensors", some(dtype), format="pt")
    same(load_file(file), some(dtype))
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert [file.name for file in file.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.bool])
def test_what_the_library_wrote_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file(some(dtype), tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    same({key: read_tensor(header, key) for key in header.tensors}, some(dtype))
    assert {key: spec_of(header, key) for key in header.tensors} == specs_of(some(dtype))


def test_tensors_are_converted_on_the_way_in_and_out(tmp_path: Path) -> None:
    wide, narrow = some(), some(torch.float16)
    write_tensors(tmp_path / "half", specs_of(narrow), wide.__getitem__)
    same(load_file(tmp_path / "half"), narrow)
    header = read_header(tmp_path / "half")
    read = {key: read_tensor(header, key, torch.float32) for key in header.tensors}
    same(read, {key: value.float() for key, value in narrow.items()})


@pytest.mark.parametrize(("start", "stop"), [(0, 30), (0, 9), (8, 30), (13, 14), (5, 5)])
def test_a_part_of_a_tensor_is_read(start: int, stop: int, tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "file", some()))
    slices = list(read_slices(header, "b", start=start, stop=stop))
    assert torch.equal(torch.cat([torch.empty(0), *slices]), some()["b"].flatten()[start:stop])


@pytest.mark.parametrize("fact", ["", "1", "12", "123"])
def test_the_header_ends_where_numbers_are_aligned(fact: str, tmp_path: Path) -> None:
    length = int.from_bytes(write(tmp_path / "file", some(), fact=fact).read_bytes()[:8], "little")
    assert length % 8 == 0


def test_wider_numbers_come_first_so_that_all_are_aligned(tmp_path: Path) -> None:
    mixed = {"a": torch.ones(3, dtype=torch.int8), "b": torch.ones(1), "c": torch.arange(3)}
    same(load_file(write(tmp_path / "mixed", mixed)), mixed)
    assert in_file_order(specs_of(mixed)) == ["c", "b", "a"]


def test_each_tensor_is_asked_for_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    tensors, asked = some(), list[str]()

    def tensor_of(key: str) -> Tensor:
        asked.append(key)
        return tensors[key]

    write_tensors(tmp_path / "file", specs_of(tensors), tensor_of)
    assert asked == in_file_order(specs_of(tensors)) == sorted(tensors)


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    turned = dict(reversed(some().items()))
    first = write(tmp_path / "first", some(), z="1", a="2")
    second = write(tmp_path / "second", turned, a="2", z="1")
    assert first.read_bytes() == second.read_bytes()


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        assert write(tmp_path / "file", some()).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(mask)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", FLOATS)
def test_values_that_are_not_finite_are_refused(
    dtype: torch.dtype, value: float, tmp_path: Path
) -> None:
    tensors = some(dtype)
    tensors["b"][4, 5] = value
    with pytest.raises(ArtifactError, match=r"file: 'b' holds values that are not finite"):
        write(tmp_path / "file", tensors)
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_the_dtype_are_refused(tmp_path: Path) -> None:
    wide = {"a": torch.ones(9), "b": torch.tensor([1.0] * 8 + [-65520.0])}
    specs = {key: TensorSpec(torch.float16, (9,)) for key in wide}
    with pytest.raises(ArtifactError, match=r"'b' holds 65520, .*float16 ends at 65504") as caught:
        write_tensors(tmp_path / "file", specs, wide.__getitem__)
    assert "bfloat16" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


def test_another_shape_than_announced_is_refused(tmp_path: Path) -> None:
    specs = {"a": TensorSpec(torch.float32, (2, 3))}
    with pytest.raises(ArtifactError, match=r"'a' is \[3, 2\] and not \[2, 3\]"):
        write_tensors(tmp_path / "file", specs, lambda key: torch.zeros(3, 2))


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    files = [tmp_path / "1", tmp_path / "2"]
    save_file({"b": torch.ones(2)}, files[0])
    save_file({"a": torch.zeros(3), "c": torch.ones(1)}, files[1])
    found = read_headers(files)
    assert {key: header.path for key, header in found.items()} == {
        "a": files[1],
        "b": files[0],
        "c": files[1],
    }
    with pytest.raises(ArtifactError, match="both hold 'b'"):
        read_headers([files[0], files[0]])


def test_a_file_that_was_cut_off_or_taken_away_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "file", some())
    header = read_header(file)
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(ArtifactError, match=r"file became shorter .*'one'"):
        read_tensor(header, "one")
    file.unlink()
    with pytest.raises(NotFoundError, match="has gone"):
        read_tensor(header, "one")


def test_numbers_of_a_strange_kind_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "file")
    with pytest.raises(ArtifactError, match="stores 'a' as F8_E4M3"):
        spec_of(read_header(tmp_path / "file"), "a")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    script = """
        import resource, signal, sys, torch
        from pathlib import Path
        from adreg.errors import ExternalError
        from adreg.formats.stream import TensorSpec, write_tensors
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        specs = {"a": TensorSpec(torch.float32, (100, 100))}
        try:
            write_tensors(Path(sys.argv[1]), specs, lambda key: torch.zeros(100, 100))
        except ExternalError as error:
            print(error.message, error.remedy, error.retryable, sep="|")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    said, remedy, retryable = done.stdout.strip().split("|")
    assert str(file) in said
    assert remedy == "free some disk space"
    assert retryable == "True"
    assert file.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
