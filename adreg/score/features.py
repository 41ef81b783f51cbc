"""A transformers folder as a scorer: unit-length features of pictures, and of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from adreg.errors import ArtifactError

_BATCH = 32
_LOCAL = {"local_files_only": True, "trust_remote_code": False}
# ImportError: a tokenizer that is there as spiece.model alone needs sentencepiece.
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError)


class ImageScorer:
    """Any CLIP, SigLIP, DINOv2 or ConvNeXt, as the measure of how alike pictures are.

    The feature is what the model was trained to compare by: the projected picture of a CLIP or
    SigLIP, the normalised class token of a DINOv2, the pooled map of a ConvNeXt. Pictures are
    prepared as the folder's own preprocessor_config says, by Pillow: transformers' other way of
    doing it gives other pixels where torchvision is installed.
    Raises ArtifactError where transformers cannot read the folder, or finds weights missing.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self._folder = folder
        self._device = device
        self._model: Any = _read(folder, _model).to(device)
        self._prepare: Any = _read(folder, _image_processor)

    @torch.no_grad()
    def images(self, images: Iterable[Image.Image]) -> Tensor:
        """Features (n x d), each of length 1, on the CPU; pictures are taken as they are needed.

        Raises ArtifactError where a feature is not finite.
        """
        see = getattr(self._model, "get_image_features", self._model)
        parts = []
        for batch in _batches(images):
            prepared = self._prepare(images=batch, return_tensors="pt").pixel_values
            parts.append(self._unit(see(pixel_values=prepared.to(self._device)).pooler_output))
        return torch.cat(parts)

    def _unit(self, features: Tensor) -> Tensor:
        found = F.normalize(features.float(), dim=-1).cpu()
        if not found.isfinite().all():
            raise ArtifactError(
                f"{self._folder}: the scorer gives features that are not finite",
                remedy="its weights are broken: restore them from their source",
            )
        return found


class Scorer(ImageScorer):
    """Any CLIP or SigLIP: sees how alike pictures and texts are.

    Raises ArtifactError where transformers cannot read the folder or its tokenizer.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        super().__init__(folder, device)
        self._siglip = self._model.config.model_type == "siglip"
        self._tokenizer: Any = _read(folder, _siglip_tokenizer if self._siglip else _tokenizer)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features (n x d), each of length 1, on the CPU. Raises ArtifactError as `images`."""
        inputs = self._tokenizer(
            # A SigLIP was trained on lower case; not every tokenizer of one sees to that.
            [text.lower() if self._siglip else text for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        # A SigLIP reads its padding as well, and takes the last place as the text's feature.
        seen = ("input_ids",) if self._siglip else ("input_ids", "attention_mask")
        found = self._model.get_text_features(**{k: inputs[k].to(self._device) for k in seen})
        return self._unit(found.pooler_output)


def _read(folder: Path, part: Callable[[Path], Any]) -> Any:
    try:
        return part(folder)
    except _UNREADABLE as error:
        raise ArtifactError(
            f"{folder}: transformers cannot read this scorer: {error}",
            remedy="give a folder of a model with all that belongs to it: its"
            " preprocessor_config.json and, where it reads texts, its tokenizer.json",
        ) from error


def _model(folder: Path) -> Any:
    model, found = AutoModel.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **_LOCAL
    )
    # transformers would fill them with random numbers and go on.
    missing = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    if missing:
        raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    return model.eval().requires_grad_(False)


def _image_processor(folder: Path) -> Any:
    return AutoImageProcessor.from_pretrained(folder, backend="pil", **_LOCAL)


def _tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder, **_LOCAL)


def _siglip_tokenizer(folder: Path) -> Any:
    # Read as it is where it can be: the class that transformers chooses would want sentencepiece
    # for a SigLIP, or build the tokenizer of a SigLIP 2 anew from its vocabulary.
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return _tokenizer(folder)


def _batches(images: Iterable[Image.Image]) -> Iterator[list[Image.Image]]:
    rest = iter(images)
    while batch := list(islice(rest, _BATCH)):
        yield batch
