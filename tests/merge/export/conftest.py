"""One merged checkpoint of each layout, with learned tokens, as it lies in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from adreg.bases.find import find_base
from adreg.diffusion.modules import attention_modules
from adreg.domain import Base, Checkpoint, Concept
from adreg.merge.execute import merge
from adreg.merge.export.source import Source, read_source
from tests.merge.cases import Case, adapter, recipe_for
from tests.tiny import sdxl_folder


@dataclass(frozen=True)
class Merged:
    """A checkpoint of two adapters, `<rex>` of one vector and `<tom>` of two, and its base."""

    base: Base
    cases: list[Case]
    checkpoint: Checkpoint

    @property
    def folder(self) -> Path:
        return self.checkpoint.path

    @property
    def source(self) -> Source:
        return read_source(self.folder, [c.trigger for c in self.checkpoint.concepts])


def merged(base: Base, folder: Path, widths: tuple[int, ...] = ()) -> Merged:
    """Attention of UNet and text encoders, and the way into a transformer: a 1x1 convolution."""
    unet = attention_modules(base.modules)
    text = [module for module in base.modules if module.endswith("layers.0.self_attn.q_proj")]
    ends = [module for module in base.modules if module.endswith("attentions.0.proj_in")][:1]
    cases = [
        adapter(folder, base, "rex", [*unet[:6], *text], seed=1, token_widths=widths),
        adapter(folder, base, "tom", [*unet[4:8], *ends], seed=2, vectors=2, token_widths=widths),
    ]
    recipe = recipe_for(base, cases, "concat")
    report = merge(base, [case.named for case in cases], recipe, folder / "model")
    checkpoint = Checkpoint(
        digest="c" * 64,
        path=folder / "model",
        method="concat",
        adapters=("rex", "tom"),
        base_digest=base.digest,
        base_name=base.name,
        concepts=tuple(Concept(**concept) for concept in report["concepts"]),
        recipe={},
        name="duo",
    )
    return Merged(base, cases, checkpoint)


@pytest.fixture(scope="session")
def duo(sd15: Base, tmp_path_factory: pytest.TempPathFactory) -> Merged:
    return merged(sd15, tmp_path_factory.mktemp("duo"))


@pytest.fixture(scope="session")
def duo_xl(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    base = find_base(str(sdxl_folder(tmp_path_factory.mktemp("bases") / "xl")))
    return merged(base, tmp_path_factory.mktemp("duo-xl"), (32, 48))
