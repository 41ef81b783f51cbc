"""What a single-file checkpoint says of itself: modelspec and the recipe, no path. Torch-free."""

from __future__ import annotations

from adreg.bases.folder import read_object
from adreg.domain import Checkpoint
from adreg.formats.family import ARCHITECTURES, RESOLUTIONS, USUAL_RESOLUTION
from adreg.merge.export.layout import family_of, plan_embeddings
from adreg.merge.export.source import RECIPE, Source
from adreg.store.digest import canonical_json

_MODELSPEC = "1.0.1"
_ORIGINAL = "https://github.com/Stability-AI/generative-models"
# Of Stable Diffusion 2, the models for 512 pixels predict the noise, those for 768 v.
_SD2_NOISE = ("stable-diffusion-v2-512", "512x512")


def header_of(source: Source, checkpoint: Checkpoint) -> dict[str, str]:
    """The metadata of the file: `modelspec.*`, and under `adreg_recipe` what the merge wrote."""
    family, noise = family_of(source), source.prediction == "epsilon"
    known = ARCHITECTURES[family], RESOLUTIONS.get(family, USUAL_RESOLUTION)
    architecture, resolution = _SD2_NOISE if family == "sd2" and noise else known
    facts = {
        "format": "pt",
        "modelspec.sai_model_spec": _MODELSPEC,
        "modelspec.architecture": architecture,
        "modelspec.implementation": _ORIGINAL,
        "modelspec.title": checkpoint.name or checkpoint.digest[:12],
        "modelspec.resolution": resolution,
        "modelspec.prediction_type": "epsilon" if noise else "v",
        "modelspec.merged_from": ", ".join(checkpoint.adapters),
        "adreg_recipe": canonical_json(read_object(source.folder / RECIPE)),
    }
    if names := [embedding.name for embedding in plan_embeddings(source)]:
        facts["modelspec.trigger_phrase"] = ", ".join(names)
        facts["adreg_embeddings"] = canonical_json(
            {embedding.trigger: embedding.name for embedding in plan_embeddings(source)}
        )
    return facts
