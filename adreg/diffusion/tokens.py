"""Learned trigger tokens: into the vocabulary, into prompts, and out of prompts again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adreg.errors import ArtifactError, ConflictError


def token_names(trigger: str, vectors: int) -> list[str]:
    """The vocabulary entries of a trigger with n vectors: `<rex>`, `<rex>_1`, ... as diffusers."""
    return [trigger if index == 0 else f"{trigger}_{index}" for index in range(vectors)]


def extend_vocabulary(pipe: Any, trigger: str, vectors: int) -> list[int]:
    """Adds a trigger's tokens to the tokenizer only; returns their ids.

    Raises ConflictError where one of them is in the vocabulary already.
    """
    names = token_names(trigger, vectors)
    _check_free(pipe, names)
    first = len(pipe.tokenizer)
    pipe.tokenizer.add_tokens(names)
    return list(range(first, first + vectors))


def _check_free(pipe: Any, names: Sequence[str]) -> None:
    taken = pipe.tokenizer.get_vocab().keys() & set(names)
    if taken:
        raise ConflictError(
            f"the token {min(taken)} is in the vocabulary already",
            remedy="rename the trigger of one of the adapters",
        )


def add_tokens(pipe: Any, tokens: Mapping[str, Tensor]) -> None:
    """Adds triggers and their embeddings (n_vectors x d each), in sorted order.

    Raises ConflictError for a token that exists and ArtifactError for another width.
    """
    table = pipe.text_encoder.get_input_embeddings()
    width = table.weight.shape[1]
    for trigger, rows in tokens.items():
        if rows.dim() != 2 or rows.shape[1] != width or not len(rows):
            raise ArtifactError(
                f"token {trigger}: embedding of shape {tuple(rows.shape)} for a text encoder "
                f"of width {width}",
                remedy="use an adapter made for this base",
            )
    # All before the first is added: a tokenizer cannot forget.
    _check_free(pipe, [name for t, rows in tokens.items() for name in token_names(t, len(rows))])
    fresh = [tokens[trigger] for trigger in sorted(tokens)]
    for trigger in sorted(tokens):
        extend_vocabulary(pipe, trigger, len(tokens[trigger]))
    if fresh:
        _append_rows(pipe, torch.cat(fresh))


def _append_rows(pipe: Any, rows: Tensor) -> None:
    old = pipe.text_encoder.get_input_embeddings().weight
    first = len(pipe.tokenizer) - len(rows)
    # Some tables are longer than the vocabulary (padding rows): write where the ids point.
    size = max(len(pipe.tokenizer), len(old))
    new = nn.Embedding(size, old.shape[1], device=old.device, dtype=old.dtype)
    new.requires_grad_(False)
    new.weight[: len(old)] = old
    new.weight[first : first + len(rows)] = rows.to(old)
    pipe.text_encoder.set_input_embeddings(new)
    pipe.text_encoder.config.vocab_size = size


def expand_prompt(pipe: Any, prompt: str) -> str:
    """The prompt with every many-vector trigger followed by its further tokens."""
    expanded: str = pipe.maybe_convert_prompt(prompt, pipe.tokenizer)
    return expanded


def token_ids(pipe: Any, prompts: Sequence[str]) -> Tensor:
    """Token ids (n x 77) of prompts, triggers expanded, padded and cut to the model's length."""
    expanded = [expand_prompt(pipe, prompt) for prompt in prompts]
    ids: Tensor = pipe.tokenizer(
        expanded,
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids


def trigger_ids(pipe: Any, trigger: str) -> list[int]:
    """The ids of a trigger's tokens, all vectors of it.

    Raises ArtifactError where the trigger is no token of the vocabulary.
    """
    vocabulary = pipe.tokenizer.get_added_vocab()
    found: list[int] = []
    while (name := token_names(trigger, len(found) + 1)[-1]) in vocabulary:
        found.append(vocabulary[name])
    if not found:
        raise ArtifactError(f"the trigger {trigger} is no token of this vocabulary")
    return found


def drop_token(input_ids: Tensor, dropped: int | Collection[int], pad_id: int) -> Tensor:
    """Token ids (n x 77) without the given ids: each row moved left and padded at its end."""
    gone = torch.tensor(sorted([dropped] if isinstance(dropped, int) else dropped))
    out = torch.full_like(input_ids, pad_id)
    for row, ids in zip(out, input_ids, strict=True):
        kept = ids[~torch.isin(ids, gone.to(ids))]
        row[: len(kept)] = kept
    return out


def encode_ids(pipe: Any, ids: Tensor) -> Tensor:
    """Text features (n x 77 x d) of token ids, as the UNet's cross-attention reads them."""
    features: Tensor = pipe.text_encoder(ids.to(pipe.text_encoder.device))[0]
    return features


@torch.no_grad()
def encode(pipe: Any, prompts: Sequence[str]) -> Tensor:
    """Text features (n x 77 x d) of prompts."""
    return encode_ids(pipe, token_ids(pipe, prompts))
