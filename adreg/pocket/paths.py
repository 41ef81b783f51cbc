"""Where the built-in base lies inside the installed package."""

from __future__ import annotations

from pathlib import Path

WEIGHTS_DIR = Path(__file__).resolve().parent / "weights"
BASE_DIR = WEIGHTS_DIR / "base"  # a diffusers folder: StableDiffusionPipeline.from_pretrained
SCORER_DIR = WEIGHTS_DIR / "scorer"  # a transformers folder: CLIPModel.from_pretrained
IDENTITY_DIR = WEIGHTS_DIR / "identity"  # a transformers folder: ConvNextModel.from_pretrained
