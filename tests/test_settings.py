from __future__ import annotations

from pathlib import Path

import pytest

from adreg.errors import UsageError
from adreg.settings import load_settings


def test_flags_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "adreg.toml").write_text('method = "lora"\ndevice = "cpu"\nbase = "file"\n')
    environ = {"ADREG_HOME": str(tmp_path), "ADREG_BASE": "environment", "ADREG_DEVICE": "mps"}
    settings = load_settings(environ, tmp_path, device="cuda", scorer=None)
    assert settings.method == "lora"
    assert settings.base == "environment"
    assert settings.device == "cuda"
    assert settings.scorer == ""
    assert settings.home == tmp_path


def test_the_working_directory_goes_before_home(tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    for folder, method in ((here, "lora"), (home, "c-lora")):
        folder.mkdir()
        (folder / "adreg.toml").write_text(f'method = "{method}"\n')
    environ = {"ADREG_HOME": str(home)}
    assert load_settings(environ, here).method == "lora"
    assert load_settings(environ, tmp_path).method == "c-lora"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 3", "unknown key 'colour'"),
        ("device = 3", "device must be text"),
        ("device = true", "device must be text, not true"),
        ('device = "gpu"', "no device 'gpu'"),
        ('lease_seconds = "soon"', "lease_seconds must be a number"),
        ("settle_seconds = -1", "settle_seconds must be a number of seconds"),
        ("memory_share = -1", "memory_share must be a number from 0"),
        ("devices = 3", "devices must be a list of texts, not 3"),
        ("devices = [0, 1]", "devices must be a list of texts"),
        ('devices = ["cuda:0", "gpu"]', "no device 'gpu' in devices"),
        ('devices = ["auto", "cpu"]', "no device 'auto' in devices"),
        ('devices = ["cpu:1", "cpu:1"]', "devices names one twice"),
        ("home = '/x'", "unknown key 'home'"),
        ("= 3", "not valid TOML"),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "adreg.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        load_settings({"ADREG_HOME": str(tmp_path)}, tmp_path)
    assert str(file) in caught.value.message


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "adreg.toml").write_text('\ufeffbase = "sd15"', encoding="utf-8")
    assert load_settings({"ADREG_HOME": str(tmp_path)}, tmp_path).base == "sd15"


def test_numbers_may_come_from_the_environment(tmp_path: Path) -> None:
    environ = {"ADREG_HOME": str(tmp_path), "ADREG_SETTLE_SECONDS": "0.5"}
    assert load_settings(environ, tmp_path).settle_seconds == 0.5


def test_devices_are_a_list_or_have_commas_between(tmp_path: Path) -> None:
    (tmp_path / "adreg.toml").write_text('devices = ["cuda:0", "cuda:1"]')
    environ = {"ADREG_HOME": str(tmp_path)}
    assert load_settings(environ, tmp_path).devices == ("cuda:0", "cuda:1")
    environ["ADREG_DEVICES"] = "cpu:0, cpu:1"
    assert load_settings(environ, tmp_path).devices == ("cpu:0", "cpu:1")
    assert load_settings(environ, tmp_path, devices=["mps"]).devices == ("mps",)
