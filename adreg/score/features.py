"""A CLIP folder as a scorer: unit-length features of pictures and of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from adreg.errors import ArtifactError
from adreg.store.staging import read_json

_BATCH = 32


class Scorer:
    """Any transformers CLIP folder.

    Pictures are prepared as the folder's own preprocessor_config says, but with Pillow alone:
    transformers' processor gives other pixels where torchvision is installed.
    Raises ArtifactError where transformers cannot read the folder.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        try:
            model: Any = CLIPModel.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True
            )
            self._tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ArtifactError(
                f"{folder}: transformers cannot read this scorer: {error}",
                remedy="give the folder of a CLIPModel with its tokenizer",
            ) from error
        self._model = model.eval().requires_grad_(False).to(device)
        self._config = read_json(folder / "preprocessor_config.json")
        self._device = device

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Features (n x d), each of length 1, on the CPU."""
        pixels = torch.stack([prepare(image, self._config) for image in images])
        parts = [
            _unit(self._model.get_image_features(pixel_values=part.to(self._device)))
            for part in torch.split(pixels, _BATCH)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features (n x d), each of length 1, on the CPU."""
        inputs = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        return _unit(
            self._model.get_text_features(
                input_ids=inputs.input_ids.to(self._device),
                attention_mask=inputs.attention_mask.to(self._device),
            )
        )


def prepare(image: Image.Image, config: dict[str, Any]) -> Tensor:
    """A picture as CLIP's input (3 x h x w): resized, cut at the middle, normalised."""
    crop = (config["crop_size"]["width"], config["crop_size"]["height"])
    resample = Image.Resampling(config.get("resample", Image.Resampling.BICUBIC))
    picture = ImageOps.fit(image.convert("RGB"), crop, resample)
    values = np.asarray(picture, dtype=np.float32) / 255
    mean, std = (np.array(config[key], dtype=np.float32) for key in ("image_mean", "image_std"))
    return torch.from_numpy((values - mean) / std).permute(2, 0, 1)


def _unit(found: Any) -> Tensor:
    # transformers 5 gives an output object, earlier versions the tensor itself.
    features: Tensor = getattr(found, "pooler_output", found)
    return F.normalize(features.float(), dim=-1).cpu()
