"""Learned trigger tokens: into the vocabulary, into prompts, and out of prompts again.

Where there are two text encoders, a trigger is one token with one id, and its embedding is the row
of each, side by side: of SDXL 768 + 1280 numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adreg.diffusion.text import Text, encode_ids, split_ids, text_parts, text_widths
from adreg.errors import ArtifactError, ConflictError


def token_names(trigger: str, vectors: int) -> list[str]:
    """The vocabulary entries of a trigger with n vectors: `<rex>`, `<rex>_1`, ... as diffusers."""
    return [trigger if index == 0 else f"{trigger}_{index}" for index in range(vectors)]


def extend_vocabulary(pipe: Any, trigger: str, vectors: int) -> list[int]:
    """Adds a trigger's tokens to the tokenizers only; returns their ids.

    Raises ConflictError where one of them is in the vocabulary already, ArtifactError where two
    tokenizers differ in how many tokens they know.
    """
    names = token_names(trigger, vectors)
    _check_free(pipe, names)
    sizes = {len(tokenizer) for tokenizer, _ in text_parts(pipe)}
    if len(sizes) > 1:
        raise ArtifactError(
            f"the tokenizers of the base know {' and '.join(map(str, sorted(sizes)))} tokens",
            remedy="use a base whose text encoders read the same vocabulary",
        )
    for tokenizer, _ in text_parts(pipe):
        tokenizer.add_tokens(names)
    first = sizes.pop()
    return list(range(first, first + vectors))


def _check_free(pipe: Any, names: Sequence[str]) -> None:
    taken = {
        name
        for tokenizer, _ in text_parts(pipe)
        for name in tokenizer.get_vocab().keys() & set(names)
    }
    if taken:
        raise ConflictError(
            f"the token {min(taken)} is in the vocabulary already",
            remedy="rename the trigger of one of the adapters",
        )


def add_tokens(pipe: Any, tokens: Mapping[str, Tensor]) -> None:
    """Adds triggers and their embeddings (n_vectors x d each), in sorted order.

    Raises ConflictError for a token that exists and ArtifactError for another width.
    """
    widths = text_widths(pipe)
    for trigger, rows in tokens.items():
        if rows.dim() != 2 or rows.shape[1] != sum(widths) or not len(rows):
            raise ArtifactError(
                f"token {trigger}: embedding of shape {tuple(rows.shape)} for a text encoder "
                f"of width {' + '.join(map(str, widths))}",
                remedy="use an adapter made for this base",
            )
    # All before the first is added: a tokenizer cannot forget.
    _check_free(pipe, [name for t, rows in tokens.items() for name in token_names(t, len(rows))])
    for trigger in sorted(tokens):
        extend_vocabulary(pipe, trigger, len(tokens[trigger]))
    for (tokenizer, encoder), rows in zip(
        text_parts(pipe), rows_by_encoder(pipe, tokens), strict=True
    ):
        _append_rows(tokenizer, encoder, rows)


def rows_by_encoder(pipe: Any, tokens: Mapping[str, Tensor]) -> list[Tensor]:
    """The embeddings `add_tokens` adds, in its order: for each text encoder n rows of its width."""
    widths = text_widths(pipe)
    fresh = [tokens[trigger] for trigger in sorted(tokens)]
    return list(torch.split(torch.cat([torch.empty(0, sum(widths)), *fresh]), widths, dim=1))


def _append_rows(tokenizer: Any, encoder: Any, rows: Tensor) -> None:
    old = encoder.get_input_embeddings().weight
    first = len(tokenizer) - len(rows)
    # Some tables are longer than the vocabulary (padding rows): write where the ids point.
    size = max(len(tokenizer), len(old))
    new = nn.Embedding(size, old.shape[1], device=old.device, dtype=old.dtype)
    new.requires_grad_(False)
    new.weight[: len(old)] = old
    new.weight[first : first + len(rows)] = rows.to(old)
    encoder.set_input_embeddings(new)
    encoder.config.vocab_size = size


def expand_prompt(pipe: Any, prompt: str) -> str:
    """The prompt with every many-vector trigger followed by its further tokens."""
    expanded: str = pipe.maybe_convert_prompt(prompt, pipe.tokenizer)
    return expanded


def token_ids(pipe: Any, prompts: Sequence[str]) -> Tensor:
    """Token ids (n x 77) of prompts, triggers expanded, padded and cut to the model's length.

    Of SDXL they are those of both tokenizers, side by side (n x 154): their padding differs.
    """
    expanded = [expand_prompt(pipe, prompt) for prompt in prompts]
    read = [
        tokenizer(
            expanded,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        for tokenizer, _ in text_parts(pipe)
    ]
    return torch.cat(read, dim=1)


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


def named_tokens(pipe: Any, prompts: Sequence[str], phrase: str) -> Tensor:
    """Which of each prompt's positions (n x 77) hold the phrase; all of them where it does not.

    The same for both text encoders of SDXL: they read one vocabulary.
    """
    words = expand_prompt(pipe, phrase)
    wanted = torch.tensor(pipe.tokenizer(words, add_special_tokens=False).input_ids)
    ids = token_ids(pipe, prompts)[:, : pipe.tokenizer.model_max_length]
    found = torch.zeros(ids.shape, dtype=torch.bool)
    for row, mask in zip(ids, found, strict=True):
        for start in range(len(row) - len(wanted) + 1 if len(wanted) else 0):
            if torch.equal(row[start : start + len(wanted)], wanted):
                mask[start : start + len(wanted)] = True
        if not mask.any():
            mask[:] = True
    return found


def drop_token(input_ids: Tensor, dropped: int | Collection[int], pad_id: int) -> Tensor:
    """Token ids (n x 77) without the given ids: each row moved left and padded at its end."""
    gone = torch.tensor(sorted([dropped] if isinstance(dropped, int) else dropped))
    out = torch.full_like(input_ids, pad_id)
    for row, ids in zip(out, input_ids, strict=True):
        kept = ids[~torch.isin(ids, gone.to(ids))]
        row[: len(kept)] = kept
    return out


def drop_tokens(pipe: Any, ids: Tensor, dropped: Collection[int]) -> Tensor:
    """What `token_ids` gave, without the given ids: `drop_token` for each tokenizer."""
    parts = zip(text_parts(pipe), split_ids(pipe, ids), strict=True)
    kept = [drop_token(own, dropped, tokenizer.pad_token_id) for (tokenizer, _), own in parts]
    return torch.cat(kept, dim=1)


@torch.no_grad()
def read_prompts(pipe: Any, prompts: Sequence[str]) -> Text:
    """What prompts say to the UNet."""
    return encode_ids(pipe, token_ids(pipe, prompts))


def encode(pipe: Any, prompts: Sequence[str]) -> Tensor:
    """Text features (n x 77 x d) of prompts."""
    return read_prompts(pipe, prompts).features
