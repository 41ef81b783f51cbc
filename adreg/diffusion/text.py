"""What prompts say to a UNet: the features it attends to, and for SDXL a pooled one beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TEXT_PARTS = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))


@dataclass(frozen=True)
class Text:
    """The features (n x 77 x d) of n prompts, and for SDXL their pooled projections (n x p)."""

    features: Tensor
    pooled: Tensor | None = None


def joined(texts: Sequence[Text]) -> Text:
    """The texts one after the other, all of one pipeline."""
    if len(texts) == 1:
        return texts[0]
    pooled = [text.pooled for text in texts if text.pooled is not None]
    features = torch.cat([text.features for text in texts])
    return Text(features, torch.cat(pooled) if pooled else None)


def text_parts(pipe: Any) -> list[tuple[Any, Any]]:
    """(tokenizer, text encoder): one pair, of SDXL two."""
    names = [names for names in TEXT_PARTS if getattr(pipe, names[1], None) is not None]
    return [(getattr(pipe, tokenizer), getattr(pipe, encoder)) for tokenizer, encoder in names]


def text_widths(pipe: Any) -> list[int]:
    """The width of each text encoder's embeddings."""
    return [int(encoder.config.hidden_size) for _, encoder in text_parts(pipe)]


def split_ids(pipe: Any, ids: Tensor) -> tuple[Tensor, ...]:
    """Token ids (n x 77, of SDXL n x 154) by text encoder."""
    return torch.split(ids, [part.model_max_length for part, _ in text_parts(pipe)], dim=1)


def encode_ids(pipe: Any, ids: Tensor) -> Text:
    """The text of token ids, as the UNet reads it: the last layer's features.

    Of SDXL it is the last but one's of both encoders side by side, and the second's projection of
    what it pooled (Podell et al. 2023, arXiv 2307.01952, 2.1).
    """
    parts = text_parts(pipe)
    if len(parts) == 1:
        encoder = parts[0][1]
        return Text(encoder(ids.to(encoder.device))[0])
    read = [
        encoder(own.to(encoder.device), output_hidden_states=True)
        for (_, encoder), own in zip(parts, split_ids(pipe, ids), strict=True)
    ]
    features = torch.cat([output.hidden_states[-2] for output in read], dim=-1)
    return Text(features, read[-1].text_embeds)
