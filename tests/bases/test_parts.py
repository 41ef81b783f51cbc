"""What a base is made of, the memory it takes, and whether its files are what they were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adreg.bases.find import COMPONENTS, find_base
from adreg.bases.memory import PROGRAM, to_generate, to_train
from adreg.bases.parts import components_of, files_of, parts_of
from adreg.bases.single import CONFIGS
from adreg.bases.verify import check_files
from tests import tiny

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.pocket_folder(tmp_path_factory.mktemp("parts") / "base")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "base"))


def states(folder: Path, recorded: dict[str, dict[str, str]]) -> dict[str, str]:
    """File to state, of all that are not ok."""
    return {c.file: c.state for c in check_files(folder, recorded) if c.state != "ok"}


def test_parts_are_counted(saved: Path) -> None:
    pipe = tiny.pocket_pipeline()
    parts = parts_of(saved)
    assert tuple(parts) == COMPONENTS
    for name in ("unet", "vae", "text_encoder"):
        assert parts[name].parameters == sum(p.numel() for p in getattr(pipe, name).parameters())
    assert parts["tokenizer"].parameters == 0
    for name in COMPONENTS:
        held = sum(path.stat().st_size for path in (saved / name).iterdir())
        assert parts[name].bytes == held


def test_files_make_the_digests_of_the_base(saved: Path) -> None:
    files = files_of(saved)
    assert components_of(files) == find_base(str(saved)).components
    assert set(files["unet"]) == {"config.json", Path(UNET).name}


def test_whole_files_are_ok(saved: Path) -> None:
    recorded = files_of(saved)
    checked = list(check_files(saved, recorded))
    assert [c.state for c in checked] == ["ok"] * len(checked)
    assert {c.file for c in checked} == {f"{part}/{n}" for part in recorded for n in recorded[part]}
    assert states(saved, {}) == {}


def change(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    key = min(tensors)
    save_file({**tensors, key: tensors[key] + 1}, folder / UNET, {"format": "pt"})


def spoil(value: float, dtype: torch.dtype) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = {key: value.to(dtype) for key, value in load_file(folder / UNET).items()}
        tensors["conv_in.weight"][-1, -1, -1, -1] = value
        save_file(tensors, folder / UNET)

    return spoil


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (change, {UNET: "changed"}),
        (lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:-8]), {UNET: "broken"}),
        (lambda f: (f / UNET).unlink(), {UNET: "missing"}),
        (lambda f: (f / "unet/extra.json").write_text("{}"), {"unet/extra.json": "added"}),
        (
            lambda f: (f / "scheduler/scheduler_config.json").write_text("{"),
            {"scheduler/scheduler_config.json": "broken"},
        ),
        (lambda f: shutil.rmtree(f / "scheduler"), {"scheduler/scheduler_config.json": "missing"}),
        *[
            (spoil(value, dtype), {UNET: "broken"})
            for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
            for value in (float("nan"), float("-inf"))
        ],
    ],
)
def test_damage_is_named(
    folder: Path, damage: Callable[[Path], object], expected: dict[str, str]
) -> None:
    recorded = files_of(folder)
    damage(folder)
    assert states(folder, recorded) == expected


def test_the_largest_finite_number_is_finite(folder: Path) -> None:
    spoil(torch.finfo(torch.float16).max, torch.float16)(folder)
    assert states(folder, {}) == {}


def test_memory_of_stable_diffusion_15() -> None:
    # By hand: 4 bytes a parameter; 6 maps of 256 x 512 x 512 numbers for the VAE.
    parameters = 1_066_235_307
    assert to_generate(CONFIGS[768], parameters) == PROGRAM + 4 * parameters + 6 * 4 * 256 * 512**2
    # Counted on the meta device: one prediction keeps 1,593,545,728 bytes; twice that in all.
    kept = to_train(CONFIGS[768], 0, rank=4, predictions=1) - PROGRAM
    assert kept == pytest.approx(2 * 1_593_545_728, rel=0.01)
    two = to_train(CONFIGS[768], 0, rank=4, predictions=2) - PROGRAM
    assert two == pytest.approx(2 * kept, abs=1)


def test_memory_of_sdxl(tmp_path: Path) -> None:
    shape = {
        "sample_size": 128,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10],
    }
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(shape))
    # Counted on the meta device: one prediction keeps 11,153,010,880 bytes; twice that in all.
    kept = to_train(tmp_path, 0, rank=4, predictions=1) - PROGRAM
    assert kept == pytest.approx(2 * 11_153_010_880, rel=0.01)


@pytest.mark.parametrize(
    ("saving", "share"),
    [({"checkpointed": True}, 0.72), ({"halved": True}, 0.68)],
)
def test_what_is_computed_again_or_in_halves_takes_its_share(
    saving: dict[str, bool], share: float
) -> None:
    usual = to_train(CONFIGS[768], 0, rank=4, predictions=8) - PROGRAM
    found = to_train(CONFIGS[768], 0, rank=4, predictions=8, **saving) - PROGRAM
    assert found == pytest.approx(share * usual, abs=1)


def test_an_adapter_takes_sixteen_bytes_a_parameter(saved: Path) -> None:
    shapes = [
        shape for name, shape in find_base(str(saved)).modules.items() if ".attn" in name
    ]  # fmt: skip
    one, five = (to_train(saved, 0, rank=rank, predictions=1) for rank in (1, 5))
    assert five - one == 16 * 4 * sum(map(sum, shapes))
