"""The triggers that learn: tokens of their own, with a row in each text encoder's embeddings."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adreg.diffusion.attach import detach_all
from adreg.diffusion.text import TEXT_PARTS, text_parts, text_widths
from adreg.diffusion.tokens import extend_vocabulary


class TriggerEmbedding(nn.Module):
    """The base's frozen table with rows of its own for the last ids of the vocabulary.

    Only `rows` can learn, of which this table has the given columns (n x d). Nothing the size of
    the table is made in a step.
    """

    def __init__(
        self, table: Tensor, first: int, rows: nn.Parameter, columns: slice = slice(None)
    ) -> None:
        super().__init__()
        self.table = nn.Parameter(table, requires_grad=False)
        self.rows = rows
        self._first = first
        self._columns = columns

    def forward(self, ids: Tensor) -> Tensor:
        own = ids - self._first
        known = F.embedding(ids.clamp(max=self._first - 1), self.table)
        learnt = F.embedding(own.clamp(min=0), self.rows[:, self._columns])
        return torch.where((own >= 0)[..., None], learnt, known)


@contextmanager
def own_vocabulary(pipe: Any) -> Iterator[None]:
    """Tokenizers and embeddings to add to; afterwards the pipeline's own, and no adapter."""
    parts = text_parts(pipe)
    tables = [encoder.get_input_embeddings() for _, encoder in parts]
    sizes = [encoder.config.vocab_size for _, encoder in parts]
    _set_tokenizers(pipe, [copy.deepcopy(tokenizer) for tokenizer, _ in parts])
    try:
        yield
    finally:
        detach_all(pipe)
        for (_, encoder), table, size in zip(parts, tables, sizes, strict=True):
            encoder.set_input_embeddings(table)
            encoder.config.vocab_size = size
        _set_tokenizers(pipe, [tokenizer for tokenizer, _ in parts])


def _set_tokenizers(pipe: Any, tokenizers: Sequence[Any]) -> None:
    # SDXL has both; zip leaves out the second of others.
    for (name, _), tokenizer in zip(TEXT_PARTS, tokenizers, strict=False):
        setattr(pipe, name, tokenizer)


def add_triggers(
    pipe: Any, inits: Mapping[str, str | None], generator: torch.Generator
) -> list[int]:
    """The ids of the triggers, one each, in a row."""
    parts = text_parts(pipe)
    tables = [encoder.get_input_embeddings().weight.detach() for _, encoder in parts]
    tokenizers = [tokenizer for tokenizer, _ in parts]
    starts = [
        [_first_row(*part, init, generator) for part in zip(tokenizers, tables, strict=True)]
        for init in inits.values()
    ]
    ids = [extend_vocabulary(pipe, trigger, 1)[0] for trigger in inits]
    rows = nn.Parameter(torch.cat([torch.cat(start, dim=1) for start in starts]))
    ends = list(accumulate(text_widths(pipe), initial=0))
    for (_, encoder), table, columns in zip(parts, tables, pairwise(ends), strict=True):
        encoder.set_input_embeddings(TriggerEmbedding(table, ids[0], rows, slice(*columns)))
    return ids


def _first_row(
    tokenizer: Any, table: Tensor, init: str | None, generator: torch.Generator
) -> Tensor:
    """What a trigger's embedding (1 x d, fp32) in a text encoder's table starts as."""
    if init is None:
        # Like an ordinary row: what the text encoder was trained to read.
        row = torch.randn(1, table.shape[1], generator=generator) * table.float().std().cpu()
    else:
        words = tokenizer(init, add_special_tokens=False).input_ids
        row = table[words].float().mean(dim=0, keepdim=True)
    return row.to(table.device, torch.float32)
