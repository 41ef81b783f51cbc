"""A merged checkpoint as a diffusers folder that carries its recipe and nothing private.

The base's weights stream from its files into the new ones, each with its delta, so that memory
holds one tensor and not a model. The folder is what diffusers would save of a merged pipeline.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor, nn
from transformers import PreTrainedModel

from adreg.bases.find import weights_of
from adreg.bases.skeleton import load_skeleton, models_of, save_skeleton
from adreg.bases.stored import StoredWeights, stored_weights
from adreg.diffusion.modules import module_of_weight
from adreg.diffusion.text import TEXT_PARTS, text_parts
from adreg.diffusion.tokens import add_tokens, rows_by_encoder
from adreg.domain import Base, Json, Progress, silent
from adreg.errors import ArtifactError
from adreg.formats.ldm import TOKEN_TABLE
from adreg.formats.stream import TensorSpec, write_tensors
from adreg.merge.plan import Plan
from adreg.merge.recipe import MergeRecipe
from adreg.store.staging import disk_errors, write_json_atomic

RECIPE_FILE = "adreg_recipe.json"
LIBRARIES = ("torch", "diffusers", "transformers", "peft")
"""Those that a merge's numbers depend on: their versions go with it."""
_LARGEST_FILE = "10GB"  # where diffusers begins a second one


def write_checkpoint(
    base: Base,
    plan: Plan,
    deltas: Mapping[str, Tensor],
    tokens: Mapping[str, Tensor],
    out: Path,
    progress: Progress = silent,
) -> None:
    """Write the base with `deltas` (out x in, by module) and `tokens` (n_vectors x d) into `out`.

    `deltas` may be read from disk or made as they are asked for: each is asked for once, in the
    order of the files, and let go. The same plan gives the same bytes: no date, no path of this
    machine. Raises ConflictError for a token that the base has, ArtifactError naming file and key
    where base and plan do not fit or a value cannot be written in the recipe's dtype,
    ExternalError from the disk.
    """
    pipe = load_skeleton(base.path, getattr(torch, plan.recipe.dtype))
    stored = {
        name: stored_weights(base.path / name, name, model) for name, model in models_of(pipe)
    }
    _check_known(base, stored, deltas)
    add_tokens(pipe, tokens)
    with disk_errors(out):
        save_skeleton(pipe, out)
        for described in sorted(out.rglob("*.json")):
            _forget_origin(described)
        recipe = json.dumps(recipe_record(plan), indent=2, sort_keys=True)
        (out / RECIPE_FILE).write_text(recipe + "\n", encoding="utf-8")
    rows = _fresh_rows(pipe, tokens)
    said = _counted(progress, sum(len(weights.spelled) for weights in stored.values()))
    for name, model in models_of(pipe):
        part = _Merged(name, stored[name], deltas, rows.get(name))
        _write_component(out / name, part, model, plan.recipe, said)


def recipe_record(plan: Plan) -> Json:
    """What `adreg_recipe.json` holds: the recipe, what became of it, the libraries."""
    return {
        "recipe": plan.recipe.to_json(),
        "merged": [operand.digest for operand in plan.operands],
        "concepts": [concept.to_json() for concept in plan.concepts],
        "renames": list(plan.renames),
        "warnings": list(plan.warnings),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


@dataclass(frozen=True)
class _Rows:
    """New rows (n x d) of an embedding table, from row `first` on."""

    first: int
    values: Tensor


@dataclass(frozen=True)
class _Merged:
    """What one component's tensors become."""

    name: str
    stored: StoredWeights
    deltas: Mapping[str, Tensor]
    rows: _Rows | None

    def spelling(self, key: str) -> str:
        """The key in the new file: transformers keeps a text encoder's older one, diffusers not."""
        return self.stored.spelled[key] if self.name.startswith("text_encoder") else key

    def value(self, key: str, shape: torch.Size) -> Tensor:
        """The tensor of a key of the model; the dtype is the writer's affair."""
        if self.rows is not None and key.endswith(TOKEN_TABLE):
            return self._table(key, shape, self.rows)
        module = module_of_weight(self.name, key)
        if module is None or module not in self.deltas:
            return self.stored.read(key)
        weight = self.stored.read(key, torch.float32)
        weight.flatten(1).add_(self.deltas[module])
        return weight

    def _table(self, key: str, shape: torch.Size, rows: _Rows) -> Tensor:
        table = torch.zeros(shape)
        self.stored.read_into(table[: self.stored.spec(key).shape[0]], key)
        table[rows.first : rows.first + len(rows.values)] = rows.values
        return table


def _write_component(
    out: Path, part: _Merged, model: nn.Module, recipe: MergeRecipe, said: Callable[[], None]
) -> None:
    """One file, or shards and their index, cut and named as the libraries do."""
    planned = model.state_dict()
    keys = {part.spelling(key): key for key in planned}
    shapes = {name: planned[key] for name, key in keys.items()}
    stem = weights_of(part.name)
    split = split_torch_state_dict_into_shards(
        shapes,
        filename_pattern=f"{stem}{{suffix}}.safetensors",
        max_shard_size=recipe.shard_size or _LARGEST_FILE,
    )

    def value(name: str) -> Tensor:
        said()
        return part.value(keys[name], shapes[name].shape)

    for file, names in split.filename_to_tensors.items():
        specs = {name: TensorSpec(shapes[name].dtype, tuple(shapes[name].shape)) for name in names}
        write_tensors(out / file, specs, value, {"format": "pt"})
    if split.is_sharded:
        facts = dict(split.metadata)
        if isinstance(model, PreTrainedModel):
            facts["total_parameters"] = model.num_parameters()
        index = {
            "metadata": dict(sorted(facts.items())),
            "weight_map": dict(sorted(split.tensor_to_filename.items())),
        }
        write_json_atomic(out / f"{stem}.safetensors.index.json", index)


def _counted(progress: Progress, total: int) -> Callable[[], None]:
    """Says how many of all tensors were written before this one."""
    count = itertools.count()
    return lambda: progress("write", next(count), total)


def _fresh_rows(pipe: Any, tokens: Mapping[str, Tensor]) -> dict[str, _Rows]:
    """By text encoder; none where there are no tokens."""
    if not tokens:
        return {}
    encoders = [encoder for _, encoder in TEXT_PARTS]
    parts = zip(encoders, text_parts(pipe), rows_by_encoder(pipe, tokens), strict=False)
    return {name: _Rows(len(tokenizer) - len(rows), rows) for name, (tokenizer, _), rows in parts}


def _check_known(
    base: Base, stored: Mapping[str, StoredWeights], deltas: Mapping[str, Tensor]
) -> None:
    """Before a delta that nobody asks for is lost without a word."""
    known = {
        module_of_weight(name, key) for name, weights in stored.items() for key in weights.spelled
    }
    if unknown := sorted(set(deltas) - known):
        raise ArtifactError(
            f"the base {base.name} has no module {unknown[0]}",
            remedy="use an adapter made for this base",
        )


def _forget_origin(path: Path) -> None:
    """Take out `_name_or_path`, where both libraries note the folder a part was loaded from."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
        text = json.dumps(content, indent=2, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")
