"""Every test runs away from the user's data, offline, and without spinning OpenMP threads."""

from __future__ import annotations

import os
import sys

# Before torch is imported anywhere: idle OpenMP workers that spin make a tiny model on a busy
# two-core machine up to 70 times slower.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
for _name in [name for name in os.environ if name.startswith("ADREG_")]:
    del os.environ[_name]

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from tests import warm  # noqa: E402

# Examples have no time limit: a disk that waits for others is no error.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ADREG_HOME points into the test's own folder, so no test touches the user's registry."""
    monkeypatch.setenv("ADREG_HOME", str(tmp_path / "adreg-home"))


@pytest.fixture(autouse=True)
def _denormal_numbers() -> None:
    """Training in the test's own process has them flushed to zero; hypothesis needs them back."""
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def few_pictures() -> Iterator[None]:
    """Scores that are asked for in this process are of few pictures, of few steps each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adreg.service.scores.scoring.score_spec", warm.few_pictures)
        yield
