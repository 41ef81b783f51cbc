from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adreg.train.resume import State, load_state, save_state


def state(step: int) -> State:
    draw = torch.Generator().manual_seed(step)
    return State(
        step, {"value.a": torch.randn(3, 2, generator=draw), "generator": draw.get_state()}
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path, "run", state(5))
    found, problems = load_state(tmp_path, "run")
    assert found is not None
    assert found.step == 5
    assert problems == []
    for key, tensor in state(5).tensors.items():
        assert torch.equal(found.tensors[key], tensor)


def test_the_newest_and_the_one_before_stay(tmp_path: Path) -> None:
    for step in (1, 2, 9, 10, 100):
        save_state(tmp_path, "run", state(step))
    assert files(tmp_path) == ["state-00000010.safetensors", "state-00000100.safetensors"]


def test_no_folder_is_no_state(tmp_path: Path) -> None:
    assert load_state(tmp_path / "none", "run") == (None, [])


def test_every_damage_is_noticed_and_told(tmp_path: Path) -> None:
    """Cut short, or one byte turned anywhere: the state before it is taken."""
    save_state(tmp_path, "run", state(1))
    save_state(tmp_path, "run", state(2))
    newest = tmp_path / "state-00000002.safetensors"
    whole = newest.read_bytes()
    cuts = [whole[:length] for length in range(0, len(whole), len(whole) // 9)]
    turned = [
        whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        for at in range(len(whole) - 1, 7, -max(1, len(whole) // 60))
    ]
    for content in [*cuts, *turned]:
        newest.write_bytes(content)
        found, problems = load_state(tmp_path, "run")
        assert found is not None
        assert found.step == 1
        assert len(problems) == 1
        assert "state-00000002" in problems[0]
        assert not newest.exists()


def test_all_damaged_is_a_fresh_start(tmp_path: Path) -> None:
    for step in (1, 2):
        save_state(tmp_path, "run", state(step))
    for path in tmp_path.iterdir():
        path.write_bytes(b"\xff" * 40)
    found, problems = load_state(tmp_path, "run")
    assert found is None
    assert len(problems) == 2


def test_a_state_of_another_run_is_not_used(tmp_path: Path) -> None:
    save_state(tmp_path, "other", state(7))
    found, problems = load_state(tmp_path, "run")
    assert found is None
    assert problems == ["state-00000007.safetensors belongs to another run"]


def test_a_write_that_fails_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, "run", state(1))

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(Exception, match="No space left"):
        save_state(tmp_path, "run", state(2))
    monkeypatch.undo()
    found, _ = load_state(tmp_path, "run")
    assert found is not None
    assert found.step == 1
    assert files(tmp_path) == ["state-00000001.safetensors"]
