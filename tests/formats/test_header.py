"""Headers: what is accepted is what the safetensors library accepts, and less."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from adreg.errors import ArtifactError, NotFoundError
from adreg.formats import header as headers
from adreg.formats.header import TensorInfo, read_header, read_scalar, read_tensor_bytes
from tests.formats.samples import entry, raw_file, saved

F32 = entry("F32", [2], 0, 8)


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}
    found = read_header(saved(tmp_path / "x.safetensors", tensors, {"note": "hé"}))
    assert found.metadata == {"note": "hé"}
    assert found.tensors["a"] == TensorInfo("F32", (2, 3), 0, 24)
    assert read_tensor_bytes(found, "a") == tensors["a"].numpy().tobytes()
    assert read_tensor_bytes(found, "b") == tensors["b"].numpy().tobytes()


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": F32}, b"1234567", "truncated"),
        ({"a": F32}, b"123456789", "1 bytes after its last tensor"),
        ({"a": F32, "b": entry("F32", [1], 12, 16)}, b"x" * 16, "hole"),
        ({"a": F32, "b": entry("F32", [1], 4, 8)}, b"x" * 8, "overlaps"),
        ({"a": entry("F32", [2], 4, 12)}, b"x" * 12, "hole"),
        ({"a": entry("F32", [3], 0, 8)}, b"x" * 8, "gives 8 bytes"),
        ({"a": entry("F31", [2], 0, 8)}, b"x" * 8, "unknown dtype"),
        ({"a": entry("F32", [-2], 0, -8)}, b"", "malformed shape"),
        ({"a": entry("U8", [True], 0, 1)}, b"x", "malformed shape"),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"x" * 8, "malformed entry"),
        ({"a": 3}, b"", "malformed entry"),
        ([], b"", "no JSON object"),
        (b'{"a":', b"", "no valid JSON"),
        (b"\xff\xfe", b"", "no valid JSON"),
        (b"[" * 100_000, b"", "no valid JSON"),
        (b'{"__metadata__":{"a":"1","a":"2"}}', b"", "duplicate key 'a'"),
        ({"__metadata__": {"a": 1}}, b"", "map of text to text"),
        ({"__metadata__": {"a": "\ud800"}}, b"", "no valid JSON"),
        ({"\udc80": F32}, b"x" * 8, "no valid JSON"),
        ({"k" * 1001: F32}, b"x" * 8, "a key of 1001 letters"),
        ({"a": entry("F32", [1] * 17, 0, 4)}, b"x" * 4, "malformed shape"),
        ({"a": entry("F32", [1 << 63, 0], 0, 0)}, b"", "malformed shape"),
        ({"a": entry("F" * 10**6, [1], 0, 4)}, b"x" * 4, "unknown dtype 'F{40}' "),
    ],
)
def test_refuses(tmp_path: Path, header: object, data: bytes, message: str) -> None:
    path = raw_file(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_names_the_key_at_fault(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "x", {"good": F32, "bad": entry("F32", [2], 4, 12)}, b"x" * 12)
    with pytest.raises(ArtifactError, match="'bad'"):
        read_header(path)


def test_duplicate_tensor_keys(tmp_path: Path) -> None:
    text = json.dumps(F32)
    path = raw_file(tmp_path / "x", f'{{"a":{text},"a":{text}}}'.encode(), b"x" * 8)
    with pytest.raises(ArtifactError, match="duplicate key 'a'"):
        read_header(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = save({"a": torch.ones(3), "b": torch.ones(2, 2)}, {"k": "v"})
    path = tmp_path / "cut.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            read_header(path)


def test_a_huge_header_length_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ArtifactError, match="truncated or no safetensors"):
        read_header(path)
    with path.open("wb") as file:  # sparse: the length is honest, the header merely enormous
        file.write((headers.MAX_HEADER + 1).to_bytes(8, "little"))
        file.truncate(headers.MAX_HEADER + 9)
    with pytest.raises(ArtifactError, match="more than the"):
        read_header(path)


def test_too_many_tensors(tmp_path: Path) -> None:
    many = {str(index): entry("F32", [0], 0, 0) for index in range(headers.MAX_KEYS + 1)}
    with pytest.raises(ArtifactError, match=f"names {headers.MAX_KEYS + 1} tensors"):
        read_header(raw_file(tmp_path / "x", many))


def test_a_header_that_would_take_hours_is_refused_at_once(tmp_path: Path) -> None:
    """What grows with the square of a header's length has millions of entries to grow with."""
    pairs = ",".join(f'"{number}":""' for number in range(150_000))
    text = f'{{"__metadata__":{{{pairs},"149999":""}}}}'
    with pytest.raises(ArtifactError, match="duplicate key '149999'"):
        read_header(raw_file(tmp_path / "twice", text.encode()))
    shape = ",".join(["9" * 4000] * 4000)
    text = f'{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}'
    with pytest.raises(ArtifactError, match="malformed shape") as caught:
        read_header(raw_file(tmp_path / "product", text.encode(), b"x" * 4))
    assert len(caught.value.message) < 1000


def test_no_file_folder_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_header(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ArtifactError, match="no regular file"):
            read_header(path)


def test_a_file_cut_after_its_header_was_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", {"a": torch.ones(100)})
    found = read_header(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ArtifactError, match="became shorter"):
        read_tensor_bytes(found, "a")


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32],
)
def test_scalars_of_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    path = saved(tmp_path / "x", {"alpha": torch.tensor(6, dtype=dtype)})
    assert read_scalar(read_header(path), "alpha") == 6.0


@pytest.mark.parametrize(
    "value", [torch.ones(2), torch.tensor(True), torch.tensor(torch.nan), torch.tensor(torch.inf)]
)
def test_what_is_no_scalar(tmp_path: Path, value: torch.Tensor) -> None:
    path = saved(tmp_path / "x", {"alpha": value})
    with pytest.raises(ArtifactError, match="'alpha'"):
        read_scalar(read_header(path), "alpha")


WHOLE = save({"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.float16)}, {"k": "v"})


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
)
def test_a_damaged_file_is_refused_or_read_as_the_library_reads_it(
    tmp_path: Path, edits: list[tuple[int, int]]
) -> None:
    raw = bytearray(WHOLE)
    for position, byte in edits:
        raw[position] = byte
    path = tmp_path / "x"
    path.write_bytes(raw)
    try:
        found = read_header(path)
    except ArtifactError:
        return
    try:
        with safe_open(path, "pt") as library:
            theirs = {key: tuple(library.get_slice(key).get_shape()) for key in library.keys()}  # noqa: SIM118
    except SafetensorError as error:
        pytest.fail(f"read here, refused by the library: {error}")
    assert {key: info.shape for key, info in found.tensors.items()} == theirs


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a", "F32"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    data=st.binary(max_size=16),
)
def test_any_json_is_a_header_or_an_artifact_error(
    tmp_path: Path, value: object, data: bytes
) -> None:
    path = raw_file(tmp_path / "x", value, data)
    try:
        found = read_header(path)
    except ArtifactError:
        return
    assert sum(info.end - info.start for info in found.tensors.values()) == len(data)
