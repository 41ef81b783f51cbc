"""Random models of each kind that can score, a few thousand weights each, saved as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BitImageProcessor,
    ConvNextConfig,
    ConvNextImageProcessor,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

_SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
_WORDS = ("</s>", "<unk>", "a", "photo", "of", "dog", "cat", "in", "the", "snow")


def siglip_folder(folder: Path, seed: int = 0) -> Path:
    """Pictures of any shape become 56 x 56; texts of up to 8 words, ended and filled with </s>."""
    torch.manual_seed(seed)
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": len(_WORDS),
        "max_position_embeddings": 8,
        "pad_token_id": 0,
        "eos_token_id": 0,
    }
    config = SiglipConfig(text_config=text, vision_config={**_SMALL, "intermediate_size": 32})
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    _siglip_tokenizer(folder)
    return folder


def dinov2_folder(folder: Path, seed: int = 0, *, registers: bool = False) -> Path:
    """Pictures are made 64 pixels on the short side, then cut to 56 x 56 in the middle."""
    torch.manual_seed(seed)
    model: Any
    if registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**_SMALL, num_register_tokens=2))
    else:
        model = Dinov2Model(Dinov2Config(**_SMALL))
    model.save_pretrained(folder)
    crop = {"height": 56, "width": 56}
    BitImageProcessor(size={"shortest_edge": 64}, crop_size=crop).save_pretrained(folder)
    return folder


def convnext_folder(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])
    ConvNextModel(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(folder)
    return folder


def _siglip_tokenizer(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(".", "")
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 0)]
    )
    saved = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="</s>", eos_token="</s>", unk_token="<unk>"
    )
    saved.save_pretrained(folder)
    # As on the Hub, where the class that is named wants sentencepiece.
    config = folder / "tokenizer_config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "tokenizer_class": "SiglipTokenizer"}))
