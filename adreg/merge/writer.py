"""A merged pipeline as a diffusers folder that carries its recipe and nothing private."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adreg.domain import Json
from adreg.merge.plan import Plan

RECIPE_FILE = "adreg_recipe.json"
_LIBRARIES = ("torch", "diffusers", "transformers", "peft")


def write_checkpoint(pipe: Any, plan: Plan, out: Path) -> None:
    """Save the pipeline, tokens and all, into `out`, with `adreg_recipe.json` inside.

    The same pipeline and plan give the same bytes: no date, no path of this machine.
    """
    pipe.save_pretrained(out, safe_serialization=True)
    usual = (out / "model_index.json").stat().st_mode
    for weights in out.rglob("*.safetensors"):
        weights.chmod(usual)  # safetensors writes 0600, whatever the umask says
    for described in sorted(out.rglob("*.json")):
        _forget_origin(described)
    recipe = json.dumps(recipe_record(plan), indent=2, sort_keys=True)
    (out / RECIPE_FILE).write_text(recipe + "\n", encoding="utf-8")


def recipe_record(plan: Plan) -> Json:
    """What `adreg_recipe.json` holds: the recipe, what became of it, the libraries."""
    return {
        "recipe": plan.recipe.to_json(),
        "merged": [operand.digest for operand in plan.operands],
        "concepts": [concept.to_json() for concept in plan.concepts],
        "renames": list(plan.renames),
        "warnings": list(plan.warnings),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _forget_origin(path: Path) -> None:
    """Take out `_name_or_path`, where both libraries note the folder a part was loaded from."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
        text = json.dumps(content, indent=2, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")
