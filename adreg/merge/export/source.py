"""A checkpoint's folder as its headers and configs describe it. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from adreg.bases.find import WITH_WEIGHTS, component_names, weights_of
from adreg.bases.folder import read_object, weight_files
from adreg.domain import Json
from adreg.errors import ArtifactError
from adreg.formats.header import Header, read_header
from adreg.formats.ldm import TOKEN_TABLE

RECIPE = "adreg_recipe.json"
"""What a merge says of itself, in the checkpoint's folder."""
DAMAGED = "move the folder away and restore it: adreg merge --again NAME"
"""What to do where a folder is not as it was written."""
_TOKENIZER = "tokenizer/tokenizer.json"
_SCHEDULER = "scheduler/scheduler_config.json"


@dataclass(frozen=True)
class Source:
    """The weights of a Stable Diffusion pipeline's folder, unread.

    `tensors` maps each component to its keys and the headers of the files that hold them; `learned`
    maps triggers to the ids of their tokens, which every tokenizer has the same; `prediction` is
    what the UNet predicts: `epsilon` or `v_prediction`.
    """

    folder: Path
    tensors: Mapping[str, Mapping[str, Header]]
    configs: Mapping[str, Json]
    learned: Mapping[str, tuple[int, ...]]
    prediction: str

    @cached_property
    def tables(self) -> dict[str, str]:
        """Component to the key of its table of token embeddings, of every text encoder."""
        return {
            component: key
            for component, held in self.tensors.items()
            for key in held
            if component.startswith("text_encoder") and key.endswith(TOKEN_TABLE)
        }

    def stock_rows(self, component: str) -> int:
        """Rows of a text encoder's table before the learned tokens were added.

        Where the base's table had rows to spare, learned tokens lie in them and it kept its size.
        """
        key = self.tables[component]
        rows = self.tensors[component][key].tensors[key].shape[0]
        ids = [token for tokens in self.learned.values() for token in tokens]
        return min(ids) if ids and max(ids) == rows - 1 else rows


def read_source(folder: Path, triggers: Iterable[str] = ()) -> Source:
    """The checkpoint, or base, in a folder; of `triggers`, those that are tokens of their own.

    ArtifactError naming the file where the folder is no whole Stable Diffusion pipeline.
    """
    names = [name for name in component_names(folder) if name in WITH_WEIGHTS]
    return Source(
        folder=folder,
        tensors={name: _tensors(folder / name, weights_of(name)) for name in names},
        configs={name: read_object(folder / name / "config.json") for name in names},
        learned=dict(_learned(folder, triggers)),
        prediction=read_object(folder / _SCHEDULER).get("prediction_type", "epsilon"),
    )


def _tensors(folder: Path, stem: str) -> dict[str, Header]:
    files = weight_files(folder, stem)
    if not files:
        raise ArtifactError(f"{folder} has no {stem}.safetensors", remedy=DAMAGED)
    return {key: header for header in map(read_header, files) for key in header.tensors}


def _learned(folder: Path, triggers: Iterable[str]) -> Iterable[tuple[str, tuple[int, ...]]]:
    wanted = sorted(triggers)
    if not wanted:
        return
    added = {
        entry["content"]: int(entry["id"])
        for entry in read_object(folder / _TOKENIZER).get("added_tokens", [])
    }
    for trigger in wanted:
        ids: list[int] = []
        while (token := f"{trigger}_{len(ids)}" if ids else trigger) in added:
            ids.append(added[token])
        if ids:
            yield trigger, tuple(ids)
